"""Short measurements of the real thing, each in a process of its own so that its peak of memory is its own.

A probe runs the code of the run with its data, shapes and seeds, and stops when it has seen enough. So a training that
ends within a probe is known to the last epoch. The time for which other work held a probe up is kept apart: it belongs
to the machine, not to the run. Here stands what all share and the probe of a training; that of a
distillation is :mod:`recdistill.study.rehearsals`.
"""

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from statistics import median
from typing import Any

from jaxtyping import Float, Int
from torch import Tensor

from recdistill.data.batches import SequenceBatch
from recdistill.data.development import Development, development_of
from recdistill.data.prepared import PreparedDataset
from recdistill.data.rows import KINDS, Rows
from recdistill.data.sequences import EvaluationCases, TrainingData, evaluation_cases, training_rows
from recdistill.data.text import Catalogue
from recdistill.distill.base import Summary
from recdistill.distill.run import peak_megabytes
from recdistill.distill.teacher import make_model
from recdistill.evaluation.protocols import evaluate
from recdistill.models import MODELS
from recdistill.models.base import Recommender
from recdistill.progress import Progress
from recdistill.rng import Streams
from recdistill.storage import read_json, read_tensors, sha256_of, write_json, write_tensors
from recdistill.study.stopping import FULL
from recdistill.study.students import MONITOR, StudentSpec
from recdistill.training.fit import TrainingRecipe, fit, most_epochs, steps_in_epoch

WARM_UP = 3
"""Steps of a training that are not timed: the first ones take memory and fill caches."""
BLOCKS = 5
"""Parts of the timed steps; the middle one of their means counts, so that one slow moment does not."""


class Enough(Exception):  # noqa: N818 (it is no error)
    """A probe has seen what it needs."""


@dataclass(frozen=True, kw_only=True)
class Limits:
    """How long probes may take, in undisturbed seconds (:func:`undisturbed`), each above 0."""

    training: float = 5.0
    """Of a training; twice that, where no epoch ends within it."""
    to_the_end: float = 12.0
    """Of a training that will likely end within it: then its epochs are known."""
    distilling: float = 9.0
    """Of outer steps; a few are taken in any case."""
    whole: float = 30.0
    """Of a distillation that can only be tried as a whole."""


@dataclass(frozen=True, kw_only=True)
class Probe:
    """What probes share: a job of a grid (:class:`~recdistill.study.grid.Job`) whose result is a JSON file."""

    name: str
    """Unique among the probes of a plan."""
    folder: Path
    """Where they write."""
    prepared: Path
    """Prepared dataset."""
    seed: int
    """Of the run."""
    limits: Limits
    """When enough was seen."""

    @property
    def key(self) -> str:
        """What it is."""
        return self.name

    @property
    def path(self) -> Path:
        """What was measured."""
        return self.folder / f"{self.name}.json"

    @property
    def needs(self) -> Sequence["Probe"]:
        """Nothing."""
        return ()

    def settings(self) -> dict[str, object]:
        """Return what decides the result."""
        return {"name": self.name, "hash": sha256_of(asdict(self))}

    def done(self) -> bool:
        """Return whether it was measured."""
        return self.path.exists()

    def result(self) -> dict[str, Any]:
        """Return what was measured."""
        found: dict[str, Any] = read_json(self.path)
        return found

    def run(self, progress: Progress) -> None:
        """Measure, and write it."""
        start, began, (ran, waited) = peak_megabytes(), time.perf_counter(), scheduled()
        found = self.measure()
        taken, (ran_then, waited_then) = time.perf_counter() - began, scheduled()
        about = {"probe_s": round(taken, 2), "ran_s": ran_then - ran, "waited_s": waited_then - waited}
        write_json(self.path, found | about | {"start_mb": start, "peak_mb": peak_megabytes()})

    def measure(self) -> dict[str, Any]:
        """Return the figures."""
        raise NotImplementedError

    def open(self) -> Development:
        """Return the data."""
        return development_of(PreparedDataset.open(self.prepared, verify=False))


@dataclass(frozen=True, kw_only=True)
class TrainingProbe(Probe):
    """The beginning of a training, real but for its end."""

    spec: StudentSpec
    """The model and its training."""
    stream: str
    """Of random numbers: ``teacher`` or ``student``."""
    keeps: bool = False
    """Writes the weights of every epoch, as a teacher's training does."""
    after: Probe | None = None
    """Whose rows are trained on; all data, where there is none."""

    @property
    def needs(self) -> Sequence[Probe]:
        """The probe that leaves the rows."""
        return () if self.after is None else (self.after,)

    def measure(self) -> dict[str, Any]:
        """Return seconds of a step and of what follows an epoch, and how far the training came."""
        train, spec = self.open(), self.spec
        rows, factor = read_rows(self.folder) if self.after else (_real_rows(train, spec), None)
        if len(rows) == 0 or not MODELS[spec.model].trainable:
            return {"rows": len(rows), "steps_per_epoch": 0, "most_epochs": 0, "ended": True, "epochs": 0, "run_s": 0.0}
        rng = Streams(self.seed).child(self.stream)
        catalogue = Catalogue(train.items, self.folder)
        model = make_model(spec.model, train.num_items, spec.max_seq_len, spec.config, rng, catalogue)
        if factor is not None and spec.items != "random":
            model.load_item_table(factor, freeze=spec.items == "frozen")
        cases = evaluation_cases(train.histories, "valid")
        recipe = spec.recipe if len(cases) else replace(spec.recipe, patience=None)
        clock = Clock(self.limits, steps_in_epoch(len(rows), recipe), most_epochs(len(rows), recipe), recipe.patience)
        ended = self._train(model, rows, recipe, rng, cases, clock)
        if not ended and not clock.epochs and len(cases):
            clock.after_epoch.append(timed(lambda: _score(model, cases)))
        return clock.figures() | {"rows": len(rows), "ended": ended}

    def _train(
        self,
        model: Recommender,
        rows: TrainingData,
        recipe: TrainingRecipe,
        rng: Streams,
        cases: EvaluationCases,
        clock: "Clock",
    ) -> bool:
        def record(epoch: int, current: Recommender, score: float | None) -> None:
            if self.keeps:
                write_tensors(self.folder / f"{self.name}-{epoch}", dict(current.state_dict()))
            clock.scores += [] if score is None else [score]

        def validate(current: Recommender) -> float:
            return _score(current, cases)

        try:
            fit(
                model,
                Clocked(rows, clock),
                recipe,
                rng,
                validate=validate if len(cases) else None,
                record=record,
                state=self.folder / f"{self.name}.state",
                progress=clock.epoch_ended,
            )
        except Enough:
            return False
        return True


@dataclass
class Clock:
    """Times of a training, taken where it asks for a batch and where it reports an epoch.

    Args:
        limits: when enough was seen.
        steps: optimiser steps in an epoch.
        most: epochs of the training where nothing stops it.
        patience: of the recipe.
    """

    limits: Limits
    steps: int
    most: int
    patience: int | None
    started: float = field(default_factory=lambda: undisturbed())
    batches: list[float] = field(default_factory=list)
    """When each was asked for, in the epoch that runs."""
    step_seconds: list[float] = field(default_factory=list)
    after_epoch: list[float] = field(default_factory=list)
    """The last step, the validation and what is written, less a step."""
    scores: list[float] = field(default_factory=list)
    epochs: int = 0
    seconds: float = 0.0

    def batch_asked(self) -> None:
        """Note a batch.

        Raises:
            Enough: there is nothing more to learn, or no time.
        """
        now = undisturbed()
        spent, taken = now - self.started, len(self.step_seconds)
        late = spent > (self.limits.training if self.epochs else 2 * self.limits.training)
        if late and taken > WARM_UP + BLOCKS and not self.nearly_done(spent):
            raise Enough
        if self.batches:
            self.step_seconds.append(now - self.batches[-1])
        self.batches.append(now)

    def nearly_done(self, spent: float) -> bool:
        """Return whether the training will likely end while there is time to see its end."""
        if not self.epochs or spent > self.limits.to_the_end:
            return False
        epochs = self.most if self.patience is None else min(self.most, FULL[1] * self.patience)
        return epochs * self.seconds / self.epochs <= self.limits.to_the_end

    def epoch_ended(self, stage: str, done: int, total: int, note: str = "") -> None:
        """Note the end of an epoch."""
        now = undisturbed()
        step = median(self.step_seconds[-20:]) if self.step_seconds else 0.0
        self.after_epoch.append(max(0.0, now - self.batches[-1] - step))
        self.batches.clear()
        self.epochs, self.seconds = done, now - self.started

    def figures(self) -> dict[str, Any]:
        """Return what was seen."""
        taken = self.step_seconds[WARM_UP:] or self.step_seconds or [self.seconds / self.steps]
        usual = median(taken)
        return {
            "steps_per_epoch": self.steps,
            "most_epochs": self.most,
            "epochs": self.epochs,
            "scores": self.scores,
            "run_s": self.seconds,
            "step_s": block_means(taken),
            "steps_timed": len(taken),
            "epoch_s": median(self.after_epoch) if self.after_epoch else 0.0,
            "start_s": sum(max(0.0, first - usual) for first in self.step_seconds[:WARM_UP]),
        }


def block_means(values: Sequence[float]) -> dict[str, float]:
    """Return lowest, middle and highest of the means of some consecutive blocks of values."""
    size = max(1, math.ceil(len(values) / BLOCKS))
    blocks = [values[start : start + size] for start in range(0, len(values), size)]
    means = sorted(sum(block) / len(block) for block in blocks if 2 * len(block) >= size)
    return {"low": means[0], "middle": median(means), "high": means[-1]}


@dataclass(frozen=True)
class Clocked:
    """Training data that tells a clock when a batch is asked for."""

    rows: TrainingData
    clock: Clock

    def __len__(self) -> int:
        """Return the number of rows."""
        return len(self.rows)

    def batch(self, rows: Int[Tensor, " B"]) -> SequenceBatch:
        """Return some rows."""
        self.clock.batch_asked()
        return self.rows.batch(rows)

    def item_counts(self, num_items: int) -> Float[Tensor, " V1"]:
        """Return how often each item occurs."""
        return self.rows.item_counts(num_items)


def write_rows(folder: Path, summary: Summary) -> None:
    """Keep rows for :func:`read_rows`."""
    write_tensors(folder / "rows", summary.rows.tensors() | {"item_factor": summary.item_factor})
    write_json(folder / "rows.json", {"kind": summary.rows.kind})


def read_rows(folder: Path) -> tuple[Rows, Tensor]:
    """Return rows and item factor that a probe left."""
    tensors = read_tensors(folder / "rows")
    factor = tensors.pop("item_factor")
    return KINDS[read_json(folder / "rows.json")["kind"]].from_tensors(tensors, factor), factor


def _real_rows(train: Development, spec: StudentSpec) -> TrainingData:
    return training_rows(train.histories, spec.max_seq_len, spec.recipe.rows)


def _score(model: Recommender, cases: EvaluationCases) -> float:
    return evaluate(model, cases).metrics()[MONITOR]


def scheduled(source: Path = Path("/proc/thread-self/schedstat")) -> tuple[float, float]:
    """Return the seconds that this thread has run, and those that it was ready and others ran instead of it.

    The second is 0 where the system does not tell.
    """
    if not source.exists():
        return time.thread_time(), 0.0
    ran, waited, _ = source.read_text().split()
    return int(ran) / 1e9, int(waited) / 1e9


def undisturbed() -> float:
    """Return the time of a clock, in seconds, that stands while this thread is ready to run and others do instead."""
    return time.perf_counter() - scheduled()[1]


def timed(function: Callable[[], object]) -> float:
    """Return the undisturbed seconds of a call."""
    started = undisturbed()
    function()
    return undisturbed() - started
