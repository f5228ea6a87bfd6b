"""Plausible scores: their noise against loops, the draws against a slow drawing one by one, and what they then hold.

A quick simulation sees gross errors of the intervals; ``benchmarks/interval_coverage.py`` measures them in many
settings. Not proved: that models are like each other as the method takes them to be.
"""

import numpy as np
import pytest
from scipy import stats

from recdistill.evaluation.panel import taus_of
from recdistill.evaluation.posterior import FAR, SEEDS_BEFORE, SMALLEST, Measured, measured, plausible
from tests.reference import statistics as reference


def scores(models: int, seeds: int, users: int, *, seed: int = 0) -> np.ndarray:
    """Return scores (2, models, seeds, users): users, models, seeds and the rest differ."""
    rng = np.random.default_rng(seed)
    common = rng.normal(0, 1, users) + rng.normal(0, 0.5, (models, 1, users)) + rng.normal(0, 0.3, (models, 1, 1))
    seeded = rng.normal(0, 0.2, (2, models, seeds, 1)) + rng.normal(0, 0.5, (2, 1, seeds, 1))
    own = rng.normal(0, 0.5, (2, models, 1, users))
    return common + seeded + own + rng.normal(0, 0.5, (2, models, seeds, users)) + 5


def given(drawn: np.ndarray) -> Measured:
    return measured(drawn.mean(axis=3), [drawn])


@pytest.mark.parametrize("seeds", [2, 4])
def test_noise_is_that_of_the_loops(seeds: int) -> None:
    drawn = scores(3, seeds, 60)
    found = given(drawn)
    expected = reference.covariance_of_means(drawn.reshape(6, seeds, 60)).reshape(2, 3, 2, 3)
    for model, part in enumerate(reference.covariance_of_seeds(drawn.mean(axis=3), SEEDS_BEFORE)):
        expected[:, model, :, model] += part
    np.testing.assert_allclose(found.noise, expected, atol=1e-12)
    np.testing.assert_allclose(found.means, drawn.mean(axis=(2, 3)), atol=1e-12)


def test_noise_of_one_seed_is_that_of_users_alone() -> None:
    drawn = scores(4, 1, 50)
    expected = np.cov(drawn.reshape(8, 50)) / 50
    np.testing.assert_allclose(given(drawn).noise.reshape(8, 8), expected, atol=1e-12)


def test_what_a_seed_does_to_all_models_alike_is_no_noise_of_ranks() -> None:
    drawn = scores(4, 3, 50)
    moved = drawn + np.array([3.0, -1.0, 0.5])[:, None]
    np.testing.assert_allclose(given(moved).noise, given(drawn).noise, atol=1e-12)


def test_a_model_that_no_seed_moves_is_given_less_noise_but_not_none() -> None:
    by_seed = np.random.default_rng(0).normal(0, 1, (2, 10, 5, 1))
    by_seed[:, 0] = 0.0
    noise = np.einsum("aiai->ai", given(by_seed + np.zeros((2, 10, 5, 30))).noise)
    assert (0.3 * noise[:, 1:].mean(axis=1) < noise[:, 0]).all()
    assert (noise[:, 0] < 0.8 * noise[:, 1:].mean(axis=1)).all()


def test_noise_is_a_covariance_also_where_users_have_nothing_in_common() -> None:
    drawn = np.random.default_rng(0).normal(0, 1, (2, 5, 2, 30))
    values = np.linalg.eigvalsh(given(drawn).noise.reshape(10, 10))
    assert values.min() > -1e-12
    assert values.max() > 0.01


def test_users_may_come_in_parts() -> None:
    drawn = scores(3, 4, 50)
    parts = measured(drawn.mean(axis=3), np.split(drawn, [7, 30], axis=3))
    np.testing.assert_allclose(parts.noise, given(drawn).noise, atol=1e-12)


@pytest.mark.parametrize(("spread", "far"), [(0.05, 0.0), (1.0, 0.0), (0.5, 40.0)])
def test_draws_are_those_of_the_slow_drawing(spread: float, far: float) -> None:
    rng, models = np.random.default_rng(4), 8
    root = rng.normal(0, 0.3, (16, 20))
    true = rng.normal(0, spread, models) - far * (np.arange(models) < 2)
    noise = (root @ root.T).reshape(2, models, 2, models)
    means = np.stack([true, true]) + (root @ rng.normal(0, 1, 20)).reshape(2, models)
    assert len(reference.groups(means, noise, FAR)) == (2 if far else 1)
    found = plausible(Measured(means, noise), np.random.default_rng(0), 20_000)
    expected = reference.plausible(means, noise, np.random.default_rng(1), 4_000, smallest=SMALLEST, far=FAR)
    for group in map(sorted, reference.groups(means, noise, FAR)):
        np.testing.assert_allclose(found[..., group].mean(axis=2), np.tile(means[:, group].mean(1)[:, None], 20_000))
        found[..., group] -= found[..., group].mean(axis=2, keepdims=True)
    scale = expected.std()
    np.testing.assert_allclose(found.mean(axis=1), expected.mean(axis=0), atol=0.08 * scale)
    ours, theirs = (np.cov(some.reshape(len(some), -1).T) for some in (found.swapaxes(0, 1), expected))
    np.testing.assert_allclose(ours, theirs, atol=0.12 * np.abs(theirs).max())
    taus = taus_of(*found), taus_of(expected[:, 0], expected[:, 1])
    assert stats.ks_2samp(*taus).statistic < 0.04


def test_a_model_far_from_the_others_says_nothing_about_them() -> None:
    rng, noise = np.random.default_rng(3), np.eye(20).reshape(2, 10, 2, 10)
    seen = rng.normal(0, 1, (2, 10))
    seen[:, 9] -= 100
    alone = plausible(Measured(seen[:, :9], np.eye(18).reshape(2, 9, 2, 9)), np.random.default_rng(0), 20_000)
    found = plausible(Measured(seen, noise), np.random.default_rng(0), 20_000)
    np.testing.assert_array_equal(found[..., 9], np.tile(seen[:, 9:], 20_000))
    assert stats.ks_2samp(taus_of(*found[..., :9]), taus_of(*alone)).statistic < 0.03
    once = seen + np.array([[0.0], [97.0]]) * (np.arange(10) == 9)  # far on one dataset alone
    assert plausible(Measured(once, noise), np.random.default_rng(0), 100)[1, :, 9].std() > 0.1


def test_models_that_are_all_far_apart_stay_where_they_are() -> None:
    seen = np.stack([np.arange(4.0) * 50, -np.arange(4.0) * 50])
    found = plausible(Measured(seen, np.eye(8).reshape(2, 4, 2, 4)), np.random.default_rng(0), 5)
    np.testing.assert_array_equal(found, np.repeat(seen[:, None], 5, axis=1))


def test_what_all_models_share_does_not_bring_them_near() -> None:
    seen = np.stack([np.arange(4.0) * 9, np.arange(4.0) * 9])
    noise = np.eye(8) + 100  # a difference of two models errs by 1.4, a score by 10
    found = plausible(Measured(seen, noise.reshape(2, 4, 2, 4)), np.random.default_rng(0), 5)
    np.testing.assert_array_equal(found, np.repeat(seen[:, None], 5, axis=1))


def test_scores_are_pulled_together_where_noise_made_them_differ() -> None:
    rng = np.random.default_rng(0)
    noise = np.eye(20).reshape(2, 10, 2, 10)
    for spread, low, high in ((0.0, 0.0, 0.7), (3.0, 0.85, 1.02)):
        seen = rng.normal(0, spread, (2, 10)) + rng.normal(0, 1, (2, 10))
        found = plausible(Measured(seen, noise), np.random.default_rng(0), 4_000).mean(axis=1)
        slope = (found - found.mean()).ravel() @ (seen - seen.mean()).ravel() / ((seen - seen.mean()) ** 2).sum()
        assert low < slope < high


def test_nothing_is_drawn_where_nothing_is_left_to_chance() -> None:
    means = np.array([[0.1, 0.2, 0.4], [0.3, 0.2, 0.2]])
    found = plausible(Measured(means, np.zeros((2, 3, 2, 3))), np.random.default_rng(0), 5)
    np.testing.assert_array_equal(found, np.repeat(means[:, None], 5, axis=1))
    flat = np.array([[0.1, 0.2, 0.4], [0.3, 0.3, 0.3]])
    drawn = plausible(Measured(flat, 0.01 * np.eye(6).reshape(2, 3, 2, 3)), np.random.default_rng(0), 5)
    np.testing.assert_array_equal(drawn[1], np.full((5, 3), 0.3))
    assert (drawn[0].std(axis=0) > 0).all()


def test_two_datasets_that_are_the_same_stay_the_same() -> None:
    for models, users in ((4, 30), (11, 300)):
        drawn = scores(models, 4, users)
        drawn[1] = drawn[0]
        found = plausible(given(drawn), np.random.default_rng(0), 2_000)
        np.testing.assert_allclose(found[1], found[0], atol=1e-4)
        assert found[0].std(axis=0).min() > 0.01


def test_two_models_can_be_drawn() -> None:
    drawn = scores(2, 3, 50)
    assert np.isfinite(plausible(given(drawn), np.random.default_rng(0), 100)).all()


@pytest.mark.parametrize(("spread", "together"), [(0.3, 0.9), (0.05, 0.5)])
def test_the_middle_of_drawn_taus_holds_the_true_one_about_as_often_as_it_says(spread: float, together: float) -> None:
    rng, models, held, simulations = np.random.default_rng(1), 10, 0, 250
    root = spread * np.linalg.cholesky(np.array([[1, together], [together, 1]]))
    for _ in range(simulations):
        true = root @ rng.standard_normal((2, models))
        drawn = rng.normal(0, 1, (2, models, 3, 60)) + rng.normal(0, 1, (models, 1, 60)) + true[..., None, None]
        taus = taus_of(*plausible(given(drawn), rng, 300))
        low, high = np.quantile(taus, [0.025, 0.975])
        held += low - 1e-9 <= taus_of(*true[:, None])[0] <= high + 1e-9
    assert 0.9 < held / simulations < 0.995
