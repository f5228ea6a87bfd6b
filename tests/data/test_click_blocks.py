"""Click logs in blocks: every row in one block, in order of time, whatever the file; and what cannot be read."""

from datetime import datetime
from itertools import pairwise
from pathlib import Path

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from recdistill.data.clicks.blocks import ClickBlocks, ClickLog
from recdistill.data.clicks.fields import ClickSpec, Field
from recdistill.errors import DataError, OptionError

SPEC = ClickSpec(fields=(Field(name="a"),), label="y", time="t")


def log(times: list[int]) -> ClickLog:
    rows = pl.DataFrame({"a": list(range(len(times))), "t": times, "y": [0] * len(times), "other": ["x"] * len(times)})
    return ClickLog.of(rows.lazy(), SPEC)


@given(st.lists(st.integers(0, 20), min_size=1, max_size=60), st.integers(1, 5))
def test_every_row_is_in_one_block_in_order_of_time(times: list[int], num_blocks: int) -> None:
    whole = log(times)
    try:
        blocks = ClickBlocks.by_count(whole, num_blocks)
    except OptionError:
        ordered = sorted(times)
        assert len({ordered[len(times) * index // num_blocks] for index in range(num_blocks)}) < num_blocks
        return
    parts = list(blocks)
    assert len(parts) == num_blocks
    assert pl.concat(parts)["a"].to_list() == sorted(range(len(times)), key=lambda row: times[row])
    for before, after in pairwise(parts):
        assert before["t"].max() < after["t"].min()


def test_blocks_hold_equal_numbers_of_rows() -> None:
    assert [block.height for block in ClickBlocks.by_count(log(list(range(10, 0, -1))), 5)] == [2] * 5


def test_blocks_of_a_span_leave_empty_spans_out() -> None:
    blocks = ClickBlocks.by_span(log([3, 25, 4, 14, 24]), 10)
    assert [block["t"].to_list() for block in blocks] == [[3, 4], [14], [24, 25]]
    assert [block["t"].to_list() for block in ClickBlocks.by_span(log([0, 100]), 10)] == [[0], [100]]


def test_without_a_time_the_order_of_rows_counts() -> None:
    rows = pl.DataFrame({"a": [5, 4, 3, 2], "y": [0, 1, 0, 1]})
    spec = ClickSpec(fields=SPEC.fields, label="y", time=None)
    blocks = ClickBlocks.by_count(ClickLog.of(rows.lazy(), spec), 2)
    assert [block["a"].to_list() for block in blocks] == [[5, 4], [3, 2]]
    assert blocks.read(0).columns == ["a", "y"]
    with pytest.raises(OptionError, match=r"--span.*has none"):
        ClickBlocks.by_span(blocks.log, 1)


def test_a_folder_is_read_as_one_log(tmp_path: Path) -> None:
    for part, rows in (("b", [3, 4]), ("a", [1, 2])):
        frame = pl.DataFrame({"a": rows, "t": [datetime(2024, 1, row) for row in rows], "y": [0, 1]})
        frame.write_parquet(tmp_path / f"{part}.parquet")
    (tmp_path / "_SUCCESS.parquet").touch()
    blocks = ClickBlocks.by_span(ClickLog.open(tmp_path, SPEC), 86400)
    assert [block["a"].to_list() for block in blocks] == [[1], [2], [3], [4]]
    assert blocks.starts[0] == 1704067200


def test_a_table_of_text_is_a_log_too(tmp_path: Path) -> None:
    (tmp_path / "log.csv").write_text("a,t,y\nx,2,1\nz,1,0\n")
    assert ClickBlocks.by_count(ClickLog.open(tmp_path / "log.csv", SPEC), 1).read(0)["a"].to_list() == ["z", "x"]


@pytest.mark.parametrize(
    ("columns", "told"),
    [
        ({"a": [1], "t": [1]}, r"has no column 'y'.*it has a, t"),
        ({"b": [1], "A": [2], "t": [1], "y": [0]}, r"has no column 'a'"),
        ({"a": [1], "t": ["noon"], "y": [0]}, r"column 't'.*String, which is no time"),
        ({"a": [1, 2], "t": [1, None], "y": [0, 1]}, r"row 2 has no time"),
        ({"a": [], "t": pl.Series([], dtype=pl.Int64), "y": []}, r"has no rows"),
    ],
)
def test_logs_that_cannot_be_read_say_why(columns: dict[str, object], told: str, tmp_path: Path) -> None:
    pl.DataFrame(columns).write_parquet(tmp_path / "log.parquet")
    with pytest.raises(DataError, match=f"log.parquet.*{told}"):
        ClickBlocks.by_count(ClickLog.open(tmp_path / "log.parquet", SPEC), 1)


def test_sources_that_are_none_are_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"nowhere.*does not exist"):
        ClickLog.open(tmp_path / "nowhere", SPEC)
    with pytest.raises(DataError, match="of several kinds or none"):
        ClickLog.open(tmp_path, SPEC)
    (tmp_path / "log.xls").touch()
    with pytest.raises(DataError, match=r"ends in '.xls'"):
        ClickLog.open(tmp_path / "log.xls", SPEC)


@pytest.mark.parametrize("num_blocks", [0, 4])
def test_numbers_of_blocks_that_cannot_be_are_refused(num_blocks: int) -> None:
    with pytest.raises(OptionError, match="--blocks"):
        ClickBlocks.by_count(log([1, 1, 2, 3]), num_blocks)
