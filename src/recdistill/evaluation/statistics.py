"""Means and intervals over seeds."""

from dataclasses import dataclass

import numpy as np


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
    low, high = np.quantile(means, [0.025, 0.975])
    return Estimate(float(array.mean()), float(low), float(high), tuple(array.tolist()))
