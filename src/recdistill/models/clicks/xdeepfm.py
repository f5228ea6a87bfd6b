"""xDeepFM: a compressed interaction network beside a deep one."""

from collections.abc import Sequence
from itertools import pairwise

import torch
from jaxtyping import Float
from torch import Tensor, nn

from recdistill.errors import require_at_least, require_rate
from recdistill.models.clicks.base import MLP, ClickModel, FirstOrder
from recdistill.models.layers import Randomness, linear


class XDeepFM(ClickModel):
    """Vector-wise crosses of growing degree, a deep network and a linear part.

    A layer of the compressed interaction network takes all products, coordinate by coordinate, of its own vectors with
    those of the fields, and returns linear combinations of them; each is summed over coordinates for the last layer.

    Args:
        num_ids: rows of each field's table.
        widths: columns of each field.
        embedding_dim: width of a vector.
        cross_units: vectors of each layer of the interaction network, one layer or more.
        hidden_units: widths of the deep network's layers.
        dropout: rate behind each of these, in [0, 1).
        generator: where the weights are drawn from.

    Reference: Lian et al., xDeepFM, KDD 2018, arXiv 1803.05170, equations 6 to 8.

    Departures: no activation in the interaction network, as the paper's analysis has it.
    """

    name = "xdeepfm"

    def __init__(
        self,
        num_ids: Sequence[int],
        widths: Sequence[int],
        embedding_dim: int = 16,
        *,
        cross_units: Sequence[int] = (16, 16),
        hidden_units: Sequence[int] = (128, 64),
        dropout: float = 0.0,
        generator: torch.Generator,
    ) -> None:
        super().__init__(num_ids, widths, embedding_dim, generator)
        require_rate(dropout=dropout)
        require_at_least(1, cross_layers=len(cross_units), cross_units=min(cross_units, default=0))
        self.config |= {"cross_units": tuple(cross_units), "hidden_units": tuple(hidden_units), "dropout": dropout}
        inputs = self.num_fields * embedding_dim
        sizes = [self.num_fields, *cross_units]
        pairs = pairwise(sizes)
        self.crosses = nn.ModuleList(linear(self.num_fields * before, after) for before, after in pairs)
        self.first_order = FirstOrder(self.num_fields, embedding_dim)
        self.deep = MLP(inputs, hidden_units, dropout)
        self.finish(sum(cross_units) + [inputs, *hidden_units][-1], generator)

    def hidden(self, vectors: Float[Tensor, "B F D"], generator: Randomness | None = None) -> Float[Tensor, "B W"]:
        """Return the summed crosses of every layer, and the output of the deep network."""
        crossed, parts = vectors, []
        for layer in self.crosses:
            products = torch.einsum("bfd,bhd->bdfh", vectors, crossed).flatten(2)  # (B, D, F H)
            crossed = layer(products).transpose(1, 2)  # (B, H, D)
            parts.append(crossed.sum(2))
        return torch.cat([*parts, self.deep(vectors.flatten(1), generator)], dim=1)

    def offset(self, vectors: Float[Tensor, "B F D"]) -> Float[Tensor, " B"]:
        """Return the linear part."""
        found: Tensor = self.first_order(vectors)
        return found
