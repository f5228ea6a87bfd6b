"""Amazon reviews as JSON lines, plain or gzip: 2014 and 2018 (seconds), 2023 (milliseconds).

Of a review, user, item, rating and time are kept. Reference: J. McAuley et al., SIGIR 2015; J. Ni, J. Li, J.
McAuley, EMNLP 2019; Y. Hou et al., arXiv:2403.03952.
"""

import io
import json
from collections.abc import Iterator
from functools import partial
from itertools import islice
from pathlib import Path

import polars as pl

from recdistill.data.log import InteractionLog, log_name, make_log
from recdistill.data.origin import Origin, Part
from recdistill.data.readers.amazon_meta import is_meta, malformed, meta_files, read_meta
from recdistill.data.readers.base import Reader, ReadOptions, files_in, one_file
from recdistill.data.readers.text import head, need_columns, stream_lines
from recdistill.errors import DataError

NEEDS = "file of Amazon reviews, one JSON object a line (.json, .jsonl, perhaps .gz)"
OLD = {"user_id": "reviewerID", "item_id": "asin", "rating": "overall", "timestamp": "unixReviewTime"}
NEW = {"user_id": "user_id", "item_id": "parent_asin", "rating": "rating", "timestamp": "timestamp"}

_BATCH = 200_000
_ENDINGS = (".json", ".jsonl", ".json.gz", ".jsonl.gz")


def _is_reviews(file: Path) -> bool:
    """Return whether a file has the name of JSON lines and its first line the fields of a review."""
    if not file.name.endswith(_ENDINGS) or is_meta(file):
        return False
    first = next(iter(head(file, 1)), "")
    return '"reviewerID"' in first or ('"user_id"' in first and "asin" in first)


def sniff(path: Path) -> bool:
    """Return whether this is a file of JSON lines, or a folder with one that holds reviews."""
    if path.is_file():
        return path.name.endswith(_ENDINGS) and not is_meta(path)
    return bool(files_in(path, _is_reviews))


def inputs(path: Path) -> list[Path]:
    """Return the reviews, and the metadata of the same category beside them."""
    reviews = one_file(path, _is_reviews, NEEDS)
    return [reviews, *meta_files(reviews)]


def read(path: Path, options: ReadOptions) -> InteractionLog:
    """Return the log of Amazon reviews."""
    reviews, *meta = inputs(path)
    fields = _fields(reviews)
    frame = pl.concat([_table(batch, fields, reviews) for batch in _batches(reviews)])
    part = Part(path=reviews, rows=frame.height, line_of=partial(_line_of, reviews))
    return make_log(
        frame,
        name=log_name(reviews),
        items=read_meta(meta[0]) if meta else None,
        origin=Origin(parts=(part,), names=dict(fields)),
        time_unit=options.time_unit or ("s" if fields["user_id"] == "reviewerID" else "ms"),
        duplicates=options.duplicates,
    )


def _fields(path: Path) -> dict[str, str]:
    """Return our name -> the name in this release, from the first line."""
    number, line = next(stream_lines(path))
    first = _object(line, path, number)
    new = NEW if "parent_asin" in first else {**NEW, "item_id": "asin"}
    fields = OLD if "reviewerID" in first else new
    need_columns(path, list(first), tuple(fields.values()), f"give a {NEEDS}")
    return fields


def _batches(path: Path) -> Iterator[list[tuple[int, bytes]]]:
    """Yield numbered lines in lists of bounded length."""
    lines = stream_lines(path)
    while batch := list(islice(lines, _BATCH)):
        yield batch


def _line_of(path: Path, row: int) -> int:
    """Return the 1-based line of a 0-based review."""
    return next(islice(stream_lines(path), row, None))[0]


def _object(line: bytes, path: Path, number: int) -> dict[str, object]:
    """Return one line as a dict.

    Raises:
        DataError: it is not a JSON object.
    """
    try:
        found = json.loads(line.strip())
    except json.JSONDecodeError as error:
        raise malformed(error, path, number) from None
    if not isinstance(found, dict):
        shown = line.decode().strip()[:40]
        fix = "write one JSON object a line"
        raise DataError(f"{shown!r} is not a JSON object", fix=fix, path=path, line=number, column=1)
    return found


def _table(lines: list[tuple[int, bytes]], fields: dict[str, str], path: Path) -> pl.DataFrame:
    """Return a batch of lines as columns of text under our names."""
    schema = {name: pl.String() for name in fields.values()}
    try:
        frame = pl.read_ndjson(io.BytesIO(b"\n".join(line.strip() for _, line in lines)), schema=schema)
    except pl.exceptions.PolarsError as error:
        for number, line in lines:
            _object(line, path, number)
        reason = str(error).splitlines()[0]
        fix = "correct the file"
        raise DataError(f"cannot be parsed ({reason})", fix=fix, path=path, line=lines[0][0]) from None
    return frame.rename({source: name for name, source in fields.items()})


READER = Reader(name="amazon-json", needs=NEEDS, sniff=sniff, inputs=inputs, read=read)
