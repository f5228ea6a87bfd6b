"""Intervals against loops and limiting cases, p-values against scipy, and that intervals hold what they should.

A quick simulation sees gross errors; how often intervals hold the truth in many settings is what
``benchmarks/interval_coverage.py`` measures. Not proved: that :func:`estimate` and :func:`separated`, which draw seeds
alone, hold 95 % of the time; with three to five seeds they do not.
"""

import math
from itertools import product

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from recdistill.errors import InputError
from recdistill.evaluation.statistics import (
    Interval,
    compare,
    estimate,
    half_width,
    holm,
    mean_interval,
    mean_ratio,
    separated,
    sign_flip_p,
)
from tests.reference import statistics as reference

VALUES = st.lists(st.floats(0, 1), min_size=1, max_size=8)


@given(VALUES)
def test_the_interval_holds_the_mean_and_stays_inside_the_values(values: list[float]) -> None:
    found = estimate(values, np.random.default_rng(0), resamples=500)
    assert found.mean == pytest.approx(sum(values) / len(values), abs=1e-12)
    assert min(values) - 1e-12 <= found.low <= found.high <= max(values) + 1e-12
    assert found.values == tuple(values)


def test_a_single_value_and_equal_values_have_no_spread() -> None:
    for values in ([0.3], [0.3, 0.3, 0.3]):
        found = estimate(values, np.random.default_rng(0))
        assert (found.low, found.high) == pytest.approx((0.3, 0.3), abs=1e-12)


def test_the_interval_is_that_of_all_resamples() -> None:
    values = [0.1, 0.2, 0.5, 0.9]
    means = [sum(resample) / 4 for resample in product(values, repeat=4)]
    found = estimate(values, np.random.default_rng(0), resamples=100_000)
    assert (found.low, found.high) == pytest.approx(tuple(np.quantile(means, [0.025, 0.975])), abs=0.011)


def scores(seeds: int, users: int, *, seed: int = 0) -> np.ndarray:
    """Return metrics of two methods, (2, seeds, users): users differ, and so do seeds."""
    rng = np.random.default_rng(seed)
    base = rng.uniform(0.2, 0.8, users) + rng.normal(0, 0.02, (2, seeds, 1)) + rng.normal(0, 0.1, (2, seeds, users))
    return base + np.array([0.05, 0.0])[:, None, None]


def test_a_comparison_states_the_plain_figures() -> None:
    first, second = scores(3, 40)
    found = compare(first, second, np.random.default_rng(0))
    per_user = (first - second).mean(axis=0)
    assert found.difference.value == pytest.approx(first.mean() - second.mean())
    assert found.ratio is not None
    assert found.ratio.value == pytest.approx(first.mean() / second.mean())
    assert found.effect == pytest.approx(stats.ttest_1samp(per_user, 0).statistic / math.sqrt(40))
    assert (found.seeds, found.users) == (3, 40)


def known(found: Interval | None) -> Interval:
    """Return an interval that is there."""
    assert found is not None
    return found


@pytest.mark.parametrize("shape", [(1, 12), (2, 9), (3, 40), (5, 2), (6, 1)])
@pytest.mark.parametrize("seed", range(3))
def test_an_interval_is_that_of_the_loops(shape: tuple[int, int], seed: int) -> None:
    rng = np.random.default_rng(seed)
    values = rng.normal(0, 1, shape) + rng.normal(0, 0.5 * seed, shape[1]) + rng.normal(0, 0.3, (shape[0], 1))
    one_user = stats.sem(values[:, 0]) * stats.t.ppf(0.975, 5) if shape[1] == 1 else None
    expected = one_user or reference.half_width(values.tolist())
    assert half_width(values) == pytest.approx(expected)
    found = mean_interval(values)
    assert (found.low, found.value, found.high) == pytest.approx(
        (values.mean() - expected, values.mean(), values.mean() + expected)
    )


def test_where_users_alone_or_seeds_alone_differ_the_interval_is_the_t_interval_of_them() -> None:
    users = np.random.default_rng(1).normal(0, 1, 30)
    seeds = np.array([0.1, 0.2, 0.3, 0.4, 0.9])
    by_user = stats.t.interval(0.95, 29, users.mean(), stats.sem(users))
    by_seed = stats.t.interval(0.95, 4, seeds.mean(), stats.sem(seeds))
    for values, expected in (
        (users[None], by_user),
        (np.stack([users] * 5), by_user),  # and not that divided by the root of the number of seeds
        (np.tile(seeds[:, None], (1, 30)), by_seed),
        (seeds[:, None], by_seed),
    ):
        found = mean_interval(values)
        assert (found.low, found.high) == pytest.approx(expected)


def test_constant_scores_have_no_spread() -> None:
    for shape in ((1, 1), (1, 5), (4, 1), (3, 8)):
        assert mean_interval(np.full(shape, 0.25)) == Interval(0.25, 0.25, 0.25)


def test_an_interval_grows_with_what_differs_and_shrinks_with_numbers() -> None:
    rng = np.random.default_rng(0)
    seeds, users, rest = rng.normal(0, 1, (6, 1)), rng.normal(0, 1, 400), rng.normal(0, 1, (6, 400))
    for few, many in (
        (users + 0.01 * seeds, users + 0.3 * seeds),
        (users + 0.1 * rest, 3 * users + 0.1 * rest),
        (seeds + 0.1 * rest, seeds + 8 * rest),
        (0.3 * seeds + users, (0.3 * seeds + users)[:, :100]),
    ):
        assert 1.05 * half_width(few) < half_width(many)
    assert half_width(3 * users - 2 + seeds) == pytest.approx(half_width(2 - 3 * users - seeds))


def test_two_seeds_give_the_widest_interval() -> None:
    both = np.array([0.2, 0.3])[:, None] + np.zeros((2, 50))
    assert half_width(both) == pytest.approx(stats.t.ppf(0.975, 1) * 0.05)
    assert half_width(np.concatenate([both, both])) < half_width(both) / 5


@pytest.mark.parametrize("sizes", [(0.05, 1.0, 0.3), (1.0, 0.5, 0.3), (0.0, 0.1, 3.0)])
@pytest.mark.parametrize("seeds", [3, 5])
def test_intervals_hold_the_truth_about_as_often_as_they_say(sizes: tuple[float, ...], seeds: int) -> None:
    rng, users = np.random.default_rng(0), 40
    held, simulations, shapes = 0, 1_500, ((seeds, 1), (1, users), (seeds, users))
    for _ in range(simulations):
        values = sum(rng.normal(0, size, shape) for size, shape in zip(sizes, shapes, strict=True))
        held += abs(np.mean(values)) < half_width(np.asarray(values))
    assert 0.92 < held / simulations < 0.98


def test_equal_methods_do_not_differ() -> None:
    first, _ = scores(3, 20)
    found = compare(first, first, np.random.default_rng(0))
    assert (found.difference.low, found.difference.value, found.difference.high) == (0, 0, 0)
    assert found.ratio is not None
    assert (found.ratio.low, found.ratio.high) == pytest.approx((1, 1))
    assert found.effect is None
    assert found.p == 1.0


def test_there_is_no_ratio_to_nothing() -> None:
    first, _ = scores(2, 10)
    assert compare(first, np.zeros_like(first), np.random.default_rng(0)).ratio is None
    rare = np.zeros((2, 10))
    rare[:, 0] = 1.0  # one user decides
    assert compare(first, rare, np.random.default_rng(0)).ratio is None
    apart = np.full((2, 10), 0.1)
    apart[0] = 0.9  # one seed decides
    assert compare(first, apart, np.random.default_rng(0)).ratio is None
    assert compare(np.zeros((2, 10)), first, np.random.default_rng(0)).ratio == Interval(0.0, 0.0, 0.0)


def test_other_users_or_none_are_refused() -> None:
    first, _ = scores(2, 10)
    for wrong in (first[:, :9], first[:1]):
        with pytest.raises(InputError, match="seeds and users must be the same"):
            compare(first, wrong, np.random.default_rng(0))
    with pytest.raises(InputError, match="seeds and users must be the same"):
        compare(first[:, :0], first[:, :0], np.random.default_rng(0))


@pytest.mark.parametrize("seed", range(4))
def test_few_users_give_the_exact_p_value(seed: int) -> None:
    differences = np.random.default_rng(seed).normal(0.3, 1, 9)
    exact = stats.permutation_test((differences,), np.mean, permutation_type="samples", n_resamples=np.inf).pvalue
    assert sign_flip_p(differences, np.random.default_rng(0)) == pytest.approx(exact)
    padded = np.concatenate([differences, np.zeros(50)])
    assert sign_flip_p(padded, np.random.default_rng(0)) == pytest.approx(exact)


def test_many_users_give_nearly_the_exact_p_value() -> None:
    differences = np.random.default_rng(5).normal(0.4, 1, 12)
    exact = sign_flip_p(differences, np.random.default_rng(0), flips=2**12)
    drawn = sign_flip_p(differences, np.random.default_rng(0), flips=4_000)
    assert 0.02 < exact < 0.9
    assert drawn == pytest.approx(exact, abs=0.03)
    assert drawn != exact


@pytest.mark.parametrize("shift", [0.05, 0.1, 0.2, 0.35])
def test_very_many_users_give_nearly_the_drawn_p_value(shift: float, monkeypatch: pytest.MonkeyPatch) -> None:
    differences = np.random.default_rng(5).normal(shift, 1, 400) * (np.arange(400) % 3 == 0)
    drawn = sign_flip_p(differences, np.random.default_rng(0), flips=20_000)
    monkeypatch.setattr("recdistill.evaluation.statistics.MANY", 100)
    normal = sign_flip_p(differences, np.random.default_rng(0), flips=20_000)
    assert normal == pytest.approx(drawn, abs=0.012)
    assert normal != drawn
    assert sign_flip_p(np.ones(400), np.random.default_rng(0), flips=99) == pytest.approx(1 / 100)


def test_signs_are_counted_with_ties_and_no_p_value_is_zero() -> None:
    equal = np.full(8, 0.1)
    assert sign_flip_p(equal, np.random.default_rng(0)) == pytest.approx(2 / 2**8)
    assert sign_flip_p(np.full(100, 0.1), np.random.default_rng(0), flips=99) == pytest.approx(1 / 100)
    assert sign_flip_p(np.zeros(5), np.random.default_rng(0)) == 1.0


def test_holm_corrects_a_known_case() -> None:
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.9, 0.6]) == [1.0, 1.0]
    assert holm([]) == []


@given(st.lists(st.floats(0, 1), min_size=1, max_size=8), st.floats(0.001, 0.5))
def test_holm_rejects_what_its_steps_reject(p_values: list[float], level: float) -> None:
    order = sorted(range(len(p_values)), key=lambda index: p_values[index])
    rejected = set()
    for rank, index in enumerate(order):
        if p_values[index] * (len(p_values) - rank) > level:
            break
        rejected.add(index)
    assert {index for index, p in enumerate(holm(p_values)) if p <= level} == rejected


def test_a_mean_of_ratios_is_that_of_each_model_over_itself() -> None:
    pairs = list(zip(scores(3, 40), 0.3 * scores(3, 40, seed=1), strict=True))
    found = known(mean_ratio(pairs))
    assert found.value == pytest.approx(np.mean([one.mean() / two.mean() for one, two in pairs]))
    assert found.low < found.value < found.high
    assert found.high / found.value == pytest.approx(found.value / found.low)
    assert known(mean_ratio(iter(pairs))) == found
    assert known(mean_ratio(pairs[:1])) == known(compare(*pairs[0], np.random.default_rng(0)).ratio)
    assert known(mean_ratio([(two, two) for _, two in pairs])) == Interval(1.0, 1.0, 1.0)


@pytest.mark.parametrize("models", [1, 3])
@pytest.mark.parametrize("shape", [(1, 20), (4, 15)])
def test_the_interval_of_a_mean_of_ratios_is_that_of_its_linear_form(models: int, shape: tuple[int, int]) -> None:
    first, second = np.random.default_rng(3).uniform(0.2, 0.8, (2, models, *shape))

    def statistic(weights: np.ndarray) -> float:
        above, below = (np.einsum("msu,su->m", some, weights) for some in (first, second))
        return float((above / below).mean())

    expected = reference.half_width(reference.linear_form(statistic, *shape))
    found = known(mean_ratio(zip(first, second, strict=True)))
    assert math.log(found.high / found.value) == pytest.approx(expected / found.value, rel=1e-4)


def test_a_mean_of_ratios_needs_something_to_divide_by_and_the_same_models() -> None:
    first = np.random.default_rng(0).uniform(0.2, 0.8, (2, 3, 10))
    second = first.copy()
    second[1] = 0.0
    assert mean_ratio(zip(first, second, strict=True)) is None
    second[1, :, 0] = 1.0  # one user decides
    assert mean_ratio(zip(first, second, strict=True)) is None
    for wrong in (first[0, :2], first[0, :, :9], first[0, :0]):
        with pytest.raises(InputError, match="seeds and users must be the same"):
            mean_ratio([(first[0], wrong)])
    with pytest.raises(InputError, match="seeds and users must be the same"):
        mean_ratio([(first[0], first[0]), (first[0, :2], first[0, :2])])
    with pytest.raises(InputError, match="no models are given"):
        mean_ratio([])


def test_models_are_told_apart_where_every_resample_has_one_order() -> None:
    found = separated(np.array([[0.1, 0.3, 0.2], [0.2, 0.4, 0.25], [0.1, 0.5, 0.05]]), np.random.default_rng(0))
    assert found.tolist() == [[False, True, False], [True, False, True], [False, True, False]]
    same = np.tile(np.random.default_rng(1).uniform(0, 1, (4, 1)), (1, 3))
    assert not separated(same, np.random.default_rng(0)).any()
    with pytest.raises(InputError, match="1 seeds cannot tell models apart"):
        separated(same[:1], np.random.default_rng(0))


@pytest.mark.parametrize("seed", range(5))
def test_models_are_told_apart_as_by_all_resamples(seed: int) -> None:
    found = np.random.default_rng(seed).normal(0, 0.3, (5, 6)) + np.arange(6) / 6
    drawn = np.array([found[list(rows)].mean(axis=0) for rows in product(range(5), repeat=5)])
    apart, near = separated(found, np.random.default_rng(0)), 0
    for one, two in product(range(6), repeat=2):
        low, high = np.quantile(drawn[:, one] - drawn[:, two], [0.025, 0.975])
        if min(abs(low), abs(high)) < 0.02:  # too near to call with drawn resamples
            near += 1
            continue
        assert apart[one, two] == (low > 0 or high < 0)
    assert near < 12
    assert 0 < apart.sum() < 30
