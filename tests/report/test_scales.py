"""Ticks and places against known answers, and what must hold for any scale."""

import math

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from recdistill.errors import OptionError
from recdistill.report.scales import Scale, around, around_log, log_ticks, round_step, round_ticks, tick_text

VALUES = st.floats(-1e9, 1e9, allow_nan=False, allow_subnormal=False)
ABOVE = st.floats(1e-6, 1e12)


@pytest.mark.parametrize(
    ("low", "high", "ticks"),
    [
        (0, 0.12, [0, 0.05, 0.1]),
        (0.02, 0.12, [0.02, 0.04, 0.06, 0.08, 0.1, 0.12]),
        (-3, 7, [-2, 0, 2, 4, 6]),
        (0, 1e6, [0, 2e5, 4e5, 6e5, 8e5, 1e6]),
        (99.9, 100.1, [99.9, 99.95, 100.0, 100.05, 100.1]),
    ],
)
def test_ticks_are_round(low: float, high: float, ticks: list[float]) -> None:
    assert round_ticks(low, high) == ticks


@pytest.mark.parametrize(
    ("low", "high", "ticks"),
    [
        (1, 1000, [1, 10, 100, 1000]),
        (1, 100, [1, 3, 10, 30, 100]),
        (2e5, 6e5, [2e5, 3e5, 4e5, 5e5, 6e5]),
        (1, 1e8, [1, 1e2, 1e4, 1e6, 1e8]),
    ],
)
def test_ticks_of_a_logarithmic_scale_are_few_and_round(low: float, high: float, ticks: list[float]) -> None:
    assert log_ticks(low, high) == pytest.approx(ticks)


def test_values_lie_where_they_must() -> None:
    scale = Scale(low=0, high=10, start=100, stop=0)
    assert [scale.at(value) for value in (0, 2.5, 10)] == [100, 75, 0]
    log = Scale(low=1, high=10_000, start=0, stop=40, log=True)
    assert [log.at(value) for value in (1, 10, 100, 10_000)] == pytest.approx([0, 10, 20, 40])
    assert (scale.at(-5), scale.at(99), log.at(1e9)) == (100, 0, 40)


@given(VALUES, VALUES, st.integers(2, 9))
def test_a_step_cuts_into_at_most_so_many_parts_and_not_into_far_fewer(low: float, high: float, about: int) -> None:
    assume(high - low > 1e-6 * max(1, abs(low), abs(high)))
    step = round_step(high - low, about)
    assert (high - low) / step <= about * (1 + 1e-6)
    assert (high - low) / step >= about / 2.6
    assert float(f"{step:e}".split("e")[0]) in (1.0, 2.0, 5.0)


@given(st.lists(VALUES, min_size=1), st.booleans())
def test_bounds_hold_every_value_and_every_tick_lies_within(values: list[float], zero: bool) -> None:
    low, high = around(values, zero=zero)
    room = 1e-9 * max(abs(low), abs(high), high - low)
    assert all(low - room <= value <= high + room for value in values)
    assert not zero or low <= 0 <= high
    scale = Scale(low=low, high=high, start=0, stop=100)
    assert all(-1e-6 <= scale.at(tick) <= 100 + 1e-6 for tick in scale.ticks())
    assert all(low - room <= tick <= high + room for tick in scale.ticks())


@given(st.lists(ABOVE, min_size=1), st.booleans())
def test_logarithmic_bounds_hold_every_value_and_have_ticks(values: list[float], more: bool) -> None:
    low, high = around_log([*values, 0.0] if more else values)
    assert low > 0
    assert all(low < value < high for value in values)
    ticks = Scale(low=low, high=high, start=0, stop=100, log=True).ticks()
    assert 1 <= len(ticks) <= 8
    assert ticks == sorted(ticks)


def test_bounds_of_nothing_and_of_one_value_are_a_range() -> None:
    assert around([]) == (0.0, 1.0)
    assert around_log([0.0]) == (1.0, 10.0)
    assert around([5.0])[0] < 5 < around([5.0])[1]
    assert around([0.0], zero=True)[0] == 0
    assert around([3.0], zero=True)[0] == 0


def test_ticks_have_the_same_decimals() -> None:
    assert [tick_text(tick, [0, 0.05, 0.1]) for tick in (0, 0.05, 0.1)] == ["0.00", "0.05", "0.10"]
    assert tick_text(2000, [0, 2000]) == "2,000"


@pytest.mark.parametrize(("low", "high", "log"), [(1, 1, False), (2, 1, False), (math.nan, 1, False), (0, 1, True)])
def test_scales_without_a_range_are_refused(low: float, high: float, log: bool) -> None:
    with pytest.raises(OptionError, match="scale"):
        Scale(low=low, high=high, start=0, stop=1, log=log)
