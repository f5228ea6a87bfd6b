"""Where the rows of a table came from, so that an error can name file, line and column.

Tables are parsed in bulk and carry no line numbers. Only when a bad value is found is its row number turned
into a place, by reading the file a second time.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from recdistill.errors import DataError


@dataclass(frozen=True, kw_only=True)
class Part:
    """One file that gave consecutive rows of a table."""

    path: Path | None
    """The file; None for a table made in memory."""
    rows: int
    """Number of rows that came from it."""
    line_of: Callable[[int], int] | None = None
    """0-based row of this part -> 1-based line of the file; None where there are no lines (Parquet)."""


@dataclass(frozen=True, kw_only=True)
class Origin:
    """The files of a table, and what they call its columns."""

    parts: tuple[Part, ...]
    names: Mapping[str, str | int] = field(default_factory=dict)
    """Our column name -> the source's column name, or its 1-based number where the source has no header."""

    def place(self, row: int) -> tuple[Path | None, int | None, int]:
        """Return file, 1-based line (None where there are no lines) and 1-based row within the file."""
        for part in self.parts:
            if row < part.rows:
                return part.path, part.line_of(row) if part.line_of else None, row + 1
            row -= part.rows
        raise IndexError(row)

    def describe(self, row: int) -> str:
        """Return ``"line 3"``, ``"row 3"`` or, for a table of several files, ``"b.parquet row 3"``."""
        path, line, number = self.place(row)
        text = f"row {number}" if line is None else f"line {line}"
        return f"{path.name} {text}" if path is not None and len(self.parts) > 1 else text

    def error(self, row: int, column: str, problem: str, fix: str) -> DataError:
        """Return the error that names the place of a bad value."""
        path, line, number = self.place(row)
        told = problem if line is not None else f"row {number}: {problem}"
        return DataError(told, fix=fix, path=path, line=line, column=self.names.get(column, column))

    @property
    def path(self) -> Path | None:
        """The first file."""
        return self.parts[0].path if self.parts else None
