"""MovieLens-100K: ``u.data`` (tab-separated), with ``u.item``, ``u.user`` and ``u.genre`` beside it.

Reference: F. M. Harper and J. A. Konstan, The MovieLens Datasets, TiiS 2015, and the README of the release.
"""

from pathlib import Path

import polars as pl

from recdistill.data.columns import with_types
from recdistill.data.log import InteractionLog, log_name, make_log
from recdistill.data.origin import Origin
from recdistill.data.readers.base import Reader, ReadOptions, beside, one_file
from recdistill.data.readers.text import Layout, head, read_text

NEEDS = "file u.data"
FIELDS = ("user_id", "item_id", "rating", "timestamp")
USER_FIELDS = ("user_id", "age", "gender", "occupation", "zip_code")
ITEM_FIELDS = ("item_id", "title", "release_date", "video_release_date", "imdb_url")
GENRES = [
    "unknown",
    "Action",
    "Adventure",
    "Animation",
    "Children's",
    "Comedy",
    "Crime",
    "Documentary",
    "Drama",
    "Fantasy",
    "Film-Noir",
    "Horror",
    "Musical",
    "Mystery",
    "Romance",
    "Sci-Fi",
    "Thriller",
    "War",
    "Western",
]
"""The flags at the end of a line of u.item, when u.genre is not there to name them."""


def sniff(path: Path) -> bool:
    """Return whether this is u.data, a folder with it, or a file of four tab-separated numbers a line."""
    if path.is_dir():
        return (path / "u.data").is_file()
    if path.name == "u.data":
        return True
    fields = [line.split("\t") for line in head(path, 5)]
    return bool(fields) and all(len(f) == 4 and all(v.replace(".", "", 1).isdigit() for v in f) for f in fields)


def inputs(path: Path) -> list[Path]:
    """Return u.data and the side files beside it."""
    data = one_file(path, lambda f: f.name == "u.data", NEEDS)
    return [data, *(beside(data, "u.item", "u.genre", "u.user") if data.name == "u.data" else [])]


def read(path: Path, options: ReadOptions) -> InteractionLog:
    """Return the log of MovieLens-100K."""
    data, *side = inputs(path)
    files = {file.name: file for file in side}
    frame, part = read_text(data, Layout(separator="\t", names=FIELDS))
    return make_log(
        frame,
        name="ml-100k" if data.name == "u.data" else log_name(data),
        items=_items(files["u.item"], files.get("u.genre")) if "u.item" in files else None,
        users=_users(files["u.user"]) if "u.user" in files else None,
        origin=Origin(parts=(part,), names={name: number for number, name in enumerate(FIELDS, 1)}),
        time_unit=options.time_unit or "s",
        duplicates=options.duplicates,
    )


def _users(path: Path) -> pl.DataFrame:
    """Return u.user."""
    frame, _ = read_text(path, Layout(separator="|", names=USER_FIELDS, latin=True))
    return with_types(frame, keep=("user_id", "zip_code"))


def _items(path: Path, genre_file: Path | None) -> pl.DataFrame:
    """Return u.item with its genre flags as one text."""
    genres = GENRES
    if genre_file is not None:
        genres = read_text(genre_file, Layout(separator="|", names=("genre", "number")))[0]["genre"].to_list()
    frame, _ = read_text(path, Layout(separator="|", names=(*ITEM_FIELDS, *genres), latin=True))
    named = [pl.when(pl.col(genre) == "1").then(pl.lit(genre)) for genre in genres]
    return frame.select(
        "item_id",
        "title",
        "release_date",
        pl.concat_str(named, separator="|", ignore_nulls=True).alias("genres"),
    )


READER = Reader(name="movielens-100k", needs=NEEDS, sniff=sniff, inputs=inputs, read=read)
