"""Train one model of clicks: on a log, on a memory, on rows of a log or on exported rows, and with which tables.

Two ways, which are different claims. With *given* tables a model reads those of the reference model, frozen, and learns
what follows them; another width goes through an adapter. With tables of its *own* it begins at random and learns
everything.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from recdistill.distill.clicks.export import ClickRows
from recdistill.errors import choose
from recdistill.models.clicks import CLICK_MODELS
from recdistill.models.clicks.base import ClickModel, FieldTables
from recdistill.progress import SILENT, Progress
from recdistill.rng import Streams
from recdistill.training.clicks import ClickData, ClickRecipe, fit_clicks
from recdistill.training.fit import FitResult

FEW_SAMPLES = ClickRecipe(learning_rate=3e-3, weight_decay=1e-3, epochs=20, steps_per_epoch=16)
"""The judging recipe for a small set of samples with soft labels; a whole log has the recipe's defaults, one pass."""
FEW_HARD_LABELS = ClickRecipe(weight_decay=1e-3, epochs=3, steps_per_epoch=16)
"""The same where labels are 0 or 1: few samples are soon known by heart, and soft labels are not."""


@dataclass(frozen=True, kw_only=True)
class ClickStudentSpec:
    """Which model is trained, and how."""

    model: str = "deepfm"
    """Name in ``CLICK_MODELS``."""
    config: Mapping[str, Any] = field(default_factory=dict)
    """Its arguments beside the fields; its defaults for the rest."""
    recipe: ClickRecipe = FEW_SAMPLES
    """How it is trained."""

    def __post_init__(self) -> None:
        """Check the name."""
        choose("--model", self.model, CLICK_MODELS)

    def new(self, num_ids: Sequence[int], widths: Sequence[int], rng: Streams) -> ClickModel:
        """Return the model before training.

        Raises:
            OptionError: an argument is refused.
        """
        return CLICK_MODELS[self.model](num_ids, widths, **self.config, generator=rng.torch("model"))


def train_with_own_tables(
    data: ClickData,
    spec: ClickStudentSpec,
    num_ids: Sequence[int],
    widths: Sequence[int],
    *,
    seed: int,
    state: Path | None = None,
    progress: Progress = SILENT,
) -> tuple[ClickModel, FitResult]:
    """Return a model that learnt everything from some samples, and what its training did.

    Args:
        data: samples with ids.
        spec: the model and its training.
        num_ids: ids of each field.
        widths: columns of each field.
        seed: of weights, order and dropout.
        state: file for the state of an unfinished run.
        progress: told after every epoch.

    Raises:
        NumericalError: training diverged.
    """
    rng = Streams(seed).child("student")
    model = spec.new(num_ids, widths, rng)
    return model, fit_clicks(model, data, spec.recipe, rng, state=state, progress=progress)


def train_on_rows(
    rows: ClickRows, spec: ClickStudentSpec, *, seed: int, state: Path | None = None, progress: Progress = SILENT
) -> tuple[ClickModel, FitResult]:
    """Return a model with tables of its own that learnt from exported rows; every id has the vector of its group.

    Raises:
        NumericalError: training diverged.
    """
    groups = rows.groups
    options: dict[str, Any] = {"seed": seed, "state": state, "progress": progress}
    model, result = train_with_own_tables(rows, spec, groups.counts, groups.widths, **options)
    groups.expand(model)
    return model, result


def train_with_given_tables(
    data: ClickData,
    spec: ClickStudentSpec,
    tables: FieldTables,
    *,
    seed: int,
    state: Path | None = None,
    progress: Progress = SILENT,
) -> tuple[ClickModel, FitResult]:
    """Return a model that learnt what follows given tables, and what its training did.

    Args:
        data: units of a memory in the space of the tables, or samples with ids.
        spec: the model and its training.
        tables: of the reference model; frozen, and not copied.
        seed: of weights, order and dropout.
        state: file for the state of an unfinished run.
        progress: told after every epoch.

    Raises:
        NumericalError: training diverged.
    """
    rng = Streams(seed).child("student")
    model = spec.new((1,) * len(tables.widths), tables.widths, rng)
    model.take_tables(tables, rng.torch("adapter"))
    return model, fit_clicks(model, data, spec.recipe, rng, state=state, progress=progress)
