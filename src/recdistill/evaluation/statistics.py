"""Means and intervals over seeds, comparisons of two methods user by user, and which models differ at all."""

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float

from recdistill.errors import InputError

LEVEL = (0.025, 0.975)
"""Quantiles that bound a 95 % interval."""
PART = 1 << 22
"""Numbers drawn at a time."""


@dataclass(frozen=True)
class Estimate:
    """A mean with its 95 % interval.

    Args:
        mean: of the values.
        low, high: ends of the interval.
        values: one per seed.
    """

    mean: float
    low: float
    high: float
    values: tuple[float, ...]


def estimate(values: list[float], rng: np.random.Generator, *, resamples: int = 10_000) -> Estimate:
    """Return the mean of values over seeds with its 95 % percentile bootstrap interval.

    With few seeds the interval is too narrow (three values resample to ten different means); it shows spread and
    supports no claim by itself.

    Args:
        values: one per seed, at least one.
        rng: where the resamples are drawn from.
        resamples: how many.

    Reference: Efron and Tibshirani, An Introduction to the Bootstrap, 1993, chapter 13.
    """
    array = np.asarray(values, dtype=float)
    means = array[rng.integers(0, len(array), (resamples, len(array)))].mean(axis=1)
    low, high = np.quantile(means, LEVEL)
    return Estimate(float(array.mean()), float(low), float(high), tuple(array.tolist()))


@dataclass(frozen=True)
class Interval:
    """A value with its 95 % interval.

    Args:
        value: of the data as they are.
        low, high: ends of the interval.
    """

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Comparison:
    """How one method does beside another, on the same users and seeds.

    Args:
        difference: mean of the first minus mean of the second.
        ratio: mean of the first over mean of the second; ``None`` where the second is 0 in any resample.
        effect: standardised mean difference over users (Cohen's d_z): the mean over users of each user's mean
            difference over seeds, divided by its standard deviation over users. ``None`` where all users have the same.
        p: two-sided p-value of the sign flips, not corrected for other comparisons.
        seeds, users: how many were compared.
    """

    difference: Interval
    ratio: Interval | None
    effect: float | None
    p: float
    seeds: int
    users: int


def compare(
    first: Float[np.ndarray, "S U"],
    second: Float[np.ndarray, "_ _"],
    rng: np.random.Generator,
    *,
    resamples: int = 2_000,
    flips: int = 10_000,
) -> Comparison:
    """Return how ``first`` does beside ``second``.

    The intervals come from a bootstrap in two stages: seeds are drawn, and then users. The users are the same people in
    every seed, so one draw of users serves all drawn seeds; drawing them anew for each would let their differences
    average out and give intervals that are too narrow. With few seeds the first stage is coarse, see :func:`estimate`.

    The p-value takes the seeds as they are: it asks whether users favour one of the two, see :func:`sign_flip_p`.

    Args:
        first, second: one metric per seed and user, (S, U), in the same order of both.
        rng: where resamples and sign flips are drawn from.
        resamples: number of bootstrap resamples.
        flips: number of sign flips, where not all can be tried.

    Raises:
        InputError: the two have not the same seeds and users, or there are none.

    Reference: Owen, The pigeonhole bootstrap, Annals of Applied Statistics 2007.
    """
    if first.shape != second.shape or first.size == 0:
        raise InputError(f"cannot compare {first.shape} with {second.shape} values: seeds and users must be the same")
    means = np.concatenate(list(resampled_means(np.stack([first, second]), rng, resamples)))
    per_user = (first - second).mean(axis=0)
    ratio = None
    if second.mean() > 0 and means[:, 1].min() > 0:
        ratio = interval_of(float(first.mean() / second.mean()), means[:, 0] / means[:, 1])
    return Comparison(
        difference=interval_of(float(per_user.mean()), means[:, 0] - means[:, 1]),
        ratio=ratio,
        effect=_effect(per_user),
        p=sign_flip_p(per_user, rng, flips=flips),
        seeds=first.shape[0],
        users=first.shape[1],
    )


def mean_score(
    values: Float[np.ndarray, "M S U"], rng: np.random.Generator, *, resamples: int = 2_000
) -> Interval:
    """Return the mean over models, seeds and users; the interval is that of :func:`compare`.

    Args:
        values: one metric per model, seed and user.
        rng: where resamples are drawn from.
        resamples: number of bootstrap resamples.
    """
    means = np.concatenate(list(resampled_means(values, rng, resamples))).mean(axis=1)
    return interval_of(float(values.mean()), means)


def mean_ratio(
    first: Float[np.ndarray, "M S U"],
    second: Float[np.ndarray, "_ _ _"],
    rng: np.random.Generator,
    *,
    resamples: int = 2_000,
) -> Interval | None:
    """Return the mean over models of each one's score in ``first`` over its own score in ``second``.

    The interval is that of :func:`compare`, with the same seeds and users drawn for all models: these are given, and
    are not drawn themselves.

    Args:
        first, second: one metric per model, seed and user, (M, S, U), in the same order of both.
        rng: where resamples are drawn from.
        resamples: number of bootstrap resamples.

    Returns: ``None`` where a model has 0 in ``second`` in any resample.

    Raises:
        InputError: the two have not the same models, seeds and users, or there are none.
    """
    if first.shape != second.shape or first.size == 0:
        raise InputError(f"cannot compare {first.shape} with {second.shape} values: all must be the same")
    means = np.concatenate(list(resampled_means(np.concatenate([first, second]), rng, resamples)))
    above, below = np.split(means, 2, axis=1)
    values, whole = first.mean(axis=(1, 2)), second.mean(axis=(1, 2))
    if whole.min() <= 0 or below.min() <= 0:
        return None
    return interval_of(float((values / whole).mean()), (above / below).mean(axis=1))


def separated(
    scores: Float[np.ndarray, "S M"], rng: np.random.Generator, *, resamples: int = 10_000
) -> Bool[np.ndarray, "M M"]:
    """Return which pairs of models are told apart: the 95 % bootstrap interval of their difference excludes 0.

    Seeds are drawn, the same ones for both models of a pair. With few seeds, that is little more than whether all seeds
    agree on the order, see :func:`estimate`.

    Args:
        scores: one per seed and model, at least two seeds.
        rng: where resamples are drawn from.
        resamples: number of bootstrap resamples.

    Raises:
        InputError: one seed cannot tell anything apart.
    """
    if len(scores) < 2:
        raise InputError(f"{len(scores)} seeds cannot tell models apart; two or more are needed")
    differences = scores[:, :, None] - scores[:, None, :]
    drawn = np.tensordot(_draws(len(scores), resamples, rng), differences, axes=1)  # (resamples, M, M)
    low, high = np.quantile(drawn, LEVEL, axis=0)
    apart: np.ndarray = (low > 0) | (high < 0)
    return apart


def resampled_means(
    values: Float[np.ndarray, "methods S U"], rng: np.random.Generator, resamples: int
) -> Iterator[Float[np.ndarray, "part methods"]]:
    """Yield the means of all methods under drawn seeds and users, some resamples at a time."""
    _, seeds, users = values.shape
    step = max(1, PART // users)
    for start in range(0, resamples, step):
        count = min(step, resamples - start)
        seed_weights = _draws(seeds, count, rng)
        user_weights = _draws(users, count, rng)
        yield np.stack([np.einsum("rs,rs->r", seed_weights, user_weights @ one.T) for one in values], axis=1)


def _draws(size: int, count: int, rng: np.random.Generator) -> Float[np.ndarray, "count size"]:
    """Return, for each resample, the share of the draws that fell on each of ``size`` units."""
    drawn = rng.integers(0, size, (count, size)) + size * np.arange(count)[:, None]
    return np.bincount(drawn.ravel(), minlength=count * size).reshape(count, size) / size


def interval_of(value: float, resampled: np.ndarray) -> Interval:
    """Return a value with the 95 % percentile interval of its resampled values."""
    low, high = np.quantile(resampled, LEVEL)
    return Interval(value, float(low), float(high))


def _effect(per_user: Float[np.ndarray, " U"]) -> float | None:
    spread = float(per_user.std(ddof=1)) if len(per_user) > 1 else 0.0
    return float(per_user.mean()) / spread if spread > 1e-12 else None


def sign_flip_p(differences: Float[np.ndarray, " U"], rng: np.random.Generator, *, flips: int = 10_000) -> float:
    """Return the two-sided p-value of a mean of paired differences.

    Under the null hypothesis each difference has either sign with equal chance. All patterns of signs are tried where
    there are at most ``flips`` of them; otherwise ``flips`` are drawn, and the data as they are count as one more, so
    that no p-value is 0.

    Args:
        differences: one per user.
        rng: where signs are drawn from.
        flips: number of patterns to draw.

    Reference: Smucker, Allan and Carterette, A Comparison of Statistical Significance Tests for Information Retrieval
    Evaluation, CIKM 2007.
    """
    moved = differences[differences != 0]
    if len(moved) == 0:
        return 1.0
    bound = abs(float(moved.sum())) * (1 - 1e-9)  # equal sums in another order of addition must count
    if 2 ** len(moved) <= flips:
        patterns = (np.arange(2 ** len(moved))[:, None] >> np.arange(len(moved))) & 1
        return float((np.abs((2 * patterns - 1) @ moved) >= bound).mean())
    extreme, step = 0, max(1, PART // len(moved))
    for start in range(0, flips, step):
        signs = 2 * rng.integers(0, 2, (min(step, flips - start), len(moved)), dtype=np.int8) - 1
        extreme += int((np.abs(signs @ moved) >= bound).sum())
    return (1 + extreme) / (1 + flips)


def holm(p_values: list[float]) -> list[float]:
    """Return p-values corrected for their number, in the same order (Holm's step-down method).

    Reference: Holm, A Simple Sequentially Rejective Multiple Test Procedure, Scandinavian Journal of Statistics 1979.
    """
    corrected, largest = [math.nan] * len(p_values), 0.0
    for rank, index in enumerate(sorted(range(len(p_values)), key=lambda index: p_values[index])):
        largest = max(largest, min(1.0, (len(p_values) - rank) * p_values[index]))
        corrected[index] = largest
    return corrected
