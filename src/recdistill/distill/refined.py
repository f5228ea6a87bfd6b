"""Refined labels: real users with soft labels, moved by RaT-BPTT until students of several families do well on them.

It begins where a strong control ends: real users, each item followed by a distribution over the next one. Published
methods begin with uniform distributions and end below that control.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import ClassVar, Literal, TypeVar

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from recdistill.bilevel.optimizer import Adam, Student
from recdistill.bilevel.unroll import MetaResult, Unroll
from recdistill.data.batches import HardItems, mask_of
from recdistill.data.development import Development
from recdistill.data.rows import HardRows
from recdistill.data.sequences import EvaluationCases, SequenceRows, evaluation_cases, training_rows
from recdistill.distill.base import RunContext, Summary, check_budget, check_reads, check_room, item_factor_of
from recdistill.distill.coresets.herding import herd
from recdistill.distill.coresets.random_soft import RandomSoft, hidden_states, labelling_model
from recdistill.distill.coresets.representations import user_vectors
from recdistill.distill.coresets.selection import last_items, random_users, usable_users
from recdistill.distill.label_losses import BehaviourLoss, LabelledLoss, RealHistories, some_positions
from recdistill.distill.labels import Labels, label_basis
from recdistill.distill.mixture import mixture_queries, mixture_weights
from recdistill.distill.outer_loop import Learnt, OuterLoop
from recdistill.distill.peers import FAMILIES, Peer, peer_cache, peer_spec, train_peers
from recdistill.distill.soft_items import SoftReader
from recdistill.distill.student_losses import InnerSteps
from recdistill.distill.teacher import TeacherSpec
from recdistill.errors import OptionError, choose, require_above, require_at_least
from recdistill.evaluation.protocols import evaluate
from recdistill.models.base import Recommender
from recdistill.rng import Streams, generator_at
from recdistill.training.fit import TrainingRecipe, fit
from recdistill.training.trajectory import Trajectory

METRIC = "NDCG@10"
Number = TypeVar("Number", int, float)


@dataclass(frozen=True, kw_only=True)
class Refined:
    """Soft labels of real users, refined by RaT-BPTT for several families of students at once.

    The inputs are the last items of some users and stay as they are. The targets start from soft labels and are
    learnt: one query per position, whose distribution over the items is ``softmax(q F^T)`` with the teacher's item
    table ``F``. That is what *random rows + soft labels* stores too, so both have the same bytes; with
    ``users="random", labels="teacher", epochs=0`` both are the same.

    Each outer step takes a student of one family, trains it from random weights on the current labels with one of
    several recipes, and judges it on real histories by what *its own kind* does after training on the full data: the
    distribution of that model, and the items that really came next. Students stay for an epoch and grow older from
    step to step, so that labels are refined for early and for late training.

    When not to use the outer loop: ``epochs=0`` keeps the labels as they start and costs a fraction. Where bytes count
    and sequences do not, ``label_rank`` with more rows gives more than any outer step has given yet (``docs/log.md``).

    Reference: this library. It builds on Feng, Vedantam and Kempe, Embarrassingly Simple Dataset Distillation (the
    random truncated window), ICLR 2024, arXiv 2311.07025, and on knowledge distillation into soft labels.
    """

    method: ClassVar[str] = "refined"

    num_rows: int = 30
    """Users, at least 1."""
    length: int = 50
    """Items per user, at least 1 and at most what the teacher reads."""
    users: Literal["random", "herding"] = "random"
    """Whose items are the inputs: those of *random rows + soft labels* with the same seed, or users whose mean vector
    follows that of all as ``Herding`` chooses them, among those who fill a row (among all, where these are too few)."""
    labels: Literal["teacher", "peers"] = "peers"
    """Soft labels at the start: the teacher's, as *random rows + soft labels* has them, or those nearest to the mixture
    of the teacher's and the families' under which the validation events are most likely."""
    families: tuple[str, ...] = ("sasrec_32", "gru4rec_64", "narm_32", "bert4rec_32")
    """Families of students in the outer loop, from ``FAMILIES``; each is trained on the full data first."""
    peer_epochs: int = 200
    """Most epochs of that training, at least 1; it stops early on validation data."""
    behaviour: float = 0.5
    """Weight of a family's own distribution in the judgement, 0 to 1; the rest is for the items that came next."""
    exclude_seen: bool = True
    """Judge over the items that are not in the history, as ranking does."""
    epochs: int = 6
    """Outer epochs, 0 or more; with 0 the labels stay as they start."""
    steps_per_epoch: int = 60
    """Outer steps in each, at least 1."""
    families_per_step: int = 1
    """Families whose students share an outer step, with the mean of their gradients; 1 to the number of families."""
    outer_learning_rate: float = 0.02
    """Adam step size for the queries; falls to 0 along a cosine."""
    clip_norm: float = 1.0
    """Largest norm of the meta-gradient."""
    window: int = 12
    """Differentiated steps."""
    plain_steps: int = 40
    """Most plain steps of a student between two outer steps; uniform from 0."""
    inner_learning_rates: tuple[float, ...] = (0.001, 0.003, 0.005)
    """Adam step sizes of students, one drawn for each."""
    inner_batch_sizes: tuple[int, ...] = (10, 30)
    """Rows per inner step, one drawn for each student."""
    real_batch_size: int = 96
    """Real histories per outer step."""
    real_positions: int = 12
    """Positions judged in each, drawn with replacement."""
    judge_steps: int = 300
    """Adam steps of the fresh students that score the labels after every epoch, one of each family."""
    label_rank: int | None = None
    """Numbers kept of each label, 1 to the width of the teacher's item table: labels in the subspace that keeps most of
    what they say at the start. ``None`` for all. A quarter of the width loses little, and leaves room for more rows."""
    precision: Literal["float16", "float32"] = "float16"
    """Stored precision of the labels."""

    def __post_init__(self) -> None:
        """Check every field."""
        check_budget(self.num_rows, self.length, shortest=1)
        counts = ("steps_per_epoch", "window", "real_batch_size", "real_positions", "judge_steps", "peer_epochs")
        require_at_least(1, **{name: getattr(self, name) for name in counts})
        require_at_least(1, label_rank=self.label_rank)
        require_at_least(0, epochs=self.epochs, plain_steps=self.plain_steps)
        require_above(0, outer_learning_rate=self.outer_learning_rate, clip_norm=self.clip_norm)
        choose("users", self.users, dict.fromkeys(("random", "herding")))
        choose("labels", self.labels, dict.fromkeys(("teacher", "peers")))
        choose("precision", self.precision, dict.fromkeys(("float16", "float32")))
        if not 0 <= self.behaviour <= 1:
            raise OptionError("behaviour", self.behaviour, fix="must be from 0 to 1")
        for name in ("families", "inner_learning_rates", "inner_batch_sizes"):
            if not getattr(self, name):
                raise OptionError(name, "nothing", fix="must name one or more")
        for family in self.families:
            choose("families", family, FAMILIES)
        if not 1 <= self.families_per_step <= len(self.families):
            fix = f"must be from 1 to {len(self.families)}, the number of families"
            raise OptionError("families_per_step", self.families_per_step, fix=fix)
        for rate in self.inner_learning_rates:
            require_above(0, inner_learning_rates=rate)
        for size in self.inner_batch_sizes:
            require_at_least(1, inner_batch_sizes=size)

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
        """Return the rows with the labels that scored best on the validation part; ``previous`` is ignored."""
        task = self.task(train, teacher, rng, context)
        return self.summary(task, self.outer_loop().learn(task, context) if self.epochs else Learnt((), 0.0))

    def task(self, train: Development, teacher: Trajectory, rng: Streams, context: RunContext) -> "RefineTask":
        """Return what the outer loop learns, with the labels as they start.

        Raises:
            OptionError: the budget or an option does not fit the data or the teacher.
        """
        self.check(train)
        check_reads(self.num_rows, self.length, self.length, teacher)
        factor, model = item_factor_of(teacher), labelling_model(teacher)
        if self.label_rank is not None and self.label_rank > factor.shape[1]:
            most = f"must be at most {factor.shape[1]}, the width of the item table"
            raise OptionError("label_rank", self.label_rank, fix=most)
        rows = last_items(train, self.choose_users(train, model, rng), self.length)
        models = [model]
        with peer_cache(context) as cache:
            peers = self._train_peers(train, model.max_seq_len, rng.seed, cache, context)
            if self.labels == "peers":
                models += [peer.trajectory.model() for peer in peers]  # on the CPU, where the rows are
        weights = mixture_weights(models, evaluation_cases(train.histories, "valid"))
        labels = self.first_labels(models, weights, rows, factor).to(context.device)
        return RefineTask(self, train, labels, peers, rng, context)

    def summary(self, task: "RefineTask", learnt: Learnt) -> Summary:
        """Return the labels as they are now."""
        rows, spent = task.synthetic.stored(self.precision), sum(peer.trajectory.seconds for peer in task.peers)
        return Summary(rows, task.synthetic.item_factor.cpu(), learnt.trace, learnt.seconds, spent)

    def choose_users(self, train: Development, model: Recommender, rng: Streams) -> Int[np.ndarray, " N"]:
        """Return whose items are the inputs; ``model`` is the teacher."""
        if self.users == "random":  # those of the control, for paired comparisons
            return random_users(train, self.num_rows, Streams(rng.seed).child(RandomSoft.method))
        pool = usable_users(train)
        full = pool[train.histories.train_lengths()[pool] >= self.length]
        pool = full if len(full) >= self.num_rows else pool
        return pool[herd(user_vectors(model, train, pool), self.num_rows, rng.numpy("ties"))]

    def first_labels(
        self,
        models: Sequence[Recommender],
        weights: Float[Tensor, " M"],
        rows: HardRows,
        factor: Float[Tensor, "V R"],
    ) -> Labels:
        """Return the labels of a mixture of models, of which the first has the item table ``factor``."""
        queries, basis = hidden_states(models[0], rows), None
        if len(models) > 1:
            queries = mixture_queries(models, weights, rows, factor, queries)
        if self.label_rank is not None:
            basis = label_basis(queries[mask_of(rows.lengths, rows.length)], factor, self.label_rank)
            queries = mixture_queries(models, weights, rows, factor @ basis.T, queries @ basis.T)
        return Labels(rows, queries, factor, basis)

    def others(self, max_seq_len: int) -> list[TeacherSpec]:
        """Return the models that the method trains on the full data, beside the teacher."""
        return [peer_spec(name, max_seq_len, TrainingRecipe(epochs=self.peer_epochs)) for name in self._held_families()]

    def _held_families(self) -> tuple[str, ...]:  # none, where labels come from the teacher and stay as they start
        return self.families if self.labels == "peers" or self.epochs else ()

    def _train_peers(
        self, train: Development, max_seq_len: int, seed: int, cache: Path, context: RunContext
    ) -> list[Peer]:
        recipe = TrainingRecipe(epochs=self.peer_epochs)
        peers = train_peers(train, self._held_families(), max_seq_len, recipe, seed, cache, context)
        for peer in peers:
            if self.epochs and peer.score == 0:  # students are scored by their part of it
                fix = f"leaves {peer.family} with a validation {METRIC} of 0; give more, or another family"
                raise OptionError("peer_epochs", self.peer_epochs, fix=fix)
        return peers

    def outer_loop(self) -> OuterLoop:
        """Return how the queries move."""
        return OuterLoop(
            method=self.method,
            epochs=self.epochs,
            learning_rate=self.outer_learning_rate,
            weight_decay=0.0,
            clip_norm=self.clip_norm,
            metric=f"{METRIC} over that of full data",
            remedy=f"a student diverged; smaller rates than {self.inner_learning_rates} often help",
            judge_start=True,
        )


@dataclass(frozen=True, eq=False)
class _Way:
    """How students of one family are trained with one recipe; recordings of the losses live in the estimator."""

    reader: SoftReader
    loss: LabelledLoss
    estimator: Unroll


@dataclass
class _Held:
    """A student in training."""

    student: Student
    way: _Way


@dataclass(frozen=True, eq=False)
class RefineTask:
    """Everything of one run that does not change: data, models, seeds."""

    settings: Refined
    train: Development
    synthetic: Labels
    peers: list[Peer]
    rng: Streams
    context: RunContext
    _ways: dict[tuple[int, float, int], _Way] = field(default_factory=dict)

    @property
    def steps_per_epoch(self) -> int:
        """Outer steps in an epoch."""
        return self.settings.steps_per_epoch

    def steps(self, epoch: int) -> Iterator[MetaResult]:
        """Yield the meta-gradient of each step; the families take turns, each with one student for the epoch."""
        held: dict[int, _Held] = {}
        for index in range(self.steps_per_epoch):
            results = []
            for turn in self.turns(index):
                if turn not in held:
                    held[turn] = self.fresh(turn, epoch)
                results.append(self.outer_step(epoch * self.steps_per_epoch + index, turn, held[turn]))
                held[turn].student = results[-1].student
            yield _mean(results)

    def turns(self, index: int) -> list[int]:
        """Return the families of a step, by its number within the epoch."""
        share = self.settings.families_per_step
        return [number % len(self.peers) for number in range(index * share, (index + 1) * share)]

    def inner_steps(self, step: int) -> int:
        """Return how many steps each student of an outer step takes."""
        most, draw = self.settings.plain_steps, self.at("plain", step)
        return int(torch.randint(most + 1, (1,), generator=draw)) + self.settings.window

    @property
    def rehearsals(self) -> Sequence[int]:
        """Outer steps that stand for all: two rounds, in which every family has its turn."""
        return range(2 * len(self.peers))

    def rehearse(self, step: int) -> MetaResult:
        """Return the meta-gradient of a step by itself, with students that have just begun."""
        epoch, index = divmod(step, self.steps_per_epoch)
        return _mean([self.outer_step(step, turn, self.fresh(turn, epoch)) for turn in self.turns(index)])

    def fresh(self, turn: int, epoch: int) -> _Held:
        """Return a new student of a family and one of the recipes, the same for the same epoch."""
        settings, model, rng = self.settings, self.peers[turn].model, self.rng.child(f"student {turn}")
        draw = generator_at(rng.integer("recipe"), epoch)
        rate = _one_of(settings.inner_learning_rates, draw)
        size = min(_one_of(settings.inner_batch_sizes, draw), len(self.synthetic.rows))
        made = model.fresh(generator_at(rng.integer("init"), epoch))
        return _Held(Student.of(dict(made.named_parameters())), self.way(turn, rate, size))

    def way(self, turn: int, learning_rate: float, batch_size: int) -> _Way:
        """Return how a family is trained with a recipe."""
        key = (turn, learning_rate, batch_size)
        if key not in self._ways:
            model, engine = self.peers[turn].model, self.context.engine
            reader = SoftReader.choose(self.synthetic.items(), model.item_table_name, batch_size, engine.dense_bytes)
            loss = LabelledLoss(model, self.synthetic.rows, reader.reads, reader.sizes)
            estimator = engine.unroll(Adam(learning_rate=learning_rate), self.settings.window)
            self._ways[key] = _Way(reader, loss, estimator)
        return self._ways[key]

    def outer_step(self, step: int, turn: int, held: _Held) -> MetaResult:
        """Return the outer loss, its gradient in the queries and the student to carry on from."""
        with torch.enable_grad():
            read = held.way.reader.read(self.synthetic.items())
        inner = InnerSteps(held.way.loss, None, middle_seed=0, dropout_seed=self.at("dropout", step).initial_seed())
        result = held.way.estimator(inner, self.outer_loss(turn, step), held.student, read, self.inner_steps(step))
        bars = [result.gradient[name] for name in read]
        (gradient,) = torch.autograd.grad(list(read.values()), [self.synthetic.queries], bars)
        return replace(result, gradient={"queries": gradient})

    def outer_loss(self, turn: int, step: int) -> RealHistories:
        """Return the judgement of a student on some positions of real histories, beside the peer of its family."""
        draw, peer = self.at("real", step), self.peers[turn].model
        rows = torch.randint(len(self.real), (self.settings.real_batch_size,), generator=draw)
        batch = some_positions(self.real.batch(rows), self.settings.real_positions, draw).to(self.context.device)
        assert isinstance(batch.items, HardItems)
        with torch.no_grad():
            read = peer.embed(HardItems(batch.items.ids[:, :-1]))
            queries = peer.encode(read, batch.lengths, batch.positions)
        return RealHistories(self.behaviours[turn], batch, queries)

    @cached_property
    def behaviours(self) -> list[BehaviourLoss]:
        """The judgement of each family."""
        return [
            BehaviourLoss(
                peer.model,
                peer.model.item_table.detach()[1:].clone(),
                self.settings.behaviour,
                self.settings.exclude_seen,
            )
            for peer in self.peers
        ]

    @cached_property
    def real(self) -> SequenceRows:
        """Real histories, cut as training on the full data cuts them."""
        return training_rows(self.train.histories, self.peers[0].model.max_seq_len, "windows")

    @cached_property
    def valid(self) -> EvaluationCases:
        """The validation events."""
        return evaluation_cases(self.train.histories, "valid")

    def judge(self, epoch: int) -> float:
        """Return the mean over the families of a fresh student's score, each divided by that of its peer."""
        rows, steps = self.synthetic.stored("float32"), self.settings.judge_steps
        recipe = TrainingRecipe(learning_rate=0.003, max_steps=steps, epochs=steps, patience=None)
        ratios = []
        for turn, peer in enumerate(self.peers):
            rng = self.rng.child(f"judge {turn}")  # the same students after every epoch, so that labels are compared
            student = type(peer.model)(**peer.model.config, generator=rng.torch("init"))
            fit(student, rows, recipe, rng)
            ratios.append(evaluate(student, self.valid).metrics()[METRIC] / peer.score)
        return sum(ratios) / len(ratios)

    def at(self, name: str, step: int) -> torch.Generator:
        """Return the generator of one step."""
        return generator_at(self.rng.integer(name), step)


def _mean(results: Sequence[MetaResult]) -> MetaResult:
    """Return the mean outer loss and gradient of several students, with the last of them to carry on from."""
    loss = torch.stack([result.outer_loss for result in results]).mean()
    gradient = torch.stack([result.gradient["queries"] for result in results]).mean(0)
    return replace(results[-1], outer_loss=loss, gradient={"queries": gradient})


def _one_of(values: tuple[Number, ...], generator: torch.Generator) -> Number:
    return values[int(torch.randint(len(values), (1,), generator=generator))]
