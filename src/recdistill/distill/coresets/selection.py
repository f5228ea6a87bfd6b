"""What the selectors share: from chosen users to rows."""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from recdistill.data.development import Development
from recdistill.data.rows import CountRows, HardRows
from recdistill.data.sequences import gather_spans
from recdistill.distill.base import RunContext, Summary, check_budget, check_room, item_factor_of
from recdistill.rng import Streams
from recdistill.training.trajectory import Trajectory


@dataclass(frozen=True, kw_only=True)
class UserSelector(ABC):
    """A selector that keeps whole users, each cut to the last ``length`` training items.

    A subclass names itself and says which users.
    """

    method: ClassVar[str]

    num_rows: int = 30
    """Users, at least 1."""
    length: int = 50
    """Items per user, at least 2."""

    def __post_init__(self) -> None:
        """Check every field."""
        check_budget(self.num_rows, self.length, shortest=2)

    def check(self, train: Development) -> None:
        """Raise when the budget is larger than the data."""
        check_room(self.num_rows, self.length, train)

    @abstractmethod
    def choose_users(self, train: Development, teacher: Trajectory, rng: Streams) -> Int[np.ndarray, " N"]:
        """Return ``num_rows`` different users with at least two training events each."""

    def distill(
        self, train: Development, teacher: Trajectory, previous: Summary | None, rng: Streams, context: RunContext
    ) -> Summary:
        """Return the rows of the chosen users; ``previous`` is ignored.

        Raises:
            OptionError: the budget is larger than the data.
        """
        self.check(train)
        users = self.choose_users(train, teacher, rng)
        return Summary(last_items(train, users, self.length), item_factor_of(teacher))


@dataclass(frozen=True, kw_only=True)
class Rowless(ABC):
    """A control without sequences: item counts and the item table. A subclass names itself and gives the counts."""

    method: ClassVar[str]

    num_rows: int = 0
    """Of no effect."""
    length: int = 0
    """Of no effect."""

    @abstractmethod
    def counts(self, train: Development) -> Float[Tensor, " V1"]:
        """Return a number per item; index 0 is padding."""

    def check(self, train: Development) -> None:
        """Accept any data."""
        del train  # counts can be taken of every log

    def distill(
        self, train: Development, teacher: Trajectory, previous: Summary | None, rng: Streams, context: RunContext
    ) -> Summary:
        """Return the counts and the item table; ``previous`` is ignored."""
        return Summary(CountRows(self.counts(train)), item_factor_of(teacher))


def usable_users(train: Development) -> Int[np.ndarray, " users"]:
    """Return the users with at least two training events: one to read, one to predict."""
    return np.flatnonzero(train.histories.train_lengths() >= 2)


def random_users(train: Development, count: int, rng: Streams) -> Int[np.ndarray, " N"]:
    """Return ``count`` users with at least two training events, uniformly without replacement; stream ``users``."""
    return rng.numpy("users").choice(usable_users(train), count, replace=False)


def last_items(train: Development, users: Int[np.ndarray, " N"], length: int) -> HardRows:
    """Return the last ``length`` training items of each user."""
    stop = train.histories.train_end[users]
    start = np.maximum(train.histories.offsets[:-1][users], stop - length)
    ids = gather_spans(train.histories.items, start, stop)
    return HardRows(ids, torch.from_numpy(stop - start))


def top_users(users: Int[np.ndarray, " n"], keys: np.ndarray, count: int, rng: np.random.Generator) -> np.ndarray:
    """Return the ``count`` users with the largest keys, ties broken at random."""
    shuffled = rng.permutation(len(users))
    order = np.argsort(-keys[users][shuffled], kind="stable")
    return users[shuffled][order][:count]
