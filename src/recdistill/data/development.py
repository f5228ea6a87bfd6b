"""What a distiller may see: the training part, the validation part for choosing, and never the test part."""

from dataclasses import dataclass

import numpy as np
import polars as pl

from recdistill.data.prepared import PreparedDataset
from recdistill.data.sequences import Histories


@dataclass(frozen=True, kw_only=True)
class Development:
    """A prepared dataset without its test part.

    Args:
        name: of the dataset.
        hash: of the split; goes into everything made from it.
        num_items: size of the catalogue, V.
        histories: training and validation events; the test part is not in the arrays.
        items: the vocabulary, columns ``item`` (1 to V), ``item_id`` and, where known, ``title``.
        train_interactions: events in the training part.
        train_bytes: size of the training log as Parquet (zstd).
        last_train_time: time of each user's last training event, seconds since 1970 UTC; ``None`` without a clock.
    """

    name: str
    hash: str
    num_items: int
    histories: Histories
    items: pl.DataFrame
    train_interactions: int
    train_bytes: int
    last_train_time: np.ndarray | None = None


def histories_of(prepared: PreparedDataset) -> Histories:
    """Return the memory-mapped histories of a prepared dataset, test part included."""
    return Histories(prepared.history_items, prepared.history_offsets, prepared.train_end, prepared.valid_end)


def development_of(prepared: PreparedDataset) -> Development:
    """Return a prepared dataset without its test part."""
    return Development(
        name=prepared.name,
        hash=prepared.hash,
        num_items=prepared.num_items,
        histories=histories_of(prepared).development(),
        items=prepared.items(),
        train_interactions=int(prepared.manifest["train_interactions"]),
        train_bytes=prepared.train_bytes,
        last_train_time=_last_train_time(prepared),
    )


def _last_train_time(prepared: PreparedDataset) -> np.ndarray | None:
    if not prepared.manifest["has_clock"]:
        return None
    latest = (
        pl.scan_parquet(prepared.folder / "interactions.parquet")
        .filter(pl.col("part") == 0)
        .group_by("user")
        .agg(pl.col("timestamp").max())
        .collect()
    )
    times = np.full(prepared.num_users, np.iinfo(np.int64).min)
    times[latest["user"].to_numpy()] = latest["timestamp"].to_numpy()
    return times
