"""Losses as the engine takes them: a step of one or several learners and the parts of an outer loss, by their values.

Everything is float64. What kernels make of them is proved in ``test_kernels.py`` and ``test_estimators.py``.
"""

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import pytest
import torch
from small_problem import Alone, Mixed, Planned, Split, inner_loss, keep, outer_loss, problem

from recdistill.bilevel.losses import (
    InnerLoss,
    LinearRead,
    OuterLoss,
    PlannedLoss,
    SplitLoss,
    StepLoss,
    inner_step,
    outer_parts,
)
from recdistill.bilevel.optimizer import Student, Tensors
from recdistill.errors import OptionError

LEARNERS = 3
STEP = 4
INNER: dict[str, InnerLoss] = {"plain": inner_loss, "planned": Planned()}
OUTER: dict[str, OuterLoss] = {"plain": outer_loss, "in parts": Split()}
every_inner = pytest.mark.parametrize("loss", INNER.values(), ids=INNER)
every_outer = pytest.mark.parametrize("loss", OUTER.values(), ids=OUTER)
every_count = pytest.mark.parametrize("count", [1, LEARNERS, 4])  # 4 is also the number of rows


def leaves(tensors: Tensors) -> Tensors:
    return {name: value.detach().clone().requires_grad_() for name, value in tensors.items()}


def students(count: int) -> list[Student]:
    return [problem(seed=seed)[0] for seed in range(count)]


def derivatives(value: Callable[[Tensors, Tensors], torch.Tensor], params: Tensors, synthetic: Tensors) -> list[Any]:
    """Return a loss, its gradient in both arguments, and the gradient of a number made of that gradient."""
    params, synthetic = leaves(params), leaves(synthetic)
    tensors = [*params.values(), *synthetic.values()]
    loss = value(params, synthetic)
    first = torch.autograd.grad(loss, tensors, create_graph=True, allow_unused=True, materialize_grads=True)
    number = torch.cat([slope.flatten() for slope in first]).sin().sum()
    second = torch.autograd.grad(number, tensors, allow_unused=True, materialize_grads=True)
    return [loss, *first, *second]


def close(found: Any, expected: Any) -> None:
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-12)


def test_each_form_is_told_from_the_others() -> None:
    assert isinstance(Planned(), PlannedLoss)
    assert isinstance(Split(), SplitLoss)
    assert isinstance(Mixed(), LinearRead)
    assert not isinstance(inner_loss, PlannedLoss)
    assert not isinstance(outer_loss, SplitLoss)


@every_inner
def test_a_step_is_the_loss_and_is_differentiable_in_weights_and_synthetic_tensors(loss: InnerLoss) -> None:
    student, synthetic = problem()
    step = inner_step(loss, synthetic, STEP)
    expected = derivatives(lambda params, values: inner_loss(params, values, STEP), student.params, synthetic)
    close(derivatives(step.value, student.params, synthetic), expected)
    assert all(value.abs().max() > 0 for value in expected)


@every_inner
def test_a_step_depends_on_its_number(loss: InnerLoss) -> None:
    student, synthetic = problem()
    values = {float(inner_step(loss, synthetic, step).value(student.params, synthetic)) for step in range(4)}
    assert len(values) == 4


def test_a_step_reads_what_it_names_and_nothing_else() -> None:
    synthetic = problem()[1]
    step = Planned().plan(STEP, 0)
    inputs = step.inputs(synthetic)
    assert inputs.keys() == {"wanted"}
    assert inputs["wanted"] is synthetic["labels"]
    everything = inner_step(inner_loss, synthetic, STEP).inputs(synthetic)
    assert {name: id(value) for name, value in everything.items()} == {
        name: id(value) for name, value in synthetic.items()
    }


@every_count
def test_several_learners_add_up_each_with_its_own_weights_and_masks(count: int) -> None:
    synthetic, stacked = problem()[1], Student.stack(students(count))
    together = inner_step(Planned(), synthetic, STEP, count)

    def separate(params: Tensors, values: Tensors) -> torch.Tensor:
        steps = [inner_step(Alone(learner=number), values, STEP) for number in range(count)]
        mine = ({name: value[number] for name, value in params.items()} for number in range(count))
        return torch.stack([step.value(params, values) for step, params in zip(steps, mine, strict=True)]).sum()

    found, expected = (derivatives(value, stacked.params, synthetic) for value in (together.value, separate))
    close(found, expected)
    masks = [keep(STEP, stacked.weights, learner) for learner in range(count)]
    close(together.drawn, {"keep": torch.stack(masks)})
    assert len({tuple(mask.flatten().tolist()) for mask in masks}) == count


@every_count
def test_the_order_of_the_inputs_does_not_matter(count: int) -> None:
    synthetic, stacked = problem()[1], Student.stack(students(count))
    step = inner_step(Planned(), synthetic, STEP, count)
    inputs = step.inputs(synthetic) | {"embedded": Mixed().apply(synthetic, stacked.params["table"])}
    turned = dict(reversed(inputs.items()))
    assert list(turned) != list(inputs)
    for given in (inputs, turned):
        close(step.loss(stacked.params, given, step.drawn), step.value(stacked.params, synthetic))


def test_steps_of_several_learners_are_one_function() -> None:
    """So that a recording is found again."""
    planned, synthetic = Planned(), problem()[1]
    first, second = (inner_step(planned, synthetic, step, LEARNERS).loss for step in (0, 1))
    assert first == second
    assert hash(first) == hash(second)
    assert first != inner_step(Planned(), synthetic, 0, LEARNERS).loss


@every_count
def test_several_learners_need_a_loss_that_plans(count: int) -> None:
    with pytest.raises(OptionError, match=rf"learners: {count} .*plan\(step, learner\)"):
        inner_step(inner_loss, problem()[1], STEP, count)


class Otherwise(Planned):
    """The second learner's step differs in one respect."""

    changes: Any = None

    def plan(self, step: int, learner: int) -> StepLoss:
        plan = super().plan(step, learner)
        return replace(plan, **self.changes) if learner == 1 else plan


class OtherReads(Otherwise):
    changes = {"reads": {"wanted": "mix"}}  # noqa: RUF012


class OtherLinear(Otherwise):
    changes = {"linear": {"embedded": Mixed("out")}}  # noqa: RUF012


class OtherFunction(Otherwise):
    changes = {"loss": Planned().value}  # noqa: RUF012


@pytest.mark.parametrize("loss", [OtherReads(), OtherLinear(), OtherFunction()], ids=["reads", "linear", "function"])
def test_learners_that_read_otherwise_are_refused(loss: Planned) -> None:
    synthetic = problem()[1]
    assert inner_step(loss, synthetic, STEP, 1).drawn["keep"].shape == (1, 4, 3)
    with pytest.raises(OptionError, match="learners: 2 must read the same synthetic tensors"):
        inner_step(loss, synthetic, STEP, 2)


@every_outer
def test_the_parts_of_an_outer_loss_add_up(loss: OuterLoss) -> None:
    student, synthetic = problem()

    def whole(params: Tensors, values: Tensors) -> torch.Tensor:
        return torch.stack([part.value(params, values) for part in outer_parts(loss, values)]).sum()

    close(derivatives(whole, student.params, synthetic), derivatives(outer_loss, student.params, synthetic))


@every_outer
@every_count
def test_an_outer_loss_is_averaged_over_the_learners(loss: OuterLoss, count: int) -> None:
    synthetic, stacked = problem()[1], Student.stack(students(count))

    def together(params: Tensors, values: Tensors) -> torch.Tensor:
        return torch.stack([part.value(params, values) for part in outer_parts(loss, values, count)]).sum()

    def mean(params: Tensors, values: Tensors) -> torch.Tensor:
        mine = ({name: value[number] for name, value in params.items()} for number in range(count))
        return torch.stack([outer_loss(params, values) for params in mine]).mean()

    close(*(derivatives(value, stacked.params, synthetic) for value in (together, mean)))


class Asked(Split):
    """Writes down how many parts were asked for."""

    def __init__(self) -> None:
        object.__setattr__(self, "made", [])

    def parts(self) -> Iterator[StepLoss]:
        for part in super().parts():
            self.made.append(part)
            yield part


@pytest.mark.parametrize("learners", [None, LEARNERS])
def test_a_part_is_made_when_it_is_asked_for(learners: int | None) -> None:
    loss = Asked()
    seen = [len(loss.made) for _ in outer_parts(loss, problem()[1], learners)]
    assert seen == [1, 2, 3]
