"""Controls are as large as they say, drawn anew for every seed and never twice, and take the teacher of the dataset.

Not proved: bytes of whole files, whose headers name the tensors.
"""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from recdistill.data.development import Development
from recdistill.data.distilled import DistilledDataset, read_manifest
from recdistill.data.rows import LabelledRows
from recdistill.distill.base import RunContext
from recdistill.distill.coresets.counts import PopularityCounts
from recdistill.distill.coresets.random import Random
from recdistill.distill.coresets.random_soft import RandomSoft
from recdistill.distill.run import distill
from recdistill.distill.teacher import TeacherSpec, teach
from recdistill.errors import InputError, OptionError
from recdistill.study.controls import (
    Control,
    draw_control,
    equal_bytes,
    equal_rows,
    row_bytes,
    teacher_of,
    teacher_spec,
)
from recdistill.training.fit import TrainingRecipe
from recdistill.training.trajectory import Trajectory

CONFIG = {"embedding_dim": 8, "num_blocks": 1, "num_heads": 1, "inner_dim": 8}
SPEC = TeacherSpec(config=CONFIG, max_seq_len=8, recipe=TrainingRecipe(epochs=2, steps_per_epoch=2, batch_size=16))


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="module")
def taught(train: Development, cache: Path) -> Trajectory:
    return teach(train, SPEC, 3, cache)


def saved(train: Development, taught: Trajectory, method, folder: Path) -> Path:
    distill(train, method, taught, seed=0, context=RunContext()).save(folder)
    return folder


def own_bytes(folder: Path) -> int:
    tensors = DistilledDataset.load(folder).rows.tensors().values()
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)


@pytest.mark.parametrize("method", ["random", "random_soft"])
def test_equal_bytes_are_as_many_rows_as_fit(train: Development, taught, tmp_path: Path, method: str) -> None:
    made = saved(train, taught, RandomSoft(num_rows=8, length=6), tmp_path / "made")
    control = equal_bytes(method, DistilledDataset.load(made), train)
    drawn = draw_control(control, train, taught, 0, tmp_path)
    one = row_bytes(6, 8 if method == "random_soft" else 0)
    assert (control.method, control.length, control.rule) == (method, 6, "equal bytes")
    if control.num_rows < 30:  # all users otherwise
        assert own_bytes(made) - one < own_bytes(drawn) <= own_bytes(made)
    assert len(DistilledDataset.load(drawn).rows) == control.num_rows
    assert method == "random" or control.num_rows == 8


def test_no_control_has_more_rows_than_there_are_users(train: Development, taught, tmp_path: Path) -> None:
    made = saved(train, taught, RandomSoft(num_rows=25, length=8), tmp_path / "made")
    assert equal_bytes("random", DistilledDataset.load(made), train).num_rows <= train.histories.num_users
    many = read_manifest(made).model_copy(update={"num_rows": 10_000})
    assert equal_rows("random", many, train).num_rows <= train.histories.num_users


def test_equal_rows_are_those_of_the_dataset(train: Development, taught, tmp_path: Path) -> None:
    made = saved(train, taught, Random(num_rows=4, length=5), tmp_path / "made")
    control = equal_rows("random_soft", read_manifest(made), train)
    assert (control.num_rows, control.length, control.rule, control.name) == (4, 5, "equal rows", "random_soft_4x5")


def test_a_dataset_without_rows_still_has_controls(train: Development, taught, tmp_path: Path) -> None:
    made = saved(train, taught, PopularityCounts(), tmp_path / "made")
    for control in (
        equal_bytes("random_soft", DistilledDataset.load(made), train),
        equal_rows("random", read_manifest(made), train),
    ):
        assert control.num_rows >= 1
        assert control.length == 8  # what the teacher reads


def test_labels_are_those_of_the_given_teacher(train: Development, taught, tmp_path: Path) -> None:
    control = Control(method="random_soft", num_rows=3, length=6, rule="equal rows")
    made = DistilledDataset.load(draw_control(control, train, taught, 0, tmp_path))
    assert isinstance(made.rows, LabelledRows)
    assert torch.equal(made.item_factor, taught.model().item_table[1:])


def test_every_seed_draws_other_users_and_none_twice(train: Development, taught, tmp_path: Path) -> None:
    control = Control(method="random", num_rows=5, length=6, rule="equal bytes")
    drawn = [draw_control(control, train, taught, seed, tmp_path) for seed in (0, 1, 0)]
    assert drawn[0] == drawn[2] != drawn[1]
    first, second = (DistilledDataset.load(path).rows.tensors()["item_ids"] for path in drawn[:2])
    assert not torch.equal(first, second)
    assert draw_control(replace(control, num_rows=6), train, taught, 0, tmp_path) not in drawn


def test_the_teacher_is_found_again_from_the_manifest(
    train: Development, taught, cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    manifest = read_manifest(saved(train, taught, Random(num_rows=3, length=5), tmp_path / "made"))
    assert teacher_of(manifest, train, cache).folder == taught.folder  # out of the cache, nothing was trained
    again = teacher_of(manifest, train, tmp_path / "empty")
    assert again.folder.name == taught.folder.name
    for name, value in taught.model().state_dict().items():
        assert torch.equal(value, again.model().state_dict()[name])


def test_a_teacher_of_another_version_is_refused(train: Development, taught, tmp_path: Path) -> None:
    stated = read_manifest(saved(train, taught, Random(num_rows=3, length=5), tmp_path / "made")).teacher
    with pytest.raises(OptionError, match="teacher of the distilled dataset: 'sasreq' is not known"):
        teacher_spec(stated | {"model": "sasreq"})
    with pytest.raises(InputError, match=r"recipe of the teacher is not one of this version .*'momentum'"):
        teacher_spec(stated | {"recipe": stated["recipe"] | {"momentum": 0.9}})


def test_unknown_controls_are_refused(train: Development, taught, tmp_path: Path) -> None:
    made = saved(train, taught, Random(num_rows=3, length=5), tmp_path / "made")
    with pytest.raises(OptionError, match="control: 'rndom' is not known"):
        equal_bytes("rndom", DistilledDataset.load(made), train).distiller()
