"""TD3's table 5: what distilling costs, and after how many trainings it has paid.

    make results/cost.json

Seconds of one process with one thread, while another such process may run beside it. Memory is the peak of that whole
process, Python and torch included; ``start_mb`` is what it held before the work. Only what the grid itself made in a
process of its own counts: artifacts and teachers that were taken over have no honest figures. Distilling includes
models of other families that a method trains for itself, and not the teacher, which every method needs.
"""

from collections.abc import Sequence
from statistics import mean
from typing import Any

from recdistill.storage import read_json
from recipes.cells import Recipe, farzi, refined, student
from recipes.collect import Row, body_of, rounded, rows_of
from recipes.datasets import BEAUTY, MAGAZINE, ML_1M, ML_100K, Dataset
from recipes.jobs import Scored, Student, Teacher, seed_by_seed
from recipes.places import Place
from recipes.published import COST, table

SEEDS = (0, 1, 2, 3, 4)
COMPARED = (ML_100K, MAGAZINE, BEAUTY, ML_1M)


def cells_of(place: Place) -> list[Scored]:
    """Return the training on all data, and on each summary."""
    dataset, budget = place.dataset, place.dataset.main
    made: list[Scored] = [Teacher(place)]
    made += [student(place, method, "given", "parity") for method in (dataset.td3(budget), farzi(dataset, budget))]
    return [*made, student(place, refined(budget), "random", "judging")]


def cells(seeds: Sequence[int]) -> list[Scored]:
    """Return all cells."""
    return seed_by_seed(seeds, [(dataset, dataset.main[1]) for dataset in COMPARED], cells_of)


def costs(made: list[Scored]) -> list[Row]:
    """Return one row per dataset and method over the seeds that were measured."""
    printed = {row["dataset"]: row for row in table(COST)}
    found = []
    for dataset in COMPARED:
        mine = [cell for cell in made if cell.place.dataset.name == dataset.name and cell.done()]
        full = _measured([cell for cell in mine if isinstance(cell, Teacher)])
        students: dict[str, list[Student]] = {}
        for cell in mine:
            if isinstance(cell, Student):
                students.setdefault(cell.cell()["method"], []).append(cell)
        for method, group in students.items():
            row = _row(group, full)
            if row is not None:
                told = _published(printed[dataset.published]) if method == "td3" and _same(dataset) else {}
                found.append({"dataset": dataset.name, "method": method} | rounded(row) | told)
    return found


def _row(group: list[Student], full: dict[str, float] | None) -> dict[str, Any] | None:
    made = [read_json(cell.artifact.path) for cell in group if cell.artifact is not None]
    made = [cost for cost in made if cost["measured"]]
    synthetic = _measured(group)
    if not made or synthetic is None or full is None:
        return None
    distill = mean(cost["seconds"]["distill"] + cost["seconds"]["peers"] for cost in made)
    saved = full["seconds"] - synthetic["seconds"]
    return {
        "budget": group[0].cell()["budget"],
        "seeds": len(made),
        "threads": made[0]["threads"],
        "distill_s": distill,
        "train_full_s": full["seconds"],
        "train_synthetic_s": synthetic["seconds"],
        "distill_mb": max(cost["peak_mb"] for cost in made),
        "train_full_mb": full["peak_mb"],
        "train_synthetic_mb": synthetic["peak_mb"],
        "start_mb": full["start_mb"],
        "break_even": distill / saved if saved > 0 else None,
    }


def _measured(group: Sequence[Scored]) -> dict[str, float] | None:
    """Return mean seconds and largest memory of the cells that were made in a process of their own."""
    cells = [cell for cell in (scored.cell() for scored in group) if cell["measured"]]
    if not cells:
        return None
    memory = {name: max(cell[name] for cell in cells) for name in ("start_mb", "peak_mb")}
    return {"seconds": mean(cell["seconds"]["train"] for cell in cells)} | memory


def _same(dataset: Dataset) -> bool:
    return dataset.published == dataset.name


def _published(printed: dict[str, str]) -> Row:
    figures = {name: float(value) for name, value in printed.items() if name != "dataset"}
    saved = figures["train_full_s"] - figures["train_synthetic_s"]
    return {"published": figures | {"break_even": round(figures["distill_s"] / saved, 2)}}


def body(made: list[Scored]) -> dict[str, Any]:
    """Return the result."""
    return body_of(made, rows_of(made, ("uni100",)), [], costs=costs(made))


RECIPE = Recipe("cost", SEEDS, cells, body)
