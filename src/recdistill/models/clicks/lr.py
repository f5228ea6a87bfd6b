"""Logistic regression on the vectors of all fields."""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from recdistill.models.clicks.base import ClickModel
from recdistill.models.layers import Randomness


class LogisticRegression(ClickModel):
    """A weight for every coordinate of every field, and nothing between fields.

    Args:
        num_ids: rows of each field's table.
        widths: columns of each field.
        embedding_dim: width of a vector.
        generator: where the weights are drawn from.
    """

    name = "lr"

    def __init__(
        self, num_ids: Sequence[int], widths: Sequence[int], embedding_dim: int = 16, *, generator: torch.Generator
    ) -> None:
        super().__init__(num_ids, widths, embedding_dim, generator)
        self.finish(self.num_fields * embedding_dim, generator)

    def hidden(self, vectors: Float[Tensor, "B F D"], generator: Randomness | None = None) -> Float[Tensor, "B W"]:
        """Return the vectors side by side."""
        return vectors.flatten(1)
