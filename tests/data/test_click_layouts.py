"""Published click logs: files as their publishers write them become the columns of their spec."""

import os
from pathlib import Path

import polars as pl
import pytest

from recdistill.data.clicks.blocks import ClickBlocks
from recdistill.data.clicks.layouts import CRITEO_COLUMNS, LAYOUTS
from recdistill.data.clicks.vocabulary import ClickVocabulary
from recdistill.errors import DataError


def rows_of(layout: str, source: Path) -> pl.DataFrame:
    """Return a log in one block, after it was coded."""
    blocks = ClickBlocks.by_count(LAYOUTS[layout].open(source), 1)
    frame = blocks.read(0)
    block = ClickVocabulary.empty(blocks.log.spec).grown(frame).encode(frame)
    assert len(block) == frame.height
    return frame


def test_criteo_is_a_text_without_a_header(tmp_path: Path) -> None:
    lines = [["0", "1", *[""] * 12, "68fd1e64", *["x"] * 25], ["1", "", *["5"] * 12, "", *["x"] * 25]]
    (tmp_path / "train.txt").write_text("".join("\t".join(line) + "\n" for line in lines))
    frame = rows_of("criteo", tmp_path / "train.txt")
    assert frame["I1"].to_list() == [1, None]
    assert frame["C1"].to_list() == ["68fd1e64", None]
    assert frame["label"].to_list() == [0, 1]
    frame.select(CRITEO_COLUMNS).write_parquet(tmp_path / "criteo.parquet")
    assert rows_of("criteo", tmp_path / "criteo.parquet").equals(frame)


def test_avazu_tells_the_time_of_day(tmp_path: Path) -> None:
    spec = LAYOUTS["avazu"].spec
    given = [name for name in spec.names if name not in ("hour_of_day", "weekday")]
    columns = {"click": [0, 1], "hour": [14102123, 14102100], **{name: ["a", "b"] for name in given}}
    pl.DataFrame(columns).write_csv(tmp_path / "train.csv")
    frame = rows_of("avazu", tmp_path / "train.csv")
    assert frame["hour_of_day"].to_list() == [0, 23]
    assert frame["weekday"].to_list() == [2, 2]
    assert frame["time"].to_list() == [1413849600, 1413932400]
    assert frame["click"].to_list() == [1, 0]


def test_taobao_joins_advertisements_and_users(tmp_path: Path) -> None:
    log = {
        "user": [7, 8],
        "time_stamp": [2, 1],
        "adgroup_id": [1, 2],
        "pid": ["p", "p"],
        "nonclk": [0, 1],
        "clk": [1, 0],
    }
    pl.DataFrame(log).write_csv(tmp_path / "raw_sample.csv")
    ads = {"adgroup_id": [1], "cate_id": [5], "campaign_id": [6], "customer": [3], "brand": ["NULL"], "price": [9.5]}
    pl.DataFrame(ads).write_csv(tmp_path / "ad_feature.csv")
    profile = "cms_segid,cms_group_id,final_gender_code,age_level,pvalue_level,shopping_level,occupation"
    (tmp_path / "user_profile.csv").write_text(f"userid,{profile},new_user_class_level \n7,0,1,2,3,,3,0,4\n")
    frame = rows_of("taobao", tmp_path)
    assert frame["user"].to_list() == [8, 7]
    assert frame["price"].to_list() == [None, 9.5]
    assert frame["new_user_class_level"].to_list() == [None, 4]


def test_tmall_counts_actions_beyond_a_click(tmp_path: Path) -> None:
    log = {
        "user_id": [1, 1, 2],
        "item_id": [1, 2, 1],
        "cat_id": [1, 1, 1],
        "seller_id": [4, 4, 4],
        "brand_id": [None, 2, 2],
        "time_stamp": [1111, 512, 511],
        "action_type": [0, 2, 3],
    }
    pl.DataFrame(log).write_csv(tmp_path / "user_log_format1.csv")
    pl.DataFrame({"user_id": [1], "age_range": [3], "gender": [0]}).write_csv(tmp_path / "user_info_format1.csv")
    frame = rows_of("tmall", tmp_path)
    assert frame["bought"].to_list() == [1, 1, 0]
    assert frame["age_range"].to_list() == [None, 3, 3]
    assert frame["day_of_week"].to_list() == [7, 1, 2]


def test_a_source_without_its_tables_is_named(tmp_path: Path) -> None:
    pl.DataFrame({"user_id": [1]}).write_parquet(tmp_path / "interactions.parquet")
    with pytest.raises(DataError, match=r"items.parquet.*does not exist"):
        LAYOUTS["kuairand"].open(tmp_path)
    pl.DataFrame({"label": [1], "I1": [1]}).write_csv(tmp_path / "criteo.csv")
    with pytest.raises(DataError, match=r"criteo.csv.*has no column 'I2'; it has label, I1"):
        LAYOUTS["criteo"].open(tmp_path / "criteo.csv")


REAL = {
    ("kuairand", "kuairand-pure-window"): (228_329, 0.442),
    ("open-bandit", "open-bandit-small"): (40_000, 0.0052),
    ("movielens", "ml-100k"): (100_000, 0.554),
    ("movielens", "ml-latest-small"): (100_004, 0.516),
}


@pytest.mark.parametrize(("layout", "folder"), REAL)
def test_real_logs_have_their_rows_and_their_rate(layout: str, folder: str) -> None:
    base = os.environ.get("RECDISTILL_DATA")
    if base is None or not (Path(base) / folder).exists():
        pytest.skip(f"RECDISTILL_DATA does not name a folder with {folder}")
    rows, rate = REAL[layout, folder]
    log = LAYOUTS[layout].open(Path(base) / folder)
    labels = log.rows.select(log.spec.label).collect().to_series()
    assert len(labels) == rows
    assert labels.mean() == pytest.approx(rate, abs=1e-3)
