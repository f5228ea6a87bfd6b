"""The jobs behind baselines of clicks: rows that a rule chooses, and units that other methods move."""

import time
from abc import abstractmethod
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import torch

from recdistill.data.clicks.block import ClickBlock
from recdistill.distill.base import RunContext
from recdistill.distill.clicks.coresets import ClickMaterial, chosen_rows
from recdistill.distill.clicks.fold import refine
from recdistill.distill.clicks.matching import GradientMatching
from recdistill.distill.clicks.memory import ClickMemory, lifted, units_in
from recdistill.distill.clicks.nacs import NaCS
from recdistill.distill.clicks.stream import ClickStream
from recdistill.distill.diet import DIET
from recdistill.models.clicks.base import ClickModel
from recdistill.progress import Progress
from recdistill.rng import Streams
from recdistill.storage import atomic_folder, read_tensors, write_tensors
from recdistill.study.grid import Job
from recipes.click_jobs import ClickDataset, ClickJob, Code, Export, Memory, coded, parquet_bytes


@dataclass(frozen=True)
class Rows(ClickJob):
    """Rows of the log that a rule chooses.

    Args:
        rule: key of ``CLICK_SELECTORS``, or ``nacs``.
        ratio: rows per sample.
        reference: whose reference model, after every block, is what a rule may read.
        like: an export in whose bytes the rows are to fit, as Parquet with a soft label; overrides the ratio.
    """

    rule: str
    ratio: float
    reference: Memory
    like: Export | None = None

    @property
    def name(self) -> str:
        """Name of the rows."""
        size = f"{self.ratio:g}" if self.like is None else f"like-{self.like.name}"
        return f"rows-{self.rule}-{size}"

    @property
    def needs(self) -> tuple[Job, ...]:
        """The ids, the reference model, and what gives the bytes."""
        found = (Code(self.dataset, 0), self.reference)
        return found if self.like is None else (*found, self.like)

    def settings(self) -> dict[str, Any]:
        """Return rule, size and reference model."""
        like = None if self.like is None else self.like.settings()
        return {"rule": self.rule, "ratio": self.ratio, "like": like, "reference": self.reference.settings()}

    def run(self, progress: Progress) -> None:
        """Choose the rows."""
        started, log, rng = time.perf_counter(), coded(self.dataset), Streams(self.seed).child("rows")
        published = self.dataset.published()
        if self.like is None:
            chosen = self._chosen(units_in(self.ratio, len(log.train)), rng)
        else:
            order = rng.numpy("order").permutation(len(log.train))
            chosen = np.sort(order[: most_rows(published, order, self.like.told()["bytes"])])
        self.folder.parent.mkdir(parents=True, exist_ok=True)
        write_tensors(self._file, {"rows": torch.from_numpy(chosen)})
        seconds = time.perf_counter() - started
        self.write({"seconds": seconds, "units": len(chosen), "bytes": parquet_bytes(published[chosen])})

    def _chosen(self, count: int, rng: Streams) -> np.ndarray:
        log = coded(self.dataset)
        if self.rule == "nacs":
            return NaCS().choose(log.train, log.vocabulary.num_ids, count, rng)
        return chosen_rows(self.rule, material(self.dataset, self.reference), count, rng)

    def load(self) -> np.ndarray:
        """Return the rows."""
        found: np.ndarray = read_tensors(self._file)["rows"].numpy()
        return found

    @property
    def _file(self) -> Path:
        return self.folder.with_name(f"{self.name}.safetensors")


def material(dataset: ClickDataset, reference: Memory) -> ClickMaterial:
    """Return what selectors read: all training rows, and the reference model after every block."""
    stream = reference.stream()
    checkpoints = [grown_weights(stream, number) for number in stream.numbers]
    return ClickMaterial(coded(dataset).train, stream.model(stream.version()), checkpoints)


def grown_weights(stream: ClickStream, number: int) -> dict[str, torch.Tensor]:
    """Return the weights after a block, with rows for ids that came later, as they would begin: near 0."""
    model = stream.model(stream.version(number))
    model.grow(stream.version().vocabulary().num_ids, Streams(stream.seed).torch(f"grown {number}"))
    return dict(model.state_dict())


def most_rows(rows: pl.DataFrame, order: np.ndarray, size: int) -> int:
    """Return how many rows, taken in an order, fit into so many bytes."""
    low, high = 1, len(order)
    while low < high:
        middle = (low + high + 1) // 2
        if parquet_bytes(rows[np.sort(order[:middle])]) <= size:
            low = middle
        else:
            high = middle - 1
    return low


@dataclass(frozen=True)
class Moved(ClickJob):
    """Random rows as units of the reference model's tables, moved by another method than DIET. Base of those below.

    Args:
        rows: where they begin.
    """

    rows: Rows

    @property
    @abstractmethod
    def label(self) -> str:
        """Name of the method."""

    @property
    @abstractmethod
    def hard(self) -> bool:
        """Whether labels are 0 or 1."""

    @abstractmethod
    def moved(self, log: ClickBlock, model: ClickModel, progress: Progress) -> ClickMemory:
        """Return the units."""

    @property
    def name(self) -> str:
        """Name of the units."""
        return f"{self.label}-{self.rows.ratio:g}"

    @property
    def needs(self) -> tuple[Job, ...]:
        """The rows, and through them the reference model."""
        return (self.rows, self.rows.reference)

    def run(self, progress: Progress) -> None:
        """Move the units."""
        started, stream = time.perf_counter(), self.rows.reference.stream()
        made = self.moved(coded(self.dataset).train, stream.model(stream.version()), progress)
        with atomic_folder(self.folder, replace=True) as temporary:
            write_tensors(temporary / "memory.safetensors", made.tensors())
        seconds = time.perf_counter() - started
        size = (self.folder / "memory.safetensors").stat().st_size
        self.write({"seconds": seconds, "units": len(made), "bytes": size})

    def load(self) -> ClickMemory:
        """Return the units."""
        return ClickMemory(**read_tensors(self.folder / "memory.safetensors"))


@dataclass(frozen=True)
class Matched(Moved):
    """Units moved by gradient matching."""

    method: GradientMatching = field(default_factory=GradientMatching)

    @property
    def label(self) -> str:
        """Name of the method."""
        return "cgm"

    @property
    def hard(self) -> bool:
        """Labels are the log's."""
        return True

    def settings(self) -> dict[str, Any]:
        """Return the method and where it begins."""
        return {"method": asdict(self.method), "rows": self.rows.settings()}

    def moved(self, log: ClickBlock, model: ClickModel, progress: Progress) -> ClickMemory:
        """Return the units."""
        return self.method.distill(log, self.rows.load(), model, Streams(self.seed).child("matching"), progress)


@dataclass(frozen=True)
class Static(Moved):
    """All blocks at once: units moved by DIET's outer steps on everything that the reference model has learnt.

    As many steps as a stream takes; judged on the last samples of all.
    """

    method: DIET = field(default_factory=DIET)

    @property
    def label(self) -> str:
        """Name of the method."""
        return "static"

    @property
    def hard(self) -> bool:
        """Labels are the reference model's, moved."""
        return False

    def settings(self) -> dict[str, Any]:
        """Return the method and where it begins."""
        return {"method": self.method.as_dict(), "rows": self.rows.settings()}

    def moved(self, log: ClickBlock, model: ClickModel, progress: Progress) -> ClickMemory:
        """Return the units."""
        steps = self.method.steps_per_epoch * (self.dataset.training_blocks - 1)
        settings, rng = replace(self.method, steps_per_epoch=steps), Streams(self.seed).child("static")
        begun = lifted(model, log.some(self.rows.load()), settings.softness, 1)
        return refine(settings, begun, model, log, rng, RunContext(progress=progress))[0]
