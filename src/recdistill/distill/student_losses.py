"""The two losses of bi-level distillation, as the engine takes them: on synthetic rows, and on real prefixes."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Literal, Protocol, runtime_checkable

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor
from torch.func import functional_call

from recdistill.bilevel.losses import LinearRead, StepLoss
from recdistill.bilevel.optimizer import Tensors
from recdistill.data.batches import HardItems, ReadItems, SequenceBatch, supervise
from recdistill.data.rows import soft_batch
from recdistill.models.base import Recommender
from recdistill.models.layers import MaskPlan, Masks
from recdistill.rng import generator_at


@dataclass(frozen=True, eq=False)
class SyntheticLoss:
    """The loss of a student on soft rows, in minibatches of fixed cyclic order.

    Args:
        model: the student.
        length: items per row.
        objective: which targets a row has, see :func:`~recdistill.data.batches.supervise`.
        first_id: item of the first column of the distributions.
        reads: how the rows of each minibatch are read.
        sizes: rows in each minibatch.
    """

    model: Recommender
    length: int
    objective: str
    first_id: int
    reads: Sequence[LinearRead]
    sizes: Sequence[int]

    def value(self, params: Tensors, inputs: Tensors, drawn: Tensors) -> Tensor:
        """Return the mean cross-entropy of a minibatch, given its expected item vectors."""
        vectors = inputs["embedded"]
        batch = self._batch(vectors)
        if "positions" in drawn:
            batch = replace(batch, positions=drawn["positions"], weights=drawn["weights"])
        loss: Tensor = functional_call(self.model, params, (batch, masks_of(drawn)))[0]
        return loss

    def draw(self, turn: int, middle: torch.Generator, dropout: torch.Generator) -> Tensors:
        """Return what is random in a step: positions of the targets and dropout masks."""
        batch = supervise(self._blanks[turn], self.objective, middle)
        drawn = {} if batch.positions is None else {"positions": batch.positions, "weights": batch.weights}
        return drawn | drawn_masks(self._plans[turn], dropout)

    @cached_property
    def _plans(self) -> list[MaskPlan]:
        return [mask_plan(self.model, supervise(blank, self.objective, torch.Generator())) for blank in self._blanks]

    def _batch(self, vectors: Float[Tensor, "B T D"]) -> SequenceBatch:
        return soft_batch(ReadItems(vectors, self.first_id), len(vectors), self.length, vectors.device)

    @cached_property
    def _blanks(self) -> list[SequenceBatch]:
        """Batches of the right shapes, one per minibatch, with zeros for item vectors."""
        table = self.model.item_table.detach()
        return [self._batch(table.new_zeros(size, self.length, table.shape[1])) for size in self.sizes]


@runtime_checkable
class MinibatchLoss(Protocol):
    """The loss of a student on synthetic rows, in minibatches of fixed cyclic order."""

    @property
    def model(self) -> Recommender:
        """The student."""
        ...

    @property
    def reads(self) -> Sequence[LinearRead]:
        """How the synthetic tensors of each minibatch are read, under the name ``embedded``."""
        ...

    def value(self, params: Tensors, inputs: Tensors, drawn: Tensors) -> Tensor:
        """Return the loss of a minibatch."""
        ...

    def draw(self, turn: int, middle: torch.Generator, dropout: torch.Generator) -> Tensors:
        """Return what is random in a step on the minibatch ``turn``, and what is constant in it."""
        ...


@dataclass(frozen=True)
class InnerSteps:
    """The inner loop of one outer step; everything random in it is keyed by its seeds, the step and the learner.

    Args:
        loss: what is computed.
        plain: steps before a window that begins again at the first minibatch; ``None`` where the minibatches go on.
        middle_seed: of the targets' positions.
        dropout_seed: of the masks.
    """

    loss: MinibatchLoss
    plain: int | None
    middle_seed: int
    dropout_seed: int

    def plan(self, step: int, learner: int) -> StepLoss:
        """Return the loss of a step."""
        passed = 0 if self.plain is None or step < self.plain else self.plain
        turn = (step - passed) % len(self.loss.reads)
        device = self.loss.model.device
        middle = generator_at(self.middle_seed + learner, step)
        dropout = generator_at(self.dropout_seed + learner, step, device)
        drawn = self.loss.draw(turn, middle, dropout)
        return StepLoss(self.loss.value, {}, drawn, {"embedded": self.loss.reads[turn]})


@dataclass(frozen=True, eq=False)
class RealLoss:
    """How a student is judged on real prefixes: next-item loss, and alignment of its features with a teacher's.

    Args:
        model: the student.
        feature_weight: weight of the alignment; 0 where there are no features.
        feature_scale: ``mean`` of the squared differences, or half their sum (``sum_half``).
    """

    model: Recommender
    feature_weight: float
    feature_scale: Literal["mean", "sum_half"]

    def value(self, params: Tensors, inputs: Tensors, drawn: Tensors) -> Tensor:
        """Return a part's contribution to the loss of the whole batch."""
        value: Tensor
        value, hidden = functional_call(self.model, params, (_prefixes(drawn), masks_of(drawn)))
        value = value * drawn["share"]
        if "features" not in drawn:
            return value
        if self.feature_scale == "mean":
            alignment = F.mse_loss(hidden.squeeze(1), drawn["features"]) * drawn["fraction"]
        else:
            alignment = 0.5 * F.mse_loss(hidden.squeeze(1), drawn["features"], reduction="sum")
        return value + self.feature_weight * alignment


@dataclass(frozen=True)
class RealBatch:
    """A batch of real prefixes, differentiated in parts.

    Args:
        loss: what is computed.
        batch: rows of hard items with one target each.
        features: the teacher's, or ``None``.
        part: rows at a time.
        dropout: where dropout comes from; none when ``None``.
    """

    loss: RealLoss
    batch: SequenceBatch
    features: Float[Tensor, "B D"] | None
    part: int
    dropout: torch.Generator | None = field(default=None, compare=False)

    def parts(self) -> Iterator[StepLoss]:
        """Yield the parts."""
        assert isinstance(self.batch.items, HardItems)
        assert self.batch.positions is not None
        rows = len(self.batch.lengths)
        for low in range(0, rows, self.part):
            cut = slice(low, min(low + self.part, rows))
            drawn = {
                "items": self.batch.items.ids[cut],
                "lengths": self.batch.lengths[cut],
                "weights": self.batch.weights[cut],
                "positions": self.batch.positions[cut],
                "share": self.batch.weights[cut].sum() / self.batch.weights.sum(),
            }
            if self.features is not None:
                drawn["features"] = self.features[cut]
                drawn["fraction"] = self.features.new_tensor(len(drawn["features"]) / rows)
            if self.dropout is not None:
                drawn |= drawn_masks(mask_plan(self.loss.model, _prefixes(drawn)), self.dropout)
            yield StepLoss(self.loss.value, {}, drawn)


ACTIVATIONS = 2**18
"""Numbers in one activation of a part of the outer loss: a megabyte, as much as a core's cache holds."""


def rows_per_part(rows: int, length: int, model: Recommender) -> int:
    """Return how many prefixes to differentiate at a time.

    Few enough for the activations to stay in a cache; enough for the gradient of all weights, which every part adds to,
    to be a small part of the work.
    """
    row = length * model.item_table.shape[1]
    weights = sum(value.numel() for value in model.parameters())
    return min(rows, math.ceil(max(ACTIVATIONS, weights / 4) / row))


def _prefixes(drawn: Tensors) -> SequenceBatch:
    return SequenceBatch(
        items=HardItems(drawn["items"]),
        lengths=drawn["lengths"],
        weights=drawn["weights"],
        positions=drawn["positions"],
    )


def mask_plan(model: Recommender, batch: SequenceBatch) -> MaskPlan:
    """Return which dropout masks a model asks for when it computes the loss of a batch."""
    plan = MaskPlan()
    with torch.no_grad():
        model(batch, plan)
    return plan


def drawn_masks(plan: MaskPlan, generator: torch.Generator) -> Tensors:
    """Return fresh masks by name, as a step's loss takes them."""
    return {f"mask {index}": mask for index, mask in enumerate(plan.draw(generator))}


def masks_of(drawn: Tensors) -> Masks | None:
    """Return the masks among what was drawn for a step; ``None`` where there are none."""
    masks = [value for name, value in drawn.items() if name.startswith("mask ")]
    return Masks(masks) if masks else None
