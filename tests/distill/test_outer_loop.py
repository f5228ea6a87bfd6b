"""The outer loop on a task without items or models: how parameters move, what is kept, and that a kill changes nothing.

The task is a quadratic with noise keyed by the step, so that every number can be had by hand or from ``torch.optim``.
"""

import copy
import math
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from recdistill.bilevel.optimizer import Student
from recdistill.bilevel.unroll import MetaResult
from recdistill.distill.base import RunContext
from recdistill.distill.outer_loop import Learnt, OuterLoop, OuterTask
from recdistill.errors import NumericalError, OptionError
from recdistill.rng import generator_at
from reference.td3 import killer

LOOP = OuterLoop(
    method="toy",
    epochs=4,
    learning_rate=0.1,
    weight_decay=0.01,
    clip_norm=1.0,
    metric="score",
    remedy="try something else",
)
STEPS = 3
NOBODY = Student.of({"w": torch.zeros(1)})


class Point(nn.Module):
    """Two parameters."""

    def __init__(self) -> None:
        super().__init__()
        self.here = nn.Parameter(torch.tensor([2.0, -1.0]))
        self.there = nn.Parameter(torch.tensor([[0.5]]))


@dataclass(frozen=True)
class Toy:
    """Pulls both parameters to 0, shaken.

    Args:
        scores: of the epochs, from the first on.
        scale: of the gradient.
        broken: step at which the loss or the gradient is NaN.
        where: ``loss`` or ``gradient``.
    """

    scores: tuple[float, ...] = (0.1, 0.3, 0.2, 0.25)
    scale: float = 1.0
    broken: int | None = None
    where: str = "loss"
    synthetic: Point = field(default_factory=Point)
    seen: list[torch.Tensor] = field(default_factory=list)
    steps_per_epoch: int = STEPS

    def steps(self, epoch: int) -> Iterator[MetaResult]:
        for index in range(STEPS):
            yield self.meta(epoch * STEPS + index)

    def meta(self, step: int) -> MetaResult:
        self.seen.append(self.synthetic.here.detach().clone())
        spoil = {self.where: float("nan")} if step == self.broken else {}
        gradient = {name: value + spoil.get("gradient", 0.0) for name, value in self.slopes(step).items()}
        loss = sum(float(value.detach().square().sum()) for value in self.synthetic.parameters())
        return MetaResult(torch.tensor(loss + spoil.get("loss", 0.0)), gradient, NOBODY)

    def slopes(self, step: int, of: nn.Module | None = None) -> dict[str, torch.Tensor]:
        noise = generator_at(7, step)
        return {
            name: self.scale * (value.detach() + torch.randn(value.shape, generator=noise))
            for name, value in (of or self.synthetic).named_parameters()
        }

    def judge(self, epoch: int) -> float:
        return self.scores[epoch - 1]


def learnt(task: Toy, context: RunContext | None = None, loop: OuterLoop = LOOP) -> Learnt:
    return loop.learn(task, context or RunContext())


def values(task: Toy) -> list[torch.Tensor]:
    return [value.detach().clone() for value in task.synthetic.parameters()]


def test_the_toy_is_a_task() -> None:
    assert isinstance(Toy(), OuterTask)


@pytest.mark.parametrize("scale", [1e-3, 30.0])
def test_the_parameters_move_by_clipped_adam_along_a_cosine(scale: float) -> None:
    task = Toy(scale=scale, scores=(1, 2, 3, 4))
    reference = copy.deepcopy(task.synthetic)
    optimizer = torch.optim.Adam(reference.parameters(), lr=1.0, weight_decay=0.01)
    learnt(task)
    norms = []
    for step in range(4 * STEPS):
        for name, slope in task.slopes(step, reference).items():
            reference.get_parameter(name).grad = slope
        norms.append(float(nn.utils.clip_grad_norm_(reference.parameters(), 1.0)))
        optimizer.param_groups[0]["lr"] = 0.1 * 0.5 * (1 + math.cos(math.pi * step / (4 * STEPS)))
        torch.testing.assert_close(task.seen[step], reference.here.detach(), rtol=1e-6, atol=1e-7)
        optimizer.step()
    assert (min(norms) > 1) is (scale > 1)
    assert (max(norms) < 1) is (scale < 1)
    for ours, theirs in zip(values(task), reference.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs.detach(), rtol=1e-6, atol=1e-7)


def test_the_trace_has_the_mean_loss_and_the_score_of_every_epoch() -> None:
    task = Toy()
    trace = learnt(task).trace
    assert [record["valid_score"] for record in trace] == [0.1, 0.3, 0.2, 0.25]
    assert [list(record) for record in trace] == [["outer_loss", "valid_score"]] * 4
    again, losses = Toy(), []
    run = LOOP.start(again)
    for epoch in range(4):
        losses.append(LOOP.epoch(again, run, RunContext()))
        run.epoch += 1
        assert trace[epoch]["outer_loss"] == sum(losses[-1]) / STEPS
    assert run.step == 4 * STEPS


def test_the_first_of_the_best_epochs_is_kept() -> None:
    task = Toy(scores=(0.1, 0.3, 0.3, 0.2))
    learnt(task)
    after_two = task.seen[2 * STEPS]
    assert torch.equal(task.synthetic.here.detach(), after_two)
    assert not torch.equal(after_two, task.seen[-1])


@pytest.mark.parametrize("at", [1, 2, STEPS + 1, STEPS + 2, 2 * STEPS + 2, 4 * (STEPS + 1)])
def test_a_killed_run_continues_to_the_same_bits(at: int, tmp_path: Path) -> None:
    whole, state = Toy(), tmp_path / "runs" / "state"
    trace = learnt(whole).trace
    with pytest.raises(KeyboardInterrupt):
        learnt(Toy(), RunContext(state=state, progress=killer(at)))
    saved = at // (STEPS + 1)  # epochs: each reports its steps, is saved, and reports itself
    assert state.exists() is (saved > 0)
    resumed = Toy()
    assert learnt(resumed, RunContext(state=state)).trace == trace
    assert all(torch.equal(*pair) for pair in zip(values(resumed), values(whole), strict=True))
    assert len(resumed.seen) == (4 - saved) * STEPS
    assert not state.exists()


def test_seconds_add_up_over_resumed_parts(tmp_path: Path) -> None:
    state = tmp_path / "state"
    with pytest.raises(KeyboardInterrupt):
        learnt(Toy(), RunContext(state=state, progress=killer(STEPS + 2)))
    task = Toy()
    run = LOOP.start(task)
    run.restore(state)
    assert run.seconds_before > 0
    assert learnt(task, RunContext(state=state)).seconds > run.seconds_before


def test_progress_counts_the_steps_and_tells_the_score() -> None:
    told: list[tuple[str, int, int, str]] = []

    def progress(stage: str, done: int, total: int, note: str = "") -> None:
        told.append((stage, done, total, note))

    learnt(Toy(), RunContext(progress=progress))
    assert [done for _, done, _, _ in told[: STEPS + 1]] == [1, 2, 3, 3]
    assert {(stage, total) for stage, _, total, _ in told} == {("distill", 4 * STEPS)}
    assert told[STEPS][3].endswith("score 0.1000 (validation)")
    assert len(told) == 4 * (STEPS + 1)


@pytest.mark.parametrize(("where", "what"), [("loss", "the outer loss is nan"), ("gradient", "meta-gradient is nan")])
def test_a_number_that_is_not_finite_stops_the_run(where: str, what: str) -> None:
    task = Toy(broken=4, where=where)
    with pytest.raises(NumericalError, match=what) as caught:
        learnt(task)
    assert (caught.value.stage, caught.value.step) == ("distilling with toy", 5)
    assert "try something else" in str(caught.value)
    assert torch.equal(task.synthetic.here.detach(), task.seen[4])  # where it stood before that step


@pytest.mark.parametrize(
    "change", [{"epochs": 0}, {"learning_rate": 0.0}, {"weight_decay": -1.0}, {"clip_norm": 0.0}], ids=str
)
def test_values_out_of_range_are_refused(change: dict[str, Any]) -> None:
    with pytest.raises(OptionError, match=next(iter(change))):
        replace(LOOP, **change)


@dataclass(frozen=True)
class WithStart(Toy):
    """A toy whose parameters are also scored as they begin."""

    start: float = 0.0

    def judge(self, epoch: int) -> float:
        return self.scores[epoch - 1] if epoch else self.start


@pytest.mark.parametrize(("start", "kept"), [(0.9, True), (0.15, False)])
def test_the_start_may_compete_for_the_best_epoch(start: float, kept: bool, tmp_path: Path) -> None:
    task = WithStart(start=start)
    before = values(task)
    found = learnt(task, RunContext(state=tmp_path / "state"), replace(LOOP, judge_start=True))
    same = [torch.equal(one, other) for one, other in zip(values(task), before, strict=True)]
    assert all(same) == kept
    assert [record["valid_score"] for record in found.trace] == list(task.scores)
