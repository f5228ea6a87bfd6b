"""Short runs of TD3 give the numbers that the first engine gave.

The numbers come from the engine before this one (commit 292e6ed): a taped unroll over named weights, on the same
fixtures. Whatever is done to the engine, its dropout and its targets must stay those of the same keys. That engine had
no learners side by side: their numbers are means over two of its unrolls in every step.
"""

from dataclasses import dataclass, replace
from typing import Any

import pytest

from recdistill.bilevel.optimizer import Student
from recdistill.data.development import Development
from recdistill.distill.base import Engine, RunContext
from recdistill.distill.bilevel_sequences import SequenceTask
from recdistill.distill.td3 import TD3
from recdistill.training.trajectory import Trajectory
from reference.td3 import ENGINES, TINY, Recording, epoch_of, start_of, task_of

# the first use of forward mode in a process compiles some of its formulas with a part of torch that torch deprecates
pytestmark = pytest.mark.filterwarnings("ignore:.torch.jit.script. is deprecated:DeprecationWarning")


@dataclass(frozen=True)
class Golden:
    """What two epochs gave.

    Args:
        changes: to the settings of the tiny run.
        losses: outer losses, one per step.
        norms: of the factors at the end.
    """

    changes: dict[str, Any]
    losses: list[float]
    norms: dict[str, float]


GOLDEN = {
    "defaults": Golden(
        {},
        [2.2120945, 3.3570716, 2.2028484, 2.6481893, 3.3657355, 3.4128852],
        {"core": 1.8714312, "user_factor": 0.17921695, "time_factor": 0.20105373},
    ),
    "padding column": Golden(
        {"pad_column": True},
        [2.2129741, 3.3567123, 2.2028365, 2.651299, 3.3642693, 3.4136477],
        {"core": 1.8778677, "user_factor": 0.19990597, "time_factor": 0.20864295},
    ),
    "carried over": Golden(
        {"carry_over": True, "pool_draw": "epoch"},
        [2.2120945, 2.2214706, 2.2456551, 3.326138, 3.4143381, 3.5072441],
        {"core": 1.9061054, "user_factor": 0.25009722, "time_factor": 0.23609013},
    ),
    "all targets": Golden(
        {"inner_objective": "all"},
        [2.2011507, 3.3977764, 2.1942332, 2.6151912, 3.3647876, 3.413305],
        {"core": 1.8759906, "user_factor": 0.17160886, "time_factor": 0.20685295},
    ),
    "last target": Golden(
        {"inner_objective": "last"},
        [2.2074785, 3.305968, 2.2036657, 2.6513863, 3.3021743, 3.3305602],
        {"core": 1.8585976, "user_factor": 0.14379971, "time_factor": 0.19660922},
    ),
    "outer dropout": Golden(
        {"outer_dropout": True},
        [2.4438791, 3.5332105, 2.4301596, 2.8963802, 3.589144, 3.6904738],
        {"core": 1.8826305, "user_factor": 0.20534157, "time_factor": 0.22378544},
    ),
    "half the sum": Golden(
        {"feature_scale": "sum_half", "feature_weight": 0.1},
        [2.7393661, 26.204483, 2.3372836, 9.1450329, 26.517193, 7.7508779],
        {"core": 2.2999906, "user_factor": 0.16254519, "time_factor": 0.25494085},
    ),
    "teacher dropout": Golden(
        {"teacher_dropout": True},
        [2.371541, 3.4810343, 2.3616374, 2.777698, 3.4889212, 3.4974775],
        {"core": 1.8998272, "user_factor": 0.15377224, "time_factor": 0.22647844},
    ),
    "two learners": Golden(
        {"learners": 2},
        [2.7779207, 2.9999604, 2.7668767, 2.9886127, 2.9958301, 3.0489683],
        {"core": 1.864254, "user_factor": 0.14419107, "time_factor": 0.21947486},
    ),
}


@pytest.mark.parametrize("name", GOLDEN)
def test_two_epochs_give_the_numbers_of_the_first_engine(name: str, train: Development, teacher: Trajectory) -> None:
    golden = GOLDEN[name]
    compare(golden, replace(TINY, **golden.changes), RunContext(), train, teacher)


def test_several_learners_read_in_tiles_do_so_too(
    train: Development, teacher: Trajectory, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("recdistill.data.soft_items.tile_for", lambda rows, itemsize: 3)
    golden, context = GOLDEN["two learners"], RunContext(engine=Engine(dense_bytes=1))
    compare(golden, replace(TINY, **golden.changes), context, train, teacher)


@pytest.mark.parametrize("engine", ENGINES.values(), ids=ENGINES)
def test_and_so_does_every_engine(
    engine: Engine, train: Development, teacher: Trajectory, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("recdistill.data.soft_items.tile_for", lambda rows, itemsize: 3)
    compare(GOLDEN["defaults"], TINY, RunContext(engine=engine), train, teacher)


@pytest.mark.slow
def test_and_so_does_a_recording(train: Development, teacher: Trajectory) -> None:
    compare(GOLDEN["defaults"], TINY, RunContext(engine=Recording()), train, teacher)


def test_and_so_does_a_stack_of_one_learner(
    train: Development, teacher: Trajectory, monkeypatch: pytest.MonkeyPatch
) -> None:
    start = SequenceTask.start
    monkeypatch.setattr(SequenceTask, "start", lambda self, key: Student.stack([start(self, key)]))
    compare(GOLDEN["defaults"], TINY, RunContext(), train, teacher)


def compare(golden: Golden, settings: TD3, context: RunContext, train: Development, teacher: Trajectory) -> None:
    task = task_of(settings, train, teacher, context)
    run = start_of(task)
    losses = epoch_of(task, run) + epoch_of(task, run)
    norms = {name: float(value.detach().double().norm()) for name, value in task.synthetic.named_parameters()}
    assert losses == pytest.approx(golden.losses, rel=1e-5)
    assert norms == pytest.approx(golden.norms, rel=1e-5)
