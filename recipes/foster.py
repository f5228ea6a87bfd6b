"""FOSTER's table 2: text models trained on all data, on coresets, on bi-level and on first-order summaries.

    make results/foster.json

Full ranking, one recipe for every student, item vectors from texts alone. ``foster`` with the label ``bilevel`` is the
gradient of TD3 on the same model and the same sampled items. Beside the paper's rows stand random rows with the
teacher's soft labels: as many rows, and as many bytes as FOSTER adds to the item factor. The published figures are of
other crops of the data and of a larger encoder, so that only ratios compare: those to full data.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

from recdistill.evaluation.metrics import per_case
from recdistill.evaluation.statistics import estimate
from recdistill.rng import Streams
from recipes.cells import Recipe, full, selector, student
from recipes.collect import Row, body_of, by_row, comparisons, find, finished, rounded, rows_of
from recipes.datasets import Budget
from recipes.jobs import Scored, Teacher, seed_by_seed
from recipes.places import Place
from recipes.plans import EqualBytes, Method, Plan
from recipes.text_datasets import GAMES, LENGTH, TEXT_DATASETS, foster

SEEDS = (0, 1, 2, 3, 4)
SELECTORS = ("random", "k_center", "dealrec", "goracs", "random_soft")
RATIO = 1.10
"""Recall@10 of FOSTER over full data on Games, as published: .0386 / .0350."""


def bilevel(budget: Budget) -> Method:
    """Return TD3's gradient on the text model."""
    return Method(foster(budget, gradient="unroll"), "bilevel")


def plans(budget: Budget) -> list[Plan]:
    """Return everything that is trained on at a budget, FOSTER first."""
    first = Method(foster(budget))
    made: list[Plan] = [first, *(Method(selector(name, budget)) for name in SELECTORS), bilevel(budget)]
    return [*made, *(EqualBytes(control, first, LENGTH) for control in ("random_soft", "random"))]


def cells_of(place: Place) -> list[Scored]:
    """Return all cells of a place."""
    made: list[Scored] = [Teacher(place), full(place, "judging", "text")]
    return made + [
        student(place, plan, "random", "judging", "text") for budget in place.dataset.budgets for plan in plans(budget)
    ]


def cells(seeds: Sequence[int]) -> list[Scored]:
    """Return all cells, seed by seed, the main budget of every dataset first."""
    return seed_by_seed(seeds, [(dataset, LENGTH) for dataset in TEXT_DATASETS], cells_of)


def pairs(place: Place) -> list[tuple[str, str]]:
    """Return the rows that are compared: FOSTER with everything at its budget, and with all data."""
    found = []
    for budget in place.dataset.budgets:
        first, *others = (student(place, plan, "random", "judging", "text").row for plan in plans(budget))
        found += [(first, other) for other in (Teacher(place).row, *others)]
    return found


def cold(group: Sequence[Scored], metric: str = "HR@10") -> dict[str, Any] | None:
    """Return a metric over the test events whose item occurs in no training event, mean and interval over seeds."""
    there = finished(group)
    if not there:
        return None
    place = there[0].place
    if not (place.dataset.folder / "prepared").exists():
        return None
    cases, counts = place.test(), place.train().histories.train_counts(place.prepared().num_items)
    unseen = counts[cases.targets(np.arange(len(cases))).numpy()] == 0
    if not unseen.any():
        return None
    values = [float(per_case(cell.ranks("full"))[metric].numpy()[unseen].mean()) for cell in there]
    about = {"name": there[0].row, "metric": metric, "events": int(unseen.sum()), "values": rounded(values)}
    found = estimate(values, Streams(0).numpy("cold"))
    return about | rounded({"mean": found.mean, "low": found.low, "high": found.high})


def targets(rows: list[Row]) -> list[dict[str, Any]]:
    """Return FOSTER's share of full data on Games beside the published one."""
    mine = find(rows, dataset=GAMES.name, method="foster", budget=f"{GAMES.main[0]}x{LENGTH}", label="")
    whole = find(rows, dataset=GAMES.name, method="full", recipe="windows")
    if mine is None or whole is None:
        return []
    ratio = mine["metrics"]["HR@10"]["mean"] / whole["metrics"]["HR@10"]["mean"]
    what = "R@10 of foster over full data, games (published on another crop)"
    return [{"what": what, "published": RATIO, "measured": round(ratio, 3), "met": ratio >= RATIO}]


def body(made: list[Scored]) -> dict[str, Any]:
    """Return the result."""
    groups, rows = by_row(made), rows_of(made, ("full",))
    compared = []
    for dataset in TEXT_DATASETS:
        place = Place(dataset, LENGTH, SEEDS[0])
        compared += [
            (groups[first], groups[second]) for first, second in pairs(place) if {first, second} <= groups.keys()
        ]
    unseen = [found for group in groups.values() if (found := cold(group)) is not None]
    return body_of(made, rows, targets(rows), comparisons=comparisons(compared, metric="HR@10"), cold_items=unseen)


RECIPE = Recipe("foster", SEEDS, cells, body)
