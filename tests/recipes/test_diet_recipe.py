"""The recipe of DIET: its jobs on a tiny log, and its result from invented cells."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch
from tiny_grid import do

from recdistill.data.clicks.layouts import LAYOUTS
from recdistill.data.clicks.vocabulary import ClickVocabulary
from recdistill.distill.clicks.matching import GradientMatching
from recdistill.distill.diet import DIET
from recdistill.storage import read_json, write_json, write_tensors
from recdistill.training.clicks import ClickRecipe
from recipes import diet_kuairand, diet_tables, grid_tables, record, tables
from recipes.__main__ import RECIPES, collect
from recipes.click_baselines import Matched, Rows, Static
from recipes.click_jobs import KUAIRAND, MODELS, ClickDataset, Code, Export, Memory, parquet_bytes
from recipes.click_students import FROZEN, SCRATCH, Chosen, Everything, Others, Student, Units
from recipes.diet_collect import interval_of
from recipes.record import as_json

QUICK = DIET(
    model_options={"embedding_dim": 4, "hidden_units": (6,)},
    training=ClickRecipe(batch_size=64),
    ratio=0.1,
    epochs=1,
    steps_per_epoch=2,
    window=2,
    max_inner_steps=3,
    outer_batch_size=32,
)


@pytest.fixture
def dataset(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ClickDataset:
    """Ratings of 40 films by 30 people, in four blocks."""
    draw, rows = np.random.default_rng(0), 800
    log = {"user_id": draw.integers(0, 30, rows), "item_id": draw.integers(0, 40, rows)}
    log |= {"rating": draw.integers(1, 6, rows), "timestamp": np.sort(draw.integers(0, 10_000, rows))}
    (tmp_path / "data" / "tiny").mkdir(parents=True)
    pl.DataFrame(log).write_parquet(tmp_path / "data" / "tiny" / "interactions.parquet")
    genres = [draw.choice(["Drama|War", "War", "Comedy"]) for _ in range(40)]
    films = pl.DataFrame({"item_id": np.arange(40), "genres": genres})
    films.write_parquet(tmp_path / "data" / "tiny" / "items.parquet")
    monkeypatch.setenv("RECDISTILL_DATA", str(tmp_path / "data"))
    return ClickDataset("tiny", "tiny", "movielens", 4, tmp_path / "runs")


def test_every_kind_of_cell_is_trained_and_scored(dataset: ClickDataset) -> None:
    reference = Memory(dataset, 0, "start", QUICK)
    export = Export(dataset, 0, reference)
    drawn = Rows(dataset, 0, "random", 0.1, reference)
    same_bytes = Rows(dataset, 0, "random", 0.1, reference, like=export)
    sources: list[tuple[Any, str]] = [
        (Everything(), SCRATCH),
        (Units(reference), FROZEN),
        (Units(reference, version=1), FROZEN),
        (Units(reference, export), SCRATCH),
        (Chosen(drawn), FROZEN),
        (Chosen(drawn, soft=True), SCRATCH),
        (Chosen(drawn, soft=True, grouped=True), SCRATCH),
        (Chosen(same_bytes, soft=True), SCRATCH),
        (Chosen(Rows(dataset, 0, "nacs", 0.1, reference)), SCRATCH),
        (Chosen(Rows(dataset, 0, "el2n", 0.1, reference)), FROZEN),
        (Others(Matched(dataset, 0, drawn, GradientMatching(steps=2))), FROZEN),
        (Others(Static(dataset, 0, drawn, QUICK)), FROZEN),
    ]
    cells = [Student(dataset, 0, source, tables, "fm-4", 3) for source, tables in sources]
    do(*cells)
    assert len({cell.key for cell in cells}) == len(cells)
    for cell in cells:
        told = cell.told()
        assert cell.done()
        assert 0 < told["metrics"]["auc"] < 1
        assert told["units"] in (None, 60, 20) or cell.source.name.startswith("random_soft-like")
    assert export.told()["bytes"] >= same_bytes.told()["bytes"]
    assert same_bytes.told()["bytes"] == parquet_bytes(dataset.published()[same_bytes.load()])
    assert reference.stream().numbers == [1, 2, 3]


def test_a_memory_goes_on_where_it_was_stopped(dataset: ClickDataset) -> None:
    whole, part = (Memory(dataset, seed, "start", QUICK) for seed in (0, 0))
    do(whole)
    expected = whole.version().memory()
    whole.path.unlink()
    for path in (whole.folder / "versions" / "0003").iterdir():
        path.unlink()
    (whole.folder / "versions" / "0003").rmdir()
    do(part)
    assert (part.version().memory().vectors == expected.vectors).all()


@pytest.fixture
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Runs and results in the test's own folder."""
    monkeypatch.setattr(record, "RESULTS", tmp_path)
    monkeypatch.setattr(grid_tables, "RESULTS", tmp_path)
    before = KUAIRAND.runs
    object.__setattr__(KUAIRAND, "runs", tmp_path / "runs")
    yield tmp_path
    object.__setattr__(KUAIRAND, "runs", before)


def invent_code() -> None:
    """Write the ids of a log of one row."""
    code, spec = Code(KUAIRAND, 0), LAYOUTS[KUAIRAND.layout].spec
    vocabulary = ClickVocabulary.empty(spec)
    code.folder.mkdir(parents=True)
    vocabulary.save(code.folder)
    ids = torch.zeros(1, sum(spec.widths), dtype=torch.int32)
    one = {"ids": ids, "labels": torch.ones(1), "groups": torch.zeros(0)}
    blocks = {f"{index}.{name}": value.clone() for index in range(KUAIRAND.blocks) for name, value in one.items()}
    write_tensors(code.folder / "blocks.safetensors", blocks)
    code.write({"samples": 1234, "bytes": 99_999})


def invent(cell: Student) -> None:
    """Write a cell and the memory behind it: the better the model's number, the better its score."""
    place = list(MODELS).index(cell.model)
    lower = {"full": 0.0, "diet-0.01": 0.001}.get(cell.source.name, 0.02)
    order = place if cell.source.name in ("full", "diet-0.01") else -place
    auc = 0.7 + 0.001 * order - lower + 0.0001 * cell.seed
    metrics = {"auc": auc, "log_loss": 1 - auc / 2, "grouped_auc": auc, "calibration_error": 0.01}
    about = {"row": cell.row, "model": cell.model, "tables": cell.tables, "metrics": metrics}
    seconds = {"train": 2.0, "train_cpu": 1.0}
    made = {"units": None if isinstance(cell.source, Everything) else 100, "bytes": 1000, "made": 5.0}
    cell.write(about | {"seconds": seconds} | made)
    if isinstance(cell.source, Units) and not cell.source.memory.path.exists():
        told = {"number": 1, "rows": 50, "units": 5, "foreseen": {"auc": 0.6}, "moved": {"a": 0.1, "b": 0.3}}
        told |= {"seconds": 1.0, "trace": [{"valid_negative_log_loss": -0.6}]}
        blocks = [told, told | {"number": 2, "foreseen": None, "trace": []}]
        cell.source.memory.write({"seconds": 2.0, "units": 10, "bytes": 77, "bytes_tables": 99, "blocks": blocks})


def result_of(path: Path, *, leave: int = 0) -> dict[str, Any]:
    """Return the recipe's result of invented cells of two seeds, but for the last ones."""
    recipe = RECIPES["diet_kuairand"]
    invent_code()
    cells = [cell for cell in recipe.cells(recipe.seeds) if cell.seed < 2]
    for cell in cells[: len(cells) - leave]:
        invent(cell)
    assert collect(recipe, partial=True)
    found: dict[str, Any] = read_json(path / "diet_kuairand.json")
    return found


def test_a_result_says_how_candidates_are_ranked(elsewhere: Path) -> None:
    result = result_of(elsewhere, leave=3)
    assert len(result["missing"]) >= 3
    assert {row["name"] for row in result["rows"]} >= {"full-scratch", "diet-0.01-frozen", "cgm-0.01-frozen"}
    assert result["dataset"]["interactions"] == 1234
    ranked = {entry["name"]: entry for entry in result["fidelity"]}
    assert ranked["diet-0.01-frozen"]["spearman"] == pytest.approx(1)
    assert ranked["diet-0.01-frozen"]["regret_auc"] == 0
    assert ranked["diet-0.01-frozen"]["gap"]["value"] == pytest.approx(-0.001, abs=1e-5)
    assert ranked["random_soft-0.01-frozen"]["spearman"] == pytest.approx(-1)
    assert ranked["random_soft-0.01-frozen"]["regret_auc"] == pytest.approx(0.009, abs=1e-5)
    assert result["noise_ceiling"]["tau"] == pytest.approx(1)
    reached = {entry["what"]: entry for entry in result["targets"]}
    assert reached["frozen: mean distance of AUC from own full-data score"]["met"]
    assert reached["frozen: Spearman less that of random rows with soft labels"]["measured"] == pytest.approx(2)
    assert not reached["scratch: mean AUC over candidates"]["met"]
    streams = {(entry["label"], entry["seed"]): entry for entry in result["streams"] if entry["ratio"] == 0.01}
    assert streams["diet", 0]["foreseen"] == [0.6, None]
    assert streams["diet", 0]["moved_most"] == [0.3, 0.3]
    assert set(streams["diet", 0]["on_memory"]) == {str(number) for number in range(1, 9)}


def test_tables_hold_the_figures_of_the_result(elsewhere: Path) -> None:
    result_of(elsewhere)
    for name in [name for name in diet_tables.TABLES if name.startswith("diet") and name != "diet_cost"]:
        text = tables.TABLES[name]()
        assert text.startswith("|"), (name, text)
        assert "nan" not in text
    main = tables.TABLES["diet_main"]()
    assert "| `full` | all | 1,234 | 99,999 |" in main
    assert "`random_soft`" in main
    assert ".70" in main


def test_a_missing_result_is_said_to_be_missing(elsewhere: Path) -> None:
    assert all("Not run yet" in tables.TABLES[name]() for name in diet_tables.TABLES)


def test_the_main_table_comes_first_and_seeds_are_whole() -> None:
    cells = diet_kuairand.cells((0, 1))
    assert cells[0].row == "full-scratch"
    names = [cell.row for cell in cells]
    assert names.index("diet-0.01-frozen") < names.index("el2n-0.01-frozen") < names.index("el2n-0.02-frozen")
    assert len({cell.key for cell in cells}) == len(cells)


def test_intervals_need_two_seeds() -> None:
    assert interval_of(np.array([0.5])) == {"value": 0.5, "low": None, "high": None}
    found = interval_of(np.array([1.0, 2.0, 3.0]))
    half = 4.302652729749464 * 1.0 / 3**0.5
    assert found == pytest.approx({"value": 2.0, "low": 2 - half, "high": 2 + half})


def test_results_are_plain(elsewhere: Path) -> None:
    write_json(elsewhere / "again.json", as_json(result_of(elsewhere)))
