"""A prepared dataset is whole or absent, made once, and refuses to open when anything in it changed."""

import json
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import raw_samples

from recdistill.data.prepared import PreparedDataset, PrepareSpec, prepare
from recdistill.errors import ArtifactError, DataError, InputError, OptionError


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """A table of 6 users and 60 rows, users interleaved in time."""
    folder = tmp_path / "shop"
    folder.mkdir()
    rows = [(f"u{i % 6}", str((i * 7) % 13), 1000 + i, float(i % 5)) for i in range(60)]
    frame = pl.DataFrame(rows, schema=["user_id", "item_id", "timestamp", "rating"], orient="row")
    frame.with_columns(part=pl.lit("x"), tab=pl.lit(3)).write_parquet(folder / "interactions.parquet")
    pl.DataFrame({"item_id": ["0", "1", "99"], "title": ["Rain", None, "Never met"]}).write_parquet(
        folder / "items.parquet"
    )
    return folder


def leftovers(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if path.name != "shop")


def test_the_layout_is_the_one_promised(source, tmp_path):
    data = prepare(source, tmp_path / "out", PrepareSpec())
    manifest = json.loads((tmp_path / "out" / "manifest.json").read_text())
    assert manifest == data.manifest
    assert (manifest["format"], manifest["format_version"], manifest["name"]) == ("recdistill-prepared", 1, "shop")
    sizes = [manifest[f"{key}interactions"] for key in ("", "train_", "valid_", "test_")]
    assert sizes == [60, 48, 6, 6]
    assert (data.num_users, data.num_items) == (manifest["users"], manifest["items"]) == (6, 13)
    rows = pl.read_parquet(tmp_path / "out" / "interactions.parquet")
    assert rows.columns == ["user", "item", "timestamp", "rating", "part_source", "tab", "part"]
    assert rows.schema["user"] == rows.schema["item"] == pl.Int32
    assert rows.schema["part"] == pl.Int8
    items = pl.read_parquet(tmp_path / "out" / "items.parquet")
    assert items["item"].to_list() == list(range(1, 14))
    assert items["item_id"].to_list() == [str(i) for i in range(13)]
    assert data.item_titles() == ["Rain", *[None] * 12]
    users = pl.read_parquet(tmp_path / "out" / "users.parquet")
    assert users.rows() == [(i, f"u{i}") for i in range(6)]
    assert set(manifest["files"]) == {path.name for path in (tmp_path / "out").iterdir()} - {"manifest.json"}
    assert manifest["source"]["format"] == "table"
    assert set(manifest["source"]["files"]) == {"interactions.parquet", "items.parquet"}
    assert leftovers(tmp_path) == ["out"]


@pytest.mark.parametrize("split", ["leave-one-out", "time", "blocks"])
def test_histories_are_the_rows_by_user_and_part(split, source, tmp_path):
    data = prepare(source, tmp_path / "out", PrepareSpec(split=split))
    rows = pl.read_parquet(tmp_path / "out" / "interactions.parquet")
    assert ("block" in rows.columns) == (split == "blocks")
    for user in range(data.num_users):
        start, train, valid = (int(a[user]) for a in (data.history_offsets, data.train_end, data.valid_end))
        bounds = [start, train, valid, int(data.history_offsets[user + 1])]
        for part in range(3):
            mine = rows.filter(pl.col("user") == user, pl.col("part") == part)["item"].to_list()
            assert data.history_items[bounds[part] : bounds[part + 1]].tolist() == mine
    assert data.history_items.dtype == np.int32
    assert isinstance(data.history_items, np.memmap)


def test_train_bytes_are_those_of_the_training_rows(source, tmp_path):
    data = prepare(source, tmp_path / "out", PrepareSpec())
    rows = pl.read_parquet(source / "interactions.parquet").select("user_id", "item_id", "timestamp", "rating")
    rows = rows.filter(pl.int_range(pl.len()).reverse().over("user_id") >= 2)
    rows.write_parquet(tmp_path / "train.parquet", compression="zstd")
    assert data.train_bytes == (tmp_path / "train.parquet").stat().st_size


def test_the_same_again_is_found_and_something_else_refused(source, tmp_path):
    out, told = tmp_path / "out", []
    first = prepare(source, out, PrepareSpec())
    stamp = (out / "manifest.json").stat().st_mtime_ns
    again = prepare(source, out, PrepareSpec(format="table"), progress=lambda *report: told.append(report))
    assert (first.cached, again.cached) == (False, True)
    assert told[-1][3] == "cached"
    assert (out / "manifest.json").stat().st_mtime_ns == stamp
    with pytest.raises(
        InputError, match=r"another user_k \(1 there, 2 asked\); choose another name, or pass --overwrite"
    ):
        prepare(source, out, PrepareSpec(user_k=2))
    assert prepare(source, out, PrepareSpec(user_k=2), overwrite=True).manifest["spec"]["user_k"] == 2
    frame = pl.read_parquet(source / "interactions.parquet")
    frame[:-1].write_parquet(source / "interactions.parquet")
    with pytest.raises(InputError, match="prepared with another source"):
        prepare(source, out, PrepareSpec(user_k=2))
    assert leftovers(tmp_path) == ["out"]


@pytest.mark.parametrize("overwrite", [False, True])
def test_a_folder_of_somebody_else_is_never_replaced(overwrite, source, tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("years of work")
    for out in (tmp_path / "mine", tmp_path, source):
        with pytest.raises(InputError, match="is never replaced; choose another name"):
            prepare(source, out, PrepareSpec(), overwrite=overwrite)
    with pytest.raises(InputError, match="is a file"):
        prepare(source, tmp_path / "mine" / "thesis.txt", PrepareSpec(), overwrite=overwrite)
    assert leftovers(tmp_path) == ["mine"]


@pytest.mark.parametrize(
    ("spec", "error"),
    [
        (PrepareSpec(user_k=50), DataError),
        (PrepareSpec(min_rating=9.0), DataError),
        (PrepareSpec(split="given"), DataError),
        (PrepareSpec(split="blocks", num_blocks=61), DataError),
        (PrepareSpec(min_events=11), DataError),
        (PrepareSpec(columns={"user_id": "nobody"}), DataError),
        (PrepareSpec(format="recbole"), DataError),
        (PrepareSpec(split="time", fractions=(0.5, 0.5, 0.5)), OptionError),
    ],
)
def test_a_failure_leaves_nothing_behind(spec, error, source, tmp_path):
    with pytest.raises(error):
        prepare(source, tmp_path / "deep" / "out", spec)
    assert leftovers(tmp_path) == []


def test_a_failure_while_writing_leaves_nothing_behind(source, tmp_path, monkeypatch):
    def fail(*args):
        raise KeyboardInterrupt

    monkeypatch.setattr(np, "save", fail)
    with pytest.raises(KeyboardInterrupt):
        prepare(source, tmp_path / "out", PrepareSpec())
    assert leftovers(tmp_path) == []


@pytest.mark.parametrize("field", ["split", "repeats", "min_order", "short_users", "duplicates", "time_unit"])
def test_unknown_settings_are_refused_at_once(field):
    with pytest.raises(OptionError, match="is not known"):
        PrepareSpec(**{field: "somehow"})


def test_settings_are_applied_in_order(source, tmp_path):
    spec = PrepareSpec(min_rating=1.0, repeats="drop", min_user=2, min_item=2, user_k=3, item_k=2, name="small")
    data = prepare(source, tmp_path / "out", spec)
    rows = pl.read_parquet(tmp_path / "out" / "interactions.parquet")
    assert data.name == "small"
    assert rows["rating"].min() >= 1
    assert not rows.select("user", "item").is_duplicated().any()
    assert rows["user"].value_counts()["count"].min() >= 3
    assert rows["item"].value_counts()["count"].min() >= 2


@pytest.mark.parametrize("layout", ["epinions-mat", "sequences"])
def test_data_without_a_clock(layout, tmp_path):
    source = raw_samples.LAYOUTS[layout][1](tmp_path / "shop")
    data = prepare(source, tmp_path / "out", PrepareSpec(short_users="train"))
    assert not data.manifest["has_clock"]
    assert "position" in pl.read_parquet(tmp_path / "out" / "interactions.parquet").columns


def test_a_given_split_that_is_not_in_time_order_still_has_whole_parts(source, tmp_path):
    path = source / "interactions.parquet"
    frame = pl.read_parquet(path).with_columns(split=pl.Series(["test", "train", "valid"] * 20))
    frame.with_columns(pl.col("split").shuffle(seed=1)).write_parquet(path)
    data = prepare(source, tmp_path / "out", PrepareSpec(split="given"))
    assert data.manifest["split"] == {"method": "given", "time_ordered": False}
    assert int((data.train_end - data.history_offsets[:-1]).sum()) == 20


def test_opening_names_what_is_wrong(source, tmp_path):
    out = tmp_path / "out"
    prepare(source, out, PrepareSpec())
    with pytest.raises(ArtifactError, match=r"not a prepared dataset .* run 'recdistill prepare .*shop OUT' first"):
        PreparedDataset.open(source)
    with pytest.raises(ArtifactError, match="does not exist"):
        PreparedDataset.open(tmp_path / "nowhere")
    for change, pattern in (
        ({"format": "recdistill-distilled"}, "is 'recdistill-distilled', not a prepared dataset"),
        ({"format_version": 2}, "written by a newer recdistill"),
        ({"users": "six"}, "has no usable users"),
        ({"users": 7}, "users.parquet: holds 6 rows where manifest.json says 7"),
    ):
        changed_manifest(out, change, pattern)
    assert PreparedDataset.open(out).num_users == 6


def changed_manifest(out: Path, change: dict, pattern: str) -> None:
    whole = (out / "manifest.json").read_text()
    (out / "manifest.json").write_text(json.dumps({**json.loads(whole), **change}))
    with pytest.raises(ArtifactError, match=pattern):
        PreparedDataset.open(out)
    (out / "manifest.json").write_text(whole)


@pytest.mark.parametrize("name", ["interactions.parquet", "items.parquet", "history_items.npy", "train_end.npy"])
def test_a_changed_or_missing_file_is_named(name, source, tmp_path):
    out = tmp_path / "out"
    prepare(source, out, PrepareSpec())
    data = bytearray((out / name).read_bytes())
    data[-1] ^= 1
    (out / name).write_bytes(data)
    with pytest.raises(ArtifactError, match=f"{name}: was changed"):
        PreparedDataset.open(out)
    with pytest.raises(ArtifactError, match=f"{name}: was changed"):
        prepare(source, out, PrepareSpec())
    (out / name).unlink()
    with pytest.raises(ArtifactError, match=f"{name}: is missing"):
        PreparedDataset.open(out, verify=False)
    assert not prepare(source, out, PrepareSpec(), overwrite=True).cached
    PreparedDataset.open(out)


@pytest.mark.parametrize(
    ("name", "array", "pattern"),
    [
        ("history_items", np.full(60, 14, np.int32), "items are not in 1 .. 13"),
        ("history_items", np.zeros(60, np.int32), "items are not in 1 .. 13"),
        ("history_items", np.ones(60, np.int64), "holds int64"),
        ("train_end", np.zeros(6, np.int64), "offsets are not in order"),
        ("valid_end", np.zeros(5, np.int64), r"holds int64 \(5,\)"),
    ],
)
def test_ranges_are_checked_even_without_hashes(name, array, pattern, source, tmp_path):
    out = tmp_path / "out"
    prepare(source, out, PrepareSpec())
    np.save(out / f"{name}.npy", array)
    with pytest.raises(ArtifactError, match=pattern):
        PreparedDataset.open(out, verify=False)


def test_no_pickle_is_ever_read(source, tmp_path):
    out = tmp_path / "out"
    prepare(source, out, PrepareSpec())
    np.save(out / "history_items.npy", np.array([{"a": 1}], dtype=object), allow_pickle=True)
    with pytest.raises(ArtifactError, match="is not a readable array"):
        PreparedDataset.open(out, verify=False)
