"""Factorisation machine."""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from recdistill.models.clicks.base import ClickModel, pairwise
from recdistill.models.layers import Randomness


class FactorizationMachine(ClickModel):
    """A linear part, and the inner products of the vectors of all pairs of fields.

    Args:
        num_ids: rows of each field's table.
        widths: columns of each field.
        embedding_dim: width of a vector.
        generator: where the weights are drawn from.

    Reference: Rendle, Factorization Machines, ICDM 2010, equation 1.

    Departures: the linear part is an inner product with the vector, see
    :class:`~recdistill.models.clicks.base.FirstOrder`.
    """

    name = "fm"

    def __init__(
        self, num_ids: Sequence[int], widths: Sequence[int], embedding_dim: int = 16, *, generator: torch.Generator
    ) -> None:
        super().__init__(num_ids, widths, embedding_dim, generator)
        self.finish(self.num_fields * embedding_dim, generator)

    def hidden(self, vectors: Float[Tensor, "B F D"], generator: Randomness | None = None) -> Float[Tensor, "B W"]:
        """Return the vectors side by side."""
        return vectors.flatten(1)

    def offset(self, vectors: Float[Tensor, "B F D"]) -> Float[Tensor, " B"]:
        """Return the sum of all inner products."""
        return pairwise(vectors).sum(1)
