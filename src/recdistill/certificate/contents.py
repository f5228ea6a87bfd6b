"""What a certificate says about rows themselves: which items they hold, and how near they are to real users."""

from pathlib import Path

import numpy as np

from recdistill.certificate.record import Near
from recdistill.data.development import Development
from recdistill.data.distilled import DistilledDataset, Manifest
from recdistill.data.rows import HardRows, Rows, SoftRows
from recdistill.evaluation.long_tail import PARTS, ItemParts, rows_coverage
from recdistill.evaluation.privacy import Nearness, likeliest, nearness, nearness_of_users
from recdistill.rng import Streams

COMPARED_USERS = 1_000
"""Real users whose nearness to others is what nearness of rows is compared with."""


def about_rows(
    folder: Path | None, train: Development, parts: ItemParts, counts: np.ndarray
) -> tuple[dict[str, float | None], Near | None]:
    """Return the part of the items of head, torso and tail that rows hold, and how near they are to real users.

    Rows of distributions are compared with users by their likeliest items, because a distribution over many items is
    far from everyone whatever it was learnt from.

    Args:
        folder: a distilled dataset; ``None`` for all data.
        train: the data, and their users.
        parts: head, torso and tail.
        counts: training events of each item; index 0 is padding.
    """
    if folder is None:
        there = counts > 0
        shares = [
            float(there[parts.part_of == index].mean()) if parts.items[name] else None
            for index, name in enumerate(PARTS)
        ]
        return dict(zip(PARTS, shares, strict=True)), None
    rows = DistilledDataset.load(folder).rows
    return rows_coverage(rows, parts), near_rows(rows, train)


def near_rows(rows: Rows, train: Development) -> Near | None:
    """Return how near rows are to one real user each, or ``None`` where there are no sequences."""
    if not isinstance(rows, HardRows | SoftRows) or len(rows) == 0:
        return None
    sequences = likeliest(rows) if isinstance(rows, SoftRows) else rows
    return _near(nearness(sequences, train.histories, train.num_items))


def near_users(train: Development, manifest: Manifest) -> Near | None:
    """Return how near real users' sequences, as long as the rows, are to the nearest other user."""
    if manifest.length < 2:
        return None
    rng = Streams(0).numpy("nearness")
    return _near(
        nearness_of_users(train.histories, train.num_items, length=manifest.length, count=COMPARED_USERS, rng=rng)
    )


def _near(found: Nearness) -> Near:
    return Near(median=round(found.median, 4), minimum=round(found.minimum, 4), copied=round(found.copied_share, 4))
