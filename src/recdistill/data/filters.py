"""Fewer rows: pure functions from a log to a log. One that would leave nothing says what leaves some."""

from collections.abc import Callable
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from recdistill.data.log import InteractionLog
from recdistill.errors import DataError, OptionError, choose

Codes = NDArray[np.integer[Any]]
Mask = NDArray[np.bool_]

ITEMS_FIRST, USERS_FIRST = "items-then-users", "users-then-items"
ORDERS = {ITEMS_FIRST: (1, 0), USERS_FIRST: (0, 1)}
"""Orders of a single pass; see :func:`min_interactions`."""


def k_core(log: InteractionLog, user_k: int, item_k: int) -> InteractionLog:
    """Return the largest part of a log where every user has ``user_k`` rows and every item ``item_k``.

    Args:
        log: the log.
        user_k: fewest rows of a user, 1 or more.
        item_k: fewest rows of an item, 1 or more.

    Raises:
        DataError: nothing is left; the message names the largest k that leaves something.
        OptionError: a k is below 1.
    """
    asked = f"k-core with {user_k} rows a user and {item_k} an item"
    return _at_least(log, user_k, item_k, _core_mask, asked, "--k-core")


def min_interactions(log: InteractionLog, *, user: int, item: int, order: str = ITEMS_FIRST) -> InteractionLog:
    """Return the log after one pass over items and one over users; the result need not be a k-core.

    The order matters: the pass that comes second may leave entities of the first kind below their minimum.
    The published data of TD3 was made both ways (notebook and loader differ), so it is an argument.

    Args:
        log: the log.
        user: fewest rows of a user, 1 or more.
        item: fewest rows of an item, 1 or more.
        order: ``items-then-users`` or ``users-then-items``.

    Raises:
        DataError: nothing is left; the message names the largest minimum that leaves something.
        OptionError: a minimum is below 1, or the order is not known.
    """
    passes = choose("--min-order", order, ORDERS)

    def mask(codes: tuple[Codes, Codes], minimums: tuple[int, int]) -> Mask:
        keep = np.ones(len(codes[0]), dtype=bool)
        for kind in passes:
            keep &= _frequent(codes[kind], keep, minimums[kind])
        return keep

    return _at_least(log, user, item, mask, f"at least {user} rows a user and {item} an item, {order}", "--min-user")


def min_rating(log: InteractionLog, threshold: float) -> InteractionLog:
    """Return the rows whose rating is ``threshold`` or more.

    Raises:
        DataError: there are no ratings, or nothing is left.
    """
    if "rating" not in log.frame.columns:
        told = f"{log.name} has no ratings; there are {', '.join(log.frame.columns)}"
        raise DataError(told, fix="leave out --min-rating, or name the column with --columns rating=NAME")
    keep = (log.frame["rating"] >= threshold).to_numpy()
    if not keep.any():
        largest = float(log.frame["rating"].to_numpy().max())
        told = f"rating >= {threshold:g} leaves nothing of {_sizes(log)}"
        raise DataError(told, fix=f"the largest rating is {largest:g}: pass --min-rating {largest:g} or less")
    return log.where(keep)


def drop_repeats(log: InteractionLog) -> InteractionLog:
    """Return the log with only the first row of every pair of user and item."""
    return log.where(log.frame.select(pl.struct("user_id", "item_id").is_first_distinct()).to_series().to_numpy())


def _at_least(
    log: InteractionLog,
    user: int,
    item: int,
    mask: Callable[[tuple[Codes, Codes], tuple[int, int]], Mask],
    asked: str,
    option: str,
) -> InteractionLog:
    """Return the rows that ``mask`` keeps, or say which smaller minimum keeps some."""
    for value in (user, item):
        if value < 1:
            raise OptionError(option, value, fix="must be 1 or more; 1 keeps everything")
    codes = (_codes(log.frame["user_id"]), _codes(log.frame["item_id"]))
    keep = mask(codes, (user, item))
    if keep.any():
        return log if keep.all() else log.where(keep)
    possible = _largest(lambda k: bool(mask(codes, (min(user, k), min(item, k))).any()), max(user, item))
    raise DataError(
        f"{asked} leaves nothing of {_sizes(log)}",
        fix=f"the largest k that leaves something is {possible} "
        f"({min(user, possible)} a user, {min(item, possible)} an item)",
    )


def _largest(works: Callable[[int], bool], failing: int) -> int:
    """Return the largest k below ``failing`` for which ``works``; k = 1 always does."""
    low, high = 1, failing
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if works(middle) else (low, middle)
    return low


def _core_mask(codes: tuple[Codes, Codes], minimums: tuple[int, int]) -> Mask:
    """Return the rows of the k-core: drop rare users and items until none is left to drop."""
    keep = np.ones(len(codes[0]), dtype=bool)
    while True:
        kept = int(keep.sum())
        for kind in (0, 1):
            keep &= _frequent(codes[kind], keep, minimums[kind])
        if int(keep.sum()) == kept:
            return keep


def _frequent(codes: Codes, keep: Mask, minimum: int) -> Mask:
    """Return the rows whose code occurs ``minimum`` times or more among the kept rows."""
    counts = np.bincount(codes[keep], minlength=int(codes.max()) + 1)
    frequent: Mask = (counts >= minimum)[codes]
    return frequent


def _codes(column: pl.Series) -> Codes:
    """Return a small integer for every distinct value."""
    codes: Codes = (column.rank("dense") - 1).to_numpy()
    return codes


def _sizes(log: InteractionLog) -> str:
    """Return the sizes of a log in words."""
    return f"{log.num_interactions} rows of {log.num_users} users and {log.num_items} items"
