"""Files that are either whole or absent.

A result is written under a temporary name beside its final place and renamed when complete, so a reader never meets
half of one, and a run that is killed leaves the old result as it was.
"""

import hashlib
import json
import os
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import torch
from pydantic import BaseModel, ValidationError
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from recdistill.errors import ArtifactError, InputError

R = TypeVar("R", bound=BaseModel)


def _beside(path: Path) -> Path:
    return path.parent / f".{path.name}.{uuid.uuid4().hex[:8]}.partial"


@contextmanager
def atomic_folder(path: Path, *, replace: bool = False) -> Iterator[Path]:
    """Yield a temporary folder that becomes ``path`` when the block ends without an exception.

    Args:
        path: the folder to make.
        replace: take the place of an existing folder; otherwise an existing non-empty one is an error.

    Raises:
        InputError: ``path`` is a file, or a non-empty folder and ``replace`` is false.
    """
    refuse_existing(path, replace=replace)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = _beside(path)
    temporary.mkdir()
    try:
        yield temporary
        old = None
        if path.exists():
            old = _beside(path)
            path.rename(old)
        temporary.rename(path)
        if old is not None:
            shutil.rmtree(old)
    finally:
        if temporary.exists():
            shutil.rmtree(temporary)


def refuse_existing(path: Path, *, replace: bool = False) -> None:
    """Raise when a result cannot be written at ``path`` without destroying something.

    Raises:
        InputError: ``path`` is a file, or a non-empty folder and ``replace`` is false.
    """
    if path.is_file():
        raise InputError(f"{path}: is a file, and a folder is to be written there; choose another name")
    if path.is_dir() and any(path.iterdir()) and not replace:
        raise InputError(f"{path}: exists already; choose another name, or pass --overwrite to replace it")


@contextmanager
def _whole_file(path: Path) -> Iterator[Path]:
    """Yield a temporary name that becomes ``path`` when the block ends without an exception."""
    temporary = _beside(path)
    try:
        yield temporary
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Write ``text`` to ``path`` in one step."""
    with _whole_file(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: Path, value: Any) -> None:
    """Write ``value`` as indented JSON in one step; NaN and infinity are refused."""
    write_text(path, json.dumps(value, indent=2, allow_nan=False, ensure_ascii=False) + "\n")


def read_json(path: Path) -> Any:
    """Return the parsed JSON file.

    Raises:
        ArtifactError: the file is missing or is not JSON.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ArtifactError("is missing", fix="give a complete folder written by recdistill", path=path) from None
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ArtifactError(f"is not JSON ({error})", fix="restore the file or make it again", path=path) from None


def read_record(path: Path, record: type[R], name: str, fix: str) -> R:
    """Return the record in a JSON file that states its ``format`` and ``format_version``.

    Args:
        path: the file.
        record: whose defaults of these two fields are what this version reads.
        name: of such a record, for messages.
        fix: how one is made.

    Raises:
        ArtifactError: the file is missing, damaged, of another format, or newer than this version reads.
    """
    value, known = read_json(path), record.model_fields
    if not isinstance(value, dict) or value.get("format") != known["format"].default:
        raise ArtifactError(f"is not a {name}", fix=fix, path=path)
    version, latest = value.get("format_version"), known["format_version"].default
    if isinstance(version, int) and version > latest:
        told = f"has format version {version}, this recdistill reads up to {latest}"
        raise ArtifactError(told, fix="update recdistill", path=path)
    try:
        return record.model_validate(value)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise ArtifactError(f"field {where!r}: {first['msg']}", fix=fix, path=path) from None


def write_tensors(path: Path, tensors: dict[str, torch.Tensor], metadata: dict[str, str] | None = None) -> None:
    """Write tensors as safetensors in one step."""
    stored = {name: tensor.detach().contiguous().cpu() for name, tensor in tensors.items()}
    with _whole_file(path) as temporary:
        save_file(stored, temporary, metadata)


def read_tensors(path: Path) -> dict[str, torch.Tensor]:
    """Return the tensors of a safetensors file, on the CPU.

    Raises:
        ArtifactError: the file is missing or damaged.
    """
    try:
        return load_file(path)
    except FileNotFoundError:
        raise ArtifactError("is missing", fix="give a complete folder written by recdistill", path=path) from None
    except SafetensorError as error:
        raise ArtifactError(f"is not a safetensors file ({error})", fix="restore or make it again", path=path) from None


def sha256(path: Path) -> str:
    """Return the hexadecimal SHA-256 of a file, read in blocks."""
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        while block := stream.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def sha256_of(*parts: Any) -> str:
    """Return the hexadecimal SHA-256 of JSON-serialisable values, to name results by their content."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True, default=str).encode()).hexdigest()
