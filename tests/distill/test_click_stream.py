"""A memory on disk: versions that stay, calls that are killed, blocks that cannot be taken."""

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch

from recdistill.data.clicks.blocks import ClickLog
from recdistill.data.clicks.fields import ClickSpec, Field
from recdistill.distill.base import RunContext
from recdistill.distill.clicks.stream import ClickStream, content_hash
from recdistill.distill.diet import DIET
from recdistill.errors import ArtifactError, DataError, InputError, OptionError
from recdistill.storage import sha256
from recdistill.training.clicks import ClickRecipe

SPEC = ClickSpec(
    fields=(Field(name="user"), Field(name="tags", kind="multi", max_values=2), Field(name="price", kind="numeric")),
    label="click",
    time="time",
    group="user",
)
SETTINGS = DIET(
    model_options={"embedding_dim": 4, "hidden_units": [6]},
    training=ClickRecipe(batch_size=32),
    checkpoints=2,
    ratio=0.1,
    epochs=2,
    steps_per_epoch=2,
    window=2,
    max_inner_steps=4,
    inner_batch_size=8,
    outer_batch_size=16,
)


def frame_of(day: int, rows: int = 120, **changes: Any) -> pl.DataFrame:
    generator = np.random.default_rng(day)
    users = generator.integers(0, 5 + 3 * day, rows)
    columns = {
        "user": users,
        "tags": [["a", "b"][: 1 + row % 2] for row in range(rows)],
        "price": generator.normal(size=rows),
        "click": (generator.uniform(size=rows) < np.where(users % 2 == 0, 0.8, 0.2)).astype(int),
        "time": 1000 * day + np.arange(rows),
    }
    return pl.DataFrame(columns | changes)


def log_of(frame: pl.DataFrame) -> ClickLog:
    return ClickLog.of(frame.lazy(), SPEC)


def files_of(folder: Path) -> dict[str, str]:
    """Return the hash of every file, without those that tell seconds."""
    return {
        str(path.relative_to(folder)): sha256(path)
        for path in folder.rglob("*")
        if path.is_file() and path.name != "manifest.json"
    }


@pytest.fixture(scope="module")
def memory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A memory of three days; not to be changed."""
    folder = tmp_path_factory.mktemp("stream") / "memory"
    stream = ClickStream.create(folder, SETTINGS, SPEC, seed=7)
    for day in range(3):
        stream.take(log_of(frame_of(day)), RunContext())
    return folder


@pytest.fixture
def own(memory: Path, tmp_path: Path) -> ClickStream:
    """The same memory, to be changed."""
    return ClickStream.open(Path(shutil.copytree(memory, tmp_path / "memory")))


def test_every_day_can_be_opened_again(memory: Path) -> None:
    stream = ClickStream.open(memory)
    assert stream.settings == SETTINGS
    assert stream.numbers == [1, 2, 3]
    assert [len(stream.version(number).memory()) for number in (1, 2, 3)] == [12, 24, 36]
    assert stream.version().number == 3
    assert stream.version(1).vocabulary().num_ids < stream.version(3).vocabulary().num_ids
    model = stream.model(stream.version(2))
    block = stream.version(2).vocabulary().encode(frame_of(1))
    assert model(block.batch(slice(None))) < 0.75
    with pytest.raises(OptionError, match=r"version: 4 is not there; there are: 1 to 3"):
        stream.version(4)


def test_a_version_tells_what_its_block_was(memory: Path) -> None:
    first, last = (ClickStream.open(memory).version(number).manifest for number in (1, 3))
    assert (last["rows"], last["seen"], last["first_time"], last["last_time"]) == (120, 360, 2000, 2119)
    assert first["new_ids"]["tags"] == 2
    assert last["new_ids"]["tags"] == 0
    assert last["new_ids"]["user"] > 0
    assert set(last["moved"]) == {"user", "tags", "price"}
    assert first["foreseen"] is None
    assert set(last["foreseen"]) == {"auc", "log_loss", "grouped_auc", "calibration_error"}
    assert len(last["trace"]) == 2


def test_a_later_block_changes_no_earlier_version(own: ClickStream) -> None:
    before = files_of(own.folder)
    own.take(log_of(frame_of(3)), RunContext())
    after = files_of(own.folder)
    assert before.items() < after.items()
    assert {path.split("/")[1] for path in after.keys() - before.keys()} == {"0004"}


@pytest.mark.parametrize("when", [1, 3])
def test_a_killed_call_leaves_the_memory_and_its_repetition_is_like_an_undisturbed_one(
    own: ClickStream, memory: Path, tmp_path: Path, when: int
) -> None:
    whole = ClickStream.open(Path(shutil.copytree(memory, tmp_path / "whole")))
    whole.take(log_of(frame_of(3)), RunContext())
    before = files_of(own.folder)

    def kill(stage: str, done: int, total: int, note: str = "") -> None:
        if done == when:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        own.take(log_of(frame_of(3)), RunContext(progress=kill))
    assert own.numbers == [1, 2, 3]
    assert before.items() <= files_of(own.folder).items()
    own.take(log_of(frame_of(3)), RunContext())
    assert files_of(own.folder) == files_of(whole.folder)


@pytest.mark.parametrize(
    ("frame", "told"),
    [
        (frame_of(1), "folded in as version 2"),
        (frame_of(0, rows=50), r"column 'time'.*begins at 0, and version 3 ended at 2119"),
        (frame_of(3).with_columns(mood=1), "a column 'mood' that the first block had not"),
        (frame_of(3, click=[2] * 120), "label 2 is neither"),
        (frame_of(3, price=["dear"] * 120), "'dear' is no number"),
        (frame_of(3).clear(), "no rows"),
    ],
)
def test_blocks_that_cannot_be_taken_leave_the_memory_untouched(
    own: ClickStream, frame: pl.DataFrame, told: str
) -> None:
    before = files_of(own.folder)
    with pytest.raises(DataError, match=told):
        own.take(log_of(frame), RunContext())
    assert files_of(own.folder) == before


def test_a_block_without_a_field_is_refused_when_it_is_opened() -> None:
    with pytest.raises(DataError, match="no column 'price'"):
        log_of(frame_of(3).drop("price"))


def test_what_no_block_had_before_gets_ids_and_what_it_lacks_is_missing(own: ClickStream) -> None:
    version = own.take(log_of(frame_of(3, user=["new"] * 120, price=[None] * 120)), RunContext())
    assert version.manifest["new_ids"]["user"] == 1
    assert version.vocabulary().encode(frame_of(3, price=[None] * 120)).ids[:, 3].max() == 0


def test_a_block_of_one_label_has_no_foresight(own: ClickStream) -> None:
    assert own.take(log_of(frame_of(3, click=[0] * 120)), RunContext()).manifest["foreseen"] is None


def test_the_order_of_rows_is_enough() -> None:
    frame = frame_of(0)
    assert content_hash(frame) == content_hash(frame.with_columns(pl.col("price") * 1))
    assert content_hash(frame) != content_hash(frame.reverse())


def test_folders_that_are_no_memory_are_told(own: ClickStream, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="is a memory with 3 versions"):
        ClickStream.create(own.folder, SETTINGS, SPEC, seed=0)
    with pytest.raises(InputError, match="is no memory"):
        ClickStream.create(own.folder / "versions", SETTINGS, SPEC, seed=0)
    with pytest.raises(ArtifactError, match=r"nowhere: is not a memory"):
        ClickStream.open(tmp_path / "nowhere")
    path = own.folder / "versions/0003/memory.safetensors"
    path.write_bytes(path.read_bytes()[:-1] + b"x")
    with pytest.raises(ArtifactError, match=r"memory.safetensors: has another SHA-256"):
        own.version().memory()
    header = own.folder / "stream.json"
    told = json.loads(header.read_text())
    header.write_text(json.dumps(told | {"format_version": 2}))
    with pytest.raises(ArtifactError, match="format version 2"):
        ClickStream.open(own.folder)
    header.write_text(json.dumps(told | {"settings": {**told["settings"], "ratio": -1}}))
    with pytest.raises(ArtifactError, match=r"stream.json.*ratio"):
        ClickStream.open(own.folder)


def test_a_first_block_that_was_killed_may_be_begun_anew_with_other_settings(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def kill(*arguments: Any, **options: Any) -> None:
        raise KeyboardInterrupt

    killed = ClickStream.create(tmp_path / "memory", SETTINGS, SPEC, seed=0)
    with monkeypatch.context() as patched:
        patched.setattr("recdistill.distill.clicks.stream.fold", kill)
        with pytest.raises(KeyboardInterrupt):
            killed.take(log_of(frame_of(0)), RunContext())
    other = replace(SETTINGS, ratio=0.2, label_rate=0.05)
    found, whole = (ClickStream.create(tmp_path / name, other, SPEC, seed=1) for name in ("memory", "whole"))
    units = [stream.take(log_of(frame_of(0)), RunContext()).memory() for stream in (found, whole)]
    assert torch.equal(units[0].vectors, units[1].vectors)
    assert torch.equal(units[0].logits, units[1].logits)


def test_only_a_memory_without_a_block_is_discarded_and_nothing_else_in_its_folder(own: ClickStream) -> None:
    with pytest.raises(InputError, match="3 versions, and is kept"):
        own.discard()
    begun = ClickStream.create(own.folder.with_name("begun"), SETTINGS, SPEC, seed=0)
    (begun.folder / "day.parquet").write_text("of the user")
    begun.discard()
    assert [path.name for path in begun.folder.iterdir()] == ["day.parquet"]
    empty = ClickStream.create(own.folder.with_name("empty"), SETTINGS, SPEC, seed=0)
    empty.discard()
    assert not empty.folder.exists()


def test_an_empty_memory_has_no_version(tmp_path: Path) -> None:
    stream = ClickStream.create(tmp_path / "memory", replace(SETTINGS, epochs=0), SPEC, seed=0)
    with pytest.raises(OptionError, match="none yet"):
        stream.version()
    version = stream.take(log_of(frame_of(0)), RunContext())
    assert version.manifest["trace"] == []
    assert version.memory().vectors.dtype == torch.float32
