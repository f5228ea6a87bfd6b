"""How the engine reads soft items: as a linear map of the student's item table.

A synthetic position holds a distribution ``p`` over items, and a student reads it as ``p E``. Its derivatives in ``E``
and in ``p`` are matrix products with the same ``p``, so they are written here and the engine never differentiates them.
"""

from dataclasses import dataclass, field

import torch
from jaxtyping import Float
from torch import Tensor

from recdistill.bilevel.optimizer import Tensors
from recdistill.data.batches import SoftItems
from recdistill.data.soft_items import expected_rows, logsumexp_rows, row_gradient, table_gradient

COLUMNS = 512
"""Items per tile of a product that is added up: its scratch space should stay in a core's cache."""


@dataclass(frozen=True)
class DenseRead:
    """Distributions written out.

    Args:
        weight: name of the item table, (V + 1, D).
        source: name of the distributions, (B, T, V).
        first_id: item of the first column.
    """

    weight: str
    source: str
    first_id: int

    def apply(self, synthetic: Tensors, weight: Tensor) -> Tensor:
        """Return the expected rows of the table, (B, T, D); with leading axes of the table in front."""
        probabilities = synthetic[self.source]
        rows = probabilities.flatten(0, 1) @ weight[..., self.first_id :, :]
        return rows.unflatten(-2, probabilities.shape[:2])

    def transpose(self, synthetic: Tensors, bar: Tensor, into: Tensor) -> None:
        """Add the derivative of ``<bar, expected rows>`` in the table to ``into``."""
        target, columns = into[..., self.first_id :, :], synthetic[self.source].flatten(0, 1).T
        if bar.dim() == 3:
            target.addmm_(columns, bar.flatten(0, 1))
        else:
            target += columns @ bar.flatten(1, 2)

    def accumulate(self, synthetic: Tensors, pairs: list[tuple[Tensor, Tensor]], into: Tensors) -> None:
        """Add the derivative of ``sum_i <bar_i, expected rows of table_i>`` in the distributions to ``into``."""
        left = torch.cat([_columns(bar.flatten(-3, -2)) for bar, _ in pairs], dim=1)
        right = torch.cat([_columns(table[..., self.first_id :, :]) for _, table in pairs], dim=1).T
        target = into[self.source].flatten(0, 1)
        for low in range(0, target.shape[1], COLUMNS):
            target[:, low : low + COLUMNS] += left @ right[:, low : low + COLUMNS]


@dataclass(frozen=True)
class TiledRead:
    """Distributions ``exp(queries keys^T - normaliser)``, never written out.

    Args:
        weight: name of the item table, (V + 1, D).
        queries: name of the queries, (B, T, R).
        normaliser: name of the normalisers, (B, T).
        first_id: item of the first key.
        keys: one per item, (V, R); constant.
    """

    weight: str
    queries: str
    normaliser: str
    first_id: int
    keys: Float[Tensor, "V R"] = field(compare=False, repr=False)

    def apply(self, synthetic: Tensors, weight: Tensor) -> Tensor:
        """Return the expected rows of the table, (B, T, D); with leading axes of the table in front."""
        shape = synthetic[self.queries].shape[:2]
        table = weight[..., self.first_id :, :]
        queries, keys, normaliser = self._factors(synthetic)
        rows = expected_rows(queries, keys, _columns(table), normaliser)
        if table.dim() == 3:
            rows = rows.unflatten(1, (len(table), -1)).transpose(0, 1)
        return rows.unflatten(-2, shape)

    def transpose(self, synthetic: Tensors, bar: Tensor, into: Tensor) -> None:
        """Add the derivative of ``<bar, expected rows>`` in the table to ``into``."""
        queries, keys, normaliser = self._factors(synthetic)
        found = table_gradient(queries, keys, normaliser, _columns(bar.flatten(-3, -2)))
        if bar.dim() == 4:
            found = found.unflatten(1, (len(bar), -1)).transpose(0, 1)
        into[..., self.first_id :, :] += found

    def accumulate(self, synthetic: Tensors, pairs: list[tuple[Tensor, Tensor]], into: Tensors) -> None:
        """Add the derivative of ``sum_i <bar_i, expected rows of table_i>`` in queries and normalisers to ``into``."""
        sides = [(_columns(bar.flatten(-3, -2)), _columns(table[..., self.first_id :, :])) for bar, table in pairs]
        queries, normaliser = row_gradient(*self._factors(synthetic), sides)
        into[self.queries].flatten(0, 1).add_(queries)
        into[self.normaliser].flatten().add_(normaliser)

    def _factors(self, synthetic: Tensors) -> tuple[Tensor, Tensor, Tensor]:
        return synthetic[self.queries].flatten(0, 1), self.keys, synthetic[self.normaliser].flatten()


@dataclass(frozen=True)
class SoftReader:
    """How the rows of a summary are read in minibatches, for as long as the rows stay the same.

    Args:
        reads: how each minibatch is read.
        sizes: rows in each.
        first_id: item of the first column.
        dense: the distributions are written out.
    """

    reads: tuple[DenseRead | TiledRead, ...]
    sizes: tuple[int, ...]
    first_id: int
    dense: bool

    @staticmethod
    def choose(items: SoftItems, weight: str, batch_size: int, dense_bytes: int) -> "SoftReader":
        """Return a reader that writes the distributions out where they need no more than ``dense_bytes``.

        Args:
            items: all rows; only shapes and keys are used.
            weight: name of the item table among the student's weights.
            batch_size: rows per minibatch.
            dense_bytes: memory for distributions, in bytes.
        """
        rows, length, _ = items.queries.shape
        sizes = tuple(min(batch_size, rows - low) for low in range(0, rows, batch_size))
        dense = rows * length * len(items.keys) * items.keys.element_size() <= dense_bytes
        reads: list[DenseRead | TiledRead] = []
        for index in range(len(sizes)):
            if dense:
                reads.append(DenseRead(weight, f"probabilities {index}", items.first_id))
            else:
                names = f"queries {index}", f"normaliser {index}"
                reads.append(TiledRead(weight, *names, items.first_id, items.keys))
        return SoftReader(tuple(reads), sizes, items.first_id, dense)

    def read(self, items: SoftItems) -> Tensors:
        """Return the synthetic tensors that the reads need, connected to the items; once for a whole inner loop."""
        if self.dense:
            parts = items.dense().probabilities.split(self.sizes)
            return {f"probabilities {index}": part for index, part in enumerate(parts)}
        tensors: Tensors = {}
        for index, queries in enumerate(items.queries.split(self.sizes)):
            normaliser = logsumexp_rows(queries.flatten(0, 1), items.keys)
            tensors |= {f"queries {index}": queries, f"normaliser {index}": normaliser.view(queries.shape[:2])}
        return tensors


def _columns(rows: Tensor) -> Tensor:
    """Return (N, D) rows as they are, and those of several learners (K, N, D) side by side, (N, K D)."""
    return rows if rows.dim() == 2 else rows.transpose(0, 1).flatten(1)
