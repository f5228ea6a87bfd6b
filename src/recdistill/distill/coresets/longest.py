"""The users with the longest histories."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from jaxtyping import Int

from recdistill.data.development import Development
from recdistill.distill.coresets.selection import UserSelector, top_users, usable_users
from recdistill.rng import Streams
from recdistill.training.trajectory import Trajectory


@dataclass(frozen=True, kw_only=True)
class Longest(UserSelector):
    """Users by number of training events, largest first, each cut to the last ``length``; ties at random.

    Reference: TD3, arXiv 2502.02854, section 4.1 (its baseline of that name).
    """

    method: ClassVar[str] = "longest"

    def choose_users(self, train: Development, teacher: Trajectory, rng: Streams) -> Int[np.ndarray, " N"]:
        """Return the longest users."""
        return top_users(usable_users(train), train.histories.train_lengths(), self.num_rows, rng.numpy("ties"))
