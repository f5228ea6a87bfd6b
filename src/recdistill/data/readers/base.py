"""What a reader is, and what all of them share."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from recdistill.data.columns import TIME_UNITS
from recdistill.data.log import DUPLICATES, InteractionLog
from recdistill.errors import DataError, OptionError, choose

ROLES = ("user_id", "item_id", "timestamp", "position", "rating", "label", "split")
"""Columns of a log that a source may have under another name."""


@dataclass(frozen=True, kw_only=True)
class ReadOptions:
    """What a user may say about a source."""

    columns: Mapping[str, str] = field(default_factory=dict)
    """Our column name -> that of the source, such as ``{'user_id': 'member'}``; for recbole and table."""
    time_unit: str | None = None
    """Unit of the timestamps: ``s``, ``ms``, ``us``, ``ns`` or ``iso``; None takes that of the format."""
    duplicates: str = "error"
    """``error``, ``drop`` or ``keep``: what to do with rows that repeat an earlier one exactly."""

    def __post_init__(self) -> None:
        for name in self.columns:
            choose("--columns", name, dict.fromkeys(ROLES))
        if self.time_unit is not None:
            choose("--time-unit", self.time_unit, TIME_UNITS)
        choose("--duplicates", self.duplicates, DUPLICATES)


@dataclass(frozen=True, kw_only=True)
class Reader:
    """One raw format."""

    name: str
    """What ``--format`` calls it."""
    needs: str
    """What a source must hold, in a few words."""
    sniff: Callable[[Path], bool]
    """Whether a file or folder looks like this format."""
    inputs: Callable[[Path], list[Path]]
    """The files that would be read, interactions first; raises DataError when there are none, or too many."""
    read: Callable[[Path, ReadOptions], InteractionLog]
    """The log of a file or folder."""
    maps_columns: bool = False
    """Whether ``--columns`` applies."""
    has_clock: bool = True
    """Whether ``--time-unit`` applies."""

    def check(self, options: ReadOptions) -> None:
        """Raise OptionError for an option that this format has no use for."""
        if options.columns and not self.maps_columns:
            fix = f"cannot be used with format {self.name}; it is for recbole and table"
            raise OptionError("--columns", dict(options.columns), fix=fix)
        if options.time_unit is not None and not self.has_clock:
            raise OptionError("--time-unit", options.time_unit, fix=f"cannot be used: {self.name} has no clock")


def one_file(path: Path, matches: Callable[[Path], bool], needs: str) -> Path:
    """Return ``path`` itself when it is a file, else the only file in the folder that ``matches``.

    Raises:
        DataError: none matches, or several do.
    """
    if path.is_file():
        return path
    found = files_in(path, matches)
    if len(found) == 1:
        return found[0]
    if not found:
        raise DataError(f"holds no {needs}", fix="check the folder, or pass another --format", path=path)
    names = ", ".join(file.name for file in found)
    raise DataError(f"holds several files that would fit: {names}", fix="give the path of one of them", path=path)


def files_in(folder: Path, matches: Callable[[Path], bool]) -> list[Path]:
    """Return the matching files of a folder by name; hidden files and marks such as _SUCCESS are left out."""
    if not folder.is_dir():
        return []
    return sorted(f for f in folder.iterdir() if f.is_file() and not f.name.startswith((".", "_")) and matches(f))


def beside(path: Path, *names: str) -> list[Path]:
    """Return those of the named files that lie beside ``path``."""
    return [file for name in names if (file := path.parent / name).is_file()]
