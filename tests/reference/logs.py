"""Tiny generated logs."""

from pathlib import Path

import numpy as np


def write_ring(path: Path, *, users: int = 40, seed: int = 0) -> Path:
    """Return a CSV file of walks round a ring of 25 items, 6 to 13 events a user."""
    rng = np.random.default_rng(seed)
    rows = ["user_id,item_id,timestamp"]
    for user in range(users):
        start, count = int(rng.integers(25)), int(rng.integers(6, 14))
        rows += [f"u{user},i{(start + step) % 25},{1000 + 97 * user + 60 * step}" for step in range(count)]
    path.write_text("\n".join(rows) + "\n")
    return path
