"""AutoInt: self-attention between fields."""

from collections.abc import Sequence
from itertools import pairwise

import torch
from jaxtyping import Float
from torch import Tensor, nn

from recdistill.errors import OptionError, require_at_least, require_rate
from recdistill.models.clicks.base import MLP, ClickModel
from recdistill.models.layers import Randomness, dropout, linear


class FieldAttention(nn.Module):
    """Multi-head attention of all fields to all fields, a linear map of the input added, ReLU behind."""

    def __init__(self, inputs: int, width: int, num_heads: int, rate: float) -> None:
        super().__init__()
        self.num_heads, self.rate = num_heads, rate
        self.query, self.key, self.value, self.residual = (linear(inputs, width) for _ in range(4))

    def forward(self, vectors: Float[Tensor, "B F I"], generator: Randomness | None) -> Float[Tensor, "B F O"]:
        """Return the new vectors."""
        query, key, value = (
            layer(vectors).unflatten(2, (self.num_heads, -1)).transpose(1, 2)  # (B, H, F, O / H)
            for layer in (self.query, self.key, self.value)
        )
        weights = torch.softmax(query @ key.transpose(-1, -2) / query.shape[-1] ** 0.5, dim=-1)
        mixed = (dropout(weights, self.rate, generator) @ value).transpose(1, 2).flatten(2)
        return torch.relu(mixed + self.residual(vectors))


class AutoInt(ClickModel):
    """Attention layers over the vectors of fields, beside a deep network.

    Args:
        num_ids: rows of each field's table.
        widths: columns of each field.
        embedding_dim: width of a vector.
        num_blocks: attention layers, at least 1.
        num_heads: of each; divides ``attention_dim``.
        attention_dim: width of a vector behind an attention layer.
        hidden_units: widths of the network's layers; empty for AutoInt without a network.
        dropout: rate behind each of them and on attention weights, in [0, 1).
        generator: where the weights are drawn from.

    Reference: Song et al., AutoInt, CIKM 2019, arXiv 1810.11921, equations 5 to 8; with the network
    beside it its AutoInt+.

    Departures: products are divided by the root of the width, as in attention elsewhere.
    """

    name = "autoint"

    def __init__(
        self,
        num_ids: Sequence[int],
        widths: Sequence[int],
        embedding_dim: int = 16,
        *,
        num_blocks: int = 2,
        num_heads: int = 2,
        attention_dim: int = 32,
        hidden_units: Sequence[int] = (128, 64),
        dropout: float = 0.0,
        generator: torch.Generator,
    ) -> None:
        super().__init__(num_ids, widths, embedding_dim, generator)
        require_rate(dropout=dropout)
        require_at_least(1, num_blocks=num_blocks, num_heads=num_heads, attention_dim=attention_dim)
        if attention_dim % num_heads:
            raise OptionError("attention_dim", attention_dim, fix=f"must be a multiple of num_heads {num_heads}")
        self.config |= {"num_blocks": num_blocks, "num_heads": num_heads, "attention_dim": attention_dim}
        self.config |= {"hidden_units": tuple(hidden_units), "dropout": dropout}
        sizes = [embedding_dim, *[attention_dim] * num_blocks]
        pairs = pairwise(sizes)
        self.blocks = nn.ModuleList(FieldAttention(*pair, num_heads, dropout) for pair in pairs)
        self.deep = MLP(self.num_fields * embedding_dim, hidden_units, dropout) if hidden_units else None
        self.finish(self.num_fields * attention_dim + (hidden_units[-1] if hidden_units else 0), generator)

    def hidden(self, vectors: Float[Tensor, "B F D"], generator: Randomness | None = None) -> Float[Tensor, "B W"]:
        """Return the attended vectors side by side, and the output of the deep network."""
        attended = vectors
        for block in self.blocks:
            attended = block(attended, generator)
        parts = [attended.flatten(1)]
        if self.deep is not None:
            parts.append(self.deep(vectors.flatten(1), generator))
        return torch.cat(parts, dim=1)
