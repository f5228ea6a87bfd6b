"""What is learned, as modules whose parameters are the synthetic data."""

import math
from abc import ABC, abstractmethod
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor, nn

from recdistill.data.rows import LowRankRows, SoftRows, TuckerRows


class SyntheticSequences(nn.Module, ABC):
    """Synthetic sequences of distributions over items."""

    keys_are_learnt: ClassVar[bool]
    """The items' side of the softmax moves too, so that no reader may hold it fixed."""

    @abstractmethod
    def rows(self) -> SoftRows:
        """Return the current rows, connected to the parameters."""

    def frozen_rows(self) -> SoftRows:
        """Return a copy of the current rows without a graph."""
        rows = self.rows()
        stored = {name: tensor.detach().clone().cpu() for name, tensor in rows.tensors().items()}
        factor = getattr(rows, "item_factor", None)
        return type(rows).from_tensors(stored, None if factor is None else factor.detach().clone().cpu())


class TuckerSequences(SyntheticSequences):
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

    keys_are_learnt: ClassVar[bool] = False
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


class LowRankSequences(SyntheticSequences):
    """Synthetic sequences as the softmax of latent vectors times a decoder, both learnt.

    Both are Kaiming-uniform, on ``+- sqrt(6 / fan_in)`` with ``fan_in = T L`` for the latent vectors and ``V`` for the
    decoder: what torch takes for tensors of the shapes ``(N, T, L)`` and ``(L, V)``. The first distributions are nearly
    uniform.

    Args:
        num_rows: synthetic users, N.
        length: items per sequence, T.
        latent_dim: width of the latent vectors, L.
        num_items: catalogue, V.
        temperature: by which the logits are divided; above 0.
        learn_temperature: learn it too, through its logarithm.
        generator: where the latent vectors and the decoder are drawn from.

    Reference: Sachdeva et al., Farzi Data, 2023, arXiv 2310.09983.
    """

    keys_are_learnt: ClassVar[bool] = True
    log_temperature: Tensor

    def __init__(
        self,
        num_rows: int,
        length: int,
        latent_dim: int,
        num_items: int,
        *,
        temperature: float,
        learn_temperature: bool,
        generator: torch.Generator,
    ) -> None:
        super().__init__()
        self.latent = nn.Parameter(_kaiming_uniform((num_rows, length, latent_dim), length * latent_dim, generator))
        self.decoder = nn.Parameter(_kaiming_uniform((num_items, latent_dim), num_items, generator))
        logarithm = torch.tensor([math.log(temperature)])
        if learn_temperature:
            self.log_temperature = nn.Parameter(logarithm)
        else:
            self.register_buffer("log_temperature", logarithm, persistent=False)

    def rows(self) -> LowRankRows:
        """Return the current rows, connected to the parameters."""
        return LowRankRows(self.latent, self.decoder, self.log_temperature.exp())


def _kaiming_uniform(shape: tuple[int, ...], fan_in: int, generator: torch.Generator) -> Tensor:
    bound = math.sqrt(6 / fan_in)
    return torch.empty(shape).uniform_(-bound, bound, generator=generator)
