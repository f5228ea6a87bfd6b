"""Bi-level steps without second derivatives: the student and the synthetic data move together.

The condition that the student be trained on the synthetic data becomes a constraint on a *gap*: how much lower the
inner loss would be after a few more steps. Both are then moved along the outer gradient, plus just enough of the gap's
gradient for the gap to shrink.
"""

from dataclasses import dataclass, field

import torch
from torch import Tensor

from recdistill.bilevel.kernels import Kernels
from recdistill.bilevel.losses import InnerLoss, OuterLoss, inner_step, outer_parts
from recdistill.bilevel.optimizer import InnerOptimizer, Student, Tensors, zeros
from recdistill.bilevel.unroll import MetaResult
from recdistill.errors import OptionError, choose, require_above

BARRIERS = ("gradient", "value")


@dataclass(frozen=True, kw_only=True)
class BOME:
    """Bi-level optimisation made easy: a barrier on the gap of the inner loss.

    With ``w`` the student, ``w_T`` a copy of it after ``inner_steps`` steps, held fixed, and the gap
    ``q = L(w, S) - L(w_T, S)``, the result's ``gradient`` is that of ``L_out + lambda q`` in the synthetic data, and
    its student has taken one step along the same in the weights, with

        lambda = max(0, (phi - <grad L_out, grad q>) / |grad q|^2)

    so that ``<grad q, grad L_out + lambda grad q> >= phi``. The inner loss of the gap is that of step ``inner_steps``,
    for ``w`` and for ``w_T`` alike, so both see the same rows and the same dropout. ``notes`` has ``multiplier``
    (``lambda``), ``gap`` (``q``), ``agreement`` (``<grad L_out, grad q>``) and ``slope`` (``|grad q|^2``); where the
    multiplier is 0, the synthetic data gets what the outer loss says of it directly, and nothing else. With
    ``blockwise=True`` weights and synthetic data have multipliers of their own, named ``multiplier_weights`` and
    ``multiplier_synthetic``.

    When not to use it: the student must be carried on from call to call; where each call starts anew, unroll instead.

    Args:
        optimizer: takes the inner steps of the copy.
        student_optimizer: takes the student's step.
        eta: strength of the barrier, above 0.
        barrier: ``gradient`` for ``phi = eta |grad q|^2``, ``value`` for ``phi = eta q``.
        blockwise: one multiplier for the weights and one for the synthetic data, in place of one for both.
        kernels: how gradients are computed.

    Raises:
        OptionError: an option is out of its range.

    Reference: Ye, Liu, Wright, Stone and Liu, BOME! Bilevel Optimization Made Easy, NeurIPS 2022, arXiv 2209.08709;
    used by FOSTER, arXiv 2605.30772.
    """

    optimizer: InnerOptimizer
    student_optimizer: InnerOptimizer
    eta: float = 0.5
    barrier: str = "gradient"
    blockwise: bool = False
    kernels: Kernels = field(default_factory=Kernels)

    def __post_init__(self) -> None:
        """Check every field."""
        require_above(0, eta=self.eta)
        choose("barrier", self.barrier, dict.fromkeys(BARRIERS))

    @torch.no_grad()
    def __call__(
        self,
        inner_loss: InnerLoss,
        outer_loss: OuterLoss,
        student: Student,
        synthetic: Tensors,
        inner_steps: int,
    ) -> MetaResult:
        """Return the outer loss, the direction for the synthetic data and the student after its step.

        Raises:
            OptionError: there are several learners.
        """
        if student.learners is not None:
            raise OptionError("learners", student.learners, fix="have no gap in common; give one student")
        student = student.detached()
        layout = student.layout
        synthetic = {name: value.detach() for name, value in synthetic.items()}
        trained = student.fresh()
        for step in range(inner_steps):
            loss = inner_step(inner_loss, synthetic, step)
            found = self.kernels.gradient(layout, trained.weights, synthetic, loss)
            trained = self.optimizer.update(trained, found.weights)

        total = torch.zeros((), dtype=student.weights.dtype, device=student.weights.device)
        outer = _Blocks(torch.zeros_like(student.weights), zeros(synthetic))
        for part in outer_parts(outer_loss, synthetic):
            found = self.kernels.joint_gradient(layout, student.weights, synthetic, part, outer.synthetic)
            outer.weights.add_(found.weights)
            total += found.loss

        loss = inner_step(inner_loss, synthetic, inner_steps)
        slopes = zeros(synthetic)
        here = self.kernels.joint_gradient(layout, student.weights, synthetic, loss, slopes)
        there = self.kernels.joint_gradient(layout, trained.weights, synthetic, loss, slopes, scale=-1.0)
        gap, barrier = here.loss - there.loss, _Blocks(here.weights, slopes)

        multipliers, notes = self._multipliers(outer, barrier, gap)
        direction = outer.weights + multipliers[0] * barrier.weights
        gradient = {name: value + multipliers[1] * barrier.synthetic[name] for name, value in outer.synthetic.items()}
        return MetaResult(total, gradient, self.student_optimizer.update(student, direction), notes)

    def _multipliers(self, outer: "_Blocks", barrier: "_Blocks", gap: Tensor) -> tuple[list[Tensor], dict[str, float]]:
        """Return the multipliers of weights and synthetic data, and what to tell about them."""
        agreements, slopes = outer.products(barrier), barrier.products(barrier)
        notes = {"gap": float(gap), "agreement": float(sum(agreements)), "slope": float(sum(slopes))}
        if not self.blockwise:
            multiplier = self._multiplier(torch.stack(agreements).sum(), torch.stack(slopes).sum(), gap)
            return [multiplier, multiplier], notes | {"multiplier": float(multiplier)}
        multipliers = [self._multiplier(*pair, gap) for pair in zip(agreements, slopes, strict=True)]
        names = ("multiplier_weights", "multiplier_synthetic")
        return multipliers, notes | {name: float(value) for name, value in zip(names, multipliers, strict=True)}

    def _multiplier(self, agreement: Tensor, slope: Tensor, gap: Tensor) -> Tensor:
        phi = self.eta * (slope if self.barrier == "gradient" else gap)
        return torch.where(slope > 0, ((phi - agreement) / slope).clamp(min=0), 0.0)


@dataclass(frozen=True)
class _Blocks:
    """A vector over weights and synthetic data."""

    weights: Tensor
    synthetic: Tensors

    def products(self, other: "_Blocks") -> list[Tensor]:
        """Return the inner product with another one, block by block."""
        parts = [(value * other.synthetic[name]).sum() for name, value in self.synthetic.items()]
        return [(self.weights * other.weights).sum(), torch.stack(parts).sum()]
