"""TD3's table 4: a summary distilled with SASRec trains other models; each beside its own score on all data.

    make results/transfer.json

Two recipes. *parity*: students are trained as TD3's author trains them, on all data as the teacher is. *judging*: the
library's default, the same for every model and for all data. All students are as wide as the teacher, see
``OTHERS`` in ``recipes/datasets.py``.
"""

from collections.abc import Sequence
from itertools import product
from typing import Any

from recdistill.study.students import ItemTable
from recipes.cells import Recipe, full, student
from recipes.collect import body_of, by_row, comparison, rows_of
from recipes.datasets import BEAUTY, ML_100K, Budget, Dataset
from recipes.jobs import Scored, Teacher, seed_by_seed
from recipes.places import Place
from recipes.published import TRANSFER, table

SEEDS = (0, 1, 2)
MODELS = ("sasrec", "narm", "gru4rec", "bert4rec")
TABLES: tuple[ItemTable, ...] = ("given", "random")
BUDGETS: tuple[tuple[Dataset, Budget], ...] = ((ML_100K, (30, 50)), (BEAUTY, (50, 20)))
"""The second is the paper's, on the dataset that takes the place of its own."""
FULL = {"parity": "prefixes", "judging": "judging"}
"""How a model is trained on all data, by the recipe of the summary's students."""


def full_cell(place: Place, recipe: str, model: str) -> Scored:
    """Return a model on all data; SASRec on prefixes is the teacher itself."""
    made = FULL[recipe]
    return Teacher(place) if (model, made) == ("sasrec", "prefixes") else full(place, made, model)


def summary_cell(place: Place, recipe: str, model: str, items: ItemTable) -> Scored:
    """Return a student of the summary."""
    budget = next(budget for dataset, budget in BUDGETS if dataset.name == place.dataset.name)
    return student(place, place.dataset.td3(budget), items, recipe, model)


def cells(seeds: Sequence[int]) -> list[Scored]:
    """Return all cells, those of the paper's protocol first."""
    places = [(dataset, length) for dataset, (_, length) in BUDGETS]
    made: list[Scored] = []
    for recipe in FULL:

        def of_place(place: Place, recipe: str = recipe) -> list[Scored]:
            summaries = [summary_cell(place, recipe, model, items) for model in MODELS for items in TABLES]
            return summaries + [full_cell(place, recipe, model) for model in MODELS]

        made += seed_by_seed(seeds, places, of_place)
    return made


def ratios(made: list[Scored]) -> list[dict[str, Any]]:
    """Return the score of each student over that of the same model on all data."""
    found, rows = [], by_row(made)
    for (dataset, budget), recipe, model, items in product(BUDGETS, FULL, MODELS, TABLES):
        place = Place(dataset, budget[1], SEEDS[0])
        part, whole = rows[summary_cell(place, recipe, model, items).row], rows[full_cell(place, recipe, model).row]
        names = {"dataset": dataset.name, "model": model, "items": items, "recipe": recipe}
        for ranking, metric in (("uni100", "NDCG@10"), ("uni100", "HR@10"), ("full", "NDCG@10")):
            entry = comparison(part, whole, metric=metric, protocol=ranking)
            if entry is not None:
                printed = published_ratio(model, metric) if (recipe, ranking) == ("parity", "uni100") else None
                found.append(names | entry | {"published_ratio": printed})
    return found


def published_ratio(model: str, metric: str) -> float:
    """Return the ratio that follows from the paper's table."""
    row = next(row for row in table(TRANSFER) if row["metric"] == metric)
    return round(float(row[model]) / float(row[f"{model}_full"]), 4)


def body(made: list[Scored]) -> dict[str, Any]:
    """Return the result."""
    return body_of(made, rows_of(made), [], ratios=ratios(made))


RECIPE = Recipe("transfer", SEEDS, cells, body)
