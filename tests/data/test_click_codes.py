"""Ids of feature values: what a block may add, what it may never move; every rule against a slow dictionary."""

from dataclasses import replace

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from recdistill.data.clicks.codes import FIRST, MISSING, UNKNOWN, BucketCodes, Codes, GrowingCodes, codes_of
from recdistill.data.clicks.fields import Field
from recdistill.errors import DataError, OptionError

PLAIN = Field(name="city")
MULTI = Field(name="tags", kind="multi", max_values=2)
PRICE = Field(name="price", kind="numeric", buckets=4)


def column(*values: object) -> pl.Series:
    return pl.Series("city", list(values))


def test_values_get_ids_in_order_of_appearance() -> None:
    codes = codes_of(PLAIN).grown(column("b", None, "a", "b", ""))
    assert codes.num_ids == FIRST + 2
    assert codes.encode(column("a", "b", None, "c", "")).tolist() == [[3], [2], [MISSING], [UNKNOWN], [MISSING]]


def test_a_later_block_adds_ids_and_moves_none() -> None:
    first = codes_of(PLAIN).grown(column("b", "a"))
    second = first.grown(column("c", "a"))
    assert second.encode(column("b", "a", "c")).tolist() == [[2], [3], [4]]
    assert first.encode(column("c")).tolist() == [[UNKNOWN]]


def test_rare_values_stay_unknown_until_a_block_has_enough_of_them() -> None:
    codes = codes_of(replace(PLAIN, min_count=2)).grown(column("a", "a", "b"))
    assert codes.encode(column("a", "b")).tolist() == [[2], [UNKNOWN]]
    assert codes.grown(column("b", "b")).encode(column("a", "b")).tolist() == [[2], [3]]


def test_a_value_that_occurs_twice_in_a_row_counts_once() -> None:
    codes = codes_of(replace(MULTI, min_count=2)).grown(pl.Series(["x|x", "y"]))
    assert codes.num_ids == FIRST


@pytest.mark.parametrize(
    "values", [["x|y|z", "", None, "y", " z | x "], [["x", "y", "z"], [], None, ["y"], ["z", "x"]]]
)
def test_several_values_are_texts_or_lists(values: list[object]) -> None:
    codes = codes_of(MULTI).grown(pl.Series(values))
    expected = [["x", "y"], [], [], ["y"], ["z", "x"]]
    ids = {value: place + FIRST for place, value in enumerate(["x", "y", "z"])}
    found = codes.encode(pl.Series(values))
    assert found.tolist() == [[ids[v] for v in row] + [MISSING] * (2 - len(row)) for row in expected]


def test_whole_numbers_are_one_value_as_integers_and_floats() -> None:
    codes = codes_of(PLAIN).grown(pl.Series([3, 1]))
    assert codes.encode(pl.Series([1.0, 3.0, None, float("nan")])).tolist() == [[3], [2], [MISSING], [MISSING]]


def test_infinite_numbers_are_values_and_no_edges() -> None:
    values = pl.Series([float("inf"), 1.0, -float("inf"), 1e300])
    assert codes_of(PLAIN).grown(values).encode(values).ravel().tolist() == [2, 3, 4, 5]
    codes = codes_of(PRICE).grown(values)
    assert isinstance(codes, BucketCodes)
    assert codes.edges == (1.0, 1e300)
    assert codes.encode(values).ravel().tolist() == [4, 3, 2, 4]


def test_a_hash_is_stable() -> None:
    codes = codes_of(Field(name="city", rule="hash", buckets=1000))
    found = codes.grown(column("a")).encode(column("a", None, "b", "a"))
    assert found.tolist() == [[345], [MISSING], [335], [345]]
    assert codes.num_ids == FIRST + 1000


@given(st.lists(st.one_of(st.none(), st.integers(-50, 50)), min_size=1, max_size=40))
def test_buckets_hold_equal_counts(values: list[int | None]) -> None:
    codes = BucketCodes(PRICE).grown(pl.Series(values, dtype=pl.Int64))
    found = codes.encode(pl.Series(values, dtype=pl.Int64)).ravel()
    there = np.array([value for value in values if value is not None])
    assert all((i == MISSING) == (value is None) for i, value in zip(found, values, strict=True))
    if len(there):
        edges = np.unique(np.quantile(there, [0.25, 0.5, 0.75], method="higher"))
        slow = [FIRST + sum(value >= edge for edge in edges) for value in there]
        assert found[found != MISSING].tolist() == slow


def test_edges_are_those_of_the_first_block_with_numbers() -> None:
    empty = codes_of(PRICE).grown(pl.Series([None, None], dtype=pl.Float64))
    assert empty.encode(pl.Series([1.0, None])).tolist() == [[UNKNOWN], [MISSING]]
    first = empty.grown(pl.Series([1, 2, 3, 4]))
    assert first.grown(pl.Series([100, 200])).encode(pl.Series(["1", "2.5", "1e9", ""])).tolist() == [
        [2],
        [3],
        [5],
        [0],
    ]
    assert first.num_ids == FIRST + PRICE.buckets


@settings(deadline=None)
@given(st.lists(st.lists(st.text("abc", max_size=1), max_size=4), max_size=4))
def test_a_stream_is_coded_as_a_dictionary_would(blocks: list[list[str]]) -> None:
    codes: Codes = codes_of(PLAIN)
    ids: dict[str, int] = {}
    for block in blocks:
        values = pl.Series(block, dtype=pl.String)
        codes = codes.grown(values)
        for value in block:
            if value:
                ids.setdefault(value, FIRST + len(ids))
        assert codes.encode(values).ravel().tolist() == [ids.get(value, MISSING) for value in block]
    assert isinstance(codes, GrowingCodes)
    assert codes.values.to_list() == list(ids)


@pytest.mark.parametrize(
    ("some", "values", "told"),
    [
        (PRICE, pl.Series(["1", "cheap"]), "column 'price': 'cheap' is no number"),
        (PRICE, pl.Series([[1]]), "numeric"),
        (PLAIN, pl.Series([{"a": 1}]), "no categories"),
    ],
)
def test_values_that_fit_no_field_are_named(some: Field, values: pl.Series, told: str) -> None:
    with pytest.raises(DataError, match=told):
        codes_of(some).grown(values).encode(values)


@pytest.mark.parametrize("options", [{"kind": "text"}, {"rule": "guess"}, {"buckets": 1}, {"min_count": 0}])
def test_options_of_a_field_are_checked(options: dict[str, object]) -> None:
    with pytest.raises(OptionError, match="field city"):
        replace(PLAIN, **options)
