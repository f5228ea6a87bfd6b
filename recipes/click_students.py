"""Jobs that train one candidate of clicks and score it on the test block."""

import time
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from scipy.special import expit

from recdistill.data.clicks.block import ClickBlock
from recdistill.distill.clicks.export import exported
from recdistill.evaluation.clicks import click_scores, predicted
from recdistill.models.clicks.base import ClickModel
from recdistill.progress import Progress
from recdistill.rng import Streams
from recdistill.study.click_students import (
    FEW_HARD_LABELS,
    FEW_SAMPLES,
    ClickStudentSpec,
    train_on_rows,
    train_with_given_tables,
    train_with_own_tables,
)
from recdistill.study.grid import Job
from recdistill.training.clicks import ClickRecipe, fit_clicks
from recipes.click_baselines import Moved, Rows
from recipes.click_jobs import GROUPS, MODELS, ClickJob, Code, Export, Memory, coded, shared_groups

FROZEN, SCRATCH = "frozen", "scratch"


@dataclass(frozen=True)
class Everything:
    """The training blocks, one after the other, in one pass: what a team does that trains on its log."""

    @property
    def name(self) -> str:
        """Short name."""
        return "full"

    @property
    def needs(self) -> tuple[Job, ...]:
        """Nothing."""
        return ()

    def train(self, job: "Student", spec: ClickStudentSpec, progress: Progress) -> ClickModel:
        """Return a candidate with tables of its own."""
        log = coded(job.dataset)
        return trained_in_order(log.blocks[:-1], spec, log.vocabulary.num_ids, job.seed, progress)

    def about(self) -> dict[str, Any]:
        """Return nothing: it is the log itself."""
        return {"units": None, "bytes": None, "made": 0.0}


def trained_in_order(
    blocks: tuple[ClickBlock, ...], spec: ClickStudentSpec, num_ids: tuple[int, ...], seed: int, progress: Progress
) -> ClickModel:
    """Return a model that learnt blocks one after the other, with a fresh optimiser for each, as the reference does."""
    rng = Streams(seed).child("student")
    model = spec.new(num_ids, blocks[0].widths, rng)
    for number, block in enumerate(blocks, start=1):
        fit_clicks(model, block, spec.recipe, rng.child(f"block {number}"))
        progress("train", number, len(blocks))
    return model


@dataclass(frozen=True)
class Units:
    """The units of a memory, in the reference model's tables or, with tables of their own, as an export."""

    memory: Memory
    export: Export | None = None
    version: int | None = None

    @property
    def hard(self) -> bool:
        """Whether labels are 0 or 1."""
        return self.memory.method.softness == 0 and self.export is None

    @property
    def name(self) -> str:
        """Short name."""
        told = "" if self.version is None else f"-after-{self.version}"
        return f"{self.memory.label}-{self.memory.method.ratio:g}{told}"

    @property
    def needs(self) -> tuple[Job, ...]:
        """The memory, or the export."""
        return (self.memory,) if self.export is None else (self.export,)

    def train(self, job: "Student", spec: ClickStudentSpec, progress: Progress) -> ClickModel:
        """Return a candidate."""
        version = self.memory.version(self.version)
        model = self.memory.stream().model(version)
        if job.tables == FROZEN:
            found, _ = train_with_given_tables(version.memory(), spec, model.tables, seed=job.seed, progress=progress)
        else:
            groups = shared_groups(model, GROUPS, self.memory.seed)
            rows = exported(version.memory(), model, groups)
            found, _ = train_on_rows(rows, spec, seed=job.seed, progress=progress)
        return found

    def about(self) -> dict[str, Any]:
        """Return units, bytes and seconds."""
        made = self.memory.told()
        size = made["bytes"] if self.export is None else self.export.told()["bytes"]
        return {"units": made["units"], "bytes": size, "made": made["seconds"]}


@dataclass(frozen=True)
class Chosen:
    """Rows of the log with the log's labels, or with the reference model's.

    Args:
        rows: which.
        soft: whether the labels are the reference model's.
        grouped: with tables of their own: whether ids share groups as in an export.
    """

    rows: Rows
    soft: bool = False
    grouped: bool = False

    @property
    def hard(self) -> bool:
        """Whether labels are the log's."""
        return not self.soft

    @property
    def name(self) -> str:
        """Short name."""
        told = ("_soft" if self.soft else "") + ("_grouped" if self.grouped else "")
        return f"{self.rows.name.removeprefix('rows-').replace(self.rows.rule, self.rows.rule + told, 1)}"

    @property
    def needs(self) -> tuple[Job, ...]:
        """The rows."""
        return (self.rows,)

    def train(self, job: "Student", spec: ClickStudentSpec, progress: Progress) -> ClickModel:
        """Return a candidate."""
        log, stream = coded(job.dataset), self.rows.reference.stream()
        block = log.train.some(self.rows.load())
        model = stream.model(stream.version())
        if self.soft:
            block = replace(block, labels=expit(predicted(model, block)).astype(np.float32))
        if job.tables == FROZEN:
            return train_with_given_tables(block, spec, model.tables, seed=job.seed, progress=progress)[0]
        num_ids, groups = model.tables.num_ids, None
        if self.grouped:
            groups = shared_groups(model, GROUPS, self.rows.reference.seed)
            block, num_ids = replace(block, ids=groups.of(block.ids)), groups.counts
        widths = log.vocabulary.spec.widths
        found, _ = train_with_own_tables(block, spec, num_ids, widths, seed=job.seed, progress=progress)
        if groups is not None:
            groups.expand(found)
        return found

    def about(self) -> dict[str, Any]:
        """Return rows, bytes and seconds."""
        made = self.rows.told()
        return {"units": made["units"], "bytes": made["bytes"], "made": made["seconds"]}


@dataclass(frozen=True)
class Others:
    """Units of another method, in the reference model's tables."""

    moved: Moved

    @property
    def hard(self) -> bool:
        """Whether labels are 0 or 1."""
        return self.moved.hard

    @property
    def name(self) -> str:
        """Short name."""
        return self.moved.name

    @property
    def needs(self) -> tuple[Job, ...]:
        """The units."""
        return (self.moved,)

    def train(self, job: "Student", spec: ClickStudentSpec, progress: Progress) -> ClickModel:
        """Return a candidate."""
        stream = self.moved.rows.reference.stream()
        tables = stream.model(stream.version()).tables
        return train_with_given_tables(self.moved.load(), spec, tables, seed=job.seed, progress=progress)[0]

    def about(self) -> dict[str, Any]:
        """Return units, bytes and seconds."""
        made = self.moved.told()
        return {"units": made["units"], "bytes": made["bytes"], "made": made["seconds"]}


@dataclass(frozen=True)
class Student(ClickJob):
    """A candidate trained on something, and its scores on a block.

    Args:
        source: what it is trained on.
        tables: ``frozen`` or ``scratch``.
        model: key of ``MODELS``.
        tested_on: index of the block; the last one is the test.
    """

    source: Everything | Units | Chosen | Others
    tables: str
    model: str
    tested_on: int

    @property
    def row(self) -> str:
        """What all candidates and seeds of one row have in common."""
        tested = "" if self.tested_on == self.dataset.training_blocks else f"-on-{self.tested_on + 1}"
        return f"{self.source.name}-{self.tables}{tested}"

    @property
    def name(self) -> str:
        """Name of the cell."""
        return f"cell-{self.row}-{self.model}"

    @property
    def needs(self) -> tuple[Job, ...]:
        """The ids, and what it is trained on."""
        return (Code(self.dataset, 0), *self.source.needs)

    @property
    def spec(self) -> ClickStudentSpec:
        """The candidate and its training."""
        architecture, config = MODELS[self.model]
        return ClickStudentSpec(model=architecture, config=config, recipe=self.recipe)

    @property
    def recipe(self) -> ClickRecipe:
        """How it is trained: by what the labels are, each way chosen on the block before the test."""
        if isinstance(self.source, Everything):
            return ClickRecipe()
        return FEW_HARD_LABELS if self.source.hard else FEW_SAMPLES

    def settings(self) -> dict[str, Any]:
        """Return data, model and training."""
        spec = self.spec
        data = [job.settings() for job in self.source.needs]
        found = {"source": self.source.name, "data": data, "tables": self.tables, "tested_on": self.tested_on}
        return found | {"model": spec.model, "config": dict(spec.config), "recipe": spec.recipe.as_dict()}

    def run(self, progress: Progress) -> None:
        """Train and score."""
        log = coded(self.dataset)
        started, busy = time.perf_counter(), time.process_time()
        model = self.source.train(self, self.spec, progress)
        seconds = {"train": time.perf_counter() - started, "train_cpu": time.process_time() - busy}
        block = log.blocks[self.tested_on]
        scores = click_scores(block.labels, predicted(model, block), block.groups).as_dict()
        about = {"row": self.row, "model": self.model, "tables": self.tables, "metrics": scores, "seconds": seconds}
        self.write(about | self.source.about())
