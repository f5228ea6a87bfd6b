"""Intervals over seeds and users as loops over plain numbers, and plausible scores drawn one by one."""

import math
from collections.abc import Callable, Sequence
from itertools import combinations

import numpy as np
from scipy import stats

Table = Sequence[Sequence[float]]
"""One value by seed and user."""


def covariance(first: Sequence[float], second: Sequence[float]) -> float:
    one, two = math.fsum(first) / len(first), math.fsum(second) / len(second)
    return math.fsum((a - one) * (b - two) for a, b in zip(first, second, strict=True)) / (len(first) - 1)


def half_width(values: Table) -> float:
    """Return half the 95 % interval of the mean: what seeds' means vary, and what two seeds share of their users."""
    seeds, users = len(values), len(values[0])
    if seeds == 1:
        from_seeds, from_users = 0.0, covariance(values[0], values[0]) / users
    else:
        means = [sum(row) / users for row in values]
        from_seeds = covariance(means, means) / seeds
        shared = [covariance(values[one], values[two]) for one, two in combinations(range(seeds), 2)]
        from_users = max(0.0, sum(shared) / len(shared)) / users
    total = from_seeds + from_users
    if total == 0:
        return 0.0
    inverse = from_users / total / (users - 1) + (from_seeds / total / (seeds - 1) if from_seeds else 0.0)
    return float(stats.t.ppf(0.975, 1 / inverse)) * math.sqrt(total)


def linear_form(statistic: Callable[[np.ndarray], float], seeds: int, users: int, step: float = 1e-6) -> Table:
    """Return how a statistic of weights by seed and user changes as weight moves to one seed and user.

    The weights are those of the plain mean, and add up to 1.
    """
    even = np.full((seeds, users), 1 / (seeds * users))
    table = []
    for seed in range(seeds):
        row = []
        for user in range(users):
            one = np.zeros((seeds, users))
            one[seed, user] = 1.0
            up, down = (statistic((1 - sign * step) * even + sign * step * one) for sign in (1, -1))
            row.append((up - down) / (2 * step))
        table.append(row)
    return table


def covariance_of_means(scores: np.ndarray) -> np.ndarray:
    """Return the part of users in the covariance of mean scores; scores by model, seed and user, two or more seeds."""
    models, seeds, users = scores.shape
    found = np.zeros((models, models))
    for one in range(models):
        for two in range(models):
            shared = [
                covariance(scores[one, first], scores[two, second])
                for first in range(seeds)
                for second in range(seeds)
                if first != second
            ]
            found[one, two] = sum(shared) / len(shared) / users
    return found


def covariance_of_seeds(by_seed: np.ndarray, shared_seeds: int) -> np.ndarray:
    """Return, model by model, the part of seeds in the covariance of its two mean scores; by dataset, model, seed."""
    _, models, seeds = by_seed.shape
    own = []
    for model in range(models):
        moved = [by_seed[side, model] - by_seed[side].mean(axis=0) for side in range(2)]
        own.append([[covariance(a, b) * models / (models - 1) for a in moved] for b in moved])
    found = np.array(own)
    freedom = seeds - 1
    return (freedom * found + shared_seeds * found.mean(axis=0)) / (freedom + shared_seeds) / seeds


def groups(means: np.ndarray, noise: np.ndarray, far: float) -> list[set[int]]:
    """Return models joined, again and again, with those within ``far`` standard errors on either dataset."""
    _, models = means.shape
    found = [{model} for model in range(models)]
    for one, two in combinations(range(models), 2):
        for side in range(2):
            own = noise[side, :, side]
            error = math.sqrt(own[one, one] + own[two, two] - 2 * own[one, two])
            if abs(means[side, one] - means[side, two]) <= far * error:
                joined = [group for group in found if one in group or two in group]
                found = [group for group in found if group not in joined] + [set().union(*joined)]
    return found


def plausible(
    means: np.ndarray, noise: np.ndarray, rng: np.random.Generator, draws: int, *, smallest: float, far: float
) -> np.ndarray:
    """Return drawn true scores (draws, 2, M), without the level of each group of models: each group adds up to 0.

    Each draw: a covariance of the two datasets (inverse Wishart of what is seen, minus the mean noise, raised where
    that is too small), and then scores from the normal distribution given the measured ones, whose level is unknown.
    """
    _, models = means.shape
    parts = groups(means, noise, far)
    same = np.array([[any({one, two} <= part for part in parts) for two in range(models)] for one in range(models)])
    centre = np.eye(models) - same / same.sum(axis=0)
    freedom = models - len(parts)
    scatter = means @ centre @ means.T
    mean_noise = np.array([[np.trace(centre @ noise[a, :, b]) / freedom for b in range(2)] for a in range(2)])
    root = np.linalg.cholesky(mean_noise)
    flat = noise.reshape(2 * models, 2 * models)
    unknown = 1e4 * np.kron(np.eye(2), same)
    found = []
    for total in stats.invwishart(freedom, scatter).rvs(draws, random_state=rng):
        white = np.linalg.solve(root, np.linalg.solve(root, total).T)
        values, vectors = np.linalg.eigh(white)
        between = sum(max(values[i] - 1, smallest) * np.outer(v, v) for i, v in enumerate(vectors.T))
        prior = np.kron(root @ between @ root.T, np.eye(models)) + unknown
        gain = prior @ np.linalg.inv(prior + flat)
        spread = prior - gain @ prior
        drawn = rng.multivariate_normal(gain @ means.ravel(), (spread + spread.T) / 2, check_valid="ignore")
        found.append(drawn.reshape(2, models) @ centre)
    return np.array(found)
