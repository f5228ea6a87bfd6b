"""What the selectors share: from chosen users to rows."""

import numpy as np
import torch
from jaxtyping import Int

from recdistill.data.development import Development
from recdistill.data.rows import HardRows
from recdistill.data.sequences import gather_spans


def usable_users(train: Development) -> Int[np.ndarray, " users"]:
    """Return the users with at least two training events: one to read, one to predict."""
    return np.flatnonzero(train.histories.train_lengths() >= 2)


def last_items(train: Development, users: Int[np.ndarray, " N"], length: int) -> HardRows:
    """Return the last ``length`` training items of each user."""
    stop = train.histories.train_end[users]
    start = np.maximum(train.histories.offsets[:-1][users], stop - length)
    ids = gather_spans(train.histories.items, start, stop)
    return HardRows(ids, torch.from_numpy(stop - start))


def top_users(users: Int[np.ndarray, " n"], keys: np.ndarray, count: int, rng: np.random.Generator) -> np.ndarray:
    """Return the ``count`` users with the largest keys, ties broken at random."""
    shuffled = rng.permutation(len(users))
    order = np.argsort(-keys[users][shuffled], kind="stable")
    return users[shuffled][order][:count]
