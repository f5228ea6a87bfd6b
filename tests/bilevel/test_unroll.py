"""The meta-gradient against finite differences, closed forms, a hand-written step and torchopt.

Everything is float64. The problem has an embedding table with a row that no step touches, so that its second moment is
exactly zero, dropout keyed by the step, and a direct dependence of the outer loss on the synthetic tensors.
"""

import warnings
from collections.abc import Callable, Iterator
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F

from recdistill.bilevel.optimizer import SGD, Adam, InnerOptimizer, Student, Tensors
from recdistill.bilevel.unroll import MetaResult, TapedUnroll, train_step
from recdistill.errors import OptionError

IDS = torch.tensor([0, 2, 1, 2])  # row 3 of the table is never read
TARGETS = torch.tensor([1, 0, 1, 1])


def problem() -> tuple[Student, Tensors]:
    """Return a fresh student and synthetic tensors."""
    generator = torch.Generator().manual_seed(0)

    def normal(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, dtype=torch.float64, generator=generator)

    return Student({"table": normal(4, 3), "out": normal(3, 2)}), {"shift": normal(4, 3), "labels": normal(4, 2)}


def inner_loss(params: Tensors, synthetic: Tensors, step: int) -> torch.Tensor:
    keep = torch.rand(4, 3, generator=torch.Generator().manual_seed(step), dtype=torch.float64) > 0.2
    hidden = torch.tanh(F.embedding(IDS, params["table"]) * synthetic["shift"]) * keep
    return -(torch.softmax(synthetic["labels"], -1) * torch.log_softmax(hidden @ params["out"], -1)).sum(-1).mean()


def outer_loss(params: Tensors, synthetic: Tensors) -> torch.Tensor:
    logits = params["table"] @ params["out"]
    return F.cross_entropy(logits, TARGETS) + 0.1 * synthetic["shift"].square().mean()


OPTIMIZERS = {
    "adam": Adam(learning_rate=0.05),
    "adam with decay": Adam(learning_rate=0.05, weight_decay=0.02),
    "sgd": SGD(learning_rate=0.3),
    "sgd with momentum": SGD(learning_rate=0.2, momentum=0.8, weight_decay=0.02),
}
every_optimizer = pytest.mark.parametrize("optimizer", OPTIMIZERS.values(), ids=OPTIMIZERS)


def warm(optimizer: InnerOptimizer, steps: int = 7) -> Student:
    """Return a student that has taken some steps and kept its moments."""
    student, synthetic = problem()
    for step in range(steps):
        student = train_step(inner_loss, optimizer, student, synthetic, step)
    return student


def run(optimizer: InnerOptimizer, window: int | None, steps: int, student: Student | None = None) -> MetaResult:
    cold, synthetic = problem()
    return TapedUnroll(optimizer=optimizer, window=window)(inner_loss, outer_loss, student or cold, synthetic, steps)


def objective(
    optimizer: InnerOptimizer, student: Student, plain: int, steps: int
) -> Callable[[torch.Tensor, torch.Tensor], torch.Tensor]:
    """Return what a window differentiates: the outer loss, where the first ``plain`` steps see fixed data."""
    _, fixed = problem()
    for step in range(plain):
        student = train_step(inner_loss, optimizer, student, fixed, step)

    def value(shift: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        synthetic, last = {"shift": shift.detach(), "labels": labels.detach()}, student
        for step in range(plain, steps):
            last = train_step(inner_loss, optimizer, last, synthetic, step)
        return outer_loss(last.params, synthetic)

    return value


def finite_differences(
    value: Callable[[torch.Tensor, torch.Tensor], torch.Tensor], eps: float = 1e-5
) -> dict[str, torch.Tensor]:
    """Return the gradient of ``value`` entry by entry, from central differences."""
    _, synthetic = problem()
    found = {name: torch.zeros_like(tensor) for name, tensor in synthetic.items()}
    for name, tensor in synthetic.items():
        for index in range(tensor.numel()):
            sides = []
            for sign in (1, -1):
                moved = {key: other.clone() for key, other in synthetic.items()}
                moved[name].view(-1)[index] += sign * eps
                sides.append(float(value(moved["shift"], moved["labels"])))
            found[name].view(-1)[index] = (sides[0] - sides[1]) / (2 * eps)
    return found


def agree(found: Tensors, expected: Tensors, tolerance: float) -> None:
    """Assert that two gradients differ by at most a fraction of their largest entry."""
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        scale = float(value.abs().max())
        assert scale > 1e-4
        torch.testing.assert_close(found[name], value, rtol=0, atol=tolerance * scale)


class MetaLoss(torch.autograd.Function):
    """The outer loss with the meta-gradient as its backward, so that gradcheck can judge it."""

    @staticmethod
    def forward(ctx, estimate: Callable[[Tensors], MetaResult], *values: torch.Tensor) -> torch.Tensor:
        result = estimate(dict(zip(("shift", "labels"), values, strict=True)))
        ctx.gradient = tuple(result.gradient.values())
        return result.outer_loss

    @staticmethod
    def backward(ctx, above: torch.Tensor):
        return None, *(above * value for value in ctx.gradient)


@every_optimizer
@pytest.mark.parametrize("start", ["cold", "warm"])
def test_gradcheck_through_five_steps(optimizer: InnerOptimizer, start: str) -> None:
    cold, synthetic = problem()
    student = warm(optimizer) if start == "warm" else cold
    unroll = TapedUnroll(optimizer=optimizer)

    def value(*values: torch.Tensor) -> torch.Tensor:
        return MetaLoss.apply(lambda given: unroll(inner_loss, outer_loss, student, given, 5), *values)

    values = [tensor.requires_grad_() for tensor in synthetic.values()]
    assert torch.autograd.gradcheck(value, values, eps=1e-6, atol=1e-6, rtol=1e-4)


@every_optimizer
def test_rows_that_no_step_touches_give_no_nan(optimizer: InnerOptimizer) -> None:
    result = run(optimizer, None, 5)
    assert all(torch.isfinite(value).all() for value in result.gradient.values())
    student, synthetic = problem()
    for step in range(5):
        student = train_step(inner_loss, optimizer, student, synthetic, step)
    if isinstance(optimizer, Adam) and not optimizer.weight_decay:
        assert student.moments[1]["table"][3].tolist() == [0, 0, 0]


@every_optimizer
@pytest.mark.parametrize("window", [5, 9])
def test_a_window_of_all_steps_is_the_full_gradient(optimizer: InnerOptimizer, window: int) -> None:
    full, windowed = run(optimizer, None, 5), run(optimizer, window, 5)
    assert torch.equal(windowed.outer_loss, full.outer_loss)
    for name in full.gradient:
        assert torch.equal(windowed.gradient[name], full.gradient[name])


@every_optimizer
@pytest.mark.parametrize("start", ["cold", "warm"])
@pytest.mark.parametrize(("window", "steps"), [(None, 6), (1, 6), (3, 8)])
def test_a_window_equals_finite_differences_of_its_own_objective(
    optimizer: InnerOptimizer, start: str, window: int | None, steps: int
) -> None:
    student = warm(optimizer) if start == "warm" else problem()[0]
    value = objective(optimizer, student, steps - (window or steps), steps)
    result = run(optimizer, window, steps, student)
    assert float(result.outer_loss) == pytest.approx(float(value(*problem()[1].values())), abs=1e-12)
    agree(result.gradient, finite_differences(value), 1e-5)


def test_a_short_window_is_another_estimator() -> None:
    full, short = run(Adam(learning_rate=0.05), None, 8), run(Adam(learning_rate=0.05), 2, 8)
    assert torch.equal(full.outer_loss, short.outer_loss)
    assert (full.gradient["labels"] - short.gradient["labels"]).abs().max() > 1e-4


@pytest.mark.parametrize("start", ["cold", "warm"])
def test_a_window_of_one_equals_one_step_by_hand(start: str) -> None:
    optimizer = Adam(learning_rate=0.05, weight_decay=0.02)
    student = warm(optimizer, 3) if start == "warm" else problem()[0]
    steps = 4
    result = run(optimizer, 1, steps, student)
    before, synthetic = student, problem()[1]
    for step in range(steps - 1):
        before = train_step(inner_loss, optimizer, before, synthetic, step)
    leaves = {name: value.clone().requires_grad_() for name, value in synthetic.items()}
    params = {name: value.clone().requires_grad_() for name, value in before.params.items()}
    count = before.step + 1
    moved, slopes = (
        {},
        torch.autograd.grad(inner_loss(params, leaves, steps - 1), list(params.values()), create_graph=True),
    )
    for (name, value), slope in zip(params.items(), slopes, strict=True):
        slope = slope + 0.02 * value.detach()
        old_first = before.moments[0][name] if before.moments else torch.zeros_like(value)
        old_second = before.moments[1][name] if before.moments else torch.zeros_like(value)
        first = (0.9 * old_first + 0.1 * slope) / (1 - 0.9**count)
        second = (0.999 * old_second + 0.001 * slope**2) / (1 - 0.999**count)
        moved[name] = value.detach() - 0.05 * first / (second.sqrt() + 1e-8)
    loss = outer_loss(moved, leaves)
    expected = torch.autograd.grad(loss, list(leaves.values()))
    torch.testing.assert_close(result.outer_loss, loss.detach(), rtol=0, atol=1e-12)
    agree(result.gradient, dict(zip(leaves, expected, strict=True)), 1e-9)


@pytest.mark.parametrize("steps", [0, 1, 2, 10])
def test_the_closed_form_of_a_quadratic(steps: int) -> None:
    """For the inner loss |w - s|^2 / 2, gradient descent gives w_K = s + (1 - rate)^K (w_0 - s)."""
    rate, goal = 0.3, torch.tensor([2.0, -1.0], dtype=torch.float64)
    start = Student({"w": torch.tensor([0.5, 4.0], dtype=torch.float64)})
    synthetic = {"s": torch.tensor([1.0, 3.0], dtype=torch.float64)}
    result = TapedUnroll(optimizer=SGD(learning_rate=rate))(
        lambda params, data, step: 0.5 * (params["w"] - data["s"]).square().sum(),
        lambda params, data: 0.5 * (params["w"] - goal).square().sum(),
        start,
        synthetic,
        steps,
    )
    left = (1 - rate) ** steps
    end = synthetic["s"] + left * (start.params["w"] - synthetic["s"])
    assert float(result.outer_loss) == pytest.approx(float(0.5 * (end - goal).square().sum()), abs=1e-12)
    torch.testing.assert_close(result.gradient["s"], (end - goal) * (1 - left), rtol=0, atol=1e-12)


@pytest.mark.parametrize("window", [1, 3])
def test_the_closed_form_of_a_window(window: int) -> None:
    """Only the last W steps count, so the derivative is (w_K - goal) (1 - (1 - rate)^W)."""
    rate, steps = 0.3, 6
    start = Student({"w": torch.tensor([0.5], dtype=torch.float64)})
    synthetic = {"s": torch.tensor([1.0], dtype=torch.float64)}
    result = TapedUnroll(optimizer=SGD(learning_rate=rate), window=window)(
        lambda params, data, step: 0.5 * (params["w"] - data["s"]).square().sum(),
        lambda params, data: 0.5 * params["w"].square().sum(),
        start,
        synthetic,
        steps,
    )
    end = 1 + (1 - rate) ** steps * (0.5 - 1)
    assert float(result.gradient["s"]) == pytest.approx(end * (1 - (1 - rate) ** window), abs=1e-12)
    before = 1 + (1 - rate) ** (steps - window) * (0.5 - 1)
    assert float(result.student.params["w"]) == pytest.approx(before, abs=1e-12)


@pytest.fixture
def double() -> Iterator[None]:
    """Double precision by default: torchopt computes its bias corrections in the default type."""
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


@pytest.mark.usefixtures("double")
@pytest.mark.parametrize(("optimizer", "decay"), [("adam", 0.0), ("adam", 0.02), ("sgd", 0.0)])
def test_torchopt_gives_the_same_meta_gradient(optimizer: str, decay: float) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torchopt = pytest.importorskip("torchopt")
    ours: InnerOptimizer = Adam(learning_rate=0.05, weight_decay=decay)
    theirs = torchopt.adam(lr=0.05, weight_decay=decay, eps_root=0.0)
    if optimizer == "sgd":
        ours, theirs = SGD(learning_rate=0.2, momentum=0.8), torchopt.sgd(lr=0.2, momentum=0.8)
    student, synthetic = problem()
    student = replace(student, params={**student.params, "table": student.params["table"][:3]})  # no untouched row

    def judge(params: Tensors, data: Tensors) -> torch.Tensor:
        return F.cross_entropy(params["table"] @ params["out"], TARGETS[:3])

    result = TapedUnroll(optimizer=ours)(dense_loss, judge, student, synthetic, 6)
    leaves = {name: value.clone().requires_grad_() for name, value in synthetic.items()}
    names = list(student.params)
    params = tuple(value.clone().requires_grad_() for value in student.params.values())
    state = theirs.init(params)
    for step in range(6):
        loss = dense_loss(dict(zip(names, params, strict=True)), leaves, step)
        slopes = torch.autograd.grad(loss, params, create_graph=True)
        updates, state = theirs.update(slopes, state, params=params, inplace=False)
        params = torchopt.apply_updates(params, updates, inplace=False)
    last = judge(dict(zip(names, params, strict=True)), leaves)
    expected = torch.autograd.grad(last, list(leaves.values()))
    torch.testing.assert_close(result.outer_loss, last.detach(), rtol=0, atol=1e-10)
    agree(result.gradient, dict(zip(leaves, expected, strict=True)), 1e-7)


def dense_loss(params: Tensors, synthetic: Tensors, step: int) -> torch.Tensor:
    """Return a loss that touches every weight."""
    hidden = torch.tanh(F.embedding(IDS, params["table"]) * synthetic["shift"])
    return -(torch.softmax(synthetic["labels"], -1) * torch.log_softmax(hidden @ params["out"], -1)).sum(-1).mean()


@every_optimizer
@pytest.mark.parametrize(("window", "plain"), [(None, 0), (2, 4), (6, 0), (9, 0)])
def test_the_student_returned_is_the_one_before_the_window(
    optimizer: InnerOptimizer, window: int | None, plain: int
) -> None:
    found = run(optimizer, window, 6).student
    expected, synthetic = problem()
    for step in range(plain):
        expected = train_step(inner_loss, optimizer, expected, synthetic, step)
    assert found.step == plain
    assert len(found.moments) == len(expected.moments)
    for name, value in expected.params.items():
        assert torch.equal(found.params[name], value)
        assert not found.params[name].requires_grad
    for ours, theirs in zip(found.moments, expected.moments, strict=True):
        assert all(torch.equal(ours[name], theirs[name]) and not ours[name].requires_grad for name in theirs)


@every_optimizer
@pytest.mark.parametrize("window", [None, 2])
def test_inputs_are_not_modified(optimizer: InnerOptimizer, window: int | None) -> None:
    student, (_, synthetic) = warm(optimizer), problem()
    copy = warm(optimizer)
    synthetic = {name: value.requires_grad_() for name, value in synthetic.items()}
    TapedUnroll(optimizer=optimizer, window=window)(inner_loss, outer_loss, student, synthetic, 5)
    for name, value in problem()[1].items():
        assert torch.equal(synthetic[name], value)
        assert synthetic[name].grad is None
    assert student.step == copy.step
    for ours, theirs in zip((student.params, *student.moments), (copy.params, *copy.moments), strict=True):
        for name in theirs:
            assert torch.equal(ours[name], theirs[name])
            assert not ours[name].requires_grad
            assert ours[name].grad is None


def test_the_graph_of_the_synthetic_tensors_is_left_alone() -> None:
    student, synthetic = problem()
    factor = torch.tensor(1.5, dtype=torch.float64, requires_grad=True)
    scaled = {name: value * factor for name, value in synthetic.items()}
    result = TapedUnroll(optimizer=Adam(learning_rate=0.05))(inner_loss, outer_loss, student, scaled, 3)
    torch.autograd.backward(list(scaled.values()), [result.gradient[name] for name in scaled])
    expected = sum((result.gradient[name] * synthetic[name]).sum() for name in synthetic)
    assert float(factor.grad) == pytest.approx(float(expected), abs=1e-12)  # still there, and never run before


def test_the_same_inputs_give_the_same_numbers() -> None:
    one, other = run(Adam(learning_rate=0.05), 3, 7), run(Adam(learning_rate=0.05), 3, 7)
    assert torch.equal(one.outer_loss, other.outer_loss)
    assert all(torch.equal(one.gradient[name], other.gradient[name]) for name in one.gradient)


def test_it_works_where_gradients_are_switched_off() -> None:
    with torch.no_grad():
        result = run(Adam(learning_rate=0.05), 3, 7)
    assert torch.equal(result.gradient["shift"], run(Adam(learning_rate=0.05), 3, 7).gradient["shift"])
    assert not result.outer_loss.requires_grad


def test_without_inner_steps_only_the_direct_part_is_left() -> None:
    result = run(Adam(learning_rate=0.05), None, 0)
    _, synthetic = problem()
    torch.testing.assert_close(result.gradient["shift"], 0.1 * 2 * synthetic["shift"] / 12, rtol=0, atol=1e-12)
    assert result.gradient["labels"].abs().max() == 0


def test_the_steps_are_counted_through() -> None:
    seen: list[int] = []

    def spy(params: Tensors, synthetic: Tensors, step: int) -> torch.Tensor:
        seen.append(step)
        return inner_loss(params, synthetic, step)

    student, synthetic = problem()
    TapedUnroll(optimizer=SGD(learning_rate=0.1), window=2)(spy, outer_loss, student, synthetic, 5)
    assert seen == [0, 1, 2, 3, 4]


@pytest.mark.parametrize("window", [0, -3])
def test_a_window_below_one_is_refused(window: int) -> None:
    with pytest.raises(OptionError, match="window"):
        TapedUnroll(optimizer=SGD(learning_rate=0.1), window=window)
