"""Which true scores are plausible behind measured ones, so that a ranking can be given an interval.

Ranks are not smooth. Adding noise to scores that hold noise already spreads them twice and lowers any agreement of two
rankings; so scores are drawn from what the measured ones leave open instead, which pulls them towards each other as far
as noise has driven them apart. Two datasets are looked at together, because that a model is good on one says that it is
good on the other: how strongly is learnt from the models themselves, and is uncertain too. It is learnt from models
that chance could swap: that both datasets put popularity last says nothing about the order of the others.
"""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

SEEDS_BEFORE = 4
"""Seeds whose variance all models share, as many as each model's own seeds stand beside."""
SMALLEST = 0.01
"""Least variance that true scores are given in any direction, in terms of that of the noise."""
FAR = 3.0
"""Standard errors between two models that chance does not swap."""
JITTER = 1e-12
"""Part of the trace of a matrix that is added to its diagonal: two datasets may be the same."""


@dataclass(frozen=True)
class Measured:
    """Mean scores of models on two datasets, and how far chance may have moved them.

    Args:
        means: by dataset and model.
        noise: covariance of these means.
    """

    means: Float[np.ndarray, "2 M"]
    noise: Float[np.ndarray, "2 M 2 M"]


def measured(by_seed: Float[np.ndarray, "2 M S"], blocks: Iterable[Float[np.ndarray, "2 M S _"]]) -> Measured:
    """Return the means of scores over seeds and users, with the covariance of these means.

    Its part from users is the covariance of two seeds over users, as in
    :func:`~recdistill.evaluation.statistics.half_width`, here for each pair of models. Its part from seeds takes models
    to be trained independently of each other, but a model's two scores from one seed to belong together. Few seeds say
    little about one model: their variance is averaged with that of all models, as if these were ``SEEDS_BEFORE`` more.
    What a seed does to all models of a dataset alike moves no rank and is left out.

    Args:
        by_seed: mean over all users.
        blocks: the scores of some users after the others.
    """
    _, models, seeds = by_seed.shape
    single, averaged, users = np.zeros((2 * models, 2 * models)), np.zeros((2 * models, 2 * models)), 0
    for block in blocks:
        centred = (block - by_seed[..., None]).reshape(2 * models, seeds, -1)
        single += sum(centred[:, seed] @ centred[:, seed].T for seed in range(seeds)) / seeds
        averaged += centred.mean(axis=1) @ centred.mean(axis=1).T
        users += block.shape[-1]
    shared = averaged if seeds == 1 else averaged - (single - averaged) / (seeds - 1)
    noise = _positive(shared / max(1, users - 1) / users).reshape(2, models, 2, models)
    if seeds > 1:
        every = np.arange(models)
        noise[:, every, :, every] += _seed_noise(by_seed)
    return Measured(by_seed.mean(axis=2), noise)


def _seed_noise(by_seed: Float[np.ndarray, "2 M S"]) -> Float[np.ndarray, "M 2 2"]:
    _, models, seeds = by_seed.shape
    moved = by_seed - by_seed.mean(axis=2, keepdims=True)
    moved = (moved - moved.mean(axis=1, keepdims=True)) * np.sqrt(models / (models - 1))
    own = np.einsum("ams,bms->mab", moved, moved) / (seeds - 1)
    weight = (seeds - 1) / (seeds - 1 + SEEDS_BEFORE)
    found: np.ndarray = (weight * own + (1 - weight) * own.mean(axis=0)) / seeds
    return found


def plausible(found: Measured, rng: np.random.Generator, draws: int) -> Float[np.ndarray, "2 draws M"]:
    """Return drawn true scores of all models on both datasets.

    Models fall into groups, see :func:`_groups`. Within a group, measured differences of models are normal about the
    true ones, and these are normal with a covariance of the two datasets that is unknown. The total covariance that the
    models show is drawn first (inverse Wishart), the noise is taken off it, and given what is left the true differences
    are drawn from their normal distribution. The mean of a group, and scores that leave nothing to chance, are as
    measured; so are all scores of a dataset that gives all models one.

    Args:
        found: two or more models.
        rng: where all is drawn from.
        draws: how many.

    Reference: Everson and Morris, Inference for Multivariate Normal Hierarchical Models, JRSS B 2000. Laird and Louis,
    Empirical Bayes Confidence Intervals Based on Bootstrap Samples, JASA 1987 (why the covariance must be drawn too).

    Departures: the noise of a model is not that of another, and correlated with it; its mean over models is taken off
    the drawn covariance, and what that leaves is raised to ``SMALLEST`` of the noise instead of being drawn again. The
    groups are our own: without them a model or two far from the others decide how alike the datasets are said to be.
    Two models that are just near enough to belong to the others still do.
    """
    contrasts = _contrasts(_groups(found))
    count = len(contrasts)
    seen = found.means @ contrasts.T
    noise = np.einsum("im,ambn,jn->aibj", contrasts, found.noise, contrasts)
    if np.einsum("aiai->", noise) <= JITTER * np.einsum("aiai->", found.noise):
        return np.repeat(found.means[:, None], draws, axis=1)
    between = _between(seen, np.einsum("aibi->ab", noise) / count, rng, draws)
    true = (between @ rng.standard_normal((draws, 2, count))).reshape(draws, -1)
    prior = np.einsum("rac,rbc,ij->raibj", between, between, np.eye(count)).reshape(draws, seen.size, seen.size)
    flat = noise.reshape(seen.size, seen.size)
    again = true + rng.standard_normal((draws, seen.size)) @ _root(flat).T
    gap = np.linalg.solve(_regular(prior + flat), (seen.ravel() - again)[..., None])
    drawn = (true + (prior @ gap)[..., 0]).reshape(draws, 2, count) @ contrasts
    drawn = np.moveaxis(drawn, 1, 0) + (found.means - seen @ contrasts)[:, None]
    one_score = np.ptp(found.means, axis=1) == 0
    drawn[one_score] = found.means[one_score, None]
    return drawn


def _groups(found: Measured) -> list[list[int]]:
    """Return groups of models such that between two groups chance swaps no models on either dataset.

    Two models are linked where on a dataset they lie within ``FAR`` standard errors of their difference; a group is
    what links connect.
    """
    _, models = found.means.shape
    single = np.einsum("aiai->ai", found.noise)
    apart = single[:, :, None] + single[:, None, :] - 2 * np.einsum("aiaj->aij", found.noise)
    gaps = found.means[:, :, None] - found.means[:, None, :]
    linked = (gaps**2 <= FAR**2 * np.maximum(apart, 0)).any(axis=0)
    groups, left = [], set(range(models))
    while left:
        group, fresh = set[int](), {min(left)}
        while fresh:
            group |= fresh
            fresh = {int(other) for one in fresh for other in np.flatnonzero(linked[one])} - group
        groups.append(sorted(group))
        left -= group
    return groups


def _between(
    seen: Float[np.ndarray, "2 N"], noise: Float[np.ndarray, "2 2"], rng: np.random.Generator, draws: int
) -> Float[np.ndarray, "draws 2 2"]:
    """Return roots of drawn covariances of the true differences of models on two datasets."""
    freedom = max(2, seen.shape[1])
    root = np.zeros((draws, 2, 2))  # of a Wishart matrix, after Bartlett
    root[:, 0, 0], root[:, 1, 1] = (np.sqrt(rng.chisquare(freedom - place, draws)) for place in range(2))
    root[:, 1, 0] = rng.standard_normal(draws)
    scatter = seen @ seen.T
    seen_root = np.linalg.cholesky(_regular(scatter) + JITTER * np.trace(noise) * np.eye(2))
    drawn = seen_root @ np.linalg.inv(root).swapaxes(1, 2)
    unit = np.linalg.cholesky(_regular(noise) + JITTER * np.trace(scatter) * np.eye(2))
    white = np.linalg.inv(unit) @ drawn
    values, vectors = np.linalg.eigh(white @ white.swapaxes(1, 2))
    found: np.ndarray = unit @ vectors * np.sqrt(np.maximum(values - 1, SMALLEST))[:, None, :]
    return found


def _regular(matrices: Float[np.ndarray, "*draws N N"]) -> Float[np.ndarray, "*draws N N"]:
    size = JITTER * np.trace(matrices, axis1=-2, axis2=-1)
    found: np.ndarray = matrices + size[..., None, None] * np.eye(matrices.shape[-1])
    return found


def _contrasts(groups: list[list[int]]) -> Float[np.ndarray, "N M"]:
    """Return orthonormal differences of models: each one against the mean of those before it in its group."""
    rows = []
    for group in groups:
        for place in range(1, len(group)):
            row = np.zeros(sum(map(len, groups)))
            row[group[:place]], row[group[place]] = 1.0, -place
            rows.append(row / np.linalg.norm(row))
    return np.array(rows).reshape(len(rows), sum(map(len, groups)))


def _root(matrix: Float[np.ndarray, "N N"]) -> Float[np.ndarray, "N N"]:
    values, vectors = np.linalg.eigh(matrix)
    found: np.ndarray = vectors * np.sqrt(np.maximum(values, 0))
    return found


def _positive(matrix: Float[np.ndarray, "N N"]) -> Float[np.ndarray, "N N"]:
    """Return the nearest matrix that is a covariance."""
    root = _root(matrix)
    found: np.ndarray = root @ root.T
    return found
