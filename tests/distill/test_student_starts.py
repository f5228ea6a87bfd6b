"""Where students start: which weights, drawn when, and the same ones for the same key.

The pool is tested through a run of TD3 too, in ``test_td3.py``.
"""

from dataclasses import replace
from typing import Any

import pytest
import torch

from recdistill.bilevel.optimizer import Student
from recdistill.data.development import Development
from recdistill.distill.student_starts import StudentStarts
from recdistill.errors import OptionError
from recdistill.rng import Streams
from recdistill.training.trajectory import Trajectory
from reference.td3 import TINY, epoch_of, from_teacher, spy_on_steps, start_of, task_of


def starts(kind: str, teacher: Trajectory, seed: int = 0, **changes: Any) -> StudentStarts:
    return StudentStarts(
        **{"kind": kind, "pool": (1, 3), "teacher": teacher, "model": teacher.model(), "rng": Streams(seed)} | changes
    )


def differ(one: Student, other: Student) -> bool:
    return not torch.equal(one.weights, other.weights)


@pytest.mark.parametrize("kind", ["pool", "random", "fixed"])
@pytest.mark.parametrize("learners", [1, 3])
def test_the_same_key_gives_the_same_student(kind: str, learners: int, teacher: Trajectory) -> None:
    one, again = (starts(kind, teacher).draw(5, learners) for _ in range(2))
    assert torch.equal(one.weights, again.weights)
    assert one.learners == (None if learners == 1 else learners)
    assert (one.moments, one.step) == ((), 0)
    assert one.params.keys() == teacher.weights(0).keys()


def test_random_students_are_new_ones_for_every_key_and_learner(teacher: Trajectory) -> None:
    made = starts("random", teacher)
    drawn = [made.draw(key) for key in range(4)] + [starts("random", teacher, seed=1).draw(0)]
    assert all(differ(one, other) for index, one in enumerate(drawn) for other in drawn[:index])
    both = made.draw(0, 2).weights
    assert torch.equal(both[0], drawn[0].weights)
    assert not torch.equal(both[0], both[1])
    assert from_teacher(drawn[0], teacher) == [None]


def test_fixed_students_are_one_and_the_same(teacher: Trajectory) -> None:
    made = starts("fixed", teacher)
    first = made.draw(0)
    assert not any(differ(first, made.draw(key)) for key in range(1, 4))
    assert all(torch.equal(row, first.weights) for row in made.draw(7, 3).weights)
    assert differ(first, starts("fixed", teacher, seed=1).draw(0))
    assert from_teacher(first, teacher) == [None]


def test_random_weights_are_those_of_a_new_model(teacher: Trajectory) -> None:
    """Drawn as its own constructor draws: tables with their spread, norms of ones, padding of zeros."""
    params = starts("random", teacher).draw(0).params
    fresh = type(teacher.model())(**teacher.model().config, generator=torch.Generator().manual_seed(0))
    for name, value in fresh.state_dict().items():
        assert params[name].shape == value.shape
        assert float(params[name].std(unbiased=False)) == pytest.approx(float(value.std(unbiased=False)), rel=0.5)
    assert params["norm.weight"].tolist() == [1.0] * 8


def test_only_the_pool_needs_the_teachers_epochs(teacher: Trajectory) -> None:
    with pytest.raises(OptionError, match=r"pool.*teacher's last epoch 3"):
        starts("pool", teacher, pool=(4, 9))
    for kind in ("random", "fixed"):
        assert starts(kind, teacher, pool=(4, 9)).draw(0).step == 0


@pytest.mark.parametrize(
    ("start", "pool_draw", "different"), [("random", "step", 6), ("random", "epoch", 2), ("fixed", "step", 1)]
)
def test_a_run_starts_its_students_as_it_is_told(
    start: str, pool_draw: str, different: int, train: Development, teacher: Trajectory, monkeypatch: pytest.MonkeyPatch
) -> None:
    task = task_of(replace(TINY, start=start, pool_draw=pool_draw), train, teacher)
    steps, run = spy_on_steps(monkeypatch), start_of(task)
    epoch_of(task, run)
    epoch_of(task, run)
    assert len(steps) == 2 * task.steps_per_epoch == 6
    assert len({tuple(student.weights.tolist()) for student, _, _ in steps}) == different
    assert all(from_teacher(student, teacher) == [None] for student, _, _ in steps)
