"""Raw data to interaction logs, one format per file.

A new format is one new file with a :class:`Reader`, and one line in :data:`READERS`.
"""

import difflib
from collections.abc import Mapping
from pathlib import Path

from recdistill.data.log import InteractionLog
from recdistill.data.readers import (
    amazon_csv,
    amazon_json,
    epinions_mat,
    kuairand,
    movielens_100k,
    movielens_csv,
    movielens_dat,
    recbole,
    sequences,
    table,
)
from recdistill.data.readers.base import Reader, ReadOptions
from recdistill.errors import DataError, choose

READERS: dict[str, Reader] = {
    module.READER.name: module.READER
    for module in (
        recbole,
        movielens_100k,
        movielens_dat,
        movielens_csv,
        kuairand,
        amazon_json,
        amazon_csv,
        epinions_mat,
        sequences,
        table,
    )
}
"""Every known format by the name that ``--format`` takes."""


def read_log(
    source: Path,
    format: str | None = None,
    *,
    columns: Mapping[str, str] | None = None,
    time_unit: str | None = None,
    duplicates: str = "error",
) -> InteractionLog:
    """Return the log in a raw file or folder.

    Args:
        source: file or folder.
        format: a key of :data:`READERS`; None looks at names and first lines.
        columns: our column name -> that of the source, for recbole and table.
        time_unit: ``s``, ``ms``, ``us``, ``ns`` or ``iso``, where it is not that of the format.
        duplicates: ``error``, ``drop`` or ``keep``, for rows that repeat an earlier one exactly.

    Raises:
        DataError: the source is missing, of no known format, or holds something that it must not.
        OptionError: an option is not known, or has no use in this format.
    """
    options = ReadOptions(columns=columns or {}, time_unit=time_unit, duplicates=duplicates)
    reader = find_reader(source, format)
    reader.check(options)
    return reader.read(source, options)


def find_reader(source: Path, format: str | None = None) -> Reader:
    """Return the reader of a format, or of the only format that a source looks like.

    Raises:
        DataError: the source is missing, looks like no format, or like several.
        OptionError: the format is not known.
    """
    named = choose("--format", format, READERS) if format is not None else None
    check_exists(source)
    if named is not None:
        return named
    fitting = [reader for name, reader in READERS.items() if name != "table" and reader.sniff(source)]
    if len(fitting) > 1:
        names = " and ".join(f"{reader.name} ({reader.inputs(source)[0].name})" for reader in fitting)
        raise DataError(f"looks like {names}", fix="pass --format, or give the path of one file", path=source)
    if fitting or table.READER.sniff(source):
        return fitting[0] if fitting else table.READER
    tried = f"looks like none of the known formats (tried {', '.join(READERS)})"
    raise DataError(tried, fix="give the file of the interactions, or pass --format", path=source)


def check_exists(source: Path) -> None:
    """Raise when there is nothing at ``source``, or an empty file or folder.

    Raises:
        DataError: naming the nearest thing that is there.
    """
    if not source.exists():
        parent = next(folder for folder in source.absolute().parents if folder.is_dir())
        missing = source.absolute().relative_to(parent).parts[0]
        close = difflib.get_close_matches(missing, [entry.name for entry in parent.iterdir()], n=1, cutoff=0.5)
        hint = f" (did you mean {close[0]!r}?)" if close else ""
        raise DataError(f"does not exist{hint}", fix=f"check the path; {parent} does exist", path=source)
    if source.is_file() and not source.stat().st_size:
        raise DataError("is empty", fix="give a file with at least one interaction", path=source)
    if source.is_dir() and not any(source.iterdir()):
        raise DataError("is an empty folder", fix="give a folder that holds the raw files", path=source)
