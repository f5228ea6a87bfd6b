"""recdistill plan, and what recdistill distill does with a saved plan.

Not proved: that seconds and megabytes come as foretold; see ``benchmarks/plan_error.py``.
"""

from typing import Any

import pytest
from command_line import TD3, TEACHER, call, entries

from recdistill.cli.plan import show_plan
from recdistill.data.distilled import DistilledDataset
from recdistill.storage import read_json
from recdistill.study.plan import Plan, Stage

STUDENT = ("--recipe", "epochs=2", "--recipe", "steps_per_epoch=2")
RUN = (*TD3, *TEACHER)


@pytest.fixture(scope="module")
def saved(line, tmp_path_factory):
    """A plan of a run whose teacher is not in the cache, as file and as what was printed."""
    folder = tmp_path_factory.mktemp("plan")
    given = ("--save", folder / "plan.json", "--cache", folder / "cache", "--trainings", "3", "--json")
    result = call("plan", line["prepared"], *RUN, *STUDENT, *given)
    assert result.code == 0, result.err
    assert entries(folder) == ["plan.json"]  # nothing of the calibration is kept
    return folder / "plan.json", result.json


def test_the_plan_is_printed_as_it_is_saved(saved):
    path, printed = saved
    assert printed == read_json(path)
    assert [stage["stage"] for stage in printed["stages"]] == ["teacher", "distill", "full", "distilled"]
    assert all(stage["predicted_s"] > 0 and stage["predicted_mb"] > 100 for stage in printed["stages"])
    assert (printed["trainings"], printed["student"]["config"]["embedding_dim"]) == (3, 8)  # the teacher's shape
    assert printed["stages"][2]["basis"]["epochs"][2] <= 2
    assert printed["stages"][1]["basis"]["judgements"] == 3
    assert "distill" not in printed["settings"]


def test_the_table_names_every_stage_and_says_when_it_pays(saved, capsys):
    show_plan(Plan.load(saved[0]))
    shown = capsys.readouterr().out
    for piece in ("teacher", "distillation", "a model on all data", "a model on the distilled rows", "outer steps"):
        assert piece in shown
    assert "3 trainings take" in shown
    assert "pay" in shown


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        (
            {},
            "Distilling pays after 5 trainings (likely 2 to never).\n2 trainings take 16 s on all data, and 34 s with",
        ),
        ({"break_even_range": (2, 25), "trainings": 1}, "(likely 2 to 25).\n1 training takes 8.0 s on all data"),
        ({"break_even": None}, "does not pay in time"),
        ({"slowdown": 2.04}, "by a factor of 2.0"),
        ({"stages": None}, "cannot be said"),
    ],
)
def test_what_is_said_of_a_plan(changes, said, saved, capsys):
    def stage(name: Any, seconds: float | None, **more: Any) -> Stage:
        values = dict.fromkeys(("predicted_s", "low_s", "high_s"), seconds)
        return Stage(stage=name, **values, predicted_mb=100.0, **{"basis": {"rule": "known"}} | more)

    stages = {"teacher": 10.0, "distill": 20.0, "full": 8.0, "distilled": 2.0}
    if "stages" in changes:
        changes, stages = {}, stages | {"distill": None}
    update = {
        "stages": tuple(stage(name, seconds, done=name == "teacher") for name, seconds in stages.items()),
        "break_even": 5,
        "break_even_range": (2, None),
        "trainings": 2,
        "slowdown": 1.0,
    }
    show_plan(Plan.load(saved[0]).model_copy(update=update | changes))
    shown = capsys.readouterr().out
    assert said in shown
    assert "nothing to do" in shown
    assert ("Other work" in shown) == ("slowdown" in changes)


def test_distill_keeps_the_plan_beside_what_came(saved, line, here):
    path, printed = saved
    arguments = (line["prepared"], "out", *RUN, "--plan", path)
    assert call("distill", *arguments, "--cache", "cache").code == 0
    manifest = DistilledDataset.load(here / "out").manifest
    found = {stage["stage"]: stage for stage in manifest.predicted["stages"]}
    assert {**manifest.predicted, "stages": 0} == {**printed, "stages": 0}
    assert found["teacher"]["actual_s"] == manifest.seconds["teacher"]
    assert 100 < found["teacher"]["actual_mb"] <= manifest.peak_mb
    assert found["distill"]["actual_s"] == manifest.seconds["distill"]
    assert found["full"]["actual_s"] is None
    plain, planned = (DistilledDataset.load(each).manifest.files for each in (line["td3"], here / "out"))
    assert plain["data.safetensors"] == planned["data.safetensors"]
    assert DistilledDataset.load(line["td3"]).manifest.predicted is None

    assert call("distill", *arguments, "--cache", "cache", "--overwrite").code == 0  # the teacher is there now
    again = DistilledDataset.load(here / "out").manifest
    found = {stage["stage"]: stage for stage in again.predicted["stages"]}
    assert (found["teacher"]["actual_mb"], found["distill"]["actual_mb"]) == (None, again.peak_mb)


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        (("--option", "rank=3"), "is for --option rank 8, and this run has 3; plan again"),
        (("--seed", "1"), "is for --seed 0, and this run has 1"),
        (("--teacher-seed", "2"), "is for --teacher-seed 0, and this run has 2"),
        (("--compile",), "is for --compile False, and this run has True"),
    ],
)
def test_a_plan_of_other_settings_is_refused_before_anything_is_done(changes, told, saved, line, here):
    given = ("--plan", saved[0], "--cache", "cache")
    result = call("distill", line["prepared"], "out", *RUN, *changes, *given)
    assert result.code == 2
    assert result.complaint.startswith(f"recdistill: error: {saved[0]}: {told}")
    assert entries(here) == []


def test_a_plan_of_another_split_or_teacher_is_refused(saved, line, here):
    other = call("distill", line["other"], "out", *RUN, "--plan", saved[0]).complaint
    assert "is for another prepared dataset or split; plan again" in other
    missing = call("distill", line["prepared"], "out", *RUN, "--plan", "nosuch").complaint
    assert "nosuch: is missing" in missing
    given = call("distill", line["prepared"], "out", *TD3, "--teacher", line.teacher, "--plan", saved[0])
    assert given.code == 0, given.err  # the same teacher, in another place


def test_a_plan_takes_no_place_but_that_of_a_plan(saved, line, here):
    command = ("plan", line["prepared"], *RUN)
    (here / "notes").write_text("mine")
    assert "exists already" in call(*command, "--save", "notes").complaint
    assert "is not JSON" in call(*command, "--save", "notes", "--overwrite").complaint
    assert "is a folder" in call(*command, "--save", ".").complaint
    assert "notes/p: cannot be written" in call(*command, "--save", "notes/p").complaint
    assert (here / "notes").read_text() == "mine"


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("--method", "td4"), "did you mean 'td3'"),
        (("--items", "givn"), "did you mean 'given'"),
        (("--model", "sasrek"), "did you mean 'sasrec'"),
        (("--model-option", "embed=3"), "--model-option: 'embed'"),
        (("--recipe", "epochs=0"), "--recipe epochs: 0 must be 1 or more"),
        (("--trainings", "0"), "--trainings: '0'"),
        (("--budget", "5000x5"), "at most 40"),
        (("--option", "pool=[7,9]"), "starts after the teacher's last epoch 1"),
    ],
)
def test_a_mistake_is_one_line(arguments, told, line, here):
    run = (*TD3[2:], *TEACHER) if arguments[0] == "--budget" else RUN
    if arguments[-1].startswith("pool"):
        run = tuple(word for word in run if word != "pool=[0,1]")
        run = ("--budget", "3x6", *TEACHER)
    result = call("plan", line["prepared"], *run, *arguments)
    assert result.code == 2, result.err
    assert told in result.err.splitlines()[-1]
    assert "Traceback" not in result.err
