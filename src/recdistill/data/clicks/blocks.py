"""A click log on disk, read block by block: a block is in memory, the log is not.

The times of all rows are read once, 8 bytes a row, to see where blocks begin; then each block is read by itself. Rows
of equal time are never divided. Within a block rows are in order of time, and rows of equal time in that of the file.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path

import numpy as np
import polars as pl
from jaxtyping import Int

from recdistill.data.clicks.fields import ClickSpec
from recdistill.errors import DataError, OptionError, nearest, require_at_least

ROW = "__row"
"""Stands for the time in a log without one."""
SUFFIXES: dict[str, Callable[[Path], pl.LazyFrame]] = {
    ".parquet": pl.scan_parquet,
    ".csv": pl.scan_csv,
    ".tsv": partial(pl.scan_csv, separator="\t"),
}
"""How a file is read, by the end of its name."""


@dataclass(frozen=True)
class ClickLog:
    """A click log that was not read yet.

    Args:
        rows: all of it, lazily.
        spec: its columns.
        path: where it lies, for messages.
        columns: all columns of the source, those beside the spec's too.
    """

    rows: pl.LazyFrame
    spec: ClickSpec
    path: Path | None = None
    columns: tuple[str, ...] = ()

    @staticmethod
    def open(path: Path, spec: ClickSpec) -> "ClickLog":
        """Return the log of a Parquet, CSV or TSV file, or of a folder of files of one of these kinds.

        Raises:
            DataError: there is no such file, or a column of the spec is missing.
        """
        return ClickLog.of(scanned(path), spec, path)

    @staticmethod
    def of(rows: pl.LazyFrame, spec: ClickSpec, path: Path | None = None) -> "ClickLog":
        """Return a log of rows that are there.

        Raises:
            DataError: a column of the spec is missing.
        """
        there = rows.collect_schema().names()
        for name in spec.columns:
            if name not in there:
                told = f"has no column {name!r}{nearest(name, there)}; it has {shortened(there)}"
                raise DataError(told, fix="name the columns of the features, the label and the time", path=path)
        chosen = rows.select(spec.columns)
        if spec.time is None:
            chosen = chosen.with_row_index(ROW).with_columns(pl.col(ROW).cast(pl.Int64))
            return ClickLog(chosen, spec, path, tuple(there))
        return ClickLog(chosen.with_columns(clock(rows, spec.time, path)), spec, path, tuple(there))

    @cached_property
    def times(self) -> Int[np.ndarray, " n"]:
        """Times of all rows in ascending order: seconds, or whatever the column counts; rows where there is no time.

        Raises:
            DataError: there are no rows, or a time is missing or no whole number.
        """
        name = self.order
        column = self.rows.select(name).collect(engine="streaming")[name]
        if not len(column):
            raise DataError("has no rows", fix="give a log with one row or more", path=self.path)
        if column.null_count():
            row = int(column.is_null().arg_true()[0]) + 1
            fix = "give every row a time, or read the log without one"
            raise DataError(f"row {row} has no time", fix=fix, path=self.path, column=name)
        found: np.ndarray = np.sort(column.to_numpy())
        return found

    @property
    def order(self) -> str:
        """Column that orders the rows."""
        return ROW if self.spec.time is None else self.spec.time

    def between(self, first: int, last: int | None) -> pl.DataFrame:
        """Return the rows with ``first <= time < last`` in order of time; to the end where ``last`` is ``None``."""
        name = self.order
        time = pl.col(name)
        inside = time >= first if last is None else (time >= first) & (time < last)
        found: pl.DataFrame = self.rows.filter(inside).collect(engine="streaming")
        if not found[name].is_sorted():  # sorting needs several times the memory of the rows
            found = found.sort(name, maintain_order=True)
        return found.select(self.spec.columns)


@dataclass(frozen=True)
class ClickBlocks:
    """A click log in blocks of time.

    Args:
        log: the log.
        starts: time at which each block begins, ascending; the first one is that of the first row.
    """

    log: ClickLog
    starts: tuple[int, ...]

    @staticmethod
    def by_count(log: ClickLog, num_blocks: int) -> "ClickBlocks":
        """Return so many blocks of equal numbers of rows, but for rows of equal time.

        Raises:
            OptionError: the number is below 1, or there are fewer times than that.
        """
        require_at_least(1, **{"--blocks": num_blocks})
        times = log.times
        starts = np.unique(times[[len(times) * index // num_blocks for index in range(num_blocks)]])
        if len(starts) < num_blocks:
            told = f"is more than {len(times):,} rows at {len(np.unique(times)):,} times can be divided into"
            raise OptionError("--blocks", num_blocks, fix=f"{told}; ask for fewer")
        return ClickBlocks(log, tuple(starts.tolist()))

    @staticmethod
    def by_span(log: ClickLog, span: int) -> "ClickBlocks":
        """Return blocks of ``span`` units of time, from the first row's time; spans without rows are left out.

        Raises:
            OptionError: the span is below 1, or the log has no time.
        """
        require_at_least(1, **{"--span": span})
        if log.spec.time is None:
            raise OptionError("--span", span, fix="needs a time, and the log has none; ask for --blocks")
        times = log.times
        index = np.unique((times - times[0]) // span)
        return ClickBlocks(log, tuple((times[0] + index * span).tolist()))

    def __len__(self) -> int:
        return len(self.starts)

    def read(self, index: int) -> pl.DataFrame:
        """Return the rows of a block, the columns of the spec."""
        last = self.starts[index + 1] if index + 1 < len(self) else None
        return self.log.between(self.starts[index], last)

    def __iter__(self) -> Iterator[pl.DataFrame]:
        for index in range(len(self)):
            yield self.read(index)


def clock(rows: pl.LazyFrame, name: str, path: Path | None) -> pl.Expr:
    """Return a column of times as whole numbers: date-times and dates as seconds since 1970 UTC, numbers as they are.

    Raises:
        DataError: the column is neither.
    """
    column, dtype = pl.col(name), rows.collect_schema()[name]
    if isinstance(dtype, pl.Datetime | pl.Date):
        return column.cast(pl.Datetime("us")).dt.epoch("s")
    if dtype.is_integer():
        return column.cast(pl.Int64)
    fix = "give whole numbers, such as seconds, or date-times; or read the log without a time"
    raise DataError(f"is {dtype}, which is no time", fix=fix, path=path, column=name)


def scanned(path: Path) -> pl.LazyFrame:
    """Return a file, or all files of a folder in the order of their names, lazily.

    Raises:
        DataError: there is none that can be read.
    """
    if path.is_dir():
        names = [file for file in path.iterdir() if file.suffix in SUFFIXES and not file.name.startswith((".", "_"))]
        if len({file.suffix for file in names}) != 1:
            kinds = ", ".join(sorted({file.suffix for file in names})) or "none"
            fix = "give a folder of files of one kind: .parquet, .csv or .tsv"
            raise DataError(f"has files of several kinds or none that can be read ({kinds})", fix=fix, path=path)
        return pl.concat([SUFFIXES[file.suffix](file) for file in sorted(names)])
    if not path.exists():
        raise DataError("does not exist", fix="give a Parquet, CSV or TSV file, or a folder of them", path=path)
    if path.suffix not in SUFFIXES:
        raise DataError(f"ends in {path.suffix!r}", fix=f"give a file that ends in {', '.join(SUFFIXES)}", path=path)
    return SUFFIXES[path.suffix](path)


def shortened(names: list[str], most: int = 12) -> str:
    """Return names with commas, the first ones only."""
    more = len(names) - most
    return ", ".join(names[:most]) + (f" and {more} more" if more > 0 else "")
