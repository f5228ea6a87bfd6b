"""Which samples of a block are hard for the models on its way, label by label."""

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from recdistill.errors import OptionError, require_at_least, require_rate


def el2n(logits: Float[Tensor, "J n"], labels: Float[Tensor, " n"]) -> Float[Tensor, " n"]:
    """Return the mean distance between predicted and true label over checkpoints: ``sqrt(2) mean_j |p_j - y|``.

    With two classes the distance of ``[1 - p, p]`` from the one-hot label is exactly that.

    Args:
        logits: of every checkpoint (J) for every sample.
        labels: 0 or 1.

    Reference: Paul, Ganguli and Dziugaite, Deep Learning on a Data Diet, NeurIPS 2021, arXiv 2107.07075, definition of
    EL2N; DIET scores with checkpoints of the reference model, conditioned on the label.
    """
    return 2**0.5 * (torch.sigmoid(logits) - labels).abs().mean(0)


def hardest_by_label(
    scores: Float[np.ndarray, " n"],
    labels: Float[np.ndarray, " n"],
    count: int,
    *,
    positive_rate: float | None = None,
    drop: float = 0.05,
) -> Int[np.ndarray, " m"]:
    """Return the rows of the largest scores within each label, in order of row.

    One ranking for all labels would take almost only the rare one, whose errors are largest, and shift the rate of
    clicks. The very largest of a label are often wrong labels and are left out, as long as enough remain.

    Args:
        scores: larger is harder.
        labels: 0 or 1.
        count: rows to take, at most as many as there are.
        positive_rate: share of clicked rows among them; that of ``labels`` when ``None``. A label with too few rows
            gives all of them, and the other one the rest.
        drop: share of each label's largest scores that is left out, in [0, 1).

    Raises:
        OptionError: ``count`` is below 0 or larger than the number of rows, or a share is out of its range.

    Reference: DIET's label-conditioned EL2N; what is left out follows NaCS and CCS. Both shares are ours.
    """
    require_at_least(0, count=count)
    require_rate(drop=drop)
    if count > len(scores):
        raise OptionError("count", count, fix=f"is more than the {len(scores):,} rows there are; ask for fewer")
    clicked = labels > 0.5
    rate = float(clicked.mean()) if positive_rate is None and len(labels) else positive_rate or 0.0
    if not 0 <= rate <= 1:
        raise OptionError("positive_rate", rate, fix="must lie in [0, 1]")
    positives = int(np.clip(round(rate * count), count - int((~clicked).sum()), int(clicked.sum())))
    parts = [(np.flatnonzero(clicked), positives), (np.flatnonzero(~clicked), count - positives)]
    return np.sort(np.concatenate([_hardest(scores, rows, wanted, drop) for rows, wanted in parts]))


def _hardest(scores: np.ndarray, rows: np.ndarray, wanted: int, drop: float) -> np.ndarray:
    order = rows[np.argsort(-scores[rows], kind="stable")]
    dropped = min(int(drop * len(rows)), len(rows) - wanted)
    return order[dropped : dropped + wanted]
