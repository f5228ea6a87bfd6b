"""A tiny TD3, ways to compute it, and views into a run of it or of another method of its family."""

from collections.abc import Callable
from dataclasses import dataclass, replace

import pytest
import torch

from recdistill.bilevel.kernels import Kernels
from recdistill.bilevel.losses import SplitLoss
from recdistill.bilevel.optimizer import InnerOptimizer, Student, Tensors
from recdistill.bilevel.unroll import MetaResult, Unroll
from recdistill.data.development import Development
from recdistill.distill.base import Engine, RunContext, Summary
from recdistill.distill.bilevel_sequences import BilevelSequences, SequenceTask
from recdistill.distill.td3 import TD3
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


def task_of(
    settings: BilevelSequences, train: Development, teacher: Trajectory, context: RunContext | None = None
) -> SequenceTask:
    return SequenceTask.prepare(settings, train, teacher, Streams(0), context or RunContext())


def judged(loss: SplitLoss, params: Tensors) -> torch.Tensor:
    """Return the outer loss of a student."""
    return torch.stack([part.value(params, {}) for part in loss.parts()]).sum()


def start_of(task: SequenceTask) -> RunState:
    return task.settings.outer_loop().start(task)


def epoch_of(task: SequenceTask, run: RunState) -> list[float]:
    """Take the outer steps of an epoch; return their losses."""
    losses = task.settings.outer_loop().epoch(task, run, task.context)
    run.epoch += 1
    return losses


def stepped(task: SequenceTask, run: RunState, start: Student, rows: torch.Tensor) -> MetaResult:
    """Take one outer step; return what moved the parameters."""
    loop = task.settings.outer_loop()
    result = task.outer_step(run.step, start, rows)
    loop.move(run, result, loop.total_steps(task))
    return result


def summary(
    settings: BilevelSequences, train: Development, teacher: Trajectory, context: RunContext | None = None
) -> Summary:
    return settings.distill(train, teacher, None, Streams(0), context or RunContext())


def same(one: Summary, other: Summary) -> bool:
    ours, theirs = one.rows.tensors(), other.rows.tensors()
    return all(torch.equal(ours[name], theirs[name]) for name in ours)


def killer(at: int) -> Callable[..., None]:
    """Return a progress that kills the run at its ``at``-th report of distillation."""
    calls = []

    def progress(stage: str, done: int, total: int, note: str = "") -> None:
        if stage == "distill":
            calls.append(done)
            if len(calls) == at:
                raise KeyboardInterrupt

    return progress


def from_teacher(student: Student, teacher: Trajectory) -> list[int | None]:
    """Return the epochs whose weights the student, or each of several, has; ``None`` for other weights."""
    recorded = {number: Student.of(teacher.weights(number)).weights for number in range(teacher.num_epochs + 1)}
    rows = student.weights.view(student.learners or 1, -1)
    return [next((number for number, weights in recorded.items() if torch.equal(row, weights)), None) for row in rows]


def spy_on_steps(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Student, Student, torch.Tensor]]:
    """Return a list that fills with (start, student to carry on from, rows) of every outer step."""
    steps = []

    def spy(self: SequenceTask, step: int, start: Student, rows: torch.Tensor) -> MetaResult:
        result = original(self, step, start, rows)
        steps.append((start, result.student, rows))
        return result

    original = SequenceTask.outer_step
    monkeypatch.setattr(SequenceTask, "outer_step", spy)
    return steps
