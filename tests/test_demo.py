"""The generated log has the structure that the demo states, and the demo fails when a model does not learn it.

Not proved here: the numbers of TD3 and of the other controls, which take a minute; the demo itself prints them.
"""

from collections import Counter
from dataclasses import replace

import numpy as np
import polars as pl
import pytest

from recdistill import demo
from recdistill.certificate.headline import headline
from recdistill.certificate.record import Certificate
from recdistill.distill.coresets.counts import PopularityCounts
from recdistill.distill.coresets.random_soft import RandomSoft
from recdistill.distill.coresets.untrained import Untrained
from recdistill.errors import RecdistillError
from recdistill.storage import sha256
from reference.jobs import Here


@pytest.fixture(scope="module")
def raw(tmp_path_factory):
    return demo.generate(tmp_path_factory.mktemp("demo") / "raw", seed=0)


@pytest.fixture(scope="module")
def log(raw):
    return pl.read_parquet(raw / "interactions.parquet")


def steps(log: pl.DataFrame) -> tuple[np.ndarray, np.ndarray]:
    """Return each event's item and the item that the same user takes next."""
    item = log["item_id"].str.strip_prefix("item-").cast(pl.Int64).alias("item")
    pairs = log.select("user_id", "timestamp", item).sort("user_id", "timestamp")
    pairs = pairs.with_columns(pl.col("item").shift(-1).over("user_id").alias("following")).drop_nulls()
    return pairs["item"].to_numpy(), pairs["following"].to_numpy()


def test_the_sizes_are_as_stated(raw, log):
    assert sorted(file.name for file in raw.iterdir()) == sorted(demo.RAW_FILES)
    events = log["user_id"].value_counts()["count"]
    assert len(events) == demo.NUM_USERS == 600
    assert demo.EVENTS[0] <= events.min() <= events.max() < demo.EVENTS[1]
    assert 12_000 < log.height < 14_000  # "about 13,000 events"
    items = pl.read_parquet(raw / "items.parquet")
    assert items.height == demo.NUM_SERIES * demo.PARTS == 300
    assert items["title"].n_unique() == 300
    assert set(log["item_id"]) <= set(items["item_id"])
    assert log["timestamp"].is_sorted()


def test_users_follow_the_series_as_often_as_stated(log):
    item, following = steps(log)
    ahead = np.where(item // demo.PARTS == following // demo.PARTS, (following - item) % demo.PARTS, 0)
    counts = Counter(ahead.tolist())
    followed = sum(counts[parts] for parts in (1, 2, 3))
    assert followed / len(ahead) == pytest.approx(demo.FOLLOW, abs=0.02)  # a jump may land there too: 0.002
    for parts, chance in zip((1, 2, 3), demo.NEXT, strict=True):
        assert counts[parts] / followed == pytest.approx(chance, abs=0.02)


def test_a_series_begins_again_at_its_end(log):
    item, following = steps(log)
    last = item % demo.PARTS == demo.PARTS - 1
    begun_again = (following[last] // demo.PARTS == item[last] // demo.PARTS) & (following[last] % demo.PARTS < 3)
    assert last.sum() > 300
    assert begun_again.mean() == pytest.approx(demo.FOLLOW, abs=0.08)


def test_jumps_prefer_popular_items(log):
    counts = np.sort(log["item_id"].value_counts()["count"].to_numpy())[::-1]
    assert counts[:30].sum() > 0.2 * counts.sum()  # the first tenth, with more than twice its share


def test_the_log_depends_on_the_seed_alone(raw, tmp_path):
    again, other = demo.generate(tmp_path / "again", seed=0), demo.generate(tmp_path / "other", seed=1)
    assert sha256(again / "interactions.parquet") == sha256(raw / "interactions.parquet")
    assert sha256(other / "interactions.parquet") != sha256(raw / "interactions.parquet")


def test_the_methods_of_the_demo_are_td3_and_controls():
    made = demo.methods()
    assert [method.method for method in made] == ["td3", "random", "random_soft", "popularity", "untrained"]
    assert {(method.num_rows, method.length) for method in made} == {(demo.ROWS, demo.LENGTH), (0, 0)}


@pytest.fixture
def quick(monkeypatch):
    """Few epochs and one small model beside popularity, for which a few seconds are enough."""
    monkeypatch.setattr(demo, "RECIPE", replace(demo.RECIPE, epochs=8))  # of 40: enough to learn the series
    monkeypatch.setattr(demo, "PANEL", demo.PANEL[-2:])
    monkeypatch.setattr(demo, "SEEDS", 2)


def test_full_data_beats_popularity_by_the_margin_and_a_report_says_what_a_dataset_is_worth(
    quick, tmp_path, monkeypatch
):
    learnt = RandomSoft(num_rows=demo.ROWS, length=demo.LENGTH)
    monkeypatch.setattr(demo, "methods", lambda: [learnt, PopularityCounts(), Untrained()])
    certified = demo.certified
    monkeypatch.setattr(demo, "certified", lambda folder, name, *more: certified(folder, "random_soft", *more))
    result = demo.run_demo(tmp_path, Here())
    full, *soft, popularity, untrained = result.rows
    assert [(row.trained_on, row.items) for row in (full, popularity, untrained)] == [
        ("full data", "random"),
        ("popularity", "random"),
        ("untrained", "given"),
    ]
    assert [(row.trained_on, row.items) for row in soft] == [
        ("random_soft", items) for items in ("random", "given", "frozen")
    ]
    assert result.margin == full.hr - popularity.hr
    assert full.hr > 0.7  # most of the events that follow a series, whose share is FOLLOW
    assert popularity.hr < 0.35
    assert result.margin > demo.MARGIN + 0.1  # far from the edge: seeds move it by a few hundredths
    assert untrained.hr < full.hr
    assert full.bytes == result.train_bytes > 0
    certificate = Certificate.load(tmp_path / "random_soft")
    assert [judge.name for judge in certificate.judges] == [spec.name for spec in demo.PANEL]
    assert result.headline == headline(certificate)
    assert result.report == tmp_path / "report.html"
    assert "Series " in result.report.read_text()  # the rows are told by their titles
    assert result.report.stat().st_size < 2_000_000


def test_the_demo_fails_when_full_data_do_not_beat_popularity(quick, tmp_path, monkeypatch):
    monkeypatch.setattr(demo, "methods", lambda: [PopularityCounts()])
    monkeypatch.setattr(demo, "MARGIN", 0.95)
    with pytest.raises(RecdistillError, match=r"the demo is broken: HR@10 0\.\d+ .* is not 0.95 above popularity"):
        demo.run_demo(tmp_path, Here())
    assert not (tmp_path / "report.html").exists()
