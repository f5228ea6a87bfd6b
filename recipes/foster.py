"""FOSTER's table 2: text models trained on all data, on coresets, on bi-level and on first-order summaries.

    make results/foster.json

Full ranking, one recipe for every student, item vectors from texts alone. ``foster`` with the label ``bilevel`` is the
gradient of TD3 on the same model and the same sampled items. Beside the paper's rows stand random rows with the
teacher's soft labels: as many rows, and as many bytes as FOSTER adds to the item factor. And the floor: a student that
has learnt nothing. The published figures are of other crops of the data and of an encoder that is trained, so that only
shares of full data compare.
"""

from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np

from recdistill.evaluation.metrics import per_case
from recdistill.evaluation.statistics import estimate
from recdistill.rng import Streams
from recipes.cells import Recipe, selector, student
from recipes.collect import Row, body_of, by_row, comparison, comparisons, find, finished, rounded, rows_of
from recipes.datasets import Budget, Dataset
from recipes.foster_published import share
from recipes.jobs import Scored, Student, Teacher, seed_by_seed
from recipes.places import Place
from recipes.plans import EqualBytes, Method, Plan
from recipes.text_datasets import BINARY, GAMES, LENGTH, SOFTMAX, foster

SEEDS = (0, 1, 2, 3, 4)
CONTROLS = ("untrained", "random", "k_center", "random_soft", "dealrec", "goracs")
SLOW = ("dealrec", "goracs", "bilevel")
"""Artifacts that cost more than all others together; they come last."""
DATASETS = (*BINARY, *SOFTMAX)
RATIO = 1.10
"""Recall@10 of FOSTER over full data on Games, as published: .0386 / .0350."""


def start(budget: Budget) -> Method:
    """Return FOSTER's rows before the first step: distributions that are almost uniform."""
    return Method(foster(budget, epochs=0), "start")


def bilevel(budget: Budget) -> Method:
    """Return TD3's gradient on the text model; shorter unrolls than by default, for time."""
    return Method(foster(budget, gradient="unroll", window=10, max_inner_steps=20), "bilevel")


def plans(dataset: Dataset, budget: Budget) -> list[Plan]:
    """Return everything that is trained on at a budget: controls, FOSTER, what is as large as it, the bi-level rows."""
    first = Method(foster(budget))
    made: list[Plan] = [Method(selector(name, (0, 0) if name == "untrained" else budget)) for name in CONTROLS]
    made += [start(budget), first, *(EqualBytes(control, first, LENGTH) for control in ("random_soft", "random"))]
    return [*made, bilevel(budget)] if budget == dataset.main else made


def student_of(place: Place, plan: Plan) -> Student:
    """Return the student of a plan."""
    return student(place, plan, "random", "judging", "text")


def cells_of(place: Place, *, slow: bool) -> list[Scored]:
    """Return the cells of a place: those that cost much, or all others."""
    found: dict[str, Scored] = {} if slow else {"": Teacher(place)}
    for budget in place.dataset.budgets:
        for plan in plans(place.dataset, budget):
            cell = student_of(place, plan)
            if (what(plan) in SLOW) == slow:
                found.setdefault(cell.key, cell)
    return list(found.values())


def what(plan: Plan) -> str:
    """Return a plan without its budget."""
    return (plan.label or plan.distiller.method) if isinstance(plan, Method) else plan.name


def cells(seeds: Sequence[int]) -> list[Scored]:
    """Return all cells, seed by seed, the costly ones of all seeds last."""
    places = [(dataset, LENGTH) for dataset in DATASETS]
    return [cell for slow in (False, True) for cell in seed_by_seed(seeds, places, partial(cells_of, slow=slow))]


def pairs(place: Place) -> list[tuple[str, str]]:
    """Return the rows that are compared: FOSTER with everything at its budget, and with all data."""
    found = []
    for budget in place.dataset.budgets:
        first = student_of(place, Method(foster(budget))).row
        others = [student_of(place, plan).row for plan in plans(place.dataset, budget)]
        found += [(first, other) for other in (Teacher(place).row, *others) if other != first]
    return found


def shares(made: list[Scored]) -> list[dict[str, Any]]:
    """Return every row beside full data of the same seeds, and the published share of full data."""
    groups, found = by_row(made), []
    for name, group in groups.items():
        place = group[0].place
        entry = comparison(group, groups[Teacher(place).row], metric="HR@10")
        if entry is not None and name != Teacher(place).row:
            found.append({"name": name, "ratio": entry["ratio"], "published": published_share(group[0])})
    return found


def published_share(cell: Scored) -> float | None:
    """Return the R@10 of a row over that of full data in the paper; ``None`` for rows that it has not."""
    dataset = cell.place.dataset
    plan = cell.plan if isinstance(cell, Student) else None
    if dataset not in BINARY or not isinstance(plan, Method) or plan.distiller.num_rows != dataset.main[0]:
        return None
    found = share(dataset.published, what(plan))
    return None if found is None else round(found, 3)


def unseen_events(place: Place) -> np.ndarray:
    """Return which test events have an item that no training event has."""
    cases, counts = place.test(), place.train().histories.train_counts(place.prepared().num_items)
    found: np.ndarray = counts[cases.targets(np.arange(len(cases))).numpy()] == 0
    return found


def cold(groups: Sequence[Sequence[Scored]], metric: str = "HR@10") -> list[dict[str, Any]]:
    """Return a metric over those events for the rows of one dataset, mean and interval over seeds."""
    finished_groups = [there for group in groups if (there := finished(group))]
    if not finished_groups:
        return []
    place = finished_groups[0][0].place
    if not (place.dataset.folder / "prepared").exists():
        return []
    unseen = unseen_events(place)
    if not unseen.any():
        return []
    entries = []
    for there in finished_groups:
        values = [float(per_case(cell.ranks("full"))[metric].numpy()[unseen].mean()) for cell in there]
        about = {"name": there[0].row, "metric": metric, "events": int(unseen.sum()), "values": rounded(values)}
        found = estimate(values, Streams(0).numpy("cold"))
        entries.append(about | rounded({"mean": found.mean, "low": found.low, "high": found.high}))
    return entries


def targets(rows: list[Row]) -> list[dict[str, Any]]:
    """Return FOSTER's share of full data on Games beside the published one."""
    mine = find(rows, dataset=GAMES.name, method="foster", budget=f"{GAMES.main[0]}x{LENGTH}", label="")
    whole = find(rows, dataset=GAMES.name, method="full")
    if mine is None or whole is None:
        return []
    ratio = mine["metrics"]["HR@10"]["mean"] / whole["metrics"]["HR@10"]["mean"]
    aim = "R@10 of foster over full data, games (published on another crop)"
    return [{"what": aim, "published": RATIO, "measured": round(ratio, 3), "met": ratio >= RATIO}]


def body(made: list[Scored]) -> dict[str, Any]:
    """Return the result."""
    groups, rows = by_row(made), rows_of(made, ("full",))
    compared, unseen = [], []
    for dataset in DATASETS:
        place = Place(dataset, LENGTH, SEEDS[0])
        compared += [
            (groups[first], groups[second]) for first, second in pairs(place) if {first, second} <= groups.keys()
        ]
        unseen += cold([group for group in groups.values() if group[0].place.dataset == dataset])
    more = {"comparisons": comparisons(compared, metric="HR@10"), "shares": shares(made), "cold_items": unseen}
    return body_of(made, rows, targets(rows), **more)


RECIPE = Recipe("foster", SEEDS, cells, body)
