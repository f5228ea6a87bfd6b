"""What `recdistill prepare` may be asked for, and the steps that it stands for."""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from recdistill.data import filters, splits
from recdistill.data.log import InteractionLog
from recdistill.data.readers.base import ReadOptions
from recdistill.data.splits import Split
from recdistill.errors import OptionError, choose

SPLITS = {
    "leave-one-out": lambda log, spec: splits.leave_one_out(
        log, min_events=spec.min_events, short_users=spec.short_users
    ),
    "time": lambda log, spec: splits.absolute_time(log, spec.fractions),
    "blocks": lambda log, spec: splits.streaming_blocks(log, spec.num_blocks),
    "given": lambda log, spec: splits.given_split(log),
}
"""Split by the name that ``--split`` takes."""


@dataclass(frozen=True, kw_only=True)
class PrepareSpec:
    """How a raw source becomes a prepared dataset: read, rating filter, repeats, minimums, k-core, split."""

    format: str | None = None
    """Name of the raw format; None looks at the source."""
    columns: Mapping[str, str] = field(default_factory=dict)
    """Our column name -> that of the source, for recbole and table."""
    time_unit: str | None = None
    """``s``, ``ms``, ``us``, ``ns`` or ``iso``; None takes that of the format."""
    duplicates: str = "error"
    """Rows that repeat an earlier one exactly: ``error``, ``drop`` or ``keep``."""
    min_rating: float | None = None
    """Smallest rating to keep; None keeps all rows."""
    repeats: str = "keep"
    """Rows of a user and item that met before: ``keep``, or ``drop`` for the first meeting only."""
    min_user: int = 1
    """Fewest rows of a user, in a single pass; 1 keeps all."""
    min_item: int = 1
    """Fewest rows of an item, in a single pass; 1 keeps all."""
    min_order: str = filters.ITEMS_FIRST
    """Order of the single pass: ``items-then-users`` or ``users-then-items``."""
    user_k: int = 1
    """Fewest rows of a user in the k-core; 1 keeps all."""
    item_k: int = 1
    """Fewest rows of an item in the k-core; 1 keeps all."""
    split: str = "leave-one-out"
    """``leave-one-out``, ``time``, ``blocks`` or ``given``."""
    min_events: int = 3
    """Leave-one-out: fewest rows of a user, 3 or more."""
    short_users: str = "error"
    """Leave-one-out: users with fewer rows: ``error``, ``drop`` or ``train``."""
    fractions: tuple[float, float, float] = (0.8, 0.1, 0.1)
    """Time: shares of train, valid and test."""
    num_blocks: int = 10
    """Blocks: number of time blocks, 2 or more."""
    name: str | None = None
    """Name of the data; None takes that of the source."""

    def __post_init__(self) -> None:
        choose("--split", self.split, SPLITS)
        choose("--repeats", self.repeats, dict.fromkeys(("keep", "drop")))
        choose("--min-order", self.min_order, filters.ORDERS)
        choose("--short-users", self.short_users, splits.SHORT_USERS)
        for option in ("min_user", "min_item", "user_k", "item_k"):
            if getattr(self, option) < 1:
                name = "--" + option.replace("_", "-")
                raise OptionError(name, getattr(self, option), fix="must be 1 or more; 1 keeps everything")
        self.read_options()

    def read_options(self) -> ReadOptions:
        """Return what the reader needs to know."""
        return ReadOptions(columns=self.columns, time_unit=self.time_unit, duplicates=self.duplicates)

    def as_dict(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        values = {name.name: getattr(self, name.name) for name in dataclasses.fields(self)}
        return {**values, "columns": dict(self.columns), "fractions": list(self.fractions)}

    def filtered(self, log: InteractionLog) -> InteractionLog:
        """Return the log after all filters."""
        if self.min_rating is not None:
            log = filters.min_rating(log, self.min_rating)
        if self.repeats == "drop":
            log = filters.drop_repeats(log)
        if max(self.min_user, self.min_item) > 1:
            log = filters.min_interactions(log, user=self.min_user, item=self.min_item, order=self.min_order)
        if max(self.user_k, self.item_k) > 1:
            log = filters.k_core(log, self.user_k, self.item_k)
        return log

    def divided(self, log: InteractionLog) -> Split:
        """Return the log divided into train, valid and test."""
        return choose("--split", self.split, SPLITS)(log, self)
