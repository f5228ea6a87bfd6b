"""Metrics of predicted clicks: how well they are ordered, and how well they are chances."""

from dataclasses import asdict, dataclass

import numpy as np
import torch
from jaxtyping import Float, Int
from scipy.special import expit
from scipy.stats import rankdata

from recdistill.data.clicks.block import ClickBlock
from recdistill.errors import InputError, NumericalError, require_at_least
from recdistill.models.clicks.base import ClickModel

BINS = 20
"""Bins of the calibration error."""


@dataclass(frozen=True)
class ClickScores:
    """How good the predictions of a sample are."""

    auc: float
    """Chance that a clicked row is above one that is not; half of ties."""
    log_loss: float
    """Mean cross-entropy, in nats."""
    grouped_auc: float | None
    """Mean AUC within groups that have clicked rows and others, weighted by rows; ``None`` without such groups."""
    calibration_error: float
    """Mean difference between predicted and measured rates in bins of equal counts of predictions, absolute."""

    def as_dict(self) -> dict[str, float]:
        """Return the metrics by name, those that there are."""
        return {name: value for name, value in asdict(self).items() if value is not None}


def click_scores(
    labels: Float[np.ndarray, " n"], logits: Float[np.ndarray, " n"], groups: Int[np.ndarray, " n"] | None = None
) -> ClickScores:
    """Return all metrics of some predictions.

    Args:
        labels: 0 or 1, both of them.
        logits: of the chances.
        groups: of each row, any numbers; ``None`` for no groups.

    Raises:
        InputError: all labels are the same.
        NumericalError: a logit is not finite.
    """
    if not np.isfinite(logits).all():
        row = int(np.flatnonzero(~np.isfinite(logits))[0])
        what = f"the predicted logit is {logits[row]}"
        raise NumericalError(what, stage="scoring clicks", step=row + 1, cause="the model has diverged in training")
    if labels.min() == labels.max():
        told = f"all {len(labels):,} labels are {labels[0]:g}"
        raise InputError(f"{told}, and AUC compares clicked rows with others; give a sample with both")
    return ClickScores(
        auc(labels, logits),
        log_loss(labels, logits),
        None if groups is None else grouped_auc(labels, logits, groups),
        calibration_error(labels, logits),
    )


@torch.no_grad()
def predicted(model: ClickModel, block: ClickBlock, batch_size: int = 8192) -> Float[np.ndarray, " n"]:
    """Return the logit of every row of a block, without dropout."""
    device = model.last.weight.device
    parts = [model.logits(model.embed(batch.to(device))).cpu() for batch in block.batches(batch_size)]
    found: np.ndarray = torch.cat(parts).numpy()
    return found


def auc(labels: Float[np.ndarray, " n"], scores: Float[np.ndarray, " n"]) -> float:
    """Return the area under the ROC curve, from the ranks of the clicked rows; ties count half.

    Reference: Hanley and McNeil, The meaning and use of the area under a receiver operating characteristic curve,
    Radiology 1982.
    """
    clicked = labels > 0.5
    positives, negatives = int(clicked.sum()), int((~clicked).sum())
    ranks = rankdata(scores)
    return float((ranks[clicked].sum() - positives * (positives + 1) / 2) / (positives * negatives))


def log_loss(labels: Float[np.ndarray, " n"], logits: Float[np.ndarray, " n"]) -> float:
    """Return the mean cross-entropy, in nats: ``log(1 + e^z) - y z``; exact for large logits."""
    wide = logits.astype(np.float64)
    return float((np.logaddexp(0.0, wide) - labels * wide).mean())


def grouped_auc(
    labels: Float[np.ndarray, " n"], scores: Float[np.ndarray, " n"], groups: Int[np.ndarray, " n"]
) -> float | None:
    """Return the mean AUC over groups with rows of both labels, weighted by their rows; ``None`` where there is none.

    Reference: Zhu et al., Optimized Cost per Click in Taobao Display Advertising, KDD 2017, equation 8.
    """
    order = np.lexsort((scores, groups))
    group, score, clicked = groups[order], scores[order], labels[order] > 0.5
    new_group = np.append(True, group[1:] != group[:-1])
    new_value = new_group | np.append(True, score[1:] != score[:-1])
    first, runs = np.flatnonzero(new_group), np.flatnonzero(new_value)
    lengths, rows = np.diff(np.append(runs, len(group))), np.diff(np.append(first, len(group)))
    places = np.repeat(runs + (lengths + 1) / 2, lengths)  # equal scores share the mean of theirs
    ranks = places - np.repeat(first, rows)  # from 1 within a group
    positives = np.add.reduceat(clicked.astype(np.float64), first)
    both = (positives > 0) & (positives < rows)
    if not both.any():
        return None
    pairs = np.add.reduceat(ranks * clicked, first) - positives * (positives + 1) / 2
    return float(np.average(pairs[both] / (positives * (rows - positives))[both], weights=rows[both]))


def calibration_error(labels: Float[np.ndarray, " n"], logits: Float[np.ndarray, " n"], bins: int = BINS) -> float:
    """Return the expected calibration error over bins with equal numbers of rows, in order of the prediction.

    Reference: Naeini, Cooper and Hauskrecht, Obtaining Well Calibrated Probabilities Using Bayesian Binning, AAAI 2015;
    bins of equal counts as Nguyen and O'Connor, EMNLP 2015, have them.
    """
    require_at_least(1, bins=bins)
    order = np.argsort(logits, kind="stable")
    gaps = expit(logits.astype(np.float64)) - labels
    parts = np.array_split(gaps[order], min(bins, len(labels)))
    return float(sum(abs(part.sum()) for part in parts) / len(labels))
