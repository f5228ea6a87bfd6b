"""Scores of many models trained on one thing, event by event, and how two such panels compare.

A panel is full data, a distilled dataset or a control. Whatever compares panels takes the seeds in which all models in
question are there in all of them. Events are the same in all panels, in the same order.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass

import numpy as np
from jaxtyping import Bool, Float

from recdistill.errors import InputError
from recdistill.evaluation.fidelity import Agreement, agreement, noise_ceiling, pairwise_accuracy
from recdistill.evaluation.statistics import (
    Comparison,
    Interval,
    compare,
    interval_of,
    mean_ratio,
    mean_score,
    resampled_means,
    separated,
)
from recdistill.rng import Streams

RESAMPLES = 2_000
"""Draws of seeds and events behind the interval of a ranking."""


@dataclass(frozen=True)
class Panel:
    """Models trained on all data or on one summary of them.

    Args:
        scores: one per held-out event, by model and seed; 0 or more.
    """

    scores: Mapping[str, Mapping[int, Float[np.ndarray, " events"]]]

    def seeds(self, models: Sequence[str]) -> set[int]:
        """Return the seeds in which all of some models are there."""
        return set[int].intersection(*(set(self.scores[model]) for model in models))

    def stack(self, models: Sequence[str], seeds: Sequence[int]) -> Float[np.ndarray, "M S U"]:
        """Return the scores of models and seeds that are there."""
        return np.stack([np.stack([self.scores[model][seed] for seed in seeds]) for model in models])

    def means(self, models: Sequence[str], seeds: Sequence[int]) -> Float[np.ndarray, " M"]:
        """Return the score of each model over some seeds."""
        found: np.ndarray = self.stack(models, seeds).mean(axis=(1, 2))
        return found

    def by_seed(self, models: Sequence[str]) -> Float[np.ndarray, "S M"]:
        """Return the score of each model in each seed that all of them have."""
        return self.stack(models, shared(models, self)).mean(axis=2).T


def shared(models: Sequence[str], *panels: Panel) -> list[int]:
    """Return the seeds in which some models are there in all panels."""
    return sorted(set[int].intersection(*(panel.seeds(models) for panel in panels)))


def average(panel: Panel, models: Sequence[str]) -> Interval | None:
    """Return the mean score of some models over seeds and users, or ``None`` where they share no seed."""
    seeds = shared(models, panel)
    if not seeds:
        return None
    return mean_score(panel.stack(models, seeds), Streams(0).numpy("average"))


def ratio(part: Panel, whole: Panel, models: Sequence[str]) -> Interval | None:
    """Return the mean ratio of each model to itself, or ``None`` where there are no seeds or nothing to divide by."""
    seeds = shared(models, part, whole)
    if not seeds:
        return None
    return mean_ratio(part.stack(models, seeds), whole.stack(models, seeds), Streams(0).numpy("ratio"))


def difference(first: Panel, second: Panel, models: Sequence[str]) -> Comparison | None:
    """Return how one panel does beside another, averaged over models first, paired by event and seed."""
    seeds = shared(models, first, second)
    if not seeds:
        return None
    ours, theirs = (panel.stack(models, seeds).mean(axis=0) for panel in (first, second))
    return compare(ours, theirs, Streams(0).numpy("comparison"))


@dataclass(frozen=True)
class Ranking(Agreement):
    """How a panel ranks models as another does, with what chance may have done to it.

    Args:
        seeds: over which scores are averaged.
        pairwise_accuracy: part of the pairs that the reference tells apart which are ordered as there; ``None`` where
            it tells none apart or has fewer than two seeds.
        tau_interval: 95 % of the values of ``tau`` under drawn seeds and events, the same ones in both panels. Drawing
            adds noise, and noise lowers tau: the interval reaches too far down rather than too far up.
        regret_interval: the same of ``regret``.
    """

    seeds: int
    pairwise_accuracy: float | None
    tau_interval: Interval | None
    regret_interval: Interval


def ranking(part: Panel, whole: Panel, models: Sequence[str]) -> Ranking | None:
    """Return whether ``part`` ranks models as ``whole`` does, or ``None`` where they share no seed.

    Which pairs are apart is decided by all seeds that ``whole`` has, also where ``part`` has fewer.

    Raises:
        InputError: there are fewer than two models.
    """
    if len(models) < 2:
        raise InputError(f"{len(models)} model cannot be ranked; two or more are needed")
    seeds = shared(models, part, whole)
    if not seeds:
        return None
    reference, scores = whole.stack(models, seeds), part.stack(models, seeds)
    found = agreement(reference.mean(axis=(1, 2)), scores.mean(axis=(1, 2)))
    pairs = apart(whole, models)
    accuracy = None
    if pairs is not None:
        accuracy = pairwise_accuracy(reference.mean(axis=(1, 2)), scores.mean(axis=(1, 2)), pairs)
    taus, regrets = _resampled(reference, scores)
    tau_interval = None if found.tau is None or np.isnan(taus).any() else interval_of(found.tau, taus)
    return Ranking(
        **asdict(found),
        seeds=len(seeds),
        pairwise_accuracy=accuracy,
        tau_interval=tau_interval,
        regret_interval=interval_of(found.regret, regrets),
    )


def _resampled(
    reference: Float[np.ndarray, "M S U"], scores: Float[np.ndarray, "M S U"]
) -> tuple[Float[np.ndarray, " R"], Float[np.ndarray, " R"]]:
    """Return tau and regret of drawn seeds and events, the same ones for all models of both."""
    drawn = resampled_means(np.concatenate([reference, scores]), Streams(0).numpy("ranking"), RESAMPLES)
    ours, theirs = np.split(np.concatenate(list(drawn)), 2, axis=1)
    best = ours.max(axis=1)
    taken = np.where(theirs == theirs.max(axis=1, keepdims=True), ours, np.inf).min(axis=1)
    lost = np.divide(best - taken, best, out=np.zeros_like(best), where=best > 0)
    return taus_of(ours, theirs), lost


def taus_of(first: Float[np.ndarray, "R M"], second: Float[np.ndarray, "R M"]) -> Float[np.ndarray, " R"]:
    """Return Kendall's tau-b of each pair of rows; NaN where a row gives all models one score."""
    left, right = np.triu_indices(first.shape[1], 1)
    ours, theirs = (np.sign(some[:, left] - some[:, right]) for some in (first, second))
    untied = np.sqrt((ours**2).sum(axis=1) * (theirs**2).sum(axis=1))
    return np.divide((ours * theirs).sum(axis=1), untied, out=np.full(len(untied), np.nan), where=untied > 0)


def apart(whole: Panel, models: Sequence[str]) -> Bool[np.ndarray, "M M"] | None:
    """Return which pairs of models differ by more than seeds explain, or ``None`` with fewer than two seeds."""
    if len(whole.seeds(models)) < 2:
        return None
    return separated(whole.by_seed(models), Streams(0).numpy("separated"))


@dataclass(frozen=True)
class Noise:
    """How well a panel agrees with itself.

    Args:
        seeds: that it has.
        ceiling: mean tau between disjoint halves of the seeds; ``None`` where all models tie in a half.
        pairs_apart: pairs of models that differ by more than seeds explain.
        pairs: all pairs.
    """

    seeds: int
    ceiling: float | None
    pairs_apart: int
    pairs: int


def noise(whole: Panel, models: Sequence[str]) -> Noise | None:
    """Return how well the full data agree with themselves, or ``None`` with fewer than two seeds."""
    pairs = apart(whole, models)
    if pairs is None:
        return None
    scores, count = whole.by_seed(models), len(models)
    return Noise(len(scores), noise_ceiling(scores), int(pairs.sum()) // 2, count * (count - 1) // 2)
