"""Jobs on a real Ray cluster of this machine do what they do in local processes, cells bit for bit.

Not proved: clusters of several machines. A path that means one place here and another there stands in for them.
"""

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch

from recdistill.data.prepared import PrepareSpec, prepare
from recdistill.demo import generate
from recdistill.errors import OptionError
from recdistill.study.cells import Cell, ModelSpec, TrainingSet
from recdistill.study.cluster import RayCluster, host_and_port
from recdistill.study.grid import run_grid
from recdistill.study.local import LocalProcesses
from recdistill.training.fit import TrainingRecipe
from reference.jobs import Elsewhere, Tiny, order

CLUSTER = """
import sys, ray
print(ray.init(address="local", num_cpus=2, include_dashboard=False).address_info["gcs_address"], flush=True)
sys.stdin.read()
"""
"""A program with a cluster of its own, which ends with its input."""
HERE = os.getpid()


@pytest.fixture(scope="module", autouse=True)
def environment() -> Iterator[None]:
    """No token in the home folder, and no word to anybody."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_AUTH_MODE", "disabled")
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        yield


@pytest.fixture(scope="module")
def cluster() -> Iterator[str]:
    """Address of a cluster of two cores that is not ours."""
    pytest.importorskip("ray")
    pipe = subprocess.PIPE
    program = subprocess.Popen(
        [sys.executable, "-c", CLUSTER], stdin=pipe, stdout=pipe, stderr=subprocess.DEVNULL, text=True
    )
    with program:
        assert program.stdin is not None
        assert program.stdout is not None
        yield program.stdout.readline().strip()
        program.stdin.close()


def answers(address: str) -> bool:
    """Return whether a cluster runs at an address."""
    try:
        socket.create_connection(host_and_port(address), timeout=5).close()
    except OSError:
        return False
    return True


def gone(process: int, tries: int = 100) -> bool:
    """Return whether a process ends within some tenths of a second."""
    for _ in range(tries):
        try:
            os.kill(process, 0)
        except ProcessLookupError:
            return True
        time.sleep(0.1)
    return False


@pytest.mark.slow
def test_a_cluster_and_local_processes_give_the_same_cells(cluster: str, tmp_path: Path) -> None:
    prepare(generate(tmp_path / "raw", 0), tmp_path / "prepared", PrepareSpec(name="tiny"))
    data = TrainingSet.open("full", tmp_path / "prepared")
    small = {"embedding_dim": 8, "num_blocks": 1, "num_heads": 1, "inner_dim": 8, "dropout": 0.2}
    made = {
        name: [
            Cell(
                folder=tmp_path / name,
                prepared=tmp_path / "prepared",
                data=data,
                model=ModelSpec(name="small", model="sasrec", config=small),
                seed=seed,
                recipe=TrainingRecipe(epochs=2, steps_per_epoch=4, batch_size=32, patience=2),
                max_seq_len=10,
            )
            for seed in range(2)
        ]
        for name in ("local", "ray")
    }
    for name, workers in (("local", LocalProcesses(size=2)), ("ray", RayCluster(cluster))):
        outcome = run_grid(made[name], workers)
        assert (len(outcome.done), outcome.failed, outcome.left) == (2, {}, [])
    for one, other in zip(*made.values(), strict=True):
        for protocol in ("full", "uni100"):
            assert torch.equal(one.ranks(protocol), other.ranks(protocol))
        mine, theirs = one.result(), other.result()
        for cost in ("seconds", "start_mb", "peak_mb"):
            assert mine.pop(cost) > 0
            assert theirs.pop(cost) > 0
        assert mine == theirs
    assert not torch.equal(made["ray"][0].ranks("full"), made["ray"][1].ranks("full"))


@pytest.mark.slow
def test_a_failure_stops_only_what_needs_it_and_every_job_has_a_process_and_todays_environment(
    cluster: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RECDISTILL_TEST", "today")
    base = Tiny("base", tmp_path)
    bad, killed, idle = (Tiny(does, tmp_path, does=does) for does in ("fail", "be killed", "write nothing"))
    jobs = [Tiny("a", tmp_path, (base,)), bad, Tiny("waits", tmp_path, (bad,)), killed, idle]
    outcome = run_grid(jobs, RayCluster(cluster, jobs=2))
    assert sorted(outcome.done) == ["a", "base"]
    assert outcome.failed.keys() == {"fail", "be killed", "write nothing"}
    assert outcome.failed["fail"].strip().endswith("ValueError: fail cannot be done")
    assert "the process ended and wrote no result" in outcome.failed["be killed"]
    assert (tmp_path / "killed.txt").read_text() == "be killed\n"
    assert outcome.failed["write nothing"] == "it ended and wrote no result"
    assert outcome.left == ["waits"]
    assert order(tmp_path) == ["base", "a"]
    processes, said = zip(*((tmp_path / f"{key}.txt").read_text().split() for key in ("base", "a")), strict=True)
    assert len({*processes, str(HERE)}) == 3
    assert said == ("today", "today")


@dataclass(frozen=True)
class Told(Tiny):
    """A job that says what it finds, and then takes its time."""

    def run(self, progress: object) -> None:
        variable = os.environ.get("NO_MATTER_OF_JOBS")
        text = f"{os.getpid()} {os.getppid()} {Path.cwd()} {torch.get_num_threads()} {variable}"
        (self.folder / "part").write_text(text)
        (self.folder / "part").replace(self.folder / "told")
        time.sleep(60)


@pytest.mark.slow
def test_a_folder_that_is_not_shared_is_named(cluster: str, tmp_path: Path) -> None:
    (tmp_path / "there").mkdir()
    jobs = [Elsewhere("a", tmp_path, there="nowhere"), Elsewhere("b", tmp_path)]
    failed = run_grid(jobs, RayCluster(cluster, patience=0.5)).failed
    assert f"{socket.gethostname()} does not see {tmp_path / 'nowhere'}; share it" in failed["a"]
    assert f"no result that is seen here; share {tmp_path / 'here'}" in failed["b"]
    assert (tmp_path / "there" / "b.txt").exists()


def told(folder: Path) -> list[str]:
    """Return what a job tells, once it does."""
    for _ in range(600):
        if (folder / "told").exists():
            return (folder / "told").read_text().split()
        time.sleep(0.1)
    raise TimeoutError("the job told nothing")


def interrupt(address: str, folder: Path, threads: int) -> list[str]:
    """Run a long job, press Control-C once it has told what it finds, and return that."""

    def press() -> None:
        told(folder)
        os.kill(HERE, signal.SIGINT)

    before = signal.getsignal(signal.SIGTERM)
    thread = threading.Thread(target=press, daemon=True)
    thread.start()
    with pytest.raises(KeyboardInterrupt):
        run_grid([Told("long", folder)], RayCluster(address, jobs=1, threads=threads))
    thread.join()
    assert signal.getsignal(signal.SIGTERM) is before
    return told(folder)


@pytest.mark.slow
def test_an_interrupt_stops_the_job_and_leaves_a_cluster_that_is_not_ours(
    cluster: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("NO_MATTER_OF_JOBS", "1")
    process, parent, place, threads, variable = interrupt(cluster, tmp_path, threads=2)
    assert (place, threads, variable) == (str(tmp_path), "2", "None")
    assert gone(int(process))
    assert not gone(int(parent), tries=1)
    assert answers(cluster)


@pytest.mark.slow
def test_an_interrupt_ends_a_cluster_that_is_ours(tmp_path: Path) -> None:
    ray = pytest.importorskip("ray")
    more = (os.cpu_count() or 1) + 1
    process, parent, _, threads, _ = interrupt("local", tmp_path, threads=more)
    assert int(threads) == more
    assert not ray.is_initialized()
    assert gone(int(process))
    assert gone(int(parent))


@pytest.mark.slow
def test_a_connection_of_the_program_is_used_and_kept(cluster: str, tmp_path: Path) -> None:
    ray = pytest.importorskip("ray")
    ray.init(address=cluster, log_to_driver=False, logging_level="ERROR")
    try:
        for threads, jobs, size in ((1, None, 2), (2, None, 1), (1, 5, 5)):
            with RayCluster("local", jobs=jobs, threads=threads) as workers:
                assert workers.size == size
        with RayCluster("local", threads=2) as workers:
            workers.submit(Told("long", tmp_path))
            process, *_ = told(tmp_path)
            assert ray.available_resources().get("CPU", 0) == 0
        assert gone(int(process))
        assert ray.is_initialized()
        with pytest.raises(OptionError, match=r"--threads: 3 is more than any machine has cores: \[2\]"):
            run_grid([Tiny("b", tmp_path)], RayCluster("local", threads=3))
        assert ray.is_initialized()
    finally:
        ray.shutdown()
    with pytest.raises(OptionError, match="--threads: 3"):
        run_grid([Tiny("b", tmp_path)], RayCluster(cluster, threads=3))
    assert not ray.is_initialized()


def test_a_cluster_that_is_not_there_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("ray")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        nobody = f"127.0.0.1:{free.getsockname()[1]}"
    with pytest.raises(OptionError, match=rf"--ray: '{nobody}' .*refused.*start a cluster"), RayCluster(nobody):
        pass
    monkeypatch.setenv("RAY_ADDRESS", nobody)  # what auto asks first
    with pytest.raises(OptionError, match=rf"--ray: '{nobody}' .*refused.*start a cluster"), RayCluster("auto"):
        pass


def test_no_ray_is_said_with_its_cure(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(OptionError, match=r"--ray.*pip install 'recdistill\[ray\]'"), RayCluster():
        pass


@pytest.mark.parametrize("address", ["ray://here:10001", "here", "here:", ":6379", "here:70000", "here:1/x", ""])
def test_what_is_no_address_is_refused(address: str) -> None:
    with pytest.raises(OptionError, match=r"--ray.*HOST:PORT"):
        RayCluster(address)


def test_the_parts_of_an_address() -> None:
    assert host_and_port("10.0.0.7:6379") == ("10.0.0.7", 6379)
    assert host_and_port("[fd00::7]:6379") == ("fd00::7", 6379)


@pytest.mark.parametrize(("field", "option"), [("jobs", "workers"), ("threads", "threads"), ("patience", "patience")])
def test_a_number_that_cannot_be_is_refused(field: str, option: str) -> None:
    with pytest.raises(OptionError, match=f"{option}: -1 must be"):
        RayCluster(**{field: -1})


def test_neither_ray_nor_torch_is_imported_before_it_is_needed() -> None:
    code = "import sys, recdistill.study.cluster; sys.exit(sorted({'ray', 'torch'} & set(sys.modules)) or None)"
    subprocess.run([sys.executable, "-c", code], check=True)
