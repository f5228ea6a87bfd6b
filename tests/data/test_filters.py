"""Filters keep exactly what they say; checked against slow loops."""

from collections import Counter

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from raw_samples import log_of

from recdistill.data.filters import ITEMS_FIRST, USERS_FIRST, drop_repeats, k_core, min_interactions, min_rating
from recdistill.data.log import make_log
from recdistill.errors import DataError, OptionError

ROWS = st.lists(st.tuples(st.integers(0, 5), st.integers(0, 5), st.integers(0, 30)), min_size=1, max_size=40)
FEW = settings(max_examples=40, deadline=None)


def slow_core(rows, user_k, item_k):
    """Return the rows of the k-core, one entity at a time."""
    rows = list(rows)
    while True:
        users, items = Counter(row[0] for row in rows), Counter(row[1] for row in rows)
        bad = next((row for row in rows if users[row[0]] < user_k or items[row[1]] < item_k), None)
        if bad is None:
            return rows
        rows.remove(bad)


@FEW
@given(ROWS, st.integers(1, 5), st.integers(1, 5))
def test_k_core_is_a_fixed_point_and_the_largest(rows, user_k, item_k):
    log = log_of(rows)
    expected = slow_core(log.frame.rows(), user_k, item_k)
    if not expected:
        with pytest.raises(DataError, match="leaves nothing"):
            k_core(log, user_k, item_k)
        return
    core = k_core(log, user_k, item_k)
    assert core.frame.rows() == expected
    assert min(Counter(core.frame["user_id"]).values()) >= user_k
    assert min(Counter(core.frame["item_id"]).values()) >= item_k
    assert k_core(core, user_k, item_k).frame.equals(core.frame)


@FEW
@given(ROWS)
def test_the_largest_k_that_is_offered_is_the_largest(rows):
    log = log_of(rows)
    possible = max(k for k in range(1, 42) if slow_core(log.frame.rows(), k, k))
    with pytest.raises(DataError, match=f"largest k that leaves something is {possible} "):
        k_core(log, 50, 50)
    assert k_core(log, possible, possible).num_interactions


@FEW
@given(ROWS, st.integers(1, 4), st.integers(1, 4), st.sampled_from([ITEMS_FIRST, USERS_FIRST]))
def test_a_single_pass_counts_once_in_the_order_asked(rows, user, item, order):
    log = log_of(rows)
    expected = log.frame.rows()
    for kind in (1, 0) if order == ITEMS_FIRST else (0, 1):
        counts = Counter(row[kind] for row in expected)
        expected = [row for row in expected if counts[row[kind]] >= (user, item)[kind]]
    if expected:
        assert min_interactions(log, user=user, item=item, order=order).frame.rows() == expected
    else:
        with pytest.raises(DataError, match="leaves nothing"):
            min_interactions(log, user=user, item=item, order=order)


def test_the_order_of_a_single_pass_matters():
    log = log_of([(1, 1, 1), (1, 2, 2), (2, 1, 3), (3, 3, 4), (3, 1, 5)])
    assert min_interactions(log, user=2, item=2, order=USERS_FIRST).frame["user_id"].to_list() == ["1", "3"]
    with pytest.raises(DataError, match=r"items-then-users leaves nothing of 5 rows of 3 users and 3 items; .* is 1 "):
        min_interactions(log, user=2, item=2, order=ITEMS_FIRST)


@FEW
@given(ROWS)
def test_only_the_first_meeting_of_user_and_item_is_kept(rows):
    log = log_of(rows)
    seen, expected = set(), []
    for row in log.frame.rows():
        if row[:2] not in seen:
            seen.add(row[:2])
            expected.append(row)
    assert drop_repeats(log).frame.rows() == expected


def test_ratings_from_a_threshold():
    frame = pl.DataFrame({"user_id": [1, 1, 2], "item_id": [1, 2, 3], "timestamp": [1, 2, 3], "rating": [3.5, 4, 5]})
    log = make_log(frame)
    assert min_rating(log, 4.0).frame["rating"].to_list() == [4.0, 5.0]
    with pytest.raises(DataError, match=r"rating >= 6 leaves nothing of 3 rows .* pass --min-rating 5 or less"):
        min_rating(log, 6.0)
    with pytest.raises(DataError, match="has no ratings"):
        min_rating(log_of([(1, 1, 1)]), 4.0)


def test_options_out_of_range():
    log = log_of([(1, 1, 1)])
    with pytest.raises(OptionError, match="must be 1 or more"):
        k_core(log, 0, 1)
    with pytest.raises(OptionError, match="choose from items-then-users, users-then-items"):
        min_interactions(log, user=1, item=1, order="users")
