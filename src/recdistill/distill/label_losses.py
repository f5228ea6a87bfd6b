"""The two losses of refined labels: a student on labelled rows, and its behaviour on real histories."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor
from torch.func import functional_call

from recdistill.bilevel.losses import LinearRead, StepLoss
from recdistill.bilevel.optimizer import Tensors
from recdistill.data.batches import PAD, HardItems, ReadItems, SequenceBatch, SoftItems, log_normaliser, mask_of, pick
from recdistill.data.rows import HardRows
from recdistill.distill.student_losses import drawn_masks, mask_plan, masks_of
from recdistill.models.base import Recommender
from recdistill.models.layers import MaskPlan

NOTHING = -1e9
"""Logit of an item that is not there; finite, because the derivative of a sum of nothing is not a number."""
LEAST = 1e-4
"""Smallest part of a distribution that is taken to lie on the items not seen."""


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
        device, weights = self.model.device, mask_of(self.rows.lengths, self.rows.length).float()
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
        exclude_seen: leave the items of the history out of both distributions, as ranking leaves them out; an item
            that comes next again stays in.
    """

    model: Recommender
    keys: Float[Tensor, "V D"]
    behaviour: float
    exclude_seen: bool = False

    def value(self, params: Tensors, inputs: Tensors, drawn: Tensors) -> Tensor:
        """Return the mean over the drawn positions."""
        ids = drawn["items"]
        batch = SequenceBatch(HardItems(ids), drawn["lengths"], drawn["weights"], drawn["positions"])
        value: Tensor
        value, hidden = functional_call(self.model, params, (batch,))
        if self.exclude_seen:
            return self._unseen(params[self.model.item_table_name], hidden, drawn)
        if self.behaviour == 0:
            return value
        labels = SoftItems(drawn["queries"], self.keys).cross_entropy(hidden, params[self.model.item_table_name])
        return (1 - self.behaviour) * value + self.behaviour * labels.mean()

    def _unseen(self, table: Float[Tensor, "V1 D"], hidden: Float[Tensor, "B P D"], drawn: Tensors) -> Tensor:
        """Return the mean cross-entropy over the items that are not in the history.

        The seen ones are taken out of sums over all items, so that no row is written out over the catalogue.
        """
        ids, seen = drawn["items"], seen_items(drawn["items"], drawn["positions"])
        rows, absent = F.embedding(seen, table), seen == PAD  # (B, P, T, D), (B, P, T)
        logits = torch.einsum("bpd,bptd->bpt", hidden, rows).masked_fill(absent, NOTHING)
        everything = log_normaliser(hidden, table[1:])
        unseen = everything + _rest(torch.logsumexp(logits, -1) - everything)
        following = F.embedding(pick(ids, drawn["positions"] + 1), table)
        chances = torch.einsum("bpd,bptd->bpt", drawn["queries"], F.embedding((seen - 1).clamp(min=0), self.keys))
        chances = (chances - log_normaliser(drawn["queries"], self.keys).unsqueeze(-1)).exp().masked_fill(absent, 0.0)
        expected = SoftItems(drawn["queries"], self.keys).embed(table) - torch.einsum("bpt,bptd->bpd", chances, rows)
        expected = expected / (1 - chances.sum(-1, keepdim=True)).clamp(min=LEAST)
        wanted = (1 - self.behaviour) * following + self.behaviour * expected
        return (unseen - (hidden * wanted).sum(-1)).mean()


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


def _rest(log_part: Float[Tensor, "B P"]) -> Float[Tensor, "B P"]:
    """Return ``log(1 - exp(log_part))``, the part at most ``1 - LEAST``."""
    return torch.log1p(-log_part.exp().clamp(max=1 - LEAST))


def seen_items(ids: Int[Tensor, "B T1"], positions: Int[Tensor, "B P"]) -> Int[Tensor, "B P T"]:
    """Return the items up to each position, each once and without the one that comes next; padding in their place."""
    history, steps = ids[:, :-1], torch.arange(ids.shape[1] - 1, device=ids.device)
    same = (history.unsqueeze(1) == history.unsqueeze(2)).tril(-1).any(-1)  # (B, T): was there before
    kept = (steps <= positions.unsqueeze(-1)) & ~same.unsqueeze(1)
    kept &= history.unsqueeze(1) != pick(ids, positions + 1).unsqueeze(-1)
    return torch.where(kept, history.unsqueeze(1), PAD)


def some_positions(batch: SequenceBatch, count: int, generator: torch.Generator) -> SequenceBatch:
    """Return a batch with ``count`` predicted positions in each row, drawn with replacement from the real ones."""
    uniform = torch.rand(len(batch.lengths), count, generator=generator)
    positions: Int[Tensor, "B P"] = (uniform * batch.lengths.unsqueeze(1)).long()
    return SequenceBatch(batch.items, batch.lengths, torch.ones_like(uniform), positions)
