"""What is learned, as modules whose parameters are the synthetic data."""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from recdistill.data.rows import TuckerRows


class TuckerSequences(nn.Module):
    """Synthetic sequences as the softmax of a Tucker decomposition with a frozen item factor.

    ``U, T ~ N(0, 0.02^2)`` and a Kaiming-normal core, so that the first distributions are nearly uniform.

    Args:
        num_rows: synthetic users, N.
        length: items per sequence, T.
        rank: of the user and of the time factor.
        item_factor: frozen, (V, R).
        pad_column: let padding take part in the softmax with a zero row.
        generator: where the factors are drawn from.

    Reference: TD3, arXiv 2502.02854, equation 7.
    """

    item_factor: Tensor

    def __init__(
        self,
        num_rows: int,
        length: int,
        rank: int,
        item_factor: Float[Tensor, "V R"],
        *,
        pad_column: bool,
        generator: torch.Generator,
    ) -> None:
        super().__init__()
        width = item_factor.shape[1]
        self.pad_column = pad_column
        self.register_buffer("item_factor", item_factor, persistent=False)
        self.core = nn.Parameter(
            torch.empty(rank, rank, width).normal_(generator=generator) * (2 / (rank * width)) ** 0.5
        )
        self.user_factor = nn.Parameter(torch.empty(num_rows, rank).normal_(generator=generator) * 0.02)
        self.time_factor = nn.Parameter(torch.empty(length, rank).normal_(generator=generator) * 0.02)

    def rows(self) -> TuckerRows:
        """Return the current rows, connected to the parameters."""
        return TuckerRows(self.core, self.user_factor, self.time_factor, self.item_factor, self.pad_column)

    def frozen_rows(self) -> TuckerRows:
        """Return a copy of the current rows without a graph."""
        factors = (self.core, self.user_factor, self.time_factor, self.item_factor)
        core, user, time, item = (factor.detach().clone().cpu() for factor in factors)
        return TuckerRows(core, user, time, item, self.pad_column)
