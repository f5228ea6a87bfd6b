"""Scores of many models trained on one thing, user by user, and how two such panels compare.

Whatever compares panels takes the seeds in which all models in question are finished in all of them.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from recdistill.evaluation.fidelity import agreement, noise_ceiling, pairwise_accuracy
from recdistill.evaluation.statistics import Interval, compare, mean_ratio, separated
from recdistill.rng import Streams
from recipes.collect import finished, per_user, rounded
from recipes.jobs import Scored

Row = dict[str, Any]
METRIC, PROTOCOL = "NDCG@10", "full"


@dataclass(frozen=True)
class Panel:
    """Models trained on all data or on one kind of artifact.

    Args:
        scores: one per held-out event, by model and seed.
    """

    scores: Mapping[str, Mapping[int, np.ndarray]]

    @staticmethod
    def read(cells: Mapping[str, Sequence[Scored]]) -> "Panel":
        """Return the finished ones of the cells of each model."""

        def by_seed(some: Sequence[Scored]) -> dict[int, np.ndarray]:
            return {cell.place.seed: per_user([cell], METRIC, PROTOCOL)[0] for cell in finished(some)}

        return Panel({model: by_seed(some) for model, some in cells.items()})

    def seeds(self, models: Sequence[str]) -> set[int]:
        """Return the seeds in which all of some models are finished."""
        return set[int].intersection(*(set(self.scores[model]) for model in models))

    def stack(self, models: Sequence[str], seeds: Sequence[int]) -> np.ndarray:
        """Return the scores, (models, seeds, events)."""
        return np.stack([np.stack([self.scores[model][seed] for seed in seeds]) for model in models])

    def means(self, models: Sequence[str], seeds: Sequence[int]) -> np.ndarray:
        """Return the score of each model over some seeds."""
        found: np.ndarray = self.stack(models, seeds).mean(axis=(1, 2))
        return found


def shared(models: Sequence[str], *panels: Panel) -> list[int]:
    """Return the seeds in which some models are finished in all panels."""
    return sorted(set[int].intersection(*(panel.seeds(models) for panel in panels)))


def ratio(part: Panel, whole: Panel, models: Sequence[str]) -> Interval | None:
    """Return the mean ratio of each model to itself, or ``None`` where there are no seeds or nothing to divide by."""
    seeds = shared(models, part, whole)
    if not seeds:
        return None
    return mean_ratio(part.stack(models, seeds), whole.stack(models, seeds), Streams(0).numpy("ratio"))


def difference(first: Panel, second: Panel, models: Sequence[str]) -> Row | None:
    """Return how one panel does beside another, averaged over models first, paired by user and seed."""
    seeds = shared(models, first, second)
    if not seeds:
        return None
    ours, theirs = (panel.stack(models, seeds).mean(axis=0) for panel in (first, second))
    return asdict(compare(ours, theirs, Streams(0).numpy("comparison")))


def ranking(part: Panel, whole: Panel, models: Sequence[str]) -> Row | None:
    """Return whether ``part`` ranks models as ``whole`` does.

    Which pairs are apart is decided by all seeds that ``whole`` has, also where ``part`` has fewer.
    """
    seeds = shared(models, part, whole)
    if not seeds:
        return None
    reference, scores = whole.means(models, seeds), part.means(models, seeds)
    pairs = apart(whole, models)
    accuracy = None if pairs is None else pairwise_accuracy(reference, scores, pairs)
    return rounded({"seeds": len(seeds), **asdict(agreement(reference, scores)), "pairwise_accuracy": accuracy})


def by_seed(whole: Panel, models: Sequence[str]) -> np.ndarray:
    """Return the score of each model in each seed, (seeds, models)."""
    return whole.stack(models, shared(models, whole)).mean(axis=2).T


def apart(whole: Panel, models: Sequence[str]) -> np.ndarray | None:
    """Return which pairs of models differ by more than seeds explain, or ``None`` with fewer than two seeds."""
    if len(whole.seeds(models)) < 2:
        return None
    return separated(by_seed(whole, models), Streams(0).numpy("separated"))


def noise(whole: Panel, models: Sequence[str]) -> Row | None:
    """Return how well the full data agree with themselves, or ``None`` with fewer than two seeds."""
    pairs = apart(whole, models)
    if pairs is None:
        return None
    count, ceiling = len(models), noise_ceiling(by_seed(whole, models))
    found = {"ceiling": ceiling, "pairs_apart": int(pairs.sum()) // 2, "pairs": count * (count - 1) // 2}
    return {"seeds": len(whole.seeds(models)), **rounded(found)}
