"""Inputs small enough to check by hand."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import polars as pl
import torch

from recdistill.data.development import Development
from recdistill.data.sequences import Histories
from recdistill.models.sasrec import SASRec

NUM_ITEMS = 20
HELD_OUT = (19, 20)
"""Items of :func:`random_histories` that occur in no training part."""


def histories_of_lists(
    train: Sequence[Sequence[int]], valid: Sequence[Sequence[int]], test: Sequence[Sequence[int]]
) -> Histories:
    """Return histories from one list of items per user and part."""
    items: list[int] = []
    offsets, train_end, valid_end = [0], [], []
    for ours, theirs, last in zip(train, valid, test, strict=True):
        items += ours
        train_end.append(len(items))
        items += theirs
        valid_end.append(len(items))
        items += last
        offsets.append(len(items))
    return Histories(
        np.array(items, dtype=np.int32),
        np.array(offsets, dtype=np.int64),
        np.array(train_end, dtype=np.int64),
        np.array(valid_end, dtype=np.int64),
    )


def random_histories(num_users: int, *, seed: int, held_out: tuple[int, int] = HELD_OUT) -> Histories:
    """Return walks round a ring of 18 items, 2 to 14 training events each, then one valid and one test event."""
    rng = np.random.default_rng(seed)
    train = []
    for _ in range(num_users):
        steps = rng.choice([1, 1, 1, 2], size=rng.integers(2, 15))
        train.append(((rng.integers(0, 18) + np.cumsum(steps)) % 18 + 1).tolist())
    return histories_of_lists(train, [[held_out[0]]] * num_users, [[held_out[1]]] * num_users)


def development(histories: Histories, **changes: Any) -> Development:
    """Return what a distiller sees of ``histories``; user ``u`` was last active at time ``7 u mod 11``."""
    values: dict[str, Any] = {
        "name": "tiny",
        "hash": "0" * 64,
        "num_items": NUM_ITEMS,
        "histories": histories.development(),
        "items": vocabulary(NUM_ITEMS),
        "train_interactions": int(histories.train_lengths().sum()),
        "train_bytes": 1000,
        "last_train_time": np.arange(histories.num_users, dtype=np.int64) * 7 % 11,
    }
    return Development(**values | changes)


def vocabulary(num_items: int) -> pl.DataFrame:
    """Return a vocabulary of ``num_items`` items."""
    ids = list(range(1, num_items + 1))
    return pl.DataFrame({"item": ids, "item_id": [f"i{item}" for item in ids], "title": [f"T {item}" for item in ids]})


def sasrec(num_items: int = NUM_ITEMS, *, max_seq_len: int = 8, seed: int = 0, **options: Any) -> SASRec:
    """Return a SASRec of width 8."""
    settings: dict[str, Any] = {
        "embedding_dim": 8,
        "num_blocks": 1,
        "num_heads": 2,
        "inner_dim": 12,
        "dropout": 0.0,
        "attention_dropout": 0.0,
    }
    generator = torch.Generator().manual_seed(seed)
    return SASRec(num_items, max_seq_len, **settings | options, generator=generator)


def training_events(histories: Histories, user: int) -> list[int]:
    """Return the training events of one user."""
    return histories.items[histories.offsets[user] : histories.train_end[user]].tolist()
