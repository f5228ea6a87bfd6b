"""Where the students of bi-level methods start."""

from dataclasses import dataclass, field
from functools import cached_property

import torch

from recdistill.bilevel.optimizer import Student
from recdistill.errors import OptionError
from recdistill.models.base import Recommender
from recdistill.rng import Streams, generator_at
from recdistill.training.trajectory import Trajectory

STARTS = ("pool", "random", "fixed")
"""Weights of an early teacher epoch, drawn anew; random weights, drawn anew; one set of random weights for ever."""


@dataclass(frozen=True)
class StudentStarts:
    """Students before their first step.

    Args:
        kind: one of :data:`STARTS`.
        pool: first and last teacher epoch of ``pool``; the last is cut to those there are.
        teacher: whose epochs.
        model: a student of the right shapes, on the right device.
        rng: streams ``pool``, ``start`` and ``fixed start``.

    Raises:
        OptionError: the pool begins after the teacher's last epoch.
    """

    kind: str
    pool: tuple[int, int]
    teacher: Trajectory
    model: Recommender = field(repr=False)
    rng: Streams

    def __post_init__(self) -> None:
        """Check that there is an epoch to start from."""
        if self.kind == "pool" and self.teacher.num_epochs < self.pool[0]:
            raise OptionError(
                "pool",
                self.pool,
                fix=f"starts after the teacher's last epoch {self.teacher.num_epochs}; "
                "train the teacher for more epochs, or start the pool earlier",
            )

    def draw(self, key: int, learners: int = 1) -> Student:
        """Return a student, or several that are trained together; the same ones for the same key.

        Several have each their own weights, except for ``fixed``.
        """
        if self.kind == "pool":
            students = [self._recorded(epoch) for epoch in self._epochs(key, learners)]
        elif self.kind == "random":
            generator = generator_at(self.rng.integer("start"), key)
            students = [self._random(generator) for _ in range(learners)]
        else:
            students = [self._random(self.rng.torch("fixed start"))] * learners
        return students[0] if learners == 1 else Student.stack(students)

    def _epochs(self, key: int, learners: int) -> list[int]:
        first, last = self.pool
        generator = generator_at(self.rng.integer("pool"), key)
        last = min(last, self.teacher.num_epochs)
        epochs: list[int] = torch.randint(first, last + 1, (learners,), generator=generator).tolist()
        return epochs

    def _recorded(self, epoch: int) -> Student:
        device = self.model.device
        weights = self.teacher.weights(epoch)
        return Student.of({name: value.to(device) for name, value in weights.items() if name in self._trained})

    def _random(self, generator: torch.Generator) -> Student:
        fresh = self.model.fresh(generator).state_dict()
        return Student.of({name: value for name, value in fresh.items() if name in self._trained})

    @cached_property
    def _trained(self) -> frozenset[str]:
        return frozenset(name for name, value in self.model.named_parameters() if value.requires_grad)
