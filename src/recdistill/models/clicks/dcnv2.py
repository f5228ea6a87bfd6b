"""DCN-V2: explicit crosses of growing degree beside a deep network."""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn

from recdistill.errors import require_at_least, require_rate
from recdistill.models.clicks.base import MLP, ClickModel
from recdistill.models.layers import Randomness, linear


class DCNv2(ClickModel):
    """Cross layers ``x_{l+1} = x_0 * (W x_l + b) + x_l`` and a deep network, side by side before the last layer.

    Args:
        num_ids: rows of each field's table.
        widths: columns of each field.
        embedding_dim: width of a vector.
        num_crosses: cross layers, at least 1.
        hidden_units: widths of the network's layers.
        dropout: rate behind each of them, in [0, 1).
        generator: where the weights are drawn from.

    Reference: Wang et al., DCN V2, WWW 2021, arXiv 2008.13535, equation 1; the parallel structure of its figure 1b.
    """

    name = "dcnv2"

    def __init__(
        self,
        num_ids: Sequence[int],
        widths: Sequence[int],
        embedding_dim: int = 16,
        *,
        num_crosses: int = 3,
        hidden_units: Sequence[int] = (128, 64),
        dropout: float = 0.0,
        generator: torch.Generator,
    ) -> None:
        super().__init__(num_ids, widths, embedding_dim, generator)
        require_rate(dropout=dropout)
        require_at_least(1, num_crosses=num_crosses)
        self.config |= {"num_crosses": num_crosses, "hidden_units": tuple(hidden_units), "dropout": dropout}
        inputs = self.num_fields * embedding_dim
        self.crosses = nn.ModuleList(linear(inputs, inputs) for _ in range(num_crosses))
        self.deep = MLP(inputs, hidden_units, dropout)
        self.finish(inputs + [inputs, *hidden_units][-1], generator)

    def hidden(self, vectors: Float[Tensor, "B F D"], generator: Randomness | None = None) -> Float[Tensor, "B W"]:
        """Return the crosses and the output of the deep network."""
        first = crossed = vectors.flatten(1)
        for layer in self.crosses:
            crossed = first * layer(crossed) + crossed
        return torch.cat([crossed, self.deep(first, generator)], dim=1)
