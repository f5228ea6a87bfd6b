"""Layers shared by the models: explicit randomness, and a double backward everywhere.

Attention is written out because the fused kernels have no double backward. Dropout takes a generator instead of
reading a global one; or masks drawn beforehand, for a computation that is recorded and replayed with other masks.
"""

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn.utils import skip_init

from recdistill.data.batches import pick


class Masks:
    """Dropout masks drawn beforehand, in the order in which a model asks for them.

    Args:
        masks: each holds 0, or ``1 / (1 - rate)``.
    """

    def __init__(self, masks: Sequence[Tensor]) -> None:
        self._masks = iter(masks)

    def mask(self, like: Tensor, rate: float) -> Tensor:
        """Return the next mask."""
        return next(self._masks)


class MaskPlan:
    """Which masks a model asks for: run the model once with it in place of a generator, then draw as often as needed.

    ``draw(generator)`` gives the masks that the model would have drawn from that generator itself.
    """

    def __init__(self) -> None:
        self._asked: list[tuple[torch.Size, float, torch.dtype]] = []

    def mask(self, like: Tensor, rate: float) -> Tensor:
        """Note what is asked for; return a mask that keeps everything."""
        self._asked.append((like.shape, rate, like.dtype))
        return torch.ones_like(like)

    def draw(self, generator: torch.Generator) -> list[Tensor]:
        """Return fresh masks in order."""
        return [_draw_mask(shape, rate, dtype, generator) for shape, rate, dtype in self._asked]


Randomness = torch.Generator | Masks | MaskPlan
"""Where dropout comes from."""


def _draw_mask(shape: torch.Size, rate: float, dtype: torch.dtype, generator: torch.Generator) -> Tensor:
    keep = torch.empty(shape, device=generator.device)  # drawn alike in every precision
    return keep.bernoulli_(1 - rate, generator=generator).to(dtype).div_(1 - rate)


def dropout(values: Tensor, rate: float, generator: Randomness | None) -> Tensor:
    """Return ``values`` with a fraction ``rate`` set to zero and the rest scaled up; unchanged without a generator."""
    if generator is None or rate == 0:
        return values
    return values * draw_mask(values, rate, generator)


def draw_mask(like: Tensor, rate: float, generator: Randomness) -> Tensor:
    """Return a tensor of the shape of ``like``: 0 with probability ``rate``, ``1 / (1 - rate)`` otherwise."""
    if isinstance(generator, torch.Generator):
        return _draw_mask(like.shape, rate, like.dtype, generator)
    return generator.mask(like, rate)


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
        generator: Randomness | None,
    ) -> Float[Tensor, "B P D"]:
        """Return ``norm(queries + attention)``; ``allowed`` says which positions each query may read."""
        few = 2 * self.num_heads * queries.shape[1] <= hidden.shape[2]  # else projecting all positions is cheaper
        attend = self._attend_from_few if few else self._attend
        context = attend(hidden, queries, allowed, generator).transpose(1, 2).flatten(2)  # (B, P, D)
        return self.norm(queries + dropout(self.output(context), self.dropout, generator))

    def _attend(
        self,
        hidden: Float[Tensor, "B T D"],
        queries: Float[Tensor, "B P D"],
        allowed: Bool[Tensor, "#B P T"],
        generator: Randomness | None,
    ) -> Float[Tensor, "B H P D2"]:
        query, key, value = (
            self._split(self.query(queries)),
            self._split(self.key(hidden)),
            self._split(self.value(hidden)),
        )
        return self._weigh(query @ key.transpose(-1, -2), allowed, generator) @ value

    def _attend_from_few(
        self,
        hidden: Float[Tensor, "B T D"],
        queries: Float[Tensor, "B P D"],
        allowed: Bool[Tensor, "#B P T"],
        generator: Randomness | None,
    ) -> Float[Tensor, "B H P D2"]:
        """Return what ``_attend`` returns, without a key or a value for every position.

        ``<q, K h + b> = <K^T q, h> + <q, b>``, and the last term is the same for all positions, so that the softmax
        does not see it; ``sum_t a_t (V h_t + c) = V sum_t a_t h_t + c sum_t a_t``. A few queries pass through the
        projections in place of all positions.
        """
        heads = (self.num_heads, -1)
        key, value = (layer.weight.unflatten(0, heads) for layer in (self.key, self.value))  # (H, D2, D)
        asked = torch.einsum("bhpk,hkd->bhpd", self._split(self.query(queries)), key)
        rows, _, count, width = asked.shape
        scores = (asked.flatten(1, 2) @ hidden.transpose(1, 2)).view(rows, self.num_heads, count, -1)
        weights = self._weigh(scores, allowed, generator)
        read = (weights.flatten(1, 2) @ hidden).view(rows, self.num_heads, count, width)
        context = torch.einsum("bhpd,hkd->bhpk", read, value)
        return context + weights.sum(-1, keepdim=True) * self.value.bias.view(*heads).unsqueeze(1)

    def _weigh(
        self, scores: Float[Tensor, "B H P T"], allowed: Bool[Tensor, "#B P T"], generator: Randomness | None
    ) -> Float[Tensor, "B H P T"]:
        scores = scores / math.sqrt(self.query.out_features // self.num_heads)
        weights = scores.masked_fill(~allowed.unsqueeze(1), float("-inf")).softmax(-1)
        return dropout(weights, self.attention_dropout, generator)

    def _split(self, values: Float[Tensor, "B T D"]) -> Float[Tensor, "B H T D2"]:
        return values.unflatten(-1, (self.num_heads, -1)).transpose(1, 2)


class FeedForward(nn.Module):
    """Two linear layers with GELU between them, residual and norm after."""

    def __init__(self, width: int, inner: int, *, dropout: float, norm_eps: float) -> None:
        super().__init__()
        self.dropout = dropout
        self.first, self.second = linear(width, inner), linear(inner, width)
        self.norm = nn.LayerNorm(width, eps=norm_eps)

    def forward(self, hidden: Float[Tensor, "B P D"], generator: Randomness | None) -> Float[Tensor, "B P D"]:
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
        generator: Randomness | None,
        positions: Int[Tensor, "B P"] | None = None,
    ) -> Float[Tensor, "B P D"]:
        """Return the block's output at ``positions`` only; the others are never computed."""
        queries = pick(hidden, positions)
        if positions is not None:
            index = positions.unsqueeze(-1).expand(-1, -1, allowed.shape[-1])
            allowed = allowed.expand(len(positions), -1, -1).gather(1, index)
        return self.feed_forward(self.attention(hidden, queries, allowed, generator), generator)


class GRU(nn.Module):
    """A gated recurrent layer without biases, from a zero state.

    Written out step by step: the fused kernels of the GPU have no double backward, and on a CPU they save nothing.

    Args:
        inputs: width of the input.
        width: width of the state, H.

    Reference: Cho et al., Learning Phrase Representations using RNN Encoder-Decoder, EMNLP 2014, arXiv 1406.1078.

    Departures: the reset gate acts on the state after its projection, as in ``torch.nn.GRU``.
    """

    def __init__(self, inputs: int, width: int) -> None:
        super().__init__()
        self.input_weight, self.state_weight = table(3 * width, inputs), table(3 * width, width)

    def forward(self, values: Float[Tensor, "B T D"]) -> Float[Tensor, "B T H"]:
        """Return the state after every position."""
        state = values.new_zeros(len(values), self.state_weight.shape[1])
        states = []
        for gates in (values @ self.input_weight.T).unbind(1):  # each (B, 3 H): reset, update, new
            from_input, from_state = gates.chunk(3, -1), (state @ self.state_weight.T).chunk(3, -1)
            reset = torch.sigmoid(from_input[0] + from_state[0])
            update = torch.sigmoid(from_input[1] + from_state[1])
            new = torch.tanh(from_input[2] + reset * from_state[2])
            state = new + update * (state - new)
            states.append(state)
        return torch.stack(states, dim=1)


def draw_uniform(parameter: Tensor, bound: float, generator: torch.Generator) -> None:
    """Draw a parameter uniformly from ``-bound .. bound``."""
    with torch.no_grad():
        parameter.uniform_(-bound, bound, generator=generator)


def draw_xavier_normal(matrix: Tensor, generator: torch.Generator) -> None:
    """Draw a matrix from ``N(0, 2 / (rows + columns))``."""
    with torch.no_grad():
        matrix.normal_(0.0, math.sqrt(2 / sum(matrix.shape)), generator=generator)
