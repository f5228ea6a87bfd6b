"""Layers shared by the models: explicit randomness, and a double backward everywhere.

Attention is written out because the fused kernels have no double backward. Dropout takes a generator instead of
reading a global one.
"""

import math

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn.utils import skip_init

from recdistill.data.batches import pick


def dropout(values: Tensor, rate: float, generator: torch.Generator | None) -> Tensor:
    """Return ``values`` with a fraction ``rate`` set to zero and the rest scaled up; unchanged without a generator."""
    if generator is None or rate == 0:
        return values
    keep = torch.empty(values.shape, dtype=values.dtype, device=values.device)
    return values * keep.bernoulli_(1 - rate, generator=generator).div_(1 - rate)


def linear(inputs: int, outputs: int) -> nn.Linear:
    """Return a linear layer whose weights are not drawn yet."""
    layer = skip_init(nn.Linear, inputs, outputs)
    assert isinstance(layer, nn.Linear)
    return layer


def table(rows: int, width: int) -> nn.Parameter:
    """Return an embedding table whose weights are not drawn yet."""
    return nn.Parameter(torch.zeros(rows, width))


def draw_normal(module: nn.Module, std: float, generator: torch.Generator) -> None:
    """Draw all matrices from ``N(0, std^2)``; set biases to 0 and norm weights to 1."""
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            if parameter.dim() >= 2:
                parameter.normal_(0.0, std, generator=generator)
            else:
                parameter.fill_(1.0 if name.endswith("norm.weight") else 0.0)


class SelfAttention(nn.Module):
    """Multi-head attention with output projection, residual and norm after it."""

    def __init__(
        self, width: int, num_heads: int, *, dropout: float, attention_dropout: float, norm_eps: float
    ) -> None:
        super().__init__()
        self.num_heads, self.dropout, self.attention_dropout = num_heads, dropout, attention_dropout
        self.query, self.key, self.value, self.output = (linear(width, width) for _ in range(4))
        self.norm = nn.LayerNorm(width, eps=norm_eps)

    def forward(
        self,
        hidden: Float[Tensor, "B T D"],
        queries: Float[Tensor, "B P D"],
        allowed: Bool[Tensor, "#B P T"],
        generator: torch.Generator | None,
    ) -> Float[Tensor, "B P D"]:
        """Return ``norm(queries + attention)``; ``allowed`` says which positions each query may read."""
        query, key, value = (
            self._split(self.query(queries)),
            self._split(self.key(hidden)),
            self._split(self.value(hidden)),
        )
        scores = query @ key.transpose(-1, -2) / math.sqrt(query.shape[-1])  # (B, H, P, T)
        weights = scores.masked_fill(~allowed.unsqueeze(1), float("-inf")).softmax(-1)
        weights = dropout(weights, self.attention_dropout, generator)
        context = (weights @ value).transpose(1, 2).flatten(2)  # (B, P, D)
        return self.norm(queries + dropout(self.output(context), self.dropout, generator))

    def _split(self, values: Float[Tensor, "B T D"]) -> Float[Tensor, "B H T D2"]:
        return values.unflatten(-1, (self.num_heads, -1)).transpose(1, 2)


class FeedForward(nn.Module):
    """Two linear layers with GELU between them, residual and norm after."""

    def __init__(self, width: int, inner: int, *, dropout: float, norm_eps: float) -> None:
        super().__init__()
        self.dropout = dropout
        self.first, self.second = linear(width, inner), linear(inner, width)
        self.norm = nn.LayerNorm(width, eps=norm_eps)

    def forward(self, hidden: Float[Tensor, "B P D"], generator: torch.Generator | None) -> Float[Tensor, "B P D"]:
        """Return ``norm(hidden + second(gelu(first(hidden))))``."""
        changed = self.second(F.gelu(self.first(hidden)))
        return self.norm(hidden + dropout(changed, self.dropout, generator))


class TransformerBlock(nn.Module):
    """Self-attention and feed-forward, norm after each (post-norm)."""

    def __init__(
        self,
        width: int,
        num_heads: int,
        inner: int,
        *,
        dropout: float,
        attention_dropout: float,
        norm_eps: float,
    ) -> None:
        super().__init__()
        self.attention = SelfAttention(
            width, num_heads, dropout=dropout, attention_dropout=attention_dropout, norm_eps=norm_eps
        )
        self.feed_forward = FeedForward(width, inner, dropout=dropout, norm_eps=norm_eps)

    def forward(
        self,
        hidden: Float[Tensor, "B T D"],
        allowed: Bool[Tensor, "#B T T"],
        generator: torch.Generator | None,
        positions: Int[Tensor, "B P"] | None = None,
    ) -> Float[Tensor, "B P D"]:
        """Return the block's output at ``positions`` only; the others are never computed."""
        queries = pick(hidden, positions)
        if positions is not None:
            index = positions.unsqueeze(-1).expand(-1, -1, allowed.shape[-1])
            allowed = allowed.expand(len(positions), -1, -1).gather(1, index)
        return self.feed_forward(self.attention(hidden, queries, allowed, generator), generator)
