"""What bi-level distillers of synthetic sequences share: their settings, and the outer step.

Each outer step starts a student, trains it for a random number of steps on the synthetic rows, judges it on a batch of
real prefixes and returns the derivative of that judgement in the parameters. How these make rows is up to the method.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, ClassVar, Literal

import torch
from jaxtyping import Float
from torch import Tensor

from recdistill.bilevel.folded_adam import FoldedAdam
from recdistill.bilevel.optimizer import Adam, Student
from recdistill.bilevel.unroll import MetaResult, Unroll, random_unroll
from recdistill.data.batches import OBJECTIVES, SequenceBatch, supervise
from recdistill.data.development import Development
from recdistill.data.sequences import SequenceRows, evaluation_cases, training_rows
from recdistill.distill.base import (
    RunContext,
    Summary,
    check_budget,
    check_item_table,
    check_reads,
    check_room,
    item_factor_of,
)
from recdistill.distill.outer_loop import Learnt, OuterLoop
from recdistill.distill.soft_items import SoftReader
from recdistill.distill.student_losses import InnerSteps, RealBatch, RealLoss, SyntheticLoss, rows_per_part
from recdistill.distill.student_starts import STARTS, StudentStarts
from recdistill.distill.synthetic import SyntheticSequences
from recdistill.errors import OptionError, choose, require_above, require_at_least
from recdistill.evaluation.metrics import METRIC_NAMES
from recdistill.evaluation.protocols import PROTOCOLS, evaluate
from recdistill.models.base import Recommender
from recdistill.rng import Streams, generator_at
from recdistill.training.fit import TrainingRecipe, fit
from recdistill.training.trajectory import Trajectory

ADJOINTS: dict[str, type[Adam]] = {"exact": Adam, "folded": FoldedAdam}
"""How the derivative goes back through the student's Adam."""

CHOICES: dict[str, dict[str, Any]] = {
    "inner_objective": dict.fromkeys(OBJECTIVES),
    "adjoint": ADJOINTS,
    "feature_scale": dict.fromkeys(("mean", "sum_half")),
    "start": dict.fromkeys(STARTS),
    "pool_draw": dict.fromkeys(("step", "epoch")),
    "judge_items": dict.fromkeys(("given", "random")),
    "select_protocol": dict.fromkeys(PROTOCOLS),
    "select_metric": dict.fromkeys(METRIC_NAMES),
}
"""The shared options that are chosen by name."""


@dataclass(frozen=True, kw_only=True)
class BilevelSequences(ABC):
    """Settings of a method that learns synthetic sequences through the training of students.

    The defaults are TD3's algorithm with its author's settings for ML-100k.
    """

    method: ClassVar[str]

    num_rows: int = 30
    """Synthetic sequences (mu), at least 1."""
    length: int = 50
    """Items per synthetic sequence (zeta), at least 4."""
    epochs: int = 30
    """Passes over the real prefixes, at least 1."""
    outer_learning_rate: float = 0.03
    """Adam step size for what is learnt (alpha); falls to 0 along a cosine."""
    outer_weight_decay: float = 1e-4
    """L2-coupled decay of what is learnt."""
    outer_batch_size: int = 4096
    """Real prefixes per outer step."""
    clip_norm: float = 1.0
    """Largest norm of the meta-gradient over all that is learnt."""
    inner_learning_rate: float = 0.005
    """Adam step size of the student (eta)."""
    inner_weight_decay: float = 5e-5
    """L2-coupled decay of the student."""
    synthetic_batch_size: int = 15
    """Synthetic sequences per inner step, in fixed cyclic order."""
    max_inner_steps: int = 200
    """Longest unroll (N)."""
    window: int = 40
    """Differentiated steps (W); the unroll is uniform on ``window .. max_inner_steps``."""
    adjoint: Literal["exact", "folded"] = "exact"
    """Derivative of the student's Adam: exact, or Farzi's published approximation."""
    inner_objective: str = "last_and_middle"
    """Targets of the student: ``last_and_middle`` (augmented learner training), ``last`` or ``all``."""
    feature_weight: float = 1.0
    """Weight of feature space alignment (w_F); 0 switches it off."""
    feature_scale: Literal["mean", "sum_half"] = "mean"
    """Mean squared difference (code) or half the sum of squares (paper)."""
    start: Literal["pool", "random", "fixed"] = "pool"
    """Where students start: from an early teacher epoch, from random weights, or always from the same random ones."""
    pool: tuple[int, int] = (5, 30)
    """First and last teacher epoch that a student may start from."""
    learners: int = 1
    """Students per outer step, each from its own start and with its own dropout, trained together on the same rows; the
    meta-gradient is their mean."""
    pool_draw: Literal["step", "epoch"] = "step"
    """Draw the start for each outer step (paper) or once per epoch (code)."""
    carry_over: bool = False
    """Let the plain steps of consecutive outer steps accumulate within an epoch (code)."""
    outer_dropout: bool = False
    """Judge the student with dropout on (code)."""
    teacher_dropout: bool = False
    """Record the teacher's features with dropout on (code)."""
    shuffle: bool = True
    """Shuffle the real prefixes in every epoch; the code does not."""
    judge_steps: int = 200
    """Adam steps of the fresh student that scores the result of every epoch."""
    judge_items: Literal["given", "random"] = "given"
    """Item table of that student: starts from the item factor, or at random."""
    select_protocol: str = "uni100"
    """Ranking protocol of the score by which the best result is kept, on validation data."""
    select_metric: str = "MRR@10"
    """Metric of that score."""

    def __post_init__(self) -> None:
        """Check every field."""
        check_budget(self.num_rows, self.length, shortest=4)
        counts = ("epochs", "outer_batch_size", "synthetic_batch_size", "window", "judge_steps", "learners")
        require_at_least(1, **{name: getattr(self, name) for name in counts})
        rates = ("outer_learning_rate", "inner_learning_rate", "clip_norm")
        require_above(0, **{name: getattr(self, name) for name in rates})
        weights = ("outer_weight_decay", "inner_weight_decay", "feature_weight")
        require_at_least(0, **{name: getattr(self, name) for name in weights})
        if self.max_inner_steps < self.window:
            raise OptionError("max_inner_steps", self.max_inner_steps, fix=f"must be at least window {self.window}")
        if not 0 <= self.pool[0] <= self.pool[1]:
            raise OptionError("pool", self.pool, fix="must be two epochs, the first not after the last, from 0")
        for name, choices in CHOICES.items():
            choose(name, getattr(self, name), choices)

    @abstractmethod
    def synthetic(self, train: Development, item_factor: Float[Tensor, "V R"], rng: Streams) -> SyntheticSequences:
        """Return what is learnt, as it stands at the beginning."""

    def student_recipe(self) -> TrainingRecipe:
        """Return how the author trains a student on a summary: as in the inner loop, for a fixed number of steps."""
        return TrainingRecipe(
            learning_rate=self.inner_learning_rate,
            weight_decay=self.inner_weight_decay,
            batch_size=self.synthetic_batch_size,
            objective=self.inner_objective,
            epochs=self.judge_steps,
            max_steps=self.judge_steps,
            patience=None,
        )

    def outer_loop(self) -> OuterLoop:
        """Return how the parameters move."""
        return OuterLoop(
            method=self.method,
            epochs=self.epochs,
            learning_rate=self.outer_learning_rate,
            weight_decay=self.outer_weight_decay,
            clip_norm=self.clip_norm,
            metric=self.select_metric,
            remedy=f"the student diverged; a smaller inner learning rate than {self.inner_learning_rate} often helps",
        )

    def check(self, train: Development) -> None:
        """Raise when the budget is larger than the data."""
        check_room(self.num_rows, self.length, train)

    def distill(
        self,
        train: Development,
        teacher: Trajectory,
        previous: Summary | None,
        rng: Streams,
        context: RunContext,
    ) -> Summary:
        """Return the learnt rows that scored best on the validation part; ``previous`` is ignored."""
        task = self.task(train, teacher, rng, context)
        return self.summary(task, self.outer_loop().learn(task, context))

    def task(self, train: Development, teacher: Trajectory, rng: Streams, context: RunContext) -> "SequenceTask":
        """Return what the outer loop learns.

        Raises:
            OptionError: the budget or an option does not fit the data, the teacher or the engine.
        """
        self.check(train)
        check_item_table(teacher)
        check_reads(self.num_rows, self.length, self.length - 1, teacher)
        return SequenceTask.prepare(self, train, teacher, rng, context)

    def summary(self, task: "SequenceTask", learnt: Learnt) -> Summary:
        """Return the rows as they are now."""
        return Summary(task.synthetic.frozen_rows(), task.item_factor, learnt.trace, learnt.seconds)


@dataclass(frozen=True, eq=False)
class SequenceTask:
    """Everything of one run that does not change: data, models, features, seeds."""

    settings: BilevelSequences
    train: Development
    item_factor: Float[Tensor, "V R"]
    model: Recommender
    synthetic: SyntheticSequences
    real: SequenceRows
    starts: StudentStarts
    features: Float[Tensor, "rows D"] | None
    rng: Streams
    context: RunContext

    @staticmethod
    def prepare(
        settings: BilevelSequences, train: Development, teacher: Trajectory, rng: Streams, context: RunContext
    ) -> "SequenceTask":
        """Return the task of a run.

        Raises:
            OptionError: the settings ask for what the teacher or the engine cannot give.
        """
        model, factor = teacher.model().to(context.device), item_factor_of(teacher)
        starts = StudentStarts(settings.start, settings.pool, teacher, model, rng)
        real = training_rows(train.histories, min(settings.length, model.max_seq_len), "prefixes")
        synthetic = settings.synthetic(train, factor, rng).to(context.device)
        task = SequenceTask(settings, train, factor, model, synthetic, real, starts, None, rng, context)
        task.check_engine()
        return task if settings.feature_weight == 0 else replace(task, features=task.teacher_features())

    def check_engine(self) -> None:
        """Raise when the engine gives another derivative than was asked for.

        Raises:
            OptionError: the adjoint is not exact but the window is taped, or keys are learnt that tiles hold fixed.
        """
        engine, settings = self.context.engine, self.settings
        if settings.adjoint != "exact" and engine.mode == "taped":
            raise OptionError(
                "adjoint", settings.adjoint, fix="has no effect on a taped window; use the engine's mode 'stepwise'"
            )
        if self.synthetic.keys_are_learnt and not self.reader.dense:
            raise OptionError(
                "dense_bytes",
                engine.dense_bytes,
                fix=f"is less than the distributions of {settings.num_rows}x{settings.length} over "
                f"{len(self.item_factor)} items take, and {settings.method} cannot read them in tiles; "
                "give the engine more, or ask for a smaller budget",
            )

    @property
    def steps_per_epoch(self) -> int:
        """Batches of real prefixes."""
        return math.ceil(len(self.real) / self.settings.outer_batch_size)

    def steps(self, epoch: int) -> Iterator[MetaResult]:
        """Yield a meta-gradient for each batch of real prefixes."""
        order = torch.arange(len(self.real))
        if self.settings.shuffle:
            order = torch.randperm(len(self.real), generator=generator_at(self.rng.integer("order"), epoch))
        carried: Student | None = None
        for index, rows in enumerate(order.split(self.settings.outer_batch_size)):
            step = epoch * self.steps_per_epoch + index
            key = epoch if self.settings.pool_draw == "epoch" else step
            result = self.outer_step(step, carried or self.start(key), rows)
            carried = result.student.fresh() if self.settings.carry_over else None
            yield result

    def outer_step(self, step: int, start: Student, rows: Tensor) -> MetaResult:
        """Return the outer loss, its gradient in the parameters and the student to carry on from."""
        inner_steps = self.inner_steps(step)
        with torch.enable_grad():
            read = self.reader.read(self.synthetic.rows().items())
        result = self.estimator(
            self.inner_loss(step, inner_steps), self.outer_loss(rows, step), start, read, inner_steps
        )
        parameters = dict(self.synthetic.named_parameters())
        bars = [result.gradient[name] for name in read]
        found = torch.autograd.grad(list(read.values()), list(parameters.values()), bars)
        return replace(result, gradient=dict(zip(parameters, found, strict=True)))

    def inner_steps(self, step: int) -> int:
        """Return how many steps the student of an outer step takes."""
        settings, draw = self.settings, generator_at(self.rng.integer("unroll"), step)
        return random_unroll(settings.window, settings.max_inner_steps, draw)

    @property
    def rehearsals(self) -> Sequence[int]:
        """Outer steps that stand for all: of the first few a short one, a long one, a middling one, and the rest."""
        steps = sorted(range(16), key=self.inner_steps)
        return [steps[place] for place in (2, 13, 8, 1, 14, 7, 0, 15, 3, 12, 4, 11, 5, 10, 6, 9)]

    def rehearse(self, step: int) -> MetaResult:
        """Return the meta-gradient of a step by itself, on as many real prefixes as it would have."""
        order = torch.randperm(len(self.real), generator=generator_at(self.rng.integer("order"), step))
        return self.outer_step(step, self.start(step), order[: self.settings.outer_batch_size])

    @cached_property
    def estimator(self) -> Unroll:
        """How the meta-gradient is computed; recordings of the losses live in it."""
        settings = self.settings
        optimizer = ADJOINTS[settings.adjoint](
            learning_rate=settings.inner_learning_rate, weight_decay=settings.inner_weight_decay
        )
        return self.context.engine.unroll(optimizer, settings.window)

    @cached_property
    def reader(self) -> SoftReader:
        """How the student reads the synthetic rows."""
        rows = self.synthetic.frozen_rows().items()
        return SoftReader.choose(
            rows, self.model.item_table_name, self.settings.synthetic_batch_size, self.context.engine.dense_bytes
        )

    @cached_property
    def synthetic_loss(self) -> SyntheticLoss:
        """The student's loss on a synthetic minibatch."""
        settings, reader = self.settings, self.reader
        return SyntheticLoss(
            self.model, settings.length, settings.inner_objective, reader.first_id, reader.reads, reader.sizes
        )

    def inner_loss(self, outer_step: int, inner_steps: int) -> InnerSteps:
        """Return the student's loss on the synthetic minibatch of a step, dropout and middle targets keyed by it."""
        return InnerSteps(
            self.synthetic_loss,
            plain=inner_steps - self.settings.window,
            middle_seed=generator_seed(self.rng.integer("middle"), outer_step),
            dropout_seed=generator_seed(self.rng.integer("dropout"), outer_step),
        )

    @cached_property
    def real_loss(self) -> RealLoss:
        """The judgement of a student on real prefixes."""
        return RealLoss(self.model, self.settings.feature_weight, self.settings.feature_scale)

    def outer_loss(self, rows: Tensor, outer_step: int) -> RealBatch:
        """Return the judgement of a student on some real prefixes: next-item loss and feature alignment."""
        device = self.context.device
        dropout = None
        if self.settings.outer_dropout:
            dropout = generator_at(self.rng.integer("outer_dropout"), outer_step, device)
        return RealBatch(
            self.real_loss,
            self.real_batch(rows),
            None if self.features is None else self.features[rows].to(device),
            rows_per_part(len(rows), self.settings.length, self.model),
            dropout,
        )

    def real_batch(self, rows: Tensor) -> SequenceBatch:
        """Return some real prefixes, the last item of each its target."""
        return supervise(self.real.batch(rows), "last").to(self.context.device)

    @torch.no_grad()
    def teacher_features(self) -> Float[Tensor, "rows D"]:
        """Return the teacher's hidden vector at the end of every real prefix."""
        parts = []
        for index, rows in enumerate(torch.arange(len(self.real)).split(self.settings.outer_batch_size)):
            seed = self.rng.integer("teacher_dropout")
            generator = generator_at(seed, index, self.context.device) if self.settings.teacher_dropout else None
            parts.append(self.model(self.real_batch(rows), generator)[1].squeeze(1).cpu())
            self.context.progress("teacher features", index + 1, self.steps_per_epoch)
        return torch.cat(parts)

    def start(self, key: int) -> Student:
        """Return the student that a step or an epoch starts from, or as many as are trained together."""
        return self.starts.draw(key, self.settings.learners)

    def judge(self, epoch: int) -> float:
        """Return the validation score of a fresh student trained on the current rows."""
        settings, rng = self.settings, self.rng.child(f"judge {epoch}")
        student = self.model.fresh(rng.torch("init"))
        if settings.judge_items == "given":
            student.load_item_table(self.item_factor, freeze=False)
        fit(student, self.synthetic.frozen_rows(), settings.student_recipe(), rng)
        cases = evaluation_cases(self.train.histories, "valid")
        return evaluate(student, cases, protocol=settings.select_protocol).metrics()[settings.select_metric]


def generator_seed(seed: int, outer_step: int) -> int:
    """Return the seed of one outer step's inner randomness."""
    return generator_at(seed, outer_step).initial_seed()
