"""Popularity: every user gets the same ranking, by how often an item occurs. The floor below every method."""

import torch
from jaxtyping import Float, Int
from torch import Tensor

from recdistill.models.base import Recommender
from recdistill.models.layers import Randomness, table


class Popularity(Recommender):
    """Items ranked by their number of occurrences in the training data; nothing to train.

    Args:
        num_items: size of the catalogue, V.
        max_seq_len: longest history that is read, in items; of no effect.
        generator: accepted for the common interface; nothing is drawn.
    """

    name = "popularity"
    trainable = False

    def __init__(self, num_items: int, max_seq_len: int, *, generator: torch.Generator) -> None:
        super().__init__()
        self.config = {"num_items": num_items, "max_seq_len": max_seq_len}
        self.num_items, self.max_seq_len = num_items, max_seq_len
        self.counts = table(num_items + 1, 1)
        self.counts.requires_grad_(False)

    @property
    def item_table(self) -> Float[Tensor, "V1 D"]:
        """The counts, as a table of width 1."""
        return self.counts

    def count(self, item_counts: Float[Tensor, " V1"]) -> None:
        """Take the counts of the training data."""
        with torch.no_grad():
            self.counts.copy_(item_counts.unsqueeze(1))

    def encode(
        self,
        embedded: Float[Tensor, "B T D"],
        lengths: Int[Tensor, " B"],
        positions: Int[Tensor, "B P"] | None = None,
        generator: Randomness | None = None,
    ) -> Float[Tensor, "B P D"]:
        """Return ones: every user is the same."""
        width = embedded.shape[1] if positions is None else positions.shape[1]
        return embedded.new_ones(len(embedded), width, 1)
