"""A grid of independent jobs: each in a process of its own, most important first, cut short and continued at will.

A job knows the file of its result and the jobs whose results it reads. What is finished is never done again; a job that
fails stops only those that need it. Where the jobs run is the business of a :class:`Workers`, such as
:class:`~recdistill.study.local.LocalProcesses`.
"""

import fcntl
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Protocol, runtime_checkable

from recdistill.progress import SILENT, Progress

STAGE = "jobs"
"""Stage under which a grid reports."""


@runtime_checkable
class Job(Protocol):
    """One piece of work whose result is a file. It can be pickled, because it may run in another process."""

    @property
    def key(self) -> str:
        """Its name, unique, and the same whenever its result is the same."""
        ...

    @property
    def path(self) -> Path:
        """Where its result goes."""
        ...

    @property
    def needs(self) -> Sequence["Job"]:
        """Jobs that must be done before."""
        ...

    def settings(self) -> dict[str, object]:
        """Return what decides the result."""
        ...

    def done(self) -> bool:
        """Return whether the result is there."""
        ...

    def run(self, progress: Progress) -> None:
        """Make the result."""
        ...


class Workers(ABC):
    """Where jobs run: a context manager, whose end stops what still runs."""

    size: int
    """Jobs at a time."""

    @abstractmethod
    def submit(self, job: Job) -> None:
        """Begin a job in a process of its own."""

    @abstractmethod
    def wait(self) -> list[tuple[Job, str | None]]:
        """Return jobs that have ended, at least one, each with its error; ``None`` where it raised none."""

    @abstractmethod
    def __enter__(self) -> "Workers":
        """Take what is needed to run jobs."""

    @abstractmethod
    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop what still runs."""


@dataclass
class Outcome:
    """What became of the jobs of a grid.

    Args:
        done: keys of what is finished, now or before.
        failed: error of each job that failed.
        left: keys of what was not begun, for want of time or of a job that failed.
    """

    done: list[str] = field(default_factory=list)
    failed: dict[str, str] = field(default_factory=dict)
    left: list[str] = field(default_factory=list)


def in_order(jobs: Sequence[Job]) -> list[Job]:
    """Return the jobs and all they need, each once, needed ones first, otherwise in the given order.

    Raises:
        ValueError: two jobs have one key and different settings, so that one would take the other's result.
    """
    found: dict[str, Job] = {}

    def add(job: Job) -> None:
        if job.key not in found:
            for other in job.needs:
                add(other)
        elif found[job.key].settings() != job.settings():
            raise ValueError(f"two jobs are called {job.key} and differ in their settings")
        found.setdefault(job.key, job)

    for job in jobs:
        add(job)
    return list(found.values())


def run_grid(
    jobs: Sequence[Job], workers: Workers, *, minutes: float | None = None, progress: Progress = SILENT
) -> Outcome:
    """Do the jobs that are not done yet, and all they need; return what became of them.

    Args:
        jobs: most important first.
        workers: where they run.
        minutes: begin no job after so long; those that run are finished.
        progress: told after every job how many are done, and in the note which one, in how many seconds, and how long
            the rest will take if it goes on so.
    """
    every = in_order(jobs)
    outcome = Outcome(done=[job.key for job in every if job.done()])
    pending = [job for job in every if job.key not in set(outcome.done)]
    total, started, running = len(pending), time.monotonic(), dict[str, float]()
    with workers:
        while pending or running:
            late = minutes is not None and time.monotonic() - started >= 60 * minutes
            while not late and len(running) < workers.size and (job := _next(pending, outcome)) is not None:
                pending.remove(job)
                running[job.key] = time.monotonic()
                workers.submit(job)
            if not running:
                break
            for job, error in workers.wait():
                _settle(job, error, outcome)
                seconds = time.monotonic() - running.pop(job.key)
                ended = total - len(pending) - len(running)
                left = (time.monotonic() - started) / ended * (total - ended)
                state = "FAILED" if job.key in outcome.failed else "done"
                progress(STAGE, ended, total, f"{job.key}: {state} in {seconds:.0f} s, about {duration(left)} left")
    outcome.left = [job.key for job in pending]
    return outcome


def duration(seconds: float) -> str:
    """Return a time for people: ``40 s``, ``12 min`` or ``3.5 h``."""
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 100 * 60 else f"{seconds / 3600:.1f} h"


def _next(pending: Sequence[Job], outcome: Outcome) -> Job | None:
    """Return the first job whose needs are all done."""
    done = set(outcome.done)
    return next((job for job in pending if all(other.key in done for other in job.needs)), None)


def _settle(job: Job, error: str | None, outcome: Outcome) -> None:
    """Enter the end of a job into ``outcome``."""
    if error is None and job.done():
        outcome.done.append(job.key)
    else:
        outcome.failed[job.key] = error or "it ended and wrote no result"


def work(job: Job, progress: Progress) -> None:
    """Do one job, unless another process is doing it, which is waited for, or has done it meanwhile."""
    job.path.parent.mkdir(parents=True, exist_ok=True)
    with _alone(job.path):
        if not job.done():
            job.run(progress)


@contextmanager
def _alone(path: Path) -> Iterator[None]:
    """Hold the lock beside ``path``; the system frees it when the process ends, however that comes about."""
    with (path.parent / f".{path.name}.lock").open("w") as stream:
        fcntl.flock(stream, fcntl.LOCK_EX)
        yield
