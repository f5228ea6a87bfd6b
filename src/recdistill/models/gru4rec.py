"""GRU4Rec: a recurrent network over the history."""

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from recdistill.data.batches import pick
from recdistill.errors import require_at_least, require_rate
from recdistill.models.base import Recommender
from recdistill.models.layers import (
    GRU,
    Randomness,
    draw_uniform,
    draw_xavier_normal,
    dropout,
    linear,
    table,
)


class GRU4Rec(Recommender):
    """Gated recurrent units, and a linear map from their state to an item vector, in the variant of RecBole.

    Args:
        num_items: size of the catalogue, V.
        max_seq_len: longest history, in items.
        embedding_dim: width of item vectors.
        hidden_dim: width of the recurrent state.
        num_layers: recurrent layers.
        dropout: rate on the item vectors.
        generator: where the weights are drawn from.

    Raises:
        OptionError: a value is out of its range.

    Reference: Hidasi et al., Session-based Recommendations with Recurrent Neural Networks, ICLR 2016, arXiv 1511.06939;
    Tan et al., Improved Recurrent Neural Networks for Session-based Recommendations, DLRS 2016, arXiv 1606.08117.

    Departures: input and output share the item table and the loss is a softmax over all items, as RecBole has it, in
    place of one-hot inputs, session-parallel batches and a ranking loss on sampled items.
    """

    name = "gru4rec"

    def __init__(
        self,
        num_items: int,
        max_seq_len: int,
        *,
        embedding_dim: int = 64,
        hidden_dim: int = 128,
        num_layers: int = 1,
        dropout: float = 0.3,
        generator: torch.Generator,
    ) -> None:
        super().__init__()
        require_at_least(1, embedding_dim=embedding_dim, hidden_dim=hidden_dim, num_layers=num_layers)
        require_at_least(1, max_seq_len=max_seq_len)
        require_rate(dropout=dropout)
        self.config = {
            "num_items": num_items,
            "max_seq_len": max_seq_len,
            "embedding_dim": embedding_dim,
            "hidden_dim": hidden_dim,
            "num_layers": num_layers,
            "dropout": dropout,
        }
        self.num_items, self.max_seq_len, self.dropout = num_items, max_seq_len, dropout
        self.item_embedding = table(num_items + 1, embedding_dim)
        widths = [embedding_dim, *[hidden_dim] * num_layers]
        self.layers = nn.ModuleList(GRU(inputs, hidden_dim) for inputs in widths[:-1])
        self.output = linear(hidden_dim, embedding_dim)
        self._draw(generator)

    def _draw(self, generator: torch.Generator) -> None:
        draw_xavier_normal(self.item_embedding, generator)
        with torch.no_grad():
            self.item_embedding[0] = 0.0
        for parameter in self.layers.parameters():
            draw_uniform(parameter, (6 / sum(parameter.shape)) ** 0.5, generator)
        for parameter in self.output.parameters():
            draw_uniform(parameter, self.output.in_features**-0.5, generator)

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
        projected: Tensor = self.output(pick(states, positions))
        return projected
