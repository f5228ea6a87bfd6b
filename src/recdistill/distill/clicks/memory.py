"""The memory: units, each of which is a vector per field and a label, both free to move.

A unit begins as a real sample that was looked up in the reference model's tables. It lives in the space of these
tables; when they are trained on, it follows them (:mod:`recdistill.distill.clicks.alignment`). It remembers the ids of
its sample: models with tables of their own train on these (:mod:`recdistill.distill.clicks.export`).

Shapes: ``N`` units, ``F`` fields, ``C`` columns of ids, ``D`` width of an embedding.
"""

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from recdistill.data.clicks.block import ClickBatch, ClickBlock
from recdistill.distill.clicks.alignment import ALIGNMENTS, LOOKUP, aligned
from recdistill.errors import OptionError, choose, require_above, require_at_least
from recdistill.models.clicks.base import ClickModel, FieldTables

LARGEST_LOGIT = 9.0
"""Of a label that begins as 0 or 1 exactly: a chance of .9999."""


@dataclass(frozen=True)
class ClickMemory:
    """Units that a model trains on in place of the log.

    Args:
        vectors: of every unit and field, behind the look-up.
        logits: of the units' labels.
        blocks: number of the block that each unit was taken from, from 1.
        ids: of the sample that each unit began as.
    """

    vectors: Float[Tensor, "N F D"]
    logits: Float[Tensor, " N"]
    blocks: Int[Tensor, " N"]
    ids: Int[Tensor, "N C"]

    @staticmethod
    def empty(widths: Sequence[int], embedding_dim: int) -> "ClickMemory":
        """Return a memory without units, of fields with so many columns."""
        vectors, ids = torch.zeros(0, len(widths), embedding_dim), torch.zeros(0, sum(widths), dtype=torch.int32)
        return ClickMemory(vectors, torch.zeros(0), torch.zeros(0, dtype=torch.long), ids)

    def __len__(self) -> int:
        return len(self.logits)

    def batch(self, rows: np.ndarray) -> ClickBatch:
        """Return some units as a model sees them: vectors, and labels as probabilities."""
        chosen = torch.from_numpy(rows)
        return ClickBatch(torch.sigmoid(self.logits[chosen]), vectors=self.vectors[chosen])

    def some(self, rows: Int[Tensor, " m"]) -> "ClickMemory":
        """Return some units, in this order."""
        return ClickMemory(*(part[rows] for part in self.tensors().values()))

    def joined(self, other: "ClickMemory") -> "ClickMemory":
        """Return the units of both."""
        return ClickMemory(
            *(torch.cat(pair) for pair in zip(self.tensors().values(), other.tensors().values(), strict=True))
        )

    @property
    def num_bytes(self) -> int:
        """Bytes of all numbers."""
        return sum(part.numel() * part.element_size() for part in self.tensors().values())

    def tensors(self) -> dict[str, Tensor]:
        """Return everything by its name, for a file."""
        return {each.name: getattr(self, each.name) for each in fields(self)}


def units_in(ratio: float, seen: int) -> int:
    """Return how many units a memory has after so many samples: ``ratio`` of them, rounded, at least 1.

    Raises:
        OptionError: the ratio does not lie in (0, 1].
    """
    require_above(0, ratio=ratio)
    if ratio > 1:
        raise OptionError("ratio", ratio, fix="must lie in (0, 1]: units per sample, .01 for one in a hundred")
    return max(1, round(ratio * seen))


@torch.no_grad()
def lifted(model: ClickModel, block: ClickBlock, softness: float, number: int) -> ClickMemory:
    """Return samples as units: their vectors in the model's tables, and labels between the true one and the model's.

    Args:
        model: the reference model.
        block: the samples.
        softness: weight of the model's chance in the label, in [0, 1]; 0 for hard labels.
        number: of the block.

    Raises:
        OptionError: ``softness`` is out of its range.

    Reference: DIET's embedding and soft label pairs; the mixture is ours.
    """
    require_share(softness=softness)
    batch = block.batch(slice(None))
    vectors = model.embed(batch)
    chance = (1 - softness) * batch.labels + softness * torch.sigmoid(model.logits(vectors))
    assert batch.ids is not None
    return ClickMemory(vectors, logit_of(chance), torch.full((len(block),), number), batch.ids.int())


@torch.no_grad()
def carried_over(
    memory: ClickMemory,
    before: FieldTables,
    model: ClickModel,
    block: ClickBlock,
    *,
    alignment: str = "ridge",
    strength: float = 1e-2,
    refresh: float = 0.1,
) -> tuple[ClickMemory, Float[Tensor, " F"]]:
    """Return old units in the space of the tables as they are now, and how far each field has moved.

    Args:
        memory: units in the space of ``before``.
        before: the tables that the units live in.
        model: the reference model, trained on ``block``.
        block: whose ids, by their frequency, decide where the tables have gone.
        alignment: one of :data:`~recdistill.distill.clicks.alignment.ALIGNMENTS`.
        strength: how much a map is drawn to the identity, above 0.
        refresh: weight of the model's chance in an old label, in [0, 1].

    Returns:
        The units; and for each field the distance between its map and the identity, ``|A - I|_F / sqrt(D)``.

    Raises:
        OptionError: an option is out of its range.
    """
    choose("alignment", alignment, ALIGNMENTS)
    require_above(0, strength=strength)
    require_share(refresh=refresh)
    maps, column = [], 0
    for field, width in enumerate(before.widths):
        rows = before.num_ids[field]
        weights = sum(torch.from_numpy(block.frequencies(column + i, rows)[:rows]) for i in range(width))
        assert isinstance(weights, Tensor)
        now = model.tables.of(field)[:rows]
        maps.append(ALIGNMENTS[alignment](before.of(field), now, weights.to(now), strength))
        column += width
    turned = torch.stack(maps)
    if alignment == LOOKUP:
        vectors = model.tables(memory.ids) + aligned(memory.vectors - before(memory.ids), turned)
    else:
        vectors = aligned(memory.vectors, turned)
    chance = torch.sigmoid(memory.logits)
    if refresh > 0 and len(memory):
        chance = (1 - refresh) * chance + refresh * torch.sigmoid(model.logits(vectors))
    moved = (turned - torch.eye(turned.shape[1])).flatten(1).norm(dim=1) / turned.shape[1] ** 0.5
    logits = memory.logits if refresh == 0 else logit_of(chance)
    return replace(memory, vectors=vectors, logits=logits), moved


def kept(memory: ClickMemory, importance: Float[Tensor, " N"], most: int) -> ClickMemory:
    """Return at most ``most`` units, those of the largest importance, in their order.

    Raises:
        OptionError: ``most`` is below 1.
    """
    require_at_least(1, most=most)
    if len(memory) <= most:
        return memory
    return memory.some(torch.argsort(importance, descending=True, stable=True)[:most].sort().values)


def logit_of(chance: Float[Tensor, " n"]) -> Float[Tensor, " n"]:
    """Return the logit of probabilities, at most :data:`LARGEST_LOGIT` in size."""
    return torch.logit(chance.double(), eps=1e-12).clamp(-LARGEST_LOGIT, LARGEST_LOGIT).to(chance.dtype)


def require_share(**options: float) -> None:
    """Raise when an option does not lie in [0, 1].

    Raises:
        OptionError: naming the option and its value.
    """
    for name, value in options.items():
        if not 0 <= value <= 1:
            raise OptionError(name, value, fix="must lie in [0, 1]")
