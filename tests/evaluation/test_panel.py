"""Panels of models: which seeds count, figures against plain loops, and intervals that hold what they say.

Not proved: that the interval of tau has its nominal coverage; it is known to reach too far down.
"""

from collections.abc import Callable

import numpy as np
import pytest
from scipy import stats

from recdistill.errors import InputError
from recdistill.evaluation.panel import Panel, difference, noise, ranking, ratio, shared, taus_of

MODELS = ("a", "b", "c", "d", "e")


def panel(strength: Callable[[int], float], seeds: int = 3, events: int = 400, salt: int = 0) -> Panel:
    """Return drawn scores between 0 and 1 whose means are about ``strength`` of the model's place."""

    def draw(place: int, seed: int) -> np.ndarray:
        drawn = np.random.default_rng([salt, place, seed]).random(events)
        return drawn * 2 * strength(place)

    return Panel({model: {seed: draw(at, seed) for seed in range(seeds)} for at, model in enumerate(MODELS)})


def rising(place: int) -> float:
    return 0.1 + 0.05 * place


def test_only_seeds_that_all_panels_have_for_all_models_count() -> None:
    one, other = panel(rising, seeds=3), panel(rising, seeds=4, salt=1)
    del one.scores["b"][1]  # type: ignore[attr-defined]
    assert shared(MODELS, one, other) == [0, 2]
    assert shared(("a", "c"), one, other) == [0, 1, 2]
    assert one.by_seed(MODELS).shape == (2, 5)
    found = ranking(one, other, MODELS)
    assert found is not None
    assert found.seeds == 2


def test_no_shared_seed_gives_no_figures() -> None:
    one = panel(rising, seeds=1)
    other = Panel({model: {5: scores[0]} for model, scores in one.scores.items()})
    assert ratio(one, other, MODELS) is difference(one, other, MODELS) is ranking(one, other, MODELS) is None
    assert noise(one, MODELS) is None


def test_ratio_and_difference_are_of_plain_means() -> None:
    one, other = panel(rising), panel(lambda place: 0.3, salt=1)
    means = [np.array([np.mean([s.mean() for s in some.scores[m].values()]) for m in MODELS]) for some in (one, other)]
    reached, compared = ratio(one, other, MODELS), difference(one, other, MODELS)
    assert reached is not None
    assert compared is not None
    assert reached.value == pytest.approx((means[0] / means[1]).mean())
    assert reached.low < reached.value < reached.high
    assert compared.difference.value == pytest.approx((means[0] - means[1]).mean())
    assert (compared.seeds, compared.users) == (3, 400)


def test_a_panel_ranks_itself_rightly_in_every_draw() -> None:
    whole = panel(rising)
    found = ranking(whole, whole, MODELS)
    assert found is not None
    assert found.tau == pytest.approx(1)
    assert (found.top_1, found.regret, found.pairwise_accuracy) == (True, 0.0, 1.0)
    assert found.tau_interval is not None
    assert (found.tau_interval.low, found.tau_interval.high) == (1.0, 1.0)
    assert (found.regret_interval.low, found.regret_interval.high) == (0.0, 0.0)


def test_the_opposite_order_is_as_wrong_as_can_be() -> None:
    whole, turned = panel(rising), panel(lambda place: rising(4 - place), salt=1)
    found = ranking(turned, whole, MODELS)
    assert found is not None
    assert found.tau == pytest.approx(-1)
    assert not found.top_1
    assert found.regret == pytest.approx(1 - 0.1 / 0.3, abs=0.03)
    assert found.tau_interval is not None
    assert found.tau_interval.high < -0.5
    assert found.regret_interval.low > 0.6


def test_intervals_are_wide_where_models_are_alike_and_narrow_where_they_are_not() -> None:
    clear, alike = panel(rising), panel(lambda place: 0.3 + 0.002 * place)
    widths = []
    for whole in (clear, alike):
        part = Panel({m: {s: v[::-1] for s, v in some.items()} for m, some in whole.scores.items()})
        found = ranking(part, whole, MODELS)
        assert found is not None
        assert found.tau_interval is not None
        widths.append(found.tau_interval.high - found.tau_interval.low)
    assert widths[0] < 0.2
    assert widths[1] > 0.5


def test_models_with_one_score_have_no_tau() -> None:
    whole = panel(rising)
    flat = Panel({model: {seed: np.full(400, 0.5) for seed in range(3)} for model in MODELS})
    found = ranking(flat, whole, MODELS)
    assert found is not None
    assert (found.tau, found.tau_interval) == (None, None)
    assert found.regret == pytest.approx(1 - 0.1 / 0.3, abs=0.03)  # a tie is no decision: the worst counts as taken


def test_taus_equal_those_of_scipy() -> None:
    generator = np.random.default_rng(0)
    first, second = (generator.integers(0, 4, (50, 6)).astype(float) for _ in range(2))
    first[0] = 2.0
    expected = [stats.kendalltau(ours, theirs).statistic for ours, theirs in zip(first, second, strict=True)]
    np.testing.assert_allclose(taus_of(first, second), expected, atol=1e-12)
    assert np.isnan(taus_of(first, second)[0])


def test_noise_counts_the_pairs_that_seeds_tell_apart() -> None:
    found = noise(panel(rising, seeds=4), MODELS)
    assert found is not None
    assert (found.seeds, found.pairs, found.pairs_apart) == (4, 10, 10)
    assert found.ceiling == pytest.approx(1)


def test_one_model_cannot_be_ranked() -> None:
    with pytest.raises(InputError, match="1 model cannot be ranked"):
        ranking(panel(rising), panel(rising), MODELS[:1])
