"""Jobs on a Ray cluster, for grids that one machine does not finish; needs the extra ``ray``.

Ray only carries the jobs: their order, what is done already and what failed is the grid's business, as with processes
of this machine. Results are files. So all machines of a cluster must

- see the folders of jobs, what they read and what they write, under the same paths, on a file system with locks;
- have this version of the library, and the same versions of Python and Ray, installed.

A machine that does not see the folder of a job says so, and the job has failed.
"""

import os
import platform
import re
import signal
import socket
import sys
import time
import traceback
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib import import_module
from types import TracebackType
from typing import Any

from recdistill.errors import OptionError, require_at_least
from recdistill.progress import SILENT
from recdistill.study.grid import Job, Workers, work

CARRIED = ("RECDISTILL_", "OMP_", "MKL_")
"""Environment variables that jobs get begin so; others, such as PATH, are those of the machine."""
ANSWER_SECONDS = 10.0
"""For a cluster to answer; Ray itself would try for a quarter of an hour before it says that there is none."""
STORE_BYTES = 100 * 2**20
"""Shared memory of a cluster of ours, where Ray would take a third of the machine's; jobs pass files, not objects."""


@dataclass
class RayCluster(Workers):
    """Workers of a Ray cluster, one process a job.

    A job's peak of memory is that of its process, as elsewhere, but the process holds Ray too: about 170 MB.

    Args:
        address: ``local`` starts a cluster on this machine that ends with the grid; ``auto`` joins the one that runs
            here or that ``RAY_ADDRESS`` names; ``HOST:PORT`` joins that one. A cluster that was joined is left running.
            Where the program is connected to a cluster already, it stays so and that one is used.
        jobs: at a time, at least 1; as many as the cluster has cores for at the start, when ``None``.
        threads: of torch, per job, and cores that a job reserves; at least 1.
        patience: seconds until a result that was written elsewhere must be seen here; shared file systems are slow.

    Raises:
        OptionError: a field is wrong; when entered, Ray is not installed, or there is no such cluster, or none of its
            machines has ``threads`` cores.
    """

    address: str = "local"
    jobs: int | None = None
    threads: int = 1
    patience: float = 60.0
    size: int = field(default=1, init=False)
    _ray: Any = field(default=None, init=False, repr=False)
    _task: Any = field(default=None, init=False, repr=False)
    _joined: bool = field(default=False, init=False, repr=False)
    _running: dict[Any, Job] = field(default_factory=dict, init=False, repr=False)

    def __post_init__(self) -> None:
        """Check every field."""
        require_at_least(1, workers=self.jobs, threads=self.threads)
        require_at_least(0, patience=self.patience)
        if self.address not in ("local", "auto"):
            host_and_port(self.address)

    def submit(self, job: Job) -> None:
        """Begin a job."""
        job.path.parent.mkdir(parents=True, exist_ok=True)  # a machine that shares this folder sees it
        carried = {name: value for name, value in os.environ.items() if name.startswith(CARRIED)}
        packed = self._ray.cloudpickle.dumps(job)
        self._running[self._task.remote(packed, self.threads, carried, sys.path, os.getcwd())] = job

    def wait(self) -> list[tuple[Job, str | None]]:
        """Return jobs that have ended, at least one, each with its error."""
        (ended,), _ = self._ray.wait(list(self._running), num_returns=1)
        job = self._running.pop(ended)
        return [(job, self._error(ended, job))]

    def __enter__(self) -> "RayCluster":
        """Join the cluster."""
        self._ray = import_ray()
        self._joined = not self._ray.is_initialized()
        try:
            if self._joined:
                connect(self._ray, self.address, cores=None if self.jobs is None else self.jobs * self.threads)
            cores = [int(node["Resources"].get("CPU", 0)) for node in self._ray.nodes() if node["Alive"]]
            if max(cores, default=0) < self.threads:
                raise OptionError("--threads", self.threads, fix=f"is more than any machine has cores: {cores}")
            self.size = self.jobs or sum(count // self.threads for count in cores)
            self._task = self._ray.remote(num_cpus=self.threads, max_calls=1, max_retries=0)(_process)
        except BaseException:
            self._leave()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop what still runs, and leave the cluster, which ends where it was ours."""
        running, self._running = list(self._running), {}
        try:
            for one in running:
                self._ray.cancel(one, force=True)
            if running:
                self._ray.wait(running, num_returns=len(running), timeout=ANSWER_SECONDS)
        finally:
            self._leave()

    def _leave(self) -> None:
        if self._joined:
            self._ray.shutdown()

    def _error(self, reference: Any, job: Job) -> str | None:
        """Return why a job failed, or ``None`` where it did well."""
        try:
            host, error = self._ray.get(reference)
        except self._ray.exceptions.RayError as died:  # killed, for memory perhaps: it could not say why
            return f"{died}\nthe process ended and wrote no result ({type(died).__name__})"
        if error is None and not self._seen(job):
            return f"it wrote no result that is seen here; share {job.path.parent} with {host} under the same path"
        return error

    def _seen(self, job: Job) -> bool:
        """Return whether a result can be seen here, in good time."""
        until = time.monotonic() + self.patience
        while not job.done():
            if time.monotonic() >= until:
                return False
            time.sleep(0.2)
        return True


def import_ray() -> Any:
    """Return the package.

    Raises:
        OptionError: it is not installed.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # a grid tells nobody that it runs
    try:
        return import_module("ray")
    except ImportError:
        fix = "is not installed; run: pip install 'recdistill[ray]', or leave --ray out"
        raise OptionError("--ray", "ray", fix=fix) from None


def connect(ray: Any, address: str, *, cores: int | None = None) -> None:
    """Join a cluster, or start one on this machine.

    Args:
        ray: the package.
        address: ``local``, ``auto`` or ``HOST:PORT``.
        cores: of a cluster that is started; those of the machine when ``None``.

    Raises:
        OptionError: there is no such cluster.
    """
    quiet = {"log_to_driver": False, "logging_level": "ERROR"}
    found = os.environ.get("RAY_ADDRESS") or address if address == "auto" else address
    before = signal.getsignal(signal.SIGTERM)
    try:
        if found == "local":
            own = {"num_cpus": cores, "include_dashboard": False, "object_store_memory": STORE_BYTES}
            ray.init(address=found, **own, **quiet)
            return
        if found != "auto":
            socket.create_connection(host_and_port(found), timeout=ANSWER_SECONDS).close()
        ray.init(address=found, **quiet)
    except (OSError, RuntimeError, ray.exceptions.RayError) as error:  # nobody there, of another version, or locked
        reason = str(error).strip().partition("\n")[0]
        fix = f"cannot be joined ({reason}); start a cluster, or set RAY_AUTH_MODE to what it was started with"
        raise OptionError("--ray", found, fix=fix) from None
    finally:
        if before is not None and signal.getsignal(signal.SIGTERM) is not before:
            signal.signal(signal.SIGTERM, before)  # Ray puts its own, which would change our exit code


def host_and_port(address: str) -> tuple[str, int]:
    """Return the parts of an address of a cluster.

    Raises:
        OptionError: it is none.
    """
    match = re.fullmatch(r"\[?([^/\[\]]+?)\]?:(\d{1,5})", address)
    if match is None or not int(match[2]) < 2**16:
        raise OptionError("--ray", address, fix="is no address of a cluster; give local, auto or HOST:PORT")
    return match[1], int(match[2])


def _process(
    packed: bytes, threads: int, environment: Mapping[str, str], path: Sequence[str], place: str
) -> tuple[str, str | None]:
    """Do one job; return the machine and the error. The body of a task of the cluster, in a process of its own.

    Args:
        packed: the job; unpacked here, because it may be of a module that only ``path`` leads to.
        threads: of torch.
        environment: variables to set.
        path: where the grid finds modules.
        place: the grid's working directory, for relative paths; entered where it is there.
    """
    host = platform.node()
    try:
        os.environ.update({"OMP_NUM_THREADS": str(threads), **environment})  # before torch comes and reads them
        sys.path.extend(entry for entry in path if entry not in sys.path)
        if os.path.isdir(place):
            os.chdir(place)
        return host, _done(import_ray().cloudpickle.loads(packed), threads, host)
    except Exception:  # reported to the grid, which goes on with other jobs
        return host, traceback.format_exc()


def _done(job: Job, threads: int, host: str) -> str | None:
    """Do a job; return what is wrong with the outcome."""
    if not job.path.parent.is_dir():
        return f"{host} does not see {job.path.parent}; share it with all machines under the same path"
    if torch := sys.modules.get("torch"):  # imported with the job; one that comes later reads the variable
        torch.set_num_threads(threads)
    work(job, SILENT)
    return None if job.done() else "it ended and wrote no result"
