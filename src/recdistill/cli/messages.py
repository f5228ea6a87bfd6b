"""What the commands share: messages, progress, tables, and options of the form NAME=VALUE."""

import dataclasses
import json
import os
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

from pydantic import TypeAdapter, ValidationError
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.progress import Progress as Bars
from rich.table import Table

from recdistill.errors import InputError, OptionError, choose
from recdistill.progress import Progress
from recdistill.storage import sha256_of

T = TypeVar("T")


def say(message: str) -> None:
    """Print one line to standard error."""
    print(f"recdistill: {message}", file=sys.stderr)


def one_line(text: str) -> str:
    """Return ``text`` with its white space folded."""
    return " ".join(text.split())


def print_json(value: Any) -> None:
    """Print ``value`` as JSON to standard output."""
    print(json.dumps(value, indent=2, allow_nan=False, ensure_ascii=False))


def print_table(title: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print a table to standard output; numbers stand right, the first column left."""
    table = Table(title=title, title_justify="left")
    for index, column in enumerate(columns):
        table.add_column(column, justify="left" if index == 0 else "right", overflow="fold")
    for row in rows:
        table.add_row(*row)
    Console(width=None if sys.stdout.isatty() else 140).print(table)


@contextmanager
def progress_bars() -> Iterator[Progress]:
    """Yield a progress that draws bars on a terminal, and writes a line every 15 seconds elsewhere."""
    if not sys.stderr.isatty():
        yield _Lines()
        return
    columns = (
        TextColumn("{task.description:18}"),
        BarColumn(bar_width=30),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[note]}"),
    )
    with Bars(*columns, console=Console(stderr=True), transient=False) as bars:
        tasks: dict[str, Any] = {}

        def report(stage: str, done: int, total: int, note: str = "") -> None:
            if stage not in tasks:
                tasks[stage] = bars.add_task(stage, total=total, note=note)
            bars.update(tasks[stage], completed=done, total=total, note=note)

        yield report


class _Lines:
    """Progress for logs: the first report of a stage after 15 seconds, then one every 15 seconds."""

    def __init__(self) -> None:
        self.last = time.monotonic()

    def __call__(self, stage: str, done: int, total: int, note: str = "") -> None:
        """Write a line when the last one is old enough."""
        if time.monotonic() - self.last >= 15:
            self.last = time.monotonic()
            say(f"{stage} {done}/{total} {note}".rstrip())


def parse_pairs(option: str, pairs: Sequence[str]) -> dict[str, Any]:
    """Return ``NAME=VALUE`` texts as a dict; values are JSON where they parse, else text.

    Raises:
        OptionError: a text has no ``=``.
    """
    values: dict[str, Any] = {}
    for pair in pairs:
        name, equals, text = pair.partition("=")
        if not equals or not name:
            raise OptionError(option, pair, fix="is not of the form NAME=VALUE")
        try:
            values[name.replace("-", "_")] = json.loads(text)
        except json.JSONDecodeError:
            values[name.replace("-", "_")] = text
    return values


def make_record(option: str, record: type[T], values: Mapping[str, Any]) -> T:
    """Return a frozen dataclass made from named values.

    Raises:
        OptionError: a name is not a field (the nearest one is named), or a value has the wrong type or range.
    """
    fields = {field.name: None for field in dataclasses.fields(record)}  # type: ignore[arg-type]
    for name in values:
        choose(option, name, fields)
    try:
        return TypeAdapter(record).validate_python(dict(values))
    except ValidationError as error:
        first = error.errors()[0]
        name = ".".join(str(part) for part in first["loc"])
        raise OptionError(f"{option} {name}", first["input"], fix=f"is refused: {first['msg']}") from None


def parse_budget(text: str) -> tuple[int, int]:
    """Return the two numbers of a budget such as ``30x50``.

    Raises:
        OptionError: it is not two whole numbers with an x between them.
    """
    rows, cross, length = text.lower().partition("x")
    if not cross or not rows.isdigit() or not length.isdigit():
        raise OptionError("--budget", text, fix="is not ROWSxITEMS, such as 30x50")
    return int(rows), int(length)


def cache_folder(given: Path | None) -> Path:
    """Return where teachers are kept: the given folder, else $RECDISTILL_CACHE, else the user's cache."""
    if given is not None:
        return given
    if "RECDISTILL_CACHE" in os.environ:
        return Path(os.environ["RECDISTILL_CACHE"])
    return Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "recdistill"


def state_file(out: Path, *settings: Any, resume: bool) -> Path:
    """Return the file for the state of an unfinished run that writes ``out`` with exactly these settings.

    Raises:
        InputError: an unfinished run lies there and ``resume`` is false.
    """
    path = out.parent / f".{out.name}.{sha256_of(*settings)[:12]}.state"
    if path.exists() and not resume:
        raise InputError(
            f"{path}: is the state of an unfinished run with these settings; pass --resume to continue it, "
            "or delete the file to begin anew"
        )
    if resume and not path.exists():
        say("no unfinished run with these settings; starting from the beginning")
    return path
