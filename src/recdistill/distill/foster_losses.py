"""The losses of FOSTER, as the engine takes them: of a student on synthetic rows, and on real ones."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor
from torch.func import functional_call

from recdistill.bilevel.optimizer import Tensors
from recdistill.data.batches import SequenceBatch, SoftItems, supervise
from recdistill.data.rows import TuckerRows, soft_batch
from recdistill.distill.distributional import DistributionalLoss, Places
from recdistill.models.base import Recommender

Candidates = Callable[[int], Int[Tensor, " C"] | None]
"""The items that an inner step sees, by its number; ``None`` for all."""


def rows_over(
    parameters: Tensors, item_factor: Float[Tensor, "V R"], candidates: Int[Tensor, " C"] | None
) -> SoftItems:
    """Return synthetic rows over some items, connected to their parameters; over all items when ``None``."""
    core, users, times = (parameters[name] for name in ("core", "user_factor", "time_factor"))
    items = TuckerRows(core=core, user_factor=users, time_factor=times, item_factor=item_factor).items()
    return items if candidates is None else items.subset(candidates.to(item_factor.device))


@dataclass(frozen=True, eq=False)
class SyntheticSteps:
    """A student's loss on synthetic rows, step by step: the divergence from them, over each step's candidates.

    Args:
        model: the student.
        item_factor: of the rows.
        candidates: of each step.
        objective: which targets a row has, see :func:`~recdistill.data.batches.supervise`.
        middle: the generator of a step's random targets.

    Reference: FOSTER, arXiv 2605.30772, equations 18 to 21.
    """

    model: Recommender
    item_factor: Float[Tensor, "V R"]
    candidates: Candidates
    objective: str
    middle: Callable[[int], torch.Generator]

    def __call__(self, params: Tensors, synthetic: Tensors, step: int) -> Tensor:
        """Return the mean cross-entropy over all targets, in nats; it differs from the divergence by a constant."""
        items = rows_over(synthetic, self.item_factor, self.candidates(step))
        rows, length, _ = items.queries.shape
        batch = supervise(soft_batch(items, rows, length, items.keys.device), self.objective, self.middle(step))
        loss: Tensor = functional_call(self.model, params, (batch,))[0]
        return loss


@dataclass(frozen=True, eq=False)
class Regulariser:
    """The distributional regulariser of synthetic rows, weighted.

    Args:
        loss: of rows at places.
        weight: above 0.
        item_factor: of the rows.
        candidates: the items that are compared; all when ``None``.
        places: pairs of candidates.
    """

    loss: DistributionalLoss
    weight: float
    item_factor: Float[Tensor, "V R"]
    candidates: Int[Tensor, " C"] | None
    places: Places

    def __call__(self, synthetic: Tensors) -> Tensor:
        """Return the weighted loss, differentiable in the parameters of the rows."""
        return self.weight * self.loss(rows_over(synthetic, self.item_factor, self.candidates), self.places)


@dataclass(frozen=True, eq=False)
class RealBatch:
    """A student on real rows: its model's own loss, and feature matching; and the regulariser of the synthetic rows.

    Args:
        model: the student.
        batch: rows of hard items, with whatever the model's loss draws.
        features: the teacher's hidden vectors at all inputs; ``None`` for no matching.
        feature_weight: of the mean squared difference of hidden vectors, over real positions and width.
        regulariser: ``None`` for none.

    Reference: FOSTER, arXiv 2605.30772, equations 11, 16 and 17.
    """

    model: Recommender
    batch: SequenceBatch
    features: Float[Tensor, "B T D"] | None
    feature_weight: float
    regulariser: Regulariser | None

    def __call__(self, params: Tensors, synthetic: Tensors) -> Tensor:
        """Return the outer loss."""
        value: Tensor
        value, hidden = functional_call(self.model, params, (self.batch,))
        if self.features is not None:
            apart = F.mse_loss(hidden, self.features, reduction="none").mean(-1)
            weights = self.batch.weights
            value = value + self.feature_weight * (apart * weights).sum() / weights.sum()
        return value if self.regulariser is None else value + self.regulariser(synthetic)
