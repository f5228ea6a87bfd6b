"""Train a model on real or distilled data under one fixed recipe, and score it.

The judging recipe is :class:`~recdistill.training.fit.TrainingRecipe` with its defaults: the same optimiser, search
budget and early stopping on the same validation events for the full data, every method and every control.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, get_args

from jaxtyping import Float
from torch import Tensor

from recdistill.data.sequences import EvaluationCases, TrainingData
from recdistill.data.text import Catalogue
from recdistill.distill.teacher import make_model
from recdistill.errors import OptionError, choose
from recdistill.evaluation.protocols import evaluate
from recdistill.models.base import Recommender
from recdistill.progress import SILENT, Progress
from recdistill.rng import Streams
from recdistill.training.fit import FitResult, TrainingRecipe, fit

ItemTable = Literal["random", "given", "frozen"]
MONITOR = "NDCG@10"


@dataclass(frozen=True, kw_only=True)
class StudentSpec:
    """Which model is trained, and how."""

    model: str = "sasrec"
    """Name in ``MODELS``."""
    config: Mapping[str, Any]
    """Keyword arguments of the model; its defaults for the rest."""
    max_seq_len: int = 50
    """Longest history that the model reads, in items."""
    items: ItemTable = "random"
    """Item table: learnt from nothing, started from the given item factor, or that factor frozen."""
    recipe: TrainingRecipe
    """How it is trained."""

    def __post_init__(self) -> None:
        """Check every field."""
        choose("--items", self.items, dict.fromkeys(get_args(ItemTable)))


def train_student(
    data: TrainingData,
    spec: StudentSpec,
    *,
    num_items: int,
    seed: int,
    item_factor: Float[Tensor, "V D"] | None = None,
    catalogue: Catalogue | None = None,
    valid: EvaluationCases | None = None,
    state: Path | None = None,
    progress: Progress = SILENT,
) -> tuple[Recommender, FitResult]:
    """Return a trained model and what its training did.

    Args:
        data: real or distilled rows; with no rows at all the model is returned as it starts.
        spec: the model and its training.
        num_items: size of the catalogue, V.
        seed: of weights, order and dropout.
        item_factor: needed for ``items`` other than ``random``.
        catalogue: the items, needed by models that read texts.
        valid: held-out events for early stopping by NDCG@10 in full ranking; without them the model is trained to the
            last epoch of the recipe.
        state: file for the state of an unfinished run.
        progress: told after every epoch.

    Raises:
        OptionError: no item factor where one is needed, or one that does not fit the model.
        NumericalError: training diverged.
    """
    rng = Streams(seed).child("student")
    model = make_model(spec.model, num_items, spec.max_seq_len, spec.config, rng, catalogue)
    if spec.items != "random" and model.trainable:
        if item_factor is None:
            raise OptionError("--items", spec.items, fix="needs an item factor, and this data has none; use random")
        model.load_item_table(item_factor, freeze=spec.items == "frozen")
    if valid is None:
        recipe = replace(spec.recipe, patience=None)
        return model, fit(model, data, recipe, rng, state=state, progress=progress)

    def validate(current: Recommender) -> float:
        return evaluate(current, valid).metrics()[MONITOR]

    return model, fit(model, data, spec.recipe, rng, validate=validate, state=state, progress=progress)
