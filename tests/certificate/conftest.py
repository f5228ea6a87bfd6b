"""A certificate made once of a tiny distilled dataset: four models, three seeds, all controls."""

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from examined import MODELS, RECIPE, SMALL, Made, prepared_ring

from recdistill.certificate.certify import certify
from recdistill.certificate.trainings import Examination, datasets_of
from recdistill.data.development import development_of
from recdistill.data.prepared import PreparedDataset
from recdistill.distill.base import RunContext
from recdistill.distill.coresets.random_soft import RandomSoft
from recdistill.distill.run import distill
from recdistill.distill.teacher import TeacherSpec, teach
from reference.jobs import Here


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    folder = tmp_path_factory.mktemp("certificate")
    prepared = prepared_ring(folder, 0)
    train = development_of(PreparedDataset.open(prepared))
    spec = TeacherSpec(config=SMALL, max_seq_len=8, recipe=RECIPE)
    teacher = teach(train, spec, 0, folder / "cache")
    distill(train, RandomSoft(num_rows=5, length=6), teacher, seed=0, context=RunContext()).save(folder / "distilled")
    exam = Examination(
        distilled=folder / "distilled",
        prepared=prepared,
        folder=folder / "study",
        cache=folder / "cache",
        models=MODELS,
        seeds=3,
        recipe=RECIPE,
    )
    certificate = certify(exam, Here()).certificate
    return Made(exam, datasets_of(exam), certificate)


@pytest.fixture
def copied(made: Made, tmp_path: Path) -> Path:
    """A copy of the certified dataset, to be damaged."""
    return shutil.copytree(made.exam.distilled, tmp_path / "copy")


@pytest.fixture
def another(made: Made, tmp_path: Path) -> Callable[..., Examination]:
    """Makes an examination of a copy of the certified dataset, with other options."""

    def make(**changes: object) -> Examination:
        there = tmp_path / "another"
        if not there.exists():
            shutil.copytree(made.exam.distilled, there)
            (there / "certificate.json").unlink()
        return replace(made.exam, distilled=there, **changes)  # type: ignore[arg-type]

    return make
