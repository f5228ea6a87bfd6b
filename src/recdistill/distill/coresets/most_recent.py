"""The users who were active last."""

from dataclasses import dataclass
from typing import ClassVar

from recdistill.data.development import Development
from recdistill.distill.base import RunContext, Summary, check_budget, check_room, item_factor_of
from recdistill.distill.coresets.selection import last_items, top_users, usable_users
from recdistill.errors import OptionError
from recdistill.rng import Streams
from recdistill.training.trajectory import Trajectory


@dataclass(frozen=True, kw_only=True)
class MostRecent:
    """Users by the time of their last training event, latest first, each cut to the last ``length`` items.

    When not to use it: on logs without a clock, where it raises.
    """

    method: ClassVar[str] = "most_recent"

    num_rows: int = 30
    """Users, at least 1."""
    length: int = 50
    """Items per user, at least 2."""

    def __post_init__(self) -> None:
        """Check every field."""
        check_budget(self.num_rows, self.length, shortest=2)

    def distill(
        self,
        train: Development,
        teacher: Trajectory,
        previous: Summary | None,
        rng: Streams,
        context: RunContext,
    ) -> Summary:
        """Return the rows of the most recent users.

        Raises:
            OptionError: the log has an order but no clock.
        """
        check_room(self.num_rows, self.length, train)
        if train.last_train_time is None:
            raise OptionError("--method", self.method, fix=f"needs timestamps, and {train.name} has only an order")
        users = top_users(usable_users(train), train.last_train_time, self.num_rows, rng.numpy("ties"))
        return Summary(last_items(train, users, self.length), item_factor_of(teacher))
