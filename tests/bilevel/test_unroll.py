"""The meta-gradient against finite differences, closed forms, a step by hand and torchopt; which students are kept.

Everything is float64. That all ways to differentiate a window agree is proved in ``test_estimators.py``, so that most
tests here ask the default one. Not proved: how much memory or time a way needs, beyond students kept and steps taken.
"""

import warnings
import weakref
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from small_problem import (
    OPTIMIZERS,
    PLAIN,
    TARGETS,
    TOLD_APART,
    directions,
    distance,
    inner_loss,
    judged,
    keep,
    outer_loss,
    problem,
    slope_along,
    train,
    warm,
)

from recdistill.bilevel.optimizer import SGD, Adam, AdamW, Cotangent, InnerOptimizer, Student, Tensors
from recdistill.bilevel.unroll import COLD_STEPS, MODES, MetaResult, Unroll, revolve_cut
from recdistill.errors import OptionError

DESCENT = SGD(learning_rate=0.1, momentum=0.5)
DIFFERENTIABLE: dict[str, InnerOptimizer] = OPTIMIZERS | {"sgd": SGD(learning_rate=0.3)}
ADAM = OPTIMIZERS["adam"]
every_optimizer = pytest.mark.parametrize("optimizer", DIFFERENTIABLE.values(), ids=DIFFERENTIABLE)
every_mode = pytest.mark.parametrize("mode", MODES)
cold_and_warm = pytest.mark.parametrize("start", ["cold", "warm"])


def begin(optimizer: InnerOptimizer, start: str) -> Student:
    return warm(optimizer) if start == "warm" else problem()[0]


def run(
    optimizer: InnerOptimizer, window: int | None, steps: int, student: Student | None = None, **options: Any
) -> MetaResult:
    cold, synthetic = problem()
    return Unroll(optimizer=optimizer, window=window, **options)(*PLAIN, student or cold, synthetic, steps)


def agrees_with_differences(result: MetaResult, value: Callable[[Tensors], torch.Tensor]) -> None:
    """Assert that the gradient is the slope of ``value`` along three directions."""
    synthetic = problem()[1]
    for direction in directions(synthetic, 3):
        found = sum(float((result.gradient[name] * part).sum()) for name, part in direction.items())
        assert found == pytest.approx(slope_along(value, synthetic, direction), rel=1e-6, abs=1e-9)


class Trained(torch.autograd.Function):
    """The outer loss after five steps, with the meta-gradient as its backward, so that gradcheck can judge it."""

    @staticmethod
    def forward(ctx: Any, optimizer: InnerOptimizer, student: Student, *values: torch.Tensor) -> torch.Tensor:
        ctx.given = optimizer, student
        ctx.save_for_backward(*values)
        synthetic = dict(zip(problem()[1], values, strict=True))
        return outer_loss(train(optimizer, student, synthetic, range(5)).params, synthetic)

    @staticmethod
    def backward(ctx: Any, above: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        optimizer, student = ctx.given
        synthetic = dict(zip(problem()[1], ctx.saved_tensors, strict=True))
        result = Unroll(optimizer=optimizer)(*TOLD_APART, student, synthetic, 5)
        return None, None, *(above * value for value in result.gradient.values())


@every_optimizer
@cold_and_warm
def test_gradcheck_through_five_steps(optimizer: InnerOptimizer, start: str) -> None:
    student = begin(optimizer, start)
    values = [tensor.requires_grad_() for tensor in problem()[1].values()]
    assert torch.autograd.gradcheck(
        lambda *values: Trained.apply(optimizer, student, *values), values, eps=1e-6, atol=1e-6, rtol=1e-4
    )


@every_optimizer
@cold_and_warm
@pytest.mark.parametrize(("window", "steps"), [(None, 6), (1, 6), (3, 8)])
def test_a_window_equals_finite_differences_of_its_own_objective(
    optimizer: InnerOptimizer, start: str, window: int | None, steps: int
) -> None:
    """The objective of a window: the outer loss, where the steps before the window see synthetic data that is fixed."""
    student, synthetic = begin(optimizer, start), problem()[1]
    plain = steps - (window or steps)
    before = train(optimizer, student, synthetic, range(plain))

    def value(moved: Tensors) -> torch.Tensor:
        return outer_loss(train(optimizer, before, moved, range(plain, steps)).params, moved)

    result = run(optimizer, window, steps, student)
    assert float(result.outer_loss) == pytest.approx(float(value(synthetic)), abs=1e-12)
    agrees_with_differences(result, value)


@every_mode
def test_second_moments_of_exactly_zero_give_no_nan(mode: str) -> None:
    """No step touches row 3; two steps read the first column and drop it, so that its slope is exactly 0."""

    def dropping(params: Tensors, synthetic: Tensors, step: int) -> torch.Tensor:
        embedded = synthetic["mix"] @ params["table"][:3]
        column = torch.tensor([step >= 2, True, True])
        return judged(params, embedded, synthetic["labels"], keep(step, embedded) * column)

    student, synthetic = problem()
    second = train(ADAM, student, synthetic, range(2), dropping).moments[1]
    assert student.layout.view(second, "table").count_nonzero(0).tolist() == [0, 3, 3]
    assert student.layout.view(second, "out").count_nonzero(1).tolist() == [0, 2, 2]

    def value(moved: Tensors) -> torch.Tensor:
        return outer_loss(train(ADAM, student, moved, range(8), dropping).params, moved)

    result = Unroll(optimizer=ADAM, mode=mode)(dropping, outer_loss, student, synthetic, 8)
    agrees_with_differences(result, value)


def test_a_short_window_is_another_estimator() -> None:
    full, short = run(ADAM, None, 8), run(ADAM, 2, 8)
    assert torch.equal(full.outer_loss, short.outer_loss)
    assert distance(short.gradient, full.gradient) > 0.01


@cold_and_warm
def test_a_window_of_one_equals_one_step_by_hand(start: str) -> None:
    optimizer, steps, decay = Adam(learning_rate=0.05, weight_decay=0.02), 4, 0.02
    student, synthetic = begin(optimizer, start), problem()[1]
    result = run(optimizer, 1, steps, student)

    before = train(optimizer, student, synthetic, range(steps - 1))
    count = before.step + 1
    leaves = {name: value.requires_grad_() for name, value in synthetic.items()}
    weights = before.weights.clone().requires_grad_()
    loss = inner_loss(before.layout.views(weights), leaves, steps - 1)
    (slope,) = torch.autograd.grad(loss, weights, create_graph=True)
    slope = slope + decay * before.weights
    first = (0.9 * before.moments[0] + 0.1 * slope) / (1 - 0.9**count)
    second = (0.999 * before.moments[1] + 0.001 * slope**2) / (1 - 0.999**count)
    moved = before.weights - 0.05 * first / (second.sqrt() + 1e-8)
    expected = outer_loss(before.layout.views(moved), leaves)
    slopes = torch.autograd.grad(expected, list(leaves.values()))

    torch.testing.assert_close(result.outer_loss, expected.detach(), rtol=0, atol=1e-12)
    assert distance(result.gradient, dict(zip(leaves, slopes, strict=True))) < 1e-9


def vector(*values: float) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float64)


def quadratic(goal: torch.Tensor, rate: float, window: int | None, steps: int, mode: str) -> MetaResult:
    """Return what is found for the inner loss |w - s|^2 / 2 and the outer loss |w - goal|^2 / 2."""
    return Unroll(optimizer=SGD(learning_rate=rate), window=window, mode=mode)(
        lambda params, data, step: 0.5 * (params["w"] - data["s"]).square().sum(),
        lambda params, data: 0.5 * (params["w"] - goal).square().sum(),
        Student.of({"w": vector(0.5, 4.0)}),
        {"s": vector(1.0, 3.0)},
        steps,
    )


@pytest.mark.parametrize("mode", ["stepwise", "taped"])
@pytest.mark.parametrize(("window", "steps"), [(None, 0), (None, 1), (None, 2), (None, 10), (1, 6), (3, 6)])
def test_the_closed_form_of_a_quadratic(window: int | None, steps: int, mode: str) -> None:
    """Gradient descent gives w_K = s + (1 - rate)^K (w_0 - s); of dw_K / ds a window of W sees 1 - (1 - rate)^W."""
    rate, goal = 0.3, vector(2.0, -1.0)
    result = quadratic(goal, rate, window, steps, mode)

    def weights(step: int) -> torch.Tensor:
        return vector(1.0, 3.0) + (1 - rate) ** step * vector(-0.5, 1.0)

    length = steps if window is None else window
    off = weights(steps) - goal
    assert float(result.outer_loss) == pytest.approx(float(0.5 * off.square().sum()), abs=1e-12)
    torch.testing.assert_close(result.gradient["s"], off * (1 - (1 - rate) ** length), rtol=0, atol=1e-12)
    torch.testing.assert_close(result.student.params["w"], weights(steps - length), rtol=0, atol=1e-12)


@pytest.fixture
def double() -> Iterator[None]:
    """Double precision by default: torchopt computes its bias corrections in the default type."""
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


def dense_loss(params: Tensors, synthetic: Tensors, step: int) -> torch.Tensor:
    """Return a loss that touches every weight of a table of three rows: torchopt gives NaN for one that it does not."""
    weighted = 1 + 0.1 * step * torch.ones(4, 3, dtype=torch.float64)
    return judged(params, synthetic["mix"] @ params["table"], synthetic["labels"], weighted)


@pytest.mark.usefixtures("double")
@pytest.mark.parametrize(
    ("ours", "name", "options"),
    [
        (Adam(learning_rate=0.05), "adam", {"lr": 0.05}),
        (Adam(learning_rate=0.05, weight_decay=0.02), "adam", {"lr": 0.05, "weight_decay": 0.02}),
        (AdamW(learning_rate=0.05, weight_decay=0.3), "adamw", {"lr": 0.05, "weight_decay": 0.3}),
        (SGD(learning_rate=0.2, momentum=0.8), "sgd", {"lr": 0.2, "momentum": 0.8}),
    ],
    ids=["adam", "adam with decay", "adamw", "sgd with momentum"],
)
def test_torchopt_gives_the_same_meta_gradient(ours: InnerOptimizer, name: str, options: dict[str, float]) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torchopt = pytest.importorskip("torchopt")
    theirs = getattr(torchopt, name)(**options)
    student, synthetic = problem()
    student = Student.of(student.params | {"table": student.params["table"][:3]})

    def judge(params: Tensors, data: Tensors) -> torch.Tensor:
        return F.cross_entropy(params["table"] @ params["out"], TARGETS[:3])

    result = Unroll(optimizer=ours)(dense_loss, judge, student, synthetic, 6)
    leaves = {key: value.clone().requires_grad_() for key, value in synthetic.items()}
    params = tuple(value.clone().requires_grad_() for value in student.params.values())
    state = theirs.init(params)
    for step in range(6):
        loss = dense_loss(dict(zip(student.params, params, strict=True)), leaves, step)
        slopes = torch.autograd.grad(loss, params, create_graph=True)
        updates, state = theirs.update(slopes, state, params=params, inplace=False)
        params = torchopt.apply_updates(params, updates, inplace=False)
    last = judge(dict(zip(student.params, params, strict=True)), leaves)
    expected = dict(zip(leaves, torch.autograd.grad(last, list(leaves.values())), strict=True))
    torch.testing.assert_close(result.outer_loss, last.detach(), rtol=0, atol=1e-10)
    assert distance(result.gradient, expected) < 1e-7


@every_mode
@pytest.mark.parametrize(("window", "plain"), [(None, 0), (2, 4), (6, 0), (9, 0)])
def test_the_student_returned_is_the_one_before_the_window(window: int | None, plain: int, mode: str) -> None:
    found = run(ADAM, window, 6, mode=mode).student
    student, synthetic = problem()
    expected = train(ADAM, student, synthetic, range(plain))
    assert found.step == plain
    assert torch.equal(found.weights, expected.weights)
    assert len(found.moments) == len(expected.moments)
    assert all(torch.equal(*pair) for pair in zip(found.moments, expected.moments, strict=True))
    assert not any(value.requires_grad for value in (found.weights, *found.moments))


@every_mode
def test_it_works_where_gradients_are_switched_off(mode: str) -> None:
    with torch.no_grad():
        result = run(ADAM, 3, 7, mode=mode)
    assert not result.outer_loss.requires_grad
    assert distance(result.gradient, run(ADAM, 3, 7, mode=mode).gradient) == 0


@pytest.mark.parametrize(
    ("options", "back"),
    [
        ({"mode": "taped"}, []),
        ({"mode": "stepwise"}, [4, 3, 2]),
        ({"mode": "reversible"}, [4, 4, 3, 3, 2, 2]),
        ({"state_bytes": 1}, [2, 3, 4, 4, 2, 3, 3, 2, 2]),
    ],
    ids=["taped", "stepwise", "reversible", "training again"],
)
def test_the_steps_are_counted_from_the_start_of_the_call(options: dict[str, Any], back: list[int]) -> None:
    seen: list[int] = []

    def spy(params: Tensors, synthetic: Tensors, step: int) -> torch.Tensor:
        seen.append(step)
        return inner_loss(params, synthetic, step)

    Unroll(optimizer=ADAM, window=3, **options)(spy, outer_loss, warm(ADAM), problem()[1], 5)
    assert seen == [0, 1, 2, 3, 4, *back]


@cache
def fewest(steps: int, slots: int) -> int:
    """Return how many steps must be taken again to walk back through ``steps``, by trying every order."""
    if steps == 1:
        return 0
    if slots == 0:
        return steps * (steps - 1) // 2
    return min(cut + fewest(steps - cut, slots - 1) + fewest(cut, slots) for cut in range(1, steps))


@pytest.mark.parametrize("slots", range(7))
def test_keeping_the_next_student_at_the_cut_takes_the_fewest_steps_again(slots: int) -> None:
    @cache
    def taken(steps: int, slots: int) -> int:
        if steps == 1:
            return 0
        cut = revolve_cut(steps, slots)
        assert 1 <= cut < steps
        return cut + taken(steps - cut, max(slots - 1, 0)) + taken(cut, slots)

    lengths = range(1, 61)
    assert [taken(steps, slots) for steps in lengths] == [fewest(steps, slots) for steps in lengths]


@dataclass(frozen=True)
class Watched:
    """Gradient descent that notes which of the students it made are alive.

    Args:
        made: the weights of every student made, in order.
        kept: for each step pulled back, students alive beside those before and after it and at the end of training.
        alive: for each step taken, all students alive.
    """

    optimizer: InnerOptimizer = DESCENT
    num_moments: int = 1
    made: list[weakref.ref[torch.Tensor]] = field(default_factory=list)
    kept: list[int] = field(default_factory=list)
    alive: list[int] = field(default_factory=list)
    last: list[torch.Tensor] = field(default_factory=list)

    def _living(self) -> list[torch.Tensor]:
        return [weights for weights in (made() for made in self.made) if weights is not None]

    def update(self, student: Student, gradient: torch.Tensor) -> Student:
        self.alive.append(len(self._living()))
        after = self.optimizer.update(student, gradient)
        self.made.append(weakref.ref(after.weights))
        return after

    def pull_back(
        self, before: Student, gradient: torch.Tensor, after: Student, cotangent: Cotangent
    ) -> tuple[torch.Tensor, Cotangent]:
        if not self.last:
            self.last.append(after.weights)
        known = {id(weights) for weights in (before.weights, after.weights, *self.last)}
        self.kept.append(sum(id(weights) not in known for weights in self._living()))
        return self.optimizer.pull_back(before, gradient, after, cotangent)

    def rewind_weights(self, after: Student) -> torch.Tensor:
        return self.optimizer.rewind_weights(after)

    def rewind(self, after: Student, weights: torch.Tensor, gradient: torch.Tensor) -> Student:
        return self.optimizer.rewind(after, weights, gradient)


def bent_loss(params: Tensors, synthetic: Tensors, step: int) -> torch.Tensor:
    return ((params["w"] - synthetic["s"]).square() * (1 + 0.1 * step) + (2 * params["w"]).cos()).sum()


def bent(steps: int, state_bytes: int) -> tuple[MetaResult, Watched]:
    """Return what is found for a loss whose curvature changes with weights and step, and who watched."""
    watched = Watched()
    result = Unroll(optimizer=watched, state_bytes=state_bytes)(
        bent_loss,
        lambda params, data: params["w"].square().sum(),
        Student.of({"w": vector(0.5, 4.0)}),
        {"s": vector(1.0, 3.0)},
        steps,
    )
    return result, watched


STUDENT_BYTES = 2 * 2 * 8  # two weights, and one moment each
IN_HAND = 5  # at the end; before and after the last step pulled back; in training again, two


@pytest.mark.parametrize("slots", range(5))
@pytest.mark.parametrize("steps", range(1, 15))
def test_training_again_takes_the_fewest_steps_and_keeps_no_more_than_fit(steps: int, slots: int) -> None:
    wanted, everything = bent(steps, state_bytes=10**6)
    assert len(everything.made) == steps
    found, watched = bent(steps, state_bytes=max(1, slots * STUDENT_BYTES))
    fit = 3 * steps <= 2 * slots  # two weights, their moment and their gradient, for each step
    assert len(watched.made) - steps == (0 if fit else fewest(steps, slots))
    assert len(watched.kept) == steps
    assert max(watched.kept) <= slots
    assert max(watched.kept) == slots or steps < slots + 2
    assert max(watched.alive[steps:], default=0) <= slots + IN_HAND
    assert torch.equal(found.gradient["s"], wanted.gradient["s"])
    assert torch.equal(found.outer_loss, wanted.outer_loss)


def test_only_the_window_is_trained_again() -> None:
    watched = Watched()
    Unroll(optimizer=watched, window=4, state_bytes=1)(*PLAIN, *problem(), 9)
    assert len(watched.made) == 9 + fewest(4, 0)


@pytest.mark.parametrize("window", [0, -3])
def test_a_window_below_one_is_refused(window: int) -> None:
    with pytest.raises(OptionError, match="window"):
        Unroll(optimizer=ADAM, window=window)


def test_an_unknown_mode_is_refused_and_the_known_ones_named() -> None:
    with pytest.raises(OptionError, match="mode") as caught:
        Unroll(optimizer=ADAM, mode="stepwize")
    assert all(mode in str(caught.value) for mode in MODES)


@pytest.mark.parametrize("state_bytes", [0, -1])
def test_less_than_a_byte_for_students_is_refused(state_bytes: int) -> None:
    with pytest.raises(OptionError, match="state_bytes"):
        Unroll(optimizer=ADAM, state_bytes=state_bytes)


def test_steps_that_leave_no_trace_cannot_be_differentiated_by_undoing_them() -> None:
    with pytest.raises(OptionError, match="stepwise"):
        run(SGD(learning_rate=0.1), None, COLD_STEPS + 1, mode="reversible")
