"""The grid: order, resuming, failures, time limit, locks. Jobs are tiny and real; every one has its process.

Not proved: that a machine which runs out of memory kills only the job that took it.
"""

import fcntl
import os
import threading
import time
from dataclasses import dataclass
from pathlib import Path

import pytest

from recdistill.errors import OptionError
from recdistill.progress import Progress
from recdistill.study.grid import duration, in_order, run_grid
from recdistill.study.local import LocalProcesses, Reporter
from reference.jobs import Tiny, order


def test_what_is_needed_comes_first_and_the_rest_as_given(tmp_path: Path) -> None:
    base = Tiny("base", tmp_path)
    jobs = [Tiny("z", tmp_path), Tiny("b", tmp_path, (base,)), Tiny("a", tmp_path, (base,)), base]
    assert [job.key for job in in_order(jobs)] == ["z", "base", "b", "a"]
    outcome = run_grid(jobs, LocalProcesses(size=1))
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
        run_grid([Tiny("a", folder), Tiny("b", folder)], LocalProcesses(size=2))
        found = [(folder / f"{key}.txt").read_text().split() for key in "ab"]
        assert found[0][0] != found[1][0]
        assert str(os.getpid()) not in (found[0][0], found[1][0])
        assert [text[1] for text in found] == [value, value]


def test_what_is_finished_is_not_done_again(tmp_path: Path) -> None:
    first = [Tiny("a", tmp_path), Tiny("b", tmp_path)]
    run_grid(first, LocalProcesses(size=1))
    outcome = run_grid([*first, Tiny("c", tmp_path, (first[0],))], LocalProcesses(size=1))
    assert order(tmp_path) == ["a", "b", "c"]
    assert sorted(outcome.done) == ["a", "b", "c"]


@pytest.mark.parametrize(
    ("does", "told"),
    [("fail", "ValueError: bad cannot be done"), ("be killed", "exit code -9"), ("write nothing", "wrote no result")],
)
def test_a_failure_stops_only_what_needs_it(does: str, told: str, tmp_path: Path) -> None:
    bad = Tiny("bad", tmp_path, does=does)
    waits = Tiny("waits", tmp_path, (Tiny("middle", tmp_path, (bad,)),))
    outcome = run_grid([bad, waits, Tiny("good", tmp_path), Tiny("better", tmp_path)], LocalProcesses(size=2))
    assert sorted(outcome.done) == ["better", "good"]
    assert list(outcome.failed) == ["bad"]
    assert told in outcome.failed["bad"]
    assert outcome.left == ["middle", "waits"]


def test_a_failed_job_is_tried_again_next_time(tmp_path: Path) -> None:
    bad = Tiny("bad", tmp_path, does="fail")
    assert run_grid([bad], LocalProcesses(size=1)).failed
    mended = Tiny("bad", tmp_path)
    assert run_grid([mended, Tiny("after", tmp_path, (mended,))], LocalProcesses(size=1)).done == ["bad", "after"]


def test_no_job_is_begun_after_the_time(tmp_path: Path) -> None:
    jobs = [Tiny("a", tmp_path, does="sleep"), Tiny("b", tmp_path), Tiny("c", tmp_path)]
    outcome = run_grid(jobs, LocalProcesses(size=1), minutes=0.5 / 60)
    assert (outcome.done, outcome.left) == (["a"], ["b", "c"])
    assert run_grid(jobs, LocalProcesses(size=1), minutes=0).left == ["b", "c"]


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
    outcome = run_grid([Meets("a", tmp_path, other="b"), Meets("b", tmp_path, other="a")], LocalProcesses(size=2))
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
        outcome = run_grid([job], LocalProcesses(size=1))
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


def test_progress_says_what_ended_and_how_long_the_rest_will_take(tmp_path: Path) -> None:
    told: list[tuple[str, int, int, str]] = []
    jobs = [Tiny("a", tmp_path), Tiny("b", tmp_path, does="fail"), Tiny("c", tmp_path)]
    run_grid(jobs[:1], LocalProcesses(size=1))
    run_grid(jobs, LocalProcesses(size=1), progress=lambda *said: told.append(said))
    assert [(stage, done, total) for stage, done, total, _ in told] == [("jobs", 1, 2), ("jobs", 2, 2)]
    assert told[0][3].startswith("b: FAILED in ")
    assert told[1][3].startswith("c: done in ")
    assert told[1][3].endswith("about 0 s left")


@pytest.mark.parametrize(("seconds", "said"), [(99, "99 s"), (120, "2 min"), (5_990, "100 min"), (9_000, "2.5 h")])
def test_times_are_said_as_people_say_them(seconds: float, said: str) -> None:
    assert duration(seconds) == said


@pytest.mark.parametrize("option", ["size", "threads"])
def test_no_workers_are_refused(option: str) -> None:
    with pytest.raises(OptionError, match="workers" if option == "size" else "threads"):
        LocalProcesses(**{option: 0})
