"""Cells as recipes ask for them: which method, which student, which training recipe by name."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Generic, TypeVar

from recdistill.distill import DISTILLERS
from recdistill.distill.base import Distiller
from recdistill.distill.bilevel_sequences import BilevelSequences
from recdistill.distill.farzi import Farzi
from recdistill.distill.refined import Refined
from recdistill.study.grid import Job
from recdistill.study.students import ItemTable
from recdistill.training.fit import TrainingRecipe
from recipes.datasets import OBJECTIVES, Budget, Dataset
from recipes.jobs import Student
from recipes.places import Place
from recipes.plans import Method, Plan
from recipes.zoo import architecture

Cell = TypeVar("Cell", bound=Job)


@dataclass(frozen=True)
class Recipe(Generic[Cell]):
    """An experiment; a cell is a job that ends in scores.

    Args:
        name: of its result.
        seeds: that it asks for.
        cells: what it needs for some seeds, most important first.
        body: its result, from the cells that are finished.
    """

    name: str
    seeds: tuple[int, ...]
    cells: Callable[[Sequence[int]], list[Cell]]
    body: Callable[[list[Cell]], dict[str, Any]]


def student(place: Place, plan: Plan | Distiller, items: ItemTable, recipe: str, model: str = "sasrec") -> Student:
    """Return a student of an artifact.

    Args:
        place: dataset, length and seed.
        plan: the artifact, or the method that makes it.
        items: its item table.
        recipe: ``judging`` or ``parity``.
        model: key of ``MODELS`` or of ``VARIANTS``.
    """
    made: Plan = Method(plan) if isinstance(plan, Distiller) else plan
    return Student(place, made, model, items, recipe, training(place, made, model, recipe))


def full(place: Place, recipe: str, model: str = "sasrec") -> Student:
    """Return a student of all data, trained by ``judging`` or on ``prefixes``."""
    dataset = place.dataset
    made = dataset.judging if recipe == "judging" else dataset.full_recipe(model)
    return Student(place, None, model, "random", recipe, made)


def training(place: Place, plan: Plan, model: str, recipe: str) -> TrainingRecipe:
    """Return a training recipe by its name.

    ``parity`` is how the author of TD3 trains students: as in the inner loop of the method that made the summary, and
    on rows of selectors as TD3 does.
    """
    if recipe == "judging":
        return place.dataset.judging
    method = plan.distiller if isinstance(plan, Method) else None
    bilevel = method if isinstance(method, BilevelSequences) else place.dataset.td3(place.dataset.main)
    made = bilevel.student_recipe()
    return replace(made, objective=OBJECTIVES.get(architecture(model), made.objective))


def farzi(dataset: Dataset, budget: Budget, **options: Any) -> Farzi:
    """Return Farzi as TD3's comparison ran it, with the settings of a dataset."""
    return Farzi(**{"num_rows": budget[0], "length": budget[1], **dataset.bilevel, **options})


def refined(budget: Budget, **options: Any) -> Refined:
    """Return the library's own method with its defaults."""
    return Refined(**{"num_rows": budget[0], "length": budget[1], **options})


def selector(name: str, budget: Budget) -> Distiller:
    """Return a method by its name, with its own defaults."""
    make: Callable[..., Distiller] = DISTILLERS[name]
    return make(num_rows=budget[0], length=budget[1])
