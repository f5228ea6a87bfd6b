"""FinalMLP: two networks over differently gated fields, and the products of what they say."""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn

from recdistill.errors import OptionError, require_at_least, require_rate
from recdistill.models.clicks.base import MLP, ClickModel
from recdistill.models.layers import Randomness, linear


class Gate(nn.Module):
    """A weight in (0, 2) for every coordinate of the input, from a learnt context that is the same for all samples."""

    def __init__(self, width: int, context_dim: int, units: Sequence[int]) -> None:
        super().__init__()
        self.context = nn.Parameter(torch.zeros(1, context_dim))
        self.network = MLP(context_dim, units, 0.0)
        self.output = linear([context_dim, *units][-1], width)

    def forward(self, values: Float[Tensor, "B I"]) -> Float[Tensor, "B I"]:
        """Return the weighted input."""
        return values * 2 * torch.sigmoid(self.output(self.network(self.context)))


class FinalMLP(ClickModel):
    """Two networks, each behind its own gate; the logit is linear in both and in products of both.

    Args:
        num_ids: rows of each field's table.
        widths: columns of each field.
        embedding_dim: width of a vector.
        hidden_units: widths of the layers of each network, one or more.
        num_heads: parts into which both outputs are cut; products are taken within a part. Divides the last width.
        gate_units: widths of the layers of each gate.
        dropout: rate behind each layer of the networks, in [0, 1).
        generator: where the weights are drawn from.

    Reference: Mao et al., FinalMLP, AAAI 2023, arXiv 2304.00902, equations 3 to 8.

    Departures: the context of a gate is a learnt vector, the paper's choice where no field is set apart for it. Both
    networks have the same widths.
    """

    name = "finalmlp"

    def __init__(
        self,
        num_ids: Sequence[int],
        widths: Sequence[int],
        embedding_dim: int = 16,
        *,
        hidden_units: Sequence[int] = (128, 64),
        num_heads: int = 4,
        gate_units: Sequence[int] = (64,),
        dropout: float = 0.0,
        generator: torch.Generator,
    ) -> None:
        super().__init__(num_ids, widths, embedding_dim, generator)
        require_rate(dropout=dropout)
        require_at_least(1, hidden_layers=len(hidden_units), num_heads=num_heads)
        if hidden_units[-1] % num_heads:
            raise OptionError("num_heads", num_heads, fix=f"must divide the last of hidden_units, {hidden_units[-1]}")
        self.config |= {"hidden_units": tuple(hidden_units), "num_heads": num_heads}
        self.config |= {"gate_units": tuple(gate_units), "dropout": dropout}
        inputs, part = self.num_fields * embedding_dim, hidden_units[-1] // num_heads
        self.gates = nn.ModuleList(Gate(inputs, embedding_dim, gate_units) for _ in range(2))
        self.networks = nn.ModuleList(MLP(inputs, hidden_units, dropout) for _ in range(2))
        self.products = nn.Parameter(torch.zeros(num_heads, part, part))
        self.finish(2 * hidden_units[-1] + num_heads, generator)

    def hidden(self, vectors: Float[Tensor, "B F D"], generator: Randomness | None = None) -> Float[Tensor, "B W"]:
        """Return the outputs of both networks, and their bilinear products, one per head."""
        values = vectors.flatten(1)
        pairs = zip(self.gates, self.networks, strict=True)
        left, right = (network(gate(values), generator) for gate, network in pairs)
        heads = (side.unflatten(1, (len(self.products), -1)) for side in (left, right))
        products = torch.einsum("bhi,hij,bhj->bh", next(heads), self.products, next(heads))
        return torch.cat([left, right, products], dim=1)
