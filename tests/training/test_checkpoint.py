"""Models on disk: what is written is what is read, and a damaged folder is refused by name."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from recdistill.data.batches import HardItems
from recdistill.data.text import Catalogue
from recdistill.errors import ArtifactError, InputError
from recdistill.models import MODELS
from recdistill.storage import sha256
from recdistill.training.checkpoint import FORMAT_VERSION, load_model, save_model
from reference.encoders import described
from reference.examples import IDS, LENGTHS, V, make


@pytest.fixture(params=sorted(MODELS))
def folder(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """A saved model."""
    save_model(make(request.param).float(), tmp_path / "model", {"recipe": {"epochs": 3}, "seed": 1})
    return tmp_path / "model"


def edit(folder: Path, **changes: Any) -> None:
    """Rewrite ``model.json``."""
    header = json.loads((folder / "model.json").read_text())
    (folder / "model.json").write_text(json.dumps(header | changes))


def edit_weights(folder: Path, change: Callable[[dict[str, torch.Tensor]], Any]) -> None:
    """Rewrite the weights and their hash."""
    weights = load_file(folder / "model.safetensors")
    change(weights)
    save_file(weights, folder / "model.safetensors")
    edit(folder, files={"model.safetensors": sha256(folder / "model.safetensors")})


def refused(folder: Path, path: Path, match: str) -> None:
    with pytest.raises(ArtifactError, match=match) as caught:
        load_model(folder)
    assert Path(caught.value.path) == path
    assert str(path) in str(caught.value)


def test_a_saved_model_is_loaded_whole(folder: Path) -> None:
    model, about = load_model(folder)
    expected = make(model.name).float()
    assert type(model) is type(expected)
    assert about == {"recipe": {"epochs": 3}, "seed": 1}
    assert model.config == expected.config
    for key, value in expected.state_dict().items():
        assert torch.equal(model.state_dict()[key], value)
    model.attach(Catalogue(described(V)))
    users = model.represent(HardItems(IDS), LENGTHS)
    assert torch.equal(users, expected.represent(HardItems(IDS), LENGTHS))
    assert sorted(file.name for file in folder.iterdir()) == ["model.json", "model.safetensors"]


def test_a_model_is_not_written_over_another(folder: Path) -> None:
    model, _ = load_model(folder)
    with pytest.raises(InputError, match="exists already"):
        save_model(model, folder, {})
    save_model(model, folder, {"second": True}, replace=True)
    assert load_model(folder)[1] == {"second": True}


def test_a_changed_byte_is_found(folder: Path) -> None:
    content = bytearray((folder / "model.safetensors").read_bytes())
    content[-1] ^= 1
    (folder / "model.safetensors").write_bytes(bytes(content))
    refused(folder, folder / "model.safetensors", "another SHA-256")


def test_missing_weights_are_found(folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    refused(folder, folder / "model.safetensors", "missing")


def test_a_folder_without_a_header_is_no_model(folder: Path) -> None:
    (folder / "model.json").unlink()
    refused(folder, folder, "not a model")


def test_a_header_of_something_else_is_refused(folder: Path) -> None:
    edit(folder, format="recdistill-trajectory")
    refused(folder, folder / "model.json", "not of the format recdistill-model")


def test_a_newer_version_is_refused(folder: Path) -> None:
    edit(folder, format_version=FORMAT_VERSION + 1)
    refused(folder, folder / "model.json", f"format version {FORMAT_VERSION + 1}")


@pytest.mark.parametrize("change", [{"files": {}}, {"config": {"unknown": 1}}, {"format_version": "one"}])
def test_a_damaged_header_is_refused(folder: Path, change: dict[str, Any]) -> None:
    edit(folder, **change)
    with pytest.raises(ArtifactError, match=re.escape(str(folder))):
        load_model(folder)


def test_an_unknown_model_is_refused(folder: Path) -> None:
    edit(folder, model="sasrex")
    with pytest.raises(InputError, match="'sasrex' is not known"):
        load_model(folder)


def test_weights_of_another_shape_are_refused(folder: Path) -> None:
    name = sorted(load_file(folder / "model.safetensors"))[0]
    edit_weights(folder, lambda weights: weights.update({name: torch.ones(2, 9)}))
    refused(folder, folder, f"'{name}' has shape")


def test_unknown_and_missing_weights_are_refused(folder: Path) -> None:
    edit_weights(folder, lambda weights: weights.update(more=torch.ones(1)))
    refused(folder, folder, "'more' has shape")
    edit_weights(folder, lambda weights: [weights.pop(key) for key in list(weights)])
    refused(folder, folder, "has shape None")
