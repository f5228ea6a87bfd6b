"""A log is typed, checked and in order, and its hash names its content."""

import numpy as np
import polars as pl
import pytest

from recdistill.data.log import InteractionLog, log_name, make_log
from recdistill.errors import DataError, OptionError

TIMED = pl.DataFrame({"user_id": ["b", "a", "b", "a"], "item_id": ["x", "x", "y", "z"], "timestamp": [3, 2, 2, 1]})


def test_rows_are_sorted_by_time_and_ties_keep_their_order():
    log = make_log(TIMED)
    assert log.frame.rows() == [("a", "z", 1), ("a", "x", 2), ("b", "y", 2), ("b", "x", 3)]
    assert (log.num_users, log.num_items, log.num_interactions) == (2, 3, 4)
    assert log.has_clock
    assert log.order == "timestamp"


def test_an_order_is_per_user_and_users_come_as_they_first_appear():
    frame = TIMED.rename({"timestamp": "position"})
    log = make_log(frame)
    assert log.frame.rows() == [("b", "y", 0), ("b", "x", 1), ("a", "z", 0), ("a", "x", 1)]
    assert not log.has_clock


def test_values_get_their_types():
    frame = TIMED.with_columns(
        pl.col("timestamp").cast(pl.String),
        rating=pl.lit("4"),
        zip=pl.lit("012"),
        age=pl.lit("7"),
        user_id=pl.Series([2, 1, 2, 1]),
    )
    schema = make_log(frame).frame.schema
    assert schema == {
        "user_id": pl.String,
        "item_id": pl.String,
        "timestamp": pl.Int64,
        "rating": pl.Float64,
        "zip": pl.String,
        "age": pl.Int64,
    }


def test_whole_floats_are_ids_without_a_point():
    frame = TIMED.with_columns(item_id=pl.Series([1.0, 1.0, 2.0, 3.0]))
    assert sorted(make_log(frame).frame["item_id"]) == ["1", "1", "2", "3"]


def test_the_hash_changes_with_content_and_with_nothing_else():
    log = make_log(TIMED)
    same = make_log(TIMED.select("timestamp", "item_id", "user_id").with_columns(other=pl.lit(1)), name="other")
    assert log.content_hash == same.content_hash
    for change in (
        TIMED.with_columns(user_id=pl.col("user_id").replace("a", "c")),
        TIMED.with_columns(item_id=pl.col("item_id").replace("x", "w")),
        TIMED.with_columns(pl.col("timestamp") + 1),
        TIMED.with_columns(rating=pl.lit(1.0)),
        TIMED.with_columns(label=pl.lit(1)),
        TIMED.with_columns(user_id=pl.Series(["bx", "ax", "bx", "ax"]), item_id=pl.Series(["", "", "", ""]) + "y"),
        TIMED.rename({"timestamp": "position"}),
        TIMED.head(3),
    ):
        assert make_log(change).content_hash != log.content_hash


def test_a_hash_does_not_run_fields_together():
    one = make_log(pl.DataFrame({"user_id": ["ab", "c"], "item_id": ["x", "y"], "timestamp": [1, 2]}))
    other = make_log(pl.DataFrame({"user_id": ["a", "bc"], "item_id": ["x", "y"], "timestamp": [1, 2]}))
    assert one.content_hash != other.content_hash


def test_attributes_have_one_row_per_id_and_no_empty_titles():
    items = pl.DataFrame({"item_id": [1, 1, 2, None], "title": ["A", "B", " ", "C"]})
    log = make_log(TIMED, items=items)
    assert log.items.rows() == [("1", "A"), ("2", None)]


@pytest.mark.parametrize(
    ("frame", "pattern"),
    [
        (TIMED.drop("user_id"), "column 'user_id': the column is missing; there are item_id, timestamp"),
        (TIMED.drop("timestamp"), "neither a timestamp nor a position"),
        (TIMED.clear(), "holds no interactions"),
        (TIMED.with_columns(item_id=pl.Series(["x", None, "y", "z"])), "column 'item_id': row 2: the item_id is empty"),
        (TIMED.with_columns(timestamp=pl.Series([1, 2, None, 3])), "column 'timestamp': row 3: .*empty value"),
        (TIMED.with_columns(timestamp=pl.lit(2**62)), "outside 1970-01-01 .. 2100-01-01"),
        (TIMED.with_columns(timestamp=pl.lit(1e300)), "outside 1970-01-01 .. 2100-01-01"),
        (TIMED.with_columns(rating=pl.lit(float("nan"))), "column 'rating': row 1: nan is not a number"),
        (TIMED.with_columns(position=pl.lit(0.5)).drop("timestamp"), "0.5 is not a whole number"),
    ],
)
def test_what_cannot_be_a_log_is_refused(frame, pattern):
    with pytest.raises(DataError, match=pattern):
        make_log(frame)


def test_unknown_options_are_refused():
    with pytest.raises(OptionError, match=r"--duplicates: 'dorp' is not known .did you mean 'drop'"):
        make_log(TIMED, duplicates="dorp")


def test_repeats_are_refused_with_both_rows():
    with pytest.raises(DataError, match=r"1 of 5 rows .* is row 5, which repeats row 2"):
        make_log(pl.concat([TIMED, TIMED[1:2]]))


def test_a_record_of_the_wrong_types_is_refused():
    with pytest.raises(DataError, match=r"column 'item_id': no such column .* make_log"):
        InteractionLog(frame=TIMED.drop("item_id"))


def test_where_keeps_order_and_attributes():
    log = make_log(TIMED, items=pl.DataFrame({"item_id": ["x"]}), name="toy").where(
        np.array([True, False, False, True])
    )
    assert log.frame.rows() == [("a", "z", 1), ("b", "x", 3)]
    assert log.items is not None
    assert log.name == "toy"


@pytest.mark.parametrize(("name", "short"), [("a.inter", "a"), ("Toys_5.json.gz", "Toys_5"), ("ml-100k", "ml-100k")])
def test_names(name, short, tmp_path):
    assert log_name(tmp_path / name) == short
