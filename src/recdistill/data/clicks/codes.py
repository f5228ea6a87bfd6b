"""From the values of a field to ids, by a rule that a stream of blocks does not break.

Id 0 is a missing value, and padding behind the last value of a multi-valued row. Under ``grow`` id 1 stands for every
value without an id of its own. An id that was given keeps its meaning for ever: a later block may add ids, never move
them, so that an embedding table grows by rows at its end.
"""

import hashlib
from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
import polars as pl
from jaxtyping import Int

from recdistill.data.clicks.fields import Field
from recdistill.errors import DataError

MISSING = 0
"""Id of a missing value, and padding."""
UNKNOWN = 1
"""Id of a value that has none of its own, under ``grow``."""
FIRST = 2
"""Smallest id of a value that has one of its own."""
WHOLE = 2.0**53
"""Below it a float tells all whole numbers apart."""


@dataclass(frozen=True)
class Codes(ABC):
    """Ids of the values of one field."""

    of: Field

    @property
    @abstractmethod
    def num_ids(self) -> int:
        """Number of ids, 0 and 1 included."""

    @abstractmethod
    def grown(self, column: pl.Series) -> "Codes":
        """Return the codes after a block was seen: every id of these, perhaps more."""

    @abstractmethod
    def encode(self, column: pl.Series) -> Int[np.ndarray, "n W"]:
        """Return the ids of every row, filled up with 0."""


@dataclass(frozen=True)
class GrowingCodes(Codes):
    """An id for each value, in order of first appearance.

    Args:
        of: the field.
        values: those with an id; the one at ``i`` has id ``i + 2``.
    """

    values: pl.Series = field(default_factory=lambda: pl.Series(dtype=pl.String), compare=False)

    @property
    def num_ids(self) -> int:
        """Number of ids."""
        return FIRST + len(self.values)

    def grown(self, column: pl.Series) -> "GrowingCodes":
        """Return the codes with the new values of a block that occur in at least ``min_count`` of its rows."""
        new = cells(column, self.of).join(self._table, on="value", how="anti")
        if self.of.kind == "multi":
            new = new.unique(["row", "value"])  # a value that occurs twice in a row counts once
        met = new.group_by("value").agg(pl.len().alias("rows"), pl.min("row"))
        often = met.filter(pl.col("rows") >= self.of.min_count).sort("row", "value")
        return GrowingCodes(self.of, pl.concat([self.values, often["value"]]))

    def encode(self, column: pl.Series) -> Int[np.ndarray, "n W"]:
        """Return the ids of every row."""
        return scattered(cells(column, self.of).join(self._table, on="value", how="left"), len(column), self.of.width)

    @cached_property
    def _table(self) -> pl.DataFrame:
        ids = np.arange(FIRST, self.num_ids, dtype=np.int32)
        return pl.DataFrame({"value": self.values, "id": ids})


@dataclass(frozen=True)
class HashedCodes(Codes):
    """Ids by a hash of the value, the same on every machine and in every version: BLAKE2b of its text."""

    @property
    def num_ids(self) -> int:
        """Number of ids."""
        return FIRST + self.of.buckets

    def grown(self, column: pl.Series) -> "HashedCodes":
        """Return the codes as they are."""
        return self

    def encode(self, column: pl.Series) -> Int[np.ndarray, "n W"]:
        """Return the ids of every row."""
        found = cells(column, self.of)
        values = found["value"].unique()
        ids = np.array([self._id(value) for value in values.to_list()], dtype=np.int32)
        table = pl.DataFrame({"value": values, "id": ids})
        return scattered(found.join(table, on="value", how="left"), len(column), self.of.width)

    def _id(self, value: str) -> int:
        digest = hashlib.blake2b(value.encode(), digest_size=8).digest()
        return FIRST + int.from_bytes(digest, "big") % self.of.buckets


@dataclass(frozen=True)
class BucketCodes(Codes):
    """Ids of numbers by buckets that had equal counts in the first block.

    Args:
        of: the field.
        edges: a number gets the id of the bucket ``edges[i - 1] <= x < edges[i]``; ``None`` before the first block.
    """

    edges: tuple[float, ...] | None = None

    @property
    def num_ids(self) -> int:
        """Number of ids; those of buckets that the first block did not fill are there too."""
        return FIRST + self.of.buckets

    def grown(self, column: pl.Series) -> "BucketCodes":
        """Return the codes with edges, from the first block that has a number; they stay for ever."""
        if self.edges is not None:
            return self
        values = numbers(column, self.of).drop_nulls().to_numpy()
        if not len(values):
            return self
        shares = np.arange(1, self.of.buckets) / self.of.buckets
        found = np.unique(np.quantile(values, shares, method="higher"))
        return BucketCodes(self.of, tuple(found[np.isfinite(found)].tolist()))

    def encode(self, column: pl.Series) -> Int[np.ndarray, "n W"]:
        """Return the ids of every row; of every number that of an unknown value, before there are edges."""
        values = numbers(column, self.of)
        missing = values.is_null().to_numpy()
        if self.edges is None:
            found = np.full(len(values), UNKNOWN)
        else:
            found = FIRST + np.searchsorted(np.array(self.edges), values.fill_null(0.0).to_numpy(), side="right")
        return np.where(missing, MISSING, found).astype(np.int32)[:, None]


def codes_of(some: Field) -> Codes:
    """Return the codes of a field before its first block."""
    if some.kind == "numeric":
        return BucketCodes(some)
    return HashedCodes(some) if some.rule == "hash" else GrowingCodes(some)


def cells(column: pl.Series, some: Field) -> pl.DataFrame:
    """Return every value that is read: its ``row``, its ``place`` in the row from 0, and the ``value`` as text.

    Missing values have no line: nulls, NaN, empty texts. Whole numbers are the same value whether they are stored as
    integers or as floats.

    Raises:
        DataError: the column is of a type that has no categories.
    """
    frame = pl.DataFrame({"value": column}).with_row_index("row")
    if some.kind == "multi":
        if column.dtype == pl.String:
            frame = frame.with_columns(pl.col("value").str.split(some.separator))
        if isinstance(frame.schema["value"], pl.List):
            frame = frame.explode("value")
    frame = frame.with_columns(_text(frame["value"], some.name).str.strip_chars())
    frame = frame.filter(pl.col("value").is_not_null() & (pl.col("value") != ""))
    if some.kind != "multi":
        return frame.with_columns(pl.lit(0, dtype=pl.Int64).alias("place"))
    found = places(frame["row"].cast(pl.Int64).to_numpy())
    return frame.with_columns(pl.Series("place", found)).filter(pl.col("place") < some.width)


def places(rows: Int[np.ndarray, " n"]) -> Int[np.ndarray, " n"]:
    """Return how many of the same number stand before each one, where equal numbers stand together."""
    index = np.arange(len(rows))
    begins = np.diff(rows, prepend=rows[:1]) != 0
    return index - np.maximum.accumulate(np.where(begins, index, 0))


def _text(column: pl.Series, name: str) -> pl.Series:
    """Return values as text."""
    dtype = column.dtype
    if dtype.is_float():
        column = column.fill_nan(None)
        if bool(((column == column.round()) & (column.abs() < WHOLE)).all()):
            column = column.cast(pl.Int64)
    if dtype in (pl.String, pl.Boolean, pl.Categorical, pl.Enum, pl.Null, pl.Date) or dtype.is_numeric():
        return column.cast(pl.String)
    raise DataError(f"is {dtype}, which has no categories", fix="give text or whole numbers", column=name)


def numbers(column: pl.Series, some: Field) -> pl.Series:
    """Return the numbers of a column; ``null`` for missing ones and NaN.

    Raises:
        DataError: a value is no number.
    """
    dtype = column.dtype
    if not (dtype.is_numeric() or dtype in (pl.String, pl.Boolean, pl.Null)):
        raise DataError(f"is {dtype}, and the field is numeric", fix="give numbers", column=some.name)
    blank = column.replace("", None) if dtype == pl.String else column
    found = blank.cast(pl.Float64, strict=False)
    wrong = blank.filter(found.is_null() & blank.is_not_null())
    if len(wrong):
        fix = "make the field categorical, or mend the value"
        raise DataError(f"{wrong[0]!r} is no number, and the field is numeric", fix=fix, column=some.name)
    return found.fill_nan(None)


def scattered(found: pl.DataFrame, num_rows: int, width: int) -> Int[np.ndarray, "n W"]:
    """Return the ids of every row's cells, 0 where there is none; an ``id`` of null is an unknown value."""
    ids = np.full((num_rows, width), MISSING, dtype=np.int32)
    ids[found["row"].to_numpy(), found["place"].to_numpy()] = found["id"].fill_null(UNKNOWN).to_numpy()
    return ids
