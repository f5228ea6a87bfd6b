"""The command line of the grids: which jobs it takes, what it writes, how it ends; and how the recipes are made."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from tiny_grid import LENGTH

from recdistill.storage import read_json
from recdistill.study.grid import in_order
from recipes import __main__ as command
from recipes import record
from recipes.cells import Recipe, selector, student
from recipes.collect import body_of, rows_of
from recipes.datasets import BEAUTY, DATASETS, ML_100K, Dataset
from recipes.jobs import Artifact, Scored, Student
from recipes.places import Place
from recipes.plans import EqualBytes

FLOORS = ("untrained", "popularity")


@pytest.fixture
def results(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder for results."""
    monkeypatch.setattr(record, "RESULTS", tmp_path / "results")
    return tmp_path / "results"


@pytest.fixture
def recipe(dataset: Dataset, results: Path, monkeypatch: pytest.MonkeyPatch) -> Recipe:
    """A recipe of two quick cells per seed, known to the command line."""

    def cells(seeds: Sequence[int]) -> list[Scored]:
        models = {"untrained": "sasrec", "popularity": "popularity"}
        return [
            student(Place(dataset, LENGTH, seed), selector(name, (0, 0)), "random", "judging", models[name])
            for seed in seeds
            for name in FLOORS
        ]

    def body(made: list[Scored]) -> dict[str, Any]:
        return body_of(made, rows_of(made), [])

    made = Recipe("tiny", (0, 1), cells, body)
    monkeypatch.setitem(command.RECIPES, "tiny", made)
    return made


def test_a_part_is_run_collected_and_completed(
    recipe: Recipe, results: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command.main(["tiny", "--collect"]) == 1
    assert "4 of 4 cells are missing; not written" in capsys.readouterr().out
    assert command.main(["tiny", "--seeds", "0", "--only", "popularity"]) == 0
    assert [cell.done() for cell in recipe.cells((0, 1))] == [False, True, False, False]
    assert not (results / "tiny.json").exists()
    assert command.main(["tiny", "--collect"]) == 0
    partial = read_json(results / "tiny.json")
    assert (partial["cells"], len(partial["missing"]), partial["seeds"]) == (4, 3, [0])
    assert {(row["method"], row["seeds"], row["seeds_wanted"]) for row in partial["rows"]} == {("popularity", 1, 2)}
    assert command.main(["tiny"]) == 0
    whole = read_json(results / "tiny.json")
    assert (whole["missing"], whole["seeds"], whole["dataset"]["users"]) == ([], [0, 1], 600)
    assert {(row["method"], row["ranking"], row["seeds"]) for row in whole["rows"]} == {
        (name, ranking, 2) for name in FLOORS for ranking in ("full", "uni100")
    }


def test_a_failure_is_told_at_the_end(
    recipe: Recipe, results: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RECDISTILL_DATA", str(results))
    assert command.main(["tiny"]) == 1
    told = capsys.readouterr().out
    assert "0 done, 1 failed, 10 left" in told  # of two seeds a teacher, two artifacts and their cells
    assert "FAILED tiny/prepared" in told
    assert "does not exist" in told
    assert not results.exists()


def test_no_time_is_no_failure_and_no_result(recipe: Recipe, results: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert command.main(["tiny", "--minutes", "0"]) == 0
    assert "0 done, 0 failed, 11 left" in capsys.readouterr().out
    assert not results.exists()


def test_jobs_are_listed(recipe: Recipe, capsys: pytest.CaptureFixture[str]) -> None:
    assert command.main(["tiny", "--list", "--seeds", "1", "--only", "popularity", "random"]) == 0
    lines = capsys.readouterr().out.split()
    assert lines == [
        "tiny/prepared",
        "tiny/L12/seed-1/full-sasrec-random-windows",
        "tiny/L12/seed-1/popularity-0x0",
        "tiny/L12/seed-1/popularity-0x0-popularity-random-judging",
    ]


@pytest.mark.parametrize("given", [["tiny", "--workers", "0"], ["no such recipe"], []])
def test_nonsense_is_refused(given: list[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        command.main(given)
    assert stopped.value.code == 2


def every_cell() -> list[Scored]:
    return [cell for made in command.RECIPES.values() for cell in made.cells(made.seeds)]


def test_no_two_jobs_of_all_recipes_share_a_name_or_a_file() -> None:
    jobs = in_order(every_cell())
    assert len({job.path for job in jobs}) == len(jobs)


def test_every_artifact_fits_the_options_of_its_method() -> None:
    for name, dataset in DATASETS.items():
        mine = [job for job in in_order(every_cell()) if isinstance(job, Artifact) and job.key.startswith(f"{name}/")]
        for job in mine:
            assert job.place.dataset == dataset
            length = getattr(getattr(job.plan, "distiller", None), "length", job.place.length)
            assert length in (0, job.place.length), job.key


def test_the_fair_grid_gives_all_the_same_choices() -> None:
    cells = command.RECIPES["fair"].cells((0,))
    assert {cell.training for cell in cells if isinstance(cell, Student)} == {ML_100K.judging}
    for dataset in DATASETS.values():
        mine = [cell for cell in cells if isinstance(cell, Student) and cell.place.dataset == dataset]
        items: dict[str, set[str]] = {}
        for cell in mine:
            if cell.plan is not None and not cell.plan.name.startswith(FLOORS):
                items.setdefault(cell.plan.name, set()).add(cell.items)
        assert len(items) >= 14
        assert all(found == {"random", "given", "frozen"} for found in items.values())
        likes = {cell.plan.like.name.split("-")[0] for cell in mine if isinstance(cell.plan, EqualBytes)}
        assert likes == {"td3", "refined", "farzi"}
        assert any(name.startswith("most_recent") for name in items) is dataset.clock


def test_the_paper_s_protocol_gives_tables_to_those_who_had_them() -> None:
    cells = [cell for cell in command.RECIPES["parity"].cells((0,)) if isinstance(cell, Student)]
    given = {cell.name.split("-")[0]: cell.items for cell in cells}
    assert given == {"td3": "given", "farzi": "given", "random": "random", "longest": "random"}
    assert len([cell for cell in cells if cell.place.dataset == BEAUTY and cell.name.startswith("td3")]) == 3
    assert {cell.recipe for cell in cells} == {"parity"}
