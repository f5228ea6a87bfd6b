"""One outer step of TD3: what it differentiates, and how it moves.

The whole meta-gradient, from the factors through softmax, training and judgement, is compared with finite differences
in float64; the ways to compute it are compared with each other. That the numbers are those of an independent program is
the subject of ``test_td3_golden.py``.
"""

import copy
import math
from dataclasses import replace
from typing import Any

import pytest
import torch
import torch.nn.functional as F

from recdistill.bilevel.optimizer import Student, Tensors
from recdistill.bilevel.unroll import MetaResult, Unroll
from recdistill.data.development import Development
from recdistill.distill.base import Engine, RunContext
from recdistill.distill.bilevel_sequences import SequenceTask
from recdistill.distill.td3 import TD3
from recdistill.errors import NumericalError
from recdistill.training.trajectory import Trajectory
from reference.td3 import ENGINES, TINY, judged, start_of, stepped, task_of
from reference.tiny import sasrec

# the first use of forward mode in a process compiles some of its formulas with a part of torch that torch deprecates
pytestmark = pytest.mark.filterwarnings("ignore:.torch.jit.script. is deprecated:DeprecationWarning")

READS = {"dense": Engine(), "tiled": Engine(dense_bytes=1)}
every_read = pytest.mark.parametrize("engine", READS.values(), ids=READS)


@pytest.fixture(autouse=True)
def tiles_of_three_items(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("recdistill.data.soft_items.tile_for", lambda rows, itemsize: 3)


def double(settings: TD3, engine: Engine, train: Development, teacher: Trajectory) -> tuple[SequenceTask, Student]:
    """Return a task in float64 with factors far from uniform, and a student to start from."""
    task = task_of(settings, train, teacher, RunContext(engine=engine))
    task.synthetic.double()
    task.model.double()
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for factor in task.synthetic.parameters():
            factor.copy_(torch.randn(factor.shape, dtype=torch.float64, generator=generator))
    students = [
        Student.of({name: value.double() for name, value in teacher.weights(2 - index % 2).items()})
        for index in range(settings.learners)
    ]
    features = None if task.features is None else task.features.double()
    return replace(task, features=features), students[0] if len(students) == 1 else Student.stack(students)


def meta_gradient(task: SequenceTask, student: Student) -> tuple[float, Tensors]:
    """Return the outer loss of one step, and its derivative in the factors."""
    result = task.outer_step(0, student, torch.arange(0, 60, 3))
    assert result.gradient.keys() == {"core", "user_factor", "time_factor"}
    assert all(slope.abs().max() > 1e-6 for slope in result.gradient.values())
    return float(result.outer_loss), result.gradient


CHANGES: dict[str, dict[str, Any]] = {
    "paper": {},
    "padding column": {"pad_column": True},
    "all targets": {"inner_objective": "all", "feature_weight": 0.0},
    "code loss": {"inner_objective": "last", "feature_scale": "sum_half", "outer_dropout": True},
    "two learners": {"learners": 2},
}


@every_read
@pytest.mark.parametrize("changes", CHANGES.values(), ids=CHANGES)
def test_the_gradient_of_an_outer_step_equals_finite_differences(
    changes: dict[str, Any], engine: Engine, train: Development, teacher: Trajectory
) -> None:
    settings = replace(TINY, max_inner_steps=3, window=3, clip_norm=1e9, **changes)
    task, student = double(settings, engine, train, teacher)
    before = {name: value.detach().clone() for name, value in task.synthetic.named_parameters()}

    def outer(moved: Tensors) -> float:
        task.synthetic.load_state_dict(before | moved)
        return meta_gradient(task, student)[0]

    _, gradient = meta_gradient(task, student)
    generator = torch.Generator().manual_seed(2)
    for name, slope in gradient.items():
        direction = torch.randn(slope.shape, dtype=torch.float64, generator=generator)
        sides = [outer({name: before[name] + sign * 1e-5 * direction}) for sign in (1, -1)]
        expected = (sides[0] - sides[1]) / 2e-5
        assert abs(expected) > 1e-6
        assert float((slope * direction).sum()) == pytest.approx(expected, rel=2e-4, abs=1e-7)


@pytest.mark.parametrize("learners", [1, 2])
@pytest.mark.parametrize("engine", ENGINES.values(), ids=ENGINES)
def test_every_engine_gives_the_same_gradient(
    engine: Engine, learners: int, train: Development, teacher: Trajectory
) -> None:
    settings = replace(TINY, max_inner_steps=5, window=3, clip_norm=1e9, learners=learners)
    loss, expected = meta_gradient(*double(settings, Engine(), train, teacher))
    found_loss, found = meta_gradient(*double(settings, engine, train, teacher))
    assert found_loss == pytest.approx(loss, rel=1e-10)
    for name, slope in expected.items():
        torch.testing.assert_close(found[name], slope, rtol=1e-7, atol=1e-9 * float(slope.norm()))


@pytest.mark.parametrize("students", [0, 2])
def test_with_little_memory_for_students_the_numbers_are_the_same(
    students: int, train: Development, teacher: Trajectory
) -> None:
    settings = replace(TINY, max_inner_steps=7, window=7)
    size = 3 * 8 * double(settings, Engine(), train, teacher)[1].weights.numel()
    engines = (Engine(), Engine(state_bytes=max(1, students * size)))
    (loss, gradient), (again, found) = (meta_gradient(*double(settings, each, train, teacher)) for each in engines)
    assert loss == again
    assert all(torch.equal(found[name], slope) for name, slope in gradient.items())


def test_memory_for_the_steps_of_the_smaller_minibatch_alone_is_too_little(
    train: Development, teacher: Trajectory
) -> None:
    """The minibatches have three rows and one; all steps of the window are kept, or none."""
    settings = replace(TINY, max_inner_steps=7, window=7)
    weights = double(settings, Engine(), train, teacher)[1].weights.numel()
    between = 7 * 8 * (4 * weights + 2 * settings.length * 8)
    engines = (Engine(), Engine(state_bytes=between))
    (_, gradient), (_, found) = (meta_gradient(*double(settings, each, train, teacher)) for each in engines)
    assert all(torch.equal(found[name], slope) for name, slope in gradient.items())


@every_read
@pytest.mark.parametrize("outer_dropout", [False, True])
def test_several_learners_give_the_mean_of_single_ones(
    outer_dropout: bool, engine: Engine, train: Development, teacher: Trajectory
) -> None:
    """Each has its own middle targets and dropout, keyed by seeds that are ``learner`` larger; judged alike."""
    task, student = double(replace(TINY, learners=2, outer_dropout=outer_dropout), engine, train, teacher)
    rows, synthetic = torch.arange(0, 60, 3), task.reader.read(task.synthetic.rows().items())
    together = task.estimator(task.inner_loss(3, 4), task.outer_loss(rows, 3), student, synthetic, 4)
    alone = []
    for learner in range(2):
        inner = task.inner_loss(3, 4)
        seeds = {name: getattr(inner, name) + learner for name in ("middle_seed", "dropout_seed")}
        one = Student(student.weights[learner], student.layout)
        alone.append(task.estimator(replace(inner, **seeds), task.outer_loss(rows, 3), one, synthetic, 4))
    losses = torch.stack([each.outer_loss for each in alone])
    assert (losses[0] - losses[1]).abs() > 1e-4
    torch.testing.assert_close(together.outer_loss, losses.mean(), rtol=1e-10, atol=0)
    for name, value in together.gradient.items():
        mean = (alone[0].gradient[name] + alone[1].gradient[name]) / 2
        assert mean.abs().max() > 1e-6
        torch.testing.assert_close(value, mean, rtol=1e-8, atol=1e-12)
    states = [torch.stack((each.student.weights, *each.student.moments)) for each in alone]
    found = torch.stack((together.student.weights, *together.student.moments), dim=1)
    torch.testing.assert_close(found, torch.stack(states), rtol=1e-8, atol=1e-12)


@every_read
@pytest.mark.parametrize("clip_norm", [1e-3, 1e3])
def test_an_outer_step_is_clipped_adam_along_the_cosine(
    clip_norm: float, engine: Engine, train: Development, teacher: Trajectory, monkeypatch: pytest.MonkeyPatch
) -> None:
    task = task_of(replace(TINY, clip_norm=clip_norm), train, teacher, RunContext(engine=engine))
    run, scale, total = start_of(task), 1.0, 3 * task.steps_per_epoch
    run.step = 3
    reference = copy.deepcopy(task.synthetic)
    optimizer = torch.optim.Adam(reference.parameters(), lr=1.0, weight_decay=1e-4)

    def slopes(synthetic: Tensors) -> Tensors:
        return {name: scale * torch.arange(value.numel()).view_as(value).cos() for name, value in synthetic.items()}

    def estimate(self: Unroll, inner: Any, outer: Any, student: Student, synthetic: Any, steps: int) -> MetaResult:
        return MetaResult(torch.tensor(1.0), slopes(synthetic), student)

    monkeypatch.setattr(Unroll, "__call__", estimate)
    for step in (3, 4):
        optimizer.zero_grad()
        read = task.reader.read(reference.rows().items())
        torch.autograd.backward(list(read.values()), list(slopes(read).values()))
        gradients = [value.grad for value in reference.parameters() if value.grad is not None]
        norm = torch.cat([value.flatten() for value in gradients]).norm()
        assert 1e-3 < norm < 1e3
        for value in gradients:
            value *= min(1.0, clip_norm / float(norm))
        optimizer.param_groups[0]["lr"] = 0.03 * 0.5 * (1 + math.cos(math.pi * step / total))
        optimizer.step()
        with torch.no_grad():  # the graph of the factors is needed all the same
            assert stepped(task, run, task.start(0), torch.arange(5)).outer_loss == 1.0
        assert run.step == step + 1
        for ours, theirs in zip(task.synthetic.parameters(), reference.parameters(), strict=True):
            torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-6)
        scale = 30.0  # Adam's first step forgets the size of a gradient, not its second


def test_the_unroll_is_uniform_between_window_and_longest(
    train: Development, teacher: Trajectory, monkeypatch: pytest.MonkeyPatch
) -> None:
    task, steps = task_of(TINY, train, teacher), []

    def estimate(self: Unroll, inner: Any, outer: Any, student: Student, synthetic: Any, count: int) -> MetaResult:
        steps.append(count)
        assert self.window == 2
        assert inner.plain == count - 2
        return MetaResult(
            torch.tensor(1.0), {name: torch.ones_like(value) for name, value in synthetic.items()}, student
        )

    monkeypatch.setattr(Unroll, "__call__", estimate)
    student = task.start(0)
    for step in range(60):
        task.outer_step(step, student, torch.arange(5))
    assert {count: steps.count(count) > 9 for count in steps} == {2: True, 3: True, 4: True}


@every_read
def test_the_window_begins_again_at_the_first_minibatch(
    engine: Engine, train: Development, teacher: Trajectory
) -> None:
    task = task_of(TINY, train, teacher, RunContext(engine=engine))
    read = task.reader.read(task.synthetic.rows().items())
    synthetic = {name: value.detach().requires_grad_() for name, value in read.items()}
    assert task.reader.sizes == (3, 1)
    loss, params, used = task.inner_loss(outer_step=0, inner_steps=5), task.start(0).params, []
    for step in range(5):
        value = loss.plan(step, 0).value(params, synthetic)
        slopes = torch.autograd.grad(value, list(synthetic.values()), allow_unused=True)
        rows = {len(slope) for slope in slopes if slope is not None}
        used.append(rows.pop())
        assert not rows
    assert used == [3, 1, 3, 3, 1]  # three plain steps, then the window of two


@every_read
def test_the_inner_loss_is_the_mean_of_last_and_middle_divergences(
    engine: Engine, train: Development, teacher: Trajectory
) -> None:
    """By hand: the divergence plus the entropy of the targets, last and middle, of a student without dropout."""
    settings = replace(TINY, length=4)  # the middle target can only be the third item
    model = sasrec(max_seq_len=8)
    task = replace(task_of(settings, train, teacher, RunContext(engine=engine)), model=model)
    items = task.synthetic.rows().items()
    found = task.inner_loss(0, 2).plan(0, 0).value(dict(model.named_parameters()), task.reader.read(items))
    target = items.dense().probabilities[:3]
    embedded = target @ model.item_table[1:]
    hidden = model.encode(embedded[:, :3], torch.tensor([3, 3, 3]))
    log_model = torch.log_softmax(hidden @ model.item_table[1:].T, -1)
    terms = []
    for position in (3, 2):
        divergence = F.kl_div(log_model[:, position - 1], target[:, position], reduction="batchmean")
        terms.append(divergence - (target[:, position] * target[:, position].log()).sum(-1).mean())
    torch.testing.assert_close(found, sum(terms) / 2)


@pytest.mark.parametrize(("dropout", "objective"), [(0.0, "last_and_middle"), (0.5, "last")])
def test_dropout_and_middle_targets_are_keyed_by_the_step(
    dropout: float, objective: str, train: Development, teacher: Trajectory
) -> None:
    settings = replace(TINY, num_rows=4, length=9, synthetic_batch_size=4, inner_objective=objective)
    task, student = double(settings, Engine(), train, teacher)
    task = replace(task, model=sasrec(max_seq_len=8, dropout=dropout).double())
    synthetic = task.reader.read(task.synthetic.rows().items())
    keys = [(outer, step, learner) for outer in (0, 1) for step in range(3) for learner in (0, 1)]
    values, again = (
        [
            task.inner_loss(outer, 4).plan(step, learner).value(student.params, synthetic).item()
            for outer, step, learner in keys
        ]
        for _ in range(2)
    )
    assert values == again
    assert len(set(values)) == len(keys)


@pytest.mark.parametrize("scale", ["mean", "sum_half"])
@torch.no_grad()
def test_the_outer_loss_by_hand(scale: str, train: Development, teacher: Trajectory) -> None:
    task = task_of(replace(TINY, feature_scale=scale, feature_weight=0.7), train, teacher)
    rows = torch.tensor([4, 0, 9])
    found = float(judged(task.outer_loss(rows, 0), teacher.weights(1)))
    student, best = teacher.model(1), teacher.model()
    losses, square = [], 0.0
    for row in rows.tolist():
        items = task.real.batch(torch.tensor([row])).items
        inputs = type(items)(items.ids[:, :-1])
        hidden, wanted = (model.represent(inputs, torch.tensor([inputs.ids.shape[1]])) for model in (student, best))
        losses.append(-float(torch.log_softmax(student.score(hidden)[0], -1)[items.ids[0, -1] - 1]))
        square += float((hidden - wanted).square().sum())
    alignment = square / (3 * 8) if scale == "mean" else square / 2
    assert square > 1e-4
    assert found == pytest.approx(sum(losses) / 3 + 0.7 * alignment, rel=1e-5)


def test_without_feature_weight_there_are_no_features(train: Development, teacher: Trajectory) -> None:
    with_features = task_of(TINY, train, teacher)
    without = task_of(replace(TINY, feature_weight=0.0), train, teacher)
    assert without.features is None
    rows, params = torch.arange(5), teacher.weights(1)
    assert float(judged(without.outer_loss(rows, 0), params)) < float(judged(with_features.outer_loss(rows, 0), params))


@torch.no_grad()
def test_outer_dropout_changes_the_judgement_only(train: Development, teacher: Trajectory) -> None:
    plain, noisy = (task_of(replace(TINY, outer_dropout=value), train, teacher) for value in (False, True))
    assert plain.features is not None
    assert noisy.features is not None
    assert torch.equal(plain.features, noisy.features)
    rows, params = torch.arange(5), teacher.weights(1)

    def judgement(task: SequenceTask, outer_step: int) -> float:
        return float(judged(task.outer_loss(rows, outer_step), params))

    assert judgement(plain, 0) == judgement(plain, 1)
    assert judgement(noisy, 0) not in (judgement(plain, 0), judgement(noisy, 1))
    assert judgement(noisy, 0) == judgement(noisy, 0)


def test_teacher_dropout_changes_the_features_only(train: Development, teacher: Trajectory) -> None:
    plain, noisy, again = (
        task_of(replace(TINY, teacher_dropout=value), train, teacher).features for value in (False, True, True)
    )
    assert plain is not None
    assert noisy is not None
    assert again is not None
    assert plain.shape == noisy.shape == (len(task_of(TINY, train, teacher).real), 8)
    assert (plain - noisy).abs().max() > 1e-3
    assert torch.equal(noisy, again)


@pytest.mark.parametrize("learners", [1, 2])
def test_a_loss_that_is_nan_is_an_error(learners: int, train: Development, teacher: Trajectory) -> None:
    task = task_of(replace(TINY, learners=learners), train, teacher)
    start = task.start(0)
    weights = start.weights.clone()
    weights.view(learners, -1)[-1] = float("nan")  # one of them is enough
    with pytest.raises(NumericalError, match="the outer loss is nan") as caught:
        stepped(task, start_of(task), start.with_weights(weights), torch.arange(5))
    assert (caught.value.stage, caught.value.step) == ("distilling with td3", 1)


def test_a_gradient_that_is_nan_is_an_error(
    train: Development, teacher: Trajectory, monkeypatch: pytest.MonkeyPatch
) -> None:
    def estimate(self: Unroll, inner: Any, outer: Any, student: Student, synthetic: Any, count: int) -> MetaResult:
        gradient = {name: torch.full_like(value, float("nan")) for name, value in synthetic.items()}
        return MetaResult(torch.tensor(1.0), gradient, student)

    task = task_of(TINY, train, teacher)
    before = task.synthetic.core.detach().clone()
    monkeypatch.setattr(Unroll, "__call__", estimate)
    with pytest.raises(NumericalError, match="gradient"):
        stepped(task, start_of(task), task.start(0), torch.arange(5))
    assert torch.equal(task.synthetic.core, before)
