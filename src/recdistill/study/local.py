"""Jobs in processes of this machine.

Processes are forked from a server that has done nothing but import. So each starts at once, its peak of memory is its
own, and a long grid runs the code that was there when it began, whatever is edited meanwhile.
"""

import os
import sys
import time
import traceback
from collections.abc import Sequence
from dataclasses import dataclass, field
from multiprocessing import connection, get_context
from multiprocessing.process import BaseProcess
from types import TracebackType

import torch

from recdistill.errors import require_at_least
from recdistill.progress import SILENT
from recdistill.study.grid import Job, Workers, work

QUIET_SECONDS = 60.0
"""Between two lines of one job."""
LONGEST_ERROR = 4000
"""Characters of a traceback that are kept; more might not fit into a pipe that nobody reads yet."""


@dataclass(frozen=True)
class _Running:
    job: Job
    process: BaseProcess
    errors: connection.Connection

    def error(self) -> str | None:
        """Return why the process ended, or ``None`` where it ended well."""
        self.process.join()
        if self.process.exitcode == 0:
            return None
        try:
            return str(self.errors.recv())
        except EOFError:  # killed, for memory perhaps: it could not say why
            return f"the process ended with exit code {self.process.exitcode} and wrote no result"


@dataclass
class LocalProcesses(Workers):
    """Workers on this machine, one process a job.

    Args:
        size: jobs at a time, at least 1.
        threads: of torch, per job, at least 1.
        talk: let every job print, at most once a minute, where it stands.
        preload: modules that the server imports beside those of the jobs, so that edits to them do not reach the jobs.
    """

    size: int = 1
    threads: int = 1
    talk: bool = False
    preload: Sequence[str] = ()
    _running: list[_Running] = field(default_factory=list, init=False, repr=False)

    def __post_init__(self) -> None:
        """Check every field."""
        require_at_least(1, workers=self.size, threads=self.threads)

    def submit(self, job: Job) -> None:
        """Begin a job."""
        context = get_context("forkserver")
        context.set_forkserver_preload([__name__, type(job).__module__, *self.preload])
        receiver, sender = context.Pipe(duplex=False)
        given = (job, self.threads, self.talk, sender, dict(os.environ))
        process = context.Process(target=_process, args=given)
        process.start()
        sender.close()
        self._running.append(_Running(job, process, receiver))

    def wait(self) -> list[tuple[Job, str | None]]:
        """Return jobs that have ended, at least one, each with its error."""
        connection.wait([one.process.sentinel for one in self._running])
        ended = [one for one in self._running if not one.process.is_alive()]
        self._running = [one for one in self._running if one not in ended]
        return [(one.job, one.error()) for one in ended]

    def __enter__(self) -> "LocalProcesses":
        """Return the workers."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop what still runs."""
        for one in self._running:
            one.process.terminate()
        for one in self._running:
            one.process.join()
        self._running = []


def _process(job: Job, threads: int, talk: bool, errors: connection.Connection, environment: dict[str, str]) -> None:
    """Do one job; the body of a worker process."""
    os.environ.update(environment)  # the server keeps the one it was started with
    torch.set_num_threads(threads)
    try:
        work(job, Reporter(job.key) if talk else SILENT)
    except Exception:  # reported to the parent, which goes on with other jobs
        if talk:
            traceback.print_exc()
        errors.send(traceback.format_exc()[-LONGEST_ERROR:])
        sys.exit(1)


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
