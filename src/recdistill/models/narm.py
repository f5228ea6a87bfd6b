"""NARM: a recurrent network whose last state attends to the earlier ones.

What is unusual here: the attention weights are not normalised, as in the paper, so that every position can be read out
in one pass with a lower triangle in place of a softmax.
"""

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from recdistill.data.batches import pick
from recdistill.errors import require_at_least, require_rate
from recdistill.models.base import Recommender
from recdistill.models.layers import GRU, Randomness, draw_uniform, draw_xavier_normal, dropout, table


class NARM(Recommender):
    """Neural attentive recommendation: the state after the last item, beside a sum of all states weighted by it.

    Args:
        num_items: size of the catalogue, V.
        max_seq_len: longest history, in items.
        embedding_dim: width of item vectors.
        hidden_dim: width of the recurrent state.
        num_layers: recurrent layers.
        dropout: rate on the item vectors.
        output_dropout: rate on the two states side by side.
        generator: where the weights are drawn from.

    Raises:
        OptionError: a value is out of its range.

    Reference: Li et al., Neural Attentive Session-based Recommendation, CIKM 2017, arXiv 1711.04725, equations 5 to 10.

    Departures: the recurrent layer has no biases, as in RecBole.
    """

    name = "narm"

    def __init__(
        self,
        num_items: int,
        max_seq_len: int,
        *,
        embedding_dim: int = 64,
        hidden_dim: int = 128,
        num_layers: int = 1,
        dropout: float = 0.25,
        output_dropout: float = 0.5,
        generator: torch.Generator,
    ) -> None:
        super().__init__()
        require_at_least(1, embedding_dim=embedding_dim, hidden_dim=hidden_dim, num_layers=num_layers)
        require_at_least(1, max_seq_len=max_seq_len)
        require_rate(dropout=dropout, output_dropout=output_dropout)
        self.config = {
            "num_items": num_items,
            "max_seq_len": max_seq_len,
            "embedding_dim": embedding_dim,
            "hidden_dim": hidden_dim,
            "num_layers": num_layers,
            "dropout": dropout,
            "output_dropout": output_dropout,
        }
        self.num_items, self.max_seq_len = num_items, max_seq_len
        self.dropout, self.output_dropout = dropout, output_dropout
        self.item_embedding = table(num_items + 1, embedding_dim)
        widths = [embedding_dim, *[hidden_dim] * num_layers]
        self.layers = nn.ModuleList(GRU(inputs, hidden_dim) for inputs in widths[:-1])
        self.from_last, self.from_each = table(hidden_dim, hidden_dim), table(hidden_dim, hidden_dim)
        self.attention = table(1, hidden_dim)
        self.output = table(embedding_dim, 2 * hidden_dim)
        self._draw(generator)

    def _draw(self, generator: torch.Generator) -> None:
        for matrix in (self.item_embedding, self.from_last, self.from_each, self.attention, self.output):
            draw_xavier_normal(matrix, generator)
        with torch.no_grad():
            self.item_embedding[0] = 0.0
        for parameter in self.layers.parameters():
            draw_uniform(parameter, self.from_last.shape[0] ** -0.5, generator)

    @property
    def item_table(self) -> Float[Tensor, "V1 D"]:
        """The item table; input and output share it."""
        return self.item_embedding

    def encode(
        self,
        embedded: Float[Tensor, "B T D"],
        lengths: Int[Tensor, " B"],
        positions: Int[Tensor, "B P"] | None = None,
        generator: Randomness | None = None,
    ) -> Float[Tensor, "B P D"]:
        """Return the projected states at ``positions``; no position reads a later one."""
        states = dropout(embedded, self.dropout, generator)
        for layer in self.layers:
            states = layer(states)
        last = pick(states, positions)  # (B, P, H)
        both = torch.cat([self._attend(states, last, positions), last], dim=-1)
        return dropout(both, self.output_dropout, generator) @ self.output.T

    def _attend(
        self, states: Float[Tensor, "B T H"], last: Float[Tensor, "B P H"], positions: Int[Tensor, "B P"] | None
    ) -> Float[Tensor, "B P H"]:
        """Return ``sum_t <v, sigmoid(A1 last + A2 state_t)> state_t`` over the states up to each position."""
        gates = (last @ self.from_last.T).unsqueeze(2) + (states @ self.from_each.T).unsqueeze(1)  # (B, P, T, H)
        weights = (torch.sigmoid(gates) @ self.attention.T).squeeze(-1)
        steps = torch.arange(states.shape[1], device=states.device)
        reached = steps.expand(len(states), -1) if positions is None else positions
        return (weights * (steps <= reached.unsqueeze(-1))) @ states
