"""The functional optimisers equal ``torch.optim`` number by number, and change nothing that they are given."""

import pytest
import torch

from recdistill.bilevel.optimizer import SGD, Adam, Student, safe_sqrt
from recdistill.errors import OptionError

STEPS = 12


def start() -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
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


CASES = [
    (Adam(learning_rate=0.1), torch.optim.Adam, {"lr": 0.1}),
    (Adam(learning_rate=0.1, weight_decay=0.05), torch.optim.Adam, {"lr": 0.1, "weight_decay": 0.05}),
    (
        Adam(learning_rate=0.01, betas=(0.5, 0.9), eps=1e-3),
        torch.optim.Adam,
        {"lr": 0.01, "betas": (0.5, 0.9), "eps": 1e-3},
    ),
    (Adam(learning_rate=0.1, betas=(0.0, 0.0)), torch.optim.Adam, {"lr": 0.1, "betas": (0.0, 0.0)}),
    (SGD(learning_rate=0.1), torch.optim.SGD, {"lr": 0.1}),
    (SGD(learning_rate=0.1, momentum=0.9), torch.optim.SGD, {"lr": 0.1, "momentum": 0.9}),
    (
        SGD(learning_rate=0.1, momentum=0.7, weight_decay=0.05),
        torch.optim.SGD,
        {"lr": 0.1, "momentum": 0.7, "weight_decay": 0.05},
    ),
]


@pytest.mark.parametrize(("ours", "theirs", "options"), CASES)
def test_steps_equal_those_of_torch(ours: Adam | SGD, theirs: type[torch.optim.Optimizer], options: dict) -> None:
    student = Student(start())
    reference = {name: torch.nn.Parameter(value) for name, value in start().items()}
    optimizer = theirs(reference.values(), **options)
    for step in range(STEPS):
        student = ours.update(student, gradients(step))
        for name, parameter in reference.items():
            parameter.grad = gradients(step)[name]
        optimizer.step()
        for name, parameter in reference.items():
            torch.testing.assert_close(student.params[name], parameter.detach(), rtol=0, atol=1e-12)
    assert student.step == STEPS


@pytest.mark.parametrize("decay", [0.0, 0.05])
def test_single_precision_stays_close_to_torch(decay: float) -> None:
    student = Student({name: value.float() for name, value in start().items()})
    reference = {name: torch.nn.Parameter(value.clone()) for name, value in student.params.items()}
    optimizer = torch.optim.Adam(reference.values(), lr=0.1, weight_decay=decay)
    for step in range(STEPS):
        gradient = {name: value.float() for name, value in gradients(step).items()}
        student = Adam(learning_rate=0.1, weight_decay=decay).update(student, gradient)
        for name, parameter in reference.items():
            parameter.grad = gradient[name]
        optimizer.step()
    for name, parameter in reference.items():
        torch.testing.assert_close(student.params[name], parameter.detach(), rtol=0, atol=2e-6)


def test_moments_equal_those_of_torch() -> None:
    student = Student(start())
    parameter = torch.nn.Parameter(start()["table"])
    optimizer = torch.optim.Adam([parameter], lr=0.1)
    for step in range(STEPS):
        student = Adam(learning_rate=0.1).update(student, gradients(step))
        parameter.grad = gradients(step)["table"]
        optimizer.step()
    state = optimizer.state[parameter]
    first, second = student.moments
    torch.testing.assert_close(first["table"], state["exp_avg"], rtol=0, atol=1e-12)
    torch.testing.assert_close(second["table"], state["exp_avg_sq"], rtol=0, atol=1e-12)
    assert second["table"][4].tolist() == [0, 0, 0]


@pytest.mark.parametrize("optimizer", [case[0] for case in CASES])
def test_nothing_that_is_given_is_changed(optimizer: Adam | SGD) -> None:
    first = optimizer.update(Student(start()), gradients(0))
    params = {name: value.clone() for name, value in first.params.items()}
    moments = [{name: value.clone() for name, value in moment.items()} for moment in first.moments]
    gradient = gradients(1)
    optimizer.update(first, gradient)
    assert first.step == 1
    for name, value in params.items():
        assert torch.equal(first.params[name], value)
        assert torch.equal(gradient[name], gradients(1)[name])
        for moment, copy in zip(first.moments, moments, strict=True):
            assert torch.equal(moment[name], copy[name])


@pytest.mark.parametrize("optimizer", [Adam(learning_rate=0.1, weight_decay=0.1), SGD(learning_rate=0.1, momentum=0.5)])
def test_the_result_carries_the_graph_of_the_gradient(optimizer: Adam | SGD) -> None:
    scale = torch.tensor(2.0, dtype=torch.float64, requires_grad=True)
    gradient = {name: value * scale for name, value in gradients(0).items()}
    after = optimizer.update(optimizer.update(Student(start()), gradient), gradient)
    (slope,) = torch.autograd.grad(after.params["table"].square().sum(), scale)
    assert torch.isfinite(slope)
    assert slope != 0
    detached = after.detached()
    assert not any(value.requires_grad for value in detached.params.values())
    assert not any(value.requires_grad for moment in detached.moments for value in moment.values())
    assert detached.step == after.step == 2


def test_safe_sqrt_is_the_square_root() -> None:
    values = torch.tensor([0.0, 1e-300, 1e-16, 0.25, 4.0, 1e300], dtype=torch.float64)
    assert torch.equal(safe_sqrt(values), values.sqrt())


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
        (SGD, {"learning_rate": -0.1}),
        (SGD, {"learning_rate": 0.1, "momentum": 1.0}),
        (SGD, {"learning_rate": 0.1, "weight_decay": -1.0}),
    ],
)
def test_values_out_of_range_are_refused(make: type[Adam] | type[SGD], options: dict) -> None:
    with pytest.raises(OptionError):
        make(**options)
