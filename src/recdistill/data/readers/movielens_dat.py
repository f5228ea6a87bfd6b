"""MovieLens-1M and -10M: ``ratings.dat`` with ``::``, and ``movies.dat`` and ``users.dat`` beside it.

Reference: F. M. Harper and J. A. Konstan, The MovieLens Datasets, TiiS 2015, and the README of the releases.
Movies of 1M are Latin-1, those of 10M UTF-8; both are read.
"""

from pathlib import Path

from recdistill.data.columns import with_types
from recdistill.data.log import InteractionLog, log_name, make_log
from recdistill.data.origin import Origin
from recdistill.data.readers.base import Reader, ReadOptions, beside, files_in, one_file
from recdistill.data.readers.text import Layout, head, read_text

NEEDS = "file ratings*.dat with '::' between fields"
FIELDS = ("user_id", "item_id", "rating", "timestamp")
USER_FIELDS = ("user_id", "gender", "age", "occupation", "zip_code")
ITEM_FIELDS = ("item_id", "title", "genres")


def _is_ratings(file: Path) -> bool:
    return file.suffix == ".dat" and file.name.startswith("ratings")


def sniff(path: Path) -> bool:
    """Return whether this is a ratings file, by name or by four fields a line, or a folder with one."""
    if path.is_dir():
        return bool(files_in(path, _is_ratings))
    lines = head(path, 5)
    return _is_ratings(path) or (bool(lines) and all(len(line.split("::")) == 4 for line in lines))


def inputs(path: Path) -> list[Path]:
    """Return the ratings and the side files beside them."""
    ratings = one_file(path, _is_ratings, NEEDS)
    return [ratings, *beside(ratings, "movies.dat", "users.dat")]


def read(path: Path, options: ReadOptions) -> InteractionLog:
    """Return the log of MovieLens-1M or -10M."""
    ratings, *side = inputs(path)
    files = {file.name: file for file in side}
    frame, part = read_text(ratings, Layout(separator="::", names=FIELDS))
    items, users = files.get("movies.dat"), files.get("users.dat")
    return make_log(
        frame,
        name=log_name(ratings.parent),
        items=read_text(items, Layout(separator="::", names=ITEM_FIELDS, latin=True))[0] if items else None,
        users=with_types(
            read_text(users, Layout(separator="::", names=USER_FIELDS, latin=True))[0],
            keep=("user_id", "zip_code"),
        )
        if users
        else None,
        origin=Origin(parts=(part,), names={name: number for number, name in enumerate(FIELDS, 1)}),
        time_unit=options.time_unit or "s",
        duplicates=options.duplicates,
    )


READER = Reader(name="movielens-dat", needs=NEEDS, sniff=sniff, inputs=inputs, read=read)
