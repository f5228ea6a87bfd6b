"""Meta-gradients by unrolled training.

A student is trained for some steps on synthetic data, then judged on real data. The meta-gradient is the derivative of
that judgement with respect to the synthetic data, through the training. Keeping the graph of every step is costly and,
over many steps, unstable; so only the last ``window`` steps are differentiated and the earlier ones are plain.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor

from recdistill.bilevel.optimizer import InnerOptimizer, Student, Tensors
from recdistill.errors import OptionError

InnerLoss = Callable[[Tensors, Tensors, int], Tensor]
OuterLoss = Callable[[Tensors, Tensors], Tensor]


@dataclass(frozen=True)
class MetaResult:
    """What one meta-gradient computation returns.

    Args:
        outer_loss: a scalar, without a graph.
        gradient: derivative of the outer loss, keyed like the synthetic tensors.
        student: where to carry on: the student before the differentiated window, without a graph.
    """

    outer_loss: Tensor
    gradient: Tensors
    student: Student


@runtime_checkable
class MetaGradient(Protocol):
    """A way to differentiate training."""

    def __call__(
        self,
        inner_loss: InnerLoss,
        outer_loss: OuterLoss,
        student: Student,
        synthetic: Tensors,
        inner_steps: int,
    ) -> MetaResult:
        """Return the outer loss, its gradient and the student to carry on from.

        Args:
            inner_loss: pure function of weights, synthetic tensors and step number ``0 .. inner_steps - 1``; whatever
                is random in it is keyed by the step.
            outer_loss: pure function of weights and synthetic tensors.
            student: where training starts.
            synthetic: what is learned; leaves, or any tensors whose own graph is to be left alone.
            inner_steps: training steps, 0 or more.
        """
        ...


@dataclass(frozen=True, kw_only=True)
class TapedUnroll:
    """Plain steps, then a window of steps recorded by autograd and differentiated as a whole.

    With ``window=None`` or ``window >= inner_steps`` this is full back-propagation through time; with a smaller window
    it is another estimator, biased, and not a cheaper one of the same thing. With ``inner_steps`` drawn at random for
    each call, as the distillers do, it is RaT-BPTT.

    When not to use it: memory grows with the window, by one step's activations each.

    Args:
        optimizer: the inner optimiser.
        window: number of differentiated steps at the end, at least 1; ``None`` for all.

    Raises:
        OptionError: the window is smaller than 1.

    Reference: Feng, Vedantam and Kempe, Embarrassingly Simple Dataset Distillation, ICLR 2024, arXiv 2311.07025.
    """

    optimizer: InnerOptimizer
    window: int | None = None

    def __post_init__(self) -> None:
        """Check every field."""
        if self.window is not None and self.window < 1:
            raise OptionError("window", self.window, fix="must be 1 or more, or None for all steps")

    def __call__(
        self,
        inner_loss: InnerLoss,
        outer_loss: OuterLoss,
        student: Student,
        synthetic: Tensors,
        inner_steps: int,
    ) -> MetaResult:
        """Return the outer loss, its gradient and the student before the window."""
        window = inner_steps if self.window is None else min(self.window, inner_steps)
        constants = {name: value.detach() for name, value in synthetic.items()}
        student = student.detached()
        for step in range(inner_steps - window):
            student = train_step(inner_loss, self.optimizer, student, constants, step)
        leaves = {name: value.detach().requires_grad_() for name, value in synthetic.items()}
        with torch.enable_grad():
            last = _require_grad(student)
            for step in range(inner_steps - window, inner_steps):
                gradient = _gradient(inner_loss(last.params, leaves, step), last.params, create_graph=True)
                last = self.optimizer.update(last, gradient)
            loss = outer_loss(last.params, leaves)
        return MetaResult(loss.detach(), _gradient(loss, leaves), student)


def train_step(
    inner_loss: InnerLoss, optimizer: InnerOptimizer, student: Student, synthetic: Tensors, step: int
) -> Student:
    """Return the student after one plain step, without a graph."""
    with torch.enable_grad():
        params = _require_grad(student).params
        gradient = _gradient(inner_loss(params, synthetic, step), params)
    with torch.no_grad():
        return optimizer.update(student, gradient)


def _require_grad(student: Student) -> Student:
    params = {name: value.detach().requires_grad_() for name, value in student.params.items()}
    return Student(params, student.moments, student.step)


def _gradient(loss: Tensor, inputs: Tensors, *, create_graph: bool = False) -> Tensors:
    values = torch.autograd.grad(
        loss, list(inputs.values()), create_graph=create_graph, allow_unused=True, materialize_grads=True
    )
    return dict(zip(inputs, values, strict=True))
