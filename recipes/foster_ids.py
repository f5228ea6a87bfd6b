"""FOSTER's optimiser on a model of item numbers: the fast way to what TD3 learns, on ML-100k.

    make results/foster_ids.json

As many rows as TD3's main budget, the same teacher, the same students. Three prices: all items in every step, which the
sum over tiles allows; a fresh sample of 512, as the paper has it; and a sample of 128.
"""

from collections.abc import Sequence
from typing import Any

from recdistill.distill.foster import FOSTER
from recdistill.study.students import ItemTable
from recipes.cells import Recipe, selector, student
from recipes.collect import body_of, by_row, comparisons, rows_of
from recipes.datasets import ML_100K
from recipes.jobs import Scored, Teacher, seed_by_seed
from recipes.places import Place
from recipes.plans import Method

SEEDS = (0, 1, 2)
BUDGET = ML_100K.main
TABLES: tuple[ItemTable, ...] = ("random", "given")
SAMPLES = {"all": ("all", 512), "512": ("sampled", 512), "128": ("sampled", 128)}
"""Items of a step, by what they are called: how they are chosen, and how many."""


def fast(name: str) -> Method:
    """Return FOSTER on item numbers, at larger steps than for a pretrained encoder."""
    items, count = SAMPLES[name]
    rate = 3e-3
    settings: dict[str, Any] = {"inner_learning_rate": rate, "judge_learning_rate": rate, "outer_learning_rate": 0.03}
    method = FOSTER(
        num_rows=BUDGET[0],
        length=BUDGET[1],
        rank=ML_100K.rank,
        items=items,
        num_candidates=count,
        **settings,
    )
    return Method(method, f"{name}-items")


def plans() -> dict[str, Method]:
    """Return everything that is trained on, by what it is called."""
    made = {f"FOSTER, {name} items": fast(name) for name in SAMPLES}
    made |= {"TD3": Method(ML_100K.td3(BUDGET))}
    return made | {name: Method(selector(name, BUDGET)) for name in ("random_soft", "random")}


def cells_of(place: Place) -> list[Scored]:
    """Return all cells of a place."""
    made: list[Scored] = [Teacher(place)]
    return made + [student(place, plan, items, "judging") for plan in plans().values() for items in TABLES]


def cells(seeds: Sequence[int]) -> list[Scored]:
    """Return all cells."""
    return seed_by_seed(seeds, [(ML_100K, BUDGET[1])], cells_of)


def body(made: list[Scored]) -> dict[str, Any]:
    """Return the result: scores, what an artifact cost, and each FOSTER beside TD3."""
    place, groups = Place(ML_100K, BUDGET[1], SEEDS[0]), by_row(made)
    named: dict[str, str] = {}
    pairs: list[tuple[list[Scored], list[Scored]]] = []
    for items in TABLES:
        row_of = {name: student(place, plan, items, "judging").row for name, plan in plans().items()}
        named |= {row: name for name, row in row_of.items()}
        pairs += [(groups[row_of[f"FOSTER, {name} items"]], groups[row_of["TD3"]]) for name in SAMPLES]
        pairs.append((groups[row_of["FOSTER, all items"]], groups[row_of["FOSTER, 512 items"]]))
    rows = [row | {"variant": named.get(row["name"], "full")} for row in rows_of(made, ("full",))]
    return body_of(made, rows, [], comparisons=comparisons(pairs, metric="NDCG@10"))


RECIPE = Recipe("foster_ids", SEEDS, cells, body)
