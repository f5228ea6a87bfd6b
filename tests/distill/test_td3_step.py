"""One outer step of TD3: what it differentiates, and how it moves.

The whole meta-gradient, from the factors through softmax, training and judgement, is compared with finite differences
in float64.
"""

import math
from dataclasses import replace
from typing import Any

import pytest
import torch
import torch.nn.functional as F

from recdistill.bilevel.optimizer import Student
from recdistill.bilevel.unroll import MetaResult, TapedUnroll
from recdistill.data.development import Development
from recdistill.distill.td3 import _Task
from recdistill.errors import NumericalError
from recdistill.training.trajectory import Trajectory
from reference.td3 import TINY, start_of, task_of
from reference.tiny import sasrec


def double(task: _Task) -> tuple[_Task, Student]:
    """Return the task in float64 with factors far from uniform, and a student to start from."""
    task.synthetic.double()
    task.model.double()
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for factor in task.synthetic.parameters():
            factor.copy_(torch.randn(factor.shape, dtype=torch.float64, generator=generator))
    student = Student({name: value.double() for name, value in task.teacher.weights(2).items()})
    features = None if task.features is None else task.features.double()
    return replace(task, features=features), student


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"pad_column": True},
        {"inner_objective": "all", "feature_weight": 0.0},
        {"inner_objective": "last", "feature_scale": "sum_half", "outer_dropout": True},
    ],
    ids=["paper", "padding column", "all targets", "code loss"],
)
def test_the_gradient_of_an_outer_step_equals_finite_differences(
    changes: dict[str, Any], train: Development, teacher: Trajectory
) -> None:
    settings = replace(TINY, max_inner_steps=3, window=3, clip_norm=1e9, **changes)
    task, student = double(task_of(settings, train, teacher))
    before = {name: value.detach().clone() for name, value in task.synthetic.named_parameters()}
    rows = torch.arange(0, 60, 3)

    def outer(moved: dict[str, torch.Tensor] | None = None) -> float:
        task.synthetic.load_state_dict(before | (moved or {}))
        return task.outer_step(start_of(task), student, rows)[0]

    outer()
    gradient = {name: value.grad.clone() for name, value in task.synthetic.named_parameters()}
    generator = torch.Generator().manual_seed(2)
    for name, slope in gradient.items():
        for _ in range(2):
            direction = torch.randn(slope.shape, dtype=torch.float64, generator=generator)
            sides = [outer({name: before[name] + sign * 1e-5 * direction}) for sign in (1, -1)]
            expected = (sides[0] - sides[1]) / 2e-5
            assert abs(expected) > 1e-6
            assert float((slope * direction).sum()) == pytest.approx(expected, rel=2e-4, abs=1e-7)


def test_an_outer_step_is_clipped_adam_along_the_cosine(
    train: Development, teacher: Trajectory, monkeypatch: pytest.MonkeyPatch
) -> None:
    task = task_of(replace(TINY, clip_norm=0.5), train, teacher)
    run = start_of(task)
    run.step = 3
    reference = [torch.nn.Parameter(value.detach().clone()) for value in task.synthetic.parameters()]
    rate = 0.03 * 0.5 * (1 + math.cos(math.pi * 3 / task.total_steps))
    optimizer = torch.optim.Adam(reference, lr=rate, weight_decay=1e-4)
    parts = task.probabilities()
    slopes = {name: torch.full_like(value, 0.3) * torch.arange(value.shape[-1]) for name, value in parts.items()}

    def estimate(self: TapedUnroll, inner: Any, outer: Any, student: Student, synthetic: Any, steps: int) -> MetaResult:
        return MetaResult(torch.tensor(1.0), slopes, student)

    monkeypatch.setattr(TapedUnroll, "__call__", estimate)
    gradients = torch.autograd.grad(list(parts.values()), list(task.synthetic.parameters()), list(slopes.values()))
    norm = torch.cat([value.flatten() for value in gradients]).norm()
    for parameter, value in zip(reference, gradients, strict=True):
        parameter.grad = value * min(1.0, float(0.5 / (norm + 1e-6)))
    optimizer.step()
    loss, _ = task.outer_step(run, task.start(0), torch.arange(5))
    assert (loss, run.step) == (1.0, 4)
    assert task.total_steps == 3 * task.steps_per_epoch
    for ours, theirs in zip(task.synthetic.parameters(), reference, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-7)


def test_the_unroll_is_uniform_between_window_and_longest(
    train: Development, teacher: Trajectory, monkeypatch: pytest.MonkeyPatch
) -> None:
    task, steps = task_of(TINY, train, teacher), []

    def estimate(self: TapedUnroll, inner: Any, outer: Any, student: Student, synthetic: Any, count: int) -> MetaResult:
        steps.append(count)
        assert self.window == 2
        return MetaResult(
            torch.tensor(1.0), {name: torch.ones_like(value) for name, value in synthetic.items()}, student
        )

    monkeypatch.setattr(TapedUnroll, "__call__", estimate)
    run, student = start_of(task), task.start(0)
    for _ in range(60):
        task.outer_step(run, student, torch.arange(5))
    assert {count: steps.count(count) > 9 for count in steps} == {2: True, 3: True, 4: True}


def test_the_window_begins_again_at_the_first_minibatch(train: Development, teacher: Trajectory) -> None:
    task = task_of(TINY, train, teacher)
    parts = {name: value.detach().requires_grad_() for name, value in task.probabilities().items()}
    assert [len(part) for part in parts.values()] == [3, 1]
    loss, used = task.inner_loss(outer_step=0, inner_steps=5), []
    for step in range(5):
        values = torch.autograd.grad(loss(task.start(0).params, parts, step), list(parts.values()), allow_unused=True)
        used.append([value is not None for value in values].index(True))
    assert used == [0, 1, 0, 0, 1]  # three plain steps, then the window of two


def test_the_inner_loss_is_the_mean_of_last_and_middle_divergences(train: Development, teacher: Trajectory) -> None:
    """By hand: the divergence plus the entropy of the targets, last and middle, of a student without dropout."""
    task = task_of(replace(TINY, length=4), train, teacher)  # the middle target can only be the third item
    model = sasrec(max_seq_len=8)
    task = replace(task, model=model)
    parts = {name: value.detach() for name, value in task.probabilities().items()}
    found = task.inner_loss(0, 2)(dict(model.named_parameters()), parts, 0)
    target = parts["0"]
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
    task, student = double(task_of(settings, train, teacher))
    task = replace(task, model=sasrec(max_seq_len=8, dropout=dropout).double())
    parts = {name: value.detach() for name, value in task.probabilities().items()}
    keys = [(outer, step) for outer in (0, 1) for step in range(4)]
    values, again = (
        [task.inner_loss(outer, 4)(student.params, parts, step).item() for outer, step in keys] for _ in range(2)
    )
    assert values == again
    assert len(set(values)) == 8


@pytest.mark.parametrize("scale", ["mean", "sum_half"])
@torch.no_grad()
def test_the_outer_loss_by_hand(scale: str, train: Development, teacher: Trajectory) -> None:
    task = task_of(replace(TINY, feature_scale=scale, feature_weight=0.7), train, teacher)
    rows = torch.tensor([4, 0, 9])
    params = teacher.weights(1)
    found = float(task.outer_loss(rows, 0)(params, {}))
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
    assert float(without.outer_loss(rows, 0)(params, {})) < float(with_features.outer_loss(rows, 0)(params, {}))


@torch.no_grad()
def test_outer_dropout_changes_the_judgement_only(train: Development, teacher: Trajectory) -> None:
    plain, noisy = (task_of(replace(TINY, outer_dropout=value), train, teacher) for value in (False, True))
    rows, params = torch.arange(5), teacher.weights(1)
    assert torch.equal(plain.features, noisy.features)
    assert plain.outer_loss(rows, 0)(params, {}) == plain.outer_loss(rows, 1)(params, {})
    first = noisy.outer_loss(rows, 0)(params, {})
    assert first != plain.outer_loss(rows, 0)(params, {})
    assert first != noisy.outer_loss(rows, 1)(params, {})
    assert first == noisy.outer_loss(rows, 0)(params, {})


def test_teacher_dropout_changes_the_features_only(train: Development, teacher: Trajectory) -> None:
    plain, noisy = (task_of(replace(TINY, teacher_dropout=value), train, teacher) for value in (False, True))
    assert plain.features.shape == noisy.features.shape == (len(plain.real), 8)
    assert (plain.features - noisy.features).abs().max() > 1e-3
    assert torch.equal(noisy.features, task_of(replace(TINY, teacher_dropout=True), train, teacher).features)


def test_a_loss_that_is_nan_is_an_error(train: Development, teacher: Trajectory) -> None:
    task = task_of(TINY, train, teacher)
    run = start_of(task)
    broken = Student({name: value * float("nan") for name, value in teacher.weights(1).items()})
    with pytest.raises(NumericalError, match="the outer loss is nan") as caught:
        task.outer_step(run, broken, torch.arange(5))
    assert (caught.value.stage, caught.value.step) == ("distilling with td3", 1)


def test_a_gradient_that_is_nan_is_an_error(
    train: Development, teacher: Trajectory, monkeypatch: pytest.MonkeyPatch
) -> None:
    def estimate(self: TapedUnroll, inner: Any, outer: Any, student: Student, synthetic: Any, count: int) -> MetaResult:
        gradient = {name: torch.full_like(value, float("nan")) for name, value in synthetic.items()}
        return MetaResult(torch.tensor(1.0), gradient, student)

    task = task_of(TINY, train, teacher)
    before = task.synthetic.core.detach().clone()
    monkeypatch.setattr(TapedUnroll, "__call__", estimate)
    with pytest.raises(NumericalError, match="gradient"):
        task.outer_step(start_of(task), task.start(0), torch.arange(5))
    assert torch.equal(task.synthetic.core, before)
