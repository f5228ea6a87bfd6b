"""The two losses of refined labels: a student on labelled rows, and its behaviour on real histories."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.func import functional_call

from recdistill.bilevel.losses import LinearRead, StepLoss
from recdistill.bilevel.optimizer import Tensors
from recdistill.data.batches import HardItems, ReadItems, SequenceBatch, SoftItems, mask_of
from recdistill.data.rows import HardRows
from recdistill.distill.student_losses import drawn_masks, mask_plan, masks_of
from recdistill.models.base import Recommender
from recdistill.models.layers import MaskPlan


@dataclass(frozen=True, eq=False)
class LabelledLoss:
    """The loss of a student on real items with soft labels after each, in minibatches of fixed cyclic order.

    Args:
        model: the student.
        rows: the items.
        reads: how the labels of each minibatch are read.
        sizes: rows in each minibatch.
    """

    model: Recommender
    rows: HardRows
    reads: Sequence[LinearRead]
    sizes: Sequence[int]

    def value(self, params: Tensors, inputs: Tensors, drawn: Tensors) -> Tensor:
        """Return the mean cross-entropy of a minibatch, given its labels as expected item vectors."""
        batch = _labelled(drawn, inputs["embedded"])
        loss: Tensor = functional_call(self.model, params, (batch, masks_of(drawn)))[0]
        return loss

    def draw(self, turn: int, middle: torch.Generator, dropout: torch.Generator) -> Tensors:
        """Return the rows of a step and its dropout masks."""
        return self._parts[turn] | drawn_masks(self._plans[turn], dropout)

    @cached_property
    def _parts(self) -> list[Tensors]:
        device, weights = self.model.item_table.device, mask_of(self.rows.lengths, self.rows.length).float()
        parts = zip(
            *(values.to(device).split(list(self.sizes)) for values in (self.rows.item_ids, self.rows.lengths, weights)),
            strict=True,
        )
        return [{"items": ids, "lengths": lengths, "weights": weight} for ids, lengths, weight in parts]

    @cached_property
    def _plans(self) -> list[MaskPlan]:
        table = self.model.item_table.detach()
        return [
            mask_plan(self.model, _labelled(part, table.new_zeros(*part["items"].shape, table.shape[1])))
            for part in self._parts
        ]


def _labelled(drawn: Tensors, vectors: Float[Tensor, "B T D"]) -> SequenceBatch:
    return SequenceBatch(HardItems(drawn["items"]), drawn["lengths"], drawn["weights"], targets=ReadItems(vectors))


@dataclass(frozen=True, eq=False)
class BehaviourLoss:
    """How far a student is from what its own kind does after training on the full data.

    The cross-entropy between the student's distribution after a real history and, with weight ``behaviour``, that of
    the same model trained on the full data; with the rest of the weight, the item that came next.

    Args:
        model: the student.
        keys: item table of the model trained on the full data, without padding.
        behaviour: from 0 to 1.
    """

    model: Recommender
    keys: Float[Tensor, "V D"]
    behaviour: float

    def value(self, params: Tensors, inputs: Tensors, drawn: Tensors) -> Tensor:
        """Return the mean over the drawn positions."""
        ids = drawn["items"]
        batch = SequenceBatch(HardItems(ids), drawn["lengths"], drawn["weights"], drawn["positions"])
        value: Tensor
        value, hidden = functional_call(self.model, params, (batch,))
        if self.behaviour == 0:
            return value
        labels = SoftItems(drawn["queries"], self.keys).cross_entropy(hidden, params[self.model.item_table_name])
        return (1 - self.behaviour) * value + self.behaviour * labels.mean()


@dataclass(frozen=True)
class RealHistories:
    """A batch of real histories with some positions of each, as one part of an outer loss.

    Args:
        loss: what is computed.
        batch: rows of hard items, with the same number of positions in each.
        queries: hidden vectors of the model trained on the full data, at these positions.
    """

    loss: BehaviourLoss
    batch: SequenceBatch
    queries: Float[Tensor, "B P D"]

    def parts(self) -> Iterator[StepLoss]:
        """Yield the whole batch."""
        assert isinstance(self.batch.items, HardItems)
        assert self.batch.positions is not None
        drawn = {
            "items": self.batch.items.ids,
            "lengths": self.batch.lengths,
            "weights": self.batch.weights,
            "positions": self.batch.positions,
            "queries": self.queries,
        }
        yield StepLoss(self.loss.value, {}, drawn)


def some_positions(batch: SequenceBatch, count: int, generator: torch.Generator) -> SequenceBatch:
    """Return a batch with ``count`` predicted positions in each row, drawn with replacement from the real ones."""
    uniform = torch.rand(len(batch.lengths), count, generator=generator)
    positions: Int[Tensor, "B P"] = (uniform * batch.lengths.unsqueeze(1)).long()
    return SequenceBatch(batch.items, batch.lengths, torch.ones_like(uniform), positions)
