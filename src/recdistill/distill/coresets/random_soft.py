"""Random users with a teacher's soft labels: the control that published comparisons leave out."""

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from jaxtyping import Float

from recdistill.data.batches import HardItems
from recdistill.data.development import Development
from recdistill.data.rows import HardRows, LabelledRows
from recdistill.distill.base import RunContext, Summary, check_budget, check_reads, check_room, item_factor_of
from recdistill.distill.coresets.selection import last_items, random_users
from recdistill.errors import OptionError, choose
from recdistill.models.base import Recommender
from recdistill.rng import Streams
from recdistill.training.trajectory import Trajectory


@dataclass(frozen=True, kw_only=True)
class RandomSoft:
    """Rows drawn as by :class:`Random`, with the teacher's distribution over all items after every item as target.

    The labels are stored as the teacher's hidden states and item table, which reproduce the distributions exactly
    (up to the precision they are stored in).
    """

    method: ClassVar[str] = "random_soft"

    num_rows: int = 30
    """Users, at least 1."""
    length: int = 50
    """Items per user, at least 1 and at most what the teacher reads."""
    precision: Literal["float16", "float32"] = "float16"
    """Stored precision of the hidden states."""

    def __post_init__(self) -> None:
        """Check every field."""
        check_budget(self.num_rows, self.length, shortest=1)
        choose("precision", self.precision, dict.fromkeys(("float16", "float32")))

    def check(self, train: Development) -> None:
        """Raise when the budget is larger than the data."""
        check_room(self.num_rows, self.length, train)

    def distill(
        self,
        train: Development,
        teacher: Trajectory,
        previous: Summary | None,
        rng: Streams,
        context: RunContext,
    ) -> Summary:
        """Return the rows of the drawn users with the teacher's labels."""
        self.check(train)
        model = labelling_model(teacher)
        check_reads(self.num_rows, self.length, self.length, teacher)
        rows = last_items(train, random_users(train, self.num_rows, rng), self.length)
        queries = hidden_states(model, rows).to(getattr(torch, self.precision))
        factor = item_factor_of(teacher)
        return Summary(LabelledRows(rows.item_ids, rows.lengths, queries, factor), factor)


def labelling_model(teacher: Trajectory) -> Recommender:
    """Return the best teacher, whose distributions are made of hidden vectors and item vectors alone.

    Raises:
        OptionError: they need more than that, such as a bias for each item.
    """
    model = teacher.best()
    if model.item_width < model.item_table.shape[1]:
        raise OptionError(
            "--teacher-model",
            model.name,
            fix="gives each item a bias, which soft labels do not store; use another teacher, such as sasrec",
        )
    return model


@torch.no_grad()
def hidden_states(model: Recommender, rows: HardRows) -> Float[torch.Tensor, "N T D"]:
    """Return the model's hidden state after every item of rows, 0 at padding."""
    hidden = model.encode(model.embed(HardItems(rows.item_ids)), rows.lengths)
    real = torch.arange(rows.length) < rows.lengths.unsqueeze(1)
    return hidden * real.unsqueeze(-1)
