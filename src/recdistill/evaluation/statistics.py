"""Means and intervals over seeds and users, comparisons of two methods, and which models differ at all.

Every interval over seeds and users comes from one rule, :func:`half_width`, for a mean of values by seed and user; a
ratio is first written as such a mean. It is no bootstrap: with a handful of seeds, drawing them again understates what
they do, because there are few ways to draw them, and drawing both seeds and users counts three times what is left when
both are accounted for. How often the intervals hold the truth stands in ``results/benchmarks/interval_coverage.json``.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float
from scipy.special import stdtrit

from recdistill.errors import InputError

LEVEL = (0.025, 0.975)
"""Quantiles that bound a 95 % interval."""
PART = 1 << 22
"""Numbers drawn at a time."""
MANY = 20_000
"""Users from which on the sum of random signs is taken to be normal."""
CLEAR = 3.0
"""Standard errors by which a mean must lie above 0 to be divided by."""


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


def half_width(values: Float[np.ndarray, "S U"]) -> float:
    """Return half the length of the 95 % interval of the mean of values by seed and user.

    A value is the sum of a mean, an effect of its seed, one of its user, and a rest; all are drawn at random, from more
    seeds and users than are there. With ``a`` for the variance of the means of the seeds over S, and ``b`` for the
    mean covariance of two seeds over users, over U, the variance of the mean is estimated without bias by ``a + b``:
    the means of the seeds vary with the rest too, and what all seeds have in common is the users. The half width is the
    root of that times a t-quantile, whose degrees of freedom are the harmonic mean of S - 1 and U - 1 with the weights
    ``a`` and ``b``. Where users outweigh seeds it is the normal interval, where seeds outweigh users the t-interval of
    S values. If all parts are normal, it covers 94 to 96.5 % with three seeds or more, whatever their sizes; with two
    seeds 96 % while users outweigh them, and down to 90.5 % where they vary 20 times as much as the users do.

    One seed says nothing about others: the interval holds users alone. One user says nothing about others either.
    Values of one user must not stand as several users.

    Args:
        values: by seed and user; the users are the same in all seeds.

    Reference: Searle, Casella and McCulloch, Variance Components, 1992, chapter 4 (two-way crossed, random).
    Satterthwaite, An Approximate Distribution of Estimates of Variance Components, Biometrics 1946. Owen, The
    pigeonhole bootstrap, Annals of Applied Statistics 2007 (what drawing both ways overstates).

    Departures: Satterthwaite weighs with the squares of the two shares. The shares being estimated, that covers down to
    92 % with three seeds and 87 % with two.
    """
    by_seed, by_user = _variance_over_seeds(values), _covariance_over_users(values)
    total = by_seed + by_user
    if total <= 0:
        return 0.0
    seeds, users = (max(1, size - 1) for size in values.shape)
    freedom = total / (by_seed / seeds + by_user / users)
    return float(stdtrit(freedom, LEVEL[1])) * math.sqrt(total)


def _variance_over_seeds(values: Float[np.ndarray, "S U"]) -> float:
    """Return the variance of the mean of the seeds that their own means show; 0 for one seed."""
    seeds = len(values)
    return float(values.mean(axis=1).var(ddof=1)) / seeds if seeds > 1 else 0.0


def _covariance_over_users(values: Float[np.ndarray, "S U"]) -> float:
    """Return the mean covariance of two seeds over users, over their number; for one seed the variance of its users."""
    seeds, users = values.shape
    if users < 2:
        return 0.0
    averaged = float(values.mean(axis=0).var(ddof=1))
    if seeds == 1:
        return averaged / users
    single = float(np.mean([one.var(ddof=1) for one in values]))
    return max(0.0, averaged - (single - averaged) / (seeds - 1)) / users


def mean_interval(values: Float[np.ndarray, "S U"]) -> Interval:
    """Return the mean of values by seed and user with its 95 % interval, see :func:`half_width`."""
    value, half = float(values.mean()), half_width(values)
    return Interval(value, value - half, value + half)


@dataclass(frozen=True)
class Comparison:
    """How one method does beside another, on the same users and seeds.

    Args:
        difference: mean of the first minus mean of the second.
        ratio: mean of the first over mean of the second; ``None`` where the second is not clearly above 0.
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
    first: Float[np.ndarray, "S U"], second: Float[np.ndarray, "_ _"], rng: np.random.Generator, *, flips: int = 10_000
) -> Comparison:
    """Return how ``first`` does beside ``second``.

    The intervals account for seeds and users, see :func:`half_width`; that of the ratio is :func:`mean_ratio`'s. The
    p-value takes the seeds as they are: it asks whether users favour one of the two, see :func:`sign_flip_p`.

    Args:
        first, second: one metric per seed and user, (S, U), in the same order of both.
        rng: where sign flips are drawn from.
        flips: number of sign flips, where not all can be tried.

    Raises:
        InputError: the two have not the same seeds and users, or there are none.
    """
    ratio = mean_ratio([(first, second)])
    differences = first - second
    per_user = differences.mean(axis=0)
    return Comparison(
        difference=mean_interval(differences),
        ratio=ratio,
        effect=_effect(per_user),
        p=sign_flip_p(per_user, rng, flips=flips),
        seeds=first.shape[0],
        users=first.shape[1],
    )


def mean_ratio(pairs: Iterable[tuple[Float[np.ndarray, "S U"], Float[np.ndarray, "_ _"]]]) -> Interval | None:
    """Return the mean over models of each one's mean score over its own mean score on something else.

    The interval is that of the ratio's linear form: a model's ratio ``r = x / y`` changes with the score ``a`` over the
    score ``b`` of a user in a seed as ``(a - r b) / y``. It is taken on the logarithm of the mean ratio, because a
    ratio of few hits errs further up than down. Models are given, and are not drawn themselves.

    Args:
        pairs: for each model the two metrics by seed and user, (S, U); the same seeds and users for all models.

    Returns: ``None`` where a model's second mean lies within ``CLEAR`` standard errors of 0.

    Raises:
        InputError: a model's two metrics have not the same seeds and users, or there are none, or no models.
    """
    ratios: list[float] = []
    changes = np.zeros((0, 0))
    for first, second in pairs:
        if first.shape != second.shape or first.size == 0 or (ratios and first.shape != changes.shape):
            raise InputError(
                f"cannot compare {first.shape} with {second.shape} values: seeds and users must be the same"
            )
        below = float(second.mean())
        if below <= CLEAR * math.sqrt(_variance_over_seeds(second) + _covariance_over_users(second)):
            return None
        ratios.append(float(first.mean()) / below)
        change = (first - ratios[-1] * second) / below
        changes = change if len(ratios) == 1 else changes + change
    if not ratios:
        raise InputError("no models are given; a mean of ratios needs one or more")
    value, half = float(np.mean(ratios)), half_width(changes / len(ratios))
    if value <= 0:
        return Interval(value, value - half, value + half)
    factor = math.exp(half / value)
    return Interval(value, value / factor, value * factor)


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


def _draws(size: int, count: int, rng: np.random.Generator) -> Float[np.ndarray, "count size"]:
    """Return, for each resample, the share of the draws that fell on each of ``size`` units."""
    drawn = rng.integers(0, size, (count, size)) + size * np.arange(count)[:, None]
    return np.bincount(drawn.ravel(), minlength=count * size).reshape(count, size) / size


def _effect(per_user: Float[np.ndarray, " U"]) -> float | None:
    spread = float(per_user.std(ddof=1)) if len(per_user) > 1 else 0.0
    return float(per_user.mean()) / spread if spread > 1e-12 else None


def sign_flip_p(differences: Float[np.ndarray, " U"], rng: np.random.Generator, *, flips: int = 10_000) -> float:
    """Return the two-sided p-value of a mean of paired differences.

    Under the null hypothesis each difference has either sign with equal chance. All patterns of signs are tried where
    there are at most ``flips`` of them; otherwise ``flips`` are drawn, and the data as they are count as one more, so
    that no p-value is 0. From ``MANY`` differences on, the sum of random signs is normal for all that ``flips`` drawn
    patterns could show, and nothing is drawn.

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
    if len(moved) >= MANY:
        return max(1 / (1 + flips), math.erfc(bound / math.sqrt(2 * float((moved**2).sum()))))
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
