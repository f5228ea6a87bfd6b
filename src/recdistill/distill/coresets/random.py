"""Random users: the plainest control."""

from dataclasses import dataclass
from typing import ClassVar

from recdistill.data.development import Development
from recdistill.distill.base import RunContext, Summary, check_budget, check_room, item_factor_of
from recdistill.distill.coresets.selection import last_items, usable_users
from recdistill.rng import Streams
from recdistill.training.trajectory import Trajectory


@dataclass(frozen=True, kw_only=True)
class Random:
    """Whole users drawn uniformly without replacement, each cut to the last ``length`` training items."""

    method: ClassVar[str] = "random"

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
        """Return the rows of the drawn users."""
        check_room(self.num_rows, self.length, train)
        users = rng.numpy("users").choice(usable_users(train), self.num_rows, replace=False)
        return Summary(last_items(train, users, self.length), item_factor_of(teacher))
