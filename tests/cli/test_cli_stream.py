"""recdistill stream: a memory grows block by block, says what it was given, and is untouched by what it cannot take."""

from pathlib import Path

import numpy as np
import polars as pl
import pytest
from command_line import call, entries

from recdistill.distill.clicks.stream import ClickStream

COLUMNS = ("--categorical", "user,shop", "--numeric", "price", "--label", "click", "--time", "time", "--group", "user")
SMALL = ("--model-option", "embedding_dim=4", "--model-option", "hidden_units=[6]")
for pair in ("epochs=1", "steps_per_epoch=2", "window=2", "max_inner_steps=3", "ratio=0.1", "outer_batch_size=16"):
    SMALL += ("--option", pair)


def write_block(folder: Path, day: int, **changes: object) -> str:
    """Write the rows of a day; return the name of the file."""
    generator = np.random.default_rng(day)
    columns = {
        "user": generator.integers(0, 6 + day, 80),
        "shop": generator.integers(0, 4, 80),
        "price": generator.normal(size=80),
        "click": generator.integers(0, 2, 80),
        "time": 100 * day + np.arange(80),
    }
    path = folder / f"day-{day}.parquet"
    pl.DataFrame(columns | changes).write_parquet(path)
    return path.name


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder: three days, and a memory of the first."""
    monkeypatch.chdir(tmp_path)
    for day in range(3):
        write_block(tmp_path, day)
    assert call("stream", "memory", "day-0.parquet", *COLUMNS, *SMALL, "--seed", "3").code == 0
    return tmp_path


def test_later_blocks_need_nothing_else(here: Path) -> None:
    result = call("stream", "memory", "day-1.parquet", "--json").json
    assert (result["number"], result["rows"], result["seen"], result["units"]) == (2, 80, 160, 16)
    assert set(result["moved"]) == {"user", "shop", "price"}
    stream = ClickStream.open(here / "memory")
    assert (stream.seed, stream.settings.ratio) == (3, 0.1)
    assert stream.settings.model_options == {"embedding_dim": 4, "hidden_units": [6]}
    shown = call("stream", "memory", "day-2.parquet").out
    assert "240" in shown
    assert "AUC before" in shown


def test_a_memory_can_be_looked_into(here: Path) -> None:
    call("stream", "memory", "day-1.parquet")
    told = call("inspect", "memory", "--json").json
    assert (told["method"], told["blocks"], told["samples seen"], told["units"]) == ("diet", 2, 160, 16)
    assert [version["rows"] for version in told["versions"]] == [80, 80]
    assert "memory of clicks" in call("inspect", "memory").out


def test_other_commands_say_that_it_is_a_memory(here: Path) -> None:
    assert "memory: is a memory of clicks" in call("plan", "memory").complaint
    assert "memory: is a memory of clicks" in call("certify", "memory", "prepared").complaint
    assert "and is never replaced" in call("prepare", "day-0.parquet", "memory").complaint


def test_a_layout_names_the_columns(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    source = tmp_path / "source"
    source.mkdir()
    log = {"user_id": [1, 2] * 20, "item_id": [3] * 40, "rating": [5, 1, 4, 2] * 10, "timestamp": list(range(40))}
    pl.DataFrame(log).write_parquet(source / "interactions.parquet")
    pl.DataFrame({"item_id": [3], "genres": ["Drama|War"]}).write_parquet(source / "items.parquet")
    result = call("stream", "memory", "source", "--layout", "movielens", *SMALL, "--json")
    assert result.json["clicked"] == 0.5
    assert result.json["new_ids"]["genres"] == 2
    assert ClickStream.open(tmp_path / "memory").layout == "movielens"


MISTAKES = {
    "nothing told": (("new", "day-0.parquet"), ("--layout", "--categorical")),
    "layout": (("new", "day-0.parquet", "--layout", "kuairnd"), ("--layout: 'kuairnd'", "did you mean 'kuairand'")),
    "both": (("new", "day-0.parquet", "--layout", "criteo", "--label", "y"), ("--label: 'y'", "--layout criteo")),
    "column": (("new", "day-0.parquet", "--categorical", "usr", "--label", "click"), ("'usr'", "did you mean 'user'")),
    "label": (("new", "day-0.parquet", "--categorical", "user", "--label", "shop"), ("column 'shop'", "0 nor 1")),
    "label twice": (("new", "day-0.parquet", "--numeric", "click", "--label", "click"), ("--numeric", "is the label")),
    "no block": (("new", "day-9.parquet", *COLUMNS), ("day-9.parquet: does not exist",)),
    "no memory": ((".", "day-0.parquet", *COLUMNS), ("is no memory", "choose another name")),
    "model": (("new", "day-0.parquet", *COLUMNS, "--model", "deepfn"), ("--model: 'deepfn'", "did you mean 'deepfm'")),
    "model option": (
        ("new", "day-0.parquet", *COLUMNS, "--model-option", "dim=4"),
        ("--model-option: 'dim'", "embedding_dim"),
    ),
    "model value": (
        ("new", "day-0.parquet", *COLUMNS, "--model-option", "embedding_dim=0"),
        ("--model-option embedding_dim: 0", "1 or more"),
    ),
    "option": (
        ("new", "day-0.parquet", *COLUMNS, "--option", "ratoi=1"),
        ("--option: 'ratoi'", "did you mean 'ratio'"),
    ),
    "recipe": (("new", "day-0.parquet", *COLUMNS, "--recipe", "batch_size=0"), ("--recipe batch_size: 0", "1 or more")),
    "value": (("new", "day-0.parquet", *COLUMNS, "--option", "ratio=7"), ("--option ratio: 7", "(0, 1]")),
    "settled": (("memory", "day-1.parquet", "--label", "click"), ("--label: 'click'", "settled by the first block")),
    "again": (("memory", "day-0.parquet"), ("day-0.parquet", "folded in as version 1", "the block that follows")),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_a_mistake_is_one_line_and_leaves_everything_as_it_was(name: str, here: Path) -> None:
    arguments, told = MISTAKES[name]
    before = entries(here)
    result = call("stream", *arguments)
    assert result.code == 2
    assert all(piece in result.complaint for piece in told), result.complaint
    assert entries(here) == before


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"mood": [1] * 80}, "column 'mood' that the first block had not"),
        ({"time": list(range(80))}, "version 1 ended at 79"),
        ({"click": [3] * 80}, "label 3 is neither 0 nor 1"),
    ],
)
def test_a_block_that_does_not_fit_is_named(changes: dict[str, object], told: str, here: Path) -> None:
    name = write_block(here, 5, **changes)
    before = entries(here)
    result = call("stream", "memory", name)
    assert result.code == 2
    assert told in result.complaint
    assert entries(here) == before
