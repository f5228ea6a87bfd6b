"""What is wrong in a raw file is said in one line: the file, the line, the column, the value, and what to do."""

import gzip
import random
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import raw_samples
from raw_samples import lines, write
from scipy.io import savemat

from recdistill.data.readers import read_log
from recdistill.errors import DataError, OptionError

TYPED = "user_id:token\titem_id:token\trating:float\ttimestamp:float"
REVIEW = '{"reviewerID": "A1", "asin": "B1", "overall": 5.0, "unixReviewTime": 1000}'

# name of the file, its text, line, column, and pieces that the message must have
BAD = {
    "missing column": (
        "r.csv",
        lines("userId,movieId,rating", "1,2,3"),
        1,
        "timestamp",
        ["missing", "userId, movieId"],
    ),
    "missing column, recbole": (
        "r.inter",
        lines("user_id:token\titem:token\ttimestamp:float", "1\t2\t3"),
        1,
        "item_id",
        ["missing", "did you mean 'item'", "--columns"],
    ),
    "missing user, table": (
        "r.csv",
        lines("item_id,time", "1,2"),
        1,
        "user_id",
        ["item_id, time", "--columns user_id=NAME"],
    ),
    "missing order, table": (
        "r.csv",
        lines("user_id,item_id", "1,2"),
        1,
        "timestamp",
        ["time or order", "position=@row"],
    ),
    "mapped column missing": ("m.csv", lines("user_id,item_id,timestamp", "1,2,3"), 1, "who", ["missing"]),
    "timestamp, u.data": ("u.data", "1\t2\t3\t100\n1\t3\t3\tsoon\n", 2, 4, ["'soon' is not a number"]),
    "timestamp, dat": ("ratings.dat", "1::2::3::100\n1::3::3::1e\n", 2, 4, ["'1e' is not a number"]),
    "timestamp, csv": (
        "r.csv",
        lines("userId,movieId,rating,timestamp", "1,2,3,4", "1,3,3,?"),
        3,
        "timestamp",
        ["'?'"],
    ),
    "timestamp, recbole": ("r.inter", lines(TYPED, "1\t2\t3\t4", "1\t2\t3\tx"), 3, "timestamp", ["'x'"]),
    "timestamp empty": (
        "r.csv",
        lines("userId,movieId,rating,timestamp", "1,2,3,"),
        2,
        "timestamp",
        ["an empty value"],
    ),
    "not a date": (
        "r.csv",
        lines("user,item,time", "a,b,2020-01-01", "a,c,2020-13-01"),
        3,
        "time",
        ["'2020-13-01' is not a date-time"],
    ),
    "date as number": ("r.csv", lines("user,item,date", "a,b,20200101"), 2, "date", ["'20200101' is not a date-time"]),
    "milliseconds": (
        "u.data",
        "1\t2\t3\t1600000000123\n",
        1,
        4,
        ["1600000000123", "looks like milliseconds", "--time-unit ms"],
    ),
    "microseconds": ("u.data", "1\t2\t3\t1600000000123456\n", 1, 4, ["looks like microseconds", "--time-unit us"]),
    "before 1970": ("u.data", "1\t2\t3\t-5\n", 1, 4, ["'-5' is outside 1970-01-01 .. 2100-01-01"]),
    "after 2100": ("r.csv", lines("user,item,time", "a,b,2101-01-01"), 2, "time", ["'2101-01-01' is outside"]),
    "rating": ("u.data", "1\t2\tgood\t5\n", 1, 3, ["'good' is not a number"]),
    "rating not finite": ("u.data", "1\t2\tnan\t5\n", 1, 3, ["'nan' is not a number"]),
    "too few fields": ("u.data", "1\t2\t3\t4\n\n1\t2\t3\n", 3, 3, ["3 fields where 4 are expected"]),
    "too many fields": ("r.inter", lines(TYPED, "1\t2\t3\t4\t5"), 2, 5, ["5 fields where 4 are expected", "'5'"]),
    "too few, dat": ("ratings.dat", "1::2::3::4\n1:2:3:4\n", 2, 1, ["1 field where 4", "'1:2:3:4'", "'::'"]),
    "too few, csv": ("r.csv", lines("user,item,time", '"a\nb",c,1', "d,e"), 4, 2, ["2 fields where 3"]),
    "open quotation mark": ("r.csv", lines("user,item,time", 'a,"b,1', "d,e,2"), 2, 2, ["2 fields where 3"]),
    "user empty": ("r.csv", lines("user,item,time", "a,b,1", ",b,2"), 3, "user", ["user_id is empty"]),
    "item blank": ("u.data", "1\t \t3\t4\n", 1, 2, ["item_id is empty"]),
    "types missing": (
        "r.inter",
        lines("user_id\titem_id:token", "1\t2"),
        1,
        "user_id",
        ["no type for 'user_id'", "user_id:token"],
    ),
    "type unknown": ("r.inter", lines("user_id:int\titem_id:token", "1\t2"), 1, "user_id:int", ["token_seq"]),
    "two columns alike": ("r.csv", lines("user,item,user", "a,b,1"), 1, "user", ["two columns"]),
    "not JSON": ("r.json", lines(REVIEW, REVIEW.replace('"A1"', "A1")), 2, 16, ["not JSON", "A1"]),
    "not JSON, first line": ("r.jsonl", lines("hello"), 1, 1, ["not JSON", "'hello'"]),
    "not an object": ("r.json", lines(REVIEW, "[1]"), 2, 1, ["'[1]' is not a JSON object"]),
    "field missing in JSON": (
        "r.json",
        lines(REVIEW, '{"asin": "B2", "overall": 1, "unixReviewTime": 3}'),
        2,
        "reviewerID",
        ["user_id is empty"],
    ),
    "rating in JSON": (
        "r.json",
        lines(REVIEW, REVIEW.replace("5.0", '"five"')),
        2,
        "overall",
        ["'five' is not a number"],
    ),
    "user without items": ("r.txt", lines("1 2 3", "4"), 2, 2, ["user '4' has no items"]),
    "user on two lines": ("r.txt", lines("1 2 3", "2 3", "1 5"), 3, 1, ["user '1'", "line 1"]),
}


@pytest.mark.parametrize("case", BAD)
def test_the_place_and_the_value_are_named(case, tmp_path):
    name, text, line, column, pieces = BAD[case]
    path = write(tmp_path / name, text)
    columns = {"user_id": "who"} if name == "m.csv" else None
    with pytest.raises(DataError) as caught:
        read_log(path, columns=columns)
    message = str(caught.value)
    assert (caught.value.line, caught.value.column) == (line, column), message
    assert message.startswith(f"{path}, line {line}, column {column!r}: ")
    assert "\n" not in message
    assert all(piece in message for piece in pieces), message


EMPTY = {"r.csv": "userId,movieId,rating,timestamp", "r.inter": TYPED, "t.csv": "user,item,time"}


@pytest.mark.parametrize("name", EMPTY)
@pytest.mark.parametrize("end", ["", "\n", "\n\n"])
def test_a_header_alone_holds_no_interactions(name, end, tmp_path):
    path = write(tmp_path / name, EMPTY[name] + end)
    with pytest.raises(DataError, match="holds no interactions") as caught:
        read_log(path)
    assert caught.value.path == path


@pytest.mark.parametrize(
    "name", ["r.csv", "u.data", "r.inter", "ratings.dat", "r.jsonl", "r.txt", "r.mat", "r.parquet"]
)
def test_an_empty_file_is_said_to_be_empty(name, tmp_path):
    path = tmp_path / name
    path.touch()
    with pytest.raises(DataError, match=r"is empty; give a file") as caught:
        read_log(path)
    assert caught.value.path == path


def test_a_folder_with_an_empty_file(tmp_path):
    (tmp_path / "u.data").touch()
    with pytest.raises(DataError, match=r"u\.data: is empty"):
        read_log(tmp_path)
    (tmp_path / "hollow").mkdir()
    with pytest.raises(DataError, match="is an empty folder"):
        read_log(tmp_path / "hollow")


@pytest.mark.parametrize("name", ["r.json.gz", "r.csv.gz"])
def test_a_truncated_gzip_file(name, tmp_path):
    rng = random.Random(0)
    rows = [REVIEW.replace("B1", f"B{rng.random()}") for _ in range(2000)]
    if name == "r.csv.gz":
        rows = ["user,item,time", *(f"{rng.random()},{rng.random()},5" for _ in range(2000))]
    data = gzip.compress(lines(*rows).encode())
    path = tmp_path / name
    path.write_bytes(data[: len(data) // 2])
    with pytest.raises(DataError, match="truncated gzip file") as caught:
        read_log(path)
    assert caught.value.path == path
    path.write_bytes(data[:200] + bytes(50) + data[250:])
    with pytest.raises(DataError, match=r"damaged gzip|cannot be read|truncated gzip"):
        read_log(path)


def test_another_encoding(tmp_path):
    path = write(tmp_path / "r.csv", lines("user,item,time", "a,b,1", "caf\u00e9,b,2"), "latin-1")
    with pytest.raises(DataError, match="byte 0xe9 is not UTF-8") as caught:
        read_log(path)
    assert (caught.value.path, caught.value.line, caught.value.column) == (path, 3, 1)
    path = write(tmp_path / "r.jsonl", lines(REVIEW, REVIEW.replace("B1", "\u00e9")), "latin-1")
    with pytest.raises(DataError, match="byte 0xe9 is not UTF-8") as caught:
        read_log(path)
    assert caught.value.line == 2


@pytest.mark.parametrize("name", ["r.csv", "r.inter", "u.data", "r.jsonl"])
def test_utf16(name, tmp_path):
    path = write(tmp_path / name, lines("user,item,time", "a,b,1"), "utf-16")
    with pytest.raises(DataError, match=r"is UTF-16.*save it as UTF-8") as caught:
        read_log(path)
    assert caught.value.path == path


def test_a_zip_archive(tmp_path):
    (tmp_path / "r.csv").write_bytes(b"PK\x03\x04rest")
    with pytest.raises(DataError, match="is a zip archive; unpack it"):
        read_log(tmp_path / "r.csv")


def test_a_path_that_does_not_exist(tmp_path):
    raw_samples.movielens_100k(tmp_path / "ml-100k")
    with pytest.raises(DataError, match=r"ml-100: does not exist \(did you mean 'ml-100k'\?\)"):
        read_log(tmp_path / "ml-100")
    with pytest.raises(DataError, match=r"did you mean 'u.data'"):
        read_log(tmp_path / "ml-100k" / "udata")


def test_an_unknown_format_and_an_unknown_source(tmp_path):
    raw_samples.movielens_100k(tmp_path)
    with pytest.raises(OptionError, match=r"--format: 'recbol' is not known \(did you mean 'recbole'\?\)"):
        read_log(tmp_path, "recbol")
    with pytest.raises(DataError, match=r"holds no RecBole \.inter file"):
        read_log(tmp_path, "recbole")
    path = write(tmp_path / "notes.md", "hello\n")
    with pytest.raises(DataError, match=r"tried recbole, movielens-100k, .* table\)"):
        read_log(path)


def test_repeated_rows_are_counted_and_the_first_pair_is_named(tmp_path):
    path = write(tmp_path / "u.data", lines("1\t2\t3\t4", "5\t6\t3\t4", "1\t2\t3\t4", "1\t2\t3\t4", "1\t2\t4\t4"))
    with pytest.raises(DataError, match=r"2 of 5 rows .* line 3, which repeats line 1 .* --duplicates drop"):
        read_log(path)


def test_parquet_names_file_and_row(tmp_path):
    good = pl.DataFrame({"user_id": ["a"], "item_id": ["x"], "timestamp": ["1"]})
    good.write_parquet(tmp_path / "part-0.parquet")
    good.with_columns(timestamp=pl.lit("soon")).write_parquet(tmp_path / "part-1.parquet")
    with pytest.raises(DataError, match=r"part-1.parquet, column 'timestamp': row 1: .*'soon' is not a number"):
        read_log(tmp_path)
    (tmp_path / "part-1.parquet").write_bytes(b"not parquet at all")
    with pytest.raises(DataError, match=r"part-1.parquet: is not a readable Parquet file"):
        read_log(tmp_path)
    good.rename({"item_id": "item"}).write_parquet(tmp_path / "part-1.parquet")
    with pytest.raises(DataError, match=r"part-1.parquet: has columns user_id, item, timestamp"):
        read_log(tmp_path)


def test_a_bad_matrix(tmp_path):
    savemat(tmp_path / "a.mat", {"trust": np.ones((2, 2))})
    with pytest.raises(DataError, match=r"column 'rating': holds trust \(2, 2\)"):
        read_log(tmp_path)
    (tmp_path / "a.mat").write_bytes(b"MATLAB 5.0 but not really" * 20)
    with pytest.raises(DataError, match="is not a readable MATLAB file"):
        read_log(tmp_path)


def test_bad_metadata_names_its_own_file(tmp_path):
    raw_samples.amazon_json(tmp_path)
    meta = write(tmp_path / "meta_Toys.json.gz", lines('{"asin": "B1"}', '{"title": "x"}'))
    with pytest.raises(DataError, match="names no item") as caught:
        read_log(tmp_path)
    assert (caught.value.path, caught.value.line) == (meta, 2)
    write(meta, lines('{"asin": "B1"}', "{'asin': "))
    with pytest.raises(DataError, match="not JSON") as caught:
        read_log(tmp_path)
    assert (caught.value.path, caught.value.line) == (meta, 2)


def test_amazon_values_that_do_not_tell(tmp_path):
    path = write(tmp_path / "x.csv", lines("u1,i1,5,100"))
    with pytest.raises(DataError, match="do not tell users from items"):
        read_log(path, "amazon-csv")


def test_the_path_is_a_path(tmp_path: Path):
    with pytest.raises(DataError) as caught:
        read_log(write(tmp_path / "u.data", "1\t2\t3\tx\n"))
    assert isinstance(caught.value.path, Path)


@pytest.mark.parametrize(
    ("layout", "name", "text", "column"),
    [
        ("recbole", "toy.item", "thing:token\tmovie_title:token\n1\tx\n", "item_id"),
        ("movielens-csv", "movies.csv", "id,title\n1,x\n", "movieId"),
        ("kuairand", "data/user_features_pure.csv", "id,age\n1,2\n", "user_id"),
    ],
)
def test_side_files_without_ids_are_named(layout, name, text, column, tmp_path):
    folder = raw_samples.LAYOUTS[layout][1](tmp_path)
    path = write(folder / name, text)
    with pytest.raises(DataError, match="the column is missing") as caught:
        read_log(folder)
    assert (caught.value.path, caught.value.line, caught.value.column) == (path, 1, column)


@pytest.mark.parametrize("layout", [name for name in raw_samples.LAYOUTS if name != "table"])
def test_damaged_bytes_never_raise_anything_else(layout, tmp_path):
    rng = random.Random(layout)
    folder = raw_samples.LAYOUTS[layout][1](tmp_path)
    files = sorted(file for file in folder.rglob("*") if file.is_file())
    for _ in range(40):
        file = rng.choice(files)
        whole = file.read_bytes()
        at = rng.randrange(len(whole))
        junk = rng.choice([b"\0", b"\xe9", b'"', b",", b"\t", b"\n", b"\r", b"::", b"", b"9" * 25, b"nan", b"{", b"\\"])
        file.write_bytes(whole[:at] + junk + whole[at + rng.choice([0, 1, 5, 80]) :])
        caught = None
        try:
            read_log(folder)
        except (DataError, OptionError) as error:
            caught = error
        assert "\n" not in str(caught)
        file.write_bytes(whole)
