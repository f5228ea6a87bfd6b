"""MovieLens as CSV (20M, 25M, latest): ``ratings.csv``, and ``movies.csv`` beside it.

Reference: F. M. Harper and J. A. Konstan, The MovieLens Datasets, TiiS 2015, and the README of the releases.
"""

from pathlib import Path

from recdistill.data.log import InteractionLog, log_name, make_log
from recdistill.data.origin import Origin
from recdistill.data.readers.base import Reader, ReadOptions, beside, files_in, one_file
from recdistill.data.readers.text import Layout, head, need_columns, read_attributes, read_text

NEEDS = "file ratings.csv with columns userId,movieId,rating,timestamp"
NAMES = {"user_id": "userId", "item_id": "movieId", "rating": "rating", "timestamp": "timestamp"}
_CSV = Layout(separator=",", quoted=True)


def _is_ratings(file: Path) -> bool:
    header = next(iter(head(file, 1)), "").split(",")
    return file.suffix == ".csv" and {"userId", "movieId", "rating"} <= set(header)


def sniff(path: Path) -> bool:
    """Return whether this is a CSV file with MovieLens' header, or a folder with one."""
    return _is_ratings(path) if path.is_file() else bool(files_in(path, _is_ratings))


def inputs(path: Path) -> list[Path]:
    """Return the ratings, and the movies beside them."""
    ratings = one_file(path, _is_ratings, NEEDS)
    return [ratings, *beside(ratings, "movies.csv")]


def read(path: Path, options: ReadOptions) -> InteractionLog:
    """Return the log of a MovieLens release in CSV."""
    ratings, *side = inputs(path)
    frame, part = read_text(ratings, _CSV)
    need_columns(
        ratings,
        frame.columns,
        tuple(NAMES.values()),
        "restore the header of MovieLens, or use --format table",
    )
    frame = frame.rename({source: name for name, source in NAMES.items()})
    return make_log(
        frame,
        name=log_name(ratings.parent),
        items=read_attributes(side[0], _CSV, "movieId", "item_id") if side else None,
        origin=Origin(parts=(part,), names=dict(NAMES)),
        time_unit=options.time_unit or "s",
        duplicates=options.duplicates,
    )


READER = Reader(name="movielens-csv", needs=NEEDS, sniff=sniff, inputs=inputs, read=read)
