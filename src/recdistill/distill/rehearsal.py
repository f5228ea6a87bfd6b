"""What a method may show of a run beforehand, so that its cost can be foretold.

Nothing here is asked of a method. One that shows nothing is foretold by being run, where that is quick.
"""

from collections.abc import Sequence
from typing import Protocol, runtime_checkable

from recdistill.bilevel.unroll import MetaResult
from recdistill.data.development import Development
from recdistill.distill.base import RunContext, Summary
from recdistill.distill.outer_loop import Learnt, OuterLoop, OuterTask
from recdistill.distill.teacher import TeacherSpec
from recdistill.rng import Streams
from recdistill.training.trajectory import Trajectory


@runtime_checkable
class RehearsedTask(OuterTask, Protocol):
    """A task of the outer loop whose steps can be taken one by one."""

    def inner_steps(self, step: int) -> int:
        """Return how many steps the student of an outer step takes; known before the run, because it is seeded."""
        ...

    @property
    def rehearsals(self) -> Sequence[int]:
        """Outer steps that stand for all, so ordered that the first few do already."""
        ...

    def rehearse(self, step: int) -> MetaResult:
        """Take an outer step as a run would, and move nothing."""
        ...


@runtime_checkable
class Rehearsable(Protocol):
    """A distiller whose run is an outer loop over such a task."""

    @property
    def epochs(self) -> int:
        """Outer epochs; without any there is nothing to rehearse."""
        ...

    def outer_loop(self) -> OuterLoop:
        """Return how the parameters move."""
        ...

    def task(self, train: Development, teacher: Trajectory, rng: Streams, context: RunContext) -> RehearsedTask:
        """Return what the loop learns."""
        ...

    def summary(self, task: RehearsedTask, learnt: Learnt) -> Summary:
        """Return the rows as they are now."""
        ...


@runtime_checkable
class TrainsOthers(Protocol):
    """A distiller that trains models on the full data beside its teacher."""

    def others(self, max_seq_len: int) -> Sequence[TeacherSpec]:
        """Return which, for a teacher that reads so many items; each from the seed of the run."""
        ...
