"""One user a line: ``user item item item ...``, oldest first, as S3-Rec has it. Order, no clock."""

from functools import partial
from pathlib import Path

import polars as pl

from recdistill.data.log import InteractionLog, log_name, make_log
from recdistill.data.origin import Origin, Part
from recdistill.data.readers.base import Reader, ReadOptions, files_in, one_file
from recdistill.data.readers.text import Layout, head, line_of, read_text
from recdistill.errors import DataError

NEEDS = ".txt file with lines 'user item item ...'"
_LINES = Layout(separator="\n", names=("line",))


def _is_sequences(file: Path) -> bool:
    """Return whether the first lines are numbers for the most part, more than two in some line."""
    rows = [line.split() for line in head(file, 20)] if file.suffix == ".txt" else []
    digits = [value.isdigit() for row in rows for value in row]
    return any(len(row) > 2 for row in rows) and sum(digits) > len(digits) / 2


def sniff(path: Path) -> bool:
    """Return whether this is a file of sequences, or a folder with one."""
    return _is_sequences(path) if path.is_file() else bool(files_in(path, _is_sequences))


def inputs(path: Path) -> list[Path]:
    """Return the file of sequences."""
    return [one_file(path, _is_sequences, NEEDS)]


def read(path: Path, options: ReadOptions) -> InteractionLog:
    """Return the log of a file of sequences."""
    file = inputs(path)[0]
    frame, part = read_text(file, Layout(separator="\x1f", names=("line",)))
    lists = frame.select(pl.col("line").str.strip_chars().str.replace_all(r"\s+", " ").str.split(" ").alias("all"))
    lengths = lists.select(pl.col("all").list.len() - 1).to_series()
    _check(file, lists, lengths, part)
    rows = lists.select(
        pl.col("all").list.first().alias("user_id"),
        pl.col("all").list.slice(1).alias("item_id"),
        pl.int_ranges(0, pl.col("all").list.len() - 1).alias("position"),
    ).explode("item_id", "position")
    whole = Part(path=file, rows=rows.height)
    return make_log(rows, name=log_name(file), origin=Origin(parts=(whole,)), duplicates=options.duplicates)


def _check(file: Path, lists: pl.DataFrame, lengths: pl.Series, part: Part) -> None:
    """Raise for a line without items and for a user on two lines."""
    line = partial(line_of, file, Layout(separator="\x1f", names=("line",)))
    short = (lengths < 1).arg_true()
    if len(short):
        user = lists["all"][int(short[0])][0]
        fix = "write 'user item item ...' or remove the line"
        raise DataError(f"user {user!r} has no items", fix=fix, path=file, line=line(int(short[0])), column=2)
    users = lists["all"].list.first()
    again = (~users.is_first_distinct()).arg_true()
    if len(again):
        row = int(again[0])
        first = line(int((users == users[row]).arg_true()[0]))
        fix = "write all items of a user on one line, oldest first"
        raise DataError(
            f"user {users[row]!r} has a line already, line {first}",
            fix=fix,
            path=file,
            line=line(row),
            column=1,
        )


READER = Reader(name="sequences", needs=NEEDS, sniff=sniff, inputs=inputs, read=read, has_clock=False)
