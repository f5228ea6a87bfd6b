"""The files of a prepared dataset: writing all of them, and checking that they are whole."""

import io
import platform
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

import recdistill
from recdistill.data.log import InteractionLog
from recdistill.data.splits import TEST, TRAIN, VALID, Split
from recdistill.errors import ArtifactError
from recdistill.storage import read_json, sha256

FORMAT, VERSION = "recdistill-prepared", 1
MANIFEST = "manifest.json"
ARRAYS = ("history_items.npy", "history_offsets.npy", "train_end.npy", "valid_end.npy")
FILES = ("interactions.parquet", "users.parquet", "items.parquet", *ARRAYS)
REMAKE = "make the dataset again with recdistill prepare --overwrite"

_PARTS = {"train": TRAIN, "valid": VALID, "test": TEST}
_NUMBERS = dict.fromkeys(("users", "items", "interactions", "train_bytes"), int)
_KEYS: dict[str, type] = {"name": str, "hash": str, "files": dict, **_NUMBERS}


def write(folder: Path, split: Split) -> dict[str, Any]:
    """Return the manifest of a split, without source and settings, after writing all other files."""
    users = split.vocabulary.encode_users(split.log.frame["user_id"])
    items = split.vocabulary.encode_items(split.log.frame["item_id"])
    _rows(split, users, items).write_parquet(folder / "interactions.parquet", compression="zstd")
    for name, table in _tables(split).items():
        table.write_parquet(folder / name, compression="zstd")
    for name, array in histories(users, items, split.part, split.vocabulary.num_users).items():
        np.save(folder / f"{name}.npy", array)
    return {
        "format": FORMAT,
        "format_version": VERSION,
        "name": split.log.name,
        "users": split.vocabulary.num_users,
        "items": split.vocabulary.num_items,
        "interactions": split.log.num_interactions,
        **{f"{name}_interactions": int((split.part == part).sum()) for name, part in _PARTS.items()},
        "has_clock": split.log.has_clock,
        "hash": split.hash,
        "content_hash": split.log.content_hash,
        "split": split.how.as_dict(),
        "train_bytes": parquet_bytes(split.train),
        "versions": _versions(),
        "files": {name: sha256(folder / name) for name in FILES},
    }


def histories(
    users: NDArray[np.int32], items: NDArray[np.int32], part: NDArray[np.int8], num_users: int
) -> dict[str, NDArray[Any]]:
    """Return the four history arrays of time-sorted rows.

    Args:
        users: user index of every row, 0 .. U - 1.
        items: item index of every row.
        part: 0, 1 or 2 of every row.
        num_users: U.
    """
    key = users.astype(np.int64) * 3 + part
    counts = np.bincount(key, minlength=3 * num_users).reshape(num_users, 3)
    ends = np.cumsum(counts.ravel()).reshape(num_users, 3)
    return {
        "history_items": items[np.argsort(key, kind="stable")],
        "history_offsets": np.concatenate([[0], ends[:, 2]]).astype(np.int64),
        "train_end": ends[:, 0].astype(np.int64),
        "valid_end": ends[:, 1].astype(np.int64),
    }


def parquet_bytes(log: InteractionLog) -> int:
    """Return the size of a log as one zstd Parquet file of user, item, time and rating, in bytes."""
    columns = ["user_id", "item_id", log.order, *(["rating"] if "rating" in log.frame.columns else [])]
    buffer = io.BytesIO()
    log.frame.select(columns).write_parquet(buffer, compression="zstd")
    return buffer.getbuffer().nbytes


def _rows(split: Split, users: NDArray[np.int32], items: NDArray[np.int32]) -> pl.DataFrame:
    """Return the rows with indices in place of ids."""
    rest = _without_clash(split.log.frame.drop("user_id", "item_id"), ("user", "item", "part", "block"))
    columns = [
        pl.Series("user", users),
        pl.Series("item", items),
        *rest.get_columns(),
        pl.Series("part", split.part),
    ]
    return pl.DataFrame(columns if split.block is None else [*columns, pl.Series("block", split.block)])


def _tables(split: Split) -> dict[str, pl.DataFrame]:
    """Return users and items with their attributes."""
    users, items = split.vocabulary.users_frame(), split.vocabulary.items_frame()
    if split.log.users is not None:
        attributes = _without_clash(split.log.users, ("user",))
        users = users.join(attributes, on="user_id", how="left", maintain_order="left")
    if split.log.items is not None:
        attributes = _without_clash(split.log.items, ("item",))
        items = items.join(attributes, on="item_id", how="left", maintain_order="left")
    if "title" not in items.columns:
        items = items.with_columns(pl.lit(None, dtype=pl.String).alias("title"))
    items = items.select("item", "item_id", "title", pl.exclude("item", "item_id", "title"))
    return {"users.parquet": users, "items.parquet": items}


def _without_clash(frame: pl.DataFrame, names: tuple[str, ...]) -> pl.DataFrame:
    """Return the frame with columns of these names called ``NAME_source``."""
    return frame.rename({name: f"{name}_source" for name in names if name in frame.columns})


def _versions() -> dict[str, str]:
    """Return the versions of what wrote the files."""
    return {
        "python": platform.python_version(),
        "polars": pl.__version__,
        "numpy": np.__version__,
        "recdistill": recdistill.__version__,
    }


def is_prepared(folder: Path) -> bool:
    """Return whether a folder holds a prepared dataset of any version, whole or damaged."""
    try:
        manifest = read_json(folder / MANIFEST)
    except (ArtifactError, OSError):
        return False
    return isinstance(manifest, dict) and manifest.get("format") == FORMAT


def read_manifest(folder: Path) -> dict[str, Any]:
    """Return the manifest of a prepared dataset.

    Raises:
        ArtifactError: the folder is missing, is something else, or was written by a newer recdistill.
    """
    if not folder.exists():
        raise ArtifactError("does not exist", fix="check the path", path=folder)
    if not (folder / MANIFEST).is_file():
        fix = f"if it is raw data, run 'recdistill prepare {folder} OUT' first and give OUT"
        raise ArtifactError("is not a prepared dataset (it has no manifest.json)", fix=fix, path=folder)
    manifest = read_json(folder / MANIFEST)
    kind = manifest.get("format") if isinstance(manifest, dict) else None
    if kind != FORMAT:
        told = f"is {kind!r}, not a prepared dataset" if kind else "has a manifest.json of something else"
        raise ArtifactError(told, fix="give the folder that recdistill prepare wrote", path=folder)
    version = manifest.get("format_version")
    if not isinstance(version, int) or version > VERSION:
        told = f"has format version {version}, written by a newer recdistill; this one knows {VERSION}"
        raise ArtifactError(told, fix="update recdistill", path=folder)
    wrong = [key for key, kind in _KEYS.items() if not isinstance(manifest.get(key), kind)]
    if wrong:
        raise ArtifactError(f"has no usable {', '.join(wrong)}", fix=REMAKE, path=folder / MANIFEST)
    return manifest


def check_files(folder: Path, manifest: dict[str, Any], verify: bool) -> None:
    """Raise ArtifactError when a file is missing, or, with ``verify``, is not the one that was written."""
    for name in FILES:
        path = folder / name
        if not path.is_file():
            raise ArtifactError("is missing", fix=REMAKE, path=path)
        if verify and sha256(path) != manifest["files"].get(name):
            raise ArtifactError("was changed: its SHA-256 is not the one in manifest.json", fix=REMAKE, path=path)
    for name, key in (("interactions", "interactions"), ("users", "users"), ("items", "items")):
        path = folder / f"{name}.parquet"
        try:
            rows = pl.scan_parquet(path).select(pl.len()).collect().item()
        except (pl.exceptions.PolarsError, pl.exceptions.PanicException, OSError) as error:
            told = f"is not a readable Parquet file ({str(error).splitlines()[0]})"
            raise ArtifactError(told, fix=REMAKE, path=path) from None
        if rows != manifest[key]:
            told = f"holds {rows} rows where manifest.json says {manifest[key]}"
            raise ArtifactError(told, fix=REMAKE, path=path)
