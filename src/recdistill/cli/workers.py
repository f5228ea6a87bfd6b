"""Options of the processes that do the jobs of a grid, shared by the commands that have one."""

import os
from dataclasses import dataclass

from cyclopts import Parameter

from recdistill.cli.options import Count, dashed
from recdistill.errors import require_at_least
from recdistill.study.cluster import RayCluster
from recdistill.study.grid import Workers
from recdistill.study.local import LocalProcesses


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class WorkerOptions:
    """Where jobs run, and how many at a time."""

    workers: Count | None = None
    """Jobs at a time, a process each; as many as there are cores for when left out."""
    threads: Count = 1
    """Threads of each job."""
    ray: str | None = None
    """Ray cluster that does the jobs: local starts one, auto joins the one that runs, HOST:PORT joins that one."""

    def __post_init__(self) -> None:
        """Check the numbers.

        Raises:
            OptionError: one is less than 1.
        """
        with dashed("workers", "threads"):
            require_at_least(1, workers=self.workers, threads=self.threads)

    def make(self) -> Workers:
        """Return the workers: processes of this machine, or of a Ray cluster.

        Raises:
            OptionError: ``ray`` is no address of a cluster.
        """
        if self.ray is not None:
            return RayCluster(self.ray, jobs=self.workers, threads=self.threads)
        return LocalProcesses(size=self.workers or max(1, cores() // self.threads), threads=self.threads)


def cores() -> int:
    """Return how many cores of this machine the process may use."""
    allowed = getattr(os, "sched_getaffinity", None)  # Linux alone has it
    return len(allowed(0)) if allowed else os.cpu_count() or 1
