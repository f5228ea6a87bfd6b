"""FOSTER: synthetic sequences learnt with first-order gradients, a sampled part of the catalogue at a time.

Student and synthetic rows move together: each outer step trains a copy of the student a little further on the rows,
compares, and moves both so that the student comes nearer to real data while it stays trained on the rows
(:mod:`recdistill.bilevel.first_order`). Now and then the student begins again at a checkpoint of the teacher.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from typing import Any, ClassVar, Literal

import torch
from jaxtyping import Float
from torch import Tensor

from recdistill.bilevel.first_order import BARRIERS, BOME
from recdistill.bilevel.optimizer import AdamW, Student, Tensors
from recdistill.bilevel.unroll import MetaResult, Unroll, random_unroll
from recdistill.data.batches import OBJECTIVES, SequenceBatch
from recdistill.data.development import Development
from recdistill.data.sequences import EvaluationCases, SequenceRows, evaluation_cases, training_rows
from recdistill.distill.base import RunContext, Summary, check_budget, check_reads, check_room, item_vectors
from recdistill.distill.candidates import ITEMS, STEPS, CandidateItems
from recdistill.distill.distributional import FORMS, DistributionalLoss, Places
from recdistill.distill.foster_losses import RealBatch, Regulariser, SyntheticSteps
from recdistill.distill.outer_loop import Learnt, OuterLoop
from recdistill.distill.student_starts import StudentStarts
from recdistill.distill.synthetic import TuckerSequences
from recdistill.errors import OptionError, choose, require_above, require_at_least
from recdistill.evaluation.metrics import METRIC_NAMES
from recdistill.evaluation.protocols import evaluate
from recdistill.models.base import Recommender
from recdistill.rng import Streams, generator_at
from recdistill.training.fit import TrainingRecipe, fit
from recdistill.training.trajectory import Trajectory

RESETS = {"trajectory": "pool", "random": "random", "none": "pool"}
"""Where a student begins again, and the kind of start that stands for it; ``none`` begins once."""

CHOICES: dict[str, dict[str, Any]] = {
    "gradient": dict.fromkeys(("first_order", "unroll")),
    "barrier": dict.fromkeys(BARRIERS),
    "reset": RESETS,
    "items": ITEMS,
    "objective": dict.fromkeys(OBJECTIVES),
    "regulariser": FORMS,
    "judge_items": dict.fromkeys(("random", "given")),
    "select_metric": dict.fromkeys(METRIC_NAMES),
}


@dataclass(frozen=True, kw_only=True)
class FOSTER:
    """First-order dataset distillation for text-based sequential recommendation; for models of item numbers too.

    The defaults are the paper's settings where it states them, and ours where its text is lost. Any model can be the
    teacher: over item texts (:class:`~recdistill.models.text.TextRecommender`) a step encodes the sampled items alone;
    over item numbers this is a fast way to what TD3 learns.

    When not to use it: over item numbers and a catalogue that fits into memory, TD3's gradient goes through training
    and is the better one.

    Reference: FOSTER: First-order Dataset Distillation for Text-based Sequential Recommendation, arXiv 2605.30772.

    Departures: equations 3 to 21 are rebuilt from the prose, BOME and TD3. The softmax runs over the sampled items. The
    strength of the barrier, ranks, weight and form of the regulariser are ours. The student's own loss is that of its
    model: the binary loss of text models has one uniform negative per target. Feature matching is a mean over
    positions and width. AdamW takes the barrier's direction for a gradient. Weights are reset with their moments.
    """

    method: ClassVar[str] = "foster"

    num_rows: int = 20
    """Synthetic sequences (mu), at least 1."""
    length: int = 20
    """Items per synthetic sequence (zeta), at least 4."""
    rank: int = 16
    """Rank of the user and of the time factor (d1 = d2), at least 1."""
    epochs: int = 20
    """Epochs of ``steps_per_epoch`` outer steps, each followed by a judgement; 0 for the rows as they begin."""
    steps_per_epoch: int = 100
    """Outer steps in an epoch, at least 1."""
    outer_learning_rate: float = 1e-3
    """AdamW step size of the factors, above 0."""
    outer_weight_decay: float = 1e-4
    """Decoupled decay of the factors."""
    outer_batch_size: int = 64
    """Real rows per outer step, every position of which is predicted."""
    items: str = "sampled"
    """Items in the synthetic part: ``sampled`` in every step, ``all``, or those nearest to ``kmeans`` centroids."""
    num_candidates: int = 512
    """Sampled items, or centroids (N); at least 2. All, where the catalogue has no more."""
    gradient: Literal["first_order", "unroll"] = "first_order"
    """Dynamic barrier, or RaT-BPTT through the student's training (the bi-level ablation)."""
    inner_steps: int = 10
    """First order: steps of the student's copy (T), at least 1."""
    inner_learning_rate: float = 2e-4
    """AdamW step size of students, above 0."""
    copy_learning_rate: float | None = None
    """First order: AdamW step size of the copy, above 0; ``None`` for that of students."""
    inner_weight_decay: float = 0.0
    """Decoupled decay of students."""
    window: int = 20
    """Unrolled: differentiated steps."""
    max_inner_steps: int = 40
    """Unrolled: longest unroll."""
    barrier: str = "gradient"
    """What the gap is to fall by: ``gradient`` (eta times its squared slope) or ``value`` (eta times the gap)."""
    eta: float = 0.5
    """Strength of the barrier, above 0."""
    blockwise: bool = False
    """A multiplier for the student and one for the rows, in place of one for both."""
    reset: str = "trajectory"
    """Where the student begins again: at an epoch of the teacher's ``trajectory``, at ``random`` weights, or not
    (``none``)."""
    reset_every: int = 100
    """Outer steps between two beginnings (R), at least 1."""
    pool: tuple[int, int] = (0, 1000)
    """First and last teacher epoch that a student may start from; the last is cut to those there are."""
    objective: str = "all"
    """Targets of the student in synthetic rows: ``all``, ``last`` or ``last_and_middle``."""
    feature_weight: float = 1.0
    """Weight of feature matching; 0 switches it off."""
    regulariser_weight: float = 0.1
    """Weight of the distributional regulariser (beta); 0 switches it off."""
    regulariser: str = "align"
    """Its form, ``align`` or ``pull``."""
    regulariser_pairs: int = 256
    """Pairs of items per step."""
    judge_steps: int = 400
    """Most steps of the fresh student that scores the result of every epoch; it is validated ten times."""
    judge_learning_rate: float = 2e-4
    """AdamW step size of that student."""
    judge_weight_decay: float = 1e-4
    """Decoupled decay of that student."""
    judge_items: Literal["random", "given"] = "random"
    """Its item table, where it has one: at random, or started from the item factor."""
    judge_cases: int = 5000
    """Most validation events that it is scored on."""
    select_metric: str = "HR@10"
    """Metric of that score, in full ranking; HR is Recall where one item is held out."""

    def __post_init__(self) -> None:
        """Check every field."""
        check_budget(self.num_rows, self.length, shortest=4)
        counts = ["rank", "steps_per_epoch", "outer_batch_size", "inner_steps", "window", "reset_every"]
        counts += ["regulariser_pairs", "judge_steps", "judge_cases"]
        require_at_least(1, **{name: getattr(self, name) for name in counts})
        require_at_least(2, num_candidates=self.num_candidates)
        rates = ("outer_learning_rate", "inner_learning_rate", "judge_learning_rate", "eta")
        require_above(0, copy_learning_rate=self.copy_learning_rate, **{name: getattr(self, name) for name in rates})
        weights = ["outer_weight_decay", "inner_weight_decay", "judge_weight_decay"]
        weights += ["feature_weight", "regulariser_weight"]
        require_at_least(0, epochs=self.epochs, **{name: getattr(self, name) for name in weights})
        if self.max_inner_steps < self.window:
            raise OptionError("max_inner_steps", self.max_inner_steps, fix=f"must be at least window {self.window}")
        if not 0 <= self.pool[0] <= self.pool[1]:
            raise OptionError("pool", self.pool, fix="must be two epochs, the first not after the last, from 0")
        for name, choices in CHOICES.items():
            choose(name, getattr(self, name), choices)

    def check(self, train: Development) -> None:
        """Raise when the budget is larger than the data."""
        check_room(self.num_rows, self.length, train)

    def outer_loop(self) -> OuterLoop:
        """Return how the factors move."""
        return OuterLoop(
            method=self.method,
            epochs=self.epochs,
            learning_rate=self.outer_learning_rate,
            weight_decay=self.outer_weight_decay,
            decoupled=True,
            schedule="constant",
            clip_norm=None,
            metric=self.select_metric,
            remedy=f"a smaller inner learning rate than {self.inner_learning_rate} often helps",
        )

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
        return self.summary(task, self.outer_loop().learn(task, context) if self.epochs else Learnt((), 0.0))

    def task(self, train: Development, teacher: Trajectory, rng: Streams, context: RunContext) -> "FosterTask":
        """Return what the outer loop learns.

        Raises:
            OptionError: the budget or an option does not fit the data or the teacher.
        """
        self.check(train)
        check_reads(self.num_rows, self.length, self.length, teacher)
        return FosterTask.prepare(self, train, teacher, rng, context)

    def summary(self, task: "FosterTask", learnt: Learnt) -> Summary:
        """Return the rows as they are now."""
        return Summary(task.synthetic.frozen_rows(), task.item_factor, learnt.trace, learnt.seconds)

    def judge_recipe(self) -> TrainingRecipe:
        """Return how a judging student is trained."""
        return TrainingRecipe(
            learning_rate=self.judge_learning_rate,
            weight_decay=self.judge_weight_decay,
            optimizer="adamw",
            batch_size=self.num_rows,
            objective=self.objective,
            steps_per_epoch=max(1, self.judge_steps // JUDGEMENTS),
            epochs=self.judge_steps,
            max_steps=self.judge_steps,
            patience=JUDGEMENTS,
        )


JUDGEMENTS = 10
"""Validations of a judging student."""


@dataclass(frozen=True, eq=False)
class FosterTask:
    """Everything of one run that does not change, and the student that is carried on."""

    settings: FOSTER
    train: Development
    teacher: Recommender
    item_factor: Float[Tensor, "V R"]
    model: Recommender
    synthetic: TuckerSequences
    real: SequenceRows
    starts: StudentStarts
    candidates: CandidateItems
    rng: Streams
    context: RunContext
    held: list[Student] = field(default_factory=list)

    @staticmethod
    def prepare(
        settings: FOSTER, train: Development, teacher: Trajectory, rng: Streams, context: RunContext
    ) -> "FosterTask":
        """Return the task of a run."""
        device, model = context.device, teacher.model().to(context.device)
        fixed = model.fixed()  # the whole catalogue is encoded here, once
        factor = item_vectors(fixed).cpu()
        synthetic = TuckerSequences(
            settings.num_rows,
            settings.length,
            settings.rank,
            factor,
            pad_column=False,
            generator=rng.torch("factors"),
        )
        return FosterTask(
            settings=settings,
            train=train,
            teacher=fixed,
            item_factor=factor,
            model=model,
            synthetic=synthetic.to(device),
            real=training_rows(train.histories, min(settings.length, model.max_seq_len), "windows"),
            starts=StudentStarts(RESETS[settings.reset], settings.pool, teacher, model, rng),
            candidates=CandidateItems.make(settings.items, settings.num_candidates, factor, rng),
            rng=rng,
            context=context,
        )

    @property
    def steps_per_epoch(self) -> int:
        """Outer steps."""
        return self.settings.steps_per_epoch

    def steps(self, epoch: int) -> Iterator[MetaResult]:
        """Yield the direction for the factors at each outer step, and carry the student on."""
        for step in range(epoch * self.steps_per_epoch, (epoch + 1) * self.steps_per_epoch):
            result = self.outer_step(step, self.student(step))
            self.held[:] = [result.student]
            yield result

    def student(self, step: int) -> Student:
        """Return the student of a step: a new one, or the one that is carried on."""
        settings = self.settings
        begins = settings.gradient == "unroll" or (settings.reset != "none" and step % settings.reset_every == 0)
        if begins or not self.held:
            return self.starts.draw(0 if settings.reset == "none" else step)
        return self.held[0]

    def carried(self) -> Tensors:
        """Return the student that the next epoch begins with, for the state of the run."""
        if not self.held:
            return {}
        student = self.held[0]
        moments = {f"moment {index}": value for index, value in enumerate(student.moments)}
        return {"weights": student.weights, "step": torch.tensor(student.step)} | moments

    def carry_on(self, carried: Tensors) -> None:
        """Take the student of a run that is continued."""
        if carried:
            here = {name: value.to(self.context.device) for name, value in carried.items()}
            moments = tuple(here[f"moment {index}"] for index in range(len(here) - 2))
            self.held[:] = [Student(here["weights"], self.starts.draw(0).layout, moments, int(here["step"]))]

    def outer_step(self, step: int, student: Student) -> MetaResult:
        """Return the outer loss, the direction for the factors and the student after the step."""
        parameters = {name: value.detach() for name, value in self.synthetic.named_parameters()}
        inner_steps = self.inner_steps(step)
        outer = self.outer_loss(step, inner_steps)
        return self.estimator(self.inner_loss(step), outer, student, parameters, inner_steps)

    def inner_loss(self, step: int) -> SyntheticSteps:
        """Return the student's loss in the inner steps of an outer step."""
        middle = self.rng.integer("middle")
        return SyntheticSteps(
            self.model,
            self.synthetic.item_factor,
            partial(self.candidates.draw, step),
            self.settings.objective,
            lambda turn: generator_at(middle, step * STEPS + turn),
        )

    @property
    def rehearsals(self) -> Sequence[int]:
        """Outer steps that stand for all: first-order steps are alike, unrolls are short and long."""
        return sorted(range(16), key=self.inner_steps)[::3]

    def rehearse(self, step: int) -> MetaResult:
        """Return the direction of a step by itself, for a student that has just begun."""
        return self.outer_step(step, self.starts.draw(step))

    def inner_steps(self, step: int) -> int:
        """Return how many steps the student, or its copy, takes in an outer step."""
        settings = self.settings
        if settings.gradient == "first_order":
            return settings.inner_steps
        return random_unroll(settings.window, settings.max_inner_steps, generator_at(self.rng.integer("unroll"), step))

    @cached_property
    def estimator(self) -> BOME | Unroll:
        """How the direction is found."""
        settings = self.settings
        optimizer = AdamW(learning_rate=settings.inner_learning_rate, weight_decay=settings.inner_weight_decay)
        if settings.gradient == "unroll":
            return self.context.engine.unroll(optimizer, settings.window)
        return BOME(
            optimizer=replace(optimizer, learning_rate=settings.copy_learning_rate or optimizer.learning_rate),
            student_optimizer=optimizer,
            eta=settings.eta,
            barrier=settings.barrier,
            blockwise=settings.blockwise,
        )

    def outer_loss(self, step: int, turn: int) -> RealBatch:
        """Return the judgement of an outer step; its regulariser sees the candidates of the inner step ``turn``."""
        settings, draw = self.settings, generator_at(self.rng.integer("real"), step)
        rows = torch.randint(len(self.real), (settings.outer_batch_size,), generator=draw)
        batch = self.model.sampled(self.real.batch(rows), draw).to(self.context.device)
        return RealBatch(self.model, batch, self.features(batch), settings.feature_weight, self.regulariser(step, turn))

    def regulariser(self, step: int, turn: int) -> Regulariser | None:
        """Return the regulariser of an outer step; ``None`` where it has no weight."""
        settings = self.settings
        if settings.regulariser_weight == 0:
            return None
        chosen, factor = self.candidates.draw(step, turn), self.synthetic.item_factor
        count = len(factor) if chosen is None else len(chosen)
        draw = generator_at(self.rng.integer("pairs"), step)
        places = Places.draw(settings.regulariser_pairs, settings.num_rows, settings.length, count, draw)
        loss = DistributionalLoss(self.teacher, settings.regulariser)
        return Regulariser(loss, settings.regulariser_weight, factor, chosen, places)

    @torch.no_grad()
    def features(self, batch: SequenceBatch) -> Float[Tensor, "B T D"] | None:
        """Return the teacher's hidden vectors at all inputs of a batch."""
        if self.settings.feature_weight == 0:
            return None
        return self.teacher.encode(self.teacher.embed(batch.items)[:, :-1], batch.lengths)

    @cached_property
    def cases(self) -> EvaluationCases:
        """The validation events of every judgement."""
        some = evaluation_cases(self.train.histories, "valid")
        return some.some(self.settings.judge_cases, self.rng.numpy("cases"))

    def judge(self, epoch: int) -> float:
        """Return the best validation score of a fresh student in its training on the current rows."""
        settings, rng = self.settings, self.rng.child(f"judge {epoch}")
        student = self.model.fresh(rng.torch("init"))
        if settings.judge_items == "given":
            student.load_item_table(self.item_factor, freeze=False)

        def validate(current: Recommender) -> float:
            return evaluate(current, self.cases).metrics()[settings.select_metric]

        result = fit(student, self.synthetic.frozen_rows(), settings.judge_recipe(), rng, validate=validate)
        return max(result.scores)
