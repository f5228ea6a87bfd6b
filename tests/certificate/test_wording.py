"""Numbers are written with the digits that their uncertainty deserves: known answers. Taste is not proved."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from recdistill.certificate.record import Span
from recdistill.certificate.wording import (
    bytes_text,
    chance,
    counted,
    digits,
    interval,
    listed,
    percent,
    percent_interval,
    plain,
    seconds_text,
)

VALUES = st.floats(-1e6, 1e6, allow_nan=False)


@pytest.mark.parametrize(
    ("value", "text"),
    [(0, "0"), (0.07144, "0.0714"), (0.9996, "1.00"), (12.34, "12.3"), (1234.5, "1,234"), (0.00001234, "1.23e-05")],
)
def test_three_digits_are_shown(value: float, text: str) -> None:
    assert digits(value) == text


@pytest.mark.parametrize(
    ("span", "text"),
    [
        ((0.8712, 0.7149, 0.9512), "0.87 [0.71, 0.95]"),
        ((0.07144, 0.06512, 0.07801), "0.071 [0.065, 0.078]"),
        ((-0.00004, -0.0035, 0.0025), "0.0000 [-0.0035, 0.0025]"),
        ((0.25, 0.25, 0.25), "0.250 [0.250, 0.250]"),
        ((0.0, 0.0, 0.0), "0 [0, 0]"),
    ],
)
def test_an_interval_has_the_decimals_that_its_width_deserves(span: tuple[float, float, float], text: str) -> None:
    assert interval(Span(value=span[0], low=span[1], high=span[2])) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0, "0 %"),
        (0.016, "1.6 %"),
        (0.712, "71 %"),
        (0.9964, "99.6 %"),
        (1.0, "100 %"),
        (0.95, "95 %"),
        (0.0004, "0.040 %"),
    ],
)
def test_fractions_are_read_in_percent(value: float, text: str) -> None:
    assert percent(value) == text


def test_an_interval_in_percent_names_the_sign_once() -> None:
    assert percent_interval(Span(value=0.71, low=0.68, high=0.741)) == "71 % [68, 74]"
    assert percent_interval(Span(value=0.0041, low=0.0, high=0.009)) == "0.4 % [0.0, 0.9]"


@pytest.mark.parametrize(
    ("count", "text"), [(999, "999 B"), (259_678, "260 kB"), (999_900, "1.00 MB"), (4.1e9, "4.10 GB"), (0, "0 B")]
)
def test_bytes_have_units_of_a_thousand(count: int, text: str) -> None:
    assert bytes_text(count) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.4, "0.400 s"), (119, "119 s"), (120, "2.00 min"), (9_000, "2.50 h"), (200_000, "2.31 days")],
)
def test_times_are_told_in_a_unit_that_is_there_twice(seconds: float, text: str) -> None:
    assert seconds_text(seconds) == text


def test_small_chances_are_not_told_exactly() -> None:
    assert [chance(p) for p in (1.0, 0.0312, 0.00012, 9e-5)] == ["1", "0.031", "0.00012", "below 0.0001"]


def test_words_are_counted_and_listed() -> None:
    assert (counted(1, "seed"), counted(1200, "model")) == ("1 seed", "1,200 models")
    assert [listed(words) for words in ([], ["a"], ["a", "b", "c"])] == ["", "a", "a, b and c"]


@given(VALUES, st.integers(0, 6))
def test_a_zero_has_no_sign(value: float, places: int) -> None:
    text = plain(value, places)
    assert float(text.replace(",", "")) == pytest.approx(value, abs=0.51 * 10**-places)
    assert not (text.startswith("-") and float(text.replace(",", "")) == 0)


@given(st.lists(VALUES, min_size=3, max_size=3))
def test_an_interval_is_never_rounded_by_more_than_a_tenth_of_its_width(values: list[float]) -> None:
    low, value, high = sorted(values)
    text = interval(Span(value=value, low=low, high=high))
    numbers = [float(word.strip("[],").replace(",", "")) for word in text.split()]
    room = max((high - low) / 10, 10**-6)
    assert (
        all(math.isclose(a, b, abs_tol=room) for a, b in zip(numbers, (value, low, high), strict=True)) or high == low
    )
