"""Jobs on a generated log: what they write, that they resume, that other settings are noticed, and how they measure.

Not proved: that a peak of memory is right; only that it is that of a process which did nothing else.
"""

from dataclasses import replace

import numpy as np
import pytest
import torch
from tiny_grid import LENGTH, do

from recdistill.data.distilled import DistilledDataset
from recdistill.evaluation.metrics import per_case
from recdistill.progress import SILENT
from recdistill.storage import read_json, write_json
from recdistill.study.grid import run_grid
from recdistill.study.local import LocalProcesses
from recipes.cells import farzi, full, refined, selector, student
from recipes.datasets import Dataset
from recipes.jobs import Artifact, Student, Teacher
from recipes.places import Place, Prepare, agrees
from recipes.plans import EqualBytes, Method, Prefix

BUDGET = (6, LENGTH)


@pytest.fixture
def place(dataset: Dataset) -> Place:
    return Place(dataset, LENGTH, 0)


def tensors(job: Artifact) -> dict[str, torch.Tensor]:
    return job.load().rows.tensors()


def test_a_grid_makes_every_cell_with_its_ranks(place: Place) -> None:
    td3 = Method(place.dataset.td3(BUDGET))
    cells = [
        Teacher(place),
        student(place, td3, "given", "parity"),
        student(place, farzi(place.dataset, BUDGET, latent_dim=2), "random", "judging"),
        student(place, Prefix(td3, 2), "frozen", "judging"),
        student(place, EqualBytes("random_soft", td3, LENGTH), "random", "judging", "gru4rec"),
        student(place, selector("popularity", (0, 0)), "random", "judging", "popularity"),
        full(place, "prefixes", "bert4rec"),
    ]
    outcome = run_grid(cells, LocalProcesses(size=2))
    assert (outcome.failed, outcome.left) == ({}, [])
    for job in cells:
        cell = job.cell()
        for protocol in ("full", "uni100"):
            ranks = job.ranks(protocol)
            assert len(ranks) == 600
            means = {name: float(values.mean()) for name, values in per_case(ranks).items()}
            assert cell["metrics"][protocol] == pytest.approx(means)
        assert cell["seed"] == 0
        assert cell["measured"]
        assert cell["peak_mb"] > cell["start_mb"] > 50
        assert cell["threads"] == 1
    names = [(job.cell()["method"], job.cell()["model"], job.cell()["budget"], job.cell()["items"]) for job in cells]
    assert names[:4] == [
        ("full", "sasrec", "full", "random"),
        ("td3", "sasrec", "6x12", "given"),
        ("farzi", "sasrec", "6x12", "random"),
        ("td3", "sasrec", "2x12", "frozen"),
    ]
    before = {path: path.stat().st_mtime_ns for path in place.folder.rglob("*") if path.is_file()}
    assert run_grid(cells, LocalProcesses(size=2)).failed == {}
    assert {path: path.stat().st_mtime_ns for path in place.folder.rglob("*") if path.is_file()} == before


def test_a_cell_is_the_same_in_any_process(place: Place) -> None:
    job = student(place, place.dataset.td3(BUDGET), "given", "parity")
    assert run_grid([job], LocalProcesses(size=1)).failed == {}
    elsewhere = replace(place, dataset=replace(place.dataset, runs=place.dataset.runs / "again"))
    again = student(elsewhere, elsewhere.dataset.td3(BUDGET), "given", "parity")
    do(again)
    assert again.cell()["metrics"] == job.cell()["metrics"]
    assert torch.equal(again.ranks("full"), job.ranks("full"))


class StoppedError(Exception):
    """What stands for a kill."""


def test_a_distillation_that_was_cut_short_goes_on(place: Place) -> None:
    job = Artifact(place, Method(place.dataset.td3(BUDGET, epochs=3)))
    do(Teacher(place))
    job.path.parent.mkdir(parents=True)

    def stop(stage: str, done: int, total: int, note: str = "") -> None:
        if stage == "distill" and done > total / 3:
            raise StoppedError

    with pytest.raises(StoppedError):
        job.run(stop)
    assert not job.done()
    assert len(list(job.path.parent.glob("*.state"))) == 1
    steps: list[int] = []
    job.run(lambda stage, done, total, note="": steps.append(done) if stage == "distill" else None)
    assert steps[0] > 1
    assert job.done()
    assert not list(job.path.parent.glob("*.state"))
    whole = replace(place, dataset=replace(place.dataset, runs=place.dataset.runs / "again"))
    other = Artifact(whole, Method(whole.dataset.td3(BUDGET, epochs=3)))
    do(other)
    for name, value in tensors(other).items():
        assert torch.equal(value, tensors(job)[name])


def test_training_on_all_data_that_was_cut_short_goes_on(place: Place) -> None:
    job = full(place, "judging")
    do(Prepare(place.dataset))
    job.path.parent.mkdir(parents=True)

    def stop(stage: str, done: int, total: int, note: str = "") -> None:
        if stage == "train":
            raise StoppedError

    with pytest.raises(StoppedError):
        job.run(stop)
    told: list[int] = []
    job.run(lambda stage, done, total, note="": told.append(done))
    assert told == [2]  # the second of two epochs only
    assert job.done()


def test_results_of_other_settings_do_not_count(place: Place) -> None:
    old = student(place, place.dataset.td3(BUDGET), "given", "parity")
    do(old)
    new = student(place, place.dataset.td3(BUDGET, rank=3), "given", "parity")
    assert new.path == old.path
    assert old.done()
    assert not new.done()
    assert new.artifact is not None
    assert not new.artifact.done()
    do(new)
    assert new.done()
    assert not old.done()
    assert tensors(new.artifact)["user_factor"].shape == (6, 3)
    other = replace(old, training=replace(old.training, learning_rate=0.5))
    assert not other.done()


def test_options_that_came_later_do_not_count(place: Place) -> None:
    job = Prepare(place.dataset)
    do(job)
    stored = read_json(job.path)
    assert agrees(job.path, job.settings() | {"brand_new": 1})
    assert not agrees(job.path, job.settings() | {"min_user": 7})
    stored["settings"]["min_user"] = 7
    write_json(job.path, stored)
    assert not job.done()


def test_a_teacher_that_was_there_is_not_measured(place: Place) -> None:
    job = Teacher(place)
    do(job)
    seconds = job.cell()["seconds"]["train"]
    assert job.cell()["measured"]
    job.path.unlink()
    job.run(SILENT)
    assert not job.cell()["measured"]
    assert job.cell()["seconds"]["train"] == seconds


def test_teachers_belong_to_a_length_and_a_seed(dataset: Dataset) -> None:
    places = [Place(dataset, 12, 0), Place(dataset, 12, 1), Place(dataset, 8, 0)]
    do(*(Teacher(place) for place in places))
    folders = [next((place.folder / "teachers").iterdir()) for place in places]
    assert len({folder.name for folder in folders}) == 3
    headers = [read_json(folder / "trajectory.json") for folder in folders]
    assert [header["config"]["max_seq_len"] for header in headers] == [12, 12, 8]
    assert [header["seed"] for header in headers] == [0, 1, 0]


@pytest.mark.parametrize("control", ["random", "random_soft"])
def test_a_control_takes_the_bytes_of_another_artifact_and_not_one_row_more(control: str, place: Place) -> None:
    td3 = Artifact(place, Method(place.dataset.td3((6, LENGTH), rank=8)))
    job = Artifact(place, EqualBytes(control, td3.plan, LENGTH))
    do(job)
    allowed, taken = (read_json(one.path)["bytes"] for one in (td3, job))
    row = LENGTH * 2 + 2 + (LENGTH * 8 * 2 if control == "random_soft" else 0)
    left = (allowed["data"] - allowed["item_factor"]) - (taken["data"] - taken["item_factor"])
    assert -600 < left < row + 600  # headers of the two files differ by less
    assert len(job.load().rows) == (allowed["data"] - allowed["item_factor"]) // row


def test_methods_with_several_families_share_their_models_and_pay_for_them(place: Place) -> None:
    few = {"families": ("sasrec_32", "gru4rec_64"), "peer_epochs": 1}
    learns = {"steps_per_epoch": 2, "window": 2, "plain_steps": 1, "judge_steps": 2, "inner_batch_sizes": (6,)}
    jobs = [
        Artifact(place, Method(refined(BUDGET, epochs=0, **few), "labels")),
        Artifact(place, Method(refined(BUDGET, epochs=1, **few, **learns))),
    ]
    assert [job.key.split("/")[-1] for job in jobs[0].peers] == ["peer-sasrec_32", "peer-gru4rec_64"]
    do(*jobs[0].needs)
    trained = sorted(path.name for path in place.teachers.iterdir())
    do(*jobs)
    assert sorted(path.name for path in place.teachers.iterdir()) == trained
    assert len([name for name in trained if name.startswith("teacher-")]) == 3
    seconds = [read_json(peer.path)["seconds"] for peer in jobs[1].peers]
    assert read_json(jobs[1].path)["seconds"]["peers"] == pytest.approx(sum(seconds))
    other = student(place, jobs[0].plan, "random", "judging")
    do(other)
    assert other.cell()["label"] == "labels"


def test_a_control_has_at_most_all_users(place: Place) -> None:
    large = Method(selector("random_soft", (400, LENGTH)))
    job = Artifact(place, EqualBytes("random", large, LENGTH))
    do(job)
    assert len(job.load().rows) == 600


@pytest.mark.parametrize("method", ["td3", "farzi", "random", "random_soft"])
def test_the_first_rows_are_those_of_the_whole(method: str, place: Place) -> None:
    made = {
        "td3": place.dataset.td3(BUDGET),
        "farzi": farzi(place.dataset, BUDGET, latent_dim=2),
        "random": selector("random", BUDGET),
        "random_soft": selector("random_soft", BUDGET),
    }[method]
    whole, part = (Artifact(place, plan) for plan in (Method(made), Prefix(Method(made), 4)))
    do(part)
    long, short = (DistilledDataset.load(job.folder).rows for job in (whole, part))
    assert (len(long), len(short)) == (6, 4)
    rows = torch.arange(4)
    one, two = (kept.batch(rows) for kept in (long, short))
    vectors = torch.from_numpy(np.random.default_rng(0).normal(size=(301, 5))).float()
    assert torch.equal(one.items.embed(vectors), two.items.embed(vectors))
    assert torch.equal(one.lengths, two.lengths)


def test_more_first_rows_than_there_are_are_refused(place: Place) -> None:
    job = Artifact(place, Prefix(Method(selector("random", BUDGET)), 7))
    with pytest.raises(Exception, match="cannot take the first 7 of 6 rows"):
        do(job)


def test_a_method_without_room_fails_before_the_work(place: Place) -> None:
    job = Artifact(place, Method(selector("random", (601, LENGTH))))
    with pytest.raises(Exception, match="601 sequences"):
        do(job)
    assert not job.done()


def test_parity_trains_as_the_method_that_made_the_rows(place: Place) -> None:
    dataset = place.dataset
    assert student(place, dataset.td3(BUDGET), "given", "parity").training.objective == "last_and_middle"
    assert student(place, farzi(dataset, BUDGET), "given", "parity").training.objective == "last"
    of_random = student(place, selector("random", BUDGET), "random", "parity").training
    assert of_random == dataset.td3(BUDGET).student_recipe()
    for model, objective in (("gru4rec", "last"), ("narm", "last"), ("bert4rec", "all")):
        assert student(place, dataset.td3(BUDGET), "given", "parity", model).training.objective == objective
    judged: Student = student(place, selector("random", BUDGET), "random", "judging", "narm")
    assert judged.training == dataset.judging
