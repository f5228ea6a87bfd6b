"""A run that is killed or interrupted continues with --resume to the same bytes, and leaves one hidden state file.

The kill comes right after the state of the first epoch was written, so nothing here depends on how fast a machine is.
"""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from command_line import TD3, TEACHER, call, entries

from recdistill.training.resume import RunState

KILLED = """
import os, signal, sys
import torch
from recdistill.cli import run
from recdistill.training.resume import RunState
save = RunState.save
def save_and_die(self, path):
    save(self, path)
    if path.name.startswith(".out."):
        os.kill(os.getpid(), signal.SIGKILL)
RunState.save = save_and_die
torch.set_num_threads(1)
sys.exit(run(sys.argv[1:]))
"""


@pytest.fixture
def interrupted(monkeypatch):
    """Ctrl-C, as often as it is asked for, after the state of an epoch was written."""
    save = RunState.save

    def stop(state: RunState, path: Path) -> None:
        save(state, path)
        if path.name.startswith(".out."):
            raise KeyboardInterrupt

    def set_on(*, on: bool) -> None:
        monkeypatch.setattr(RunState, "save", stop if on else save)

    return set_on


def test_td3_killed_after_an_epoch_resumes_to_the_same_bytes(line, here):
    arguments = ["distill", str(line["prepared"]), "out", *TD3, *TEACHER]
    killed = subprocess.run(
        [sys.executable, "-c", KILLED, *arguments],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
    )
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    (state,) = entries(here)
    assert state.startswith(".out.")
    assert state.endswith(".state")

    complaint = call(*arguments).complaint  # without --resume
    assert complaint.startswith(f"recdistill: error: {state}: is the state of an unfinished run")
    assert "pass --resume" in complaint

    resumed = call(*arguments, "--resume", "--json")
    assert (resumed.code, resumed.err) == (0, "")
    assert entries(here) == ["out"]
    assert (here / "out" / "data.safetensors").read_bytes() == (line["td3"] / "data.safetensors").read_bytes()
    assert resumed.json["parameters"] == line.printed["td3"]["parameters"]


@pytest.mark.parametrize("times", [1, 2])
def test_train_interrupted_resumes_to_the_same_weights(times, line, here, interrupted):
    arguments = ["train", line["random"], "out", "--valid", line["prepared"], "--recipe", "epochs=4"]
    assert call(*arguments[:2], "whole", *arguments[3:]).code == 0
    interrupted(on=True)
    for turn in range(times):
        stopped = call(*arguments, *(["--resume"] if turn else []))
        assert stopped.code == 1
        assert stopped.complaint == (
            "recdistill: interrupted; repeat the command with --resume to continue where it stopped"
        )
        assert len(entries(here)) == 2
    interrupted(on=False)
    assert call(*arguments).code == 2  # the state is not thrown away unasked
    assert call(*arguments, "--resume").err == ""
    assert entries(here) == ["out", "whole"]
    weights = [(here / name / "model.safetensors").read_bytes() for name in ("out", "whole")]
    assert weights[0] == weights[1]


@pytest.mark.parametrize(
    "other",
    [
        ["--seed", "1"],
        ["--recipe", "learning_rate=0.01"],
        ["--items", "given"],
        ["--valid", "@prepared"],
        ["--max-seq-len", "5"],
    ],
)
def test_a_run_with_other_settings_does_not_continue_it(other, line, here, interrupted):
    arguments = ["train", line["random"], "out", "--recipe", "epochs=3"]
    interrupted(on=True)
    call(*arguments)
    interrupted(on=False)
    changed = [*arguments, *(line[word[1:]] if word.startswith("@") else word for word in other)]
    resumed = call(*changed, "--resume")
    assert resumed.code == 0
    assert "no unfinished run with these settings" in resumed.err
    assert call(*changed[:2], "whole", *changed[3:]).code == 0
    weights = [(here / name / "model.safetensors").read_bytes() for name in ("out", "whole")]
    assert weights[0] == weights[1]


def test_a_run_on_other_rows_of_the_same_method_does_not_continue_it(line, here, interrupted):
    shape = ("--method", "random", "--budget", "3x6", "--seed", "5", "--teacher", line.teacher)
    assert call("distill", line["prepared"], "rows", *shape).code == 0
    interrupted(on=True)
    assert call("train", line["random"], "out", "--recipe", "epochs=3").code == 1
    interrupted(on=False)
    assert call("train", "rows", "out", "--recipe", "epochs=3").code == 0  # nothing to continue, nothing in the way
    assert call("train", "rows", "whole", "--recipe", "epochs=3").code == 0
    weights = [(here / name / "model.safetensors").read_bytes() for name in ("out", "whole")]
    assert weights[0] == weights[1]


def test_an_interrupted_teacher_is_continued_by_the_same_command(line, here, monkeypatch):
    monkeypatch.setenv("RECDISTILL_CACHE", str(here / "cache"))
    recipe = [word.replace("epochs=1", "epochs=3") for word in TEACHER]
    arguments = ["distill", line["prepared"], "out", "--method", "random", "--budget", "3x6", *recipe]
    save = RunState.save
    epochs = []

    def stop(state: RunState, path: Path) -> None:
        save(state, path)
        epochs.append(state.epoch)
        if len(epochs) == 1:
            raise KeyboardInterrupt

    monkeypatch.setattr(RunState, "save", stop)
    assert call(*arguments).code == 1
    assert entries(here) == ["cache"]
    assert call(*arguments, "--json").json["sequences"] == 3
    assert epochs == [1, 2, 3]  # the first epoch was not trained again
    assert all(not name.endswith(".partial") for name in entries(here / "cache"))


def test_resume_without_an_unfinished_run_begins_at_the_beginning(line, here):
    result = call("train", line["random"], "out", "--recipe", "epochs=1", "--resume")
    assert result.code == 0
    assert result.err == "recdistill: no unfinished run with these settings; starting from the beginning\n"


@pytest.mark.parametrize("command", ["prepare", "evaluate"])
def test_what_cannot_be_resumed_does_not_say_so(command, line, here, monkeypatch):
    def stop(*arguments: object, **options: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("recdistill.cli.prepare.prepare_dataset", stop)
    monkeypatch.setattr("recdistill.cli.evaluate.evaluate_model", stop)
    folders = {"prepare": (line["log.csv"], "out"), "evaluate": (line["model"], line["prepared"])}
    result = call(command, *folders[command])
    assert result.code == 1
    assert "interrupted" in result.complaint
    assert "--resume" not in result.complaint
    assert entries(here) == []
