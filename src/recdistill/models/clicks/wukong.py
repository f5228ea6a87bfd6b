"""WuKong: stacked factorisation machines, whose degree doubles with every layer."""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn

from recdistill.errors import require_at_least, require_rate
from recdistill.models.clicks.base import MLP, ClickModel
from recdistill.models.layers import Randomness, linear


class WuKongLayer(nn.Module):
    """Vectors from the pairwise products of the input's, and linear combinations of it, added to the input and normed.

    Args:
        inputs: vectors that come in.
        embedding_dim: width of each, D.
        products: vectors made of products.
        combinations: vectors that are linear combinations.
        rank: columns that the products of all vectors with all are compressed to.
        units: widths of the network's layers between products and vectors.
        dropout: rate behind each of them.
    """

    def __init__(
        self,
        inputs: int,
        embedding_dim: int,
        products: int,
        combinations: int,
        rank: int,
        units: Sequence[int],
        dropout: float,
    ) -> None:
        super().__init__()
        outputs = products + combinations
        self.compress = nn.Parameter(torch.empty(inputs, rank))
        self.products_norm = nn.LayerNorm(inputs * rank)
        self.network = MLP(inputs * rank, units, dropout)
        self.to_vectors = linear([inputs * rank, *units][-1], products * embedding_dim)
        self.combine = nn.Parameter(torch.empty(combinations, inputs))
        self.residual = nn.Parameter(torch.empty(outputs, inputs)) if outputs != inputs else None
        self.norm = nn.LayerNorm(embedding_dim)

    def forward(self, vectors: Float[Tensor, "B I D"], generator: Randomness | None) -> Float[Tensor, "B O D"]:
        """Return the new vectors."""
        products = vectors @ (vectors.transpose(1, 2) @ self.compress)  # (B, I, rank)
        made = self.to_vectors(self.network(self.products_norm(products.flatten(1)), generator))
        crossed = made.unflatten(1, (-1, vectors.shape[2]))
        kept = vectors if self.residual is None else self.residual @ vectors
        found: Tensor = self.norm(torch.cat([crossed, self.combine @ vectors], dim=1) + kept)
        return found


class WuKong(ClickModel):
    """A stack of factorisation machine blocks and linear compress blocks, and a network over their output.

    Args:
        num_ids: rows of each field's table.
        widths: columns of each field.
        embedding_dim: width of a vector.
        num_layers: of the stack, at least 1.
        products: vectors that a layer makes of products.
        combinations: vectors that it makes as linear combinations.
        rank: columns that the products are compressed to.
        product_units: widths of the layers between products and vectors.
        hidden_units: widths of the layers of the network behind the stack.
        dropout: rate behind all of these, in [0, 1).
        generator: where the weights are drawn from.

    Reference: Zhang et al., Wukong: Towards a Scaling Law for Large-Scale Recommendation, ICML 2024, arXiv 2403.02545,
    equations 1 to 5.
    """

    name = "wukong"

    def __init__(
        self,
        num_ids: Sequence[int],
        widths: Sequence[int],
        embedding_dim: int = 16,
        *,
        num_layers: int = 2,
        products: int = 8,
        combinations: int = 8,
        rank: int = 8,
        product_units: Sequence[int] = (64,),
        hidden_units: Sequence[int] = (64, 32),
        dropout: float = 0.0,
        generator: torch.Generator,
    ) -> None:
        super().__init__(num_ids, widths, embedding_dim, generator)
        require_rate(dropout=dropout)
        sizes = {"num_layers": num_layers, "products": products, "combinations": combinations, "rank": rank}
        require_at_least(1, **sizes)
        self.config |= sizes
        self.config |= {"product_units": tuple(product_units), "hidden_units": tuple(hidden_units), "dropout": dropout}
        outputs = products + combinations
        self.stack = nn.ModuleList(
            WuKongLayer(inputs, embedding_dim, products, combinations, rank, product_units, dropout)
            for inputs in [self.num_fields, *[outputs] * (num_layers - 1)]
        )
        self.deep = MLP(outputs * embedding_dim, hidden_units, dropout)
        self.finish([outputs * embedding_dim, *hidden_units][-1], generator)

    def hidden(self, vectors: Float[Tensor, "B F D"], generator: Randomness | None = None) -> Float[Tensor, "B W"]:
        """Return the output of the network behind the stack."""
        for layer in self.stack:
            vectors = layer(vectors, generator)
        found: Tensor = self.deep(vectors.flatten(1), generator)
        return found
