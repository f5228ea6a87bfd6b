"""Gradients and their derivatives along a direction, recorded, compiled or neither; and operations that have none.

Proved against dense Hessians of the whole loss, and for whole students against finite differences. A cuDNN RNN does
not run here: what torch says of it is taken from torch's own tests. Speed is not tested.
"""

import shutil
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import cache
from itertools import product as product_of
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from small_problem import (
    TARGETS,
    Mixed,
    Planned,
    Split,
    directions,
    inner_loss,
    judged,
    keep,
    outer_loss,
    problem,
    slope_along,
    to,
    train,
)
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.attention import SDPBackend, sdpa_kernel

from recdistill.bilevel.kernels import PRODUCTS, Kernels, explained_errors, time_products
from recdistill.bilevel.losses import StepLoss, inner_step, outer_parts
from recdistill.bilevel.optimizer import SGD, Student, Tensors, zeros
from recdistill.bilevel.unroll import MetaResult, Unroll
from recdistill.errors import KernelError, OptionError, RecdistillWarning

# the first use of forward mode in a process compiles some of its formulas with a part of torch that torch deprecates
pytestmark = [
    pytest.mark.filterwarnings("ignore:.torch.jit.script. is deprecated:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:TF32 acceleration on top of oneDNN:UserWarning"),  # from mkldnn.flags itself
]

STEP = 3
UNRECORDED = "runs unrecorded, right but slower; the loss cannot be recorded: RuntimeError"
EXACT = ("double_backward", "forward_over_reverse")
every_product = pytest.mark.parametrize("product", PRODUCTS)
every_exact_product = pytest.mark.parametrize("product", EXACT)
recorded_or_not = pytest.mark.parametrize("record", [False, True], ids=["", "recorded"])


def normal(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed)).to(dtype)


def student(learners: int | None = None, seed: int = 0) -> Student:
    """Return the student of the small problem with a weight that no loss touches."""

    def one(number: int) -> Student:
        return Student.of(problem(seed=seed + number)[0].params | {"idle": normal(2, seed=number)})

    return one(0) if learners is None else Student.stack([one(number) for number in range(learners)])


SCALE = normal(4, 3, seed=8)


def curved(params: Tensors, inputs: Tensors, drawn: Tensors) -> Tensor:
    return ((params["table"] * inputs["mix"]).sin() * drawn["scale"]).sum()


def linear(params: Tensors, inputs: Tensors, drawn: Tensors) -> Tensor:
    others = params["out"].sum() - params["idle"].sum()
    return (params["table"] * drawn["scale"]).sum() + others + inputs["labels"].square().sum()


def bilinear(params: Tensors, inputs: Tensors, drawn: Tensors) -> Tensor:
    return (params["table"] * inputs["mix"] * drawn["scale"]).sum()


def linear_in_mixed(params: Tensors, inputs: Tensors, drawn: Tensors) -> Tensor:
    return (inputs["embedded"] * drawn["scale"]).sum()


def changing_in_place(params: Tensors, inputs: Tensors, drawn: Tensors) -> Tensor:
    product = params["table"] * inputs["mix"].exp()
    product.masked_fill_(drawn["scale"] > 0, 0.0)
    product[0] = inputs["mix"][1]
    return product.tanh_().square().sum()


def changed_in_place(params: Tensors, synthetic: Tensors) -> Tensor:
    product = torch.where(SCALE > 0, 0.0, params["table"] * synthetic["mix"].exp())
    return torch.cat([synthetic["mix"][1:2], product[1:]]).tanh().square().sum()


def at_step(params: Tensors, synthetic: Tensors) -> Tensor:
    return inner_loss(params, synthetic, STEP)


def of_learners(params: Tensors, synthetic: Tensors) -> Tensor:
    losses = []
    for learner in range(3):
        mine = {name: value[learner] for name, value in params.items()}
        embedded = synthetic["mix"] @ mine["table"][:3]
        losses.append(judged(mine, embedded, synthetic["labels"], keep(STEP, embedded, learner)))
    return torch.stack(losses).sum()


@dataclass(frozen=True)
class Case:
    """A step, and the same loss as one function of weights and synthetic tensors."""

    step: StepLoss
    whole: Callable[[Tensors, Tensors], Tensor]
    learners: int | None = None


SYNTHETIC = problem()[1]
ROWS, *_, SIZE = Split().parts()
SOME = ROWS.drawn["rows"]
CASES = {
    "a linear input and one as it is": Case(Planned().plan(STEP, 0), at_step),
    "plain": Case(inner_step(inner_loss, SYNTHETIC, STEP), at_step),
    "several learners": Case(inner_step(Planned(), SYNTHETIC, STEP, 3), of_learners, 3),
    "outer, plain": Case(*outer_parts(outer_loss, SYNTHETIC), outer_loss),
    "outer, no synthetic tensor": Case(
        ROWS, lambda params, _: F.cross_entropy((params["table"] @ params["out"])[SOME], TARGETS[SOME]) * len(SOME) / 4
    ),
    "outer, no weight": Case(SIZE, lambda _, data: 0.1 * data["mix"].square().mean()),
    "all synthetic": Case(
        StepLoss(curved, {"mix": "mix"}, {"scale": SCALE}),
        lambda params, data: ((params["table"] * data["mix"]).sin() * SCALE).sum(),
    ),
    "two names for one tensor": Case(
        StepLoss(lambda params, inputs, _: (inputs["one"].exp() * inputs["other"] * params["table"].sin()).sum(),
                 {"one": "mix", "other": "mix"}),
        lambda params, data: (data["mix"].exp() * data["mix"] * params["table"].sin()).sum(),
    ),
    "no second derivative": Case(
        StepLoss(linear, {"labels": "labels"}, {"scale": SCALE}),
        lambda params, data: linear(params, data, {"scale": SCALE}),
    ),
    "mixed derivative only": Case(
        StepLoss(bilinear, {"mix": "mix"}, {"scale": SCALE}),
        lambda params, data: (params["table"] * data["mix"] * SCALE).sum(),
    ),
    "mixed derivative of a linear input only": Case(
        StepLoss(linear_in_mixed, {}, {"scale": SCALE}, {"embedded": Mixed()}),
        lambda params, data: (data["mix"] @ params["table"][:3] * SCALE).sum(),
    ),
    "in place": Case(StepLoss(changing_in_place, {"mix": "mix"}, {"scale": SCALE}), changed_in_place),
}  # fmt: skip
every_case = pytest.mark.parametrize("name", CASES)


@dataclass(frozen=True)
class Dense:
    """A loss, its gradient and its Hessian, in the weights and then the synthetic tensors, flat."""

    loss: Tensor
    gradient: Tensor
    hessian: Tensor
    num_weights: int

    def parts(self, vector: Tensor) -> tuple[Tensor, Tensor]:
        return vector[: self.num_weights], vector[self.num_weights :]


@cache
def dense(name: str) -> Dense:
    case, start, data = CASES[name], student(CASES[name].learners), Student.of(SYNTHETIC)
    count = start.weights.numel()

    def value(point: Tensor) -> Tensor:
        weights = point[:count].view(start.weights.shape)
        return case.whole(start.layout.views(weights), data.layout.views(point[count:]))

    point = torch.cat([start.weights.flatten(), data.weights]).requires_grad_()
    loss = value(point)
    (gradient,) = torch.autograd.grad(loss, point)
    return Dense(loss.detach(), gradient, torch.autograd.functional.hessian(value, point.detach()), count)


def filled(value: float) -> Tensors:
    return {name: torch.full_like(tensor, value) for name, tensor in SYNTHETIC.items()}


def flat(tensors: Tensors) -> Tensor:
    return torch.cat([value.flatten() for value in tensors.values()])


def close(found: Tensor, expected: Tensor, tolerance: float = 1e-11) -> None:
    torch.testing.assert_close(found, expected, rtol=0, atol=tolerance)


def direction_for(start: Student) -> Tensor:
    return normal(*start.weights.shape, seed=11)


def pull(kernels: Kernels, start: Student, data: Tensors, step: StepLoss, direction: Tensor, into: Tensors) -> Tensor:
    gradient = Kernels().joint_gradient(start.layout, start.weights, data, step, zeros(data))
    return kernels.pull(start.layout, start.weights, data, step, gradient, direction, into)


def test_the_cases_are_what_they_are_called() -> None:
    blocks = {}
    for name in CASES:
        whole = dense(name)
        rows = whole.hessian[: whole.num_weights]
        blocks[name] = tuple(bool(part.any()) for part in (rows[:, : len(rows)], rows[:, len(rows) :]))
    expected = dict.fromkeys(CASES, (True, True)) | {
        "outer, plain": (True, False),
        "outer, no synthetic tensor": (True, False),
        "outer, no weight": (False, False),
        "no second derivative": (False, False),
        "mixed derivative only": (False, True),
        "mixed derivative of a linear input only": (False, True),
    }
    assert blocks == expected
    assert dense("plain").gradient[18:20].tolist() == [0, 0]


@every_case
@recorded_or_not
def test_gradients_equal_those_of_autograd(name: str, record: bool) -> None:
    case, whole, kernels = CASES[name], dense(name), Kernels(record=record)
    start, into = student(case.learners), filled(1.0)
    weights, data = whole.parts(whole.gradient)
    for _ in range(2):
        found = [kernels.joint_gradient(start.layout, start.weights, SYNTHETIC, case.step, into, scale=-0.7)]
        if weights.any():  # a loss to train on has a gradient
            found.append(kernels.gradient(start.layout, start.weights, SYNTHETIC, case.step))
        for gradient in found:
            close(gradient.loss, whole.loss)
            close(gradient.weights, weights.view(start.weights.shape))
            assert gradient.linear.keys() == case.step.linear.keys()
            for value in gradient.linear.values():
                close(value, SYNTHETIC["mix"] @ start.params["table"][..., :3, :])
            tensors = [gradient.loss, gradient.weights, *gradient.linear.values()]
            assert not any(value.requires_grad for value in tensors)
    close(flat(into), 1 - 2 * 0.7 * data)


@every_case
@pytest.mark.parametrize(
    ("product", "record"), [*((product, False) for product in PRODUCTS), *((product, True) for product in EXACT)]
)
def test_the_derivative_along_a_direction_is_the_hessian_times_it(name: str, product: str, record: bool) -> None:
    case, whole, kernels = CASES[name], dense(name), Kernels(product=product, record=record)
    start, into = student(case.learners), filled(1.0)
    direction = direction_for(start)
    weights, data = whole.parts(whole.hessian[:, : whole.num_weights] @ direction.flatten())
    tolerance = 1e-11 if product in EXACT else 1e-7
    for _ in range(2):
        found = pull(kernels, start, SYNTHETIC, case.step, direction, into)
        close(found, weights.view(start.weights.shape), tolerance)
        assert not found.requires_grad
    close(flat(into), 1 + 2 * data, tolerance)


@every_product
def test_no_direction_gives_nothing(product: str) -> None:
    start, into, kernels = student(), filled(1.0), Kernels(product=product)
    found = pull(kernels, start, SYNTHETIC, Planned().plan(STEP, 0), torch.zeros_like(start.weights), into)
    assert found.shape == start.weights.shape
    assert found.abs().max() == 0
    assert all((value == 1).all() for value in into.values())


@pytest.mark.parametrize("size", [1e-9, 1.0, 1e9])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=["double", "single"])
def test_central_differences_are_as_close_as_they_say(dtype: torch.dtype, size: float) -> None:
    """However long the direction is."""
    start, data = to(student(), dtype), {name: value.to(dtype) for name, value in SYNTHETIC.items()}
    step, into = StepLoss(curved, {"mix": "mix"}, {"scale": SCALE.to(dtype)}), zeros(data)
    direction = size * direction_for(start).to(dtype)
    found = pull(Kernels(product="central_difference"), start, data, step, direction, into)
    whole = dense("all synthetic")
    expected = whole.hessian[:, : whole.num_weights] @ direction.double()
    error = torch.cat([found, flat(into)]).double() - expected
    assert error.norm() < 10 * torch.finfo(dtype).eps ** (2 / 3) * expected.norm()


def test_an_unknown_product_is_refused() -> None:
    with pytest.raises(OptionError, match=f"product: 'double_backwards' is not known .*{', '.join(PRODUCTS)}"):
        Kernels(product="double_backwards")


@recorded_or_not
def test_the_exact_products_can_be_timed(record: bool) -> None:
    start, data, planned = student(), {name: value.clone() for name, value in SYNTHETIC.items()}, Planned()
    kernels = Kernels(product="central_difference", record=record)
    seconds = time_products(start.layout, start.weights, data, planned.plan(STEP, 0), kernels, repeats=1)
    assert seconds.keys() == set(EXACT)
    assert min(seconds.values()) > 0
    assert all(torch.equal(data[name], value) for name, value in SYNTHETIC.items())
    assert len(planned.calls) == (4 if record else 6)


def everything(kernels: Kernels, start: Student, data: Tensors, step: StepLoss, direction: Tensor) -> list[Tensor]:
    """Return all that kernels compute, from each of their methods."""
    layout, into = start.layout, zeros(data)
    gradient = kernels.gradient(layout, start.weights, data, step)
    joint = kernels.joint_gradient(layout, start.weights, data, step, into)
    found = kernels.pull(layout, start.weights, data, step, gradient, direction, into)
    return [gradient.loss, gradient.weights, joint.loss, joint.weights, found, flat(into), *gradient.linear.values()]


@pytest.mark.parametrize(("product", "learners"), [*((product, None) for product in PRODUCTS), ("double_backward", 2)])
def test_a_loss_is_recorded_once_and_asked_no_more(product: str, learners: int | None) -> None:
    planned, kernels, start = Planned(), Kernels(product=product, record=True), student(learners)
    for step in range(4):
        loss = inner_step(planned, SYNTHETIC, step, learners)
        everything(kernels, start, SYNTHETIC, loss, direction_for(start))
        assert len(planned.calls) == (3 if product in EXACT else 2)
    assert planned.plan(0, 0).loss is not planned.plan(1, 0).loss  # but equal


@every_product
def test_a_loss_that_is_not_recorded_is_asked_each_time(product: str) -> None:
    planned, kernels, start = Planned(), Kernels(product=product), student()
    for step in range(2):
        everything(kernels, start, SYNTHETIC, planned.plan(step, 0), direction_for(start))
    assert len(planned.calls) == 2 * (3 if product in EXACT else 4)


@dataclass(frozen=True)
class Counted:
    """A loss for tensors of any shape; all of one ``power`` are equal.

    Args:
        calls: one entry per call.
    """

    power: int = 2
    calls: list[str] = field(default_factory=list, compare=False)

    def __call__(self, params: Tensors, inputs: Tensors, drawn: Tensors) -> Tensor:
        self.calls.append("loss")
        return (params["table"] * inputs["mix"]).tanh().pow(self.power).sum()


def gradient_of(
    kernels: Kernels,
    loss: Counted,
    shape: tuple[int, ...] = (4, 3),
    dtype: torch.dtype = torch.float64,
    seed: int = 0,
) -> Tensor:
    """Return the gradient in a table for a synthetic tensor of that shape, which may have leading axes."""
    start = Student.of({"table": normal(*shape[-2:], seed=seed, dtype=dtype)})
    data = {"mix": normal(*shape, seed=seed + 1, dtype=dtype)}
    return kernels.gradient(start.layout, start.weights, data, StepLoss(loss, {"mix": "mix"})).weights


def test_other_shapes_and_dtypes_are_recorded_anew() -> None:
    loss, kernels = Counted(), Kernels(record=True)
    kinds = list(product_of([(4, 3), (5, 3), (2, 4, 3)], [torch.float64, torch.float32]))
    for times in range(2):
        for number, kind in enumerate(kinds):
            close(gradient_of(kernels, loss, *kind), gradient_of(Kernels(), Counted(), *kind))
            assert len(loss.calls) == (len(kinds) if times else number + 1)


def test_equal_losses_share_a_recording_and_others_do_not() -> None:
    first, second, other, kernels = Counted(), Counted(), Counted(power=3), Kernels(record=True)
    found = [gradient_of(kernels, loss) for loss in (first, second, other)]
    assert [len(loss.calls) for loss in (first, second, other)] == [1, 0, 1]
    close(found[1], found[0])
    close(found[2], gradient_of(Kernels(), Counted(power=3)))
    assert (found[2] - found[0]).abs().max() > 0.01


@every_product
@pytest.mark.parametrize("name", ["a linear input and one as it is", "several learners"])
def test_a_replay_takes_every_value_anew(product: str, name: str) -> None:
    case = CASES[name]
    start = student(case.learners)
    arguments = {"start": start, "data": SYNTHETIC, "step": case.step, "direction": direction_for(start)}
    masks = {key: value.flip(-2) + 0.5 for key, value in case.step.drawn.items()}
    changes: dict[str, dict[str, Any]] = {
        "weights": {"start": student(case.learners, seed=20)},
        "synthetic": {"data": problem(seed=20)[1]},
        "drawn": {"step": replace(case.step, drawn=masks)},
        "direction": {"direction": direction_for(start).flip(-1)},
    }
    kernels, plain = Kernels(product=product, record=True), Kernels(product=product)
    first = everything(kernels, **arguments)
    kept = [value.clone() for value in first]
    for change in changes.values():
        found, expected = (everything(each, **arguments | change) for each in (kernels, plain))
        for ours, theirs in zip(found, expected, strict=True):
            close(ours, theirs, 1e-12 if product in EXACT else 1e-9)
        assert (found[4] - first[4]).abs().max() > 1e-3
    for again, before, value in zip(everything(kernels, **arguments), first, kept, strict=True):
        assert torch.equal(before, value)  # no later replay has written to it
        assert torch.equal(again, value)


@every_product
def test_results_may_be_written_to(product: str) -> None:
    """Another replay does not see it, nor do the weights."""
    start, step, kernels = student(), CASES["mixed derivative only"].step, Kernels(product=product, record=True)
    expected = everything(Kernels(product=product), start, SYNTHETIC, step, direction_for(start))
    for _ in range(2):
        found = everything(kernels, start, SYNTHETIC, step, direction_for(start))
        for ours, theirs in zip(found, expected, strict=True):
            close(ours, theirs, 1e-12 if product in EXACT else 1e-9)
            ours.fill_(7.0)


@pytest.mark.parametrize("learners", [None, 2])
def test_a_plain_loss_is_never_recorded(learners: int | None) -> None:
    """It may read anything, and what it reads may change."""
    weight, kernels, start = [1.0], Kernels(record=True), student(learners)

    def weighted(params: Tensors, synthetic: Tensors) -> Tensor:
        return weight[0] * outer_loss(params, synthetic)

    (part,) = outer_parts(weighted, SYNTHETIC, learners)
    once = kernels.joint_gradient(start.layout, start.weights, SYNTHETIC, part, zeros(SYNTHETIC))
    weight[0] = 2.0
    twice = kernels.joint_gradient(start.layout, start.weights, SYNTHETIC, part, zeros(SYNTHETIC))
    close(twice.loss, 2 * once.loss)
    close(twice.weights, 2 * once.weights)


@every_product
def test_a_loss_whose_course_depends_on_numbers_runs_unrecorded_and_a_warning_says_so(product: str) -> None:
    def branching(params: Tensors, inputs: Tensors, drawn: Tensors) -> Tensor:
        values = params["table"] * inputs["mix"]
        return values.sum() if values.sum() > 0 else values.pow(3).sum()

    step = StepLoss(branching, {"mix": "mix"})
    kernels, plain = Kernels(product=product, record=True), Kernels(product=product)
    starts = [student(seed=seed) for seed in range(4)]
    assert len({bool((start.params["table"] * SYNTHETIC["mix"]).sum() > 0) for start in starts}) == 2
    direction = direction_for(starts[0])
    with pytest.warns(RecdistillWarning, match=UNRECORDED):
        everything(kernels, starts[0], SYNTHETIC, step, direction)
    for start in starts:  # and do not warn again
        found, expected = (everything(each, start, SYNTHETIC, step, direction) for each in (kernels, plain))
        assert all(torch.equal(*pair) for pair in zip(found, expected, strict=True))


@pytest.mark.slow
@pytest.mark.skipif(not any(map(shutil.which, ("g++", "clang++", "cl"))), reason="there is no C++ compiler")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_compiled_recording_gives_the_same_numbers(monkeypatch: pytest.MonkeyPatch) -> None:
    compiler, runs = torch._inductor.compile, []

    def spied(*arguments: Any) -> Callable[..., Any]:
        compiled = compiler(*arguments)
        return lambda *inputs: runs.append("run") or compiled(*inputs)

    monkeypatch.setattr("torch._inductor.compile", spied)
    kernels, loss = Kernels(record=True, compile=True), Counted()
    for seed in range(3):
        found, expected = gradient_of(kernels, loss, seed=seed), gradient_of(Kernels(), Counted(), seed=seed)
        assert (found - expected).norm() < 1e-6 * expected.norm()
    assert len(loss.calls) == 1
    assert len(runs) == 4  # once to be judged


def failing(problem: Exception) -> Callable[..., Any]:
    def compile_it(module: nn.Module, leaves: list[Tensor]) -> Any:
        vars(module).clear()  # half done
        raise problem

    return compile_it


def giving(change: Callable[[list[Tensor]], list[Tensor]]) -> Callable[..., Any]:
    return lambda module, leaves: lambda *inputs: change(module(*inputs))


COMPILERS = {
    "fails": (failing(RuntimeError("no compiler\nat all")), "RuntimeError: no compiler$"),
    "fails in silence": (failing(AssertionError()), "AssertionError"),
    "is off": (giving(lambda found: [1.001 * value for value in found]), r"off by 1\.0e-03, relative"),
    "is off in the last": (giving(lambda found: [*found[:-1], 2 * found[-1]]), r"off by 1\.0e\+00, relative"),
    "has no numbers": (giving(lambda found: [*found[:-1], found[-1] * float("nan")]), "off by nan, relative"),
    "has none at first": (giving(lambda found: [found[0] * float("nan"), *found[1:]]), "off by nan, relative"),
    "gives too few": (giving(lambda found: found[:-1]), "ValueError"),
}


@pytest.mark.parametrize("name", COMPILERS)
def test_where_the_compiler_fails_a_warning_says_so_and_the_numbers_are_right(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    compiler, says = COMPILERS[name]
    monkeypatch.setattr("torch._inductor.compile", compiler)
    kernels, loss = Kernels(record=True, compile=True), Counted()
    with pytest.warns(RecdistillWarning, match=f"runs uncompiled, right but slower; the compiler failed: .*{says}"):
        found = [gradient_of(kernels, loss)]
    found.append(gradient_of(kernels, loss))  # and does not warn again
    for gradient in found:
        assert torch.equal(gradient, gradient_of(Kernels(record=True), Counted()))
    assert len(loss.calls) == 1


def test_a_compiler_that_rounds_in_another_order_is_believed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch._inductor.compile", giving(lambda found: [value * (1 + 1e-10) for value in found]))
    found = gradient_of(Kernels(record=True, compile=True), Counted())
    assert not torch.equal(found, gradient_of(Kernels(record=True), Counted()))


Model = Callable[[Tensors, Tensor], Tensor]
"""Two rows of four numbers from named weights and ``(2, 3, 4)`` numbers."""

BAGS = torch.tensor([[0, 1], [2, 2]])
IDS = torch.tensor([[0, 1, 3], [2, 2, 1]])
ENCODER = nn.TransformerEncoderLayer(4, 2, 5, dropout=0.0, batch_first=True)
LSTM = nn.LSTM(4, 4, batch_first=True)
GRU = nn.GRU(4, 4, batch_first=True)


def shapes(module: nn.Module) -> dict[str, tuple[int, ...]]:
    return {name: tuple(value.shape) for name, value in module.named_parameters()}


def heads(params: Tensors, rows: Tensor) -> list[Tensor]:
    return [(rows @ params[name]).unsqueeze(1) for name in ("queries", "keys", "values")]


def fused_attention(params: Tensors, rows: Tensor) -> Tensor:
    return F.scaled_dot_product_attention(*heads(params, rows)).squeeze(1).mean(1)


def written_attention(params: Tensors, rows: Tensor) -> Tensor:
    queries, keys, values = heads(params, rows)
    return (torch.softmax(queries @ keys.mT / 2, -1) @ values).squeeze(1).mean(1)


def encoder(training: bool) -> Model:
    def encode(params: Tensors, rows: Tensor) -> Tensor:
        return functional_call(ENCODER.train(training), params, (rows,)).mean(1)

    return encode


def lstm(params: Tensors, rows: Tensor) -> Tensor:
    return functional_call(LSTM, params, (rows,))[0][:, -1]


def written_lstm(params: Tensors, rows: Tensor) -> Tensor:
    hidden = cell = rows.new_zeros(2, 4)
    for row in rows.unbind(1):
        inputs = row @ params["weight_ih_l0"].T + params["bias_ih_l0"]
        gates = inputs + hidden @ params["weight_hh_l0"].T + params["bias_hh_l0"]
        enter, forget, candidate, leave = gates.chunk(4, -1)
        cell = forget.sigmoid() * cell + enter.sigmoid() * candidate.tanh()
        hidden = leave.sigmoid() * cell.tanh()
    return hidden


def gru(params: Tensors, rows: Tensor) -> Tensor:
    return functional_call(GRU, params, (rows,))[0][:, -1]


def fused_bag(params: Tensors, rows: Tensor) -> Tensor:
    return torch.tanh(F.embedding_bag(BAGS, params["table"], mode="sum") * rows.mean(1))


def written_bag(params: Tensors, rows: Tensor) -> Tensor:
    return torch.tanh(F.embedding(BAGS, params["table"]).sum(1) * rows.mean(1))


def under(context: Callable[[], Any], model: Model) -> Model:
    def run(params: Tensors, rows: Tensor) -> Tensor:
        with context():
            return model(params, rows)

    return run


def unfused(model: Model) -> Model:
    return under(lambda: sdpa_kernel(SDPBackend.MATH), model)


def without_onednn(model: Model) -> Model:
    return under(lambda: torch.backends.mkldnn.flags(enabled=False), model)


@dataclass(frozen=True)
class Fused:
    """A kernel that lacks derivatives.

    Args:
        model: uses it.
        shapes: of the model's weights.
        operation: part of its name.
        advice: what the error must propose; the first of ``proposed`` in words.
        proposed: the same model, as the error proposes to write it.
        dtype: in which the kernel is used.
        lacking: the products for which it lacks derivatives.
    """

    model: Model
    shapes: dict[str, tuple[int, ...]]
    operation: str
    advice: str
    proposed: tuple[Model, ...]
    dtype: torch.dtype = torch.float64
    lacking: tuple[str, ...] = EXACT


HEADS = dict.fromkeys(("queries", "keys", "values"), (4, 4))
MATH = "under torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH)"
FUSED = {
    "attention": Fused(
        fused_attention, HEADS, "scaled_dot_product", MATH, (unfused(fused_attention), written_attention)
    ),
    "encoder layer": Fused(
        encoder(True), shapes(ENCODER), "scaled_dot_product", MATH, (unfused(encoder(True)),)
    ),
    "encoder layer, evaluating": Fused(
        encoder(False), shapes(ENCODER), "scaled_dot_product", MATH, (unfused(encoder(False)),)
    ),
    "lstm": Fused(
        lstm, shapes(LSTM), "mkldnn_rnn", "under torch.backends.mkldnn.flags(enabled=False)",
        (without_onednn(lstm), written_lstm), torch.float32, ("forward_over_reverse",),
    ),
    "embedding bag": Fused(
        fused_bag, {"table": (5, 4)}, "embedding_bag", "torch.nn.functional.embedding(...) and .sum(1)", (written_bag,)
    ),
}  # fmt: skip
LACKING = [(name, product) for name, kernel in FUSED.items() for product in kernel.lacking]
PROPOSED = [(name, number) for name, kernel in FUSED.items() for number in range(len(kernel.proposed))]
REAL = normal(2, 3, 4, seed=7)
OPTIMIZER = SGD(learning_rate=0.3, momentum=0.5)
STEPS = 3
RECORDED = ("attention", "embedding bag")
onednn = pytest.mark.skipif(not torch.backends.mkldnn.is_available(), reason="torch is built without oneDNN")


def with_some_recorded(cases: list[tuple[Any, ...]]) -> list[Any]:
    """Return all cases unrecorded, and some that begin with attention or embedding bags recorded too."""
    marks = {"lstm": [onednn]}
    plain = [pytest.param(*case, False, marks=marks.get(case[0], [])) for case in cases]
    return plain + [pytest.param(*case, True) for case in cases if case[0] in RECORDED and case[1:] != (1,)]


@dataclass(frozen=True)
class Modelled:
    """Inner and outer loss of a model."""

    model: Model

    def inner(self, params: Tensors, inputs: Tensors, drawn: Tensors) -> Tensor:
        return (self.model(params, inputs["rows"]) - inputs["wanted"]).square().mean()

    def plan(self, step: int, learner: int) -> StepLoss:
        return StepLoss(self.inner, {"rows": "rows", "wanted": "wanted"})

    def outer(self, params: Tensors, synthetic: Tensors) -> Tensor:
        return (self.model(params, REAL.to(synthetic["rows"].dtype)) - 0.3).square().mean()


def begin(named: dict[str, tuple[int, ...]], dtype: torch.dtype = torch.float64) -> tuple[Student, Tensors]:
    """Return a student and synthetic tensors."""
    params = {name: 0.5 * normal(*shape, seed=seed, dtype=dtype) for seed, (name, shape) in enumerate(named.items())}
    return Student.of(params), {
        "rows": normal(2, 3, 4, seed=50, dtype=dtype),
        "wanted": normal(2, 4, seed=51, dtype=dtype),
    }


def unroll(kernel: Fused, model: Model, product: str, record: bool = False) -> MetaResult:
    loss, estimator = Modelled(model), Unroll(optimizer=OPTIMIZER, kernels=Kernels(product=product, record=record))
    return estimator(loss, loss.outer, *begin(kernel.shapes, kernel.dtype), STEPS)


@cache
def slopes(name: str) -> list[float]:
    """Return finite differences of training in double precision, as the error proposes to write the model."""
    loss = Modelled(FUSED[name].proposed[0])
    student, data = begin(FUSED[name].shapes)

    def inner(params: Tensors, synthetic: Tensors, step: int) -> Tensor:
        return loss.plan(step, 0).value(params, synthetic)

    def value(moved: Tensors) -> Tensor:
        return loss.outer(train(OPTIMIZER, student, moved, range(STEPS), inner).params, moved)

    return [slope_along(value, data, direction) for direction in directions(data, 3)]


def has_the_slopes(result: MetaResult, name: str, tolerance: float) -> bool:
    found = [
        sum(float((result.gradient[key].double() * part).sum()) for key, part in direction.items())
        for direction in directions(begin(FUSED[name].shapes)[1], 3)
    ]
    return found == pytest.approx(slopes(name), rel=tolerance)


@pytest.mark.parametrize(("name", "product", "record"), with_some_recorded(LACKING))
def test_a_kernel_without_derivatives_is_named_with_its_replacement(name: str, product: str, record: bool) -> None:
    kernel = FUSED[name]
    with pytest.raises(KernelError) as raised:
        unroll(kernel, kernel.model, product, record)
    message = str(raised.value)
    assert kernel.operation in message.split()[0]
    assert f"that {product} needs" in message
    assert kernel.advice in message
    assert "product='central_difference'" in message
    assert "\n" not in message
    assert isinstance(raised.value.__cause__, RuntimeError)


@every_exact_product
@pytest.mark.parametrize(("name", "number", "record"), with_some_recorded(PROPOSED))
def test_what_is_proposed_in_its_place_works(name: str, number: int, product: str, record: bool) -> None:
    kernel = FUSED[name]
    result = unroll(kernel, kernel.proposed[number], product, record)
    assert has_the_slopes(result, name, 1e-6 if kernel.dtype == torch.float64 else 1e-3)


@pytest.mark.parametrize(("name", "record"), with_some_recorded([(name,) for name in FUSED]))
def test_central_differences_work_with_every_kernel(name: str, record: bool) -> None:
    """In single precision they are rough."""
    kernel = FUSED[name]
    result = unroll(kernel, kernel.model, "central_difference", record)
    assert has_the_slopes(result, name, 1e-6 if kernel.dtype == torch.float64 else 1e-2)


@onednn
def test_a_onednn_lstm_has_a_second_derivative_backwards() -> None:
    assert has_the_slopes(unroll(FUSED["lstm"], lstm, "double_backward"), "lstm", 1e-3)


@onednn
def test_a_onednn_lstm_cannot_be_recorded_and_a_warning_says_so() -> None:
    with pytest.warns(RecdistillWarning, match=UNRECORDED):
        result = unroll(FUSED["lstm"], lstm, "double_backward", record=True)
    assert has_the_slopes(result, "lstm", 1e-3)


MISSING = {
    "the derivative for '_cudnn_rnn_backward' is not implemented. Double backwards is not supported for CuDNN RNNs due "
    "to limitations in the CuDNN API. To run double backwards, please disable the CuDNN backend temporarily while "
    "running the forward pass of your RNN. For example: \nwith torch.backends.cudnn.flags(enabled=False):\n    output "
    "= model(inputs)": ("_cudnn_rnn_backward", "torch.backends.cudnn.flags(enabled=False)"),
    "derivative for aten::_cudnn_rnn_backward is not implemented": ("_cudnn_rnn_backward", "a cuDNN RNN"),
    "Trying to use forward AD with _cudnn_rnn that does not support it because it has not been implemented yet.\n"
    "Please file an issue to PyTorch": ("_cudnn_rnn", "a cuDNN RNN; run it under torch.backends.cudnn.flags"),
    "the derivative for 'miopen_rnn_backward' is not implemented.": ("miopen_rnn_backward", "a MIOpen RNN; write"),
    "derivative for aten::_scaled_dot_product_efficient_attention_backward is not implemented": (
        "_scaled_dot_product_efficient_attention_backward", MATH,
    ),
    "derivative for aten::_ctc_loss_backward is not implemented": ("_ctc_loss_backward", "use another loss"),
    "the derivative for '_cdist_backward' is not implemented.": ("_cdist_backward", "use other operations"),
}  # fmt: skip


@pytest.mark.parametrize("says", MISSING)
@every_exact_product
def test_what_torch_says_of_a_missing_derivative_is_understood(says: str, product: str) -> None:
    operation, advice = MISSING[says]
    problem = NotImplementedError(says)
    with pytest.raises(KernelError) as raised, explained_errors(product):
        raise problem
    assert str(raised.value).startswith(f"{operation} has no derivative of the kind that {product} needs; ")
    assert advice in str(raised.value)
    assert "choose product='central_difference'" in str(raised.value)
    assert raised.value.__cause__ is problem


@every_exact_product
def test_a_cudnn_rnn_in_a_loss_is_named(product: str) -> None:
    """As torch names it, which does not run here."""

    def cudnn(params: Tensors, rows: Tensor) -> Tensor:
        raise NotImplementedError(next(iter(MISSING)))

    with pytest.raises(KernelError, match=r"a cuDNN RNN; run it under torch\.backends\.cudnn\.flags\(enabled=False\)"):
        unroll(FUSED["attention"], cudnn, product)


def mismatched(params: Tensors, rows: Tensor) -> Tensor:
    return rows @ params["keys"][:3]


def subtracting_booleans(params: Tensors, rows: Tensor) -> Tensor:
    return rows * ((rows > 0) - (rows > 1))


def refusing(problem: Exception) -> Model:
    def model(params: Tensors, rows: Tensor) -> Tensor:
        raise problem

    return model


UNRELATED = {
    "shapes": (mismatched, RuntimeError, "mat1 and mat2 shapes cannot be multiplied"),
    "dtypes": (subtracting_booleans, RuntimeError, "with two bool tensors is not supported"),
    "the user's": (refusing(ValueError("no such item")), ValueError, "^no such item$"),
    "the user's words": (refusing(RuntimeError("the shop does not support it")), RuntimeError, "^the shop does not"),
}


@pytest.mark.parametrize("name", UNRELATED)
@every_product
@recorded_or_not
def test_other_errors_come_through_as_they_are(name: str, product: str, record: bool) -> None:
    model, kind, says = UNRELATED[name]
    with pytest.raises(kind, match=says) as raised:
        unroll(FUSED["attention"], model, product, record)
    assert type(raised.value) is kind


W = {"weight": (4, 4)}
NORMED = W | {"gain": (4,), "bias": (4,)}
TABLE = {"weight": (5, 4)}


def scattered(params: Tensors, rows: Tensor) -> Tensor:
    return rows.new_zeros(2, 4).scatter_add(1, torch.tensor([[0, 2, 2], [1, 1, 3]]), (rows @ params["weight"])[..., 0])


def attending(params: Tensors, rows: Tensor) -> Tensor:
    """With weights that are returned, so that nothing is fused."""
    return F.multi_head_attention_forward(
        rows, rows, rows, 4, 2, params["inner"], None, None, None, False, 0.0, params["weight"], None
    )[0].mean(1)


LAYERS: dict[str, tuple[dict[str, tuple[int, ...]], Callable[[Tensors, Tensor], Tensor]]] = {
    "layer norm": (NORMED, lambda p, x: F.layer_norm(x @ p["weight"], (4,), p["gain"], p["bias"]).mean(1)),
    "group norm": (NORMED, lambda p, x: F.group_norm((x @ p["weight"]).mT, 2, p["gain"], p["bias"]).mean(2)),
    "batch norm": (
        NORMED,
        lambda p, x: F.batch_norm((x @ p["weight"]).mT, None, None, p["gain"], p["bias"], training=True).amax(2),
    ),
    "rms norm": (NORMED, lambda p, x: F.rms_norm(x @ p["weight"], (4,), p["gain"]).mean(1)),
    "embedding": (TABLE, lambda p, x: (F.embedding(BAGS, p["weight"]).mean(1) + x[:, 0]).sin()),
    "gelu": (W, lambda p, x: F.gelu(x @ p["weight"]).mean(1)),
    "gelu, tanh": (W, lambda p, x: F.gelu(x @ p["weight"], approximate="tanh").mean(1)),
    "silu": (W, lambda p, x: F.silu(x @ p["weight"]).mean(1)),
    "elu": (W, lambda p, x: F.elu(x @ p["weight"]).mean(1)),
    "softplus": (W, lambda p, x: F.softplus(x @ p["weight"]).mean(1)),
    "log sigmoid": (W, lambda p, x: F.logsigmoid(x @ p["weight"]).mean(1)),
    "relu": (W, lambda p, x: F.relu(x @ p["weight"]).square().mean(1)),
    "convolution": ({"weight": (4, 4, 2)}, lambda p, x: F.conv1d(x.mT, p["weight"]).tanh().mean(2)),
    "max pooling": (W, lambda p, x: F.max_pool1d((x @ p["weight"]).mT.tanh(), 3)[..., 0]),
    "gru": (shapes(GRU), gru),
    "lstm": (shapes(LSTM), lstm),
    "attention, written out": (HEADS, written_attention),
    "attention, three axes": (
        HEADS, lambda p, x: F.scaled_dot_product_attention(x @ p["queries"], x @ p["keys"], x @ p["values"]).mean(1),
    ),
    "attention, with weights": (W | {"inner": (12, 4)}, attending),
    "running sum": (W, lambda p, x: (x @ p["weight"]).cumsum(1).tanh().mean(1)),
    "log sum exp": (W, lambda p, x: torch.logsumexp(x @ p["weight"], 1)),
    "largest": (W, lambda p, x: (x @ p["weight"]).topk(2, 1).values.tanh().mean(1)),
    "sorted": (W, lambda p, x: (x @ p["weight"]).tanh().sort(1).values[:, 1]),
    "normalised": (W, lambda p, x: F.normalize(x @ p["weight"], dim=-1).mean(1)),
    "cosine": (W, lambda p, x: F.cosine_similarity(x @ p["weight"], x, dim=1)),
    "spread": (W, lambda p, x: (x @ p["weight"]).std(1)),
    "product": (W, lambda p, x: (x @ p["weight"]).prod(1)),
    "scattered": (W, scattered),
    "cross entropy": (W, lambda p, x: F.cross_entropy((x @ p["weight"]).mT, IDS, reduction="none")[:, [0, 1, 2, 0]]),
    "soft cross entropy": (W, lambda p, x: F.cross_entropy((x @ p["weight"])[:, 0], x[:, 1].softmax(-1)).expand(2, 4)),
    "binary cross entropy": (
        W, lambda p, x: F.binary_cross_entropy_with_logits(x @ p["weight"], x.sigmoid(), reduction="none").mean(1),
    ),
    "divergence": (W, lambda p, x: F.kl_div((x @ p["weight"]).log_softmax(-1), x.softmax(-1), reduction="none").sum(1)),
    "huber": (W, lambda p, x: F.smooth_l1_loss(x @ p["weight"], x, reduction="none").mean(1)),
}  # fmt: skip


def products_of(model: Model, named: dict[str, tuple[int, ...]], direction: Tensor) -> dict[str, Tensor]:
    """Return what each product gives for weights and synthetic tensors, unrecorded."""
    start, data = begin(named)
    found = {}
    for product in PRODUCTS:
        into = zeros(data)
        curved = pull(Kernels(product=product), start, data, Modelled(model).plan(0, 0), direction, into)
        found[product] = torch.cat([curved, flat(into)])
    return found


@pytest.mark.parametrize("name", LAYERS)
def test_what_models_are_made_of_has_no_wrong_derivative(name: str) -> None:
    """Where torch lacks a formula it should say so; the exact products against differences of gradients."""
    named, model = LAYERS[name]
    found = products_of(model, named, direction_for(begin(named)[0]))
    expected = found.pop("central_difference")
    assert all((value - expected).norm() < 1e-8 * expected.norm() for value in found.values())
    assert expected.norm() > 1e-3


def test_a_padding_row_does_no_harm_where_the_direction_has_none() -> None:
    """It has no gradient, though the loss depends on it; so no direction comes from a gradient there either."""

    def padded(params: Tensors, rows: Tensor) -> Tensor:
        return (F.embedding(BAGS, params["weight"], padding_idx=1).mean(1) + rows[:, 0]).sin()

    direction = normal(5, 4, seed=11)
    direction[1] = 0
    found = products_of(padded, TABLE, direction.flatten())
    assert all((value - found["double_backward"]).norm() < 1e-8 * value.norm() for value in found.values())


@every_product
def test_several_learners_attend_as_each_does_alone(product: str) -> None:
    loss, synthetic = Modelled(unfused(fused_attention)), begin(HEADS)[1]
    students = [begin(HEADS)[0], begin(dict(reversed(HEADS.items())))[0]]
    students[1] = Student(students[1].weights, students[0].layout)
    estimator = Unroll(optimizer=OPTIMIZER, kernels=Kernels(product=product))
    alone = [flat(estimator(loss, loss.outer, student, synthetic, STEPS).gradient) for student in students]
    together = estimator(loss, loss.outer, Student.stack(students), synthetic, STEPS)
    close(flat(together.gradient), torch.stack(alone).mean(0), 1e-11 if product in EXACT else 1e-8)


def test_where_the_gradient_is_not_that_of_the_loss_the_double_backward_is_right() -> None:
    """The padding row of the table is read and not trained."""

    def inner(params: Tensors, synthetic: Tensors, step: int) -> Tensor:
        bags = F.embedding(BAGS, params["table"], padding_idx=2).mean(1)
        return (bags + synthetic["rows"]).sin().sum()

    def outer(params: Tensors, synthetic: Tensors) -> Tensor:
        return params["table"].sin().sum()

    generator = torch.Generator().manual_seed(0)
    table, rows = (torch.randn(size, 4, dtype=torch.float64, generator=generator) for size in (5, len(BAGS)))
    found = {
        name: Unroll(optimizer=OPTIMIZER, mode=mode, kernels=Kernels(product=product))(
            inner, outer, Student.of({"table": table}), {"rows": rows}, 3
        ).gradient["rows"]
        for name, mode, product in (
            ("tape", "taped", "double_backward"),
            ("backwards", "stepwise", "double_backward"),
            ("forwards", "stepwise", "forward_over_reverse"),
        )
    }
    close(found["backwards"], found["tape"])
    assert (found["forwards"] - found["tape"]).norm() > 0.1 * found["tape"].norm()
