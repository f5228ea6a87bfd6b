"""Scores of many models trained on one thing, event by event, and how two such panels compare.

A panel is full data, a distilled dataset or a control. Whatever compares panels takes the seeds in which all models in
question are there in all of them. Events are the same in all panels, in the same order.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass

import numpy as np
from jaxtyping import Bool, Float

from recdistill.errors import InputError
from recdistill.evaluation.fidelity import Agreement, agreement, noise_ceiling, pairwise_accuracy
from recdistill.evaluation.posterior import Measured, measured, plausible
from recdistill.evaluation.statistics import (
    LEVEL,
    PART,
    Comparison,
    Interval,
    compare,
    mean_interval,
    mean_ratio,
    separated,
)
from recdistill.rng import Streams

DRAWS = 2_000
"""Plausible true scores behind the interval of a ranking."""


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

    def over_models(self, models: Sequence[str], seeds: Sequence[int]) -> Float[np.ndarray, "S U"]:
        """Return the mean over models of the scores that are there; one model at a time is held beside it."""
        found = self.stack(models[:1], seeds)[0]
        for model in models[1:]:
            found += self.stack((model,), seeds)[0]
        found /= len(models)
        return found

    def seed_means(self, models: Sequence[str], seeds: Sequence[int]) -> Float[np.ndarray, "M S"]:
        """Return the score of each model in each of some seeds."""
        return np.array([[self.scores[model][seed].mean() for seed in seeds] for model in models])

    def means(self, models: Sequence[str], seeds: Sequence[int]) -> Float[np.ndarray, " M"]:
        """Return the score of each model over some seeds."""
        found: np.ndarray = self.seed_means(models, seeds).mean(axis=1)
        return found

    def by_seed(self, models: Sequence[str]) -> Float[np.ndarray, "S M"]:
        """Return the score of each model in each seed that all of them have."""
        return self.seed_means(models, shared(models, self)).T


def shared(models: Sequence[str], *panels: Panel) -> list[int]:
    """Return the seeds in which some models are there in all panels."""
    return sorted(set[int].intersection(*(panel.seeds(models) for panel in panels)))


def average(panel: Panel, models: Sequence[str]) -> Interval | None:
    """Return the mean score of some models over seeds and users, or ``None`` where they share no seed."""
    seeds = shared(models, panel)
    if not seeds:
        return None
    return mean_interval(panel.over_models(models, seeds))


def ratio(part: Panel, whole: Panel, models: Sequence[str]) -> Interval | None:
    """Return the mean ratio of each model to itself, or ``None`` where there are no seeds or nothing to divide by."""
    seeds = shared(models, part, whole)
    if not seeds:
        return None
    return mean_ratio((part.stack((model,), seeds)[0], whole.stack((model,), seeds)[0]) for model in models)


def difference(first: Panel, second: Panel, models: Sequence[str]) -> Comparison | None:
    """Return how one panel does beside another, averaged over models first, paired by event and seed."""
    seeds = shared(models, first, second)
    if not seeds:
        return None
    ours, theirs = (panel.over_models(models, seeds) for panel in (first, second))
    return compare(ours, theirs, Streams(0).numpy("comparison"))


@dataclass(frozen=True)
class Ranking(Agreement):
    """How a panel ranks models as another does, with what chance may have done to it.

    Args:
        seeds: over which scores are averaged.
        pairwise_accuracy: part of the pairs that the reference tells apart which are ordered as there; ``None`` where
            it tells none apart or has fewer than two seeds.
        tau_interval: what tau would be with any number of seeds and events, with 95 %: of true scores drawn from those
            that are plausible (:func:`~recdistill.evaluation.posterior.plausible`), reaching to ``tau`` itself where
            that lies outside. With noise ``tau`` is low: the interval may lie above it for the most part.
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
    scores = _measured(part, whole, models, seeds)
    reference, ours = scores.means
    found, pairs = agreement(reference, ours), apart(whole, models)
    tau_interval, regret_interval = agreement_intervals(found, scores, Streams(0).numpy("ranking"))
    return Ranking(
        **asdict(found),
        seeds=len(seeds),
        pairwise_accuracy=None if pairs is None else pairwise_accuracy(reference, ours, pairs),
        tau_interval=tau_interval,
        regret_interval=regret_interval,
    )


def agreement_intervals(
    found: Agreement, scores: Measured, rng: np.random.Generator, *, draws: int = DRAWS
) -> tuple[Interval | None, Interval]:
    """Return the intervals of tau and of regret, as :class:`Ranking` states them.

    Args:
        found: of the mean scores.
        scores: of the reference and of the dataset that is to rank as it does.
        rng: where plausible true scores are drawn from.
        draws: how many.
    """
    truths = plausible(scores, rng, draws)
    tau = None if found.tau is None else _around(found.tau, taus_of(*truths))
    return tau, _around(found.regret, regrets_of(*truths))


def _measured(part: Panel, whole: Panel, models: Sequence[str], seeds: Sequence[int]) -> Measured:
    """Return the scores of ``whole`` and ``part``, in this order, some events at a time."""
    panels = (whole, part)
    events = len(whole.scores[models[0]][seeds[0]])
    step = max(1, PART // (2 * len(models) * len(seeds)))

    def blocks() -> Iterator[Float[np.ndarray, "2 M S events"]]:
        for start in range(0, events, step):
            some = slice(start, start + step)
            yield np.array([[[panel.scores[m][s][some] for s in seeds] for m in models] for panel in panels])

    return measured(np.stack([panel.seed_means(models, seeds) for panel in panels]), blocks())


def _around(value: float, drawn: Float[np.ndarray, " R"]) -> Interval:
    low, high = np.nanquantile(drawn, LEVEL)
    return Interval(value, min(value, float(low)), max(value, float(high)))


def regrets_of(first: Float[np.ndarray, "R M"], second: Float[np.ndarray, "R M"]) -> Float[np.ndarray, " R"]:
    """Return, row by row, the part of the best first score that is lost by taking the model with the best second."""
    best = first.max(axis=1)
    taken = np.where(second == second.max(axis=1, keepdims=True), first, np.inf).min(axis=1)
    return np.divide(best - taken, best, out=np.zeros_like(best), where=best > 0)


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
