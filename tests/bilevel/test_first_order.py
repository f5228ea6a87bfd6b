"""Each formula of BOME against plain autograd, finite differences and a problem whose solution is known.

Everything is float64. That it keeps to the protocol of all estimators is proved in ``test_estimators.py``. Not proved:
that it converges on anything but a quadratic.
"""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from small_problem import (
    OPTIMIZERS,
    PLAIN,
    TOLD_APART,
    directions,
    inner_loss,
    outer_loss,
    problem,
    slope_along,
    train,
    warm,
)
from torch import Tensor

from recdistill.bilevel.first_order import BARRIERS, BOME
from recdistill.bilevel.kernels import Kernels
from recdistill.bilevel.losses import InnerLoss, OuterLoss
from recdistill.bilevel.optimizer import SGD, Adam, AdamW, InnerOptimizer, Student, Tensors
from recdistill.bilevel.unroll import MetaResult
from recdistill.errors import OptionError

STEPS = 4
INNER = Adam(learning_rate=0.05)
AS_IT_IS = SGD(learning_rate=1.0)
"""Takes the student along its direction, so that the direction can be read off."""
every_barrier = pytest.mark.parametrize("barrier", BARRIERS)
one_or_two = pytest.mark.parametrize("blockwise", [False, True], ids=["one multiplier", "blockwise"])


def with_the_gap(params: Tensors, synthetic: Tensors) -> Tensor:
    """An outer loss that falls where the gap does, whatever the synthetic tensors are; and their direct part."""
    return 4 * inner_loss(params, problem()[1], STEPS) + 0.1 * synthetic["mix"].square().mean()


def against_the_gap(params: Tensors, synthetic: Tensors) -> Tensor:
    return 0.2 * synthetic["mix"].square().mean() - with_the_gap(params, synthetic)


OUTER: dict[str, Callable[[Tensors, Tensors], Tensor]] = {
    "as it comes": outer_loss,
    "with the gap": with_the_gap,
    "against the gap": against_the_gap,
}
every_outer = pytest.mark.parametrize("outer", OUTER.values(), ids=OUTER)


def bome(**options: Any) -> BOME:
    return BOME(**{"optimizer": INNER, "student_optimizer": AS_IT_IS} | options)


@dataclass(frozen=True)
class Expected:
    """What the docstring says, by autograd; each pair is of weights and synthetic tensors, flat."""

    outer_loss: Tensor
    gap: Tensor
    outer: tuple[Tensor, Tensor]
    slope: tuple[Tensor, Tensor]

    def multipliers(self, eta: float, barrier: str, blockwise: bool) -> list[float]:
        blocks = list(zip(self.outer, self.slope, strict=True))
        if not blockwise:
            blocks = [(torch.cat(self.outer), torch.cat(self.slope))] * 2
        sizes = [slope @ slope for _, slope in blocks]
        asked = [eta * (size if barrier == "gradient" else self.gap) for size in sizes]
        return [
            max(0.0, float((rate - outer @ slope) / size))
            for rate, size, (outer, slope) in zip(asked, sizes, blocks, strict=True)
        ]

    def direction(self, multipliers: list[float]) -> list[Tensor]:
        return [outer + by * slope for outer, by, slope in zip(self.outer, multipliers, self.slope, strict=True)]


def flat(tensors: Tensors) -> Tensor:
    return torch.cat([value.flatten() for value in tensors.values()])


def by_autograd(
    student: Student,
    synthetic: Tensors,
    steps: int = STEPS,
    outer: Callable[[Tensors, Tensors], Tensor] = outer_loss,
    optimizer: InnerOptimizer = INNER,
) -> Expected:
    trained = train(optimizer, student.fresh(), synthetic, range(steps)).params
    params, tensors = (
        {name: value.detach().clone().requires_grad_() for name, value in each.items()}
        for each in (student.params, synthetic)
    )

    def slopes(value: Tensor) -> tuple[Tensor, Tensor]:
        leaves = [*params.values(), *tensors.values()]
        found = torch.autograd.grad(value, leaves, allow_unused=True, materialize_grads=True)
        cut = len(params)
        return tuple(torch.cat([slope.flatten() for slope in part]) for part in (found[:cut], found[cut:]))

    judged = outer(params, tensors)
    gap = inner_loss(params, tensors, steps) - inner_loss(trained, tensors, steps)
    return Expected(judged.detach(), gap.detach(), slopes(judged), slopes(gap))


def taken(before: Student, result: MetaResult) -> Tensor:
    """Return the direction along which the student went (``AS_IT_IS``)."""
    return before.weights - result.student.weights


@pytest.mark.parametrize(("eta", "steps"), [(0.5, STEPS), (3.0, 1)])
@pytest.mark.parametrize(
    ("losses", "record"),
    [(PLAIN, False), (TOLD_APART, False), (TOLD_APART, True)],
    ids=["plain", "told apart", "recorded"],
)
@every_barrier
@one_or_two
def test_every_number_is_the_one_that_autograd_gives(
    barrier: str, blockwise: bool, losses: tuple[InnerLoss, OuterLoss], record: bool, eta: float, steps: int
) -> None:
    student, synthetic = problem()
    estimator = bome(eta=eta, barrier=barrier, blockwise=blockwise, kernels=Kernels(record=record))
    result = estimator(*losses, student, synthetic, steps)
    wanted = by_autograd(student, synthetic, steps)
    multipliers = wanted.multipliers(eta, barrier, blockwise)
    agreement, slope = (
        sum(float(one @ other) for one, other in zip(pair, wanted.slope, strict=True))
        for pair in (wanted.outer, wanted.slope)
    )
    told = {"gap": float(wanted.gap), "agreement": agreement, "slope": slope}
    if blockwise:
        told |= {"multiplier_weights": multipliers[0], "multiplier_synthetic": multipliers[1]}
    else:
        told |= {"multiplier": multipliers[0]}
    assert result.notes == pytest.approx(told, rel=1e-9, abs=1e-12)
    torch.testing.assert_close(result.outer_loss, wanted.outer_loss, rtol=0, atol=1e-12)
    weights, tensors = wanted.direction(multipliers)
    torch.testing.assert_close(flat(result.gradient), tensors, rtol=1e-9, atol=1e-11)
    torch.testing.assert_close(taken(student, result), weights, rtol=1e-9, atol=1e-11)
    assert result.student.step == student.step + 1


@every_barrier
@every_outer
@pytest.mark.parametrize("eta", [0.01, 0.5, 2.0])
def test_the_gap_falls_at_least_as_fast_as_the_barrier_asks(
    barrier: str, outer: Callable[[Tensors, Tensors], Tensor], eta: float
) -> None:
    student, synthetic = problem()
    result = bome(eta=eta, barrier=barrier)(inner_loss, outer, student, synthetic, STEPS)
    wanted = by_autograd(student, synthetic, outer=outer)
    slope = torch.cat(wanted.slope)
    falls = float(slope @ torch.cat([taken(student, result), flat(result.gradient)]))
    asked = eta * float(slope @ slope if barrier == "gradient" else wanted.gap)
    if result.notes["multiplier"] > 0:
        assert falls == pytest.approx(asked, rel=1e-9)
    else:
        assert falls > asked
    if outer is not outer_loss:
        assert (result.notes["multiplier"] == 0) == (outer is with_the_gap)


@every_barrier
@one_or_two
def test_where_both_losses_agree_only_the_outer_one_is_followed(barrier: str, blockwise: bool) -> None:
    student, synthetic = problem()
    estimator = bome(barrier=barrier, blockwise=blockwise, eta=0.01)
    result = estimator(inner_loss, with_the_gap, student, synthetic, STEPS)
    weights, _ = by_autograd(student, synthetic, outer=with_the_gap).outer
    torch.testing.assert_close(taken(student, result), weights, rtol=0, atol=1e-12)
    if blockwise:
        assert result.notes["multiplier_weights"] == 0
        assert result.notes["multiplier_synthetic"] > 0  # there the outer loss says nothing of the gap
    else:
        assert result.notes["multiplier"] == 0
        torch.testing.assert_close(result.gradient["mix"], 0.1 * 2 * synthetic["mix"] / 12, rtol=0, atol=1e-12)
        assert result.gradient["labels"].abs().max() == 0


@one_or_two
def test_the_trained_copy_is_held_fixed(blockwise: bool) -> None:
    """Finite differences of the loss that the synthetic tensors descend, at the copy that was trained on them."""
    student, synthetic = problem()
    result = bome(blockwise=blockwise)(*TOLD_APART, student, synthetic, STEPS)
    trained = train(INNER, student, synthetic, range(STEPS))
    multiplier = result.notes["multiplier_synthetic" if blockwise else "multiplier"]

    def value(moved: Tensors, copy: Student = trained) -> Tensor:
        gap = inner_loss(student.params, moved, STEPS) - inner_loss(copy.params, moved, STEPS)
        return outer_loss(student.params, moved) + multiplier * gap

    def through(moved: Tensors) -> Tensor:
        return value(moved, train(INNER, student, moved, range(STEPS)))

    for direction in directions(synthetic, 3):
        found = sum(float((result.gradient[name] * part).sum()) for name, part in direction.items())
        assert found == pytest.approx(slope_along(value, synthetic, direction), rel=1e-7)
        assert abs(found - slope_along(through, synthetic, direction)) > 1e-3 * abs(found)


@dataclass(frozen=True)
class Logged:
    """The inner loss, with the steps at which it was asked and the students that asked."""

    steps: list[int] = field(default_factory=list)
    tables: list[Tensor] = field(default_factory=list)

    def __call__(self, params: Tensors, synthetic: Tensors, step: int) -> Tensor:
        self.steps.append(step)
        self.tables.append(params["table"].detach().clone())
        return inner_loss(params, synthetic, step)


def test_both_sides_of_the_gap_see_the_step_after_the_last() -> None:
    logged, student = Logged(), problem()[0]
    bome()(logged, outer_loss, student, problem()[1], 3)
    assert logged.steps == [0, 1, 2, 3, 3]
    trained = train(INNER, student, problem()[1], range(3))
    torch.testing.assert_close(logged.tables[3], student.params["table"], rtol=0, atol=0)
    torch.testing.assert_close(logged.tables[4], trained.params["table"], rtol=0, atol=1e-14)


@pytest.mark.parametrize("optimizer", OPTIMIZERS.values(), ids=OPTIMIZERS)
def test_the_copy_starts_without_the_moments_of_the_student(optimizer: InnerOptimizer) -> None:
    student, synthetic = warm(optimizer), problem()[1]
    result = bome(optimizer=optimizer, student_optimizer=optimizer)(*PLAIN, student, synthetic, STEPS)
    wanted = by_autograd(student, synthetic, optimizer=optimizer)
    assert result.notes["gap"] == pytest.approx(float(wanted.gap), rel=1e-9)
    kept = replace(student, moments=student.moments)
    carried = train(optimizer, kept, synthetic, range(STEPS)).params
    other = inner_loss(student.params, synthetic, STEPS) - inner_loss(carried, synthetic, STEPS)
    assert result.notes["gap"] != pytest.approx(float(other), rel=1e-3)


TORCH: dict[str, tuple[InnerOptimizer, Callable[[list[Tensor]], torch.optim.Optimizer]]] = {
    "adamw": (
        AdamW(learning_rate=0.03, weight_decay=0.1),
        lambda params: torch.optim.AdamW(params, lr=0.03, weight_decay=0.1),
    ),
    "sgd with momentum": (
        SGD(learning_rate=0.1, momentum=0.7),
        lambda params: torch.optim.SGD(params, lr=0.1, momentum=0.7),
    ),
}


@pytest.mark.parametrize("name", TORCH)
@pytest.mark.parametrize("losses", [PLAIN, TOLD_APART], ids=["plain", "told apart"])
def test_carried_on_it_is_an_ordinary_optimiser_on_both(name: str, losses: tuple[InnerLoss, OuterLoss]) -> None:
    ours, theirs = TORCH[name]
    estimator = bome(student_optimizer=ours)
    student, synthetic = problem()
    weights = student.weights.clone().requires_grad_()
    reference = theirs([weights])
    for number in range(4):
        wanted = by_autograd(student.with_weights(weights.detach().clone()), synthetic)
        result = estimator(*losses, student, synthetic, STEPS)
        weights.grad, expected = wanted.direction(wanted.multipliers(0.5, "gradient", False))
        reference.step()
        student = result.student
        torch.testing.assert_close(student.weights, weights.detach(), rtol=0, atol=1e-10)
        torch.testing.assert_close(flat(result.gradient), expected, rtol=1e-8, atol=1e-10)
        assert student.step == number + 1
        synthetic = {name: value - 0.1 * result.gradient[name] for name, value in synthetic.items()}


@every_barrier
@one_or_two
def test_without_inner_steps_there_is_no_gap_and_the_synthetic_data_hears_nothing_of_it(
    barrier: str, blockwise: bool
) -> None:
    student, synthetic = problem()
    result = bome(barrier=barrier, blockwise=blockwise)(*TOLD_APART, student, synthetic, 0)
    assert result.notes["gap"] == 0
    wanted = by_autograd(student, synthetic, steps=0)
    torch.testing.assert_close(flat(result.gradient), wanted.outer[1], rtol=0, atol=1e-12)
    assert all(torch.isfinite(torch.tensor(value)) for value in result.notes.values())
    assert torch.isfinite(result.student.weights).all()
    if blockwise:
        assert result.notes["multiplier_synthetic"] == 0


TARGET = torch.tensor([1.0, -2.0, 0.5], dtype=torch.float64)


def pulled_in(params: Tensors, synthetic: Tensors, step: int) -> Tensor:
    return 0.5 * (params["w"] - synthetic["s"]).square().sum()


def off_target(params: Tensors, synthetic: Tensors) -> Tensor:
    return 0.5 * (params["w"] - TARGET).square().sum()


@every_barrier
@one_or_two
def test_where_the_gap_has_no_slope_the_multiplier_is_zero(barrier: str, blockwise: bool) -> None:
    """A student that is trained already."""
    synthetic = {"s": torch.tensor([3.0, 1.0, -1.0], dtype=torch.float64)}
    student = Student.of({"w": synthetic["s"]})
    result = bome(barrier=barrier, blockwise=blockwise)(pulled_in, off_target, student, synthetic, STEPS)
    names = {"multiplier_weights", "multiplier_synthetic"} if blockwise else {"multiplier"}
    assert result.notes == dict.fromkeys(names | {"gap", "agreement", "slope"}, 0.0)
    assert result.gradient["s"].tolist() == [0, 0, 0]
    torch.testing.assert_close(taken(student, result), synthetic["s"] - TARGET)


@every_barrier
@one_or_two
def test_it_solves_a_quadratic(barrier: str, blockwise: bool) -> None:
    """Training on ``s`` leads to ``s``, and the target is the best student: so ``s`` must become the target.

    The outer loss says nothing of ``s`` directly; all that it learns, it learns from the gap. Multipliers of their own
    make it slower, so there the barrier is a stronger one.
    """
    estimator = bome(
        optimizer=SGD(learning_rate=0.3),
        student_optimizer=SGD(learning_rate=0.2),
        eta=3.0 if blockwise else 0.5,
        barrier=barrier,
        blockwise=blockwise,
    )
    student, synthetic = Student.of({"w": torch.zeros_like(TARGET)}), {"s": torch.full_like(TARGET, 3.0)}
    errors = [float((synthetic["s"] - TARGET).norm())]
    for _ in range(3):
        for _ in range(50):
            result = estimator(pulled_in, off_target, student, synthetic, 2)
            student, synthetic = result.student, {"s": synthetic["s"] - 0.2 * result.gradient["s"]}
        errors.append(float((synthetic["s"] - TARGET).norm()))
    assert all(later < 0.4 * sooner for sooner, later in pairwise(errors))
    assert errors[-1] < (0.05 if blockwise else 1e-3)
    assert (student.weights - TARGET).norm() < errors[-1]


def test_no_operation_needs_a_second_derivative() -> None:
    """Fused attention has none."""

    def attend(params: Tensors, synthetic: Tensors, step: int = 0) -> Tensor:
        rows = (synthetic["mix"] @ params["table"][:3]).view(1, 1, 4, 3)
        return F.scaled_dot_product_attention(rows, rows, rows).sin().sum()

    result = bome()(attend, attend, *problem(), 2)
    assert all(torch.isfinite(value).all() for value in result.gradient.values())
    assert result.gradient["mix"].abs().max() > 0


@pytest.mark.parametrize("eta", [0.0, -1.0, float("nan")])
def test_a_barrier_without_strength_is_refused(eta: float) -> None:
    with pytest.raises(OptionError, match=r"eta: .* must be above 0"):
        bome(eta=eta)


def test_an_unknown_barrier_is_refused() -> None:
    with pytest.raises(OptionError, match=r"barrier: 'gradients' is not known \(did you mean 'gradient'\?\); .*value"):
        bome(barrier="gradients")


def test_several_learners_are_refused() -> None:
    student = Student.stack([problem()[0], problem()[0]])
    bome = BOME(optimizer=SGD(learning_rate=0.1), student_optimizer=SGD(learning_rate=0.1))
    with pytest.raises(OptionError, match="learners: 2 have no gap"):
        bome(*TOLD_APART, student, problem()[1], 2)
