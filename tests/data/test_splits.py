"""Parts add up to the log, and no part sees a later one."""

from collections import Counter

import numpy as np
import polars as pl
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from raw_samples import log_of

from recdistill.data.log import make_log
from recdistill.data.splits import absolute_time, given_split, leave_one_out, streaming_blocks
from recdistill.errors import DataError, OptionError

ROWS = st.lists(st.tuples(st.integers(0, 5), st.integers(0, 9), st.integers(0, 25)), min_size=1, max_size=60)
DENSE = st.lists(st.tuples(st.integers(0, 5), st.integers(0, 9), st.integers(0, 500)), min_size=20, max_size=80)
FEW = settings(max_examples=40, deadline=None)


def parts_of(split):
    return split.train.frame, split.valid.frame, split.test.frame


def check_parts_add_up(split, log):
    frames = parts_of(split)
    assert sum(frame.height for frame in frames) == len(split.part) == split.log.num_interactions
    assert sorted(row for frame in frames for row in frame.rows()) == sorted(log.frame.rows())


def check_users_do_not_leak(split):
    """No train row of a user is later in the log than a valid row, and no valid row than a test row."""
    users = split.log.frame["user_id"].to_numpy()
    for user in np.unique(users):
        assert (np.diff(split.part[users == user]) >= 0).all()


@FEW
@given(ROWS, st.booleans(), st.sampled_from(["drop", "train"]))
def test_leave_one_out(rows, clock, short_users):
    log = log_of(rows, clock)
    counts = Counter(log.frame["user_id"])
    assume(max(counts.values()) >= 3)
    split = leave_one_out(log, short_users=short_users)
    long = [user for user, count in counts.items() if count >= 3]
    kept = log.frame.filter(pl.col("user_id").is_in(long)) if short_users == "drop" else log.frame
    check_parts_add_up(split, make_log(kept, duplicates="keep"))
    check_users_do_not_leak(split)
    train, valid, test = parts_of(split)
    assert sorted(valid["user_id"]) == sorted(test["user_id"]) == sorted(long)
    for user in long:
        mine = log.frame.filter(pl.col("user_id") == user).rows()
        assert test.filter(pl.col("user_id") == user).rows() == mine[-1:]
        assert valid.filter(pl.col("user_id") == user).rows() == mine[-2:-1]
        assert train.filter(pl.col("user_id") == user).rows() == mine[:-2]


def test_a_short_user_is_named_with_the_ways_out():
    log = log_of([(1, 1, 1), (1, 2, 2), (1, 3, 3), (2, 1, 4), (2, 2, 5)])
    with pytest.raises(
        DataError, match=r"user '2' has 2 events .* needs 3 \(1 of 2 users .* --k-core 3, or --short-users"
    ):
        leave_one_out(log)
    with pytest.raises(DataError, match="has 3 events and leave-one-out needs 4"):
        leave_one_out(log, min_events=4, short_users="drop")
    with pytest.raises(OptionError, match="--min-events: 2 must be 3 or more"):
        leave_one_out(log, min_events=2)
    with pytest.raises(OptionError, match="did you mean 'drop'"):
        leave_one_out(log, short_users="dropp")


@FEW
@given(DENSE)
def test_absolute_time(rows):
    log = log_of(rows)
    assume(log.frame["timestamp"].n_unique() >= 3)
    try:
        split = absolute_time(log, (0.6, 0.2, 0.2))
    except DataError:
        biggest = max(Counter(log.frame["timestamp"]).values())
        assume(biggest < 0.2 * log.num_interactions - 1)  # only a large tie may make a part empty
        raise
    check_parts_add_up(split, log)
    check_users_do_not_leak(split)
    train, valid, test = (frame["timestamp"] for frame in parts_of(split))
    assert train.max() < valid.min()
    assert valid.max() < test.min()


def test_absolute_time_takes_the_shares_that_were_asked():
    split = absolute_time(log_of([(1, i, i) for i in range(100)]))
    assert [frame.height for frame in parts_of(split)] == [80, 10, 10]
    assert split.how.as_dict() == {"method": "time", "fractions": [0.8, 0.1, 0.1]}


@FEW
@given(DENSE, st.integers(2, 6))
def test_streaming_blocks(rows, num_blocks):
    log = log_of(rows)
    try:
        split = streaming_blocks(log, num_blocks)
    except DataError:
        biggest = max(Counter(log.frame["timestamp"]).values())
        assume(biggest < log.num_interactions / num_blocks / 10 - 1)  # only a large tie may make a part empty
        raise
    check_parts_add_up(split, log)
    check_users_do_not_leak(split)
    times = log.frame["timestamp"].to_numpy()
    assert np.bincount(split.block, minlength=num_blocks).sum() == len(times)
    assert set(split.block) == set(range(num_blocks))
    assert (np.diff(split.block) >= 0).all()
    for block in range(1, num_blocks):
        assert times[split.block == block - 1].max() < times[split.block == block].min()
    assert set(split.block[split.part == 2]) == {num_blocks - 1}
    assert set(split.block[split.part == 1]) == {num_blocks - 2}
    assert (split.part[split.block == num_blocks - 1] == 2).all()


def test_blocks_have_equal_numbers_of_rows():
    split = streaming_blocks(log_of([(1, i % 7, i) for i in range(200)]), 4)
    assert np.bincount(split.block).tolist() == [50, 50, 50, 50]
    assert np.bincount(split.part).tolist() == [145, 5, 50]


def test_too_few_distinct_times_are_refused():
    log = log_of([(1, i, i // 50) for i in range(100)])
    with pytest.raises(DataError, match=r"100 rows at 2 distinct times cannot be divided as 0.8 / 0.1 / 0.1"):
        absolute_time(log)
    with pytest.raises(DataError, match="100 rows at 2 distinct times cannot be divided into 10 blocks"):
        streaming_blocks(log)


def test_equal_times_are_never_divided():
    rows = [(1, i, time) for i, time in enumerate([1] * 7 + [2] * 8 + [3] * 5)]
    split = absolute_time(log_of(rows), (0.4, 0.3, 0.3))
    assert np.bincount(split.part).tolist() == [7, 8, 5]


@pytest.mark.parametrize("make", [absolute_time, streaming_blocks])
def test_an_order_is_no_clock(make):
    with pytest.raises(DataError, match=r"has an order and no timestamps.*--split leave-one-out"):
        make(log_of([(1, i, i) for i in range(9)], clock=False))


def test_options_out_of_range():
    log = log_of([(1, i, i) for i in range(50)])
    for fractions in ((0.8, 0.1, 0.2), (1.0, 0.0, 0.0)):
        with pytest.raises(OptionError, match="--fractions"):
            absolute_time(log, fractions)
    with pytest.raises(OptionError, match="--num-blocks: 1 must be 2 or more"):
        streaming_blocks(log, 1)


def _given(labels):
    rows = {
        "user_id": ["a"] * len(labels),
        "item_id": range(len(labels)),
        "position": range(len(labels)),
        "split": labels,
    }
    return make_log(pl.DataFrame(rows))


def test_a_given_split_is_taken_as_it_is():
    split = given_split(_given(["train", "Train", "val", "test"]))
    assert split.part.tolist() == [0, 0, 1, 2]
    assert split.how.as_dict() == {"method": "given", "time_ordered": True}
    assert not given_split(_given(["train", "test", "train"])).how.parameters["time_ordered"]


def test_a_given_split_that_is_none():
    with pytest.raises(DataError, match="'later' is no part of a split"):
        given_split(_given(["train", "later", "test"]))
    with pytest.raises(DataError, match="no row is for test"):
        given_split(_given(["train", "valid"]))
    with pytest.raises(DataError, match="has no column 'split'"):
        given_split(log_of([(1, 1, 1)]))


def test_the_hash_names_content_parts_and_method():
    log = log_of([(u, i, 10 * i + u) for u in range(3) for i in range(20)])
    splits = [leave_one_out(log), leave_one_out(log, short_users="drop"), absolute_time(log), streaming_blocks(log)]
    assert len({split.hash for split in splits}) == 4
    assert leave_one_out(log).hash == leave_one_out(log).hash
    assert leave_one_out(log_of([(u, i, 10 * i + u + 1) for u in range(3) for i in range(20)])).hash != splits[0].hash
