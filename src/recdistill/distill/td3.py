"""TD3: Tucker-decomposed synthetic sequences, learnt by bi-level optimisation.

Each outer step starts a student from an early checkpoint of the teacher, trains it for a random number of steps on the
synthetic rows, judges it on a batch of real prefixes and moves the factors along the meta-gradient of that judgement.
"""

import math
from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar, Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

from recdistill.bilevel.optimizer import Adam, Student, Tensors
from recdistill.bilevel.unroll import Unroll, random_unroll
from recdistill.data.batches import OBJECTIVES, SequenceBatch, supervise
from recdistill.data.development import Development
from recdistill.data.sequences import SequenceRows, evaluation_cases, training_rows
from recdistill.distill.base import RunContext, Summary, check_budget, check_room, item_factor_of
from recdistill.distill.soft_items import SoftReader
from recdistill.distill.student_losses import InnerSteps, RealBatch, RealLoss, SyntheticLoss, rows_per_part
from recdistill.distill.synthetic import TuckerSequences
from recdistill.errors import NumericalError, OptionError, choose, require_above, require_at_least
from recdistill.evaluation.metrics import METRIC_NAMES
from recdistill.evaluation.protocols import PROTOCOLS, evaluate
from recdistill.models.base import Recommender
from recdistill.rng import Streams, generator_at
from recdistill.training.fit import TrainingRecipe, fit
from recdistill.training.resume import RunState
from recdistill.training.trajectory import Trajectory

CHOICES: dict[str, dict[str, object]] = {
    "inner_objective": dict.fromkeys(OBJECTIVES),
    "feature_scale": dict.fromkeys(("mean", "sum_half")),
    "pool_draw": dict.fromkeys(("step", "epoch")),
    "judge_items": dict.fromkeys(("given", "random")),
    "select_protocol": dict.fromkeys(PROTOCOLS),
    "select_metric": dict.fromkeys(METRIC_NAMES),
}
"""The options of TD3 that are chosen by name."""


@dataclass(frozen=True, kw_only=True)
class TD3:
    """Tucker decomposition based dataset distillation for sequential recommendation.

    The defaults are the paper's algorithm with the author's settings for ML-100k. The fields ``pad_column``,
    ``carry_over``, ``pool_draw``, ``outer_dropout``, ``shuffle`` and ``teacher_dropout`` switch the habits of the
    published code on.

    Reference: TD3: Tucker Decomposition Based Dataset Distillation Method for Sequential Recommendation, WWW 2025,
    arXiv 2502.02854, section 3.

    Departures: padding is masked out of the softmax. The random middle target starts at ``min(5, length // 2)``, not
    always at 5. One encoder pass serves both inner targets, which is exact for causal students apart from dropout. The
    cross-entropy stands for the divergence: they differ by a constant of the inner loop. Feature alignment is a mean
    over batch and width, as in the code; the paper's sum would swamp the test loss at these batch sizes. Teacher
    features are recorded without dropout, the real batches are shuffled.
    """

    method: ClassVar[str] = "td3"

    num_rows: int = 30
    """Synthetic sequences (mu), at least 1."""
    length: int = 50
    """Items per synthetic sequence (zeta), at least 4."""
    rank: int = 8
    """Rank of the user and of the time factor (d1 = d2), at least 1."""
    epochs: int = 30
    """Passes over the real prefixes, at least 1."""
    outer_learning_rate: float = 0.03
    """Adam step size for the factors (alpha); falls to 0 along a cosine."""
    outer_weight_decay: float = 1e-4
    """L2-coupled decay of the factors."""
    outer_batch_size: int = 4096
    """Real prefixes per outer step."""
    clip_norm: float = 1.0
    """Largest norm of the meta-gradient over all factors."""
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
    inner_objective: str = "last_and_middle"
    """Targets of the student: ``last_and_middle`` (augmented learner training), ``last`` or ``all``."""
    feature_weight: float = 1.0
    """Weight of feature space alignment (w_F); 0 switches it off."""
    feature_scale: Literal["mean", "sum_half"] = "mean"
    """Mean squared difference (code) or half the sum of squares (paper)."""
    pool: tuple[int, int] = (5, 30)
    """First and last teacher epoch that a student may start from."""
    learners: int = 1
    """Students per outer step, each from its own epoch and with its own dropout, trained together on the same rows; the
    meta-gradient is their mean."""
    pool_draw: Literal["step", "epoch"] = "step"
    """Draw the start for each outer step (paper) or once per epoch (code)."""
    carry_over: bool = False
    """Let the plain steps of consecutive outer steps accumulate within an epoch (code)."""
    pad_column: bool = False
    """Let padding be an ordinary column of the softmax (code)."""
    outer_dropout: bool = False
    """Judge the student with dropout on (code)."""
    teacher_dropout: bool = False
    """Record the teacher's features with dropout on (code)."""
    shuffle: bool = True
    """Shuffle the real prefixes in every epoch; the code does not."""
    judge_steps: int = 200
    """Adam steps of the fresh student that scores the factors after every epoch."""
    judge_items: Literal["given", "random"] = "given"
    """Item table of that student: starts from the item factor, or at random."""
    select_protocol: str = "uni100"
    """Ranking protocol of the score by which the best factors are kept, on validation data."""
    select_metric: str = "MRR@10"
    """Metric of that score."""

    def __post_init__(self) -> None:
        """Check every field."""
        check_budget(self.num_rows, self.length, shortest=4)
        counts = ("rank", "epochs", "outer_batch_size", "synthetic_batch_size", "window", "judge_steps", "learners")
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
        self.check(train)
        self._check_teacher(teacher)
        task = _Task.prepare(self, train, teacher, rng, context)
        run = RunState.start(task.synthetic, self.outer_learning_rate, self.outer_weight_decay)
        if context.state is not None:
            run.restore(context.state)
        while run.epoch < self.epochs:
            losses = task.outer_epoch(run)
            run.losses.append(sum(losses) / len(losses))
            run.epoch += 1
            run.take_score(task.judge(run.epoch), patience=self.epochs + 1)
            if context.state is not None:
                run.save(context.state)
            note = f"outer loss {run.losses[-1]:.3f}, {self.select_metric} {run.scores[-1]:.4f} (validation)"
            context.progress("distill", run.step, task.total_steps, note)
        run.keep_best()
        if context.state is not None:
            context.state.unlink(missing_ok=True)
        trace = tuple(
            {"outer_loss": loss, f"valid_{self.select_metric}": score}
            for loss, score in zip(run.losses, run.scores, strict=True)
        )
        rows = task.synthetic.frozen_rows()
        return Summary(rows, rows.item_factor, trace, run.seconds)

    def _check_teacher(self, teacher: Trajectory) -> None:
        if teacher.num_epochs < self.pool[0]:
            raise OptionError(
                "pool",
                self.pool,
                fix=f"starts after the teacher's last epoch {teacher.num_epochs}; "
                "train the teacher for more epochs, or start the pool earlier",
            )
        if int(teacher.header["config"]["max_seq_len"]) < self.length - 1:
            raise OptionError(
                "--budget",
                f"{self.num_rows}x{self.length}",
                fix=f"is longer than the teacher's histories ({teacher.header['config']['max_seq_len']} items); "
                "give the teacher a larger --max-seq-len",
            )


@dataclass(frozen=True, eq=False)
class _Task:
    """Everything of one run that does not change: data, models, features, seeds."""

    settings: TD3
    train: Development
    teacher: Trajectory
    model: Recommender
    synthetic: TuckerSequences
    real: SequenceRows
    features: Float[Tensor, "rows D"] | None
    rng: Streams
    context: RunContext

    @staticmethod
    def prepare(settings: TD3, train: Development, teacher: Trajectory, rng: Streams, context: RunContext) -> "_Task":
        model = teacher.model().to(context.device)
        factor = item_factor_of(teacher)
        synthetic = TuckerSequences(
            settings.num_rows,
            settings.length,
            settings.rank,
            factor,
            pad_column=settings.pad_column,
            generator=rng.torch("factors"),
        ).to(context.device)
        real = training_rows(train.histories, min(settings.length, model.max_seq_len), "prefixes")
        task = _Task(settings, train, teacher, model, synthetic, real, None, rng, context)
        if settings.feature_weight == 0:
            return task
        return _Task(settings, train, teacher, model, synthetic, real, task.teacher_features(), rng, context)

    @property
    def steps_per_epoch(self) -> int:
        return math.ceil(len(self.real) / self.settings.outer_batch_size)

    @property
    def total_steps(self) -> int:
        return self.steps_per_epoch * self.settings.epochs

    def outer_epoch(self, run: RunState) -> list[float]:
        """Take one outer step per batch of real prefixes; return the outer losses."""
        order = torch.arange(len(self.real))
        if self.settings.shuffle:
            order = torch.randperm(len(self.real), generator=generator_at(self.rng.integer("order"), run.epoch))
        carried: Student | None = None
        losses = []
        for rows in order.split(self.settings.outer_batch_size):
            start = carried or self.start(run.epoch if self.settings.pool_draw == "epoch" else run.step)
            loss, student = self.outer_step(run, start, rows)
            carried = student.fresh() if self.settings.carry_over else None
            losses.append(loss)
            self.context.progress("distill", run.step, self.total_steps, f"outer loss {loss:.3f}")
        return losses

    def outer_step(self, run: RunState, start: Student, rows: Tensor) -> tuple[float, Student]:
        """Move the factors once; return the outer loss and the student to carry on from."""
        settings = self.settings
        draw = generator_at(self.rng.integer("unroll"), run.step)
        inner_steps = random_unroll(settings.window, settings.max_inner_steps, draw)
        with torch.enable_grad():
            items = self.synthetic.rows().items()
            rows_read = self.reader.read(items)
        result = self.estimator(
            self.inner_loss(run.step, inner_steps), self.outer_loss(rows, run.step), start, rows_read, inner_steps
        )
        self.require_finite("outer loss", result.outer_loss, run.step)
        for group in run.optimizer.param_groups:
            group["lr"] = settings.outer_learning_rate * 0.5 * (1 + math.cos(math.pi * run.step / self.total_steps))
        run.optimizer.zero_grad(set_to_none=True)
        torch.autograd.backward(list(rows_read.values()), [result.gradient[name] for name in rows_read])
        norm = nn.utils.clip_grad_norm_(self.synthetic.parameters(), settings.clip_norm)
        self.require_finite("norm of the meta-gradient", norm, run.step)
        run.optimizer.step()
        run.step += 1
        return float(result.outer_loss), result.student

    @cached_property
    def estimator(self) -> Unroll:
        """How the meta-gradient is computed; recordings of the losses live in it."""
        settings = self.settings
        optimizer = Adam(learning_rate=settings.inner_learning_rate, weight_decay=settings.inner_weight_decay)
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

    def start(self, draw: int) -> Student:
        """Return a student, or as many as are trained together, with the weights of random early teacher epochs."""
        first, last = self.settings.pool
        last = min(last, self.teacher.num_epochs)
        generator = generator_at(self.rng.integer("pool"), draw)
        epochs = torch.randint(first, last + 1, (self.settings.learners,), generator=generator).tolist()
        students = [Student.of(self.on_device(self.teacher.weights(epoch))) for epoch in epochs]
        return students[0] if len(students) == 1 else Student.stack(students)

    def on_device(self, tensors: Tensors) -> Tensors:
        return {name: value.to(self.context.device) for name, value in tensors.items()}

    def judge(self, epoch: int) -> float:
        """Return the validation score of a fresh student trained on the current factors."""
        settings, rng = self.settings, self.rng.child(f"judge {epoch}")
        student = type(self.model)(**self.model.config, generator=rng.torch("init"))
        rows = self.synthetic.frozen_rows()
        if settings.judge_items == "given":
            student.load_item_table(rows.item_factor, freeze=False)
        fit(student, rows, settings.student_recipe(), rng)
        cases = evaluation_cases(self.train.histories, "valid")
        return evaluate(student, cases, protocol=settings.select_protocol).metrics()[settings.select_metric]

    def require_finite(self, what: str, value: Tensor, step: int) -> None:
        """Raise when a number of an outer step is NaN or infinite."""
        if not torch.isfinite(value):
            raise NumericalError(
                f"the {what} is {float(value)}",
                stage="distilling with td3",
                step=step + 1,
                cause=f"the student diverged; a smaller inner learning rate than "
                f"{self.settings.inner_learning_rate} often helps",
            )


def generator_seed(seed: int, outer_step: int) -> int:
    """Return the seed of one outer step's inner randomness."""
    return generator_at(seed, outer_step).initial_seed()
