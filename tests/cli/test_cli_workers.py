"""What --workers, --threads and --ray ask for. What the workers then do is proved in tests/study."""

import os

import pytest
from cyclopts import App

from recdistill.cli.workers import WorkerOptions, cores
from recdistill.errors import OptionError
from recdistill.study.cluster import RayCluster
from recdistill.study.grid import Workers
from recdistill.study.local import LocalProcesses


def parsed(line: str) -> Workers:
    """Return the workers that a command line asks for."""
    app = App()

    @app.default
    def command(*, options: WorkerOptions = WorkerOptions()) -> Workers:  # noqa: B008 (frozen)
        return options.make()

    made: Workers = app(line.split(), exit_on_error=False, print_error=False, result_action="return_value")
    return made


def test_processes_of_this_machine_unless_a_cluster_is_named() -> None:
    assert parsed("--workers 3 --threads 2") == LocalProcesses(size=3, threads=2)
    assert parsed("--ray local --workers 3 --threads 2") == RayCluster("local", jobs=3, threads=2)
    assert parsed("--ray 10.0.0.7:6379") == RayCluster("10.0.0.7:6379")


def test_every_core_that_is_allowed_gets_its_job(monkeypatch: pytest.MonkeyPatch) -> None:
    assert 1 <= cores() <= (os.cpu_count() or 1)
    monkeypatch.setattr("os.sched_getaffinity", lambda process: set(range(5)), raising=False)
    for threads, jobs in ((1, 5), (2, 2), (6, 1)):
        assert parsed(f"--threads {threads}") == LocalProcesses(size=jobs, threads=threads)
    monkeypatch.delattr("os.sched_getaffinity")
    assert cores() == os.cpu_count()


@pytest.mark.parametrize("option", ["workers", "threads"])
def test_nobody_and_nothing_are_refused(option: str) -> None:
    with pytest.raises(OptionError, match=f"--{option}: 0 must be 1 or more"):
        WorkerOptions(**{option: 0})


def test_what_is_no_cluster_is_refused() -> None:
    with pytest.raises(OptionError, match="--ray: 'yes' is no address of a cluster; give local, auto or HOST:PORT"):
        parsed("--ray yes")
