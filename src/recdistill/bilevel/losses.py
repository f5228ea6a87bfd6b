"""Losses as the engine takes them: plain functions, or the same thing told apart into what moves and what does not.

A plain inner loss is a function of named weights, synthetic tensors and the number of the step; it may do anything.
An inner loss that *plans* hands over, for each step, one pure function together with the few synthetic tensors it reads
and everything that was drawn for the step (masks, positions, targets) as tensors. Such a loss can be recorded once and
replayed, and run for several students at a time. An outer loss may likewise come in parts, whose values add up.

Where synthetic data enters only as a linear map of one weight, as soft items do (``P E``), a planned loss can say so
with a :class:`LinearRead`. The map is then applied, transposed and accumulated outside of the differentiated function,
each in the way that suits it, and second derivatives of it are never needed.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor

from recdistill.bilevel.optimizer import Tensors
from recdistill.errors import OptionError

PureLoss = Callable[[Tensors, Tensors, Tensors], Tensor]
"""A scalar from weights, synthetic tensors and what was drawn; nothing else goes in or out."""


@runtime_checkable
class LinearRead(Protocol):
    """A linear map of one weight, whose coefficients are made of synthetic tensors: ``X = M(S) w``."""

    @property
    def weight(self) -> str:
        """Name of the weight."""
        ...

    def apply(self, synthetic: Tensors, weight: Tensor) -> Tensor:
        """Return ``M(S) w``; differentiable as often as asked for, in both."""
        ...

    def transpose(self, synthetic: Tensors, bar: Tensor, into: Tensor) -> None:
        """Add ``M(S)^T bar`` to ``into``, which has the shape of the weight."""
        ...

    def accumulate(self, synthetic: Tensors, pairs: list[tuple[Tensor, Tensor]], into: Tensors) -> None:
        """Add the derivative of ``sum_i <bar_i, M(S) w_i>`` in the synthetic tensors to ``into`` (contiguous)."""
        ...


@dataclass(frozen=True)
class StepLoss:
    """The loss of one step.

    Args:
        loss: a pure function. The same object (or an equal one, as bound methods are) in every step that computes the
            same thing, so that a recording of it can be found again.
        reads: which synthetic tensor it reads under which name.
        drawn: what was drawn for this step; the same names and shapes in every step.
        linear: synthetic inputs that are linear in a weight; the function finds them by these names beside ``reads``.
    """

    loss: PureLoss
    reads: dict[str, str] = field(default_factory=dict)
    drawn: Tensors = field(default_factory=dict)
    linear: dict[str, LinearRead] = field(default_factory=dict)

    def inputs(self, synthetic: Tensors) -> Tensors:
        """Return what is read as it is."""
        return {name: synthetic[source] for name, source in self.reads.items()}

    def value(self, params: Tensors, synthetic: Tensors) -> Tensor:
        """Return the loss, differentiable in both."""
        linear = {name: read.apply(synthetic, params[read.weight]) for name, read in self.linear.items()}
        return self.loss(params, self.inputs(synthetic) | linear, self.drawn)


@runtime_checkable
class PlannedLoss(Protocol):
    """An inner loss that says beforehand what each step reads."""

    def plan(self, step: int, learner: int) -> StepLoss:
        """Return the loss of a step, 0 or more, for one of several learners trained together (0 when there is one)."""
        ...


@runtime_checkable
class SplitLoss(Protocol):
    """An outer loss whose parts are differentiated one after the other, so that only one needs memory at a time."""

    def parts(self) -> Iterable[StepLoss]:
        """Return losses whose sum is the outer loss."""
        ...


InnerLoss = Callable[[Tensors, Tensors, int], Tensor] | PlannedLoss
OuterLoss = Callable[[Tensors, Tensors], Tensor] | SplitLoss


def inner_step(inner_loss: InnerLoss, synthetic: Tensors, step: int, learners: int | None = None) -> StepLoss:
    """Return the loss of a step; for several learners, the sum of their losses.

    Args:
        inner_loss: planned or plain.
        synthetic: the synthetic tensors.
        step: 0 or more.
        learners: how many are trained together; ``None`` for one without an axis of its own.

    Raises:
        OptionError: several learners, but the loss does not plan or reads other tensors for each of them.
    """
    if not isinstance(inner_loss, PlannedLoss):
        if learners is not None:
            raise OptionError("learners", learners, fix="need an inner loss with plan(step, learner)")
        return StepLoss(PlainLoss(inner_loss, step), {name: name for name in synthetic})
    first = inner_loss.plan(step, 0)
    if learners is None:
        return first
    plans = [first, *(inner_loss.plan(step, learner) for learner in range(1, learners))]
    if any((other.loss, other.reads, other.linear) != (first.loss, first.reads, first.linear) for other in plans):
        raise OptionError("learners", learners, fix="must read the same synthetic tensors in a step")
    drawn = {name: torch.stack([other.drawn[name] for other in plans]) for name in first.drawn}
    axes = dict.fromkeys(first.reads) | dict.fromkeys(first.linear, 0)
    return StepLoss(_Together(first.loss, tuple(axes.items())), first.reads, drawn, first.linear)


def outer_parts(outer_loss: OuterLoss, synthetic: Tensors, learners: int | None = None) -> Iterable[StepLoss]:
    """Yield losses whose sum is the outer loss, averaged over the learners where there are several."""
    everything = {name: name for name in synthetic}
    parts = outer_loss.parts() if isinstance(outer_loss, SplitLoss) else [StepLoss(PlainLoss(outer_loss), everything)]
    for part in parts:
        if learners is None:
            yield part
        else:
            axes = tuple(dict.fromkeys(part.reads).items())
            yield StepLoss(_Together(part.loss, axes, 1 / learners, drawn_axis=None), part.reads, part.drawn)


@dataclass(frozen=True)
class PlainLoss:
    """A plain loss: the inner one at a step, or the outer one. It may read anything, so it is never recorded."""

    function: Callable[..., Tensor]
    step: int | None = None

    def __call__(self, params: Tensors, synthetic: Tensors, drawn: Tensors) -> Tensor:
        """Return the loss."""
        if self.step is None:
            return self.function(params, synthetic)
        return self.function(params, synthetic, self.step)


def is_pure(loss: PureLoss) -> bool:
    """Return whether a loss reads nothing but its arguments, so that it can be recorded."""
    return not isinstance(loss.loss if isinstance(loss, _Together) else loss, PlainLoss)


@dataclass(frozen=True)
class _Together:
    """The sum of one loss over several learners on the same synthetic tensors."""

    loss: PureLoss
    axes: tuple[tuple[str, int | None], ...]
    scale: float = 1.0
    drawn_axis: int | None = 0

    def __call__(self, params: Tensors, synthetic: Tensors, drawn: Tensors) -> Tensor:
        axes = dict(self.axes)
        dims = (0, {name: axes[name] for name in synthetic}, self.drawn_axis if drawn else None)
        losses: Tensor = torch.func.vmap(self.loss, in_dims=dims)(params, synthetic, drawn)
        return losses.sum() * self.scale
