"""The users who were active last."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from jaxtyping import Int

from recdistill.data.development import Development
from recdistill.distill.coresets.selection import UserSelector, top_users, usable_users
from recdistill.errors import OptionError
from recdistill.rng import Streams
from recdistill.training.trajectory import Trajectory


@dataclass(frozen=True, kw_only=True)
class MostRecent(UserSelector):
    """Users by the time of their last training event, latest first, each cut to the last ``length`` items.

    When not to use it: on logs without a clock, where it raises.
    """

    method: ClassVar[str] = "most_recent"

    def check(self, train: Development) -> None:
        """Raise when the budget is larger than the data, or the log has an order but no clock."""
        super().check(train)
        if train.last_train_time is None:
            raise OptionError("--method", self.method, fix=f"needs timestamps, and {train.name} has only an order")

    def choose_users(self, train: Development, teacher: Trajectory, rng: Streams) -> Int[np.ndarray, " N"]:
        """Return the most recent users."""
        assert train.last_train_time is not None  # see check
        return top_users(usable_users(train), train.last_train_time, self.num_rows, rng.numpy("ties"))
