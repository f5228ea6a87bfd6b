"""The jobs that fill a place: the teacher, an artifact, a student with its scores."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from recdistill.data.development import Development
from recdistill.data.distilled import DistilledDataset, size_in_bytes
from recdistill.data.sequences import training_rows
from recdistill.distill.base import Engine, RunContext
from recdistill.distill.refined import Refined
from recdistill.distill.run import peak_megabytes
from recdistill.models.base import Recommender
from recdistill.progress import Progress
from recdistill.storage import read_json, sha256_of, write_json
from recdistill.study.cells import read_ranks, write_scores
from recdistill.study.grid import Job
from recdistill.study.students import ItemTable, StudentSpec, train_student
from recdistill.training.fit import TrainingRecipe
from recipes.datasets import Dataset
from recipes.places import PeerModel, Place, Prepare, agrees
from recipes.plans import Method, Plan
from recipes.record import as_json
from recipes.zoo import architecture


@dataclass(frozen=True)
class Scored(ABC):
    """A job that ends in the scores of a model: a cell. Base of :class:`Teacher` and :class:`Student`."""

    place: Place

    @property
    @abstractmethod
    def name(self) -> str:
        """Name of the cell, the same for every seed."""

    @property
    @abstractmethod
    def needs(self) -> tuple[Job, ...]:
        """Jobs that must be done before."""

    @abstractmethod
    def settings(self) -> dict[str, Any]:
        """Return what decides the scores."""

    @abstractmethod
    def run(self, progress: Progress) -> None:
        """Train and score the model."""

    @property
    def key(self) -> str:
        """Path below the runs."""
        return f"{self.place.key}/{self.name}"

    @property
    def row(self) -> str:
        """What all seeds of one row have in common."""
        return f"{self.place.dataset.name}/L{self.place.length}/{self.name}"

    @property
    def path(self) -> Path:
        """The scores."""
        return self.place.folder / "cells" / f"{self.name}.json"

    def done(self) -> bool:
        """Return whether the scores are there and are of these settings."""
        return agrees(self.path, self.settings())

    def cell(self) -> dict[str, Any]:
        """Return the scores and all that is known about them."""
        value: dict[str, Any] = read_json(self.path)
        return value

    def ranks(self, protocol: str) -> Tensor:
        """Return the rank of every held-out event."""
        return read_ranks(self.path, protocol)

    def write(self, model: Recommender, about: dict[str, Any], start_mb: float) -> None:
        """Score a model on the test events and write the cell."""
        facts = {"dataset": self.place.dataset.name, "length": self.place.length, "seed": self.place.seed}
        memory = {"start_mb": start_mb, "peak_mb": peak_megabytes(), "threads": torch.get_num_threads()}
        about = as_json(facts | memory | about | {"settings": self.settings()})
        write_scores(self.path, model.fixed(), self.place.test(), about)


@dataclass(frozen=True)
class Teacher(Scored):
    """The teacher of a place, and its scores."""

    @property
    def name(self) -> str:
        """Name of the cell."""
        return f"full-{self.place.dataset.teacher_model}-random-{self.rows}"

    @property
    def rows(self) -> str:
        """How real histories are cut for it; stands for its training recipe."""
        return self.place.dataset.teacher.rows

    @property
    def needs(self) -> tuple[Job, ...]:
        """The data."""
        return (Prepare(self.place.dataset),)

    def settings(self) -> dict[str, Any]:
        """Return model and training."""
        return self.place.teacher_spec().as_dict()

    def run(self, progress: Progress) -> None:
        """Train the teacher, unless its trajectory is there, and score it."""
        start, train, stages = peak_megabytes(), self.place.train(), set[str]()

        def watched(stage: str, done: int, total: int, note: str = "") -> None:
            stages.add(stage)
            progress(stage, done, total, note)

        teacher = self.place.teacher(train, watched)
        about = full_facts(self.place.dataset.teacher_model, self.rows, train) | {
            "seconds": {"train": teacher.seconds},
            "steps": None,
            "measured": "train" in stages,  # seconds and memory of a trajectory that was there are not of this process
        }
        self.write(teacher.model(), about, start)


def full_facts(model: str, recipe: str, train: Development) -> dict[str, Any]:
    """Return what names a row trained on all data."""
    return {
        "method": "full",
        "model": model,
        "budget": "full",
        "items": "random",
        "recipe": recipe,
        "bytes": train.train_bytes,
    }


@dataclass(frozen=True)
class Artifact:
    """A distilled dataset."""

    place: Place
    plan: Plan

    @property
    def key(self) -> str:
        """Path below the runs."""
        return f"{self.place.key}/{self.plan.name}"

    @property
    def folder(self) -> Path:
        """The artifact."""
        return self.place.folder / "artifacts" / self.plan.name

    @property
    def path(self) -> Path:
        """What it cost and how large it is."""
        return self.folder.with_name(f"{self.plan.name}.json")

    @property
    def needs(self) -> tuple[Job, ...]:
        """The teacher, its peers, and the artifact that this one is cut from or measured by."""
        return (Teacher(self.place), *self.peers, *(Artifact(self.place, plan) for plan in self.plan.needs))

    @property
    def peers(self) -> list[PeerModel]:
        """Models of other families, where the method holds students of several."""
        method = self.plan.distiller if isinstance(self.plan, Method) else None
        if not isinstance(method, Refined):
            return []
        return [PeerModel(self.place, family, method.peer_epochs) for family in method.families]

    def settings(self) -> dict[str, Any]:
        """Return what decides the rows."""
        return self.plan.settings()

    def done(self) -> bool:
        """Return whether the artifact is there and is of these settings."""
        return agrees(self.path, self.settings()) and (self.folder / "manifest.json").exists()

    def load(self) -> DistilledDataset:
        """Return the artifact."""
        return DistilledDataset.load(self.folder)

    def run(self, progress: Progress) -> None:
        """Make the artifact; a distillation that was cut short goes on from its last pass."""
        start, train = peak_megabytes(), self.place.train()
        others = [Artifact(self.place, plan).folder for plan in self.plan.needs]
        state = self.folder.with_name(f"{self.plan.name}.{sha256_of(self.settings())[:8]}.state")
        teacher = self.place.teacher(train, progress)
        context = RunContext(state=state, cache=self.place.teachers, progress=progress, engine=self.engine)
        made = self.plan.make(train, teacher, others, self.place.seed, context)
        made.save(self.folder, replace=True)
        self.describe(made, start_mb=start, measured=True)

    @property
    def engine(self) -> Engine:
        """How meta-gradients are computed. Many families with many recipes each are not worth compiling."""
        return Engine() if self.peers else self.place.dataset.engine

    def describe(self, made: DistilledDataset, *, start_mb: float | None, measured: bool) -> None:
        """Write what the artifact cost; ``measured`` where it was made in a process of its own."""
        seconds = made.manifest.seconds | {"peers": sum(read_json(peer.path)["seconds"] for peer in self.peers)}
        cost = {"seconds": seconds, "peak_mb": made.manifest.peak_mb, "start_mb": start_mb}
        facts = {"measured": measured, "threads": torch.get_num_threads(), "bytes": size_in_bytes(self.folder)}
        write_json(self.path, as_json(cost | facts | {"settings": self.settings()}))


@dataclass(frozen=True)
class Student(Scored):
    """A model trained on an artifact, or on all data where ``plan`` is ``None``, and its scores."""

    plan: Plan | None
    model: str
    """Key of ``MODELS`` or of ``VARIANTS``."""
    items: ItemTable
    recipe: str
    """Name of ``training``."""
    training: TrainingRecipe

    @property
    def name(self) -> str:
        """Name of the cell."""
        return f"{'full' if self.plan is None else self.plan.name}-{self.model}-{self.items}-{self.recipe}"

    @property
    def artifact(self) -> Artifact | None:
        """What the student is trained on; ``None`` for all data."""
        return None if self.plan is None else Artifact(self.place, self.plan)

    @property
    def needs(self) -> tuple[Job, ...]:
        """The artifact, or the data."""
        return (Prepare(self.place.dataset),) if self.artifact is None else (self.artifact,)

    def settings(self) -> dict[str, Any]:
        """Return data, model and training."""
        data = None if self.plan is None else self.plan.settings()
        dataset = self.place.dataset
        model = {"architecture": architecture(self.model), "model": dataset.config(self.model)}
        found = {"data": data, **model, "training": self.training.as_dict()}
        return found if dataset.valid_cases is None else found | {"valid_cases": dataset.valid_cases}

    def run(self, progress: Progress) -> None:
        """Train the student and score it."""
        start, train = peak_megabytes(), self.place.train()
        if self.artifact is None:
            data = training_rows(train.histories, self.place.length, self.training.rows)
            self.finish(train, data, None, full_facts(self.model, self.recipe, train), {}, start, progress)
            return
        made, cost = self.artifact.load(), read_json(self.artifact.path)
        size = cost["bytes"]
        about = {
            "method": made.manifest.method,
            "model": self.model,
            "budget": f"{made.manifest.num_rows}x{made.manifest.length}",
            "items": self.items,
            "recipe": self.recipe,
            "label": self.plan.label if isinstance(self.plan, Method) else "",
            "bytes": size["total"],
            "bytes_without_item_factor": size["total"] - size["item_factor"],
        }
        self.finish(train, made.rows, made.item_factor, about, {"distill": cost["seconds"]["distill"]}, start, progress)

    def finish(
        self,
        train: Development,
        data: Any,
        factor: Tensor | None,
        about: dict[str, Any],
        seconds: dict[str, float],
        start_mb: float,
        progress: Progress,
    ) -> None:
        """Train on ``data``, score, and write the cell."""
        spec = StudentSpec(
            model=architecture(self.model),
            config=self.place.dataset.config(self.model),
            max_seq_len=self.place.length,
            items=self.items,
            recipe=self.training,
        )
        state = self.path.with_name(f"{self.name}.{sha256_of(as_json(self.settings()))[:8]}.state")
        model, result = train_student(
            data,
            spec,
            num_items=train.num_items,
            seed=self.place.seed,
            item_factor=factor,
            catalogue=self.place.catalogue(train),
            valid=None if self.training.patience is None else self.place.valid(train),
            state=state if self.plan is None else None,  # on a summary, to begin anew is quicker than to keep state
            progress=progress,
        )
        trained = {"seconds": seconds | {"train": result.seconds}, "steps": result.steps, "measured": True}
        self.write(model, about | trained, start_mb)


Students = Callable[[Place], Sequence[Scored]]


def seed_by_seed(seeds: Sequence[int], places: Sequence[tuple[Dataset, int]], cells: Students) -> list[Scored]:
    """Return the cells of every place, seed by seed, so that a grid cut short has whole seeds."""
    return [cell for seed in seeds for dataset, length in places for cell in cells(Place(dataset, length, seed))]
