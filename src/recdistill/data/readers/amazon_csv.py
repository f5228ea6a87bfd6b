"""Amazon ratings as CSV: 2014 (user first), 2018 (item first), and 2023 (header, milliseconds).

The first two have no header and are told apart by their values: a user id begins with A, an ASIN has ten
characters, B and nine more or a book number. Reference: J. Ni, J. Li, J. McAuley, EMNLP 2019; Y. Hou et al.,
arXiv:2403.03952.
"""

import re
from pathlib import Path

from recdistill.data.log import InteractionLog, log_name, make_log
from recdistill.data.origin import Origin
from recdistill.data.readers.amazon_meta import meta_files, read_meta
from recdistill.data.readers.base import Reader, ReadOptions, files_in, one_file
from recdistill.data.readers.text import Layout, head, need_columns, read_text
from recdistill.errors import DataError

NEEDS = "CSV file of Amazon ratings (user,item,rating,timestamp or item,user,rating,timestamp)"
USER_FIRST = ("user_id", "item_id", "rating", "timestamp")
ITEM_FIRST = ("item_id", "user_id", "rating", "timestamp")
HEADER_2023 = ("user_id", "parent_asin", "rating", "timestamp")

_USER = re.compile(r"A[0-9A-Z]{9,20}$")
_ITEM = re.compile(r"(B[0-9A-Z]{9}|[0-9]{9}[0-9X])$")


def layout_of(path: Path) -> tuple[str, ...] | None:
    """Return the order of the fields as most of the first 1,000 lines have it; None when they do not tell."""
    votes = 0
    for line in head(path, 1000):
        first, second = [*line.split(","), ""][:2]
        votes += bool(_USER.match(first)) + bool(_ITEM.match(second))
        votes -= bool(_ITEM.match(first)) + bool(_USER.match(second))
    return None if votes == 0 else USER_FIRST if votes > 0 else ITEM_FIRST


def _has_header(path: Path) -> bool:
    return set(HEADER_2023[:3]) <= set(next(iter(head(path, 1)), "").split(","))


def _is_ratings(file: Path) -> bool:
    if not file.name.endswith((".csv", ".csv.gz")):
        return False
    if _has_header(file):
        return True
    rows = [line.split(",") for line in head(file, 5)]
    return bool(rows) and all(len(row) == 4 for row in rows) and layout_of(file) is not None


def sniff(path: Path) -> bool:
    """Return whether this is a CSV file of Amazon ratings, or a folder with one."""
    return _is_ratings(path) if path.is_file() else bool(files_in(path, _is_ratings))


def inputs(path: Path) -> list[Path]:
    """Return the ratings, and the metadata of the same category beside them."""
    ratings = one_file(path, _is_ratings, NEEDS)
    return [ratings, *meta_files(ratings)]


def read(path: Path, options: ReadOptions) -> InteractionLog:
    """Return the log of Amazon ratings."""
    ratings, *meta = inputs(path)
    names: dict[str, str | int]
    if _has_header(ratings):
        frame, part = read_text(ratings, Layout(separator=",", quoted=True))
        need_columns(ratings, frame.columns, HEADER_2023, "restore the header of the release, or use --format table")
        frame, names, unit = frame.rename({"parent_asin": "item_id"}), {"item_id": "parent_asin"}, "ms"
    else:
        fields = layout_of(ratings)
        if fields is None:
            fix = "add a header line user_id,item_id,rating,timestamp and pass --format table"
            raise DataError("the values do not tell users from items", fix=fix, path=ratings, line=1, column=1)
        frame, part = read_text(ratings, Layout(separator=",", names=fields))
        names, unit = {name: number for number, name in enumerate(fields, 1)}, "s"
    return make_log(
        frame,
        name=log_name(ratings),
        items=read_meta(meta[0]) if meta else None,
        origin=Origin(parts=(part,), names=names),
        time_unit=options.time_unit or unit,
        duplicates=options.duplicates,
    )


READER = Reader(name="amazon-csv", needs=NEEDS, sniff=sniff, inputs=inputs, read=read)
