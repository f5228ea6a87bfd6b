"""TD3's table 6, and what else its recipe consists of.

    make results/ablation.json

*Losses*: feature alignment and augmented training, each on and off, ML-100k 50x50, full length. *Options*: start of the
students, window, longest unroll and rank, one at a time, at 30x50 and with ten passes over the data in place of thirty;
the row ``base`` has ten passes too, so that only the option differs.
"""

from collections.abc import Iterator, Sequence
from typing import Any

from recdistill.distill.td3 import TD3
from recipes.cells import Recipe, student
from recipes.collect import body_of, find, rows_of
from recipes.datasets import ML_100K
from recipes.jobs import Scored, seed_by_seed
from recipes.parity import target
from recipes.places import Place
from recipes.plans import Method
from recipes.published import ABLATION, figure, table

SEEDS = (0, 1, 2)
LOSSES = ((1, 1), (0, 0), (1, 0), (0, 1))
"""Feature alignment and augmented training."""
PASSES = 10
OPTIONS: dict[str, tuple[Any, ...]] = {
    "start": ("random", "fixed"),
    "window": (1, 10, 20, 80),
    "max_inner_steps": (40, 100, 400),
    "rank": (2, 4, 16, 32),
}
"""Values beside those of the base: a pool of early teachers, 40, 200 and 8."""


def loss_plan(alignment: int, augmented: int) -> Method:
    """Return TD3 50x50 with some of its losses."""
    objective = "last_and_middle" if augmented else "last"
    method = ML_100K.td3((50, 50), feature_weight=float(alignment), inner_objective=objective)
    return Method(method, "" if alignment and augmented else f"alignment{alignment}-augmented{augmented}")


def option_plans() -> Iterator[tuple[str, Method]]:
    """Yield every variant of TD3 30x50 by its name."""
    base: dict[str, Any] = {"epochs": PASSES}
    yield "base", Method(ML_100K.td3((30, 50), **base), "short")
    for option, values in OPTIONS.items():
        for value in values:
            made: TD3 = ML_100K.td3((30, 50), **base, **{option: value})
            yield f"{option} {value}", Method(made, f"short-{option}-{value}")


def cells(seeds: Sequence[int]) -> list[Scored]:
    """Return all cells, those of the paper's table first."""

    def losses(place: Place) -> list[Scored]:
        return [student(place, loss_plan(*pair), "given", "parity") for pair in LOSSES]

    def options(place: Place) -> list[Scored]:
        return [student(place, plan, "given", "parity") for _, plan in option_plans()]

    place = ((ML_100K, 50),)
    return seed_by_seed(seeds, place, losses) + seed_by_seed(seeds, place, options)


def body(made: list[Scored]) -> dict[str, Any]:
    """Return the result; ``variant`` names what a row has of TD3."""
    place = Place(ML_100K, 50, SEEDS[0])
    variants = {student(place, loss_plan(*pair), "given", "parity").row: _words(*pair) for pair in LOSSES}
    variants |= {student(place, plan, "given", "parity").row: name for name, plan in option_plans()}
    rows = [row | {"variant": variants[row["name"]]} for row in rows_of(made)]
    targets = []
    for printed in table(ABLATION):
        variant = _words(int(printed["feature_alignment"]), int(printed["augmented_training"]))
        row = find(rows, variant=variant, ranking="uni100")
        for metric in ("NDCG@5", "NDCG@10", "MRR@5", "MRR@10"):
            wanted = figure(printed[metric])
            if row is not None and wanted is not None:
                targets.append(target(row, metric, wanted, 6) | {"variant": variant})
    return body_of(made, rows, targets)


def _words(alignment: int, augmented: int) -> str:
    said = {0: "off", 1: "on"}
    return f"feature alignment {said[alignment]}, augmented training {said[augmented]}"


RECIPE = Recipe("ablation", SEEDS, cells, body)
