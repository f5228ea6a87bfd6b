"""FOSTER's table 3 and figures: what each of its parts does, one at a time, on Games.

    make results/foster_ablation.json

All rows begin at one setting (``base``, 20 sequences of 20 items) and share the teachers of
``make results/foster.json``. Student and rows move faster than there, the rows ten times, in 300 steps: at the paper's
step sizes the rows hardly move, and nothing could be told apart. Layers are compared on the users and items of Games
with ten events each, because only there an encoder can be trained on two cores: in its last layer, in all layers, and
not at all; fewer items are sampled and fewer steps taken, for all three alike.
"""

from collections.abc import Iterator, Sequence
from typing import Any

from recdistill.distill.foster import FOSTER
from recipes.cells import Recipe
from recipes.collect import Row, body_of, rows_of
from recipes.datasets import Budget
from recipes.foster import start, student_of
from recipes.jobs import Scored, Teacher, seed_by_seed
from recipes.places import Place
from recipes.plans import Method
from recipes.text_datasets import DENSE, GAMES, LENGTH, foster

SEEDS = (0, 1, 2)
BUDGET = (20, LENGTH)
OPTIONS: dict[str, tuple[Any, ...]] = {
    "items": ("kmeans", "all"),
    "regulariser_weight": (0.0, 0.01, 1.0),
    "regulariser": ("pull",),
    "feature_weight": (0.0,),
    "reset": ("random", "none"),
    "num_candidates": (64, 128, 256, 1024, 2048),
    "inner_steps": (1, 5, 20),
    "barrier": ("value",),
    "blockwise": (True,),
    "outer_learning_rate": (1e-3,),
    "copy_learning_rate": (1e-3,),
}
"""Values beside those of the base: sampled, .1, align, 1, trajectory, 512, 10, gradient, one for both, .01, 1e-4."""
ROWS = (5, 10, 40)
"""Sequences beside the base's 20."""


def moving(label: str, budget: Budget = BUDGET, **options: Any) -> Method:
    """Return FOSTER at step sizes at which its rows move."""
    rates = {"inner_learning_rate": 1e-3, "copy_learning_rate": 1e-4, "outer_learning_rate": 1e-2}
    return Method(foster(budget, **{"epochs": 3, **rates, **options}), label)


def few_steps(epochs: int) -> FOSTER:
    """Return FOSTER with few steps over few items."""
    few: dict[str, Any] = {"steps_per_epoch": 50, "inner_steps": 5, "num_candidates": 64, "outer_batch_size": 16}
    return foster(BUDGET, epochs=epochs, reset_every=25, judge_steps=100, **few)


def option_plans() -> Iterator[tuple[str, Method]]:
    """Yield every variant by what it is called."""
    yield "base", moving("moving")
    yield "before the first step", start(BUDGET)
    yield "bi-level", moving("moving-bilevel", gradient="unroll", window=10, max_inner_steps=20)
    for option, values in OPTIONS.items():
        for value in values:
            yield f"{option} {value}", moving(f"{option}-{value}", **{option: value})
    for count in ROWS:
        yield f"sequences {count}", moving("moving", (count, LENGTH))


def option_cells(place: Place) -> list[Scored]:
    """Return the variants on Games."""
    return [student_of(place, plan) for _, plan in option_plans()]


def layer_cells(place: Place) -> list[Scored]:
    """Return teacher, rows before the first step, and FOSTER on the dense part."""
    plans = (Method(few_steps(0), "start"), Method(few_steps(2)))
    return [Teacher(place), *(student_of(place, plan) for plan in plans)]


def cells(seeds: Sequence[int]) -> list[Scored]:
    """Return all cells: the options seed by seed, then the layers, which cost most."""
    dense = [(dataset, LENGTH) for dataset in DENSE]
    return seed_by_seed(seeds, [(GAMES, LENGTH)], option_cells) + seed_by_seed(seeds, dense, layer_cells)


def variants(place: Place) -> dict[str, str]:
    """Return what every row of the options is called."""
    return {student_of(place, plan).row: name for name, plan in option_plans()}


def body(made: list[Scored]) -> dict[str, Any]:
    """Return the result; ``variant`` names what a row has of FOSTER."""
    named = variants(Place(GAMES, LENGTH, SEEDS[0]))
    rows: list[Row] = [row | {"variant": named.get(row["name"], "")} for row in rows_of(made, ("full",))]
    return body_of(made, rows, [])


RECIPE = Recipe("foster_ablation", SEEDS, cells, body)
