"""Meta-gradients by unrolled training.

A student is trained for some steps on synthetic data, then judged on real data. The meta-gradient is the derivative of
that judgement with respect to the synthetic data, through the training. Carrying it through all steps is costly and,
over many steps, unstable; so only the last ``window`` steps are differentiated and the earlier ones are plain.
"""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor

from recdistill.bilevel.kernels import Gradient, Kernels, explained_errors
from recdistill.bilevel.losses import InnerLoss, OuterLoss, StepLoss, inner_step, outer_parts
from recdistill.bilevel.optimizer import Cotangent, InnerOptimizer, Student, Tensors, zeros
from recdistill.errors import OptionError, choose, require_at_least


@dataclass(frozen=True)
class MetaResult:
    """What one meta-gradient computation returns.

    Args:
        outer_loss: a scalar, without a graph.
        gradient: derivative of the outer loss, keyed like the synthetic tensors.
        student: where to carry on, without a graph: the student before the differentiated window, or for first-order
            methods the student that they moved.
        notes: what a method has to tell about itself; see there.
    """

    outer_loss: Tensor
    gradient: Tensors
    student: Student
    notes: dict[str, float] = field(default_factory=dict)


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
            inner_loss: pure function of weights, synthetic tensors and step number ``0 .. inner_steps - 1``, whatever
                is random in it keyed by the step; or a loss that plans its steps.
            outer_loss: pure function of weights and synthetic tensors; or a loss in parts.
            student: where training starts.
            synthetic: what is learned; leaves, or any tensors whose own graph is to be left alone.
            inner_steps: training steps, 0 or more.
        """
        ...


@dataclass(frozen=True, kw_only=True)
class Unroll:
    """Plain steps, then a window of steps through which the outer loss is differentiated.

    With ``window=None`` or ``window >= inner_steps`` this is full back-propagation through time; with a smaller window
    it is another estimator, biased, and not a cheaper one of the same thing. With ``inner_steps`` drawn anew for each
    call (:func:`random_unroll`) it is RaT-BPTT. With ``window=1`` it is the one-step gradient.

    How the window is differentiated is a matter of cost alone (``mode``):

    * ``stepwise`` keeps the student of every step and walks back with the exact adjoint of the optimiser. Memory is
      that of one step, apart from the kept students. Where these need more than ``state_bytes``, only as many as fit
      are kept and the others are trained again, in the order that trains least.
    * ``reversible`` undoes each step, and keeps none but the first few of a fresh optimiser (:data:`COLD_STEPS`), whose
      moments are lost in rounding. Rounding errors grow with every step; ``notes`` has ``rebuild_error``, the relative
      distance between the last rebuilt student and the true one.
    * ``taped`` records the window with autograd: memory grows with every step's activations. For comparison, and for
      optimisers that have no adjoint.

    Several learners are trained in one go on the same synthetic data when the student has a leading axis
    (:meth:`Student.stack`); the result is the mean over them.

    Args:
        optimizer: the inner optimiser.
        window: number of differentiated steps at the end, at least 1; ``None`` for all.
        mode: one of :data:`MODES`.
        kernels: how steps are differentiated.
        state_bytes: memory for kept students, in bytes; at least 1.

    Raises:
        OptionError: an option is out of its range.

    Reference: Feng, Vedantam and Kempe, Embarrassingly Simple Dataset Distillation, ICLR 2024, arXiv 2311.07025;
    Griewank and Walther, Algorithm 799: revolve, ACM TOMS 2000 (which students to keep).
    """

    optimizer: InnerOptimizer
    window: int | None = None
    mode: str = "stepwise"
    kernels: Kernels = field(default_factory=Kernels)
    state_bytes: int = 2 * 1024**3

    def __post_init__(self) -> None:
        """Check every field."""
        if self.window is not None and self.window < 1:
            raise OptionError("window", self.window, fix="must be 1 or more, or None for all steps")
        choose("mode", self.mode, MODES)
        require_at_least(1, state_bytes=self.state_bytes)

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
        synthetic = {name: value.detach() for name, value in synthetic.items()}
        walk = _Walk(self.optimizer, self.kernels, inner_loss, outer_loss, synthetic, student.learners)
        with torch.no_grad(), explained_errors(self.kernels.product if self.mode != "taped" else "double_backward"):
            start = walk.advance(student.detached(), 0, inner_steps - window)
            return MODES[self.mode](self, walk, start, inner_steps - window, inner_steps)

    def _taped(self, walk: "_Walk", start: Student, first: int, last: int) -> MetaResult:
        leaves = {name: value.detach().requires_grad_() for name, value in walk.synthetic.items()}
        student = start.with_weights(start.weights.detach().requires_grad_())
        with torch.enable_grad():
            for step in range(first, last):
                params = student.params
                loss = walk.loss(step).value(params, leaves)
                slopes = torch.autograd.grad(
                    loss, list(params.values()), create_graph=True, allow_unused=True, materialize_grads=True
                )
                student = self.optimizer.update(student, student.layout.join(slopes, like=student.weights))
            loss = torch.stack([part.value(student.params, leaves) for part in walk.outer()]).sum()
            found = torch.autograd.grad(loss, list(leaves.values()), allow_unused=True, materialize_grads=True)
        return MetaResult(loss.detach(), dict(zip(leaves, found, strict=True)), start)

    def _stepwise(self, walk: "_Walk", start: Student, first: int, last: int) -> MetaResult:
        kept: list[Taken] = []
        room: list[Tensor] = []
        student = start
        for taken in walk.forward(start, first, last):
            student = taken.after
            if taken.step == first and (last - first) * taken.size <= self.state_bytes:
                room = [tensor.new_empty(last - first, *tensor.shape) for tensor in taken.tensors]
            if room:
                before = kept[-1].after if kept else start
                kept.append(taken.copied([row[len(kept)] for row in room], before))
        loss, cotangent, into = walk.judge(student)
        if not kept:
            held = start.weights.numel() * start.weights.element_size() * (1 + self.optimizer.num_moments)
            steps = walk.backward(start, first, student, last, self.state_bytes // held)
            for taken in steps:
                cotangent = walk.pull(taken, cotangent, into)
        while kept:
            cotangent = walk.pull(kept.pop(), cotangent, into)
        return MetaResult(loss, into, start)

    def _reversible(self, walk: "_Walk", start: Student, first: int, last: int) -> MetaResult:
        cold = min(last, first + max(0, COLD_STEPS - start.step))
        kept = list(walk.forward(start, first, cold))
        middle = kept[-1].after if kept else start
        after = walk.advance(middle, cold, last)
        outer, cotangent, into = walk.judge(after)
        for step in reversed(range(cold, last)):
            weights = self.optimizer.rewind_weights(after)
            gradient = walk.gradient(after.with_weights(weights), step)
            before = self.optimizer.rewind(after, weights, gradient.weights)
            cotangent = walk.pull(Taken(step, before, gradient, after), cotangent, into)
            after = before
        while kept:
            cotangent = walk.pull(kept.pop(), cotangent, into)
        size = torch.linalg.vector_norm(middle.weights)
        error = torch.linalg.vector_norm(after.weights - middle.weights) / size.clamp(min=torch.finfo(size.dtype).tiny)
        return MetaResult(outer, into, start, {"rebuild_error": float(error)})


MODES: dict[str, Callable[[Unroll, "_Walk", Student, int, int], MetaResult]] = {
    "stepwise": Unroll._stepwise,
    "reversible": Unroll._reversible,
    "taped": Unroll._taped,
}
"""How a window is differentiated."""


COLD_STEPS = 5
"""Steps of a fresh optimiser that are kept rather than undone.

Undoing a step divides by the root of the second moment. In the first steps both moments of many weights are so small
that single precision has lost them: a window of 40 steps from a fresh Adam was off by a factor of 300, and by 2e-6 with
five steps before it.
"""


def random_unroll(window: int, longest: int, generator: torch.Generator) -> int:
    """Return a number of inner steps, uniform on ``window .. longest``: RaT-BPTT's random timestep.

    Reference: arXiv 2311.07025, algorithm 1.
    """
    return int(torch.randint(window, longest + 1, (1,), generator=generator))


@dataclass(frozen=True)
class Taken:
    """A training step that was taken.

    Args:
        step: its number.
        before: the student that took it.
        gradient: the gradient along which it was taken.
        after: the student after it.
    """

    step: int
    before: Student
    gradient: Gradient
    after: Student

    @property
    def tensors(self) -> list[Tensor]:
        """What a step like this one keeps alive."""
        return [self.after.weights, *self.after.moments, self.gradient.weights, *self.gradient.linear.values()]

    @property
    def size(self) -> int:
        """The same in bytes."""
        return sum(tensor.numel() * tensor.element_size() for tensor in self.tensors)

    def copied(self, into: list[Tensor], before: Student) -> "Taken":
        """Return the same step with its tensors in ``into``, those of another shape excepted.

        What is kept for long lies together, or it would cut the memory between short-lived tensors into pieces.
        """
        pairs = zip(into, self.tensors, strict=True)
        weights, *others = (row.copy_(tensor) if row.shape == tensor.shape else tensor for row, tensor in pairs)
        count = len(self.after.moments)
        after = replace(self.after, weights=weights, moments=tuple(others[:count]))
        slope, *linear = others[count:]
        gradient = Gradient(self.gradient.loss, slope, dict(zip(self.gradient.linear, linear, strict=True)))
        return Taken(self.step, before, gradient, after)


@dataclass(frozen=True)
class _Walk:
    """Training forwards and the derivative backwards, for one call of an estimator."""

    optimizer: InnerOptimizer
    kernels: Kernels
    inner_loss: InnerLoss
    outer_loss: OuterLoss
    synthetic: Tensors
    learners: int | None

    def loss(self, step: int) -> StepLoss:
        return inner_step(self.inner_loss, self.synthetic, step, self.learners)

    def outer(self) -> Iterator[StepLoss]:
        return iter(outer_parts(self.outer_loss, self.synthetic, self.learners))

    def gradient(self, student: Student, step: int) -> Gradient:
        return self.kernels.gradient(student.layout, student.weights, self.synthetic, self.loss(step))

    def forward(self, student: Student, first: int, last: int) -> Iterator[Taken]:
        """Yield the steps ``first .. last - 1``."""
        for step in range(first, last):
            gradient = self.gradient(student, step)
            after = self.optimizer.update(student, gradient.weights)
            yield Taken(step, student, gradient, after)
            student = after

    def advance(self, student: Student, first: int, last: int) -> Student:
        """Return the student after these steps."""
        for taken in self.forward(student, first, last):
            student = taken.after
        return student

    def backward(self, student: Student, first: int, final: Student, last: int, slots: int) -> Iterator[Taken]:
        """Yield the steps ``last - 1 .. first`` with at most ``slots`` students kept beside the two that are given."""
        after = final
        for taken in self._revolve(student, first, last, slots):
            yield Taken(taken.step, taken.before, taken.gradient, after)
            after = taken.before

    def _revolve(self, student: Student, first: int, last: int, slots: int) -> Iterator[Taken]:
        while last - first > 1:
            cut = first + revolve_cut(last - first, slots)
            middle = self.advance(student, first, cut)
            yield from self._revolve(middle, cut, last, slots - 1 if slots else 0)
            last = cut
        if last > first:
            yield Taken(first, student, self.gradient(student, first), student)

    def judge(self, student: Student) -> tuple[Tensor, Cotangent, Tensors]:
        """Return the outer loss, its derivative in the student, and that in the synthetic tensors by itself."""
        into = zeros(self.synthetic)
        weights, total = torch.zeros_like(student.weights), torch.zeros_like(student.weights[..., 0].sum())
        for part in self.outer():
            found = self.kernels.joint_gradient(student.layout, student.weights, self.synthetic, part, into)
            weights += found.weights
            total += found.loss
        moments = tuple(torch.zeros_like(student.weights) for _ in range(self.optimizer.num_moments))
        return total, Cotangent(weights, moments), into

    def pull(self, taken: Taken, cotangent: Cotangent, into: Tensors) -> Cotangent:
        """Return the derivative in the student before a step; add that in the synthetic tensors to ``into``."""
        before, gradient = taken.before, taken.gradient
        direction, partial = self.optimizer.pull_back(before, gradient.weights, taken.after, cotangent)
        curved = self.kernels.pull(
            before.layout, before.weights, self.synthetic, self.loss(taken.step), gradient, direction, into
        )
        return Cotangent(partial.weights.add_(curved), partial.moments)


def revolve_cut(steps: int, slots: int) -> int:
    """Return after how many of ``steps`` to keep the next student, so that the fewest steps are taken again.

    Args:
        steps: 2 or more.
        slots: students that may still be kept, 0 or more.
    """
    repeats = 1
    while math.comb(slots + 1 + repeats, slots + 1) < steps:
        repeats += 1
    # what stands before the cut is taken once more; what follows may be taken as often with one slot less
    return max(1, math.comb(slots + repeats - 1, slots + 1), steps - math.comb(slots + repeats, slots))
