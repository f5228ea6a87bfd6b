"""Herding: users whose mean is the mean of all."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from recdistill.data.development import Development
from recdistill.distill.coresets.representations import draw_largest, user_vectors
from recdistill.distill.coresets.selection import UserSelector, usable_users
from recdistill.rng import Streams
from recdistill.training.trajectory import Trajectory

POINTS_PER_BLOCK = 4096
"""Points in double precision at a time; stay in a cache."""


@dataclass(frozen=True, kw_only=True)
class Herding(UserSelector):
    """Users whose mean vector follows the mean of all users, each cut to the last ``length`` items.

    With a user's vector ``h_u`` as in :class:`~recdistill.distill.coresets.k_center.KCenter` and ``mu`` the mean of
    all: ``w = mu``; then always choose ``argmax <w, h_u>`` and set ``w <- w + mu - h_u``. Ties at random. After ``n``
    choices ``w = (n + 1) mu - sum of the chosen``, so what is missing most is chosen next.

    Costs as K-Center does.

    Reference: Welling, Herding Dynamical Weights to Learn, ICML 2009; as a way to choose examples, Rebuffi et al.,
    iCaRL: Incremental Classifier and Representation Learning, CVPR 2017, arXiv 1611.07725, algorithm 4.

    Departures: no user is chosen twice, as in iCaRL; Welling allows it. All users form one class. iCaRL scales vectors
    to length 1 and chooses what brings the mean nearest; here they are taken as they are and chosen by the product.
    """

    method: ClassVar[str] = "herding"

    def choose_users(self, train: Development, teacher: Trajectory, rng: Streams) -> Int[np.ndarray, " N"]:
        """Return the herd, in the order in which it was chosen."""
        users = usable_users(train)
        points = user_vectors(teacher.best(), train, users)
        return users[herd(points, self.num_rows, rng.numpy("ties"))]


def herd(points: Float[Tensor, "U D"], count: int, ties: np.random.Generator) -> list[int]:
    """Return the places of ``count`` different points whose mean follows the mean of all.

    Args:
        points: one per row.
        count: 1 to U.
        ties: draws among points with equal products.
    """
    mean = sum_of(points) / len(points)
    weight = mean.clone()
    free = torch.ones(len(points), dtype=torch.bool)
    chosen: list[int] = []
    while len(chosen) < count:
        chosen.append(draw_largest(products(points, weight).masked_fill_(~free, -torch.inf), ties))
        free[chosen[-1]] = False
        weight += mean - points[chosen[-1]]
    return chosen


def sum_of(points: Float[Tensor, "U D"]) -> Float[Tensor, " D"]:
    """Return the sum in double precision, without a copy of all points."""
    return torch.stack([block.sum(0, dtype=torch.float64) for block in points.split(POINTS_PER_BLOCK)]).sum(0)


def products(points: Float[Tensor, "U D"], weight: Float[Tensor, " D"]) -> Float[Tensor, " U"]:
    """Return ``<weight, point>``, summed in double and rounded, so that equal points tie in whatever order."""
    return torch.cat([(block.double() @ weight).to(points.dtype) for block in points.split(POINTS_PER_BLOCK)])
