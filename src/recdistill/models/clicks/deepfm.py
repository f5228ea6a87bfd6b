"""DeepFM: a factorisation machine beside a deep network."""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from recdistill.errors import require_rate
from recdistill.models.clicks.base import MLP, ClickModel, FirstOrder, pairwise
from recdistill.models.layers import Randomness


class DeepFM(ClickModel):
    """The logit of a factorisation machine plus that of a network over the same vectors.

    Args:
        num_ids: rows of each field's table.
        widths: columns of each field.
        embedding_dim: width of a vector.
        hidden_units: widths of the network's layers.
        dropout: rate behind each of them, in [0, 1).
        generator: where the weights are drawn from.

    Reference: Guo et al., DeepFM, IJCAI 2017, equation 1.

    Departures: the linear part is :class:`~recdistill.models.clicks.base.FirstOrder`.
    """

    name = "deepfm"

    def __init__(
        self,
        num_ids: Sequence[int],
        widths: Sequence[int],
        embedding_dim: int = 16,
        *,
        hidden_units: Sequence[int] = (128, 64),
        dropout: float = 0.0,
        generator: torch.Generator,
    ) -> None:
        super().__init__(num_ids, widths, embedding_dim, generator)
        require_rate(dropout=dropout)
        self.config |= {"hidden_units": tuple(hidden_units), "dropout": dropout}
        inputs = self.num_fields * embedding_dim
        self.first_order = FirstOrder(self.num_fields, embedding_dim)
        self.deep = MLP(inputs, hidden_units, dropout)
        self.finish([inputs, *hidden_units][-1], generator)

    def hidden(self, vectors: Float[Tensor, "B F D"], generator: Randomness | None = None) -> Float[Tensor, "B W"]:
        """Return the output of the deep network."""
        found: Tensor = self.deep(vectors.flatten(1), generator)
        return found

    def offset(self, vectors: Float[Tensor, "B F D"]) -> Float[Tensor, " B"]:
        """Return the logit of the factorisation machine."""
        found: Tensor = self.first_order(vectors)
        return found + pairwise(vectors).sum(1)
