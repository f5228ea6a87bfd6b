"""A tiny TD3, ways to compute it, and views into a run of it."""

from dataclasses import dataclass, replace

import pytest
import torch

from recdistill.bilevel.kernels import Kernels
from recdistill.bilevel.losses import SplitLoss
from recdistill.bilevel.optimizer import InnerOptimizer, Student, Tensors
from recdistill.bilevel.unroll import Unroll
from recdistill.data.development import Development
from recdistill.distill.base import Engine, RunContext, Summary
from recdistill.distill.td3 import TD3, _Task
from recdistill.rng import Streams
from recdistill.training.resume import RunState
from recdistill.training.trajectory import Trajectory

TINY = TD3(
    num_rows=4,
    length=6,
    rank=2,
    epochs=3,
    outer_batch_size=100,
    synthetic_batch_size=3,
    max_inner_steps=4,
    window=2,
    pool=(1, 3),
    judge_steps=3,
)


@dataclass(frozen=True, kw_only=True)
class Recording(Engine):
    """An engine that records the losses and replays them, without compiling."""

    def unroll(self, optimizer: InnerOptimizer, window: int) -> Unroll:
        made = super().unroll(optimizer, window)
        return replace(made, kernels=Kernels(product=made.kernels.product, record=True))


ENGINES: dict[str, Engine] = {
    "taped": Engine(mode="taped"),
    "reversible": Engine(mode="reversible"),
    "forward over reverse": Engine(product="forward_over_reverse"),
    "tiled": Engine(dense_bytes=1),
    "tiled, reversible, forward over reverse": Engine(dense_bytes=1, mode="reversible", product="forward_over_reverse"),
    "training again": Engine(state_bytes=1),
}
"""Ways to the numbers of the default one; :class:`Recording` is another, but slow to start."""


def task_of(settings: TD3, train: Development, teacher: Trajectory, context: RunContext | None = None) -> _Task:
    return _Task.prepare(settings, train, teacher, Streams(0), context or RunContext())


def judged(loss: SplitLoss, params: Tensors) -> torch.Tensor:
    """Return the outer loss of a student."""
    return torch.stack([part.value(params, {}) for part in loss.parts()]).sum()


def start_of(task: _Task) -> RunState:
    return RunState.start(task.synthetic, task.settings.outer_learning_rate, task.settings.outer_weight_decay)


def summary(settings: TD3, train: Development, teacher: Trajectory, context: RunContext | None = None) -> Summary:
    return settings.distill(train, teacher, None, Streams(0), context or RunContext())


def same(one: Summary, other: Summary) -> bool:
    ours, theirs = one.rows.tensors(), other.rows.tensors()
    return all(torch.equal(ours[name], theirs[name]) for name in ours)


def spy_on_steps(task: _Task, monkeypatch: pytest.MonkeyPatch) -> list[tuple[Student, Student, torch.Tensor]]:
    """Return a list that fills with (start, student to carry on from, rows) of every outer step."""
    steps = []

    def spy(self: _Task, run: RunState, start: Student, rows: torch.Tensor) -> tuple[float, Student]:
        loss, student = original(self, run, start, rows)
        steps.append((start, student, rows))
        return loss, student

    original = _Task.outer_step
    monkeypatch.setattr(_Task, "outer_step", spy)
    return steps
