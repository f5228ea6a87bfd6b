"""Inner optimisers as functions of named tensors, so that a training step can be differentiated.

``update`` returns new tensors and changes none. Its forward numbers equal those of ``torch.optim``. With gradients that
carry a graph, the result carries one too.
"""

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor

from recdistill.errors import OptionError, require_above, require_at_least, require_rate

Tensors = dict[str, Tensor]


@dataclass(frozen=True)
class Student:
    """A learner in training.

    Args:
        params: weights by name.
        moments: optimiser state, one dict per moment, keyed like ``params``; empty before the first step.
        step: steps taken with these moments.
    """

    params: Tensors
    moments: tuple[Tensors, ...] = ()
    step: int = 0

    def detached(self) -> "Student":
        """Return the same numbers without a graph."""
        return Student(
            {name: value.detach() for name, value in self.params.items()},
            tuple({name: value.detach() for name, value in moment.items()} for moment in self.moments),
            self.step,
        )


@runtime_checkable
class InnerOptimizer(Protocol):
    """A rule that makes the next student from a gradient."""

    def update(self, student: Student, gradient: Tensors) -> Student:
        """Return the student after one step along ``gradient``."""
        ...


def _zeros(params: Tensors) -> Tensors:
    return {name: torch.zeros_like(value) for name, value in params.items()}


def safe_sqrt(values: Tensor) -> Tensor:
    """Return the square root; where the argument is exactly 0, its derivative is 0 instead of infinite.

    An item or position that no batch has touched has a second moment of exactly 0, and there an infinite slope times a
    zero gradient would be NaN. The forward value is that of ``sqrt``.
    """
    touched = values > 0
    return torch.where(touched, torch.where(touched, values, 1.0).sqrt(), 0.0)


@dataclass(frozen=True, kw_only=True)
class Adam:
    """Adam with L2-coupled weight decay, as ``torch.optim.Adam(weight_decay=...)``.

    Args:
        learning_rate: above 0.
        betas: decay rates of the moments, each in [0, 1).
        eps: added to the root of the second moment, above 0.
        weight_decay: added to the gradient as ``weight_decay * weight``, 0 or more.

    Raises:
        OptionError: a value is out of its range.

    Reference: Kingma and Ba, Adam, ICLR 2015, arXiv 1412.6980, algorithm 1.
    """

    learning_rate: float
    betas: tuple[float, float] = (0.9, 0.999)
    eps: float = 1e-8
    weight_decay: float = 0.0

    def __post_init__(self) -> None:
        """Check every field."""
        require_above(0, learning_rate=self.learning_rate, eps=self.eps)
        require_at_least(0, weight_decay=self.weight_decay)
        if not all(0 <= beta < 1 for beta in self.betas):
            raise OptionError("betas", self.betas, fix="must both lie in [0, 1)")

    def update(self, student: Student, gradient: Tensors) -> Student:
        """Return the student after one step along ``gradient``."""
        first, second = student.moments or (_zeros(student.params), _zeros(student.params))
        beta1, beta2 = self.betas
        step = student.step + 1
        rate, root = self.learning_rate / (1 - beta1**step), (1 - beta2**step) ** 0.5
        params: Tensors = {}
        new_first: Tensors = {}
        new_second: Tensors = {}
        for name, value in student.params.items():
            slope = gradient[name] + self.weight_decay * value if self.weight_decay else gradient[name]
            new_first[name] = torch.lerp(first[name], slope, 1 - beta1)
            new_second[name] = beta2 * second[name] + (1 - beta2) * slope * slope
            params[name] = value - rate * new_first[name] / (safe_sqrt(new_second[name]) / root + self.eps)
        return Student(params, (new_first, new_second), step)


@dataclass(frozen=True, kw_only=True)
class SGD:
    """Gradient descent with momentum and L2-coupled decay, as ``torch.optim.SGD``.

    Args:
        learning_rate: above 0.
        momentum: in [0, 1).
        weight_decay: 0 or more.

    Raises:
        OptionError: a value is out of its range.
    """

    learning_rate: float
    momentum: float = 0.0
    weight_decay: float = 0.0

    def __post_init__(self) -> None:
        """Check every field."""
        require_above(0, learning_rate=self.learning_rate)
        require_at_least(0, weight_decay=self.weight_decay)
        require_rate(momentum=self.momentum)

    def update(self, student: Student, gradient: Tensors) -> Student:
        """Return the student after one step along ``gradient``."""
        (velocity,) = student.moments or (_zeros(student.params),)
        params: Tensors = {}
        moved: Tensors = {}
        for name, value in student.params.items():
            moved[name] = self.momentum * velocity[name] + gradient[name] + self.weight_decay * value
            params[name] = value - self.learning_rate * moved[name]
        return Student(params, (moved,), student.step + 1)
