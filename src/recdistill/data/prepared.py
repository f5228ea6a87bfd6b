"""Prepared datasets: a raw log, filtered, split, and written once as memory-mapped histories.

Layout of the folder, format version 1:

    manifest.json            sizes, hashes, source, settings, split
    interactions.parquet     user, item, timestamp | position, other columns, part, [block]; time-sorted
    users.parquet            user 0 .. U - 1, user_id, attributes
    items.parquet            item 1 .. V, item_id, title, attributes
    history_items.npy        items of all users, users in index order, oldest first
    history_offsets.npy      user u owns [offsets[u], offsets[u + 1])
    train_end.npy            his train part is [offsets[u], train_end[u])
    valid_end.npy            his valid part is [train_end[u], valid_end[u]), and his test part the rest
"""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from recdistill.data import folder as layout
from recdistill.data.log import InteractionLog
from recdistill.data.readers import find_reader
from recdistill.data.readers.base import Reader
from recdistill.data.spec import PrepareSpec
from recdistill.errors import ArtifactError, InputError
from recdistill.progress import SILENT, Progress
from recdistill.storage import atomic_folder, read_json, refuse_existing, sha256, write_json

__all__ = ["PrepareSpec", "PreparedDataset", "prepare"]

_STEPS = ("compare", "read", "filter", "split", "write")


@dataclass(frozen=True)
class PreparedDataset:
    """A prepared dataset on disk; arrays are memory-mapped when first asked for."""

    folder: Path
    """Where it lies."""
    manifest: dict[str, Any]
    """Content of manifest.json."""
    cached: bool = False
    """Whether :func:`prepare` found it made already."""

    @classmethod
    def open(cls, folder: Path, verify: bool = True) -> "PreparedDataset":
        """Return the prepared dataset in a folder.

        Args:
            folder: what :func:`prepare` wrote.
            verify: also compare the SHA-256 of every file with the manifest.

        Raises:
            ArtifactError: the folder is none, is damaged, or was written by a newer recdistill.
        """
        manifest = layout.read_manifest(folder)
        layout.check_files(folder, manifest, verify)
        dataset = cls(folder, manifest)
        dataset._check_arrays()
        return dataset

    @property
    def name(self) -> str:
        """Name of the data."""
        return str(self.manifest["name"])

    @property
    def num_users(self) -> int:
        """Number of users, U."""
        return int(self.manifest["users"])

    @property
    def num_items(self) -> int:
        """Number of items without padding, V."""
        return int(self.manifest["items"])

    @property
    def hash(self) -> str:
        """SHA-256 that names content and split."""
        return str(self.manifest["hash"])

    @property
    def train_bytes(self) -> int:
        """Size of the training part as zstd Parquet, in bytes; a distilled dataset is compared with it."""
        return int(self.manifest["train_bytes"])

    @cached_property
    def history_items(self) -> NDArray[np.int32]:
        """Items of all users, oldest first; (n,)."""
        return self._array("history_items")

    @cached_property
    def history_offsets(self) -> NDArray[np.int64]:
        """Where the history of every user begins; (U + 1,)."""
        return self._array("history_offsets")

    @cached_property
    def train_end(self) -> NDArray[np.int64]:
        """Where the train part of every user ends; (U,)."""
        return self._array("train_end")

    @cached_property
    def valid_end(self) -> NDArray[np.int64]:
        """Where the valid part of every user ends; (U,)."""
        return self._array("valid_end")

    def items(self) -> pl.DataFrame:
        """Return the items 1 .. V with all their attributes: ``item``, ``item_id``, ``title`` and more."""
        return pl.read_parquet(self.folder / "items.parquet")

    def item_titles(self) -> list[str | None]:
        """Return the titles of items 1 .. V; None where unknown."""
        return pl.read_parquet(self.folder / "items.parquet", columns=["title"])["title"].to_list()

    def _array(self, name: str) -> NDArray[Any]:
        path = self.folder / f"{name}.npy"
        try:
            return np.load(path, mmap_mode="r", allow_pickle=False)
        except (ValueError, EOFError, OSError) as error:
            raise ArtifactError(f"is not a readable array ({error})", fix=layout.REMAKE, path=path) from None

    def _check_arrays(self) -> None:
        """Raise when shapes, types or ranges do not fit the manifest."""
        users, rows = self.num_users, int(self.manifest["interactions"])
        expected = {
            "history_items": (np.dtype(np.int32), (rows,)),
            "history_offsets": (np.dtype(np.int64), (users + 1,)),
            "train_end": (np.dtype(np.int64), (users,)),
            "valid_end": (np.dtype(np.int64), (users,)),
        }
        for name, (dtype, shape) in expected.items():
            found = self._array(name)
            if found.dtype != dtype or found.shape != shape:
                told = f"holds {found.dtype} {found.shape} where {dtype} {shape} is expected"
                raise ArtifactError(told, fix=layout.REMAKE, path=self.folder / f"{name}.npy")
        self._check_ranges(rows)

    def _check_ranges(self, rows: int) -> None:
        """Raise when an item or an offset lies outside its range."""
        offsets, items = self.history_offsets, self.history_items
        ordered = (
            (offsets[:-1] <= self.train_end) & (self.train_end <= self.valid_end) & (self.valid_end <= offsets[1:])
        )
        if offsets[0] != 0 or offsets[-1] != rows or not ordered.all():
            told = "offsets are not in order"
            raise ArtifactError(told, fix=layout.REMAKE, path=self.folder / "history_offsets.npy")
        if rows and not 1 <= items.min() <= items.max() <= self.num_items:
            told = f"items are not in 1 .. {self.num_items}"
            raise ArtifactError(told, fix=layout.REMAKE, path=self.folder / "history_items.npy")


def prepare(
    source: Path, out: Path, spec: PrepareSpec, *, overwrite: bool = False, progress: Progress = SILENT
) -> PreparedDataset:
    """Return the prepared dataset in ``out``, made from a raw source unless it is there already.

    Args:
        source: raw file or folder.
        out: folder to write; the same source and settings as before are found and returned (``cached``).
        spec: what to do.
        overwrite: replace another prepared dataset in ``out``; any other folder is never replaced.
        progress: told of every step.

    Raises:
        DataError: the source does not hold what it must; nothing is written.
        OptionError: an option has no use for this source.
        InputError: ``out`` holds something else.
        ArtifactError: ``out`` holds this dataset, damaged.
    """
    source, out = Path(source), Path(out)
    reader = find_reader(source, spec.format)
    reader.check(spec.read_options())
    progress("prepare", 0, len(_STEPS), _STEPS[0])
    origin = _source(reader, source)
    if (found := _existing(out, origin, spec, overwrite)) is not None:
        progress("prepare", len(_STEPS), len(_STEPS), "cached")
        return found
    progress("prepare", 1, len(_STEPS), f"{_STEPS[1]} {reader.name}")
    log = _named(reader.read(source, spec.read_options()), spec.name)
    progress("prepare", 2, len(_STEPS), _STEPS[2])
    log = spec.filtered(log)
    progress("prepare", 3, len(_STEPS), _STEPS[3])
    split = spec.divided(log)
    progress("prepare", 4, len(_STEPS), _STEPS[4])
    with atomic_folder(out, replace=overwrite) as folder:
        manifest = layout.write(folder, split)
        manifest |= {"source": origin, "spec": spec.as_dict()}
        write_json(folder / layout.MANIFEST, manifest)
    progress("prepare", len(_STEPS), len(_STEPS), "done")
    return PreparedDataset.open(out, verify=False)


def _named(log: InteractionLog, name: str | None) -> InteractionLog:
    """Return the log under the name that was asked for."""
    return log if name is None else InteractionLog(frame=log.frame, items=log.items, users=log.users, name=name)


def _source(reader: Reader, source: Path) -> dict[str, Any]:
    """Return the name and SHA-256 of every file that would be read, and the format."""
    base = source if source.is_dir() else source.parent
    files = {file.relative_to(base).as_posix(): sha256(file) for file in reader.inputs(source)}
    return {"files": files, "format": reader.name}


def _existing(out: Path, origin: dict[str, Any], spec: PrepareSpec, overwrite: bool) -> PreparedDataset | None:
    """Return the same dataset when ``out`` holds it, and None when ``out`` may be written.

    Raises:
        InputError: ``out`` holds something that may not be replaced.
    """
    if not out.exists() or (out.is_dir() and not any(out.iterdir())):
        return None
    if out.is_file():
        refuse_existing(out)
    if not layout.is_prepared(out):
        told = "holds files that are no prepared dataset, and is never replaced"
        raise InputError(f"{out}: {told}; choose another name for the result")
    manifest = read_json(out / layout.MANIFEST)
    differs = _differences(manifest, origin, spec)
    if not differs:
        try:
            found = PreparedDataset.open(out)
            return PreparedDataset(found.folder, found.manifest, cached=True)
        except ArtifactError:
            if not overwrite:
                raise
    if not overwrite:
        told = f"holds a dataset prepared with another {', '.join(differs)}"
        raise InputError(f"{out}: {told}; choose another name, or pass --overwrite to replace it")
    return None


def _differences(manifest: dict[str, Any], origin: dict[str, Any], spec: PrepareSpec) -> list[str]:
    """Return what differs between a dataset on disk and the one that is asked for, in words."""
    old, new = {**manifest.get("spec", {}), "format": None}, {**spec.as_dict(), "format": None}
    words = [f"{key} ({old.get(key)!r} there, {value!r} asked)" for key, value in new.items() if old.get(key) != value]
    return [*(["source"] if manifest.get("source") != origin else []), *words]
