"""FOSTER on a log of thirty users: one outer step against plain autograd, candidates, resets, resuming, texts.

Every gradient and the multiplier of a step are computed a second time, by autograd on one graph. Not proved: accuracy
on real data, for which ``results/`` has figures.
"""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.func import functional_call

from recdistill.bilevel.optimizer import AdamW, Student
from recdistill.data.batches import SoftItems, supervise
from recdistill.data.development import Development
from recdistill.data.distilled import DistilledDataset
from recdistill.data.rows import TuckerRows, soft_batch
from recdistill.data.sequences import evaluation_cases
from recdistill.data.text import Catalogue
from recdistill.distill import DISTILLERS
from recdistill.distill.base import RunContext, Summary
from recdistill.distill.candidates import CandidateItems, nearest_to_centroids
from recdistill.distill.distributional import DistributionalLoss, Places
from recdistill.distill.foster import FOSTER, FosterTask
from recdistill.distill.run import distill
from recdistill.distill.teacher import TeacherSpec, teach
from recdistill.errors import NumericalError, OptionError
from recdistill.evaluation.protocols import evaluate
from recdistill.models.text import TextRecommender
from recdistill.rng import Streams, generator_at
from recdistill.study.students import StudentSpec, train_student
from recdistill.training.fit import TrainingRecipe
from recdistill.training.trajectory import Trajectory
from reference.encoders import described, tiny_encoder
from reference.tiny import NUM_ITEMS, development, histories_of_lists, random_histories

# the first use of forward mode in a process compiles some of its formulas with a part of torch that torch deprecates
pytestmark = pytest.mark.filterwarnings("ignore:.torch.jit.script. is deprecated:DeprecationWarning")

TINY = FOSTER(
    num_rows=4,
    length=6,
    rank=2,
    epochs=2,
    steps_per_epoch=3,
    outer_batch_size=8,
    num_candidates=7,
    inner_steps=2,
    window=2,
    max_inner_steps=3,
    reset_every=2,
    judge_steps=10,
    regulariser_pairs=16,
)
TEXT: dict[str, Any] = {
    "encoder": tiny_encoder(),
    "max_tokens": 16,
    "embedding_dim": 8,
    "candidates": 7,
    "body_options": {"num_blocks": 1, "inner_dim": 6, "dropout": 0.0, "attention_dropout": 0.0},
}


@pytest.fixture(scope="session")
def texts() -> Development:
    """The same thirty users, with items that have titles."""
    return development(random_histories(30, seed=3), items=described(NUM_ITEMS))


@pytest.fixture(scope="session")
def reader(texts: Development, tmp_path_factory: pytest.TempPathFactory) -> Trajectory:
    """A text model trained for three epochs on ``texts``."""
    spec = TeacherSpec(model="text", config=TEXT, max_seq_len=8, recipe=TrainingRecipe(epochs=3, learning_rate=0.01))
    return teach(texts, spec, 0, tmp_path_factory.mktemp("cache"))


def task_of(settings: FOSTER, train: Development, teacher: Trajectory, **context: Any) -> FosterTask:
    return settings.task(train, teacher, Streams(0), RunContext(**context))


def double(task: FosterTask, teacher: Trajectory) -> FosterTask:
    """Return a task in float64 with rows far from uniform."""
    task.synthetic.double()
    task.model.double()
    with torch.no_grad():
        generator = torch.Generator().manual_seed(1)
        for factor in task.synthetic.parameters():
            factor.copy_(torch.randn(factor.shape, dtype=torch.float64, generator=generator))
    return replace(task, teacher=task.model.fixed())


def student_of(task: FosterTask) -> Student:
    return Student.of({name: value for name, value in task.model.named_parameters() if value.requires_grad})


class Slow:
    """One outer step, by autograd on whole graphs."""

    def __init__(self, task: FosterTask, student: Student, step: int) -> None:
        self.task, self.step = task, step
        self.weights = {name: value.clone().requires_grad_() for name, value in student.params.items()}
        self.factors = {
            name: value.detach().clone().requires_grad_() for name, value in task.synthetic.named_parameters()
        }

    def candidates(self, turn: int) -> Tensor:
        chosen = self.task.candidates.draw(self.step, turn)
        return torch.arange(1, NUM_ITEMS + 1) if chosen is None else chosen

    def probabilities(self, turn: int) -> Tensor:
        """Return the synthetic distributions over the candidates, written out."""
        factors, keys = self.factors, self.task.synthetic.item_factor
        queries = torch.einsum("ijk,ai,bj->abk", factors["core"], factors["user_factor"], factors["time_factor"])
        return torch.softmax(queries @ keys[self.candidates(turn) - 1].T, -1)

    def inner(self, weights: dict[str, Tensor], turn: int) -> Tensor:
        """Return the divergence of the student from the rows, over the candidates of a turn."""
        probabilities = self.probabilities(turn)
        model = _With(self.task.model, self.candidates(turn), probabilities)
        prefixed = {f"model.{name}": value for name, value in weights.items()}
        logits = functional_call(model, prefixed, ())
        return -(probabilities[:, 1:] * torch.log_softmax(logits, -1)).sum(-1).mean()

    def outer(self) -> Tensor:
        task = self.task
        batch = task.outer_loss(self.step, task.settings.inner_steps).batch
        value, hidden = functional_call(task.model, self.weights, (batch,))
        features = task.teacher.encode(task.teacher.embed(batch.items)[:, :-1], batch.lengths).detach()
        total = torch.zeros((), dtype=torch.float64)
        for row, length in enumerate(batch.lengths.tolist()):
            total = total + (hidden[row, :length] - features[row, :length]).square().mean(-1).sum()
        value = value + task.settings.feature_weight * total / batch.weights.sum()
        turn = task.settings.inner_steps
        items = TuckerRows(**self.factors, item_factor=task.synthetic.item_factor).items()
        chosen = self.candidates(turn)
        places = Places.draw(16, 4, 6, len(chosen), generator_at(task.rng.integer("pairs"), self.step))
        loss = DistributionalLoss(task.teacher, "align")(items.subset(chosen), places)
        return value + task.settings.regulariser_weight * loss

    def gradients(self, value: Tensor) -> tuple[Tensor, Tensor]:
        """Return the derivative in the weights and in the factors, each as one vector."""
        leaves = [*self.weights.values(), *self.factors.values()]
        found = torch.autograd.grad(value, leaves, allow_unused=True, materialize_grads=True)
        count = len(self.weights)
        return tuple(torch.cat([part.flatten() for part in parts]) for parts in (found[:count], found[count:]))


class _With(torch.nn.Module):
    """What a model says after rows of distributions over candidates: logits of the candidates."""

    def __init__(self, model: Any, chosen: Tensor, probabilities: Tensor) -> None:
        super().__init__()
        self.model, self.chosen, self.probabilities = model, chosen, probabilities

    def forward(self) -> Tensor:
        table = self.model.item_table[self.chosen]
        lengths = torch.full((len(self.probabilities),), self.probabilities.shape[1] - 1)
        return self.model.encode((self.probabilities @ table)[:, :-1], lengths) @ table.T


@pytest.mark.parametrize("kind", ["text", "sasrec"])
@pytest.mark.parametrize("items", ["sampled", "all"])
def test_a_step_is_that_of_plain_autograd(
    kind: str, items: str, texts: Development, reader: Trajectory, teacher: Trajectory
) -> None:
    rate = 1e-3 if items == "all" else 2e-4
    settings = replace(TINY, items=items, copy_learning_rate=rate if items == "all" else None)
    task = double(task_of(settings, texts, reader if kind == "text" else teacher), teacher)
    student, step = student_of(task), 5
    result = task.outer_step(step, student)
    slow = Slow(task, student, step)
    trained = student.fresh()
    for turn in range(settings.inner_steps):
        weights = {name: value.detach().requires_grad_() for name, value in trained.params.items()}
        gradient = torch.autograd.grad(
            slow.inner(weights, turn), list(weights.values()), allow_unused=True, materialize_grads=True
        )
        flat = torch.cat([g.flatten() for g in gradient])
        trained = AdamW(learning_rate=rate, weight_decay=0.0).update(trained, flat)
    turn = settings.inner_steps
    gap = slow.inner(slow.weights, turn) - slow.inner({k: v.detach() for k, v in trained.params.items()}, turn)
    outer_weights, outer_factors = slow.gradients(slow.outer())
    gap_weights, gap_factors = slow.gradients(gap)
    agreement = outer_weights @ gap_weights + outer_factors @ gap_factors
    slope = gap_weights @ gap_weights + gap_factors @ gap_factors
    multiplier = max((0.5 * slope - agreement) / slope, torch.zeros(()))
    assert result.notes["multiplier"] == pytest.approx(multiplier.item(), rel=1e-6)
    assert result.notes["gap"] == pytest.approx(gap.item(), rel=1e-6, abs=1e-9)
    expected = outer_factors + multiplier * gap_factors
    found = torch.cat([result.gradient[name].flatten() for name in slow.factors])
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-9)
    direction = outer_weights + multiplier * gap_weights
    barrier = gap_weights @ direction + gap_factors @ expected
    assert float(barrier) >= 0.5 * float(slope) * (1 - 1e-9)
    moved = AdamW(learning_rate=2e-4, weight_decay=0.0).update(student.fresh(), direction)
    torch.testing.assert_close(result.student.weights, moved.weights, rtol=1e-9, atol=1e-12)


def test_as_many_candidates_as_items_are_all_items(train: Development, teacher: Trajectory) -> None:
    one = task_of(replace(TINY, num_candidates=NUM_ITEMS), train, teacher)
    other = task_of(replace(TINY, items="all"), train, teacher)
    ours, theirs = (task.outer_step(0, task.student(0)) for task in (one, other))
    assert all(torch.equal(ours.gradient[name], theirs.gradient[name]) for name in ours.gradient)


def test_the_divergence_over_all_items_is_that_of_td3(train: Development, teacher: Trajectory) -> None:
    """Equation 19 to 21 with every item is TD3's inner loss at all positions."""
    task = task_of(replace(TINY, items="all"), train, teacher)
    rows = task.synthetic.frozen_rows()
    batch = soft_batch(rows.items(), 4, 6)
    student, factors = student_of(task), {name: value.detach() for name, value in task.synthetic.named_parameters()}
    found = task.inner_loss(0)(student.params, factors, 0)
    torch.testing.assert_close(found, task.model.loss(supervise(batch, "all")))


# Candidates


def test_candidates_are_drawn_anew_in_every_inner_step() -> None:
    rule = CandidateItems.make("sampled", 7, torch.randn(NUM_ITEMS, 3), Streams(0))
    drawn = [tuple(sorted(rule.draw(outer, inner).tolist())) for outer in range(4) for inner in range(4)]  # type: ignore[union-attr]
    assert all(len(set(one)) == 7 for one in drawn)
    assert min(map(min, drawn)) >= 1
    assert max(map(max, drawn)) <= NUM_ITEMS
    assert len(set(drawn)) == 16
    counts = np.bincount([item for one in drawn for item in one], minlength=NUM_ITEMS + 1)
    assert counts[0] == 0
    assert (counts[1:] > 0).all()


def test_kmeans_takes_the_items_nearest_to_the_centroids() -> None:
    generator = torch.Generator().manual_seed(0)
    centers = 10 * torch.eye(3)
    points = torch.cat([center + 0.1 * torch.randn(6, 3, generator=generator) for center in centers])
    chosen = nearest_to_centroids(points, 3, np.random.default_rng(0))
    means = points.view(3, 6, 3).mean(1)
    expected = [
        int((points[6 * one : 6 * one + 6] - means[one]).norm(dim=1).argmin()) + 6 * one + 1 for one in range(3)
    ]
    assert chosen.tolist() == expected
    rule = CandidateItems.make("kmeans", 3, points, Streams(0))
    first, later = rule.draw(0, 0), rule.draw(5, 3)
    assert first is not None
    assert later is not None
    assert torch.equal(first, later)


# Where students begin


def starts_of(task: FosterTask, steps: int) -> list[bool]:
    """Return at which steps the student is another than the one that the step before left."""
    found, before = [], None
    for step in range(steps):
        student = task.student(step)
        found.append(before is None or not torch.equal(student.weights, before.weights))
        before = task.outer_step(step, student).student
        task.held[:] = [before]
    return found


@pytest.mark.parametrize(
    ("reset", "begins"),
    [
        ("trajectory", [True, False, True, False, True]),
        ("random", [True, False, True, False, True]),
        ("none", [True, False, False, False, False]),
    ],
)
def test_students_begin_again_when_they_should(
    reset: str, begins: list[bool], train: Development, teacher: Trajectory
) -> None:
    task = task_of(replace(TINY, reset=reset), train, teacher)
    assert starts_of(task, 5) == begins


def test_students_begin_at_epochs_of_the_teacher(train: Development, teacher: Trajectory) -> None:
    task = task_of(replace(TINY, pool=(1, 2)), train, teacher)
    known = [Student.of(teacher.weights(epoch)).weights for epoch in (1, 2)]
    for step in range(0, 12, 2):
        student = task.student(step)
        assert student.step == 0
        assert not student.moments
        assert any(torch.equal(student.weights, one) for one in known)
        task.held.clear()


def test_the_unrolled_gradient_begins_anew_in_every_step(train: Development, teacher: Trajectory) -> None:
    task = task_of(replace(TINY, gradient="unroll", reset="random"), train, teacher)
    assert starts_of(task, 3) == [True, True, True]
    assert not task.outer_step(0, task.student(0)).notes


# A run


def made_by(settings: FOSTER, train: Development, teacher: Trajectory, **context: Any) -> Summary:
    return settings.distill(train, teacher, None, Streams(0), RunContext(**context))


@pytest.mark.parametrize("reset", ["trajectory", "none"])
@pytest.mark.parametrize("kind", ["text", "sasrec"])
def test_a_killed_run_goes_on_to_the_same_rows(
    kind: str, reset: str, texts: Development, reader: Trajectory, teacher: Trajectory, tmp_path: Path
) -> None:
    settings, model = replace(TINY, reset=reset, epochs=3), reader if kind == "text" else teacher
    whole = made_by(settings, texts, model)

    class KilledError(Exception):
        pass

    def kill(stage: str, done: int, total: int, note: str = "") -> None:
        if stage == "distill" and done == 7:
            raise KilledError

    state = tmp_path / "state"
    with pytest.raises(KilledError):
        made_by(settings, texts, model, state=state, progress=kill)
    assert state.exists()
    again = made_by(settings, texts, model, state=state)
    assert not state.exists()
    ours, theirs = whole.rows.tensors(), again.rows.tensors()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)
    assert again.trace == whole.trace


def test_the_trace_tells_the_multiplier_and_how_often_it_was_zero(train: Development, teacher: Trajectory) -> None:
    trace = made_by(TINY, train, teacher).trace
    assert len(trace) == 2
    for one in trace:
        assert {"outer_loss", "valid_HR@10", "gap", "agreement", "slope", "multiplier", "multiplier_zero"} <= one.keys()
        assert one["multiplier"] >= 0
        assert one["multiplier_zero"] in (0, 1 / 3, 2 / 3, 1)


def test_no_epochs_give_the_rows_as_they_begin(train: Development, teacher: Trajectory) -> None:
    settings = replace(TINY, epochs=0)
    summary = made_by(settings, train, teacher)
    expected = task_of(settings, train, teacher).synthetic.frozen_rows()
    for name, value in expected.tensors().items():
        torch.testing.assert_close(summary.rows.tensors()[name], value, rtol=0, atol=0)
    assert summary.trace == ()


def test_a_divergence_is_told(train: Development, teacher: Trajectory) -> None:
    task = task_of(TINY, train, teacher)
    with torch.no_grad():
        task.synthetic.core.fill_(float("nan"))
    with pytest.raises(NumericalError, match="distilling with foster, step 1"):
        TINY.outer_loop().learn(task, RunContext())


def test_the_regulariser_alone_moves_rows_whose_multiplier_is_zero(train: Development, teacher: Trajectory) -> None:
    task = task_of(replace(TINY, regulariser_weight=0.0, eta=1e-9), train, teacher)
    for step in range(20):
        result = task.outer_step(step, task.student(0))
        if result.notes["multiplier"] == 0:
            assert all(value.abs().max() == 0 for value in result.gradient.values())
            with_it = task_of(replace(TINY, eta=1e-9), train, teacher)
            assert with_it.outer_step(step, with_it.student(0)).gradient["core"].abs().max() > 0
            return
    pytest.fail("no step had a multiplier of 0")


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"items": "some"}, "items.*choose from sampled, all, kmeans"),
        ({"reset": "never"}, "reset.*choose from trajectory, random, none"),
        ({"regulariser": "push"}, "regulariser.*choose from align, pull"),
        ({"barrier": "wall"}, "barrier"),
        ({"num_candidates": 1}, "num_candidates: 1 must be 2 or more"),
        ({"eta": 0.0}, "eta: 0.0 must be above 0"),
        ({"copy_learning_rate": 0.0}, "copy_learning_rate: 0.0 must be above 0"),
        ({"pool": (3, 2)}, "pool"),
        ({"max_inner_steps": 1}, "max_inner_steps: 1 must be at least window 2"),
        ({"select_metric": "R@10"}, "select_metric.*did you mean"),
    ],
)
def test_options_that_cannot_be_are_refused(options: dict[str, Any], told: str) -> None:
    with pytest.raises(OptionError, match=told):
        replace(TINY, **options)


# Texts


WITH_TEXTS = sorted(set(DISTILLERS) - {"td3", "farzi", "refined"})


@pytest.mark.parametrize("method", WITH_TEXTS)
def test_every_selector_and_control_takes_a_teacher_that_reads(
    method: str, texts: Development, reader: Trajectory, tmp_path: Path
) -> None:
    options = {"num_rows": 4, "length": 6} if method not in ("popularity", "untrained") else {}
    distiller = TINY if method == "foster" else DISTILLERS[method](**options)
    made = distill(texts, distiller, reader, seed=0, context=RunContext())
    made.save(tmp_path / "made")
    loaded = DistilledDataset.load(tmp_path / "made")
    catalogue = loaded.catalogue()
    assert catalogue is not None
    assert catalogue.texts() == Catalogue(described(NUM_ITEMS)).texts()
    torch.testing.assert_close(loaded.item_factor, reader.best().item_table[1:])


def test_teachers_of_several_seeds_share_what_is_read_of_texts(texts: Development, tmp_path: Path) -> None:
    spec = TeacherSpec(model="text", config=TEXT, max_seq_len=8, recipe=TrainingRecipe(epochs=1, max_steps=1))
    shared = tmp_path / "texts"
    folders = [teach(texts, spec, seed, tmp_path / str(seed), texts=shared).folder for seed in (0, 1)]
    assert len(list(shared.iterdir())) == 1
    assert [list((tmp_path / str(seed)).iterdir()) for seed in (0, 1)] == [[folder] for folder in folders]


@pytest.mark.parametrize("method", ["td3", "farzi"])
def test_methods_over_item_tables_say_so(method: str, texts: Development, reader: Trajectory) -> None:
    with pytest.raises(OptionError, match=r"'text' has no item table to differentiate in; use --method foster"):
        distill(texts, DISTILLERS[method](num_rows=4, length=6), reader, seed=0, context=RunContext())


def test_a_step_encodes_the_candidates_and_no_other_synthetic_item(
    texts: Development, reader: Trajectory, monkeypatch: pytest.MonkeyPatch
) -> None:
    task = task_of(TINY, texts, reader)
    encoded: list[list[int]] = []
    vectors = TextRecommender.vectors

    def counted(self: TextRecommender, items: Tensor, generator: Any = None) -> Tensor:
        encoded.append(items.tolist())
        return vectors(self, items, generator)

    monkeypatch.setattr(TextRecommender, "vectors", counted)
    result = task.outer_step(0, task.student(0))
    assert result.gradient["core"].isfinite().all()
    inner = [sorted(task.candidates.draw(0, turn).tolist()) for turn in (0, 1, 2, 2)]  # type: ignore[union-attr]
    real = encoded.pop(2)
    assert encoded == inner  # two steps of the copy; then the gap, at the student and at the copy
    assert len(real) == len(set(real))


def test_the_artifact_trains_a_model_for_items_it_has_never_seen(
    texts: Development, reader: Trajectory, tmp_path: Path
) -> None:
    distill(texts, TINY, reader, seed=0, context=RunContext()).save(tmp_path / "made")
    made = DistilledDataset.load(tmp_path / "made")
    spec = StudentSpec(model="text", config=TEXT, max_seq_len=8, recipe=TrainingRecipe(epochs=2, patience=None))
    model, _ = train_student(made.rows, spec, num_items=NUM_ITEMS, seed=0, catalogue=made.catalogue())
    more = described(NUM_ITEMS + 4)
    model.attach(Catalogue(more))
    histories = histories_of_lists([[1, 2, 3], [4, 21, 22]], [[21], [23]], [[24], [5]])
    scores = evaluate(model, evaluation_cases(histories, "test"))
    assert scores.ranks.min() >= 1
    assert scores.ranks.max() <= NUM_ITEMS + 4
    table = model.fixed().item_table
    assert table.shape == (NUM_ITEMS + 5, 8)
    assert len(table[1:].unique(dim=0)) > NUM_ITEMS


def test_labels_of_a_teacher_that_reads_are_learnt_over_candidates(texts: Development, reader: Trajectory) -> None:
    made = distill(texts, DISTILLERS["random_soft"](num_rows=4, length=6), reader, seed=0, context=RunContext())
    items = texts.items.with_columns(pl.Series("text", reader.texts()))
    spec = StudentSpec(
        model="text", config=TEXT, max_seq_len=8, recipe=TrainingRecipe(epochs=4, patience=None, learning_rate=0.01)
    )
    _, result = train_student(made.rows, spec, num_items=NUM_ITEMS, seed=0, catalogue=Catalogue(items, finished=True))
    assert result.losses[-1] < result.losses[0]
    assert isinstance(made.rows.batch(torch.arange(2)).targets, SoftItems)


def test_feature_matching_is_a_mean_over_real_positions(train: Development, teacher: Trajectory) -> None:
    task = task_of(replace(TINY, regulariser_weight=0.0), train, teacher)
    loss = task.outer_loss(0, 2)
    student = student_of(task).params
    assert loss.features is not None
    _, hidden = functional_call(task.model, student, (loss.batch,))
    real = loss.batch.weights.bool()
    plain = F.mse_loss(hidden[real], loss.features[real])
    without = replace(loss, features=None)
    torch.testing.assert_close(loss(student, {}) - without(student, {}), plain, rtol=1e-4, atol=1e-6)
