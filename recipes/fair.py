"""Every method and every control under one protocol: full ranking, one recipe, every item table for all.

    make results/fair.json

Five seeds, each with its own teacher, distillation, selections and students. The judging recipe is the library's
default training with early stopping on validation NDCG@10. Controls stand at equal rows, and random rows with and
without soft labels also at the bytes of each learned artifact.
"""

from collections.abc import Iterator, Sequence
from typing import Any

from recdistill.distill.base import Distiller
from recdistill.distill.refined import Refined
from recdistill.study.students import ItemTable
from recipes.cells import Recipe, farzi, full, refined, selector, student
from recipes.collect import body_of, by_row, comparisons, rows_of
from recipes.datasets import BEAUTY, MAGAZINE, ML_1M, ML_100K
from recipes.jobs import Scored, seed_by_seed
from recipes.places import Place
from recipes.plans import EqualBytes, Method, Plan

SEEDS = (0, 1, 2, 3, 4)
QUICK, SLOW = (ML_100K, MAGAZINE, BEAUTY), (ML_1M,)
ITEMS: tuple[ItemTable, ...] = ("random", "given", "frozen")
SELECTORS = ("random_soft", "random", "longest", "most_recent", "k_center", "herding", "el2n")


def learned(place: Place) -> list[Distiller]:
    """Return the methods that learn their rows."""
    dataset, budget = place.dataset, place.dataset.main
    return [dataset.td3(budget), refined(budget), farzi(dataset, budget)]


def controls(place: Place) -> list[Plan]:
    """Return everything that learns nothing: at equal rows, and at the bytes of each learned artifact.

    ``refined`` without an outer loop is among them: soft labels that several families agree on, as they begin.
    """
    names = [name for name in SELECTORS if place.dataset.clock or name != "most_recent"]
    made: list[Plan] = [Method(selector(name, place.dataset.main)) for name in names]
    made.insert(1, Method(refined(place.dataset.main, epochs=0), "labels"))
    for method in learned(place):
        made.append(EqualBytes("random", Method(method), place.length))
        if not isinstance(method, Refined):  # as large as random rows with soft labels by its nature
            made.append(EqualBytes("random_soft", Method(method), place.length))
    return made


def cells_of(place: Place) -> list[Scored]:
    """Return all cells of a place: full data, methods, controls, floors."""
    plans: list[Plan] = [*(Method(method) for method in learned(place)), *controls(place)]
    made: list[Scored] = [full(place, "judging")]
    made += [student(place, plan, items, "judging") for plan in plans for items in ITEMS]
    made.append(student(place, selector("popularity", (0, 0)), "random", "judging", "popularity"))
    made.append(student(place, selector("untrained", (0, 0)), "given", "judging"))
    return made


def cells(seeds: Sequence[int]) -> list[Scored]:
    """Return all cells."""
    waves = [[(dataset, dataset.main[1]) for dataset in wave] for wave in (QUICK, SLOW)]
    return [cell for wave in waves for cell in seed_by_seed(seeds, wave, cells_of)]


def pairs(place: Place) -> Iterator[tuple[str, str]]:
    """Yield the rows that are compared: each learned method with all data, with every control and with the others."""
    methods = [Method(method) for method in learned(place)]
    for index, method in enumerate(methods):
        for items in ITEMS:
            mine = student(place, method, items, "judging").row
            yield mine, full(place, "judging").row
            for other in (*controls(place), *methods[index + 1 :]):
                if not isinstance(other, EqualBytes) or other.like == method:
                    yield mine, student(place, other, items, "judging").row


def body(made: list[Scored]) -> dict[str, Any]:
    """Return the result."""
    rows = by_row(made)
    compared = []
    for dataset in (*QUICK, *SLOW):
        place = Place(dataset, dataset.main[1], SEEDS[0])
        compared += [(rows[first], rows[second]) for first, second in pairs(place) if {first, second} <= rows.keys()]
    return body_of(made, rows_of(made, ("full",)), [], comparisons=comparisons(compared))


RECIPE = Recipe("fair", SEEDS, cells, body)
