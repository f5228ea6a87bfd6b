"""The optimisers equal ``torch.optim`` number by number, change nothing that they are given, and can be walked back.

``pull_back`` is compared with autograd through ``update``, ``rewind`` with the student before the step.
"""

from dataclasses import replace

import pytest
import torch

from recdistill.bilevel.optimizer import (
    SGD,
    Adam,
    AdamW,
    Cotangent,
    InnerOptimizer,
    Layout,
    Student,
    safe_sqrt,
)
from recdistill.errors import OptionError

STEPS = 12


def start(seed: int = 0) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return {
        "table": torch.randn(5, 3, dtype=torch.float64, generator=generator),
        "bias": torch.randn(3, dtype=torch.float64, generator=generator),
    }


def gradients(step: int) -> dict[str, torch.Tensor]:
    """Return gradients in which row 4 is never touched, row 3 once and row 2 from the sixth step on."""
    generator = torch.Generator().manual_seed(100 + step)
    table = torch.randn(5, 3, dtype=torch.float64, generator=generator)
    table[4] = 0
    if step != 2:
        table[3] = 0
    if step < 6:
        table[2] = 0
    return {"table": table, "bias": torch.randn(3, dtype=torch.float64, generator=generator)}


def flat(step: int) -> torch.Tensor:
    return torch.cat([value.flatten() for value in gradients(step).values()])


def after(optimizer: InnerOptimizer, steps: int) -> Student:
    student = Student.of(start())
    for step in range(steps):
        student = optimizer.update(student, flat(step))
    return student


CASES = {
    "adam": (Adam(learning_rate=0.1), torch.optim.Adam, {"lr": 0.1}),
    "adam with decay": (
        Adam(learning_rate=0.1, weight_decay=0.05),
        torch.optim.Adam,
        {"lr": 0.1, "weight_decay": 0.05},
    ),
    "adam with other betas": (
        Adam(learning_rate=0.01, betas=(0.5, 0.9), eps=1e-3),
        torch.optim.Adam,
        {"lr": 0.01, "betas": (0.5, 0.9), "eps": 1e-3},
    ),
    "adam without memory": (
        Adam(learning_rate=0.1, betas=(0.0, 0.0)),
        torch.optim.Adam,
        {"lr": 0.1, "betas": (0.0, 0.0)},
    ),
    "adamw": (AdamW(learning_rate=0.1), torch.optim.AdamW, {"lr": 0.1}),
    "adamw with much decay": (
        AdamW(learning_rate=0.1, weight_decay=2.0),
        torch.optim.AdamW,
        {"lr": 0.1, "weight_decay": 2.0},
    ),
    "adamw without decay": (
        AdamW(learning_rate=0.1, weight_decay=0.0),
        torch.optim.AdamW,
        {"lr": 0.1, "weight_decay": 0.0},
    ),
    "sgd": (SGD(learning_rate=0.1), torch.optim.SGD, {"lr": 0.1}),
    "sgd with momentum": (SGD(learning_rate=0.1, momentum=0.9), torch.optim.SGD, {"lr": 0.1, "momentum": 0.9}),
    "sgd with decay": (
        SGD(learning_rate=0.1, momentum=0.7, weight_decay=0.05),
        torch.optim.SGD,
        {"lr": 0.1, "momentum": 0.7, "weight_decay": 0.05},
    ),
}
every_case = pytest.mark.parametrize(("ours", "theirs", "options"), CASES.values(), ids=CASES)
every_optimizer = pytest.mark.parametrize("optimizer", [case[0] for case in CASES.values()], ids=CASES)
UNDOABLE = {name: case[0] for name, case in CASES.items() if name not in ("adam without memory", "sgd")}


@every_case
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-12), (torch.float32, 2e-6)], ids=["f64", "f32"])
def test_steps_and_moments_equal_those_of_torch(
    ours: InnerOptimizer,
    theirs: type[torch.optim.Optimizer],
    options: dict,
    dtype: torch.dtype,
    tolerance: float,
) -> None:
    student = Student.of({name: value.to(dtype) for name, value in start().items()})
    reference = {name: torch.nn.Parameter(value.to(dtype)) for name, value in start().items()}
    optimizer = theirs(reference.values(), **options)
    for step in range(STEPS):
        student = ours.update(student, flat(step).to(dtype))
        for name, parameter in reference.items():
            parameter.grad = gradients(step)[name].to(dtype)
        optimizer.step()
        for name, parameter in reference.items():
            torch.testing.assert_close(student.params[name], parameter.detach(), rtol=0, atol=tolerance)
    assert student.step == STEPS
    assert len(student.moments) == ours.num_moments
    names = ("exp_avg", "exp_avg_sq") if isinstance(ours, Adam) else ("momentum_buffer",)
    for moment, key in zip(student.moments, names, strict=True):
        for name, value in student.layout.views(moment).items():
            wanted = optimizer.state[reference[name]].get(key)
            if wanted is not None:  # without momentum torch keeps none
                torch.testing.assert_close(value, wanted, rtol=0, atol=tolerance)


@every_optimizer
def test_nothing_that_is_given_is_changed(optimizer: InnerOptimizer) -> None:
    first, gradient = after(optimizer, 1), flat(1)
    copies = [value.clone() for value in (first.weights, *first.moments)]
    cotangent = Cotangent(flat(2), tuple(flat(3) for _ in first.moments))
    optimizer.pull_back(first, gradient, optimizer.update(first, gradient), cotangent)
    assert first.step == 1
    assert all(torch.equal(*pair) for pair in zip((first.weights, *first.moments), copies, strict=True))
    assert torch.equal(gradient, flat(1))
    assert torch.equal(cotangent.weights, flat(2))
    assert all(torch.equal(moment, flat(3)) for moment in cotangent.moments)


@every_optimizer
def test_the_result_carries_the_graph_of_the_gradient(optimizer: InnerOptimizer) -> None:
    scale = torch.tensor(2.0, dtype=torch.float64, requires_grad=True)
    once = optimizer.update(Student.of(start()), flat(0) * scale)
    twice = optimizer.update(once, flat(0) * scale.square() + scale)
    (slope,) = torch.autograd.grad(twice.weights.square().sum(), scale)
    assert torch.isfinite(slope)
    assert slope != 0
    detached = twice.detached()
    assert not any(value.requires_grad for value in (detached.weights, *detached.moments))
    assert detached.step == twice.step == 2


@every_optimizer
@pytest.mark.parametrize("steps", [0, 1, 5])
def test_pull_back_is_the_adjoint_of_update(optimizer: InnerOptimizer, steps: int) -> None:
    """Where a second moment is exactly 0, autograd through ``update`` is masked as ``pull_back`` is."""
    before = after(optimizer, steps)
    inputs = [flat(steps), before.weights, *(before.moments or torch.zeros(optimizer.num_moments, 18).double())]
    gradient, weights, *moments = (value.clone().requires_grad_() for value in inputs)
    student = replace(before, weights=weights, moments=tuple(moments))
    result = optimizer.update(student, gradient)
    generator = torch.Generator().manual_seed(steps)
    bars = [torch.randn(18, dtype=torch.float64, generator=generator) for _ in (result.weights, *result.moments)]
    expected = torch.autograd.grad([result.weights, *result.moments], [gradient, weights, *moments], bars)
    cotangent = Cotangent(bars[0], tuple(bars[1:]))
    found, back = optimizer.pull_back(before, gradient.detach(), result.detached(), cotangent)
    for ours, theirs in zip((found, back.weights, *back.moments), expected, strict=True):
        assert not ours.requires_grad
        torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("optimizer", [Adam(learning_rate=0.1), AdamW(learning_rate=0.1)], ids=["adam", "adamw"])
def test_untouched_rows_pull_back_to_finite_numbers(optimizer: Adam) -> None:
    """Row 4 never moved: the weight's derivative passes, nothing comes from the second moment, and nothing is NaN."""
    before, gradient = after(optimizer, 3), flat(3)
    result = optimizer.update(before, gradient)
    assert result.layout.views(result.moments[1])["table"][4].tolist() == [0, 0, 0]
    second = torch.full_like(gradient, 7.0)
    cotangent = Cotangent(torch.ones_like(gradient), (torch.zeros_like(gradient), second))
    slope, back = optimizer.pull_back(before, gradient, result, cotangent)
    rows = [result.layout.views(value)["table"][4] for value in (slope, back.weights, *back.moments)]
    assert all(torch.isfinite(value).all() for value in (slope, back.weights, *back.moments))
    rate = 0.1 / (1 - 0.9**4)
    torch.testing.assert_close(rows[0], torch.full_like(rows[0], -rate * 0.1 / 1e-8))
    kept = 1 - 0.1 * optimizer.weight_decay
    torch.testing.assert_close(rows[1], torch.full_like(rows[1], kept))
    torch.testing.assert_close(rows[3], torch.full_like(rows[3], 7.0 * 0.999))


@pytest.mark.parametrize("optimizer", UNDOABLE.values(), ids=UNDOABLE)
@pytest.mark.parametrize("steps", [0, 1, 6])
def test_rewind_undoes_update(optimizer: InnerOptimizer, steps: int) -> None:
    before, gradient = after(optimizer, steps), flat(steps)
    result = optimizer.update(before, gradient)
    weights = optimizer.rewind_weights(result)
    found = optimizer.rewind(result, weights, gradient)
    assert found.step == steps
    torch.testing.assert_close(found.weights, before.weights, rtol=0, atol=1e-9)
    moments = before.moments or [torch.zeros_like(gradient)] * optimizer.num_moments
    for ours, theirs in zip(found.moments, moments, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-9)
    if isinstance(optimizer, Adam):
        assert (found.moments[1] >= 0).all()


@pytest.mark.parametrize(
    ("optimizer", "option"),
    [
        (Adam(learning_rate=0.1, betas=(0.0, 0.9)), "betas"),
        (Adam(learning_rate=0.1, betas=(0.9, 0.0)), "betas"),
        (AdamW(learning_rate=0.1, betas=(0.9, 0.0)), "betas"),
        (SGD(learning_rate=0.1), "momentum"),
    ],
)
def test_a_step_that_left_no_trace_cannot_be_undone(optimizer: InnerOptimizer, option: str) -> None:
    student = after(optimizer, 1)
    with pytest.raises(OptionError, match=option):
        optimizer.rewind(student, optimizer.rewind_weights(student), flat(0))


@every_optimizer
def test_several_learners_move_as_each_alone(optimizer: InnerOptimizer) -> None:
    alone = [Student.of(start(seed)) for seed in (0, 1, 2)]
    together, cotangents = Student.stack(alone), []
    for step in range(3):
        steps = [flat(10 * step + index) for index in range(3)]
        before, together = together, optimizer.update(together, torch.stack(steps))
        old, alone = alone, [optimizer.update(*pair) for pair in zip(alone, steps, strict=True)]
    cotangents = [Cotangent(flat(50 + index), tuple(flat(60 + index) for _ in alone[0].moments)) for index in range(3)]
    stacked = Cotangent(
        torch.stack([each.weights for each in cotangents]),
        tuple(torch.stack(each) for each in zip(*(each.moments for each in cotangents), strict=True)),
    )
    slope, back = optimizer.pull_back(before, torch.stack(steps), together, stacked)
    for index, student in enumerate(alone):
        assert torch.equal(together.weights[index], student.weights)
        assert all(torch.equal(a[index], b) for a, b in zip(together.moments, student.moments, strict=True))
        one, single = optimizer.pull_back(old[index], steps[index], student, cotangents[index])
        assert torch.equal(slope[index], one)
        assert torch.equal(back.weights[index], single.weights)


def test_a_layout_names_the_parts_of_a_flat_tensor() -> None:
    student = Student.of(start())
    assert {name: value.shape for name, value in student.params.items()} == {
        name: value.shape for name, value in start().items()
    }
    for name, value in start().items():
        assert torch.equal(student.params[name], value)
        assert torch.equal(student.layout.view(student.weights, name), value)
    stacked = torch.stack([student.weights, 2 * student.weights])
    views = student.layout.views(stacked)
    assert torch.equal(views["table"], torch.stack([start()["table"], 2 * start()["table"]]))
    assert torch.equal(student.layout.view(stacked, "bias"), views["bias"])
    assert torch.equal(Layout.join(views.values(), like=stacked), stacked)
    views["bias"][1, -1] = 5.0
    assert stacked[1, -1] == 5.0  # shared memory


def test_a_weight_may_be_a_scalar() -> None:
    params = start() | {"scale": torch.tensor(2.0, dtype=torch.float64)}
    student = Student.of(params)
    assert torch.equal(student.params["scale"], params["scale"])
    assert torch.equal(student.layout.view(student.weights, "scale"), params["scale"])
    assert torch.equal(Layout.join(student.params.values(), like=student.weights), student.weights)
    assert Student.stack([student, student]).params["scale"].tolist() == [2, 2]


def test_another_optimisers_moments_are_refused() -> None:
    with pytest.raises(OptionError, match="moments: 2 are another optimiser's; this one keeps 1"):
        SGD(learning_rate=0.1).update(after(Adam(learning_rate=0.1), 1), flat(1))


def test_a_student_holds_a_copy_of_its_weights() -> None:
    params = {name: value.requires_grad_() for name, value in start().items()}
    student = Student.of(params)
    with torch.no_grad():
        params["table"] += 1
    assert torch.equal(student.params["table"], start()["table"])
    assert not student.weights.requires_grad
    assert (student.moments, student.step, student.learners) == ((), 0, None)


@pytest.mark.parametrize("change", ["dtype", "nothing at all"])
def test_weights_of_several_kinds_are_refused(change: str) -> None:
    params = {} if change == "nothing at all" else start() | {"bias": torch.zeros(3)}
    with pytest.raises(OptionError, match="one dtype"):
        Student.of(params)


def test_students_are_stacked_and_start_afresh() -> None:
    adam = Adam(learning_rate=0.1)
    students = [adam.update(Student.of(start(seed)), flat(seed)) for seed in (0, 1)]
    both = Student.stack(students)
    assert (both.learners, both.step) == (2, 1)
    assert torch.equal(both.weights, torch.stack([student.weights for student in students]))
    assert torch.equal(both.moments[1], torch.stack([student.moments[1] for student in students]))
    fresh = both.fresh()
    assert (fresh.moments, fresh.step, fresh.learners) == ((), 0, 2)
    assert torch.equal(fresh.weights, both.weights)


@pytest.mark.parametrize("other", ["none", "steps", "shapes", "moments"])
def test_students_that_differ_are_not_stacked(other: str) -> None:
    student = after(Adam(learning_rate=0.1), 1)
    others = {
        "none": [],
        "steps": [student, replace(student, step=2)],
        "shapes": [student, Student.of({"table": torch.zeros(18).double()})],
        "moments": [student, replace(student, moments=student.moments[:1])],
    }
    with pytest.raises(OptionError, match="alike"):
        Student.stack(others[other])


def test_safe_sqrt_is_the_square_root() -> None:
    values = torch.tensor([0.0, 1e-300, 1e-16, 0.25, 4.0, 1e300], dtype=torch.float64)
    assert torch.equal(safe_sqrt(values), values.sqrt())
    assert torch.equal(safe_sqrt(values.clone().requires_grad_()).detach(), values.sqrt())


def test_safe_sqrt_has_slope_zero_at_zero() -> None:
    values = torch.tensor([0.0, 0.25, 4.0], dtype=torch.float64, requires_grad=True)
    (slope,) = torch.autograd.grad(safe_sqrt(values).sum(), values, create_graph=True)
    assert slope.tolist() == [0, 1, 0.25]
    (curvature,) = torch.autograd.grad(slope.sum(), values)
    assert curvature.tolist() == [0, -2, -1 / 32]


@pytest.mark.parametrize(
    ("make", "options"),
    [
        (Adam, {"learning_rate": 0.0}),
        (Adam, {"learning_rate": float("nan")}),
        (Adam, {"learning_rate": 0.1, "betas": (1.0, 0.9)}),
        (Adam, {"learning_rate": 0.1, "betas": (0.9, -0.1)}),
        (Adam, {"learning_rate": 0.1, "eps": 0.0}),
        (Adam, {"learning_rate": 0.1, "weight_decay": -1.0}),
        (AdamW, {"learning_rate": 0.0}),
        (AdamW, {"learning_rate": 0.1, "weight_decay": -1.0}),
        (AdamW, {"learning_rate": 0.1, "weight_decay": 10.0}),
        (SGD, {"learning_rate": -0.1}),
        (SGD, {"learning_rate": 0.1, "momentum": 1.0}),
        (SGD, {"learning_rate": 0.1, "weight_decay": -1.0}),
    ],
)
def test_values_out_of_range_are_refused(make: type, options: dict) -> None:
    with pytest.raises(OptionError):
        make(**options)
