"""BERT4Rec: attention in both directions, trained to fill in hidden items.

What is unusual here. The output bias of an item is the last column of its row in the item table, and hidden vectors end
in a one, so that the model still ranks by a plain product. The slot *after* the history is what scores are read from;
reading several positions of a row means as many passes, because each hides all that follows.
"""

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from recdistill.data.batches import SequenceBatch
from recdistill.errors import OptionError, require_at_least, require_rate
from recdistill.models.base import Recommender, following, weighted_mean
from recdistill.models.layers import (
    Randomness,
    TransformerBlock,
    draw_mask,
    draw_normal,
    dropout,
    linear,
    table,
)


class BERT4Rec(Recommender):
    """Bidirectional encoder representations for sequential recommendation.

    Trained with a generator and without chosen positions, it fills in items that are hidden at random (Cloze). In every
    other case it predicts the next item from a mask after the history, which is also how it is scored.

    Where the targets are separate from the inputs, the slot after each row is always hidden, and the distribution after
    an item is the target of the slot that follows it.

    Args:
        num_items: size of the catalogue, V.
        max_seq_len: longest history, in items.
        embedding_dim: width of item vectors and hidden states.
        num_blocks: number of transformer blocks.
        num_heads: attention heads; divides ``embedding_dim``.
        inner_dim: width inside the feed-forward layers.
        dropout: rate after the embedding, the attention output and the feed-forward output.
        attention_dropout: rate on the attention weights.
        mask_ratio: part of the items that Cloze hides, above 0 and below 1.
        last_ratio: part of the rows in which Cloze hides the last item only, 0 or more and below 1.
        generator: where the weights are drawn from.

    Raises:
        OptionError: ``num_heads`` does not divide ``embedding_dim``, or a value is out of its range.

    Reference: Sun et al., BERT4Rec: Sequential Recommendation with Bidirectional Encoder Representations from
    Transformer, CIKM 2019, arXiv 1904.06690.

    Departures: the first item of a row is never hidden, because nothing before it predicts it in any other model;
    masks are drawn anew at each step; rows that hide their last item are drawn with ``last_ratio`` (RecBole) and not
    added as a second copy (the paper).
    """

    name = "bert4rec"

    def __init__(
        self,
        num_items: int,
        max_seq_len: int,
        *,
        embedding_dim: int = 64,
        num_blocks: int = 2,
        num_heads: int = 2,
        inner_dim: int = 256,
        dropout: float = 0.5,
        attention_dropout: float = 0.5,
        mask_ratio: float = 0.2,
        last_ratio: float = 0.5,
        generator: torch.Generator,
    ) -> None:
        super().__init__()
        require_at_least(1, embedding_dim=embedding_dim, num_blocks=num_blocks, num_heads=num_heads)
        require_at_least(1, inner_dim=inner_dim, max_seq_len=max_seq_len)
        require_rate(dropout=dropout, attention_dropout=attention_dropout, mask_ratio=mask_ratio, last_ratio=last_ratio)
        if embedding_dim % num_heads:
            raise OptionError("num_heads", num_heads, fix=f"does not divide embedding_dim {embedding_dim}; use 1 or 2")
        if mask_ratio == 0:
            raise OptionError("mask_ratio", mask_ratio, fix="hides nothing; use a number above 0, such as 0.2")
        self.config = {
            "num_items": num_items,
            "max_seq_len": max_seq_len,
            "embedding_dim": embedding_dim,
            "num_blocks": num_blocks,
            "num_heads": num_heads,
            "inner_dim": inner_dim,
            "dropout": dropout,
            "attention_dropout": attention_dropout,
            "mask_ratio": mask_ratio,
            "last_ratio": last_ratio,
        }
        self.num_items, self.max_seq_len, self.dropout = num_items, max_seq_len, dropout
        self.mask_ratio, self.last_ratio = mask_ratio, last_ratio
        self.item_embedding = table(num_items + 1, embedding_dim + 1)
        self.position_embedding = table(max_seq_len + 1, embedding_dim)
        self.mask_embedding = table(1, embedding_dim)
        self.norm = nn.LayerNorm(embedding_dim, eps=1e-12)
        self.blocks = nn.ModuleList(
            TransformerBlock(
                embedding_dim,
                num_heads,
                inner_dim,
                dropout=dropout,
                attention_dropout=attention_dropout,
                norm_eps=1e-12,
            )
            for _ in range(num_blocks)
        )
        self.output = linear(embedding_dim, embedding_dim)
        self.output_norm = nn.LayerNorm(embedding_dim, eps=1e-12)
        draw_normal(self, 0.02, generator)
        with torch.no_grad():
            self.item_embedding[0] = 0.0
            self.item_embedding[:, -1] = 0.0

    @property
    def item_table(self) -> Float[Tensor, "V1 D1"]:
        """The item vectors, which input and output share, and the output bias as the last column."""
        return self.item_embedding

    @property
    def item_width(self) -> int:
        """Columns of the item table that hold item vectors: all but the bias."""
        return self.item_embedding.shape[1] - 1

    def encode(
        self,
        embedded: Float[Tensor, "B T D1"],
        lengths: Int[Tensor, " B"],
        positions: Int[Tensor, "B P"] | None = None,
        generator: Randomness | None = None,
    ) -> Float[Tensor, "B P D1"]:
        """Return what the mask in the slot after each of ``positions`` reads, with all that follows hidden."""
        rows, width, _ = embedded.shape
        if positions is None:
            positions = torch.arange(width, device=embedded.device).expand(rows, -1)
        slots = positions.flatten().unsqueeze(1) + 1  # (B P, 1)
        vectors = _one_more(embedded).repeat_interleave(positions.shape[1], dim=0)  # (B P, T + 1, D + 1)
        hidden = torch.arange(width + 1, device=embedded.device) == slots
        return self._read(vectors, hidden, slots, slots, generator).unflatten(0, positions.shape).squeeze(2)

    def forward(
        self, batch: SequenceBatch, generator: Randomness | None = None
    ) -> tuple[Float[Tensor, ""], Float[Tensor, "B P D1"]]:
        """Return the mean cross-entropy of hidden items, or of next items, and the vectors that predict them."""
        if generator is None or batch.positions is not None:
            return super().forward(batch, generator)
        embedded = self.embed(batch.items)
        vectors = embedded if batch.targets is None else _one_more(embedded)
        slots = following(None, vectors)
        weights = batch.weights * self._hide(batch, generator)
        hidden = F.pad(weights > 0, (1, 0))
        read = self._read(vectors, hidden, batch.lengths.unsqueeze(1), slots, generator)
        if batch.targets is None:
            losses = batch.items.cross_entropy(read, self.item_table, slots, embedded)
        else:
            losses = batch.targets.cross_entropy(read, self.item_table)
        return weighted_mean(losses, weights), read

    def _hide(self, batch: SequenceBatch, generator: Randomness) -> Bool[Tensor, "B T"]:
        """Return which of the slots after the inputs are hidden."""
        at_random = draw_mask(batch.weights, self.mask_ratio, generator) == 0
        only_last = draw_mask(batch.weights[:, :1], self.last_ratio, generator) == 0
        last = torch.arange(batch.weights.shape[1], device=batch.weights.device) == batch.lengths.unsqueeze(1) - 1
        if batch.targets is not None:
            at_random = at_random | last  # nothing is known of this slot
        return torch.where(only_last, last, at_random)

    def _read(
        self,
        vectors: Float[Tensor, "B T1 D1"],
        hidden: Bool[Tensor, "B T1"],
        last: Int[Tensor, "B 1"],
        slots: Int[Tensor, "B P"],
        generator: Randomness | None,
    ) -> Float[Tensor, "B P D1"]:
        """Return the output at ``slots``, where ``hidden`` slots show the mask and none after ``last`` is read."""
        width = vectors.shape[1]
        shown = torch.where(hidden.unsqueeze(-1), self.mask_embedding, vectors[..., :-1])
        state = dropout(self.norm(shown + self.position_embedding[:width]), self.dropout, generator)
        real = torch.arange(width, device=vectors.device) <= last
        allowed = real.unsqueeze(1).expand(-1, width, -1)
        for block in self.blocks[:-1]:
            state = block(state, allowed, generator)
        state = self.blocks[-1](state, allowed, generator, slots)
        state = self.output_norm(F.gelu(self.output(state)))
        return F.pad(state, (0, 1), value=1.0)


def _one_more(vectors: Float[Tensor, "B T D"]) -> Float[Tensor, "B T1 D"]:
    """Return the rows with an empty slot at their end."""
    return F.pad(vectors, (0, 0, 0, 1))
