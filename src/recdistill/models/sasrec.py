"""SASRec: causal self-attention over the history.

What is unusual here: the last block is computed only where it is read, which is exact and makes last-position training
several times cheaper.
"""

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from recdistill.errors import OptionError, require_at_least, require_rate
from recdistill.models.base import Recommender
from recdistill.models.layers import Randomness, TransformerBlock, draw_normal, dropout, table


class SASRec(Recommender):
    """Self-attentive sequential recommendation, in the variant of RecBole.

    Args:
        num_items: size of the catalogue, V.
        max_seq_len: longest history, in items.
        embedding_dim: width of item vectors and hidden states.
        num_blocks: number of transformer blocks.
        num_heads: attention heads; divides ``embedding_dim``.
        inner_dim: width inside the feed-forward layers.
        dropout: rate after the embedding, the attention output and the feed-forward output.
        attention_dropout: rate on the attention weights.
        generator: where the weights are drawn from.

    Raises:
        OptionError: ``num_heads`` does not divide ``embedding_dim``, or a value is out of its range.

    Reference: Kang and McAuley, Self-Attentive Sequential Recommendation, ICDM 2018, arXiv 1808.09781.

    Departures: post-norm blocks, GELU, weights from N(0, 0.02^2) and a softmax over all items, as RecBole has it, in
    place of the paper's pre-norm, ReLU and sampled binary loss. Padding is no candidate of the softmax.
    """

    name = "sasrec"

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
        generator: torch.Generator,
    ) -> None:
        super().__init__()
        require_at_least(1, embedding_dim=embedding_dim, num_blocks=num_blocks, num_heads=num_heads)
        require_at_least(1, inner_dim=inner_dim, max_seq_len=max_seq_len)
        require_rate(dropout=dropout, attention_dropout=attention_dropout)
        if embedding_dim % num_heads:
            raise OptionError("num_heads", num_heads, fix=f"does not divide embedding_dim {embedding_dim}; use 1 or 2")
        self.config = {
            "num_items": num_items,
            "max_seq_len": max_seq_len,
            "embedding_dim": embedding_dim,
            "num_blocks": num_blocks,
            "num_heads": num_heads,
            "inner_dim": inner_dim,
            "dropout": dropout,
            "attention_dropout": attention_dropout,
        }
        self.num_items, self.max_seq_len, self.dropout = num_items, max_seq_len, dropout
        self.item_embedding = table(num_items + 1, embedding_dim)
        self.position_embedding = table(max_seq_len, embedding_dim)
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
        draw_normal(self, 0.02, generator)
        with torch.no_grad():
            self.item_embedding[0] = 0.0

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
        """Return hidden vectors at ``positions``; no position reads a later one."""
        width = embedded.shape[1]
        hidden = dropout(self.norm(embedded + self.position_embedding[:width]), self.dropout, generator)
        causal = torch.ones(width, width, dtype=torch.bool, device=embedded.device).tril().unsqueeze(0)
        for block in self.blocks[:-1]:
            hidden = block(hidden, causal, generator)
        return self.blocks[-1](hidden, causal, generator, positions)
