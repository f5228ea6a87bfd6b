"""K-Center: users that leave no other user far away."""

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


@dataclass(frozen=True, kw_only=True)
class KCenter(UserSelector):
    """Users whose vectors cover those of all users, found greedily, each cut to the last ``length`` items.

    A user's vector is what the best teacher makes of all his training items that it can read. The first user is the one
    nearest the mean; each further one is the user farthest from those chosen so far. No user is then farther from the
    chosen ones than twice the distance that the best choice of as many users allows. Ties at random.

    When not to use it: where some users are noise. Outliers are what it takes first.

    Costs one pass of the teacher and ``num_rows`` passes over the vectors, ``O(users num_rows D)``; memory is the
    vectors, ``users D`` numbers.

    Reference: Sener and Savarese, Active Learning for Convolutional Neural Networks: A Core-Set Approach, ICLR 2018,
    arXiv 1708.00489, algorithm 1.

    Departures: there is no labelled set to start from, so the start is the user nearest the mean; the mixed-integer
    refinement that tolerates outliers is left out.
    """

    method: ClassVar[str] = "k_center"

    def choose_users(self, train: Development, teacher: Trajectory, rng: Streams) -> Int[np.ndarray, " N"]:
        """Return the centres, in the order in which they were found."""
        users = usable_users(train)
        points = user_vectors(teacher.best(), train, users)
        return users[greedy_centers(points, self.num_rows, rng.numpy("ties"))]


def greedy_centers(points: Float[Tensor, "U D"], count: int, ties: np.random.Generator) -> list[int]:
    """Return the places of ``count`` points: the one nearest the mean, then always the farthest from those before.

    Args:
        points: one per row.
        count: 1 to U.
        ties: draws among equally far points.
    """
    chosen = [draw_largest(-distances(points, points.mean(0)), ties)]
    nearest = points.new_full((len(points),), torch.inf)
    while len(chosen) < count:
        nearest = torch.minimum(nearest, distances(points, points[chosen[-1]]))
        nearest[chosen[-1]] = -1.0  # below every distance: not again, even where all others are copies
        chosen.append(draw_largest(nearest, ties))
    return chosen


def distances(points: Float[Tensor, "U D"], center: Float[Tensor, " D"]) -> Float[Tensor, " U"]:
    """Return Euclidean distances from ``center``, from differences: 0 exactly for its copies."""
    return torch.cdist(points, center.unsqueeze(0), compute_mode="donot_use_mm_for_euclid_dist").squeeze(1)
