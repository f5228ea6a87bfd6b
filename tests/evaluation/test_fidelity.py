"""Agreement of rankings against counts of pairs, known cases, ties; the noise ceiling against every halving by hand.

Not proved: that a ceiling of few seeds is near what many would give; it errs on the low side by construction.
"""

import math
from itertools import combinations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from recdistill.errors import InputError
from recdistill.evaluation.fidelity import agreement, noise_ceiling, pairwise_accuracy

LEVELS = st.integers(0, 4).map(lambda level: level / 8)  # few levels, so that ties are common
SCORES = st.integers(2, 9).flatmap(lambda size: st.tuples(*[st.lists(LEVELS, min_size=size, max_size=size)] * 2))


def tau_b(first: np.ndarray, second: np.ndarray) -> float:
    """Count pairs, as the definition says."""
    signs = [
        (np.sign(first[i] - first[j]), np.sign(second[i] - second[j])) for i, j in combinations(range(len(first)), 2)
    ]
    agreeing = sum(one * two for one, two in signs)
    return float(agreeing / math.sqrt(sum(one != 0 for one, _ in signs) * sum(two != 0 for _, two in signs)))


def places(values: np.ndarray) -> np.ndarray:
    """Return ranks; ties share the mean of theirs."""
    return np.array([(values < one).sum() + (values == one).sum() / 2 for one in values])


@given(SCORES)
def test_correlations_are_those_of_the_definitions(given_scores: tuple[list[float], list[float]]) -> None:
    reference, scores = (np.array(values) for values in given_scores)
    found = agreement(reference, scores)
    assert found.models == len(reference)
    if len(set(given_scores[0])) == 1 or len(set(given_scores[1])) == 1:
        assert (found.tau, found.spearman, found.pearson) == (None, None, None)
        return
    assert found.tau == pytest.approx(tau_b(reference, scores), abs=1e-12)
    assert found.spearman == pytest.approx(np.corrcoef(places(reference), places(scores))[0, 1], abs=1e-12)
    assert found.pearson == pytest.approx(np.corrcoef(reference, scores)[0, 1], abs=1e-12)


@given(SCORES)
def test_regret_is_that_of_the_worst_winner(given_scores: tuple[list[float], list[float]]) -> None:
    found = agreement(*(np.array(values) for values in given_scores))
    best = max(given_scores[0])
    winners = [one for one, two in zip(*given_scores, strict=True) if two == max(given_scores[1])]
    assert found.regret * best == pytest.approx(best - min(winners), abs=1e-12)
    assert found.top_1 == (min(winners) == best)


def test_a_known_case() -> None:
    reference = np.array([0.10, 0.08, 0.05, 0.02])
    found = agreement(reference, np.array([0.06, 0.07, 0.03, 0.01]))
    assert found.tau == pytest.approx(4 / 6)
    assert found.spearman == pytest.approx(0.8)
    assert not found.top_1
    assert found.regret == pytest.approx(0.2)
    same = agreement(reference, reference**2)
    assert (same.tau, same.spearman, same.top_1, same.regret) == (pytest.approx(1), pytest.approx(1), True, 0.0)
    assert same.pearson is not None
    assert same.pearson < 1


def test_where_nobody_scores_nothing_is_lost() -> None:
    found = agreement(np.zeros(3), np.array([0.1, 0.2, 0.3]))
    assert (found.tau, found.top_1, found.regret) == (None, True, 0.0)


@pytest.mark.parametrize("scores", [[0.1], [0.1, 0.2, 0.3], [0.1, math.nan], [0.1, math.inf], [0.1, -0.2]])
def test_scores_of_other_models_or_no_scores_are_refused(scores: list[float]) -> None:
    reference, other = np.array([0.1, 0.2]), np.array(scores)
    for one, two in ((reference, other), (other, reference)):
        with pytest.raises(InputError, match=r"models must be the same|must be finite and 0 or more"):
            agreement(one, two)
    single = np.array([0.1])
    with pytest.raises(InputError, match="two or more"):
        agreement(single, single)


def test_only_the_pairs_that_count_are_counted_and_ties_are_wrong() -> None:
    reference, scores = np.array([0.4, 0.3, 0.2, 0.1]), np.array([0.4, 0.4, 0.1, 0.2])
    pairs = np.ones((4, 4), bool)
    assert pairwise_accuracy(reference, scores, pairs) == pytest.approx(4 / 6)  # wrong: 0-1, a tie, and 2-3
    pairs[0, 1] = pairs[1, 0] = False
    assert pairwise_accuracy(reference, scores, pairs) == pytest.approx(4 / 5)
    pairs[2, 3] = pairs[3, 2] = False
    assert pairwise_accuracy(reference, scores, pairs) == 1.0
    assert pairwise_accuracy(reference, scores, np.zeros((4, 4), bool)) is None
    with pytest.raises(InputError, match="models must be the same"):
        pairwise_accuracy(reference, scores[:3], pairs)


@pytest.mark.parametrize("seeds", [2, 3, 4, 5])
def test_the_ceiling_is_the_mean_over_all_halvings(seeds: int) -> None:
    scores = np.random.default_rng(seeds).uniform(0, 1, (seeds, 7)) + np.arange(7) / 7
    splits = set()
    for members in range(1, 2**seeds - 1):
        half = frozenset(seed for seed in range(seeds) if members >> seed & 1)
        if abs(2 * len(half) - seeds) <= 1:
            splits.add(frozenset((half, frozenset(range(seeds)) - half)))
    taus = []
    for split in splits:
        first, second = (scores[sorted(half)].mean(axis=0) for half in split)
        taus.append(tau_b(first, second))
    assert len(taus) == {2: 1, 3: 3, 4: 3, 5: 10}[seeds]
    assert noise_ceiling(scores) == pytest.approx(np.mean(taus))


def test_there_is_no_ceiling_without_two_seeds_or_without_differences() -> None:
    scores = np.random.default_rng(0).uniform(0, 1, (3, 5))
    assert noise_ceiling(scores[:1]) is None
    assert noise_ceiling(scores[:0]) is None
    scores[1] = 0.5
    assert noise_ceiling(scores) is None
    assert noise_ceiling(np.tile(scores[0], (4, 1))) == pytest.approx(1)
