"""Panels of models: which seeds count, figures against plain loops, and intervals that hold what they say.

How often the intervals of tau and regret hold the truth is measured by ``benchmarks/interval_coverage.py``; that the
scores behind them are drawn rightly is proved in ``test_posterior.py``.
"""

from collections.abc import Callable

import numpy as np
import pytest
from scipy import stats

from recdistill.errors import InputError
from recdistill.evaluation.fidelity import agreement
from recdistill.evaluation.panel import (
    Panel,
    average,
    difference,
    noise,
    ranking,
    ratio,
    regrets_of,
    shared,
    taus_of,
)
from recdistill.evaluation.statistics import compare, mean_interval, mean_ratio

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
    assert reached == mean_ratio(zip(one.stack(MODELS, range(3)), other.stack(MODELS, range(3)), strict=True))
    assert compared.difference.value == pytest.approx((means[0] - means[1]).mean())
    assert (compared.seeds, compared.users) == (3, 400)
    ours, theirs = (some.stack(MODELS, range(3)).mean(axis=0) for some in (one, other))
    again = compare(ours, theirs, np.random.default_rng(0))
    for found, expected in ((compared.difference, again.difference), (average(one, MODELS), mean_interval(ours))):
        assert found is not None
        assert (found.low, found.value, found.high) == pytest.approx((expected.low, expected.value, expected.high))
    np.testing.assert_array_equal(one.stack(MODELS, range(3))[0, 1], one.scores["a"][1])  # nothing is overwritten


def test_a_panel_ranks_itself_rightly_whatever_its_true_scores() -> None:
    whole = panel(rising)
    found = ranking(whole, whole, MODELS)
    assert found is not None
    assert found.tau == pytest.approx(1)
    assert (found.top_1, found.regret, found.pairwise_accuracy) == (True, 0.0, 1.0)
    assert found.tau_interval is not None
    assert (found.tau_interval.low, found.tau_interval.high) == pytest.approx((1.0, 1.0))
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


def test_intervals_hold_the_value_and_are_wide_where_models_are_alike() -> None:
    widths = []
    for strength in (rising, lambda place: 0.3 + 0.002 * place):
        found = ranking(panel(strength, salt=1), panel(strength), MODELS)
        assert found is not None
        assert found.tau is not None
        assert found.tau_interval is not None
        assert found.tau_interval.low <= found.tau <= found.tau_interval.high
        assert 0 <= found.regret_interval.low <= found.regret <= found.regret_interval.high <= 1
        widths.append(found.tau_interval.high - found.tau_interval.low)
    assert widths[0] <= 0.4
    assert widths[1] > 1


def test_more_seeds_and_more_events_say_more() -> None:
    def width(seeds: int, events: int) -> float:
        made = (panel(lambda place: 0.3 + 0.01 * (place - 2) ** 2, seeds, events, salt) for salt in (4, 5))
        found = ranking(*made, MODELS)
        assert found is not None
        assert found.tau_interval is not None
        return found.tau_interval.high - found.tau_interval.low

    assert width(2, 50) > width(2, 1_000) > width(8, 10_000)


def test_one_seed_leaves_an_interval_of_events_alone() -> None:
    found = ranking(panel(rising, 1, salt=1), panel(rising, 1), MODELS)
    assert found is not None
    assert found.tau_interval is not None
    assert found.tau_interval.low < found.tau_interval.high
    assert found.pairwise_accuracy is None


def test_events_are_read_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    one, other = panel(rising, salt=1), panel(lambda place: 0.3)
    whole = ranking(one, other, MODELS)
    monkeypatch.setattr("recdistill.evaluation.panel.PART", 2 * len(MODELS) * 3 * 7)
    parts = ranking(one, other, MODELS)
    assert whole is not None
    assert parts is not None
    for few, every in ((parts.tau_interval, whole.tau_interval), (parts.regret_interval, whole.regret_interval)):
        assert few is not None
        assert every is not None
        assert (few.low, few.high) == pytest.approx((every.low, every.high))


def test_a_single_dominating_model_is_found_however_the_others_lie() -> None:
    def strength(place: int) -> float:
        return 0.45 if place == 3 else 0.1

    found = ranking(panel(strength, salt=1), panel(strength), MODELS)
    assert found is not None
    assert (found.top_1, found.regret) == (True, 0.0)
    assert (found.regret_interval.low, found.regret_interval.high) == (0.0, 0.0)
    assert found.tau_interval is not None
    assert found.tau_interval.low < 0.2 < 0.8 < found.tau_interval.high


def test_scores_that_leave_nothing_to_chance_have_no_interval() -> None:
    def constant(values: tuple[float, ...]) -> Panel:
        return Panel({m: {s: np.full(9, v) for s in range(3)} for m, v in zip(MODELS, values, strict=True)})

    whole, part = constant((0.1, 0.2, 0.3, 0.4, 0.5)), constant((0.1, 0.3, 0.2, 0.5, 0.4))
    found = ranking(part, whole, MODELS)
    assert found is not None
    assert found.tau_interval is not None
    assert (found.tau_interval.low, found.tau, found.tau_interval.high) == pytest.approx((0.6, 0.6, 0.6))
    assert (found.regret_interval.low, found.regret_interval.high) == pytest.approx((0.2, 0.2))


def test_models_with_one_score_have_no_tau() -> None:
    whole = panel(rising)
    flat = Panel({model: {seed: np.full(400, 0.5) for seed in range(3)} for model in MODELS})
    found = ranking(flat, whole, MODELS)
    assert found is not None
    assert (found.tau, found.tau_interval) == (None, None)
    assert found.regret == pytest.approx(1 - 0.1 / 0.3, abs=0.03)  # a tie is no decision: the worst counts as taken


def test_models_that_are_all_the_same_lose_nothing() -> None:
    one = panel(rising).scores["b"]
    same = Panel(dict.fromkeys(MODELS, one))
    found = ranking(same, same, MODELS)
    assert found is not None
    assert (found.tau, found.tau_interval, found.regret) == (None, None, 0.0)
    assert (found.regret_interval.low, found.regret_interval.high) == (0.0, 0.0)
    other = ranking(same, panel(rising), MODELS)
    assert other is not None
    assert other.regret_interval.low > 0.4


def test_taus_equal_those_of_scipy() -> None:
    generator = np.random.default_rng(0)
    first, second = (generator.integers(0, 4, (50, 6)).astype(float) for _ in range(2))
    first[0] = 2.0
    expected = [stats.kendalltau(ours, theirs).statistic for ours, theirs in zip(first, second, strict=True)]
    np.testing.assert_allclose(taus_of(first, second), expected, atol=1e-12)
    assert np.isnan(taus_of(first, second)[0])


def test_regrets_equal_those_of_single_rankings() -> None:
    generator = np.random.default_rng(0)
    first, second = (generator.integers(0, 4, (50, 6)).astype(float) for _ in range(2))
    first[0] = 0.0
    expected = [agreement(ours, theirs).regret for ours, theirs in zip(first, second, strict=True)]
    np.testing.assert_allclose(regrets_of(first, second), expected, atol=1e-12)
    assert len(set(expected)) > 3


def test_noise_counts_the_pairs_that_seeds_tell_apart() -> None:
    found = noise(panel(rising, seeds=4), MODELS)
    assert found is not None
    assert (found.seeds, found.pairs, found.pairs_apart) == (4, 10, 10)
    assert found.ceiling == pytest.approx(1)


def test_one_model_cannot_be_ranked() -> None:
    with pytest.raises(InputError, match="1 model cannot be ranked"):
        ranking(panel(rising), panel(rising), MODELS[:1])
