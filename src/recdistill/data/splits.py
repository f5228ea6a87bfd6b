"""Which rows train, which validate, which test. Nothing may leak: test rows are the latest."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from recdistill.data.log import InteractionLog
from recdistill.data.vocabulary import Vocabulary
from recdistill.errors import DataError, OptionError, choose
from recdistill.storage import sha256_of

TRAIN, VALID, TEST = 0, 1, 2
PARTS = {"train": TRAIN, "valid": VALID, "test": TEST}
SHORT_USERS = {"error": "stop", "drop": "leave them out", "train": "train on all their rows"}
"""What to do with users that have too few rows for :func:`leave_one_out`."""

_OTHER_NAMES = {"training": "train", "val": "valid", "validation": "valid", "dev": "valid", "testing": "test"}


@dataclass(frozen=True, kw_only=True)
class How:
    """How a split was made: enough to make it again."""

    method: str
    """``leave-one-out``, ``time``, ``blocks`` or ``given``."""
    parameters: Mapping[str, Any] = field(default_factory=dict)
    """Its arguments."""

    def as_dict(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        return {"method": self.method, **self.parameters}


@dataclass(frozen=True, kw_only=True)
class Split:
    """A log whose rows are divided into train, valid and test, with one vocabulary for all three."""

    log: InteractionLog
    """The rows, time-sorted."""
    part: NDArray[np.int8]
    """0 train, 1 valid, 2 test, for every row."""
    how: How
    """How the split was made."""
    block: NDArray[np.int32] | None = None
    """Time block 0 .. B - 1 of every row; None when there are none."""

    @cached_property
    def vocabulary(self) -> Vocabulary:
        """Users and items of all parts."""
        return Vocabulary.of(self.log)

    @cached_property
    def hash(self) -> str:
        """SHA-256 over the content of the log, the part of every row, and how it was made."""
        parts = hashlib.sha256(self.part.astype("<i1").tobytes()).hexdigest()
        return sha256_of(self.log.content_hash, parts, self.how.as_dict())

    @property
    def train(self) -> InteractionLog:
        """The rows to train on."""
        return self.log.where(self.part == TRAIN)

    @property
    def valid(self) -> InteractionLog:
        """The rows to choose hyper-parameters with."""
        return self.log.where(self.part == VALID)

    @property
    def test(self) -> InteractionLog:
        """The rows to report on."""
        return self.log.where(self.part == TEST)


def leave_one_out(log: InteractionLog, *, min_events: int = 3, short_users: str = "error") -> Split:
    """Return the split where a user's last row is test, the one before it valid, and the rest train.

    When not to use it: the last events of users lie at different times, so training rows of one user may be
    later than test rows of another. Use :func:`absolute_time` when that matters and there is a clock.

    Args:
        log: with or without a clock.
        min_events: fewest rows of a user, 3 or more.
        short_users: ``error``, ``drop`` (leave users with fewer rows out) or ``train`` (all their rows are
        train).

    Raises:
        DataError: a user has fewer rows and ``short_users`` is ``error``, or no user has enough.
        OptionError: an option is out of range.
    """
    choose("--short-users", short_users, SHORT_USERS)
    if min_events < 3:
        raise OptionError("--min-events", min_events, fix="must be 3 or more: one row each to train, validate, test")
    last, count = _from_the_end(log)
    short = count < min_events
    if short.all() or (short.any() and short_users == "error"):
        raise _too_short(log, short, count, min_events)
    if short_users == "drop" and short.any():
        log, last = log.where(~short), last[~short]
        short = np.zeros(len(last), dtype=bool)
    part = np.select([short, last == 0, last == 1], [TRAIN, TEST, VALID], TRAIN).astype(np.int8)
    how = How(method="leave-one-out", parameters={"min_events": min_events, "short_users": short_users})
    return Split(log=log, part=part, how=how)


def _from_the_end(log: InteractionLog) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return, for every row, how many rows its user has after it, and how many in all."""
    after = pl.int_range(pl.len(), dtype=pl.Int64).reverse().over("user_id").alias("after")
    found = log.frame.select(after, pl.len().cast(pl.Int64).over("user_id").alias("count"))
    return found["after"].to_numpy(), found["count"].to_numpy()


def _too_short(log: InteractionLog, short: NDArray[np.bool_], count: NDArray[np.int64], needed: int) -> DataError:
    """Return the error that names the first user with too few rows."""
    row = int(np.flatnonzero(short)[0])
    number = log.where(short).num_users
    return DataError(
        f"user {log.frame['user_id'][row]!r} has {count[row]} events and leave-one-out needs {needed} "
        f"({number} of {log.num_users} users have fewer)",
        fix=f"pass --k-core {needed}, or --short-users drop or --short-users train",
    )


def absolute_time(log: InteractionLog, fractions: tuple[float, float, float] = (0.8, 0.1, 0.1)) -> Split:
    """Return the split by two points in time, the same for all users.

    Rows of equal time are never divided, so a part may be a little larger or smaller than asked.

    Args:
        log: with a clock.
        fractions: of the rows, for train, valid and test; each above 0, together 1.

    Raises:
        DataError: the log has no clock, or too few distinct times.
        OptionError: the fractions are out of range.
    """
    if len(fractions) != 3 or min(fractions) <= 0 or abs(sum(fractions) - 1) > 1e-9:
        raise OptionError("--fractions", fractions, fix="must be three numbers above 0 that add up to 1")
    times = _clock(log, "a split by time")
    count = len(times)
    cuts = [_boundary(times, round(share * count)) for share in (fractions[0], fractions[0] + fractions[1])]
    if not 0 < cuts[0] < cuts[1] < count:
        distinct = len(np.unique(times))
        told = f"{count} rows at {distinct} distinct times cannot be divided as {_told(fractions)}"
        raise DataError(told, fix="give a log with more distinct times, other --fractions, or --split leave-one-out")
    part = np.zeros(count, dtype=np.int8)
    part[cuts[0] :], part[cuts[1] :] = VALID, TEST
    return Split(log=log, part=part, how=How(method="time", parameters={"fractions": list(fractions)}))


def streaming_blocks(log: InteractionLog, num_blocks: int = 10) -> Split:
    """Return the split into time blocks of equal numbers of rows, for methods that see data as it arrives.

    The last block is test, the last tenth of the block before it valid, everything earlier train. Rows of
    equal time are never divided.

    Args:
        log: with a clock.
        num_blocks: 2 or more.

    Raises:
        DataError: the log has no clock, or too few distinct times.
        OptionError: fewer than 2 blocks.
    """
    if num_blocks < 2:
        raise OptionError("--num-blocks", num_blocks, fix="must be 2 or more: the last block is for testing")
    times = _clock(log, "a split into time blocks")
    count = len(times)
    cuts = [_boundary(times, round(index * count / num_blocks)) for index in range(num_blocks + 1)]
    start, end = cuts[-3], cuts[-2]
    valid = _boundary(times, end - round((end - start) / 10))
    if min(np.diff(cuts)) < 1 or not start < valid < end:
        distinct = len(np.unique(times))
        told = f"{count} rows at {distinct} distinct times cannot be divided into {num_blocks} blocks"
        raise DataError(told, fix="pass a smaller --num-blocks, or --split leave-one-out")
    part = np.zeros(count, dtype=np.int8)
    part[valid:], part[end:] = VALID, TEST
    block = np.repeat(np.arange(num_blocks, dtype=np.int32), np.diff(cuts))
    return Split(log=log, part=part, block=block, how=How(method="blocks", parameters={"num_blocks": num_blocks}))


def given_split(log: InteractionLog) -> Split:
    """Return the split that the log's own column ``split`` says: train, valid (or val) and test.

    Whether no user has a train row after a valid row, or a valid row after a test row, is told in ``how`` as
    ``time_ordered``; a split that is not is taken as it is.

    Raises:
        DataError: the column is missing, or a value is none of these, or no row is for training or testing.
    """
    if "split" not in log.frame.columns:
        told = f"{log.name} has no column 'split'; there are {', '.join(log.frame.columns)}"
        raise DataError(told, fix="name it with --columns split=NAME, or pass another --split")
    told_parts = log.frame["split"].cast(pl.String).str.strip_chars().str.to_lowercase().replace(_OTHER_NAMES)
    part = told_parts.replace_strict(PARTS, default=None, return_dtype=pl.Int8)
    if part.null_count():
        bad = log.frame["split"][int(part.is_null().arg_true()[0])]
        raise DataError(f"{bad!r} is no part of a split", fix="write train, valid or test", column="split")
    for name in ("train", "test"):
        if not (part == PARTS[name]).any():
            raise DataError(
                f"no row is for {name}", fix="give a complete split, or pass another --split", column="split"
            )
    later = log.frame.select("user_id", part.alias("part")).select(pl.col("part").diff().over("user_id"))
    ordered = not bool((later.to_series() < 0).any())
    return Split(log=log, part=part.to_numpy(), how=How(method="given", parameters={"time_ordered": ordered}))


def _clock(log: InteractionLog, what: str) -> NDArray[np.int64]:
    """Return the timestamps."""
    if not log.has_clock:
        told = f"{log.name} has an order and no timestamps, and {what} compares the times of different users"
        raise DataError(told, fix="pass --split leave-one-out, or give data with timestamps")
    return log.frame["timestamp"].to_numpy()


def _boundary(times: NDArray[np.int64], wanted: int) -> int:
    """Return the row nearest to ``wanted`` where the time changes, or an end of the log."""
    if wanted <= 0 or wanted >= len(times):
        return min(max(wanted, 0), len(times))
    before = int(np.searchsorted(times, times[wanted], side="left"))
    after = int(np.searchsorted(times, times[wanted], side="right"))
    return before if wanted - before <= after - wanted else after


def _told(fractions: tuple[float, float, float]) -> str:
    return " / ".join(f"{share:g}" for share in fractions)
