"""The log that the benchmark of streams makes, and what it says of its figures.

Proved here: any block can be made by itself and again; popularity follows the power law; labels follow the planted
model; rows of figures hold what was measured. Not proved here: the figures.
"""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from polars.testing import assert_frame_equal

from benchmarks.click_stream import (
    DAY,
    HASHED,
    SETTINGS,
    SPEC,
    ClickWorld,
    block_path,
    folded,
    spec_of,
    summary,
    write_blocks,
)
from recdistill.data.clicks.vocabulary import ClickVocabulary
from recdistill.distill.clicks.stream import ClickStream
from recdistill.evaluation.clicks import auc
from recdistill.training.clicks import ClickRecipe

WORLD = ClickWorld(rows=5_000, blocks=4, users=2_000, items=500, seed=3)


def test_a_block_is_made_by_itself_and_always_the_same() -> None:
    assert_frame_equal(WORLD.block(3), replace(WORLD).block(3))
    assert not WORLD.block(3).equals(WORLD.block(2))
    assert not WORLD.block(3).equals(replace(WORLD, seed=4).block(3))


def test_rows_are_in_order_of_time_and_a_block_is_a_day() -> None:
    for number in (1, 2):
        times = WORLD.block(number)["time_ms"]
        assert times.is_sorted()
        assert (times // DAY).unique().to_list() == [number]


def test_a_row_has_all_that_the_fields_want() -> None:
    frame = WORLD.block(1)
    assert set(SPEC.columns) == set(frame.columns)
    assert set(frame["tags"].list.len().unique()) == {1, 2, 3}
    assert sum(frame.null_count().row(0)) == 0
    block = ClickVocabulary.empty(SPEC).grown(frame).encode(frame)
    assert block.ids[:, :10].min() > 0
    assert set(block.labels) == {0.0, 1.0}


@pytest.mark.parametrize("most", [10, 100, 1000])
def test_ranks_follow_the_power_law(most: int) -> None:
    world = replace(WORLD, rows=200_000, users=100_000)
    ranks = world.ranks(world.users, 4, np.random.default_rng(0))
    expected = ((most + 1) ** 0.2 - 1) / (world.users**0.2 - 1)
    assert np.mean(ranks < most) == pytest.approx(expected, abs=0.005)
    assert 0 <= ranks.min() <= ranks.max() < world.users


def test_every_block_has_users_that_none_had_before() -> None:
    seen: set[int] = set()
    for number in range(1, 5):
        users = set(WORLD.block(number)["user_id"])
        assert users - seen
        seen |= users
    assert len(seen) <= WORLD.users


def test_labels_follow_the_planted_model_which_drifts() -> None:
    frame, rng = WORLD.block(1), np.random.default_rng((WORLD.seed, 1))
    user, item = (WORLD.ranks(most, 1, rng) for most in (WORLD.users, WORLD.items))
    hour, price = frame["hour"].to_numpy(), np.log(frame["price"].to_numpy())
    logits = [WORLD.logits(number, user, item, hour, frame["tab"].to_numpy(), price) for number in (1, 20)]
    labels = frame["click"].to_numpy().astype(np.float64)
    told = [auc(labels, each) for each in logits]
    assert told[0] > 0.7
    assert told[0] > told[1] + 0.05
    assert labels.mean() == pytest.approx((1 / (1 + np.exp(-logits[0]))).mean(), abs=0.02)


def test_only_missing_files_are_written(tmp_path: Path) -> None:
    size = write_blocks(WORLD, tmp_path / "log")["bytes"]
    assert size == sum(path.stat().st_size for path in (tmp_path / "log").iterdir())
    block_path(tmp_path / "log", 2).unlink()
    before = block_path(tmp_path / "log", 1).stat().st_mtime_ns
    assert write_blocks(WORLD, tmp_path / "log") == {"bytes": size}
    assert block_path(tmp_path / "log", 1).stat().st_mtime_ns == before
    assert_frame_equal(pl.read_parquet(block_path(tmp_path / "log", 2)), WORLD.block(2))


def test_users_and_items_share_ids_where_they_are_hashed() -> None:
    assert spec_of("growing") == SPEC
    hashed = {field.name: field.buckets for field in spec_of("hashed").fields if field.rule == "hash"}
    assert hashed == HASHED


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="the kernel tells no peak of memory")
def test_a_row_holds_what_folding_took(tmp_path: Path) -> None:
    small = replace(SETTINGS, training=ClickRecipe(batch_size=512), ratio=0.01)
    small = replace(small, epochs=1, steps_per_epoch=2, window=2, max_inner_steps=2, outer_batch_size=16)
    stream = ClickStream.create(tmp_path / "memory", small, SPEC, seed=0)
    write_blocks(replace(WORLD, rows=1_000, blocks=2), tmp_path / "log")
    first, second = (folded(stream, block_path(tmp_path / "log", number)) for number in (1, 2))
    assert (first["block"], second["block"]) == (1, 2)
    assert (first["units"], second["units"]) == (10, 20)
    assert first["foreseen_auc"] is None
    assert 0 < second["foreseen_auc"] < 1
    assert second["ids"] > first["ids"]
    assert second["tables_mb"] == second["ids"] * 16 * 4 / 1024**2
    assert second["peak_mb"] >= second["resident_before_mb"] > 0
    assert second["rows_per_second"] == pytest.approx(1_000 / second["seconds"])
    assert 0 < second["refinement_seconds"] < second["seconds"]


def test_peaks_are_explained_by_the_tables_and_folding_is_a_multiple_of_a_pass() -> None:
    rows: list[dict[str, Any]] = [
        {
            "block": number,
            "rows": 100,
            "seconds": 2.0,
            "rows_per_second": 50.0,
            "processor_seconds": 1.0,
            "tables_mb": 10.0 * number,
            "peak_mb": 300 + 12 * 10.0 * number,
        }
        for number in range(1, 21)
    ]
    apart = [{"block": number, "parts": {"plain pass": {"processor_seconds": 0.25}}} for number in (2, 5, 10)]
    found = summary(rows, apart)
    assert (found["rows"], found["seconds"], found["peak_mb"]) == (2_000, 40.0, 2_700)
    assert (found["rows_per_second"], found["rows_per_processor_second"]) == (50.0, 100.0)
    assert (found["peak_mb_early"], found["peak_mb_late"]) == (720, 2_460)
    assert found["tables_held_at_the_peak"] == pytest.approx(12)
    assert found["peak_mb_without_tables"] == pytest.approx(300)
    assert found["largest_peak_unexplained_mb"] == pytest.approx(0, abs=1e-6)
    assert found["processor_time_over_a_plain_pass"] == 4.0
    assert "tables_held_at_the_peak" not in summary(rows[:4], [])
