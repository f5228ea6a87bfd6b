"""What the commands say: one line of error, JSON, tables."""

import json
import sys
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, TextIO

from cyclopts import CycloptsError
from cyclopts.exceptions import ConsumeMultipleError, MissingArgumentError, UnusedCliTokensError
from rich.console import Console
from rich.table import Table

from recdistill.errors import RecdistillWarning


def say(message: str) -> None:
    """Print one line to standard error."""
    print(f"recdistill: {message}", file=sys.stderr)


def one_line(text: str) -> str:
    """Return ``text`` with its white space folded."""
    return " ".join(text.split())


@contextmanager
def spoken_warnings() -> Iterator[None]:
    """Print the library's own warnings as one line each, once, without the place in the code."""
    said: set[str] = set()
    with warnings.catch_warnings():
        other = warnings.showwarning

        def show(
            message: Warning | str,
            category: type[Warning],
            filename: str,
            lineno: int,
            file: TextIO | None = None,
            line: str | None = None,
        ) -> None:
            if not issubclass(category, RecdistillWarning):
                other(message, category, filename, lineno, file, line)
            elif str(message) not in said:
                said.add(str(message))
                say(f"warning: {one_line(str(message))}")

        warnings.showwarning = show
        yield


def wrong_usage(error: CycloptsError) -> str:
    """Return what was wrong with a command line that could not be parsed."""
    if isinstance(error, UnusedCliTokensError):
        words = ", ".join(repr(token) for token in error.unused_tokens or ())
        return f"too many arguments: {words}; an option begins with --"
    missing = isinstance(error, MissingArgumentError) and not isinstance(error, ConsumeMultipleError)
    if missing and error.argument is not None and not error.argument.name.startswith("-"):
        return f"{' '.join(error.command_chain or ())}: {error.argument.name} is missing; give it"
    return str(error)


def wrong_path(error: OSError) -> str:
    """Return which file the operating system refused, and why."""
    where = error.filename if error.filename is not None else "a file"
    return f"{where}: {error.strerror or error}; check the path, its permissions and the room on the disk"


def print_json(value: Any) -> None:
    """Print ``value`` as JSON to standard output."""
    print(json.dumps(value, indent=2, allow_nan=False, ensure_ascii=False))


def print_table(title: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print a table to standard output below its title; numbers stand right, the first column left."""
    table = Table()
    for index, column in enumerate(columns):
        table.add_column(column, justify="left" if index == 0 else "right", overflow="fold")
    for row in rows:
        table.add_row(*row)
    console = Console(width=None if sys.stdout.isatty() else 140, markup=False, highlight=False)
    console.print(title)
    console.print(table)


def print_facts(title: str, facts: dict[str, Any]) -> None:
    """Print names and values as a table."""
    print_table(title, ["", "value"], [[name.replace("_", " "), shown(value)] for name, value in facts.items()])


def shown(value: object) -> str:
    """Return a value as a person reads it, at most 200 characters."""
    if isinstance(value, dict):
        text = ", ".join(f"{name} {shown(entry)}" for name, entry in value.items())
    elif isinstance(value, list):
        text = ", ".join(shown(entry) for entry in value)
    elif isinstance(value, bool) or value is None:
        text = {True: "yes", False: "no", None: "-"}[value]
    elif isinstance(value, int):
        text = f"{value:,}"
    elif isinstance(value, float):
        text = f"{value:,.6g}"
    else:
        text = str(value)
    return text if len(text) <= 200 else text[:197] + "..."
