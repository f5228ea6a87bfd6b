"""Which filter of the Magazine ratings comes nearest to the dataset of TD3's paper.

    make results/magazine_filters.json

The paper states 408 users and 758 items, padding included, and 2,700 interactions, 6.6 a user. Its code reads another
edition of the data and drops items below 3 rows and then users below 5, once. Nothing here gives these counts exactly;
the distance is the largest of the absolute logarithms of the three ratios of users, items and rows per user.
"""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from itertools import product
from math import exp, log
from typing import Any

from recdistill.data.log import InteractionLog
from recdistill.data.prepared import PrepareSpec
from recdistill.data.readers import read_log
from recdistill.errors import DataError
from recipes.cells import Recipe
from recipes.datasets import MAGAZINE
from recipes.jobs import Scored
from recipes.record import data_folder

USERS, ITEMS, ROWS = 407, 757, 2700
SHOWN = 20
CLOSE = 1.05
YEARS = (2016, 2017, 2018)
"""The paper names no date; tried is also what came before each of these."""


def specs() -> Iterator[PrepareSpec]:
    """Yield every filter that is tried."""
    ratings, repeated = (None, 2, 3, 4, 5), ("keep", "drop")
    orders = ("items-then-users", "users-then-items")
    for rating, repeats, item, user, order in product(ratings, repeated, range(1, 7), (4, 5, 6), orders):
        yield PrepareSpec(min_rating=rating, repeats=repeats, min_item=item, min_user=user, min_order=order)
    for rating, repeats, user, item in product(ratings, repeated, range(2, 6), range(1, 6)):
        yield PrepareSpec(min_rating=rating, repeats=repeats, user_k=user, item_k=item)


def dated_specs() -> Iterator[PrepareSpec]:
    """Yield the filters that are also tried with a last date: those near the one of TD3's code."""
    for rating, repeats, item in product((None, 3, 4), ("keep", "drop"), (1, 2, 3)):
        yield PrepareSpec(min_rating=rating, repeats=repeats, min_item=item, min_user=5)


def tried(raw: InteractionLog, spec: PrepareSpec, before: int | None) -> dict[str, Any] | None:
    """Return the counts that a filter leaves, or ``None`` where it leaves nothing."""
    try:
        kept = spec.filtered(raw)
    except DataError:
        return None
    counts = {"users": kept.num_users, "items": kept.num_items, "interactions": kept.num_interactions}
    per_user = kept.num_interactions / kept.num_users
    ratios = (kept.num_users / USERS, kept.num_items / ITEMS, per_user / (ROWS / USERS))
    distance = max(abs(log(ratio)) for ratio in ratios)
    defaults = PrepareSpec().as_dict()
    changed = {name: value for name, value in spec.as_dict().items() if value != defaults[name]}
    return {"filter": changed, "before": before} | counts | {"distance": round(distance, 4)}


def no_cells(seeds: Sequence[int]) -> list[Scored]:
    """Return nothing: no model is trained."""
    del seeds
    return []


def body(made: list[Scored]) -> dict[str, Any]:
    """Return the filters, nearest first, and the place of the one that the experiments use."""
    raw = read_log(data_folder(MAGAZINE.source), duplicates="keep")
    found = [entry for spec in specs() if (entry := tried(raw, spec, None)) is not None]
    for year in YEARS:
        before = until(raw, year)
        found += [entry for spec in dated_specs() if (entry := tried(before, spec, year)) is not None]
    used = tried(raw, replace(MAGAZINE.spec, name=None, duplicates="error"), None)
    if used is None:
        raise DataError("the filter of the experiments leaves nothing", fix="check the raw file", path=MAGAZINE.source)
    near = sorted(found, key=lambda entry: entry["distance"])
    within = [entry for entry in near if entry["before"] is None]
    return {
        "dataset": {"name": "magazine", "train_bytes": None, "hash": raw.content_hash}
        | {name: used[name] for name in ("users", "items", "interactions")},
        "published": {"users": USERS, "items": ITEMS, "interactions": ROWS},
        "tried": len(found),
        "used": used | {"place_without_dates": 1 + sum(entry["distance"] < used["distance"] for entry in within)},
        "filters": within[:SHOWN],
        "filters_with_dates": [entry for entry in near if entry["before"] is not None][:SHOWN],
        "rows": [],
        "targets": [
            {
                "what": "largest ratio of a count to the published one, at most",
                "published": CLOSE,
                "measured": round(exp(used["distance"]), 4),
                "met": exp(used["distance"]) <= CLOSE,
            }
        ],
    }


def until(raw: InteractionLog, year: int) -> InteractionLog:
    """Return the rows before the first of January of a year."""
    return raw.where((raw.frame["timestamp"] < datetime(year, 1, 1, tzinfo=UTC).timestamp()).to_numpy())


RECIPE = Recipe("magazine_filters", (), no_cells, body)
