"""Tiny invented sources in every raw layout, and the place of the real ones where there are any."""

import gzip
import json
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from scipy.io import savemat

from recdistill.data.log import InteractionLog, make_log

ROWS = [("7", "30", 4.0, 1000), ("7", "4", 5.0, 2000), ("7", "30", 3.0, 3000), ("12", "4", 2.0, 1500)]
"""User, item, rating, seconds; in the order in which the samples hold them."""

ASINS = {"30": "B000000030", "4": "0000000004"}
MEMBERS = {"7": "A00000000007", "12": "A00000000012"}


def shared_data() -> Path:
    """Return the folder of real raw files, or skip the test."""
    beside = Path(__file__).resolve().parents[2].parent / "shared" / "data"
    folder = Path(os.environ.get("RECDISTILL_DATA", beside))
    if not folder.is_dir():
        pytest.skip("no real data: set RECDISTILL_DATA to a folder with raw/ml-100k and others")
    return folder


def log_of(rows: list[tuple[int, int, int]], clock: bool = True) -> InteractionLog:
    """Return a log of (user, item, time) rows."""
    order = "timestamp" if clock else "position"
    frame = pl.DataFrame(rows, schema=["user_id", "item_id", order], orient="row")
    return make_log(frame, duplicates="keep")


def write(path: Path, text: str, encoding: str = "utf-8") -> Path:
    """Return ``path`` after writing it, with its folder."""
    path.parent.mkdir(parents=True, exist_ok=True)
    data = text.encode(encoding)
    path.write_bytes(gzip.compress(data) if path.suffix == ".gz" else data)
    return path


def lines(*rows: str) -> str:
    """Return rows as lines."""
    return "".join(row + "\n" for row in rows)


def joined(separator: str) -> list[str]:
    """Return the sample rows with a separator between fields."""
    return [separator.join((user, item, f"{rating:g}", str(time))) for user, item, rating, time in ROWS]


def recbole(folder: Path) -> Path:
    header = "\t".join(("user_id:token", "item_id:token", "rating:float", "timestamp:float"))
    write(folder / "toy.inter", lines(header, *joined("\t")))
    header = "\t".join(("item_id:token", "movie_title:token_seq", "class:token_seq"))
    write(folder / "toy.item", lines(header, "4\tQuiet Rain\tDrama Comedy", "30\tCaf\u00e9\tDrama"))
    write(folder / "toy.user", lines("user_id:token\tage:float", "7\t31", "12\t"))
    return folder


def movielens_100k(folder: Path) -> Path:
    write(folder / "u.data", lines(*joined("\t")))
    flags = ["0"] * 19
    drama = "|".join([*flags[:8], "1", *flags[9:]])
    write(
        folder / "u.item", lines(f"4|Quiet Rain (1990)|01-Jan-1990||x|{drama}", f"30|Caf\u00e9|||x|{drama}"), "latin-1"
    )
    write(folder / "u.user", lines("7|31|F|writer|00501", "12|40|M|artist|V1B2C"))
    return folder


def movielens_dat(folder: Path) -> Path:
    write(folder / "ratings.dat", "\r\n".join(joined("::")) + "\r\n")
    write(folder / "movies.dat", lines("4::Quiet Rain (1990)::Drama", "30::Caf\u00e9::Drama|War"), "latin-1")
    write(folder / "users.dat", lines("7::F::25::3::00501", "12::M::35::1::90210"))
    return folder


def movielens_csv(folder: Path) -> Path:
    write(folder / "ratings.csv", lines("userId,movieId,rating,timestamp", *joined(",")))
    write(
        folder / "movies.csv", lines("movieId,title,genres", '4,"Rain, Quiet (1990)",Drama', "30,Caf\u00e9,Drama|War")
    )
    write(folder / "links.csv", lines("movieId,imdbId", "4,0001"))
    return folder


def amazon_csv(folder: Path) -> Path:
    rows = [f"{ASINS[item]},{MEMBERS[user]},{rating},{time}" for user, item, rating, time in ROWS]
    return write(folder / "Toys.csv", lines(*rows)).parent


def amazon_csv_2014(folder: Path) -> Path:
    rows = [f"{MEMBERS[user]},{ASINS[item]},{rating},{time}" for user, item, rating, time in ROWS]
    return write(folder / "ratings_Toys.csv", lines(*rows)).parent


def amazon_csv_2023(folder: Path) -> Path:
    rows = [f"{MEMBERS[user]},{ASINS[item]},{rating},{time}123" for user, item, rating, time in ROWS]
    return write(folder / "Toys.csv.gz", lines("user_id,parent_asin,rating,timestamp", *rows)).parent


def amazon_json(folder: Path) -> Path:
    rows = [
        json.dumps({"overall": rating, "reviewerID": MEMBERS[user], "asin": ASINS[item], "unixReviewTime": time})
        for user, item, rating, time in ROWS
    ]
    write(folder / "Toys_5.json.gz", lines(*rows))
    meta = [
        {
            "asin": ASINS["4"],
            "title": "Rain &amp; Sun",
            "brand": "Acme",
            "category": ["Toys", "Rain"],
            "description": ["a", "b"],
        },
        {"asin": ASINS["30"], "title": '<span class="a-size"', "category": [], "description": []},
    ]
    write(folder / "meta_Toys.json.gz", lines(*(json.dumps(entry) for entry in meta)))
    return folder


def amazon_json_2014(folder: Path) -> Path:
    amazon_json(folder)
    (folder / "Toys_5.json.gz").rename(folder / "reviews_Toys_5.json.gz")
    meta = {"asin": ASINS["4"], "title": "Rain's end", "brand": "Acme", "categories": [["Toys", "Rain"], ["Other"]]}
    write(folder / "meta_Toys.json.gz", lines(repr(meta)))
    return folder


def amazon_json_2023(folder: Path) -> Path:
    rows = [
        {
            "rating": rating,
            "user_id": MEMBERS[user],
            "asin": "X",
            "parent_asin": ASINS[item],
            "timestamp": time * 1000 + 9,
        }
        for user, item, rating, time in ROWS
    ]
    write(folder / "Toys.jsonl", lines(*(json.dumps(row) for row in rows)))
    meta = {"parent_asin": ASINS["4"], "title": "Rain", "store": "Acme", "categories": ["Toys"], "description": []}
    write(folder / "meta_Toys.jsonl", lines(json.dumps(meta)))
    return folder


def epinions_mat(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    matrix = np.array([[7, 30, 3, 4, 2, 1], [7, 30, 3, 3, 2, 9], [7, 4, 3, 5, 1, 2], [12, 4, 3, 2, 2, 1]])
    savemat(folder / "rating.mat", {"rating": matrix.astype(np.int32)})
    return folder


def kuairand(folder: Path) -> Path:
    header = "user_id,video_id,date,hourmin,time_ms,is_click,is_like,tab"
    early = [f"7,30,20220408,900,{1000 * 1000},1,0,1", f"12,4,20220408,900,{1500 * 1000 + 7},0,0,1"]
    late = [f"7,4,20220422,900,{2000 * 1000 + 9},1,1,4", f"7,30,20220422,900,{2000 * 1000 + 3},0,0,1"]
    write(folder / "data" / "log_standard_4_08_to_4_21_pure.csv", lines(header, *early))
    write(folder / "data" / "log_standard_4_22_to_5_08_pure.csv", lines(header, *late))
    write(folder / "data" / "log_random_4_22_to_5_08_pure.csv", lines(header, "99,99,20220422,900,5000,1,1,1"))
    write(folder / "data" / "user_features_pure.csv", lines("user_id,user_active_degree", "7,high", "12,low"))
    write(folder / "data" / "video_features_basic_pure.csv", lines("video_id,author_id,tag", "4,1,39", "30,2,"))
    return folder


def sequences(folder: Path) -> Path:
    return write(folder / "toy.txt", lines("7 30 4 30", "12 4")).parent


def table(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    frame = pl.DataFrame(ROWS, schema=["user_id", "item_id", "rating", "timestamp"], orient="row")
    frame.write_parquet(folder / "interactions.parquet")
    pl.DataFrame({"item_id": ["4", "30"], "title": ["Rain", ""]}).write_parquet(folder / "items.parquet")
    pl.DataFrame({"user_id": ["7", "12"], "age": [31, 40]}).write_parquet(folder / "users.parquet")
    return folder


LAYOUTS: dict[str, tuple[str, Callable[[Path], Path]]] = {
    "recbole": ("recbole", recbole),
    "movielens-100k": ("movielens-100k", movielens_100k),
    "movielens-dat": ("movielens-dat", movielens_dat),
    "movielens-csv": ("movielens-csv", movielens_csv),
    "amazon-csv-2018": ("amazon-csv", amazon_csv),
    "amazon-csv-2014": ("amazon-csv", amazon_csv_2014),
    "amazon-csv-2023": ("amazon-csv", amazon_csv_2023),
    "amazon-json-2018": ("amazon-json", amazon_json),
    "amazon-json-2014": ("amazon-json", amazon_json_2014),
    "amazon-json-2023": ("amazon-json", amazon_json_2023),
    "epinions-mat": ("epinions-mat", epinions_mat),
    "kuairand": ("kuairand", kuairand),
    "sequences": ("sequences", sequences),
    "table": ("table", table),
}
"""Layout -> name of its format, and the function that writes a sample into a folder and returns the folder."""

NO_CLOCK = ("epinions-mat", "sequences")
"""Formats that have an order and no clock."""
