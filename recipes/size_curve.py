"""Scores at nested budgets, ML-100k.

    make results/size_curve.json

The own method learns 200 rows once, and its first 10, 20, 50 and 100 are the smaller budgets. Selectors choose anew for
every budget.
"""

from collections.abc import Sequence
from typing import Any

from recdistill.study.students import ItemTable
from recipes.cells import Recipe, full, refined, selector, student
from recipes.collect import body_of, rows_of
from recipes.datasets import ML_100K
from recipes.jobs import Scored, seed_by_seed
from recipes.places import Place
from recipes.plans import Method, Plan, Prefix

SEEDS = (0, 1, 2)
SIZES = (10, 20, 50, 100, 200)
SELECTORS = ("random_soft", "random", "k_center", "herding")
ITEMS: tuple[ItemTable, ...] = ("random", "frozen")


def plans(size: int) -> list[Plan]:
    """Return the own method and the selectors at one budget."""
    made: list[Plan] = [Method(selector(name, (size, 50))) for name in SELECTORS]
    whole = Method(refined((SIZES[-1], 50)))
    return [whole if size == SIZES[-1] else Prefix(whole, size), *made]


def cells(seeds: Sequence[int]) -> list[Scored]:
    """Return all cells."""

    def of_place(place: Place) -> list[Scored]:
        made: list[Scored] = [full(place, "judging")]
        for size in SIZES:
            made += [student(place, plan, items, "judging") for plan in plans(size) for items in ITEMS]
        return made

    return seed_by_seed(seeds, ((ML_100K, 50),), of_place)


def body(made: list[Scored]) -> dict[str, Any]:
    """Return the result."""
    return body_of(made, rows_of(made, ("full",)), [])


RECIPE = Recipe("size_curve", SEEDS, cells, body)
