"""The artifact: a distilled dataset as a folder that loads without executing anything.

    data.safetensors    the rows' tensors and the item factor
    manifest.json       what it is, how it was made, the shapes and the SHA-256 of every other file
    vocabulary.parquet  item (1 to V), item_id, title; text, where the teacher read texts
    README.md           a dataset card with YAML front matter

Loading checks the format version, every hash and every shape.
"""

import platform
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import polars as pl
import torch
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from torch import Tensor

import recdistill
from recdistill.data.card import dataset_card
from recdistill.data.rows import KINDS, Rows
from recdistill.data.text import TEXT, Catalogue
from recdistill.errors import ArtifactError
from recdistill.storage import (
    atomic_folder,
    read_json,
    read_tensors,
    sha256,
    write_json,
    write_tensors,
    write_text,
)

FORMAT_VERSION = 1
FILES = ("data.safetensors", "vocabulary.parquet", "README.md")


class Source(BaseModel):
    """The dataset that was distilled."""

    model_config = ConfigDict(frozen=True)

    name: str
    hash: str
    users: int
    items: int
    train_interactions: int
    train_bytes: int


class Manifest(BaseModel):
    """What ``manifest.json`` states."""

    model_config = ConfigDict(frozen=True, extra="allow")

    format: Literal["recdistill-distilled"] = "recdistill-distilled"
    format_version: int = Field(default=FORMAT_VERSION, ge=1)
    kind: str
    method: str
    parameters: dict[str, Any]
    num_rows: int = Field(ge=0)
    length: int = Field(ge=0)
    source: Source
    teacher: dict[str, Any]
    seed: int
    seconds: dict[str, float]
    peak_mb: float
    versions: dict[str, str]
    trace: list[dict[str, float]] = []
    predicted: dict[str, Any] | None = None
    shapes: dict[str, list[int]] = {}
    files: dict[str, str] = {}


@dataclass(frozen=True)
class DistilledDataset:
    """A distilled dataset.

    Args:
        rows: what models train on.
        item_factor: the teacher's item table without padding, (V, D).
        vocabulary: columns ``item``, ``item_id`` and, where known, ``title`` and ``text``; row ``i`` is item ``i + 1``.
        manifest: how it was made.
    """

    rows: Rows
    item_factor: Tensor
    vocabulary: pl.DataFrame
    manifest: Manifest

    def save(self, folder: Path, *, replace: bool = False) -> "DistilledDataset":
        """Write the artifact in one step; return it with the hashes and shapes it now has.

        Raises:
            InputError: the folder exists and ``replace`` is false.
        """
        tensors = self.rows.tensors() | {"item_factor": self.item_factor}
        with atomic_folder(folder, replace=replace) as temporary:
            write_tensors(temporary / "data.safetensors", tensors)
            columns = [name for name in ("item", "item_id", "title", TEXT) if name in self.vocabulary.columns]
            self.vocabulary.select(columns).write_parquet(temporary / "vocabulary.parquet", compression="zstd")
            write_text(temporary / "README.md", dataset_card(self.manifest.model_dump()))
            manifest = self.manifest.model_copy(
                update={
                    "shapes": {name: list(tensor.shape) for name, tensor in tensors.items()},
                    "files": {name: sha256(temporary / name) for name in FILES},
                }
            )
            write_json(temporary / "manifest.json", manifest.model_dump())
        return DistilledDataset(self.rows, self.item_factor, self.vocabulary, manifest)

    def catalogue(self, cache: Path | None = None) -> Catalogue | None:
        """Return the items with their texts; ``None`` where the teacher read none.

        Args:
            cache: folder for what models compute of the texts.
        """
        return Catalogue(self.vocabulary, cache, finished=True) if TEXT in self.vocabulary.columns else None

    def titles(self) -> list[str]:
        """Return a readable name per item id; index 0 is padding."""
        names = self.vocabulary["item_id"].to_list()
        if "title" in self.vocabulary.columns:
            titles = self.vocabulary["title"].to_list()
            names = [title or name for name, title in zip(names, titles, strict=True)]
        return ["(padding)", *map(str, names)]

    @staticmethod
    def load(folder: Path) -> "DistilledDataset":
        """Return the artifact in ``folder`` after checking it.

        Raises:
            ArtifactError: it is missing, damaged, inconsistent, or newer than this version reads.
        """
        manifest = read_manifest(folder)
        _check_files(folder, manifest)
        tensors = read_tensors(folder / "data.safetensors")
        _check_tensors(folder, manifest, tensors)
        factor = tensors.pop("item_factor")
        rows = KINDS[manifest.kind].from_tensors(tensors, factor)
        vocabulary = pl.read_parquet(folder / "vocabulary.parquet")
        if vocabulary.height != manifest.source.items:
            raise ArtifactError(
                f"names {vocabulary.height} items, the manifest has {manifest.source.items}",
                fix="distill again",
                path=folder / "vocabulary.parquet",
            )
        return DistilledDataset(rows, factor, vocabulary, manifest)


def size_in_bytes(folder: Path) -> dict[str, int]:
    """Return the bytes of an artifact: ``total`` on disk, ``data`` file alone, and ``item_factor`` within it.

    What is said about an artifact, its certificate, is not part of it.
    """
    factor = read_tensors(folder / "data.safetensors")["item_factor"]
    return {
        "total": sum((folder / name).stat().st_size for name in (*FILES, "manifest.json")),
        "data": (folder / "data.safetensors").stat().st_size,
        "item_factor": factor.numel() * factor.element_size(),
    }


def is_distilled(folder: Path) -> bool:
    """Return whether ``folder`` claims to be a distilled dataset."""
    try:
        return bool(read_json(folder / "manifest.json").get("format") == "recdistill-distilled")
    except (ArtifactError, AttributeError, OSError):
        return False


def current_versions() -> dict[str, str]:
    """Return the versions of everything that decides the numbers."""
    return {
        "recdistill": recdistill.__version__,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "numpy": np.__version__,
        "polars": pl.__version__,
    }


def read_manifest(folder: Path) -> Manifest:
    """Return the manifest in ``folder``.

    Raises:
        ArtifactError: it is missing, not one of ours, or newer than this version reads.
    """
    path = folder / "manifest.json"
    if not path.exists():
        raise ArtifactError(
            "is not a distilled dataset (no manifest.json)",
            fix="make one with: recdistill distill",
            path=folder,
        )
    value = read_json(path)
    if not isinstance(value, dict) or value.get("format") != "recdistill-distilled":
        found = value.get("format") if isinstance(value, dict) else type(value).__name__
        raise ArtifactError(f"is of the format {found!r}", fix="give a distilled dataset", path=path)
    version = value.get("format_version")
    if not isinstance(version, int):
        raise ArtifactError(f"has no format version but {version!r}", fix="restore it or distill again", path=path)
    if version > FORMAT_VERSION:
        raise ArtifactError(
            f"has format version {version}, this recdistill reads up to {FORMAT_VERSION}",
            fix="update recdistill",
            path=path,
        )
    try:
        manifest = Manifest.model_validate(value)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise ArtifactError(f"field {where!r}: {first['msg']}", fix="restore it or distill again", path=path) from None
    if manifest.kind not in KINDS:
        raise ArtifactError(f"kind {manifest.kind!r} is not known", fix="update recdistill", path=path)
    return manifest


def _check_files(folder: Path, manifest: Manifest) -> None:
    for name in FILES:
        path = folder / name
        if not path.exists():
            raise ArtifactError("is missing", fix="restore the file or distill again", path=path)
        stated = manifest.files.get(name)
        if sha256(path) != stated:
            raise ArtifactError(
                f"has another SHA-256 than manifest.json states ({(stated or 'none')[:12]}...)",
                fix="the file was changed; restore it or distill again",
                path=path,
            )


def _check_tensors(folder: Path, manifest: Manifest, tensors: dict[str, Tensor]) -> None:
    path = folder / "data.safetensors"
    named = KINDS[manifest.kind].shapes() | {"item_factor": "V R"}
    sizes = {
        "V": manifest.source.items,
        "V1": manifest.source.items + 1,
        "N": manifest.num_rows,
        "T": manifest.length,
    }
    for name in sorted(named.keys() | tensors.keys()):
        found = list(tensors[name].shape) if name in tensors else None
        wanted = named.get(name)
        if found is None or wanted is None or len(found) != len(wanted.split()):
            raise ArtifactError(
                f"tensor {name!r} has shape {found}, needed is [{wanted}]", fix="distill again", path=path
            )
        for letter, size in zip(wanted.split(), found, strict=True):
            known = int(letter) if letter.isdigit() else sizes.setdefault(letter, size)
            if known != size:
                raise ArtifactError(
                    f"tensor {name!r} has shape {found}, but {letter} is {known} elsewhere",
                    fix="distill again",
                    path=path,
                )
        if name in ("item_ids", "lengths") and tensors[name].is_floating_point():
            raise ArtifactError(f"tensor {name!r} holds {tensors[name].dtype}", fix="distill again", path=path)
        if tensors[name].is_floating_point() and not torch.isfinite(tensors[name]).all():
            raise ArtifactError(f"tensor {name!r} holds a NaN or infinity", fix="distill again", path=path)
    lengths, shortest = tensors.get("lengths"), 2 if manifest.kind == "hard" else 1
    if (
        lengths is not None
        and lengths.numel()
        and not shortest <= int(lengths.min()) <= int(lengths.max()) <= manifest.length
    ):
        raise ArtifactError(
            f"lengths reach from {int(lengths.min())} to {int(lengths.max())}, rows have a length of {shortest} to "
            f"{manifest.length}",
            fix="distill again",
            path=path,
        )
    ids = tensors.get("item_ids")
    if ids is not None and ids.numel() and not 0 <= int(ids.min()) <= int(ids.max()) <= manifest.source.items:
        raise ArtifactError(
            f"item ids reach from {int(ids.min())} to {int(ids.max())}, the catalogue has 1 to {manifest.source.items}",
            fix="distill again",
            path=path,
        )
