"""Models on disk: a folder with ``model.safetensors`` and ``model.json``. Nothing is pickled."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from recdistill.errors import ArtifactError, choose
from recdistill.models import MODELS
from recdistill.models.base import Recommender
from recdistill.storage import atomic_folder, read_json, read_tensors, sha256, write_json, write_tensors

FORMAT = "recdistill-model"
FORMAT_VERSION = 1


def save_model(model: Recommender, folder: Path, about: Mapping[str, Any], *, replace: bool = False) -> None:
    """Write a model folder in one step.

    Args:
        model: the model.
        folder: where to; must not exist, unless ``replace``.
        about: JSON-serialisable facts that travel with it (training data, recipe, seed).
        replace: take the place of an existing folder.
    """
    with atomic_folder(folder, replace=replace) as temporary:
        write_tensors(temporary / "model.safetensors", dict(model.state_dict()))
        write_json(
            temporary / "model.json",
            {
                "format": FORMAT,
                "format_version": FORMAT_VERSION,
                "model": model.name,
                "config": model.config,
                "about": dict(about),
                "files": {"model.safetensors": sha256(temporary / "model.safetensors")},
            },
        )


def load_model(folder: Path, *, device: torch.device | str = "cpu") -> tuple[Recommender, dict[str, Any]]:
    """Return a saved model and the facts saved with it.

    Raises:
        ArtifactError: the folder is no model, is damaged, or is newer than this version reads.
    """
    about = read_header(folder / "model.json", FORMAT, FORMAT_VERSION, "a model; make one with: recdistill train")
    check_hash(folder / "model.safetensors", about)
    try:
        model = build(about["model"], about["config"])
    except (TypeError, KeyError) as error:
        raise ArtifactError(
            f"does not describe a model ({error})", fix="train it again", path=folder / "model.json"
        ) from None
    load_weights(model, read_tensors(folder / "model.safetensors"), folder)
    return model.to(device), about["about"]


def check_hash(path: Path, header: Mapping[str, Any]) -> None:
    """Raise when a file is missing or is not the one that its header states.

    Raises:
        ArtifactError: naming the file.
    """
    if not path.exists():
        raise ArtifactError("is missing", fix="restore the file or make it again", path=path)
    files = header.get("files")
    if not isinstance(files, Mapping) or sha256(path) != files.get(path.name):
        raise ArtifactError(
            "has another SHA-256 than its header states", fix="restore the file or make it again", path=path
        )


def read_header(path: Path, expected_format: str, newest: int, what: str) -> dict[str, Any]:
    """Return a JSON header after checking its format and version.

    Raises:
        ArtifactError: the file is missing, belongs to something else, or is newer than ``newest``.
    """
    if not path.exists():
        raise ArtifactError(f"is not {what.split(';')[0]} (no {path.name})", fix=what.split("; ")[1], path=path.parent)
    header = read_json(path)
    if not isinstance(header, dict) or header.get("format") != expected_format:
        raise ArtifactError(f"is not of the format {expected_format}", fix=what.split("; ")[1], path=path)
    version = header.get("format_version")
    if not isinstance(version, int):
        raise ArtifactError(f"has no format version but {version!r}", fix=what.split("; ")[1], path=path)
    if version > newest:
        raise ArtifactError(
            f"has format version {version}, this recdistill reads up to {newest}",
            fix="update recdistill",
            path=path,
        )
    return header


def build(name: str, config: Mapping[str, Any]) -> Recommender:
    """Return a model with weights yet to be loaded."""
    return choose("model", name, MODELS)(**config, generator=torch.Generator().manual_seed(0))


def load_weights(model: Recommender, weights: Mapping[str, Tensor], path: Path) -> None:
    """Copy weights into a model.

    Raises:
        ArtifactError: a weight is missing, unknown, or has another shape.
    """
    own = model.state_dict()
    for name in sorted(own.keys() | weights.keys()):
        found = tuple(weights[name].shape) if name in weights else None
        wanted = tuple(own[name].shape) if name in own else None
        if found != wanted:
            raise ArtifactError(
                f"weight {name!r} has shape {found}, the model needs {wanted}", fix="make it again", path=path
            )
    model.load_state_dict(dict(weights))
