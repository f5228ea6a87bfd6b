"""A memory on disk: one folder per block that was folded in, each written whole, none ever changed.

    stream.json                      the method, the fields, the seed
    versions/0001/manifest.json      what the block was, and what it did
                  memory.safetensors     units
                  reference.safetensors  weights of the reference model, its tables among them
                  fields.json, vocabulary.parquet
    versions/0002/...

Everything random is keyed by the seed and the number of the block. So a call that was killed left nothing but perhaps
the state of its outer steps, and the same call again gives what an undisturbed one gives.
"""

import hashlib
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import polars as pl
import torch

from recdistill.data.clicks.block import ClickBlock
from recdistill.data.clicks.blocks import ClickLog
from recdistill.data.clicks.fields import ClickSpec
from recdistill.data.clicks.layouts import open_log
from recdistill.data.clicks.vocabulary import ClickVocabulary
from recdistill.distill.base import RunContext
from recdistill.distill.clicks.fold import fold
from recdistill.distill.clicks.memory import ClickMemory
from recdistill.distill.diet import DIET
from recdistill.errors import ArtifactError, DataError, InputError, OptionError
from recdistill.evaluation.clicks import click_scores, predicted
from recdistill.models.clicks.base import ClickModel
from recdistill.rng import Streams
from recdistill.storage import (
    atomic_folder,
    read_json,
    read_tensors,
    sha256,
    sha256_of,
    write_json,
    write_tensors,
)
from recdistill.training.checkpoint import check_hash, read_header
from recdistill.training.clicks import ClickRecipe

FORMAT = "recdistill-stream"
FORMAT_VERSION = 1
CHUNK = 1 << 16
"""Rows that are hashed at a time."""


@dataclass(frozen=True)
class Version:
    """The memory as it was after a block.

    Args:
        folder: of this version.
        manifest: what the block was, and what it did.
    """

    folder: Path
    manifest: dict[str, Any]

    @property
    def number(self) -> int:
        """Number of the block, from 1."""
        return int(self.manifest["number"])

    def memory(self) -> ClickMemory:
        """Return the units."""
        tensors = self._tensors("memory.safetensors")
        return ClickMemory(**tensors)

    def vocabulary(self) -> ClickVocabulary:
        """Return the ids."""
        for name in ("fields.json", "vocabulary.parquet"):
            self._check(name)
        return ClickVocabulary.load(self.folder)

    def weights(self) -> dict[str, torch.Tensor]:
        """Return the weights of the reference model."""
        return self._tensors("reference.safetensors")

    def _tensors(self, name: str) -> dict[str, torch.Tensor]:
        self._check(name)
        return read_tensors(self.folder / name)

    def _check(self, name: str) -> None:
        check_hash(self.folder / name, self.manifest)


@dataclass(frozen=True)
class ClickStream:
    """A memory and all that it was.

    Args:
        folder: where it lies.
        settings: the method.
        spec: the fields.
        seed: of everything random.
        layout: how blocks are published, a key of ``LAYOUTS``; ``None`` for tables with the spec's columns.
    """

    folder: Path
    settings: DIET
    spec: ClickSpec
    seed: int
    layout: str | None = None

    @staticmethod
    def create(folder: Path, settings: DIET, spec: ClickSpec, seed: int, layout: str | None = None) -> "ClickStream":
        """Return a memory before its first block; one that is there and has no block yet is begun anew.

        Raises:
            InputError: something else is there already.
        """
        made = ClickStream(folder, settings, spec, seed, layout)
        if is_memory(folder) and made.numbers:
            raise InputError(
                f"{folder}: is a memory with {len(made.numbers)} versions; open it, or choose another name"
            )
        if not is_memory(folder) and folder.exists() and (folder.is_file() or any(folder.iterdir())):
            raise InputError(f"{folder}: is no memory, and holds something else; choose another name")
        about = {"format": FORMAT, "format_version": FORMAT_VERSION, "method": settings.method, "layout": layout}
        folder.mkdir(parents=True, exist_ok=True)
        told = {"settings": settings.as_dict(), "spec": spec.as_dict(), "seed": seed}
        write_json(folder / "stream.json", about | told)
        return made

    @staticmethod
    def open(folder: Path) -> "ClickStream":
        """Return the memory in a folder.

        Raises:
            ArtifactError: there is none, or it is damaged or newer than this version reads.
        """
        path = folder / "stream.json"
        told = read_header(path, FORMAT, FORMAT_VERSION, "a memory; make one with: recdistill stream")
        try:
            training = ClickRecipe(**told["settings"].pop("training"))
            settings = DIET(**told["settings"], training=training)
            spec, layout = ClickSpec.from_dict(told["spec"]), told["layout"]
            return ClickStream(folder, settings, spec, int(told["seed"]), layout)
        except (KeyError, TypeError, ValueError, OptionError) as error:
            raise ArtifactError(f"is damaged ({error})", fix="restore the file", path=path) from None

    def discard(self) -> None:
        """Take away a memory that has no block yet: its own files alone, and the folder where nothing else is in it."""
        if self.numbers:
            raise InputError(f"{self.folder}: is a memory with {len(self.numbers)} versions, and is kept")
        (self.folder / "stream.json").unlink(missing_ok=True)
        for folder in (self.folder / "versions", self.folder):
            if folder.is_dir() and not any(folder.iterdir()):
                folder.rmdir()

    @property
    def numbers(self) -> list[int]:
        """Numbers of the versions that there are, ascending."""
        return sorted(int(path.name) for path in (self.folder / "versions").glob("[0-9]*") if path.is_dir())

    def version(self, number: int | None = None) -> Version:
        """Return the memory after a block; the last one when ``None``.

        Raises:
            OptionError: there is no such version.
            ArtifactError: it is damaged.
        """
        there = self.numbers
        wanted = there[-1] if number is None and there else number
        if wanted not in there:
            known = f"1 to {there[-1]}" if there else "none yet"
            raise OptionError("version", wanted, fix=f"is not there; there are: {known}")
        folder = self.folder / "versions" / f"{wanted:04d}"
        return Version(folder, read_json(folder / "manifest.json"))

    def log(self, block: Path) -> ClickLog:
        """Return a block that lies in a file or folder.

        Raises:
            DataError: it cannot be read, or a column is missing.
        """
        return open_log(block, self.spec, self.layout)

    def model(self, version: Version) -> ClickModel:
        """Return the reference model of a version."""
        vocabulary = version.vocabulary()
        made = self._new_model(vocabulary.num_ids)
        made.load_state_dict(version.weights())
        return made

    def _new_model(self, num_ids: tuple[int, ...]) -> ClickModel:
        return self.settings.new_model(num_ids, self.spec.widths, Streams(self.seed))

    def take(self, log: ClickLog, context: RunContext) -> Version:
        """Fold a block in and return the new version; the others stay as they are.

        Raises:
            DataError: the block has no rows or was folded in before, begins before the last one ended, has a column
                that the first one had not, or a value that does not fit its field. The memory is as it was.
            NumericalError: a loss is not finite.
        """
        started = time.perf_counter()
        last = self.version() if self.numbers else None
        frame = log.between(int(log.times[0]), None)
        digest = content_hash(frame)
        self._check_block(log, digest, last)
        number = 1 if last is None else last.number + 1
        rng = Streams(self.seed).child(f"block {number}")
        known = ClickVocabulary.empty(self.spec) if last is None else last.vocabulary()
        vocabulary = known.grown(frame)
        block = vocabulary.encode(frame)
        del frame  # learning needs the room
        if last is None:
            model = self._new_model(vocabulary.num_ids)
            memory, seen, foreseen = ClickMemory.empty(self.spec.widths, model.tables.rows.shape[1]), 0, None
        else:
            model, memory, seen = self.model(last), last.memory(), int(last.manifest["seen"])
            model.grow(vocabulary.num_ids, rng.torch("new ids"))
            foreseen = scores_of(model, block)
        settled = sha256_of(self.settings.as_dict(), self.spec.as_dict(), self.seed, digest)[:12]
        running = replace(context, state=self.folder / f".{number:04d}.{settled}.state")
        found = fold(self.settings, memory, model, block, seen=seen, number=number, rng=rng, context=running)
        about = {
            "format": f"{FORMAT}-version",
            "format_version": FORMAT_VERSION,
            "number": number,
            "rows": len(block),
            "seen": seen + len(block),
            "clicked": float(block.labels.mean()),
            "first_time": int(log.times[0]),
            "last_time": int(log.times[-1]),
            "block_hash": digest,
            "columns": list(log.columns),
            "units": len(found.memory),
            "unit_bytes": found.memory.num_bytes,
            "new_ids": by_field(self.spec, [a - b for a, b in zip(vocabulary.num_ids, known.num_ids, strict=True)]),
            "moved": by_field(self.spec, [round(value, 6) for value in found.moved.tolist()]),
            "foreseen": foreseen,
            "trace": list(found.learnt.trace),
            "seconds": round(time.perf_counter() - started, 3),
        }
        return self._write(Version(self.folder / "versions" / f"{number:04d}", about), vocabulary, model, found.memory)

    def _check_block(self, log: ClickLog, digest: str, last: Version | None) -> None:
        for number in self.numbers:
            if self.version(number).manifest["block_hash"] == digest:
                told = f"holds the rows that were folded in as version {number}; the memory is as it was"
                raise DataError(told, fix="give the block that follows", path=log.path)
        if last is None:
            return
        new = sorted(set(log.columns) - set(self.version(1).manifest["columns"]))
        if new:
            told = f"has a column {new[0]!r} that the first block had not"
            raise DataError(told, fix="leave it out, or begin a new memory that reads it", path=log.path)
        ended = int(last.manifest["last_time"])
        if self.spec.time is not None and int(log.times[0]) < ended:
            told = f"begins at {log.times[0]}, and version {last.number} ended at {ended}"
            fix = "give blocks in the order of time"
            raise DataError(told, fix=fix, path=log.path, column=self.spec.time)

    def _write(self, version: Version, vocabulary: ClickVocabulary, model: ClickModel, memory: ClickMemory) -> Version:
        with atomic_folder(version.folder) as temporary:
            vocabulary.save(temporary)
            write_tensors(temporary / "memory.safetensors", memory.tensors())
            write_tensors(temporary / "reference.safetensors", dict(model.state_dict()))
            files = {path.name: sha256(path) for path in sorted(temporary.iterdir())}
            write_json(temporary / "manifest.json", version.manifest | {"files": files})
        return self.version(version.number)


def is_memory(folder: Path) -> bool:
    """Return whether a folder is a memory, perhaps one without a block."""
    try:
        told = read_json(folder / "stream.json")
    except (ArtifactError, OSError):
        return False
    return isinstance(told, dict) and told.get("format") == FORMAT


def scores_of(model: ClickModel, block: ClickBlock) -> dict[str, float] | None:
    """Return how well a model foresees a block before it learns it; ``None`` where all labels are the same."""
    if block.labels.min() == block.labels.max():
        return None
    return click_scores(block.labels, predicted(model, block), block.groups).as_dict()


def by_field(spec: ClickSpec, values: list[Any]) -> dict[str, Any]:
    """Return one value per field, by its name."""
    return dict(zip(spec.names, values, strict=True))


def content_hash(frame: pl.DataFrame) -> str:
    """Return a SHA-256 of the rows in order, whatever file they came from."""
    digest = hashlib.sha256()
    lists = [name for name, dtype in frame.schema.items() if isinstance(dtype, pl.List)]
    plain = frame.with_columns(pl.col(lists).list.eval(pl.element().cast(pl.String)).list.join("|")) if lists else frame
    for start in range(0, frame.height, CHUNK):
        digest.update(plain.slice(start, CHUNK).write_csv().encode())
    return digest.hexdigest()
