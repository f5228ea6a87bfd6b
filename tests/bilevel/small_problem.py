"""One tiny bi-level problem in every form that the engine takes, and what its tests share.

Everything is float64 unless asked otherwise. The problem has a table with a row that no step touches, so that its
second moment is exactly zero, dropout keyed by the step, a synthetic tensor that is read as a linear map of a weight,
one that is read as it is, and a direct dependence of the outer loss on the first.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from functools import cache

import torch
import torch.nn.functional as F

from recdistill.bilevel.losses import InnerLoss, OuterLoss, StepLoss
from recdistill.bilevel.optimizer import SGD, Adam, AdamW, InnerOptimizer, Student, Tensors

TARGETS = torch.tensor([1, 0, 1, 1])
OPTIMIZERS: dict[str, InnerOptimizer] = {
    "adam": Adam(learning_rate=0.05),
    "adam with decay": Adam(learning_rate=0.05, weight_decay=0.02),
    "adamw": AdamW(learning_rate=0.05, weight_decay=0.3),
    "sgd with momentum": SGD(learning_rate=0.2, momentum=0.8, weight_decay=0.02),
}
"""All of them can be undone."""


def problem(dtype: torch.dtype = torch.float64, seed: int = 0) -> tuple[Student, Tensors]:
    """Return a fresh student and synthetic tensors."""
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, dtype=torch.float64, generator=generator).to(dtype)

    return Student.of({"table": normal(4, 3), "out": normal(3, 2)}), {"mix": normal(4, 3), "labels": normal(4, 2)}


def keep(step: int, like: torch.Tensor, learner: int = 0) -> torch.Tensor:
    """Return the dropout mask of a step."""
    generator = torch.Generator().manual_seed(step + 1000 * learner)
    return (torch.rand(4, 3, generator=generator, dtype=torch.float64) > 0.2).to(like.dtype)


def judged(params: Tensors, embedded: torch.Tensor, labels: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    hidden = torch.tanh(embedded) * mask
    return -(torch.softmax(labels, -1) * torch.log_softmax(hidden @ params["out"], -1)).sum(-1).mean()


def inner_loss(params: Tensors, synthetic: Tensors, step: int) -> torch.Tensor:
    embedded = synthetic["mix"] @ params["table"][:3]  # row 3 is never read
    return judged(params, embedded, synthetic["labels"], keep(step, embedded))


def outer_loss(params: Tensors, synthetic: Tensors) -> torch.Tensor:
    logits = params["table"] @ params["out"]
    return F.cross_entropy(logits, TARGETS) + 0.1 * synthetic["mix"].square().mean()


@dataclass(frozen=True)
class Mixed:
    """The first three rows of a table, mixed."""

    weight: str = "table"

    def apply(self, synthetic: Tensors, weight: torch.Tensor) -> torch.Tensor:
        return synthetic["mix"] @ weight[..., :3, :]

    def transpose(self, synthetic: Tensors, bar: torch.Tensor, into: torch.Tensor) -> None:
        into[..., :3, :] += synthetic["mix"].T @ bar

    def accumulate(self, synthetic: Tensors, pairs: list[tuple[torch.Tensor, torch.Tensor]], into: Tensors) -> None:
        for bar, table in pairs:
            product = bar @ table[..., :3, :].transpose(-1, -2)
            into["mix"] += product if product.dim() == 2 else product.sum(0)


@dataclass(frozen=True)
class Planned:
    """The inner loss, told apart.

    Args:
        calls: one entry per call of the function.
    """

    calls: list[str] = field(default_factory=list, compare=False)

    def value(self, params: Tensors, inputs: Tensors, drawn: Tensors) -> torch.Tensor:
        self.calls.append("inner")
        return judged(params, inputs["embedded"], inputs["wanted"], drawn["keep"])

    def plan(self, step: int, learner: int) -> StepLoss:
        mask = keep(step, torch.empty(0, dtype=torch.float64), learner)
        return StepLoss(self.value, {"wanted": "labels"}, {"keep": mask}, {"embedded": Mixed()})


@dataclass(frozen=True)
class Split:
    """The outer loss in three parts: two of the rows, one of the synthetic tensor."""

    def rows(self, params: Tensors, inputs: Tensors, drawn: Tensors) -> torch.Tensor:
        logits = params["table"][drawn["rows"]] @ params["out"]
        return F.cross_entropy(logits, TARGETS[drawn["rows"]], reduction="sum") / 4

    def size(self, params: Tensors, inputs: Tensors, drawn: Tensors) -> torch.Tensor:
        return 0.1 * inputs["values"].square().mean()

    def parts(self) -> Iterator[StepLoss]:
        yield StepLoss(self.rows, {}, {"rows": torch.tensor([0, 3])})
        yield StepLoss(self.rows, {}, {"rows": torch.tensor([1, 2])})
        yield StepLoss(self.size, {"values": "mix"})


def train(
    optimizer: InnerOptimizer, student: Student, synthetic: Tensors, steps: range, loss: Callable = inner_loss
) -> Student:
    """Return the student after some steps, each by autograd and ``update``."""
    for step in steps:
        params = {name: value.detach().clone().requires_grad_() for name, value in student.params.items()}
        with torch.enable_grad():
            slopes = torch.autograd.grad(
                loss(params, synthetic, step), list(params.values()), allow_unused=True, materialize_grads=True
            )
        student = optimizer.update(student, torch.cat([slope.flatten() for slope in slopes]))
    return student


def warm(optimizer: InnerOptimizer, steps: int = 7, seed: int = 0) -> Student:
    """Return a student that has taken some steps and kept its moments."""
    student = _warm(optimizer, steps, seed)
    return replace(student, weights=student.weights.clone(), moments=tuple(each.clone() for each in student.moments))


@cache
def _warm(optimizer: InnerOptimizer, steps: int, seed: int) -> Student:
    return train(optimizer, *problem(seed=seed), range(steps))


def to(student: Student, dtype: torch.dtype) -> Student:
    moments = tuple(moment.to(dtype) for moment in student.moments)
    return replace(student, weights=student.weights.to(dtype), moments=moments)


def distance(found: Tensors, expected: Tensors) -> float:
    """Return the relative distance between two gradients."""
    assert found.keys() == expected.keys()
    ours, theirs = (torch.cat([each[name].flatten().double() for name in expected]) for each in (found, expected))
    assert torch.isfinite(ours).all()
    assert theirs.norm() > 1e-4
    return float((ours - theirs).norm() / theirs.norm())


def slope_along(
    value: Callable[[Tensors], torch.Tensor], synthetic: Tensors, direction: Tensors, eps: float = 1e-4
) -> float:
    """Return the derivative along a direction, from central differences of fourth order."""

    def at(reach: float) -> float:
        return float(value({name: tensor + reach * direction[name] for name, tensor in synthetic.items()}))

    return (8 * (at(eps) - at(-eps)) - (at(2 * eps) - at(-2 * eps))) / (12 * eps)


def directions(synthetic: Tensors, count: int) -> list[Tensors]:
    generator = torch.Generator().manual_seed(5)
    return [
        {name: torch.randn(value.shape, dtype=value.dtype, generator=generator) for name, value in synthetic.items()}
        for _ in range(count)
    ]


PLAIN: tuple[InnerLoss, OuterLoss] = (inner_loss, outer_loss)
TOLD_APART: tuple[Planned, Split] = (Planned(), Split())


@dataclass(frozen=True)
class Alone:
    """The inner loss that one of several learners has, for a student by itself."""

    learner: int

    def plan(self, step: int, learner: int) -> StepLoss:
        return TOLD_APART[0].plan(step, self.learner + learner)


@dataclass(frozen=True)
class SinglePrecision(Planned):
    def plan(self, step: int, learner: int) -> StepLoss:
        plan = super().plan(step, learner)
        return replace(plan, drawn={"keep": plan.drawn["keep"].float()})
