"""The state file holds everything, for any model."""

from pathlib import Path

import torch
from torch import nn

from recdistill.training.resume import RunState


class Partly(nn.Module):
    """A module whose first weight is never used, so that Adam keeps no state for it."""

    def __init__(self) -> None:
        super().__init__()
        self.unused = nn.Parameter(torch.ones(3))
        self.used = nn.Parameter(torch.tensor([1.0, -2.0]))


def steps(run: RunState, count: int) -> None:
    for _ in range(count):
        run.optimizer.zero_grad()
        run.model.used.square().sum().backward()
        run.optimizer.step()
        run.step += 1


def test_a_restored_run_goes_on_to_the_same_bits(tmp_path: Path) -> None:
    whole = RunState.start(Partly(), 0.1, 0.01)
    steps(whole, 8)
    first = RunState.start(Partly(), 0.1, 0.01)
    steps(first, 5)
    first.save(tmp_path / "state")
    again = RunState.start(Partly(), 0.1, 0.01)
    again.restore(tmp_path / "state")
    steps(again, 3)
    assert again.step == 8
    assert torch.equal(again.model.used, whole.model.used)
    assert torch.equal(again.model.unused, torch.ones(3))


def test_a_run_can_be_restored_again_and_again(tmp_path: Path) -> None:
    def wide() -> nn.Module:
        return nn.ParameterList(torch.full((2,), float(index)) for index in range(1, 13))

    def step(run: RunState) -> None:
        run.optimizer.zero_grad()
        sum((index + 1) * weight.pow(2).sum() for index, weight in enumerate(run.model)).backward()
        run.optimizer.step()

    whole = RunState.start(wide(), 0.1, 0.0)
    for _ in range(4):
        step(whole)
    for _ in range(4):
        run = RunState.start(wide(), 0.1, 0.0)
        run.restore(tmp_path / "state")
        step(run)
        run.save(tmp_path / "state")
    assert [weight.tolist() for weight in run.model] == [weight.tolist() for weight in whole.model]


def test_every_number_is_restored(tmp_path: Path) -> None:
    run = RunState.start(Partly(), 0.1, 0.0)
    run.epoch, run.step, run.losses = 2, 7, [1.5, 0.1 + 0.2]
    run.take_score(0.5, 3)
    run.model.used.data.fill_(4.0)
    run.take_score(0.4, 1)
    run.seconds_before = 100.0
    run.save(tmp_path / "state")
    again = RunState.start(Partly(), 0.1, 0.0)
    again.restore(tmp_path / "state")
    for name in ("epoch", "step", "losses", "scores", "best_score", "best_epoch", "waited", "stopped"):
        assert getattr(again, name) == getattr(run, name)
    assert 100 < again.seconds_before < again.seconds < 160
    assert again.stopped
    assert again.model.used.tolist() == [4, 4]
    assert again.keep_best() == 2
    assert again.model.used.tolist() == [1, -2]


def test_nothing_is_restored_where_there_is_no_file(tmp_path: Path) -> None:
    run = RunState.start(Partly(), 0.1, 0.0)
    run.restore(tmp_path / "state")
    assert (run.epoch, run.step, run.best_score) == (0, 0, None)


def test_the_best_weights_are_a_copy() -> None:
    run = RunState.start(Partly(), 0.1, 0.0)
    run.take_score(0.5, 3)
    steps(run, 2)
    run.keep_best()
    assert run.model.used.tolist() == [1, -2]
