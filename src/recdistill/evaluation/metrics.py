"""Ranking metrics of one relevant item, as functions of its rank.

A rank is 1 plus the number of candidates that score at least as high as the target: ties count against the model, so a
constant scorer gets the worst rank, never the best.
"""

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from recdistill.errors import NumericalError

CUTOFFS = (5, 10, 20)


def hit_rate(ranks: Int[Tensor, " N"], k: int) -> Float[Tensor, " N"]:
    """Return 1 where the rank is at most ``k``, else 0. With one relevant item this is also recall."""
    return (ranks <= k).double()


def ndcg(ranks: Int[Tensor, " N"], k: int) -> Float[Tensor, " N"]:
    """Return ``1 / log2(rank + 1)`` where the rank is at most ``k``, else 0 (the ideal gain is 1)."""
    return torch.where(ranks <= k, 1.0 / torch.log2(ranks.double() + 1.0), 0.0)


def mrr(ranks: Int[Tensor, " N"], k: int) -> Float[Tensor, " N"]:
    """Return ``1 / rank`` where the rank is at most ``k``, else 0."""
    return torch.where(ranks <= k, 1.0 / ranks.double(), 0.0)


METRICS = {"HR": hit_rate, "NDCG": ndcg, "MRR": mrr}
METRIC_NAMES = tuple(f"{name}@{k}" for name in METRICS for k in CUTOFFS)


def per_case(ranks: Int[Tensor, " N"], cutoffs: tuple[int, ...] = CUTOFFS) -> dict[str, Float[Tensor, " N"]]:
    """Return every metric at every cutoff, one value per held-out event, named like ``NDCG@10``."""
    return {f"{name}@{k}": metric(ranks, k) for name, metric in METRICS.items() for k in cutoffs}


def pessimistic_ranks(
    scores: Float[Tensor, "N C"], target_scores: Float[Tensor, " N"], counted: Bool[Tensor, "N C"]
) -> Int[Tensor, " N"]:
    """Return ``1 + #{counted candidates with score >= target}``.

    Args:
        scores: scores of the candidates.
        target_scores: score of the target, from the same computation.
        counted: which candidates take part; must be false for the target itself, for padding and for seen items.

    Raises:
        NumericalError: a counted score or a target score is NaN.
    """
    if torch.isnan(target_scores).any() or torch.isnan(scores).logical_and(counted).any():
        raise NumericalError(
            "a score is NaN", stage="evaluation", step=0, cause="the model has NaN weights; train it again"
        )
    return 1 + (scores >= target_scores.unsqueeze(1)).logical_and(counted).sum(1)
