"""Recipes make a result of invented cells, and results their tables; figures are those of the cells."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tiny_grid import fake

from recdistill.storage import read_json, write_json
from recipes import grid_tables, record, tables
from recipes.__main__ import RECIPES, collect
from recipes.collect import find
from recipes.datasets import DATASETS
from recipes.foster_published import share
from recipes.jobs import Scored, Student
from recipes.places import Prepare
from recipes.record import as_json
from recipes.text_datasets import TEXT_DATASETS

GRIDS = [
    name for name in RECIPES if name not in ("magazine_filters", "fair", "beyond", "diet_kuairand")
]  # have their own tests
FACTS = {"users": 40, "items": 9, "interactions": 99, "train_bytes": 1234, "hash": "0" * 64}


@pytest.fixture
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Runs and results in the test's own folder; the datasets are said to be prepared."""
    monkeypatch.setattr(record, "RESULTS", tmp_path)
    monkeypatch.setattr(grid_tables, "RESULTS", tmp_path)
    before = [(dataset, dataset.runs) for dataset in (*DATASETS.values(), *TEXT_DATASETS)]
    for dataset, _ in before:
        object.__setattr__(dataset, "runs", tmp_path / "runs")
        job = Prepare(dataset)
        job.path.parent.mkdir(parents=True)
        write_json(job.path, as_json({"data": {"name": dataset.name, **FACTS}, "settings": job.settings()}))
    yield tmp_path
    for dataset, runs in before:
        object.__setattr__(dataset, "runs", runs)


def made(name: str, *, leave: int = 0, seeds: int = 2) -> tuple[list[Scored], dict[str, Any]]:
    """Return the cells of a recipe and its result, with the last ``leave`` cells of the first seeds missing."""
    recipe = RECIPES[name]
    cells = [cell for cell in recipe.cells(recipe.seeds) if cell.place.seed < seeds]
    for cell in cells[: len(cells) - leave]:
        fake(cell, seconds=3.0 if isinstance(cell, Student) else 8.0)
    assert collect(recipe, partial=True)
    result: dict[str, Any] = read_json(record.RESULTS / f"{name}.json")
    return cells, result


def lines(name: str) -> list[list[str]]:
    """Return the cells of a table, without header."""
    rows = [line for line in tables.TABLES[name]().splitlines() if line.startswith("|")][2:]
    return [[text.strip() for text in row.strip("|").split("|")] for row in rows]


@pytest.mark.parametrize("name", GRIDS)
def test_a_result_holds_a_row_for_every_row_that_has_a_cell(name: str, elsewhere: Path) -> None:
    cells, result = made(name, leave=1)
    whole = RECIPES[name].cells(RECIPES[name].seeds)
    assert result["cells"] == len(whole)
    assert len(result["missing"]) == len(whole) - len(cells) + 1
    rankings = {row["ranking"] for row in result["rows"]}
    assert len(result["rows"]) == len({cell.row for cell in cells[:-1]}) * len(rankings)
    assert result["command"] == f"make results/{name}.json"
    for table in (table for table in grid_tables.TABLES if table.startswith(name)):
        assert lines(table)
        assert "Not complete" in grid_tables.TABLES[table]()


@pytest.mark.parametrize("name", grid_tables.TABLES)
def test_a_table_without_a_result_says_so(name: str, elsewhere: Path) -> None:
    assert grid_tables.TABLES[name]().startswith("Not run yet: `make results/")


def test_parity_stands_beside_the_paper(elsewhere: Path) -> None:
    _, result = made("parity")
    row = find(result["rows"], dataset="ml-100k", method="td3", budget="30x50", ranking="uni100")
    assert row is not None
    line = next(line for line in lines("parity") if line[:3] == ["ml-100k", "`td3`", "30x50"])
    assert line[3:6] == ["50", "given", "2 of 3"]
    assert line[6].startswith(f"{100 * row['metrics']['HR@10']['mean']:.1f} [")
    assert line[7].startswith("66.1 (")
    assert line[7].count("66.1") == 2  # in both tables
    counts = {(row[0], row[1]): [int(text) for text in row[2:]] for row in lines("parity_summary")}
    assert counts["ml-100k", "`td3`"][0] == 9 * 3 + 4
    assert all(figures == match + above + below for figures, match, above, below in counts.values())


def test_foster_stands_beside_full_data_as_the_paper_s_does(elsewhere: Path) -> None:
    cells, _ = made("foster")
    line = next(line for line in lines("foster") if line[:3] == ["games", "`foster`", "20x20"])
    games = [c for c in cells if c.row.startswith("games-text/")]
    mine = [c.cell()["metrics"]["full"]["HR@10"] for c in games if c.row.endswith("/foster-20x20-text-random-judging")]
    whole = [c.cell()["metrics"]["full"]["HR@10"] for c in games if "/full-" in c.row]
    assert len(mine) == len(whole) == 2
    assert line[9].startswith(f"{sum(mine) / sum(whole):.2f} [")
    assert line[10] == f"{0.0386 / 0.0350:.2f}"
    published = {(line[0], line[1], line[2]): line[10] for line in lines("foster")}
    assert published["yelp", "`random`", "60x20"] == f"{0.0208 / 0.0390:.2f}"
    assert published["games", "`foster`", "60x20"] == "-"  # the paper has 20 there
    assert published["beauty", "`foster`", "20x20"] == "-"
    assert published["games-softmax", "`foster`", "20x20"] == "-"
    assert lines("foster_targets")[0][1] == "1.1"


def test_the_shares_are_those_of_the_paper() -> None:
    assert share("games", "full") == 1
    assert share("yelp", "td3") is None
    assert share("beauty", "foster") is None


def test_ablations_of_foster_are_named(elsewhere: Path) -> None:
    _, result = made("foster_ablation")
    named = [line[0] for line in lines("foster_ablation")]
    assert named[:3] == ["base", "before the first step", "bi-level"]
    assert "items all" in named
    assert [line[:2] for line in lines("foster_layers")][:3] == [
        ["none", "`full`"],
        ["none", "`start`"],
        ["none", "`foster`"],
    ]
    assert len(named) + len(lines("foster_layers")) == len(result["rows"])


def test_the_fast_mode_stands_beside_td3(elsewhere: Path) -> None:
    made("foster_ids")
    named = {(line[0], line[1]): line for line in lines("foster_ids")}
    assert named["TD3", "random"][2] == "2 of 3"
    assert named["FOSTER, 512 items", "given"][2] == "2 of 3"


def test_text_transfer_is_relative_to_the_student_s_own_score(elsewhere: Path) -> None:
    cells, _ = made("foster_transfer")
    line = next(line for line in lines("foster_transfer") if line[:3] == ["games", "text_narm", "`foster`"])
    part = [
        c.cell()["metrics"]["full"]["HR@10"] for c in cells if c.row.endswith("/foster-20x20-text_narm-random-judging")
    ]
    whole = [c.cell()["metrics"]["full"]["HR@10"] for c in cells if c.row.endswith("/full-text_narm-random-windows")]
    assert len(part) == len(whole) == 2
    assert line[8].startswith(f"{sum(part) / sum(whole):.2f} [")
    assert ["games-dense-none", "text_lora", "`full`"] in [line[:3] for line in lines("foster_transfer")]


def test_transfer_is_relative_to_the_student_s_own_score(elsewhere: Path) -> None:
    cells, _ = made("transfer")
    line = next(line for line in lines("transfer") if line[:4] == ["beauty", "parity", "`narm`", "given"])
    part = [c.cell()["metrics"]["full"]["NDCG@10"] for c in cells if c.row.endswith("td3-50x20-narm-given-parity")]
    whole = [c.cell()["metrics"]["full"]["NDCG@10"] for c in cells if c.row == "beauty/L20/full-narm-random-prefixes"]
    assert len(part) == len(whole) == 2
    assert line[7].startswith(f"{sum(part) / sum(whole):.2f} [")
    assert line[6] == f"{10.67 / 10.25:.2f}"


def test_the_cost_breaks_even_where_saved_training_pays(elsewhere: Path) -> None:
    cells, result = made("cost")
    row = find(result["costs"], dataset="ml-100k", method="td3")
    assert row is not None
    assert (row["distill_s"], row["train_full_s"], row["train_synthetic_s"]) == (15.0, 8.0, 3.0)
    assert (row["break_even"], row["distill_mb"], row["seeds"]) == (3.0, 101.0, 2)
    assert row["published"]["break_even"] == pytest.approx(7104 / (347 - 14), abs=0.01)
    for cell in cells:
        if isinstance(cell, Student) and cell.artifact is not None and cell.place.seed == 1:
            write_json(cell.artifact.path, read_json(cell.artifact.path) | {"measured": False, "peak_mb": 1e6})
    again = find(RECIPES["cost"].body(cells)["costs"], dataset="ml-100k", method="td3")
    assert again is not None
    assert (again["distill_mb"], again["seeds"]) == (100.0, 1)


def test_the_fair_comparisons_are_those_of_the_methods(elsewhere: Path) -> None:
    cells, result = made("fair", seeds=1)
    assert len(result["rows"]) == len({cell.row for cell in cells})
    pairs = {(entry["first"], entry["second"]) for entry in result["comparisons"]}
    base = "ml-100k/L50"
    for first, second in (
        ("refined-30x50-sasrec-random-judging", "full-sasrec-random-judging"),
        ("refined-30x50-sasrec-random-judging", "random_soft-30x50-sasrec-random-judging"),
        ("refined-30x50-sasrec-frozen-judging", "refined-30x50-labels-sasrec-frozen-judging"),
        ("td3-30x50-sasrec-given-judging", "random_soft-as-td3-30x50-sasrec-given-judging"),
        ("td3-30x50-sasrec-given-judging", "refined-30x50-sasrec-given-judging"),
    ):
        assert (f"{base}/{first}", f"{base}/{second}") in pairs
    assert not [pair for pair in pairs if "td3" in pair[0] and "-as-farzi" in pair[1]]
    assert {row["ranking"] for row in result["rows"]} == {"full"}
    assert all(entry["p"] <= entry["p_holm"] for entry in result["comparisons"])
    assert len(lines("fair")) == len(result["rows"])
    assert len(lines("fair_comparisons")) == len(result["comparisons"])


def test_the_size_curve_has_every_budget(elsewhere: Path) -> None:
    made("size_curve")
    found = {(line[0], line[1]): line[2:] for line in lines("size_curve")}
    assert ("random", "`refined`") in found
    assert all(len(scores) == 5 and "-" not in scores for scores in found.values())


def test_the_ablation_names_its_variants(elsewhere: Path) -> None:
    made("ablation")
    found = [line[0] for line in lines("ablation")]
    assert found[0] == "feature alignment on, augmented training on"
    assert {"base", "start random", "window 1", "max_inner_steps 400", "rank 32"} <= set(found)
    assert len(found) == len(set(found)) == 4 + 1 + 2 + 4 + 3 + 4
