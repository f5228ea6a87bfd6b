"""The users with the longest histories."""

from dataclasses import dataclass
from typing import ClassVar

from recdistill.data.development import Development
from recdistill.distill.base import RunContext, Summary, check_budget, check_room, item_factor_of
from recdistill.distill.coresets.selection import last_items, top_users, usable_users
from recdistill.rng import Streams
from recdistill.training.trajectory import Trajectory


@dataclass(frozen=True, kw_only=True)
class Longest:
    """Users by number of training events, largest first, each cut to the last ``length``; ties at random.

    Reference: TD3, arXiv 2502.02854, section 4.1 (its baseline of that name).
    """

    method: ClassVar[str] = "longest"

    num_rows: int = 30
    """Users, at least 1."""
    length: int = 50
    """Items per user, at least 2."""

    def __post_init__(self) -> None:
        """Check every field."""
        check_budget(self.num_rows, self.length, shortest=2)

    def distill(
        self,
        train: Development,
        teacher: Trajectory,
        previous: Summary | None,
        rng: Streams,
        context: RunContext,
    ) -> Summary:
        """Return the rows of the longest users."""
        check_room(self.num_rows, self.length, train)
        lengths = train.histories.train_lengths()
        users = top_users(usable_users(train), lengths, self.num_rows, rng.numpy("ties"))
        return Summary(last_items(train, users, self.length), item_factor_of(teacher))
