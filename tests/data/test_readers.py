"""Every raw format is recognised and read into the same log; bad files are in test_reader_errors.py."""

import polars as pl
import pytest
import raw_samples

from recdistill.data.readers import READERS, find_reader, read_log
from recdistill.errors import DataError, OptionError

TIMED = [name for name, (format, _) in raw_samples.LAYOUTS.items() if format not in raw_samples.NO_CLOCK]
SAMPLED = [name for name in TIMED if name != "kuairand"]


@pytest.mark.parametrize("layout", raw_samples.LAYOUTS)
def test_a_folder_and_its_file_are_recognised(layout, tmp_path):
    format, make = raw_samples.LAYOUTS[layout]
    folder = make(tmp_path / layout)
    reader = find_reader(folder)
    assert reader.name == format
    assert find_reader(reader.inputs(folder)[0]).name == format


def test_every_format_has_a_sample():
    assert {format for format, _ in raw_samples.LAYOUTS.values()} == set(READERS)


@pytest.mark.parametrize("layout", SAMPLED)
def test_rows_are_in_time_order_with_their_values(layout, tmp_path):
    log = read_log(raw_samples.LAYOUTS[layout][1](tmp_path))
    rows = sorted(raw_samples.ROWS, key=lambda row: row[3])
    assert log.frame["timestamp"].to_list() == [row[3] for row in rows]
    assert log.frame["rating"].to_list() == [row[2] for row in rows]
    ids = raw_samples.MEMBERS if layout.startswith("amazon") else {"7": "7", "12": "12"}
    assert log.frame["user_id"].to_list() == [ids[row[0]] for row in rows]
    ids = raw_samples.ASINS if layout.startswith("amazon") else {"30": "30", "4": "4"}
    assert log.frame["item_id"].to_list() == [ids[row[1]] for row in rows]


@pytest.mark.parametrize("name", ["amazon", "other"])
def test_the_hash_is_that_of_the_content_and_not_of_the_format(name, tmp_path):
    layouts = [layout for layout in SAMPLED if layout.startswith("amazon") == (name == "amazon")]
    hashes = {read_log(raw_samples.LAYOUTS[layout][1](tmp_path / layout)).content_hash for layout in layouts}
    assert len(layouts) > 3
    assert len(hashes) == 1


def _titles(log):
    return dict(log.items.select("item_id", "title").iter_rows())


def test_titles_and_attributes_of_movielens(tmp_path):
    log = read_log(raw_samples.movielens_100k(tmp_path / "a"))
    assert _titles(log) == {"4": "Quiet Rain (1990)", "30": "Caf\u00e9"}
    assert log.items["genres"].to_list() == ["Drama", "Drama"]
    assert log.users["zip_code"].to_list() == ["00501", "V1B2C"]
    assert log.users["age"].to_list() == [31, 40]
    log = read_log(raw_samples.movielens_dat(tmp_path / "b"))
    assert _titles(log)["30"] == "Caf\u00e9"
    assert log.users["zip_code"].to_list() == ["00501", "90210"]
    assert _titles(read_log(raw_samples.movielens_csv(tmp_path / "c")))["4"] == "Rain, Quiet (1990)"


def test_recbole_sequences_are_joined_and_titles_are_not(tmp_path):
    log = read_log(raw_samples.recbole(tmp_path))
    assert _titles(log) == {"4": "Quiet Rain", "30": "Caf\u00e9"}
    assert log.items["class"].to_list() == ["Drama|Comedy", "Drama"]
    assert log.users["age"].to_list() == [31.0, None]


def test_recbole_columns_can_be_mapped(tmp_path):
    header = "member:token\tthing:token\twhen:float"
    path = raw_samples.write(tmp_path / "x.inter", raw_samples.lines(header, "a\tb\t5.5", "a\tc\t4"))
    log = read_log(path, columns={"user_id": "member", "item_id": "thing", "timestamp": "when"})
    assert log.frame["item_id"].to_list() == ["c", "b"]
    assert log.frame["timestamp"].to_list() == [4, 5]


def test_amazon_metadata_of_three_releases(tmp_path):
    new = read_log(raw_samples.amazon_json(tmp_path / "a"))
    assert _titles(new) == {"0000000004": "Rain & Sun", "B000000030": None}
    assert new.items.row(0)[2:] == ("Acme", "Toys|Rain", "a b")
    old = read_log(raw_samples.amazon_json_2014(tmp_path / "b"))
    assert old.items.row(0)[1:4] == ("Rain's end", "Acme", "Toys|Rain")
    latest = read_log(raw_samples.amazon_json_2023(tmp_path / "c"))
    assert latest.items.row(0)[:4] == ("0000000004", "Rain", "Acme", "Toys")


def test_kuairand_reads_all_standard_logs_and_orders_by_milliseconds(tmp_path):
    log = read_log(raw_samples.kuairand(tmp_path))
    assert log.frame["timestamp"].to_list() == [1000, 1500, 2000, 2000]
    assert log.frame["item_id"].to_list() == ["30", "4", "30", "4"]
    assert log.frame["label"].to_list() == [1.0, 0.0, 0.0, 1.0]
    assert {"time_ms", "is_like", "tab", "date"} <= set(log.frame.columns)
    assert log.frame["tab"].dtype == pl.Int64
    assert log.users["user_active_degree"].to_list() == ["high", "low"]
    assert "99" not in log.frame["user_id"]


def test_epinions_is_ordered_by_bucket_and_invents_no_time(tmp_path):
    log = read_log(raw_samples.epinions_mat(tmp_path))
    assert not log.has_clock
    assert log.frame.select("user_id", "item_id", "position", "time_bucket").rows() == [
        ("7", "30", 0, 1),
        ("7", "4", 1, 2),
        ("7", "30", 2, 9),
        ("12", "4", 0, 1),
    ]


def test_sequences_keep_their_order(tmp_path):
    log = read_log(raw_samples.sequences(tmp_path))
    assert log.frame.rows() == [("7", "30", 0), ("7", "4", 1), ("7", "30", 2), ("12", "4", 0)]


@pytest.mark.parametrize("header", ["user,item,time", "uid;movie_id;ts", "User ID\tItem-Id\tunix_timestamp"])
def test_common_names_and_separators_of_tables(header, tmp_path):
    separator = next(c for c in ",;\t" if c in header)
    rows = [separator.join(row) for row in (("a", "x", "20"), ("a", "y", "10"))]
    log = read_log(raw_samples.write(tmp_path / "t.csv", raw_samples.lines(header, *rows)))
    assert log.frame.rows() == [("a", "y", 10), ("a", "x", 20)]


@pytest.mark.parametrize(
    ("header", "value", "unit"),
    [
        ("time_ms", "1600000000123", None),
        ("timestamp_us", "1600000000123456", None),
        ("timestamp", "1600000000123", "ms"),
        ("timestamp", "1600000000123456789", "ns"),
        ("timestamp", "2020-09-13T12:26:40Z", None),
        ("timestamp", "2020-09-13 14:26:40.5+02:00", None),
        ("date", "2020-09-13 12:26:40", None),
        ("timestamp", "1600000000.25", None),
    ],
)
def test_units_of_time(header, value, unit, tmp_path):
    path = raw_samples.write(tmp_path / "t.csv", raw_samples.lines(f"user,item,{header}", f"a,x,{value}"))
    assert read_log(path, time_unit=unit).frame["timestamp"].to_list() == [1_600_000_000]


def test_mapped_columns_and_row_order(tmp_path):
    path = raw_samples.write(tmp_path / "t.csv", raw_samples.lines("who,item_id,sku", "a,1,x", "a,1,y"))
    log = read_log(path, columns={"user_id": "who", "item_id": "sku", "position": "@row"})
    assert log.frame.columns == ["user_id", "item_id", "position", "item_id_source"]
    assert log.frame["item_id"].to_list() == ["x", "y"]


def test_a_folder_of_parquet_parts_with_job_marks(tmp_path):
    for part, rows in enumerate(([("a", 1, 30)], [("b", 2, 10)])):
        frame = pl.DataFrame(rows, schema=["user_id", "item_id", "timestamp"], orient="row")
        frame.write_parquet(tmp_path / f"part-0000{part}.snappy.parquet")
    (tmp_path / "_SUCCESS").touch()
    (tmp_path / ".part-00000.snappy.parquet.crc").write_bytes(b"x")
    log = read_log(tmp_path)
    assert log.frame.rows() == [("b", "2", 10), ("a", "1", 30)]


def test_items_and_users_beside_a_table(tmp_path):
    log = read_log(raw_samples.table(tmp_path / "shop"))
    assert log.name == "shop"
    assert _titles(log) == {"4": "Rain", "30": None}
    assert log.users["age"].to_list() == [31, 40]


def test_blank_lines_and_a_byte_order_mark_are_no_matter(tmp_path):
    path = raw_samples.write(tmp_path / "t.csv", "\ufeffuser,item,time\n\na,x,1\n\n\nb,y,2\n\n")
    assert read_log(path).num_interactions == 2


@pytest.mark.parametrize(("policy", "rows"), [("drop", 2), ("keep", 3)])
def test_exact_repeats_can_be_dropped_or_kept(policy, rows, tmp_path):
    path = raw_samples.write(tmp_path / "t.csv", raw_samples.lines("user,item,time", "a,x,1", "a,x,2", "a,x,1"))
    assert read_log(path, duplicates=policy).num_interactions == rows


def test_several_candidates_are_named(tmp_path):
    raw_samples.amazon_json(tmp_path)
    raw_samples.amazon_csv(tmp_path)
    with pytest.raises(DataError, match=r"amazon-json \(Toys_5.json.gz\) and amazon-csv \(Toys.csv\); pass --format"):
        read_log(tmp_path)
    assert read_log(tmp_path, "amazon-csv").num_interactions == 4


def test_options_without_a_use_are_refused(tmp_path):
    path = raw_samples.sequences(tmp_path)
    with pytest.raises(OptionError, match="sequences has no clock"):
        read_log(path, time_unit="ms")
    with pytest.raises(OptionError, match="it is for recbole and table"):
        read_log(path, columns={"user_id": "a"})
    with pytest.raises(OptionError, match="did you mean 'user_id'"):
        read_log(path, columns={"userid": "a"})
    with pytest.raises(OptionError, match="--time-unit: 'sec' is not known"):
        read_log(path, time_unit="sec")
