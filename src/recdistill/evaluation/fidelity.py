"""Does one dataset rank models as another does? Agreement of scores, and the noise that bounds it.

The reference is the full data, the other a distilled dataset; each gives one score per model, higher is better. With
four models even a perfect agreement comes about by chance one time in 24, so nothing should be claimed below ten.
"""

from dataclasses import dataclass
from itertools import combinations

import numpy as np
from jaxtyping import Bool, Float

from recdistill.errors import InputError


@dataclass(frozen=True)
class Agreement:
    """How scores rank models as the reference does.

    Args:
        tau: Kendall's tau-b. This and the two next are ``None`` where either side gives all models one score.
        spearman: correlation of ranks.
        pearson: correlation of scores.
        top_1: whether the model that wins on the scores is the best of the reference.
        regret: part of the best reference score that is lost by taking that model, 0 to 1.
        models: how many were ranked.
    """

    tau: float | None
    spearman: float | None
    pearson: float | None
    top_1: bool
    regret: float
    models: int


def agreement(reference: Float[np.ndarray, " M"], scores: Float[np.ndarray, " _"]) -> Agreement:
    """Return how ``scores`` rank models as ``reference`` does.

    Where several models win, the worst of them counts as taken: a tie is no decision.

    Args:
        reference, scores: of the same models in the same order, not negative; at least two models.

    Raises:
        InputError: the two are not of the same models, or a score is NaN, infinite or negative.

    Reference: Kendall, The Treatment of Ties in Ranking Problems, Biometrika 1945 (tau-b).
    """
    from scipy import stats  # takes a second, which commands that rank nothing need not wait

    _check(reference, scores)
    varied = np.ptp(reference) > 0 and np.ptp(scores) > 0
    best, taken = float(reference.max()), float(reference[scores == scores.max()].min())
    return Agreement(
        tau=float(stats.kendalltau(reference, scores).statistic) if varied else None,
        spearman=float(stats.spearmanr(reference, scores).statistic) if varied else None,
        pearson=float(stats.pearsonr(reference, scores).statistic) if varied else None,
        top_1=taken == best,
        regret=(best - taken) / best if best > 0 else 0.0,
        models=len(reference),
    )


def pairwise_accuracy(
    reference: Float[np.ndarray, " M"], scores: Float[np.ndarray, " _"], pairs: Bool[np.ndarray, "M M"]
) -> float | None:
    """Return the part of some pairs of models that ``scores`` order as ``reference`` does; a tie is wrong.

    Args:
        reference, scores: as for :func:`agreement`.
        pairs: symmetric; which pairs count, such as those that the reference itself tells apart
            (:func:`~recdistill.evaluation.statistics.separated`).

    Returns: ``None`` where no pair counts.

    Raises:
        InputError: as for :func:`agreement`.
    """
    _check(reference, scores)
    first, second = np.nonzero(np.triu(pairs, 1))
    if len(first) == 0:
        return None
    return float(((reference[first] - reference[second]) * (scores[first] - scores[second]) > 0).mean())


def noise_ceiling(scores: Float[np.ndarray, "S M"]) -> float | None:
    """Return the mean tau-b between two disjoint halves of the seeds, over all ways to halve them.

    What an agreement with the reference can be expected to reach when models differ by training noise alone. It errs on
    the low side: a half is noisier than the whole. With an odd number of seeds one half has one more.

    Args:
        scores: of the reference, one row per seed; a handful of seeds, because all halvings are tried.

    Returns: ``None`` with fewer than two seeds, or where all models tie in a half.
    """
    if len(scores) < 2:
        return None
    taus = []
    for half in combinations(range(len(scores)), len(scores) // 2):
        rest = [seed for seed in range(len(scores)) if seed not in half]
        taus.append(agreement(scores[list(half)].mean(axis=0), scores[rest].mean(axis=0)).tau)
    known = [tau for tau in taus if tau is not None]
    return float(np.mean(known)) if len(known) == len(taus) else None


def _check(reference: np.ndarray, scores: np.ndarray) -> None:
    if reference.shape != scores.shape or len(reference) < 2:
        shapes = f"{reference.shape} with {scores.shape}"
        raise InputError(f"cannot compare rankings of {shapes} scores: models must be the same, two or more")
    for values in (reference, scores):
        wrong = values[~(np.isfinite(values) & (values >= 0))]
        if len(wrong):
            raise InputError(f"a score is {wrong[0]}; scores of models must be finite and 0 or more")
