"""The interaction log: who met which item, in time order."""

import hashlib
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np
import polars as pl

from recdistill.data.columns import identifiers, microseconds, numbers, whole_numbers, with_types
from recdistill.data.origin import Origin, Part
from recdistill.errors import DataError, choose

DUPLICATES = {"error": "stop", "drop": "keep the first", "keep": "keep all"}
"""What to do with rows that repeat an earlier one exactly."""

_ORDER = "__order"
_CHUNK = 1 << 20


@dataclass(frozen=True, kw_only=True)
class InteractionLog:
    """Rows ``user_id, item_id, timestamp`` sorted by time, or ``position`` where there is no clock.

    Rows of equal time keep the order of the source. A log without a clock is sorted by user, in order of
    first appearance, then by position. Make one with :func:`make_log` or a reader; this record checks names
    and types only.
    """

    frame: pl.DataFrame
    """``user_id`` and ``item_id`` (String); ``timestamp`` (Int64, seconds since 1970 UTC) or ``position``
    (Int64, per user); perhaps ``rating`` and ``label`` (Float64), ``split`` (String), and other fields."""
    items: pl.DataFrame | None = None
    """``item_id``, ``title`` where known, and other attributes; one row per item, perhaps of more items."""
    users: pl.DataFrame | None = None
    """``user_id`` and attributes; one row per user."""
    name: str = "log"
    """Short name of the data."""

    def __post_init__(self) -> None:
        order = "timestamp" if "timestamp" in self.frame.columns else "position"
        for column, dtype in {"user_id": pl.String, "item_id": pl.String, order: pl.Int64}.items():
            if self.frame.schema.get(column) != dtype:
                found = self.frame.schema.get(column, "no such column")
                raise DataError(f"{found} where {dtype} is needed", fix="make the log with make_log", column=column)

    @property
    def order(self) -> str:
        """Name of the column that orders the rows: ``timestamp`` or ``position``."""
        return "timestamp" if self.has_clock else "position"

    @property
    def has_clock(self) -> bool:
        """Whether rows have a time, so that events of different users can be compared."""
        return "timestamp" in self.frame.columns

    @cached_property
    def num_users(self) -> int:
        """Number of users with at least one row."""
        return self.frame["user_id"].n_unique()

    @cached_property
    def num_items(self) -> int:
        """Number of items with at least one row."""
        return self.frame["item_id"].n_unique()

    @property
    def num_interactions(self) -> int:
        """Number of rows."""
        return self.frame.height

    @cached_property
    def content_hash(self) -> str:
        """SHA-256 over user, item, time (or position), rating and label of every row in order.

        It does not depend on the file format that the rows were read from.
        """
        columns = [
            "user_id",
            "item_id",
            self.order,
            *(c for c in ("rating", "label") if c in self.frame.columns),
        ]
        digest = hashlib.sha256("|".join(columns).encode())
        for start in range(0, self.num_interactions, _CHUNK):
            for column in columns:
                digest.update(_canonical(self.frame[column].slice(start, _CHUNK)))
        return digest.hexdigest()

    def where(self, mask: np.ndarray) -> "InteractionLog":
        """Return the log with only the rows where ``mask`` is true, in the same order."""
        return replace(self, frame=self.frame.filter(pl.Series(mask)))


def _canonical(column: pl.Series) -> bytes:
    """Return bytes that tell the values apart and do not depend on the machine."""
    if column.dtype != pl.String:
        kind = "<f8" if column.dtype.is_float() else "<i8"
        return column.to_numpy().astype(kind).tobytes()
    lengths = column.str.len_bytes().to_numpy().astype("<u4").tobytes()
    return lengths + "".join(column.to_list()).encode()


def make_log(
    frame: pl.DataFrame,
    *,
    name: str = "log",
    items: pl.DataFrame | None = None,
    users: pl.DataFrame | None = None,
    origin: Origin | None = None,
    time_unit: str | None = None,
    duplicates: str = "error",
) -> InteractionLog:
    """Return a checked, typed and time-sorted log.

    Args:
        frame: ``user_id``, ``item_id``, and ``timestamp`` or ``position``; perhaps ``rating``, ``label`` and
        others.
            Values may be text.
        name: short name of the data.
        items: attributes by ``item_id``.
        users: attributes by ``user_id``.
        origin: where the rows came from, for error messages.
        time_unit: ``s``, ``ms``, ``us``, ``ns`` or ``iso``; None means seconds, or date-times where values
        are that. duplicates: ``error``, ``drop`` (keep the first) or ``keep``, for rows that repeat user,
        item, time (and
            rating and label) exactly.

    Raises:
        DataError: a column or value is missing, of the wrong type or out of range; or rows repeat.
        OptionError: an option is not known.
    """
    choose("--duplicates", duplicates, DUPLICATES)
    origin = origin or Origin(parts=(Part(path=None, rows=frame.height),))
    _require(frame, origin)
    timed = "timestamp" in frame.columns
    typed = [identifiers(frame["user_id"], origin), identifiers(frame["item_id"], origin)]
    typed += [numbers(frame[c], origin) for c in ("rating", "label") if c in frame.columns]
    if timed:
        order = microseconds(frame["timestamp"], origin, time_unit).rename(_ORDER)
        typed += [(order // 10**6).rename("timestamp")]
    else:
        order = whole_numbers(frame["position"], origin).rename(_ORDER)
    rest = with_types(frame.drop([c.name for c in typed], strict=True), keep=("split",))
    checked = _without_repeats(pl.DataFrame([*typed, order]).hstack(rest), origin, duplicates)
    rows = _by_time(checked) if timed else _by_position(checked)
    return InteractionLog(
        frame=rows, items=_attributes(items, "item_id"), users=_attributes(users, "user_id"), name=name
    )


def _require(frame: pl.DataFrame, origin: Origin) -> None:
    """Raise unless the frame has rows and the columns that every log needs."""
    for column in ("user_id", "item_id"):
        if column not in frame.columns:
            raise DataError(
                f"the column is missing; there are {', '.join(frame.columns)}", fix="name it", column=column
            )
    if "timestamp" not in frame.columns and "position" not in frame.columns:
        raise DataError(
            f"there is neither a timestamp nor a position; there are {', '.join(frame.columns)}",
            fix="add one of them",
        )
    if not frame.height:
        raise DataError("holds no interactions", fix="give a file with at least one row", path=origin.path)


def _without_repeats(frame: pl.DataFrame, origin: Origin, policy: str) -> pl.DataFrame:
    """Return the frame with exact repeats kept, dropped, or refused."""
    if policy == "keep":
        return frame
    key = ["user_id", "item_id", _ORDER, *(c for c in ("rating", "label") if c in frame.columns)]
    first = frame.select(pl.struct(key).is_first_distinct()).to_series()
    count = int((~first).sum())
    if policy == "drop" or not count:
        return frame.filter(first) if count else frame
    row = int((~first).arg_true()[0])
    earlier = int(frame.select(pl.all_horizontal(pl.col(c) == frame[c][row] for c in key).arg_true()).to_series()[0])
    user, item = frame["user_id"][row], frame["item_id"][row]
    raise DataError(
        f"{count} of {frame.height} rows repeat an earlier row exactly; the first is {origin.describe(row)}, "
        f"which repeats {origin.describe(earlier)} (user {user!r}, item {item!r})",
        fix="pass --duplicates drop to keep the first of each, or --duplicates keep to keep all",
        path=origin.path,
    )


def _by_time(frame: pl.DataFrame) -> pl.DataFrame:
    """Return rows in time order; ties stay in the order of the source."""
    lead = ["user_id", "item_id", "timestamp"]
    return frame.sort(_ORDER, maintain_order=True).drop(_ORDER).select(*lead, pl.exclude(lead))


def _by_position(frame: pl.DataFrame) -> pl.DataFrame:
    """Return rows by user in order of first appearance, then by position; positions become 0, 1, 2, ..."""
    frame = frame.drop("position").with_row_index("__row")
    frame = frame.with_columns(pl.col("__row").min().over("user_id").alias("__user"))
    frame = frame.sort("__user", _ORDER, maintain_order=True)
    position = pl.int_range(pl.len(), dtype=pl.Int64).over("user_id").alias("position")
    lead = ["user_id", "item_id", "position"]
    return frame.with_columns(position).drop("__user", "__row", _ORDER).select(*lead, pl.exclude(lead))


def _attributes(table: pl.DataFrame | None, key: str) -> pl.DataFrame | None:
    """Return attributes with string ids, one row each, and ``title`` null where empty."""
    if table is None:
        return None
    origin = Origin(parts=(Part(path=None, rows=table.height),))
    table = table.filter(pl.col(key).is_not_null()).with_columns(pl.col(key))
    ids = identifiers(table[key], origin) if table.height else table[key].cast(pl.String)
    table = table.with_columns(ids.alias(key)).unique(key, keep="first", maintain_order=True)
    if "title" in table.columns:
        title = pl.col("title").cast(pl.String)
        table = table.with_columns(pl.when(title.str.strip_chars() != "").then(title).alias("title"))
    return table


def log_name(path: Path) -> str:
    """Return a short name for the data in a file or folder: its name without the usual endings."""
    name = path.resolve().name
    for ending in (".gz", ".json", ".jsonl", ".csv", ".tsv", ".parquet", ".inter", ".dat", ".txt", ".mat"):
        name = name.removesuffix(ending)
    return name or "log"
