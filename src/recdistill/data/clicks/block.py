"""A block of a click log as arrays, and the batches that models see."""

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from recdistill.data.clicks.codes import MISSING


@dataclass(frozen=True)
class ClickBatch:
    """Samples and their labels. Features are ids, or vectors where the ids were looked up already.

    Args:
        labels: 0 or 1, or a probability.
        ids: of every column; field ``f`` has the next ``widths[f]`` columns.
        vectors: one per field.
    """

    labels: Float[Tensor, " B"]
    ids: Int[Tensor, "B C"] | None = None
    vectors: Float[Tensor, "B F D"] | None = None

    def to(self, device: torch.device) -> "ClickBatch":
        """Return the same batch on another device."""
        ids, vectors = (None if part is None else part.to(device) for part in (self.ids, self.vectors))
        return ClickBatch(self.labels.to(device), ids, vectors)


@dataclass(frozen=True)
class ClickBlock:
    """Consecutive rows of a click log, coded.

    Args:
        ids: of every column, 0 for a missing value; field ``f`` has the next ``widths[f]`` columns.
        labels: 0 or 1.
        widths: columns of each field.
        groups: what grouped AUC groups by, any numbers; ``None`` for no groups.
    """

    ids: Int[np.ndarray, "n C"]
    labels: Float[np.ndarray, " n"]
    widths: tuple[int, ...]
    groups: Int[np.ndarray, " n"] | None = None

    def __len__(self) -> int:
        return len(self.labels)

    def some(self, rows: Int[np.ndarray, " m"]) -> "ClickBlock":
        """Return the rows of these indices, in their order."""
        groups = None if self.groups is None else self.groups[rows]
        return replace(self, ids=self.ids[rows], labels=self.labels[rows], groups=groups)

    def batch(self, rows: Int[np.ndarray, " m"] | slice) -> ClickBatch:
        """Return some rows as a model sees them."""
        ids = torch.from_numpy(np.ascontiguousarray(self.ids[rows]))
        return ClickBatch(torch.from_numpy(self.labels[rows].astype(np.float32)), ids)

    def batches(self, size: int) -> Iterator[ClickBatch]:
        """Yield all rows in their order, ``size`` at a time."""
        for start in range(0, len(self), size):
            yield self.batch(slice(start, start + size))

    def frequencies(self, column: int, num_ids: int) -> Int[np.ndarray, " n_ids"]:
        """Return how often each id occurs in a column."""
        return np.bincount(self.ids[:, column], minlength=num_ids)


def pooling_weights(ids: Int[Tensor, "B W"]) -> Float[Tensor, "B W"]:
    """Return the weight of each value in the mean of a field: equal ones, 0 behind the last value.

    A row without any value has one: the missing value.
    """
    there = ids != MISSING
    there = torch.cat([there[:, :1] | ~there.any(1, keepdim=True), there[:, 1:]], dim=1).float()
    return there / there.sum(1, keepdim=True)
