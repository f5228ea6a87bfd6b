"""A grid of independent jobs: each in a process of its own, most important first, cut short and continued at will.

A job knows the file of its result and the jobs whose results it reads. What is finished is never done again; a job that
fails stops only those that need it. Two grids may run at once: a job that the other one is doing is waited for.

Processes are forked from a server that has done nothing but import. So each starts at once, its peak of memory is its
own, and a long grid runs the code that was there when it began, whatever is edited meanwhile.
"""

import fcntl
import os
import sys
import time
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from multiprocessing import connection, get_context
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Protocol

import torch

from recdistill.progress import Progress

QUIET_SECONDS = 60.0
"""Between two lines of one job."""
LONGEST_ERROR = 4000
"""Characters of a traceback that are kept; more might not fit into a pipe that nobody reads yet."""


class Job(Protocol):
    """One piece of work whose result is a file."""

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


def run_grid(jobs: Sequence[Job], *, workers: int, threads: int = 1, minutes: float | None = None) -> Outcome:
    """Do the jobs that are not done yet, and all they need; return what became of them.

    Args:
        jobs: most important first.
        workers: jobs at a time, each in a process of its own.
        threads: of torch, per job.
        minutes: begin no job after so long; those that run are finished.
    """
    every = in_order(jobs)
    outcome = Outcome(done=[job.key for job in every if job.done()])
    pending = [job for job in every if job.key not in set(outcome.done)]
    total, started = len(pending), time.monotonic()
    running: list[_Running] = []
    try:
        while pending or running:
            late = minutes is not None and time.monotonic() - started >= 60 * minutes
            while not late and len(running) < workers and (job := _next(pending, outcome)) is not None:
                pending.remove(job)
                running.append(_Running.start(job, threads))
            if not running:
                break
            connection.wait([one.process.sentinel for one in running])
            for one in [one for one in running if not one.process.is_alive()]:
                running.remove(one)
                one.settle(outcome)
                print(f"[{total - len(pending) - len(running)}/{total}] {one.summary(outcome)}", flush=True)
    finally:
        for one in running:
            one.process.terminate()
        for one in running:
            one.process.join()
    outcome.left = [job.key for job in pending]
    return outcome


def _next(pending: Sequence[Job], outcome: Outcome) -> Job | None:
    """Return the first job whose needs are all done."""
    done = set(outcome.done)
    return next((job for job in pending if all(other.key in done for other in job.needs)), None)


@dataclass(frozen=True)
class _Running:
    job: Job
    process: BaseProcess
    errors: connection.Connection
    started: float

    @staticmethod
    def start(job: Job, threads: int) -> "_Running":
        context = get_context("forkserver")
        context.set_forkserver_preload(["recipes.cells"])
        receiver, sender = context.Pipe(duplex=False)
        process = context.Process(target=work, args=(job, threads, sender, dict(os.environ)))
        process.start()
        sender.close()
        return _Running(job, process, receiver, time.monotonic())

    def settle(self, outcome: Outcome) -> None:
        """Enter the end of the process into ``outcome``."""
        self.process.join()
        if self.process.exitcode == 0 and self.job.done():
            outcome.done.append(self.job.key)
            return
        try:
            error = self.errors.recv()
        except EOFError:  # killed, for memory perhaps: it could not say why
            error = f"the process ended with exit code {self.process.exitcode} and wrote no result"
        outcome.failed[self.job.key] = error

    def summary(self, outcome: Outcome) -> str:
        """Return one line about the end of the job."""
        state = "FAILED" if self.job.key in outcome.failed else "done"
        return f"{self.job.key}: {state} in {time.monotonic() - self.started:.0f} s"


def work(job: Job, threads: int, errors: connection.Connection, environment: dict[str, str]) -> None:
    """Do one job, unless another process has done it meanwhile; the body of a worker process."""
    os.environ.update(environment)  # the server keeps the one it was started with
    torch.set_num_threads(threads)
    job.path.parent.mkdir(parents=True, exist_ok=True)
    try:
        with _alone(job.path):
            if not job.done():
                job.run(Reporter(job.key))
    except Exception:  # reported to the parent, which goes on with other jobs
        traceback.print_exc()
        errors.send(traceback.format_exc()[-LONGEST_ERROR:])
        sys.exit(1)


@contextmanager
def _alone(path: Path) -> Iterator[None]:
    """Hold the lock beside ``path``; the system frees it when the process ends, however that comes about."""
    with (path.parent / f".{path.name}.lock").open("w") as stream:
        fcntl.flock(stream, fcntl.LOCK_EX)
        yield


@dataclass
class Reporter:
    """Prints where a job stands, now and then.

    Args:
        key: of the job.
        last: time of the last line.
    """

    key: str
    last: float = field(default_factory=time.monotonic)

    def __call__(self, stage: str, done: int, total: int, note: str = "") -> None:
        """Print, unless it was done just now."""
        if time.monotonic() - self.last >= QUIET_SECONDS:
            self.last = time.monotonic()
            print(f"    {self.key}: {stage} {done}/{total} {note}", flush=True)
