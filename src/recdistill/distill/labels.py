"""Real items with a learnt label after each: what the outer loop of refined labels moves, and how it is stored."""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from recdistill.data.batches import SoftItems
from recdistill.data.rows import HardRows, LabelledRows, LowRankLabelledRows

SMALLEST_SCALE = 1e-12
"""Smallest eigenvalue of the metric, beside the largest: a direction in which all items are alike says nothing."""


class Labels(nn.Module):
    """Real items with a learnt query after each, whole or in a subspace that stays as it is.

    Args:
        rows: the items.
        queries: where the labels start: ``R`` numbers each, or with a basis ``R1``.
        item_factor: keys of the labels; constant.
        basis: maps the numbers of each label to a query for ``item_factor``.
    """

    item_factor: Tensor
    basis: Tensor | None

    def __init__(
        self,
        rows: HardRows,
        queries: Float[Tensor, "N T R1"],
        item_factor: Float[Tensor, "V R"],
        basis: Float[Tensor, "R1 R"] | None = None,
    ) -> None:
        super().__init__()
        self.rows = rows
        self.queries = nn.Parameter(queries.clone())
        self.register_buffer("item_factor", item_factor, persistent=False)
        self.register_buffer("basis", basis, persistent=False)

    def items(self) -> SoftItems:
        """Return the labels, connected to the queries."""
        return SoftItems(self.queries, self.item_factor if self.basis is None else self.item_factor @ self.basis.T)

    def stored(self, precision: str) -> LabelledRows:
        """Return a copy of the rows without a graph."""
        queries = self.queries.detach().cpu().to(getattr(torch, precision))
        ids, lengths, factor = self.rows.item_ids, self.rows.lengths, self.item_factor.cpu()
        if self.basis is None:
            return LabelledRows(ids, lengths, queries, factor)
        return LowRankLabelledRows(ids, lengths, queries, factor, self.basis.cpu())


def label_basis(queries: Float[Tensor, "n R"], item_factor: Float[Tensor, "V R"], rank: int) -> Float[Tensor, "R1 R"]:
    """Return an orthonormal basis of queries that keeps most of what a few labels say.

    The best subspace for the labels' logits in least squares, an item weighted by its mean probability and logits taken
    up to a constant, which no softmax sees: principal components in the metric of the weighted, centred item vectors.

    Args:
        queries: of the labels.
        item_factor: their keys.
        rank: ``R1``, 1 to R.
    """
    keys = item_factor.double()
    weights = torch.softmax(queries.double() @ keys.T, -1).mean(0)
    centred = (keys - weights @ keys) * weights.sqrt().unsqueeze(1)
    values, vectors = torch.linalg.eigh(centred.T @ centred)
    scales = values.clamp(min=values[-1] * SMALLEST_SCALE).sqrt()
    metric, inverse = (vectors * scales) @ vectors.T, (vectors / scales) @ vectors.T
    directions = torch.linalg.svd(queries.double() @ metric, full_matrices=False).Vh[:rank]
    return torch.linalg.qr((directions @ inverse).T).Q.T.to(item_factor)
