"""Inner optimisers as functions of flat tensors: a step forwards, the same step as torch takes it, and its adjoint.

All weights of a learner lie in one flat tensor, so that a step is a handful of operations however many layers there
are. ``update`` returns new tensors and changes none; its numbers equal those of ``torch.optim``. With gradients that
carry a graph, the result carries one too. ``pull_back`` is the adjoint of ``update``, exact and without a graph:
methods that walk back through training need no record of how a step was computed. ``rewind`` undoes a step.

Everything is elementwise, so the flat tensors may have leading axes (several learners at once).
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import accumulate, pairwise
from typing import ClassVar, Protocol, runtime_checkable

import torch
from torch import Tensor

from recdistill.errors import OptionError, require_above, require_at_least, require_rate

Tensors = dict[str, Tensor]


@dataclass(frozen=True)
class Layout:
    """Where named tensors lie in a flat one.

    Args:
        shapes: name and shape of each tensor, in the order of the flat one.
    """

    shapes: tuple[tuple[str, torch.Size], ...]

    @cached_property
    def bounds(self) -> tuple[int, ...]:
        """Where each tensor begins, and where the last one ends."""
        return tuple(accumulate((shape.numel() for _, shape in self.shapes), initial=0))

    def views(self, flat: Tensor) -> Tensors:
        """Return the named tensors of a flat one (its last axis), sharing its memory; leading axes are kept."""
        parts = zip(self.shapes, pairwise(self.bounds), strict=True)
        return {name: flat[..., low:high].view((*flat.shape[:-1], *shape)) for (name, shape), (low, high) in parts}

    def view(self, flat: Tensor, name: str) -> Tensor:
        """Return one named tensor of a flat one, sharing its memory; leading axes are kept."""
        index = next(index for index, (other, _) in enumerate(self.shapes) if other == name)
        low, high = self.bounds[index : index + 2]
        return flat[..., low:high].view((*flat.shape[:-1], *self.shapes[index][1]))

    @staticmethod
    def join(parts: Iterable[Tensor], like: Tensor) -> Tensor:
        """Return tensors in the order of the layout as one flat tensor, with the leading axes of ``like``."""
        return torch.cat([part.reshape(*like.shape[:-1], -1) for part in parts], dim=-1)


@dataclass(frozen=True)
class Student:
    """A learner in training.

    Args:
        weights: all weights, flat.
        layout: their names and shapes.
        moments: state of the optimiser, each flat like ``weights``; empty before the first step.
        step: steps taken with these moments.
    """

    weights: Tensor
    layout: Layout
    moments: tuple[Tensor, ...] = ()
    step: int = 0

    @staticmethod
    def of(params: Tensors) -> "Student":
        """Return a student at the start of training, with a copy of named weights.

        Raises:
            OptionError: the weights are of several dtypes or devices, or there are none.
        """
        kinds = {(value.dtype, str(value.device)) for value in params.values()}
        if len(kinds) != 1:
            found = ", ".join(sorted(f"{dtype} on {device}" for dtype, device in kinds)) or "none"
            raise OptionError("params", found, fix="must all be of one dtype on one device")
        layout = Layout(tuple((name, value.shape) for name, value in params.items()))
        return Student(torch.cat([value.detach().reshape(-1) for value in params.values()]), layout)

    @staticmethod
    def stack(students: Sequence["Student"]) -> "Student":
        """Return several students of one layout as one with a leading axis; they must have taken equally many steps.

        Raises:
            OptionError: there are none, or they differ in layout, moments or steps.
        """
        kinds = {(student.layout, student.step, len(student.moments)) for student in students}
        if len(kinds) != 1:
            raise OptionError("students", len(students), fix="must be one or more, alike in shapes and steps taken")
        weights = torch.stack([student.weights for student in students])
        moments = zip(*(student.moments for student in students), strict=True)
        return replace(students[0], weights=weights, moments=tuple(torch.stack(each) for each in moments))

    @property
    def learners(self) -> int | None:
        """Number of students in this one; ``None`` when there is no axis for them."""
        return None if self.weights.dim() == 1 else len(self.weights)

    @property
    def params(self) -> Tensors:
        """The weights by name, views of the flat tensor."""
        return self.layout.views(self.weights)

    def fresh(self) -> "Student":
        """Return the same weights before the first step of an optimiser."""
        return replace(self, moments=(), step=0)

    def with_weights(self, weights: Tensor) -> "Student":
        """Return a student with other weights and the same moments."""
        return replace(self, weights=weights)

    def detached(self) -> "Student":
        """Return the same numbers without a graph."""
        return replace(self, weights=self.weights.detach(), moments=tuple(value.detach() for value in self.moments))


@dataclass(frozen=True)
class Cotangent:
    """The derivative of the outer loss in the weights and moments of a student, flat as they are."""

    weights: Tensor
    moments: tuple[Tensor, ...]


@runtime_checkable
class InnerOptimizer(Protocol):
    """A rule that makes the next student from a gradient, and its exact adjoint."""

    @property
    def num_moments(self) -> int:
        """How many flat tensors its state has."""
        ...

    def update(self, student: Student, gradient: Tensor) -> Student:
        """Return the student after one step along ``gradient``.

        Raises:
            OptionError: the student carries the moments of another optimiser.
        """
        ...

    def pull_back(
        self, before: Student, gradient: Tensor, after: Student, cotangent: Cotangent
    ) -> tuple[Tensor, Cotangent]:
        """Return the cotangents of the gradient and of ``before``, as if these two were independent.

        Args:
            before: the student that took the step.
            gradient: the gradient along which it was taken.
            after: ``update(before, gradient)``.
            cotangent: of ``after``.
        """
        ...

    def rewind_weights(self, after: Student) -> Tensor:
        """Return the weights before the step that led to ``after``."""
        ...

    def rewind(self, after: Student, weights: Tensor, gradient: Tensor) -> Student:
        """Return the student before the step that led to ``after``; ``gradient`` was taken at ``weights``."""
        ...


def safe_sqrt(values: Tensor) -> Tensor:
    """Return the square root; where the argument is exactly 0, its derivative is 0 instead of infinite.

    An item or position that no batch has touched has a second moment of exactly 0, and there an infinite slope times a
    zero gradient would be NaN. The forward value is that of ``sqrt``.
    """
    if not values.requires_grad:
        return values.sqrt()
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

    Reference: Kingma and Ba, Adam, ICLR 2015, arXiv 1412.6980, algorithm 1. The adjoint is exact; Farzi's published one
    is :class:`~recdistill.bilevel.folded_adam.FoldedAdam`.
    """

    learning_rate: float
    betas: tuple[float, float] = (0.9, 0.999)
    eps: float = 1e-8
    weight_decay: float = 0.0
    num_moments: ClassVar[int] = 2

    def __post_init__(self) -> None:
        """Check every field."""
        require_above(0, learning_rate=self.learning_rate, eps=self.eps)
        require_at_least(0, weight_decay=self.weight_decay)
        if not all(0 <= beta < 1 for beta in self.betas):
            raise OptionError("betas", self.betas, fix="must both lie in [0, 1)")

    def update(self, student: Student, gradient: Tensor) -> Student:
        """Return the student after one step along ``gradient``."""
        first, second = _moments(student, 2)
        beta1, beta2 = self.betas
        slope = self._slope(student.weights, gradient)
        first = torch.lerp(first, slope, 1 - beta1)
        second = (beta2 * second).addcmul_(slope, slope, value=1 - beta2)
        rate, root = self._corrections(student.step + 1)
        spread = safe_sqrt(second).div_(root).add_(self.eps)
        weights = torch.addcdiv(self._shrunk(student.weights), first, spread, value=-rate)
        return Student(weights, student.layout, (first, second), student.step + 1)

    def pull_back(
        self, before: Student, gradient: Tensor, after: Student, cotangent: Cotangent
    ) -> tuple[Tensor, Cotangent]:
        """Return the cotangents of the gradient and of ``before``; the second moment's is 0 where that moment is."""
        beta1, beta2 = self.betas
        first_bar, second_bar = self._moment_bars(after, cotangent.weights)
        first_bar += cotangent.moments[0]
        second_bar += cotangent.moments[1]
        slope = self._slope(before.weights, gradient)
        slope_bar = ((1 - beta1) * first_bar).addcmul_(slope, second_bar, value=2 * (1 - beta2))
        weights_bar = self._through_decay(cotangent.weights, slope_bar)
        return slope_bar, Cotangent(weights_bar, (first_bar.mul_(beta1), second_bar.mul_(beta2)))

    def _moment_bars(self, after: Student, weights_bar: Tensor) -> tuple[Tensor, Tensor]:
        """Return what reaches the two moments of ``after`` from its own weights; 0 where the second one is 0."""
        first, second = after.moments
        rate, correction = self._corrections(after.step)
        root = second.sqrt().div_(correction)
        reciprocal = (root + self.eps).reciprocal_()
        first_bar = (weights_bar * reciprocal).mul_(-rate)
        # d weights / d second = rate first / (root + eps)^2 / (2 correction^2 root)
        second_bar = reciprocal.mul_(first).mul_(first_bar).div_(root).mul_(-0.5 / correction**2)
        return first_bar, second_bar.masked_fill_(second == 0, 0.0)

    def rewind_weights(self, after: Student) -> Tensor:
        """Return the weights before the step that led to ``after``."""
        first, second = after.moments
        rate, root = self._corrections(after.step)
        return self._grown(torch.addcdiv(after.weights, first, second.sqrt() / root + self.eps, value=rate))

    def rewind(self, after: Student, weights: Tensor, gradient: Tensor) -> Student:
        """Return the student before the step that led to ``after``.

        Rounding errors of the moments grow by ``1 / beta`` with every step undone.

        Raises:
            OptionError: a ``beta`` is 0, so that the step has left no trace of the moment before it.
        """
        if not all(self.betas):
            raise OptionError("betas", self.betas, fix="must be above 0 for a step to be undone; use mode='stepwise'")
        slope = self._slope(weights, gradient)
        first, second = after.moments
        beta1, beta2 = self.betas
        first = (first - (1 - beta1) * slope) / beta1
        second = ((second - (1 - beta2) * slope.square()) / beta2).clamp_(min=0)
        return Student(weights, after.layout, (first, second), after.step - 1)

    def _corrections(self, step: int) -> tuple[float, float]:
        """Return the step size and the root by which the moments' bias is corrected."""
        beta1, beta2 = self.betas
        return self.learning_rate / (1 - beta1**step), (1 - beta2**step) ** 0.5

    def _slope(self, weights: Tensor, gradient: Tensor) -> Tensor:
        return torch.add(gradient, weights, alpha=self.weight_decay) if self.weight_decay else gradient

    def _shrunk(self, weights: Tensor) -> Tensor:
        return weights

    def _grown(self, weights: Tensor) -> Tensor:
        return weights

    def _through_decay(self, weights_bar: Tensor, slope_bar: Tensor) -> Tensor:
        return torch.add(weights_bar, slope_bar, alpha=self.weight_decay) if self.weight_decay else weights_bar


@dataclass(frozen=True, kw_only=True)
class AdamW(Adam):
    """Adam with decoupled weight decay, as ``torch.optim.AdamW``.

    The weights shrink by ``learning_rate * weight_decay`` in each step; the moments know nothing of it.

    Raises:
        OptionError: a value is out of its range, or a step would shrink the weights to nothing.

    Reference: Loshchilov and Hutter, Decoupled Weight Decay Regularization, ICLR 2019, arXiv 1711.05101.
    """

    weight_decay: float = 0.01

    def __post_init__(self) -> None:
        """Check every field."""
        super().__post_init__()
        if self.learning_rate * self.weight_decay >= 1:
            raise OptionError("weight_decay", self.weight_decay, fix="times the learning rate must be below 1")

    @property
    def _kept(self) -> float:
        return 1 - self.learning_rate * self.weight_decay

    def _slope(self, weights: Tensor, gradient: Tensor) -> Tensor:
        return gradient

    def _shrunk(self, weights: Tensor) -> Tensor:
        return weights * self._kept

    def _grown(self, weights: Tensor) -> Tensor:
        return weights / self._kept

    def _through_decay(self, weights_bar: Tensor, slope_bar: Tensor) -> Tensor:
        return weights_bar * self._kept


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
    num_moments: ClassVar[int] = 1

    def __post_init__(self) -> None:
        """Check every field."""
        require_above(0, learning_rate=self.learning_rate)
        require_at_least(0, weight_decay=self.weight_decay)
        require_rate(momentum=self.momentum)

    def update(self, student: Student, gradient: Tensor) -> Student:
        """Return the student after one step along ``gradient``."""
        (velocity,) = _moments(student, 1)
        velocity = self.momentum * velocity + self._slope(student.weights, gradient)
        weights = torch.add(student.weights, velocity, alpha=-self.learning_rate)
        return Student(weights, student.layout, (velocity,), student.step + 1)

    def pull_back(
        self, before: Student, gradient: Tensor, after: Student, cotangent: Cotangent
    ) -> tuple[Tensor, Cotangent]:
        """Return the cotangents of the gradient and of ``before``."""
        slope_bar = torch.add(cotangent.moments[0], cotangent.weights, alpha=-self.learning_rate)
        weights_bar = torch.add(cotangent.weights, slope_bar, alpha=self.weight_decay)
        return slope_bar, Cotangent(weights_bar, (self.momentum * slope_bar,))

    def rewind_weights(self, after: Student) -> Tensor:
        """Return the weights before the step that led to ``after``."""
        return torch.add(after.weights, after.moments[0], alpha=self.learning_rate)

    def rewind(self, after: Student, weights: Tensor, gradient: Tensor) -> Student:
        """Return the student before the step that led to ``after``.

        Raises:
            OptionError: there is no momentum, so that the step has left no trace of the velocity before it.
        """
        if not self.momentum:
            raise OptionError("momentum", 0.0, fix="must be above 0 for a step to be undone; use mode='stepwise'")
        velocity = (after.moments[0] - self._slope(weights, gradient)) / self.momentum
        return Student(weights, after.layout, (velocity,), after.step - 1)

    def _slope(self, weights: Tensor, gradient: Tensor) -> Tensor:
        return torch.add(gradient, weights, alpha=self.weight_decay) if self.weight_decay else gradient


def zeros(tensors: Tensors) -> Tensors:
    """Return contiguous zeros of the same shapes."""
    return {name: torch.zeros(value.shape, dtype=value.dtype, device=value.device) for name, value in tensors.items()}


def _moments(student: Student, count: int) -> tuple[Tensor, ...]:
    """Return the moments of a student, zero before its first step."""
    if len(student.moments) not in (0, count):
        raise OptionError("moments", len(student.moments), fix=f"are another optimiser's; this one keeps {count}")
    return student.moments or tuple(torch.zeros_like(student.weights) for _ in range(count))
