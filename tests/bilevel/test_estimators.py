"""What every meta-gradient estimator promises, and that all exact ways to one estimator give its gradient.

A new method is one line in ``ESTIMATORS``; a new exact way to differentiate a window one line in ``WAYS``. Not proved
here: that the gradient is right at all; see ``test_unroll.py``, where it is compared with finite differences.
"""

from collections.abc import Callable
from dataclasses import replace
from functools import cache
from itertools import product
from typing import Any

import pytest
import torch
from small_problem import (
    OPTIMIZERS,
    PLAIN,
    TOLD_APART,
    Alone,
    SinglePrecision,
    distance,
    outer_loss,
    problem,
    to,
    warm,
)

from recdistill.bilevel.first_order import BOME
from recdistill.bilevel.kernels import Kernels
from recdistill.bilevel.optimizer import InnerOptimizer, Student, Tensors
from recdistill.bilevel.unroll import MetaGradient, MetaResult, Unroll, random_unroll
from recdistill.errors import OptionError

# the first use of forward mode in a process compiles some of its formulas with a part of torch that torch deprecates
pytestmark = pytest.mark.filterwarnings("ignore:.torch.jit.script. is deprecated:DeprecationWarning")

Make = Callable[[InnerOptimizer], MetaGradient]
STEPS = 7

RECORDED = Kernels(record=True)
RECORDED_FORWARD = Kernels(record=True, product="forward_over_reverse")
SINGLE = (SinglePrecision(), TOLD_APART[1])
WINDOWS: dict[str, int | None] = {"full": None, "window": 3, "one step": 1}
WAYS: dict[str, dict[str, Any]] = {
    "taped": {"mode": "taped"},
    "stepwise": {},
    "stepwise, forward over reverse": {"kernels": Kernels(product="forward_over_reverse")},
    "stepwise, recorded": {"kernels": RECORDED},
    "stepwise, recorded, forward": {"kernels": RECORDED_FORWARD},
    "training again": {"state_bytes": 1},
    "training again from two": {"state_bytes": 2 * 3 * 18 * 8},
    "reversible": {"mode": "reversible"},
    "reversible, recorded, forward": {"mode": "reversible", "kernels": RECORDED_FORWARD},
}
"""Ways to the same gradient."""


def unroll(window: int | None, way: str) -> Make:
    return lambda optimizer: Unroll(optimizer=optimizer, window=window, **WAYS[way])


def central(window: int | None) -> Make:
    return lambda optimizer: Unroll(optimizer=optimizer, window=window, kernels=Kernels(product="central_difference"))


ESTIMATORS: dict[str, Make] = {
    **{f"{name}, {way}": unroll(WINDOWS[name], way) for name, way in product(["full", "window"], WAYS)},
    "one step, stepwise": unroll(1, "stepwise"),
    **{f"{name}, central difference": central(window) for name, window in WINDOWS.items()},
    "bome": lambda optimizer: BOME(optimizer=optimizer, student_optimizer=OPTIMIZERS["adamw"]),
    "bome, recorded": lambda optimizer: BOME(optimizer=optimizer, student_optimizer=optimizer, kernels=RECORDED),
    "bome, blockwise, by value": lambda optimizer: BOME(
        optimizer=optimizer, student_optimizer=optimizer, barrier="value", blockwise=True
    ),
}
ADAM = OPTIMIZERS["adam with decay"]
every_estimator = pytest.mark.parametrize("name", ESTIMATORS)
every_way = pytest.mark.parametrize("way", [way for way in WAYS if way != "taped"])


def run(name: str, student: Student, steps: int = STEPS, losses: Any = TOLD_APART) -> MetaResult:
    return ESTIMATORS[name](ADAM)(*losses, student, problem(student.weights.dtype)[1], steps)


def tensors(result: MetaResult) -> list[torch.Tensor]:
    return [result.outer_loss, *result.gradient.values(), result.student.weights, *result.student.moments]


def equal(one: MetaResult, other: MetaResult) -> bool:
    return (
        all(torch.equal(*pair) for pair in zip(tensors(one), tensors(other), strict=True)) and one.notes == other.notes
    )


@every_estimator
def test_it_keeps_to_the_protocol(name: str) -> None:
    estimator = ESTIMATORS[name](ADAM)
    assert isinstance(estimator, MetaGradient)
    student, synthetic = warm(ADAM), problem()[1]
    leaves = {name: value.requires_grad_() for name, value in synthetic.items()}
    result = estimator(*TOLD_APART, student, leaves, STEPS)
    assert {name: value.shape for name, value in result.gradient.items()} == {
        name: value.shape for name, value in synthetic.items()
    }
    assert result.outer_loss.shape == ()
    assert all(value.dtype == torch.float64 for value in tensors(result))
    assert not any(value.requires_grad for value in tensors(result))
    assert all(torch.isfinite(value).all() for value in tensors(result))
    assert result.student.layout == student.layout
    assert all(isinstance(value, float) for value in result.notes.values())
    assert all(value.abs().max() > 0 for value in result.gradient.values())


@every_estimator
def test_it_gives_the_same_numbers_each_time_and_changes_nothing(name: str) -> None:
    estimator, student, synthetic = ESTIMATORS[name](ADAM), warm(ADAM), problem()[1]
    first = estimator(*TOLD_APART, student, synthetic, STEPS)
    kept = [value.clone() for value in tensors(first)]
    assert equal(estimator(*TOLD_APART, student, synthetic, STEPS), first)
    assert equal(run(name, warm(ADAM)), first)
    with torch.no_grad():
        assert equal(run(name, warm(ADAM)), first)
    assert all(torch.equal(*pair) for pair in zip(tensors(first), kept, strict=True))  # nor an earlier result
    before = warm(ADAM)
    assert student.step == before.step
    assert torch.equal(student.weights, before.weights)
    assert all(torch.equal(*pair) for pair in zip(student.moments, before.moments, strict=True))
    assert all(torch.equal(synthetic[key], value) for key, value in problem()[1].items())
    assert not any(value.requires_grad for value in (student.weights, *student.moments, *synthetic.values()))


@every_estimator
def test_the_graph_of_the_synthetic_tensors_is_left_alone(name: str) -> None:
    factor = torch.tensor(1.5, dtype=torch.float64, requires_grad=True)
    scaled = {key: value * factor for key, value in problem()[1].items()}
    result = ESTIMATORS[name](ADAM)(*TOLD_APART, problem()[0], scaled, 3)
    assert factor.grad is None
    torch.autograd.backward(list(scaled.values()), [result.gradient[key] for key in scaled])
    expected = sum((result.gradient[key] * value).sum() for key, value in problem()[1].items())
    assert float(factor.grad) == pytest.approx(float(expected), abs=1e-12)  # still there, and never run before


@every_estimator
@pytest.mark.parametrize("losses", [PLAIN, TOLD_APART], ids=["plain", "told apart"])
def test_without_inner_steps_only_the_direct_part_is_left(name: str, losses: Any) -> None:
    result = run(name, problem()[0], 0, losses)
    mix = problem()[1]["mix"]
    torch.testing.assert_close(result.gradient["mix"], 0.1 * 2 * mix / 12, rtol=0, atol=1e-12)
    assert result.gradient["labels"].abs().max() == 0


@every_estimator
def test_moments_and_step_count_of_a_warm_student_are_used(name: str) -> None:
    student = warm(ADAM)
    used = run(name, student)
    for changed in (student.fresh(), replace(student, step=2)):
        pairs = zip(tensors(used), tensors(run(name, changed)), strict=False)
        assert max(float((ours - other).abs().max()) for ours, other in pairs) > 1e-4


@every_estimator
def test_a_loss_told_apart_is_the_same_loss(name: str) -> None:
    plain, told = (run(name, warm(ADAM), losses=losses) for losses in (PLAIN, TOLD_APART))
    tolerance = 1e-5 if "central" in name else 1e-9
    torch.testing.assert_close(plain.outer_loss, told.outer_loss, rtol=1e-12, atol=0)
    assert distance(plain.gradient, told.gradient) < tolerance
    torch.testing.assert_close(plain.student.weights, told.student.weights, rtol=0, atol=1e-10)


@cache
def expected(optimizer: str, start: str, window: int | None, dtype: torch.dtype) -> MetaResult:
    """Return what autograd through plain losses gives."""
    student = to(warm(OPTIMIZERS[optimizer]) if start == "warm" else problem()[0], dtype)
    estimator = Unroll(optimizer=OPTIMIZERS[optimizer], window=window, mode="taped")
    return estimator(*PLAIN, student, problem(dtype)[1], STEPS)


@every_way
@pytest.mark.parametrize("window", WINDOWS.values(), ids=WINDOWS)
@pytest.mark.parametrize("start", ["cold", "warm"])
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_exact_ways_give_the_gradient_of_the_tape(optimizer: str, start: str, window: int | None, way: str) -> None:
    student = warm(OPTIMIZERS[optimizer]) if start == "warm" else problem()[0]
    wanted = expected(optimizer, start, window, torch.float64)
    found = unroll(window, way)(OPTIMIZERS[optimizer])(*TOLD_APART, student, problem()[1], STEPS)
    torch.testing.assert_close(found.outer_loss, wanted.outer_loss, rtol=0, atol=1e-12)
    assert distance(found.gradient, wanted.gradient) < 1e-9
    assert torch.equal(found.student.weights, wanted.student.weights) or "recorded" in way
    torch.testing.assert_close(found.student.weights, wanted.student.weights, rtol=0, atol=1e-12)
    assert found.student.step == wanted.student.step


@every_way
@pytest.mark.parametrize("start", ["cold", "warm"])
def test_exact_ways_agree_in_single_precision(start: str, way: str) -> None:
    """Also from a fresh optimiser, whose first steps single precision cannot undo."""
    student = to(warm(ADAM) if start == "warm" else problem()[0], torch.float32)
    wanted = expected("adam with decay", start, None, torch.float32)
    found = unroll(None, way)(ADAM)(*SINGLE, student, problem(torch.float32)[1], STEPS)
    assert all(value.dtype == torch.float32 for value in tensors(found))
    assert distance(found.gradient, wanted.gradient) < 1e-4


@pytest.mark.parametrize("window", WINDOWS.values(), ids=WINDOWS)
@pytest.mark.parametrize("start", ["cold", "warm"])
def test_central_differences_come_close(window: int | None, start: str) -> None:
    student = warm(ADAM) if start == "warm" else problem()[0]
    found = central(window)(ADAM)(*TOLD_APART, student, problem()[1], STEPS)
    assert distance(found.gradient, expected("adam with decay", start, window, torch.float64).gradient) < 1e-5


@every_way
@pytest.mark.parametrize("window", [STEPS, STEPS + 3])
def test_a_window_of_all_steps_or_more_is_the_full_gradient(window: int, way: str) -> None:
    full, windowed = (unroll(each, way)(ADAM)(*TOLD_APART, warm(ADAM), problem()[1], STEPS) for each in (None, window))
    assert equal(full, windowed)


@every_way
def test_a_random_unroll_is_a_window_at_the_end_of_so_many_steps(way: str) -> None:
    """RaT-BPTT: 3 .. 9 steps, the last three of which are differentiated."""
    generator, drawn = torch.Generator().manual_seed(0), []
    for _ in range(4):
        steps = random_unroll(3, 9, generator)
        drawn.append(steps)
        found = unroll(3, way)(ADAM)(*TOLD_APART, warm(ADAM), problem()[1], steps)
        tape = unroll(3, "taped")(ADAM)(*PLAIN, warm(ADAM), problem()[1], steps)
        assert distance(found.gradient, tape.gradient) < 1e-9
        assert found.student.step == 7 + steps - 3
    assert len(set(drawn)) > 2


LEARNERS = 2


def learners() -> list[Student]:
    return [warm(ADAM, seed=seed) for seed in range(LEARNERS)]


@pytest.mark.parametrize("name", [name for name in ESTIMATORS if "bome" not in name])
def test_several_learners_give_the_mean_of_what_each_gives_alone(name: str) -> None:
    """Each has its own weights, moments and masks; the rows of the outer loss and the synthetic tensors are shared."""
    estimator, synthetic, steps = ESTIMATORS[name](ADAM), problem()[1], 4
    alone = [
        estimator(Alone(number), TOLD_APART[1], student, synthetic, steps) for number, student in enumerate(learners())
    ]
    mean = {key: sum(each.gradient[key] for each in alone) / LEARNERS for key in synthetic}
    together = estimator(*TOLD_APART, Student.stack(learners()), synthetic, steps)
    assert distance(together.gradient, mean) < (1e-5 if "central" in name else 1e-9)
    assert float(together.outer_loss) == pytest.approx(sum(float(each.outer_loss) for each in alone) / LEARNERS)
    assert together.student.step == alone[0].student.step
    stacked = Student.stack([each.student for each in alone])
    for ours, theirs in zip(
        (together.student.weights, *together.student.moments), (stacked.weights, *stacked.moments), strict=True
    ):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-10)


@every_estimator
def test_several_learners_need_an_inner_loss_that_plans(name: str) -> None:
    with pytest.raises(OptionError, match="learners"):
        run(name, Student.stack(learners()), losses=PLAIN)


@every_way
def test_a_plain_outer_loss_judges_several_learners(way: str) -> None:
    plain, parts = (
        run(f"window, {way}", Student.stack(learners()), losses=(TOLD_APART[0], of))
        for of in (outer_loss, TOLD_APART[1])
    )
    assert float(plain.outer_loss) == pytest.approx(float(parts.outer_loss))
    assert distance(plain.gradient, parts.gradient) < 1e-9


@pytest.mark.parametrize("together", [False, True], ids=["one learner", "several"])
def test_a_plain_outer_loss_may_read_anything(together: bool) -> None:
    """It is asked each time, even where what is planned is recorded."""
    weight = [1.0]
    estimator = unroll(3, "stepwise, recorded")(ADAM)
    student = Student.stack(learners()) if together else warm(ADAM)

    def weighted(params: Tensors, synthetic: Tensors) -> torch.Tensor:
        return weight[0] * outer_loss(params, synthetic)

    def judge() -> float:
        return float(estimator(TOLD_APART[0], weighted, student, problem()[1], STEPS).outer_loss)

    once = judge()
    weight[0] = 2.0
    assert judge() == pytest.approx(2 * once)


def test_the_number_of_steps_is_uniform_between_window_and_longest() -> None:
    generator = torch.Generator().manual_seed(0)
    drawn = [random_unroll(2, 5, generator) for _ in range(2000)]
    counts = [drawn.count(steps) for steps in range(2, 6)]
    assert sum(counts) == 2000
    assert min(counts) > 430
    assert max(counts) < 570
    assert random_unroll(4, 4, generator) == 4


def test_undoing_steps_says_how_far_it_is_off() -> None:
    estimator = unroll(None, "reversible")(ADAM)
    assert estimator(*TOLD_APART, warm(ADAM), problem()[1], 0).notes == {"rebuild_error": 0.0}
    errors = {}
    for dtype in (torch.float64, torch.float32):
        losses = TOLD_APART if dtype == torch.float64 else SINGLE
        result = estimator(*losses, to(warm(ADAM), dtype), problem(dtype)[1], STEPS)
        assert set(result.notes) == {"rebuild_error"}
        errors[dtype] = result.notes["rebuild_error"]
    assert 0 < errors[torch.float64] < 1e-12
    assert 1e-9 < errors[torch.float32] < 1e-4


def test_only_undoing_steps_has_something_to_tell() -> None:
    assert all(run(f"full, {way}", warm(ADAM)).notes == {} for way in ("taped", "stepwise", "training again"))
