"""A text summary trains other models: rows distilled with one sequence model, read by others.

    make results/foster_transfer.json

Students have another sequence model over the same texts (``text_gru4rec``, ``text_narm``); on the dense part of Games
also low-rank adapters in the last layer of the encoder (``text_lora``), as the paper adapts a larger language model.
Each stands beside its own score on all data, on random rows, and on FOSTER's rows before the first step.
"""

from collections.abc import Iterator, Sequence
from typing import Any

from recipes.cells import Recipe, full, selector, student
from recipes.collect import body_of, by_row, comparison, rows_of
from recipes.foster import start
from recipes.foster_ablation import few_steps
from recipes.jobs import Scored, seed_by_seed
from recipes.places import Place
from recipes.plans import Method, Plan
from recipes.text_datasets import DENSE, GAMES, LENGTH, foster

SEEDS = (0, 1, 2)
BUDGET = (20, LENGTH)
MODELS = {GAMES.name: ("text_gru4rec", "text_narm"), DENSE[0].name: ("text_lora",)}
"""Students of each dataset; the first layer setting of the dense part keeps the encoder as it is."""


def plans(place: Place) -> list[Plan]:
    """Return what is trained on beside all data."""
    dense = place.dataset.name == DENSE[0].name
    learnt = [Method(few_steps(0), "start"), Method(few_steps(2))] if dense else [start(BUDGET), Method(foster(BUDGET))]
    return [Method(selector("random", BUDGET)), *learnt]


def pairs(place: Place) -> Iterator[tuple[Scored, Scored]]:
    """Yield every student of rows beside the same model on all data."""
    for model in MODELS[place.dataset.name]:
        whole = full(place, "windows", model)
        for plan in plans(place):
            yield student(place, plan, "random", "judging", model), whole


def cells_of(place: Place) -> list[Scored]:
    """Return all cells of a place."""
    return list({cell.key: cell for pair in pairs(place) for cell in pair}.values())


def cells(seeds: Sequence[int]) -> list[Scored]:
    """Return all cells."""
    return seed_by_seed(seeds, [(GAMES, LENGTH), (DENSE[0], LENGTH)], cells_of)


def body(made: list[Scored]) -> dict[str, Any]:
    """Return the result: scores, and each as a share of all data."""
    groups = by_row(made)
    places = [Place(dataset, LENGTH, SEEDS[0]) for dataset in (GAMES, DENSE[0])]
    found = [
        comparison(groups[part.row], groups[whole.row], metric="HR@10")
        for place in places
        for part, whole in pairs(place)
        if {part.row, whole.row} <= groups.keys()
    ]
    return body_of(made, rows_of(made, ("full",)), [], ratios=[entry for entry in found if entry is not None])


RECIPE = Recipe("foster_transfer", SEEDS, cells, body)
