"""Ranks and metrics as loops over plain numbers."""

import math
from collections.abc import Sequence


def rank_of(target: float, rivals: Sequence[float]) -> int:
    """Return the worst rank of ``target`` among itself and ``rivals``."""
    rank = 1
    for rival in rivals:
        if rival >= target:
            rank += 1
    return rank


def hit_rate(rank: int, k: int) -> float:
    return 1.0 if rank <= k else 0.0


def ndcg(rank: int, k: int) -> float:
    """Return discounted gain over ideal gain of a list with one relevant item."""
    gain = 0.0
    for place in range(1, k + 1):
        if place == rank:
            gain += 1 / (math.log(place + 1) / math.log(2))
    return gain / 1.0


def mrr(rank: int, k: int) -> float:
    for place in range(1, k + 1):
        if place == rank:
            return 1 / place
    return 0.0


METRICS = {"HR": hit_rate, "NDCG": ndcg, "MRR": mrr}


def full_rank(scores: Sequence[float], target: int, seen: set[int]) -> int:
    """Return the rank of item ``target`` among all items not ``seen``; ``scores[i]`` belongs to item ``i + 1``."""
    rivals = [score for item, score in enumerate(scores, start=1) if item != target and item not in seen]
    return rank_of(scores[target - 1], rivals)
