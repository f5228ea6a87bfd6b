"""The grid: order, resuming, failures, time limit, locks. Jobs are tiny and real; every one has its process.

Not proved: that a machine which runs out of memory kills only the job that took it.
"""

import fcntl
import os
import signal
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

from recdistill.progress import Progress
from recipes.grid import Job, Reporter, in_order, run_grid


@dataclass(frozen=True)
class Tiny:
    """A job that writes one line: its process, and the time."""

    key: str
    folder: Path
    needs: Sequence[Job] = ()
    does: str = "write"
    option: int = 0

    @property
    def path(self) -> Path:
        return self.folder / f"{self.key}.txt"

    def settings(self) -> dict[str, object]:
        return {"option": self.option}

    def done(self) -> bool:
        return self.path.exists()

    def run(self, progress: Progress) -> None:
        progress("tiny", 1, 1)
        if self.does == "fail":
            raise ValueError(f"{self.key} cannot be done")
        if self.does == "be killed":
            os.kill(os.getpid(), signal.SIGKILL)
        if self.does == "sleep":
            time.sleep(1)
        if self.does != "write nothing":
            with (self.folder / "order.txt").open("a") as stream:
                stream.write(f"{self.key}\n")
            self.path.write_text(f"{os.getpid()} {os.environ.get('RECDISTILL_TEST', '')}")


def order(folder: Path) -> list[str]:
    return (folder / "order.txt").read_text().split()


def test_what_is_needed_comes_first_and_the_rest_as_given(tmp_path: Path) -> None:
    base = Tiny("base", tmp_path)
    jobs = [Tiny("z", tmp_path), Tiny("b", tmp_path, (base,)), Tiny("a", tmp_path, (base,)), base]
    assert [job.key for job in in_order(jobs)] == ["z", "base", "b", "a"]
    outcome = run_grid(jobs, workers=1)
    assert order(tmp_path) == ["z", "base", "b", "a"]
    assert (sorted(outcome.done), outcome.failed, outcome.left) == (["a", "b", "base", "z"], {}, [])


def test_one_name_for_two_settings_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="two jobs are called a"):
        in_order([Tiny("a", tmp_path, option=1), Tiny("a", tmp_path, option=2)])
    assert len(in_order([Tiny("a", tmp_path), Tiny("a", tmp_path)])) == 1


def test_every_job_has_a_process_of_its_own_and_todays_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for value in ("one", "two"):
        monkeypatch.setenv("RECDISTILL_TEST", value)
        folder = tmp_path / value
        run_grid([Tiny("a", folder), Tiny("b", folder)], workers=2)
        found = [(folder / f"{key}.txt").read_text().split() for key in "ab"]
        assert found[0][0] != found[1][0]
        assert str(os.getpid()) not in (found[0][0], found[1][0])
        assert [text[1] for text in found] == [value, value]


def test_what_is_finished_is_not_done_again(tmp_path: Path) -> None:
    first = [Tiny("a", tmp_path), Tiny("b", tmp_path)]
    run_grid(first, workers=1)
    outcome = run_grid([*first, Tiny("c", tmp_path, (first[0],))], workers=1)
    assert order(tmp_path) == ["a", "b", "c"]
    assert sorted(outcome.done) == ["a", "b", "c"]


@pytest.mark.parametrize(
    ("does", "told"),
    [("fail", "ValueError: bad cannot be done"), ("be killed", "exit code -9"), ("write nothing", "wrote no result")],
)
def test_a_failure_stops_only_what_needs_it(does: str, told: str, tmp_path: Path) -> None:
    bad = Tiny("bad", tmp_path, does=does)
    waits = Tiny("waits", tmp_path, (Tiny("middle", tmp_path, (bad,)),))
    outcome = run_grid([bad, waits, Tiny("good", tmp_path), Tiny("better", tmp_path)], workers=2)
    assert sorted(outcome.done) == ["better", "good"]
    assert list(outcome.failed) == ["bad"]
    assert told in outcome.failed["bad"]
    assert outcome.left == ["middle", "waits"]


def test_a_failed_job_is_tried_again_next_time(tmp_path: Path) -> None:
    bad = Tiny("bad", tmp_path, does="fail")
    assert run_grid([bad], workers=1).failed
    mended = Tiny("bad", tmp_path)
    assert run_grid([mended, Tiny("after", tmp_path, (mended,))], workers=1).done == ["bad", "after"]


def test_no_job_is_begun_after_the_time(tmp_path: Path) -> None:
    jobs = [Tiny("a", tmp_path, does="sleep"), Tiny("b", tmp_path), Tiny("c", tmp_path)]
    outcome = run_grid(jobs, workers=1, minutes=0.5 / 60)
    assert (outcome.done, outcome.left) == (["a"], ["b", "c"])
    assert run_grid(jobs, workers=1, minutes=0).left == ["b", "c"]


@dataclass(frozen=True)
class Meets(Tiny):
    """A job that ends when another has begun."""

    other: str = ""

    def run(self, progress: Progress) -> None:
        (self.folder / f"{self.key}.begun").touch()
        for _ in range(600):
            if (self.folder / f"{self.other}.begun").exists():
                self.path.write_text("met")
                return
            time.sleep(0.05)


def test_two_jobs_run_at_a_time(tmp_path: Path) -> None:
    outcome = run_grid([Meets("a", tmp_path, other="b"), Meets("b", tmp_path, other="a")], workers=2)
    assert sorted(outcome.done) == ["a", "b"]


def test_a_job_that_another_grid_is_doing_is_waited_for(tmp_path: Path) -> None:
    job = Tiny("a", tmp_path)
    with (tmp_path / ".a.txt.lock").open("w") as stream:
        fcntl.flock(stream, fcntl.LOCK_EX)

        def other_grid() -> None:
            job.path.write_text("done elsewhere")
            fcntl.flock(stream, fcntl.LOCK_UN)

        timer = threading.Timer(1.0, other_grid)
        timer.start()
        outcome = run_grid([job], workers=1)
        timer.join()
    assert outcome.done == ["a"]
    assert job.path.read_text() == "done elsewhere"
    assert not (tmp_path / "order.txt").exists()


def test_a_reporter_is_quiet_for_a_minute(capsys: pytest.CaptureFixture[str]) -> None:
    report = Reporter("some/job")
    report("distill", 1, 10)
    assert capsys.readouterr().out == ""
    report.last -= 61
    report("distill", 2, 10, "loss 3")
    report("distill", 3, 10)
    assert capsys.readouterr().out == "    some/job: distill 2/10 loss 3\n"
