"""What another recipe made is taken over where it fits, and left alone where it does not."""

import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from tiny_grid import LENGTH, do

from recdistill.errors import InputError
from recdistill.storage import read_json
from recdistill.study.grid import run_grid
from recdistill.study.local import LocalProcesses
from recipes import absorb
from recipes.cells import selector
from recipes.datasets import Dataset
from recipes.jobs import Artifact, Teacher
from recipes.places import Place, Prepare
from recipes.plans import Method

BUDGET = (6, LENGTH)


@pytest.fixture
def old(dataset: Dataset, tmp_path: Path) -> Path:
    """The folder of a former recipe, in its own layout."""
    before = replace(dataset, runs=tmp_path / "before")
    place, folder = Place(before, LENGTH, 0), tmp_path / "old"
    jobs = [Artifact(place, Method(made)) for made in (before.td3(BUDGET), selector("random", BUDGET))]
    do(*jobs)
    shutil.copytree(before.folder / "prepared", folder / "prepared")
    shutil.copytree(place.teachers, folder / "seed-0" / "cache")
    for job in jobs:
        shutil.copytree(job.folder, folder / "seed-0" / job.plan.name)
    return folder


def test_teachers_and_artifacts_are_taken_over_and_not_made_again(
    dataset: Dataset, old: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(absorb, "BUDGET", BUDGET)
    do(Prepare(dataset))
    wanted = [dataset.td3(BUDGET), selector("random", BUDGET), selector("longest", BUDGET)]
    taken = absorb.absorb(old, dataset, wanted)
    place = Place(dataset, LENGTH, 0)
    assert [key.split("/")[-1].split("-")[0] for key in taken] == ["teacher", "td3", "random"]
    job = Artifact(place, Method(dataset.td3(BUDGET)))
    assert job.done()
    assert not read_json(job.path)["measured"]
    assert job.load().manifest == Artifact(place, Method(dataset.td3(BUDGET))).load().manifest
    assert not Artifact(place, Method(selector("longest", BUDGET))).done()
    outcome = run_grid([Teacher(place), job], LocalProcesses(size=1))
    assert outcome.failed == {}
    assert not Teacher(place).cell()["measured"]
    assert absorb.absorb(old, dataset, wanted) == []


def test_other_settings_and_other_data_are_left_alone(
    dataset: Dataset, old: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(absorb, "BUDGET", BUDGET)
    do(Prepare(dataset))
    taken = absorb.absorb(old, dataset, [dataset.td3(BUDGET, rank=3)])
    assert [key for key in taken if "td3" in key] == []
    changed = replace(dataset, spec=replace(dataset.spec, min_user=20), runs=tmp_path / "other")
    do(Prepare(changed))
    with pytest.raises(InputError, match="prepared in another way"):
        absorb.absorb(old, changed, [])
