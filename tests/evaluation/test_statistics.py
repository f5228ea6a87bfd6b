"""Bootstrap means against every resample of a small sample, and cases with a known answer."""

from itertools import product

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from recdistill.evaluation.statistics import estimate

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
