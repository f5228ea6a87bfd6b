"""TD3's tables 2 and 3, by its own protocol: 100 sampled items, its own student recipe, its own choice of item tables.

    make results/parity.json

TD3 and Farzi give their students the teacher's item table, Random and Longest start from a random one, as published. It
is no fair comparison and is not meant as one: ``fair`` is. Beauty takes the place of Epinions and is compared with no
published figure.
"""

from collections.abc import Sequence
from typing import Any

from recipes.cells import Recipe, farzi, selector, student
from recipes.collect import Row, body_of, rows_of
from recipes.datasets import BEAUTY, MAGAZINE, ML_1M, ML_100K, Dataset
from recipes.jobs import Scored, Teacher, seed_by_seed
from recipes.places import Place
from recipes.published import METRICS, Figure, matches, of_table_2, of_table_3

SEEDS = (0, 1, 2)
QUICK = ((ML_100K, 50), (MAGAZINE, 20), (BEAUTY, 30), (MAGAZINE, 15), (MAGAZINE, 10), (BEAUTY, 20), (BEAUTY, 50))
SLOW = ((ML_1M, 50), (ML_100K, 150), (ML_1M, 100))
"""Datasets and lengths; those that take hours come after all seeds of the others."""
COMPARABLE = (ML_100K.name, MAGAZINE.name, ML_1M.name)
"""Datasets whose published counterpart is the same, or, for Magazine, nearly the same."""


def cells_of(place: Place) -> list[Scored]:
    """Return the rows of both tables that have the length of a place."""
    dataset, length = place.dataset, place.length
    made: list[Scored] = [Teacher(place)]
    budgets = dict.fromkeys((*dataset.budgets, dataset.compared))
    made += [student(place, dataset.td3(budget), "given", "parity") for budget in budgets if budget[1] == length]
    if dataset.compared[1] == length:
        made.append(student(place, farzi(dataset, dataset.compared), "given", "parity"))
        for name in ("random", "longest"):
            made.append(student(place, selector(name, dataset.compared), "random", "parity"))
    return made


def cells(seeds: Sequence[int]) -> list[Scored]:
    """Return all cells."""
    return seed_by_seed(seeds, QUICK, cells_of) + seed_by_seed(seeds, SLOW, cells_of)


def targets(rows: list[Row]) -> list[dict[str, Any]]:
    """Return our figures beside the published ones."""
    made = []
    for row in rows:
        if row["dataset"] not in COMPARABLE or row["ranking"] != "uni100":
            continue
        for table, figures in published(row).items():
            made += [target(row, name, figures[name], table) for name in METRICS if name in figures]
    return made


def published(row: Row) -> dict[int, dict[str, Figure]]:
    """Return the published figures of a row, by table. Full data are compared at the length that the table is for."""
    dataset = next(one for one in (ML_100K, MAGAZINE, ML_1M) if one.name == row["dataset"])
    method, budget = row["method"], row["budget"]
    if method == "full":
        budget = text(dataset.compared) if row["length"] == dataset.compared[1] else ""
    found = {table: figures_of(table, dataset, method, budget) for table in (2, 3) if budget}
    return {table: figures for table, figures in found.items() if figures}


def figures_of(table: int, dataset: Dataset, method: str, budget: str) -> dict[str, Figure]:
    """Return the figures of a method in one of the two tables; empty where it is not there."""
    if table == 2:
        known = method in ("td3", "full")
        return of_table_2(dataset.published, method, "full" if method == "full" else budget) if known else {}
    return of_table_3(dataset.published, method, budget)


def text(budget: tuple[int, int]) -> str:
    """Return a budget as it is written."""
    return f"{budget[0]}x{budget[1]}"


def target(row: Row, metric: str, figure: Figure, table: int) -> dict[str, Any]:
    """Return one figure of ours beside the published one."""
    measured = row["metrics"][metric]
    met = matches(measured["values"], figure)
    side = "matches" if met else ("above" if measured["mean"] > figure.mean else "below")
    about = {"dataset": row["dataset"], "length": row["length"], "method": row["method"], "budget": row["budget"]}
    what = f"{metric} uni100, {row['method']} {row['budget']}, {row['dataset']} (table {table})"
    figures = {"published": round(figure.mean, 4), "published_std": round(figure.std, 4), "measured": measured["mean"]}
    return {"what": what, "metric": metric, "table": table} | about | figures | {"met": met, "verdict": side}


def body(made: list[Scored]) -> dict[str, Any]:
    """Return the result."""
    rows = rows_of(made)
    return body_of(made, rows, targets(rows))


RECIPE = Recipe("parity", SEEDS, cells, body)
