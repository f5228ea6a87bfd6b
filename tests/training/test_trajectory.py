"""A training run as a record: every epoch, reopened, and continued after a kill."""

import json
from pathlib import Path

import pytest
import torch

from recdistill.data.sequences import evaluation_cases, windows
from recdistill.errors import ArtifactError
from recdistill.evaluation.protocols import evaluate
from recdistill.models.base import Recommender
from recdistill.models.popularity import Popularity
from recdistill.rng import Streams
from recdistill.storage import sha256
from recdistill.training.fit import TrainingRecipe, fit
from recdistill.training.trajectory import FORMAT_VERSION, Trajectory, record_trajectory
from reference.tiny import random_histories, sasrec

HISTORIES = random_histories(12, seed=4, held_out=(3, 5))
RECIPE = TrainingRecipe(epochs=4, steps_per_epoch=2, batch_size=8, learning_rate=0.02, patience=2)


def validate(model: Recommender) -> float:
    return evaluate(model, evaluation_cases(HISTORIES, "valid")).metrics()["MRR@10"]


def record(folder: Path, **changes) -> Trajectory:
    options = {"validate": validate, "about": {"data": "tiny"}} | changes
    rows = windows(HISTORIES, 14)
    return record_trajectory(sasrec(max_seq_len=14, dropout=0.2), rows, RECIPE, Streams(5), folder, **options)


def test_every_epoch_is_recorded(tmp_path: Path) -> None:
    folder, kept = tmp_path / "teacher", {}
    made = record(folder)
    model = sasrec(max_seq_len=14, dropout=0.2)

    def keep(epoch: int, current: Recommender, score: float | None) -> None:
        kept[epoch] = {name: value.clone() for name, value in current.state_dict().items()}

    result = fit(model, windows(HISTORIES, 14), RECIPE, Streams(5), validate=validate, record=keep)
    again = Trajectory.open(folder)
    assert again == made
    assert (again.num_epochs, again.best_epoch) == (result.epochs, result.best_epoch)
    assert again.seconds > 0
    for epoch, weights in kept.items():
        found = again.weights(epoch)
        assert found.keys() == weights.keys()
        assert all(torch.equal(found[name], weights[name]) for name in weights)
        assert torch.equal(again.model(epoch).item_table, weights["item_embedding"])
    assert all(torch.equal(again.model().state_dict()[name], value) for name, value in model.state_dict().items())
    assert sorted(path.name for path in tmp_path.iterdir()) == ["teacher"]


def test_the_header_says_how_it_was_made(tmp_path: Path) -> None:
    made = record(tmp_path / "teacher")
    header = made.header
    assert header["recipe"]["epochs"] == 4
    assert (header["seed"], header["about"], header["model"]) == (5, {"data": "tiny"}, "sasrec")
    assert len(header["losses"]) == len(header["scores"]) == header["epochs"]
    assert header["files"] == {
        path.name: sha256(path) for path in made.folder.iterdir() if path.name != "trajectory.json"
    }
    assert len(header["files"]) == header["epochs"] + 1


@pytest.mark.parametrize("epoch", [1, 2])
def test_a_killed_recording_continues_to_the_same_bits(tmp_path: Path, epoch: int) -> None:
    whole = record(tmp_path / "whole")

    def stop(stage: str, done: int, total: int, note: str = "") -> None:
        if done == epoch:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        record(tmp_path / "killed", progress=stop)
    assert not (tmp_path / "killed").exists()
    again = record(tmp_path / "killed")
    assert again.header["files"] == whole.header["files"]
    assert again.header["losses"] == whole.header["losses"]
    assert again.header["scores"] == whole.header["scores"]
    assert again.best_epoch == whole.best_epoch
    assert sorted(path.name for path in tmp_path.iterdir()) == ["killed", "whole"]


def test_a_folder_without_a_trajectory(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match=r"is not a .* \(no trajectory\.json\)"):
        Trajectory.open(tmp_path)


def edit(folder: Path, **changes: object) -> None:
    path = folder / "trajectory.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def test_a_newer_or_another_format_is_refused(tmp_path: Path) -> None:
    made = record(tmp_path / "teacher")
    edit(made.folder, format_version=FORMAT_VERSION + 1)
    with pytest.raises(ArtifactError, match="update recdistill"):
        Trajectory.open(made.folder)
    edit(made.folder, format_version=FORMAT_VERSION, format="recdistill-model")
    with pytest.raises(ArtifactError, match="not of the format recdistill-trajectory"):
        Trajectory.open(made.folder)


def test_a_missing_epoch_is_named(tmp_path: Path) -> None:
    made = record(tmp_path / "teacher")
    (made.folder / "epoch-0001.safetensors").unlink()
    with pytest.raises(ArtifactError, match=r"epoch-0001.safetensors: is missing"):
        made.weights(1)


def test_a_changed_epoch_is_found(tmp_path: Path) -> None:
    made = record(tmp_path / "teacher")
    path = made.folder / "epoch-0001.safetensors"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(bytes(content))
    with pytest.raises(ArtifactError, match=r"epoch-0001.safetensors"):
        made.weights(1)


def test_a_model_with_nothing_to_train_has_a_trajectory_of_its_start(tmp_path: Path) -> None:
    model = Popularity(20, 5, generator=torch.Generator())
    made = record_trajectory(
        model, windows(HISTORIES, 14), RECIPE, Streams(5), tmp_path / "made", validate=validate, about={}
    )
    assert made.num_epochs == 0
    assert torch.equal(made.model().item_table, model.item_table)
