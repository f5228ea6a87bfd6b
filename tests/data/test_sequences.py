"""Rows predict every training event once and never touch a held-out one; cases see the past only."""

from collections import Counter
from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from recdistill.data import sequences
from recdistill.data.sequences import (
    ROWS,
    EvaluationCases,
    Histories,
    SequenceRows,
    evaluation_cases,
    gather_spans,
    hard_batch,
    prefixes,
    training_rows,
    windows,
)
from recdistill.errors import OptionError
from reference.tiny import histories_of_lists, training_events


@st.composite
def logs(draw) -> Histories:
    """Return histories in which event ``n`` is item ``n + 1``, so that an item names its place."""
    sizes = draw(st.lists(st.tuples(st.integers(0, 9), st.integers(0, 3), st.integers(0, 3)), min_size=1, max_size=5))
    numbers = iter(range(1, 200))
    parts = [[[next(numbers) for _ in range(size)] for size in user] for user in sizes]
    return histories_of_lists(*zip(*parts, strict=True))


def predicted(rows: SequenceRows) -> list[tuple[int, int]]:
    """Return (last input, target) of every position with a weight, batch by batch."""
    found = []
    for index in torch.arange(len(rows)).split(3):
        batch = rows.batch(index)
        ids = batch.items.ids
        for row, length in enumerate(batch.lengths.tolist()):
            weights = batch.weights[row].tolist()
            assert weights == [1.0] * length + [0.0] * (len(weights) - length)
            assert (ids[row, : length + 1] > 0).all()
            assert (ids[row, length + 1 :] == 0).all()
            found += [(int(ids[row, t]), int(ids[row, t + 1])) for t in range(length)]
    return found


def every_step(histories: Histories) -> list[tuple[int, int]]:
    """Return (event, next event) of the training part of every user."""
    steps = []
    for user in range(histories.num_users):
        events = training_events(histories, user)
        steps += list(pairwise(events))
    return steps


@given(logs(), st.integers(1, 5))
def test_windows_predict_every_training_event_but_the_first_once(histories: Histories, max_seq_len: int) -> None:
    rows = windows(histories, max_seq_len)
    assert Counter(predicted(rows)) == Counter(every_step(histories))
    lengths = rows.stop - rows.start
    assert (lengths >= 2).all()
    assert (lengths <= max_seq_len + 1).all()


@given(logs(), st.integers(1, 5))
def test_prefixes_end_at_every_training_event_but_the_first(histories: Histories, max_seq_len: int) -> None:
    rows = prefixes(histories, max_seq_len)
    expected = []
    for user in range(histories.num_users):
        events = training_events(histories, user)
        expected += [events[max(0, stop - max_seq_len - 1) : stop] for stop in range(2, len(events) + 1)]
    found = [histories.items[a:b].tolist() for a, b in zip(rows.start, rows.stop, strict=True)]
    assert found == expected


@given(logs(), st.integers(1, 5), st.sampled_from(sorted(ROWS)))
def test_rows_stay_inside_one_users_training_part(histories: Histories, max_seq_len: int, kind: str) -> None:
    rows = ROWS[kind](histories, max_seq_len)
    for start, stop, user in zip(rows.start, rows.stop, rows.users, strict=True):
        assert histories.offsets[user] <= start < stop <= histories.train_end[user]


@given(logs(), st.integers(1, 5), st.sampled_from(sorted(ROWS)))
def test_item_counts_count_every_used_event_once(histories: Histories, max_seq_len: int, kind: str) -> None:
    rows = ROWS[kind](histories, max_seq_len)
    expected = np.zeros(201)
    for user in range(histories.num_users):
        events = training_events(histories, user)
        if len(events) >= 2:
            expected[events] += 1
    assert rows.item_counts(200).tolist() == expected.tolist()


def test_item_counts_with_repeated_items(histories: Histories) -> None:
    assert windows(histories, 2).item_counts(11).tolist() == [0, 1, 1, 3, 1, 1, 1, 1, 0, 0, 0, 0]
    assert histories.train_counts(11).tolist() == [0, 1, 1, 3, 1, 1, 1, 1, 1, 0, 0, 0]


@given(logs())
def test_train_counts_count_training_events_only(histories: Histories) -> None:
    expected = np.zeros(201)
    for user in range(histories.num_users):
        expected[training_events(histories, user)] += 1
    assert histories.train_counts(200).tolist() == expected.tolist()


@pytest.mark.parametrize("kind", sorted(ROWS))
def test_without_two_training_events_there_is_nothing_to_train_on(kind: str) -> None:
    with pytest.raises(OptionError, match="no user has two training events"):
        training_rows(histories_of_lists([[1], []], [[2], [3]], [[], []]), 5, kind)


def test_windows_by_hand(histories: Histories) -> None:
    rows = windows(histories, 3)
    cut = [histories.items[a:b].tolist() for a, b in zip(rows.start, rows.stop, strict=True)]
    assert sorted(cut) == [[1, 2, 3, 4], [3, 3], [4, 5, 6, 7]]
    assert rows.max_seq_len == 3


@given(logs())
def test_development_contains_no_test_event(histories: Histories) -> None:
    kept = histories.development()
    tests = [
        item for user in range(histories.num_users) for item in part(histories, user, histories.valid_end, last=True)
    ]
    assert not set(kept.items.tolist()) & set(tests)
    assert len(kept.items) == len(histories.items) - len(tests)
    assert kept.items.dtype == histories.items.dtype
    for user in range(histories.num_users):
        assert training_events(kept, user) == training_events(histories, user)
        assert part(kept, user, kept.train_end) == part(histories, user, histories.train_end)
        assert kept.valid_end[user] == kept.offsets[user + 1]


def part(histories: Histories, user: int, start: np.ndarray, *, last: bool = False) -> list[int]:
    """Return the validation (or, with ``last``, the test) events of one user."""
    stop = histories.offsets[user + 1] if last else histories.valid_end[user]
    return histories.items[start[user] : stop].tolist()


@given(logs(), st.sampled_from(["valid", "test"]), st.integers(1, 4))
def test_cases_are_the_held_out_events_with_everything_before_them(
    histories: Histories, which: str, max_seq_len: int
) -> None:
    cases = evaluation_cases(histories, which)
    expected = []
    for user in range(histories.num_users):
        history = histories.items[histories.offsets[user] : histories.offsets[user + 1]].tolist()
        split = histories.train_end if which == "valid" else histories.valid_end
        stop = histories.valid_end if which == "valid" else histories.offsets[1:]
        first, last = split[user] - histories.offsets[user], stop[user] - histories.offsets[user]
        expected += [(user, history[:at], history[at], history) for at in range(first, last) if at > 0]
    assert cases.users.tolist() == [user for user, *_ in expected]
    assert len(cases) == len(expected)
    if expected:
        check_cases(cases, expected, max_seq_len)


def check_cases(cases: EvaluationCases, expected: list, max_seq_len: int) -> None:
    rows = np.arange(len(cases))
    assert cases.targets(rows).tolist() == [target for _, _, target, _ in expected]
    items, lengths = cases.histories(rows, max_seq_len)
    shown = [row[:length] for row, length in zip(items.ids.tolist(), lengths.tolist(), strict=True)]
    assert shown == [before[-max_seq_len:] for _, before, _, _ in expected]
    assert [len(set(row[length:]) - {0}) for row, length in zip(items.ids.tolist(), lengths.tolist(), strict=True)] == [
        0
    ] * len(expected)
    for future in (False, True):
        row_of, item_of = cases.seen(rows, future=future)
        for row, (_, before, _, history) in enumerate(expected):
            assert item_of[row_of == row].tolist() == (history if future else before)


def test_cases_of_some_rows(histories: Histories) -> None:
    cases = evaluation_cases(histories, "valid")
    assert cases.users.tolist() == [0, 1, 1, 3]
    chosen = np.array([2, 0])
    assert cases.targets(chosen).tolist() == [5, 9]
    items, lengths = cases.histories(chosen, 10)
    assert items.ids.tolist() == [[3, 3, 4, 0, 0, 0, 0], [1, 2, 3, 4, 5, 6, 7]]
    assert lengths.tolist() == [3, 7]


def test_gather_spans_at_the_end_of_the_array() -> None:
    items = np.arange(1, 6, dtype=np.int32)
    found = gather_spans(items, np.array([3, 0]), np.array([5, 3]))
    assert found.tolist() == [[4, 5, 0], [1, 2, 3]]
    assert found.dtype == torch.int64


def test_hard_batch_weighs_real_targets_only() -> None:
    batch = hard_batch(torch.tensor([[1, 2, 3], [4, 5, 0]]), torch.tensor([2, 1]))
    assert batch.weights.tolist() == [[1, 1], [1, 0]]
    assert batch.positions is None
    assert batch.targets is None


def test_rows_can_be_read_in_any_order(histories: Histories) -> None:
    rows = windows(histories, 3)
    one = rows.batch(torch.tensor([2, 0]))
    assert one.items.ids[0].tolist() == [*rows.batch(torch.tensor([2])).items.ids[0].tolist(), 0, 0]
    assert one.lengths.tolist() == [1, 3]


@pytest.mark.parametrize("block", [1, 3, 7, 1 << 22])
def test_positions_in_spans_are_those_of_a_plain_loop(block: int) -> None:
    generator = np.random.default_rng(0)
    for size in (0, 1, 20, 40):
        starts = generator.integers(0, size + 1, 6)
        stops = np.minimum(starts + generator.integers(0, 9, 6), size)
        expected = np.zeros(size, dtype=bool)
        for start, stop in zip(starts, stops, strict=True):
            expected[start:stop] = True
        found = list(sequences._covered(starts, stops, size, block))
        assert [low for low, _ in found] == list(range(0, size, block))
        assert np.concatenate([np.zeros(0, dtype=bool), *(inside for _, inside in found)]).tolist() == expected.tolist()
