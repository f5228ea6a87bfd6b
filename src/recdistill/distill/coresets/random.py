"""Random users: the plainest control."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from jaxtyping import Int

from recdistill.data.development import Development
from recdistill.distill.coresets.selection import UserSelector, random_users
from recdistill.rng import Streams
from recdistill.training.trajectory import Trajectory


@dataclass(frozen=True, kw_only=True)
class Random(UserSelector):
    """Whole users drawn uniformly without replacement, each cut to the last ``length`` training items."""

    method: ClassVar[str] = "random"

    def choose_users(self, train: Development, teacher: Trajectory, rng: Streams) -> Int[np.ndarray, " N"]:
        """Return the drawn users."""
        return random_users(train, self.num_rows, rng)
