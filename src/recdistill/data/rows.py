"""The kinds of rows a distilled dataset can hold, and how each becomes batches.

Every kind is training data (``len``, ``batch``, ``item_counts``) made of named tensors. A new kind is one class and one
line of ``KINDS``.

Shapes: ``N`` rows, ``T`` positions, ``V`` items, ``R`` width of the item factor, ``R1 R2`` ranks of users and time,
``L`` width of a learnt decoder.
"""

from dataclasses import dataclass, replace
from functools import cached_property
from typing import ClassVar, Protocol, runtime_checkable

import torch
from jaxtyping import Float, Int
from torch import Tensor

from recdistill.data.batches import LOGITS_BYTES, HardItems, Items, SequenceBatch, SoftItems, mask_of
from recdistill.data.sequences import TrainingData, hard_batch
from recdistill.errors import RecdistillError


@runtime_checkable
class Rows(TrainingData, Protocol):
    """Training data that is stored as named tensors."""

    kind: ClassVar[str]

    @property
    def length(self) -> int:
        """Items per row; 0 when there are no rows."""
        ...

    def tensors(self) -> dict[str, Tensor]:
        """Return what is stored, without the item factor."""
        ...

    @staticmethod
    def shapes() -> dict[str, str]:
        """Return the named shape of each stored tensor."""
        ...

    @staticmethod
    def from_tensors(tensors: dict[str, Tensor], item_factor: Tensor | None) -> "Rows":
        """Return the rows that ``tensors`` and the item factor describe."""
        ...


@runtime_checkable
class SoftRows(Rows, Protocol):
    """Rows that hold a distribution over items at every position."""

    def items(self) -> SoftItems:
        """Return all rows as soft items."""
        ...

    @staticmethod
    def from_tensors(tensors: dict[str, Tensor], item_factor: Tensor | None) -> "SoftRows":
        """Return the rows that ``tensors`` and the item factor describe."""
        ...


def compact_ids(ids: Int[Tensor, "..."]) -> Tensor:
    """Return ids in the narrowest signed integer type that holds them."""
    largest = int(ids.max()) if ids.numel() else 0
    return ids.to(torch.int16 if largest < 1 << 15 else torch.int32)


@dataclass(frozen=True)
class HardRows:
    """Real or made-up item sequences; each item predicts the next.

    Args:
        item_ids: left-aligned, filled up with 0.
        lengths: items per row, 2 or more.
    """

    item_ids: Int[Tensor, "N T"]
    lengths: Int[Tensor, " N"]
    kind: ClassVar[str] = "hard"

    def __len__(self) -> int:
        """Return the number of rows."""
        return len(self.item_ids)

    @property
    def length(self) -> int:
        """Items in the longest row."""
        return self.item_ids.shape[1]

    def batch(self, rows: Int[Tensor, " B"]) -> SequenceBatch:
        """Return some rows with targets at every position."""
        return hard_batch(self.item_ids[rows], self.lengths[rows] - 1)

    def item_counts(self, num_items: int) -> Float[Tensor, " V1"]:
        """Return how often each item occurs."""
        counts = torch.bincount(self.item_ids.flatten(), minlength=num_items + 1).float()
        counts[0] = 0
        return counts

    def tensors(self) -> dict[str, Tensor]:
        """Return what is stored."""
        return {"item_ids": compact_ids(self.item_ids), "lengths": compact_ids(self.lengths)}

    @staticmethod
    def shapes() -> dict[str, str]:
        """Return the named shape of each stored tensor."""
        return {"item_ids": "N T", "lengths": "N"}

    @staticmethod
    def from_tensors(tensors: dict[str, Tensor], item_factor: Tensor | None) -> "HardRows":
        """Return the rows that ``tensors`` describe."""
        return HardRows(tensors["item_ids"].long(), tensors["lengths"].long())


@dataclass(frozen=True)
class LabelledRows(HardRows):
    """Item sequences with a teacher's distribution after every item.

    The distribution at a position is ``softmax(target_queries item_factor^T)``: the teacher's hidden states and item
    table reproduce its full output exactly, in ``T D`` numbers a row instead of ``T V``.

    Args:
        item_ids: left-aligned, filled up with 0.
        lengths: items per row, 1 or more.
        target_queries: the teacher's hidden state after each item, in any float type.
        item_factor: the teacher's item table, rows of the items 1 to V.
    """

    target_queries: Float[Tensor, "N T R"]
    item_factor: Float[Tensor, "V R"]
    kind: ClassVar[str] = "labelled"

    def batch(self, rows: Int[Tensor, " B"]) -> SequenceBatch:
        """Return some rows with the teacher's distribution as target at every position."""
        lengths = self.lengths[rows]
        return SequenceBatch(
            items=HardItems(self.item_ids[rows]),
            lengths=lengths,
            weights=mask_of(lengths, self.length).float(),
            targets=SoftItems(self.target_queries[rows].to(self.keys), self.keys),
        )

    @property
    def keys(self) -> Float[Tensor, "V R"]:
        """The vectors of the items 1 to V that ``target_queries`` are multiplied with."""
        return self.item_factor

    def tensors(self) -> dict[str, Tensor]:
        """Return what is stored."""
        return super().tensors() | {"target_queries": self.target_queries}

    @staticmethod
    def shapes() -> dict[str, str]:
        """Return the named shape of each stored tensor."""
        return HardRows.shapes() | {"target_queries": "N T R"}

    @staticmethod
    def from_tensors(tensors: dict[str, Tensor], item_factor: Tensor | None) -> "LabelledRows":
        """Return the rows that ``tensors`` and the item factor describe."""
        hard = HardRows.from_tensors(tensors, None)
        return LabelledRows(hard.item_ids, hard.lengths, tensors["target_queries"], _needed(item_factor))


@dataclass(frozen=True)
class LowRankLabelledRows(LabelledRows):
    """Labelled item sequences whose queries lie in a subspace: ``target_queries`` holds ``R1 < R`` numbers for each.

    Args:
        label_basis: maps these numbers to queries for the item factor.
    """

    target_queries: Float[Tensor, "N T R1"]
    label_basis: Float[Tensor, "R1 R"]
    kind: ClassVar[str] = "low_rank_labelled"

    @cached_property
    def keys(self) -> Float[Tensor, "V R1"]:
        """The item factor, projected."""
        return self.item_factor @ self.label_basis.to(self.item_factor).T

    def tensors(self) -> dict[str, Tensor]:
        """Return what is stored."""
        return super().tensors() | {"label_basis": self.label_basis}

    @staticmethod
    def shapes() -> dict[str, str]:
        """Return the named shape of each stored tensor."""
        return LabelledRows.shapes() | {"target_queries": "N T R1", "label_basis": "R1 R"}

    @staticmethod
    def from_tensors(tensors: dict[str, Tensor], item_factor: Tensor | None) -> "LowRankLabelledRows":
        """Return the rows that ``tensors`` and the item factor describe."""
        hard = HardRows.from_tensors(tensors, None)
        return LowRankLabelledRows(
            hard.item_ids, hard.lengths, tensors["target_queries"], _needed(item_factor), tensors["label_basis"]
        )


def tucker_queries(
    core: Float[Tensor, "R1 R2 R"], user_factor: Float[Tensor, "N R1"], time_factor: Float[Tensor, "T R2"]
) -> Float[Tensor, "N T R"]:
    """Return ``G x1 U x2 T``: one query per synthetic user and position (TD3, equation 7, without its item mode)."""
    return torch.einsum("ijk,ai,bj->abk", core, user_factor, time_factor)


@dataclass(frozen=True)
class TuckerRows:
    """Distributions over items at every position, as the softmax of a Tucker decomposition (TD3).

    Args:
        core, user_factor, time_factor: what TD3 learns.
        item_factor: the teacher's item table, rows of the items 1 to V; frozen.
        pad_column: padding takes part in the softmax with a zero row (the habit of TD3's published code).
    """

    core: Float[Tensor, "R1 R2 R"]
    user_factor: Float[Tensor, "N R1"]
    time_factor: Float[Tensor, "T R2"]
    item_factor: Float[Tensor, "V R"]
    pad_column: bool = False
    kind: ClassVar[str] = "tucker"

    def __len__(self) -> int:
        """Return the number of rows."""
        return len(self.user_factor)

    @property
    def length(self) -> int:
        """Items per row."""
        return len(self.time_factor)

    def items(self) -> SoftItems:
        """Return all rows as soft items."""
        queries = tucker_queries(self.core, self.user_factor, self.time_factor)
        if not self.pad_column:
            return SoftItems(queries, self.item_factor)
        padding = self.item_factor.new_zeros(1, self.item_factor.shape[1])
        return SoftItems(queries, torch.cat([padding, self.item_factor]), first_id=0)

    def batch(self, rows: Int[Tensor, " B"]) -> SequenceBatch:
        """Return some rows with the next distribution as target at every position."""
        return soft_batch(some_rows(self.items(), rows), len(rows), self.length)

    def item_counts(self, num_items: int) -> Float[Tensor, " V1"]:
        """Return the expected number of occurrences of each item."""
        return expected_counts(self.items(), num_items)

    def tensors(self) -> dict[str, Tensor]:
        """Return what is stored."""
        stored = {"core": self.core, "user_factor": self.user_factor, "time_factor": self.time_factor}
        return stored | {"pad_column": torch.tensor([self.pad_column])}

    @staticmethod
    def shapes() -> dict[str, str]:
        """Return the named shape of each stored tensor."""
        return {"core": "R1 R2 R", "user_factor": "N R1", "time_factor": "T R2", "pad_column": "1"}

    @staticmethod
    def from_tensors(tensors: dict[str, Tensor], item_factor: Tensor | None) -> "TuckerRows":
        """Return the rows that ``tensors`` and the item factor describe."""
        return TuckerRows(
            tensors["core"],
            tensors["user_factor"],
            tensors["time_factor"],
            _needed(item_factor),
            bool(tensors["pad_column"].item()),
        )


@dataclass(frozen=True)
class LowRankRows:
    """Distributions over items at every position, as the softmax of latent vectors and a decoder, both learnt (Farzi).

    Args:
        latent: one vector per row and position.
        decoder: one vector per item, 1 to V.
        temperature: the logits are divided by it; above 0.
    """

    latent: Float[Tensor, "N T L"]
    decoder: Float[Tensor, "V L"]
    temperature: Float[Tensor, "1"]
    kind: ClassVar[str] = "low_rank"

    def __len__(self) -> int:
        """Return the number of rows."""
        return len(self.latent)

    @property
    def length(self) -> int:
        """Items per row."""
        return self.latent.shape[1]

    def items(self) -> SoftItems:
        """Return all rows as soft items."""
        return SoftItems(self.latent / self.temperature, self.decoder)

    def batch(self, rows: Int[Tensor, " B"]) -> SequenceBatch:
        """Return some rows with the next distribution as target at every position."""
        return soft_batch(some_rows(self.items(), rows), len(rows), self.length)

    def item_counts(self, num_items: int) -> Float[Tensor, " V1"]:
        """Return the expected number of occurrences of each item."""
        return expected_counts(self.items(), num_items)

    def tensors(self) -> dict[str, Tensor]:
        """Return what is stored."""
        return {"latent": self.latent, "decoder": self.decoder, "temperature": self.temperature}

    @staticmethod
    def shapes() -> dict[str, str]:
        """Return the named shape of each stored tensor."""
        return {"latent": "N T L", "decoder": "V L", "temperature": "1"}

    @staticmethod
    def from_tensors(tensors: dict[str, Tensor], item_factor: Tensor | None) -> "LowRankRows":
        """Return the rows that ``tensors`` describe; they need no item factor."""
        if not float(tensors["temperature"]) > 0:
            raise RecdistillError(f"the temperature of the rows is {float(tensors['temperature'])}, not above 0")
        return LowRankRows(tensors["latent"], tensors["decoder"], tensors["temperature"])


def some_rows(items: SoftItems, rows: Int[Tensor, " B"]) -> SoftItems:
    """Return some of the rows."""
    return replace(items, queries=items.queries[rows])


def expected_counts(items: SoftItems, num_items: int) -> Float[Tensor, " V1"]:
    """Return the expected number of occurrences of each item; 0 for padding."""
    counts = torch.zeros(num_items + 1)
    for part in items.queries.flatten(0, 1).split(max(1, LOGITS_BYTES // (4 * len(items.keys)))):
        counts[items.first_id :] += torch.softmax(part @ items.keys.T, -1).sum(0)
    counts[0] = 0
    return counts


def soft_batch(items: Items, num_rows: int, length: int, device: torch.device | str = "cpu") -> SequenceBatch:
    """Return a batch in which each item of full rows of ``length`` items predicts the next."""
    return SequenceBatch(
        items=items,
        lengths=torch.full((num_rows,), length - 1, device=device),
        weights=torch.ones(num_rows, length - 1, device=device),
    )


@dataclass(frozen=True)
class CountRows:
    """No rows, only how often each item occurs: what a popularity ranking needs, and nothing for other models.

    Args:
        counts: index 0 is padding.
    """

    counts: Float[Tensor, " V1"]
    kind: ClassVar[str] = "counts"

    def __len__(self) -> int:
        """Return 0."""
        return 0

    @property
    def length(self) -> int:
        """Return 0."""
        return 0

    def batch(self, rows: Int[Tensor, " B"]) -> SequenceBatch:
        """Raise: there are no rows."""
        raise RecdistillError("this distilled dataset holds no rows to train on")

    def item_counts(self, num_items: int) -> Float[Tensor, " V1"]:
        """Return the stored counts."""
        return self.counts

    def tensors(self) -> dict[str, Tensor]:
        """Return what is stored."""
        return {"counts": self.counts}

    @staticmethod
    def shapes() -> dict[str, str]:
        """Return the named shape of each stored tensor."""
        return {"counts": "V1"}

    @staticmethod
    def from_tensors(tensors: dict[str, Tensor], item_factor: Tensor | None) -> "CountRows":
        """Return the rows that ``tensors`` describe."""
        return CountRows(tensors["counts"])


def _needed(item_factor: Tensor | None) -> Tensor:
    if item_factor is None:
        raise RecdistillError("rows of this kind need the item factor")
    return item_factor


KINDS: dict[str, type[HardRows] | type[LabelledRows] | type[TuckerRows] | type[LowRankRows] | type[CountRows]] = {
    rows.kind: rows for rows in (HardRows, LabelledRows, LowRankLabelledRows, TuckerRows, LowRankRows, CountRows)
}
