"""Ids become integers and come back, in an order that does not depend on the rows."""

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from recdistill.data.log import make_log
from recdistill.data.vocabulary import PAD, Vocabulary
from recdistill.errors import DataError

IDS = st.text("ab0123456789-", min_size=1, max_size=4)


def vocabulary_of(users, items):
    return Vocabulary.of(make_log(pl.DataFrame({"user_id": users, "item_id": items, "position": range(len(users))})))


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(IDS, IDS), min_size=1, max_size=30), st.randoms())
def test_round_trip_and_independence_of_order(pairs, random):
    users, items = (list(column) for column in zip(*pairs, strict=True))
    vocabulary = vocabulary_of(users, items)
    assert vocabulary.decode_users(vocabulary.encode_users(pl.Series(users))) == users
    assert vocabulary.decode_items(vocabulary.encode_items(pl.Series(items))) == items
    codes = vocabulary.encode_items(pl.Series(items))
    assert codes.dtype == np.int32
    assert sorted(set(codes.tolist())) == list(range(1, vocabulary.num_items + 1))
    assert sorted(set(vocabulary.encode_users(pl.Series(users)).tolist())) == list(range(vocabulary.num_users))
    random.shuffle(pairs)
    again = vocabulary_of(*(list(column) for column in zip(*pairs, strict=True)))
    assert again.item_ids.equals(vocabulary.item_ids)
    assert again.user_ids.equals(vocabulary.user_ids)
    back = Vocabulary.from_frames(vocabulary.users_frame(), vocabulary.items_frame())
    assert back.item_ids.equals(vocabulary.item_ids)


def test_numbers_are_sorted_as_numbers_and_other_ids_as_text():
    vocabulary = vocabulary_of(["10", "9", "-1"], ["10", "9", "x"])
    assert vocabulary.user_ids.to_list() == ["-1", "9", "10"]
    assert vocabulary.item_ids.to_list() == ["10", "9", "x"]
    assert vocabulary.encode_items(pl.Series(["10"]))[0] == PAD + 1


def test_unknown_ids_and_indices_are_named():
    vocabulary = vocabulary_of(["1", "2"], ["3", "4"])
    with pytest.raises(DataError, match="item '5' is not in the vocabulary"):
        vocabulary.encode_items(pl.Series(["3", "5"]))
    with pytest.raises(DataError, match=r"item index 0 is not in the vocabulary; use 1 \.\. 2"):
        vocabulary.decode_items(np.array([1, PAD]))
    with pytest.raises(DataError, match="user index 2"):
        vocabulary.decode_users(np.array([2]))


def test_tables_with_gaps_are_refused():
    vocabulary = vocabulary_of(["1", "2"], ["3", "4"])
    with pytest.raises(DataError, match="item indices are not 1, 2"):
        Vocabulary.from_frames(vocabulary.users_frame(), vocabulary.items_frame()[1:])
