"""Text files to tables of strings, in bulk; and, when that fails, the first line that is wrong.

Every field is read as text. Types are given later, where a bad value can still be named.
"""

import csv
import gzip
import io
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import polars as pl

from recdistill.data.columns import with_types
from recdistill.data.origin import Part
from recdistill.errors import DataError, nearest

_GZIP, _ZIP = b"\x1f\x8b", b"PK\x03\x04"
_UTF8_MARK = b"\xef\xbb\xbf"
_UTF16_MARKS = (b"\xff\xfe", b"\xfe\xff")
_UNIT = "\x1f"


@dataclass(frozen=True, kw_only=True)
class Layout:
    """How lines are divided into fields."""

    separator: str
    """One or more characters between fields."""
    names: tuple[str, ...] | None = None
    """Names of the fields of a file without a header; None when the first line names them."""
    quoted: bool = False
    """Whether a field may stand in double quotes; only with a separator of one character."""
    latin: bool = False
    """Whether a file that is not UTF-8 is read as Latin-1."""


def read_bytes(path: Path) -> bytes:
    """Return the content of a file, decompressed when it is gzip.

    Raises:
        DataError: the file is missing, unreadable, empty, a zip archive, or a damaged gzip.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise DataError(f"cannot be read ({error.strerror})", fix="check the path and permissions", path=path) from None
    if data.startswith(_ZIP):
        raise DataError("is a zip archive", fix="unpack it and give the file or folder inside", path=path)
    if data.startswith(_GZIP):
        data = _decompress(data, path)
    if not data.strip():
        raise DataError("is empty", fix="give a file with at least one interaction", path=path)
    return data


def _decompress(data: bytes, path: Path) -> bytes:
    """Return what a gzip file holds."""
    try:
        return gzip.decompress(data)
    except EOFError:
        problem = "is a truncated gzip file: it ends before its end mark"
    except (zlib.error, OSError) as error:
        problem = f"is a damaged gzip file ({error})"
    raise DataError(problem, fix="download or copy it again", path=path)


def utf8(data: bytes, path: Path, *, separator: str = ",", latin: bool = False) -> bytes:
    """Return the text of a file as UTF-8 without a byte-order mark.

    Args:
        data: content of the file.
        path: for messages.
        separator: between fields, to count the column of a bad byte.
        latin: read as Latin-1 when it is not UTF-8.

    Raises:
        DataError: the text is in another encoding.
    """
    if data.startswith(_UTF16_MARKS) or b"\0" in data[:4096]:
        raise DataError("is UTF-16 or binary, not UTF-8 text", fix="save it as UTF-8 and try again", path=path, line=1)
    data = data.removeprefix(_UTF8_MARK)
    try:
        data.decode("utf-8")
    except UnicodeDecodeError as error:
        if latin:
            return data.decode("latin-1").encode()
        start = data.rfind(b"\n", 0, error.start) + 1
        raise DataError(
            f"byte 0x{data[error.start]:02x} is not UTF-8 (in Latin-1 it is {chr(data[error.start])!a})",
            fix="save the file as UTF-8 and try again",
            path=path,
            line=data.count(b"\n", 0, error.start) + 1,
            column=data.count(separator.encode(), start, error.start) + 1,
        ) from None
    return data


def head(path: Path, lines: int = 20) -> list[str]:
    """Return the first lines of a text file, plain or gzip, to guess its format; nothing when it has none."""
    try:
        with path.open("rb") as stream:
            data = stream.read(1 << 16)
        if data.startswith(_GZIP):
            data = zlib.decompressobj(wbits=31).decompress(data, 1 << 18)
    except (OSError, zlib.error):
        return []
    if data.startswith(_UTF16_MARKS) or b"\0" in data:
        return []
    text = data.removeprefix(_UTF8_MARK).decode("utf-8", errors="replace")
    found = [line.rstrip("\r") for line in text.split("\n")]
    return [line for line in found[: -1 if len(found) > 1 else None] if line.strip()][:lines]


def read_text(path: Path, layout: Layout) -> tuple[pl.DataFrame, Part]:
    """Return the lines of a file as a table of strings, and the part of an origin that finds their places.

    Blank lines, and lines of separators alone, are skipped. A missing value is null.

    Raises:
        DataError: the file cannot be read, or a line has the wrong number of fields.
    """
    data = utf8(read_bytes(path), path, separator=layout.separator, latin=layout.latin)
    names = layout.names or _header(data, path, layout)
    body = (data if layout.names else data.partition(b"\n")[2]).lstrip(b"\r\n")
    if len(layout.separator) > 1:
        body = body.replace(layout.separator.encode(), _UNIT.encode())
    try:
        frame = pl.read_csv(
            io.BytesIO(body),
            has_header=False,
            separator=layout.separator if len(layout.separator) == 1 else _UNIT,
            quote_char='"' if layout.quoted else None,
            schema=dict.fromkeys(names, pl.String()),
        )
    except pl.exceptions.NoDataError:
        frame = pl.DataFrame(schema=dict.fromkeys(names, pl.String()))
    except pl.exceptions.PolarsError as error:
        _check_widths(path, layout, len(names))
        reason = str(error).splitlines()[0]
        raise DataError(f"cannot be parsed ({reason})", fix="check quotation marks and separators", path=path) from None
    frame = frame.filter(~pl.all_horizontal(pl.all().is_null()))
    if frame.height and frame[names[-1]].null_count():
        _check_widths(path, layout, len(names))
    return frame, Part(path=path, rows=frame.height, line_of=partial(line_of, path, layout))


def _header(data: bytes, path: Path, layout: Layout) -> tuple[str, ...]:
    """Return the names in the first line."""
    first = data[: data.find(b"\n") if b"\n" in data else None].decode().rstrip("\r")
    try:
        split = (
            next(csv.reader([first], delimiter=layout.separator)) if layout.quoted else first.split(layout.separator)
        )
    except csv.Error as error:
        fix = "end lines with a newline and close quotation marks"
        raise DataError(f"the header cannot be parsed ({error})", fix=fix, path=path, line=1) from None
    names = [name.strip() for name in split]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise DataError(f"two columns are called {twice!r}", fix="rename one of them", path=path, line=1, column=twice)
    return tuple(names)


def read_attributes(path: Path, layout: Layout, source: str, key: str) -> pl.DataFrame:
    """Return a table of users or items with its id column, ``source`` in the file, called ``key``.

    Raises:
        DataError: as :func:`read_text`, or the column is missing.
    """
    frame, _ = read_text(path, layout)
    need_columns(path, frame.columns, (source,), "restore the header, or move the file away")
    return with_types(frame.rename({source: key}), keep=(key, "title"))


def records(path: Path, layout: Layout) -> Iterator[tuple[int, list[str]]]:
    """Yield 1-based line and fields of every record after the header, slowly; blank ones are skipped."""
    text = utf8(read_bytes(path), path, separator=layout.separator, latin=layout.latin).decode()
    lines = text.split("\n")
    if layout.quoted:
        rows = _quoted(lines, path, layout.separator)
    else:
        rows = ((number, line.rstrip("\r").split(layout.separator)) for number, line in enumerate(lines, 1))
    for number, fields in rows:
        if any(fields) and (layout.names is not None or number > 1):
            yield number, fields


def _quoted(lines: list[str], path: Path, separator: str) -> Iterator[tuple[int, list[str]]]:
    """Yield the first line and the fields of every record of a CSV file."""
    reader = csv.reader((line + "\n" for line in lines), delimiter=separator)
    start = 1
    while True:
        try:
            fields = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            fix = "close the quotation mark"
            raise DataError(f"cannot be parsed ({error})", fix=fix, path=path, line=start) from None
        yield start, fields
        start = reader.line_num + 1


def line_of(path: Path, layout: Layout, row: int) -> int:
    """Return the 1-based line of a 0-based row."""
    return next(line for index, (line, _) in enumerate(records(path, layout)) if index == row)


def _check_widths(path: Path, layout: Layout, width: int) -> None:
    """Raise at the first line that has not ``width`` fields."""
    for line, fields in records(path, layout):
        if len(fields) != width:
            last = (fields[-1][:40] + "...") if len(fields[-1]) > 40 else fields[-1]
            raise DataError(
                f"{len(fields)} field{'s' * (len(fields) > 1)} where {width} are expected, the last one {last!r}",
                fix=f"separate the {width} fields by {layout.separator!r}, or remove the line",
                path=path,
                line=line,
                column=min(len(fields), width) + (len(fields) > width),
            )


def need_columns(path: Path, found: tuple[str, ...] | list[str], needed: tuple[str, ...], fix: str) -> None:
    """Raise when a file lacks a column that its format must have."""
    for name in needed:
        if name not in found:
            told = f"the column is missing{nearest(name, found)}; there are {listed(found)}"
            raise DataError(told, fix=fix, path=path, line=1, column=name)


def listed(names: Sequence[str]) -> str:
    """Return names with commas between them, the first 20 of them and 40 characters each."""
    return ", ".join(name[:40] or repr(name) for name in names[:20]) + (", ..." if len(names) > 20 else "")


def stream_lines(path: Path) -> Iterator[tuple[int, bytes]]:
    """Yield 1-based number and content of every line that is not blank, without holding the file in memory.

    Raises:
        DataError: the file cannot be read, is a truncated or damaged gzip, is not UTF-8, or holds nothing.
    """
    empty = True
    try:
        with path.open("rb") as plain:
            packed = plain.read(2) == _GZIP
            plain.seek(0)
            with gzip.open(plain) if packed else plain as lines:
                for number, line in enumerate(lines, 1):
                    if line.strip():
                        empty = False
                        yield number, _utf8_line(line, path, number)
    except EOFError:
        problem = "is a truncated gzip file: it ends before its end mark"
        raise DataError(problem, fix="download or copy it again", path=path) from None
    except (zlib.error, OSError) as error:
        raise DataError(f"cannot be read ({error})", fix="check the file, or copy it again", path=path) from None
    if empty:
        raise DataError("is empty", fix="give a file with at least one interaction", path=path)


def _utf8_line(line: bytes, path: Path, number: int) -> bytes:
    """Return the line without byte-order mark when it is UTF-8."""
    if number == 1 and line.startswith(_UTF16_MARKS):
        raise DataError("is UTF-16, not UTF-8 text", fix="save it as UTF-8 and try again", path=path, line=1)
    line = line.removeprefix(_UTF8_MARK) if number == 1 else line
    if not line.isascii():
        try:
            line.decode("utf-8")
        except UnicodeDecodeError as error:
            raise DataError(
                f"byte 0x{line[error.start]:02x} is not UTF-8",
                fix="save the file as UTF-8 and try again",
                path=path,
                line=number,
                column=error.start + 1,
            ) from None
    return line
