"""Parts of the catalogue, recommendations and their spread, against loops over items and cases with a known answer."""

import math
from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from recdistill.data.batches import HardItems
from recdistill.data.rows import KINDS, CountRows, HardRows, LowRankRows
from recdistill.data.sequences import EvaluationCases, evaluation_cases
from recdistill.errors import InputError, NumericalError, OptionError
from recdistill.evaluation import long_tail
from recdistill.evaluation.long_tail import (
    PARTS,
    Exposure,
    ItemParts,
    accuracy_by_part,
    exposure,
    gini,
    item_parts,
    recommend,
    rows_coverage,
)
from recdistill.evaluation.protocols import evaluate
from recdistill.models.base import Recommender
from recdistill.models.popularity import Popularity
from reference import metrics as slow
from reference import rows as examples_of_rows
from reference.tiny import NUM_ITEMS, histories_of_lists, random_histories, sasrec


def parts_of(*counts: int) -> list[str]:
    """Return the part of each item, given the counts of the items 1, 2, ..."""
    found = item_parts(np.array([99, *counts]))  # the count of padding is not read
    assert found.part_of[0] == -1
    return [PARTS[index] for index in found.part_of[1:]]


def test_parts_hold_a_third_of_the_interactions_each() -> None:
    assert parts_of(1, 4, 2, 2, 1, 2, 0) == ["tail", "head", "torso", "torso", "tail", "tail", "tail"]
    assert parts_of(2, 2, 2) == ["head", "torso", "tail"]
    assert parts_of(3, 3, 3, 1) == ["head", "head", "torso", "tail"]  # 3 of 10 are less than a third
    found = item_parts(np.array([0, 1, 4, 2, 2, 1, 2, 0]))
    assert found.items == {"head": 1, "torso": 2, "tail": 4}
    assert found.interactions == {"head": 4, "torso": 4, "tail": 4}
    assert found.num_items == 7


def test_items_with_equal_counts_are_taken_by_their_id() -> None:
    assert parts_of(1, 1, 1, 1, 1, 1) == ["head", "head", "torso", "torso", "tail", "tail"]
    assert parts_of(*[2, 1] * 200) == ["head", "tail"] * 100 + ["torso", "tail"] * 100
    assert parts_of(*[1] * 3, 3, *[1] * 3) == ["torso", "torso", "torso", "head", "tail", "tail", "tail"]


def test_a_part_can_be_empty() -> None:
    assert parts_of(8, 1, 1, 1, 1) == ["head", "tail", "tail", "tail", "tail"]  # one item alone holds two thirds
    assert parts_of(5) == ["head"]
    assert parts_of(2, 1) == ["head", "tail"]


COUNTS = arrays.arrays(np.int64, st.integers(2, 30), elements=st.integers(0, 40)).filter(lambda made: made[1:].sum())


@given(COUNTS)
def test_parts_are_the_smallest_that_hold_their_thirds(counts: np.ndarray) -> None:
    parts, total = item_parts(counts), int(counts[1:].sum())
    for upto in (1, 2):
        inside = [item for item in range(1, len(counts)) if 0 <= parts.part_of[item] < upto]
        outside = [item for item in range(1, len(counts)) if parts.part_of[item] >= upto]
        held = int(counts[inside].sum())
        assert 3 * held >= upto * total
        assert 3 * (held - counts[inside].min()) < upto * total  # one item fewer would not do
        assert not outside or counts[inside].min() >= counts[outside].max()
    assert sum(parts.items.values()) == parts.num_items == len(counts) - 1
    assert sum(parts.interactions.values()) == total


def test_counts_that_make_no_parts_are_refused() -> None:
    with pytest.raises(InputError, match="no item has a training event"):
        item_parts(np.array([3, 0, 0]))
    with pytest.raises(InputError, match="-2 training events"):
        item_parts(np.array([0, 1, -2]))


THREE = item_parts(np.array([0, 6, 3, 3, 2, 2, 2]))
"""Item 1 is the head, 2 and 3 the torso, 4 to 6 the tail."""


def test_accuracy_is_that_of_the_events_of_each_part() -> None:
    ranks, targets = torch.tensor([1, 3, 11, 10, 2]), torch.tensor([1, 1, 1, 5, 4])
    found = accuracy_by_part(ranks, targets, THREE)
    assert [found[name].events for name in PARTS] == [3, 0, 2]
    assert found["torso"].metrics is None
    assert found["head"].metrics == pytest.approx({"NDCG@10": (1 + 0.5) / 3, "HR@10": 2 / 3})
    assert found["tail"].metrics == pytest.approx({"NDCG@10": (1 / math.log2(11) + 1 / math.log2(3)) / 2, "HR@10": 1})
    assert accuracy_by_part(ranks, targets, THREE, k=2)["tail"].metrics == pytest.approx(
        {"NDCG@2": 1 / math.log2(3) / 2, "HR@2": 0.5}
    )


def test_parts_of_the_accuracy_add_up_to_the_whole() -> None:
    histories = random_histories(40, seed=5, held_out=(3, 20))
    cases = evaluation_cases(histories, "test")
    scores, parts = evaluate(sasrec(), cases), item_parts(histories.train_counts(NUM_ITEMS))
    found = accuracy_by_part(scores.ranks, cases.targets(np.arange(len(cases))), parts)
    assert sum(part.events for part in found.values()) == len(cases)
    for name in ("NDCG@10", "HR@10"):
        summed = sum(part.events * part.metrics[name] for part in found.values() if part.metrics)
        assert summed / len(cases) == pytest.approx(scores.metrics()[name])


def test_ranks_of_other_events_or_items_are_refused() -> None:
    with pytest.raises(InputError, match="2 ranks and 3 targets"):
        accuracy_by_part(torch.tensor([1, 2]), torch.tensor([1, 2, 3]), THREE)
    for wrong in (0, 7):
        with pytest.raises(InputError, match=f"{wrong} is not an item of the catalogue, whose ids are 1 to 6"):
            accuracy_by_part(torch.tensor([1, 2]), torch.tensor([1, wrong]), THREE)
    with pytest.raises(OptionError, match="k: 0"):
        accuracy_by_part(torch.tensor([1]), torch.tensor([1]), THREE, k=0)


@torch.no_grad()
def slow_lists(model: Recommender, cases: EvaluationCases, k: int) -> list[list[int]]:
    """Return the best unseen items of every case: one history and one item at a time."""
    lists = []
    for begin, position in zip(cases.begin, cases.position, strict=True):
        before = cases.items[begin:position].tolist()
        shown = before[-model.max_seq_len :]
        hidden = model.represent(HardItems(torch.tensor([shown])), torch.tensor([len(shown)]))[0]
        free = [item for item in range(1, model.num_items + 1) if item not in before]
        ordered = sorted(free, key=lambda item: (-float(hidden @ model.item_table[item]), item))[:k]
        lists.append(ordered + [0] * (k - len(ordered)))
    return lists


@pytest.mark.parametrize("k", [1, 4, 19, 25])
@pytest.mark.parametrize("block", [1, 3, NUM_ITEMS, 50])
def test_recommendations_equal_the_loop(k: int, block: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(long_tail, "CASES_PER_BATCH", 7)
    cases = evaluation_cases(random_histories(25, seed=1), "valid")
    model = sasrec(max_seq_len=4, num_blocks=2).double()
    told = []
    found = recommend(model, cases, k=k, block=block, progress=lambda *event: told.append(event[:3]))
    assert found.tolist() == slow_lists(model, cases, k)
    assert len({tuple(row) for row in found.tolist()}) > 5
    assert told == [("recommend", done, 25) for done in (7, 14, 21, 25)]


@pytest.mark.parametrize("block", [1, 3, 7, 100])
@pytest.mark.parametrize("seed", range(4))
def test_equal_scores_go_to_the_smaller_id_whatever_the_block(block: int, seed: int) -> None:
    model = Popularity(60, 5, generator=torch.Generator())
    model.count(torch.from_numpy(np.random.default_rng(seed).integers(0, 3, 61)).float())
    cases = evaluation_cases(histories_of_lists([[1, 2, 60], [5]], [[3], [4]], [[6], [7]]), "valid")
    assert recommend(model, cases, block=block).tolist() == slow_lists(model, cases, 10)


def test_a_held_out_item_is_recommended_where_its_rank_says_so() -> None:
    histories = random_histories(60, seed=8, held_out=(19, 20))
    cases = evaluation_cases(histories, "valid")
    model = sasrec()
    lists, ranks = recommend(model, cases, k=6), evaluate(model, cases).ranks
    inside = (lists == cases.targets(np.arange(len(cases)))[:, None]).any(1)
    assert 0 < inside.sum() < len(cases)
    assert inside.tolist() == [slow.hit_rate(rank, 6) == 1 for rank in ranks.tolist()]


def test_no_case_gives_no_list_and_nan_weights_are_an_error() -> None:
    nobody = evaluation_cases(histories_of_lists([[1, 2]], [[]], [[]]), "valid")
    assert recommend(sasrec(), nobody).shape == (0, 10)
    model = sasrec()
    with torch.no_grad():
        model.item_table[7] = float("nan")
    cases = evaluation_cases(random_histories(5, seed=0), "valid")
    with pytest.raises(NumericalError, match="NaN"):
        recommend(model, cases)
    for wrong in ({"k": 0}, {"block": 0}):
        with pytest.raises(OptionError, match="must be 1 or more"):
            recommend(sasrec(), cases, **wrong)


def exposed(lists: list[list[int]], targets: list[int], users: list[int], counts: list[int]) -> Exposure:
    return exposure(torch.tensor(lists), torch.tensor(targets), np.array(users), np.array(counts))


def test_exposure_of_a_known_case() -> None:
    found = exposed([[1, 2], [1, 3]], [2, 4], [0, 1], [0, 7, 3, 1, 0])
    one = (math.log(8) + math.log(4)) / 2 - math.log(4)
    two = (math.log(8) + math.log(2)) / 2 - math.log(1)
    assert found.popularity_shift == pytest.approx((one + two) / 2)
    assert found.coverage == 3 / 4
    assert found.gini == pytest.approx(sum(abs(a - b) for a in (2, 1, 1, 0) for b in (2, 1, 1, 0)) / (2 * 16 * 1))
    assert (found.k, found.users) == (2, 2)


def test_users_count_equally_however_many_events_they_have() -> None:
    counts = [0, 7, 0]
    found = exposed([[1], [1], [1], [2]], [2, 2, 2, 2], [5, 5, 5, 9], counts)
    assert found.popularity_shift == pytest.approx(math.log(8) / 2)
    assert found.users == 2


def test_places_without_an_item_do_not_count() -> None:
    counts = [0, 7, 3, 1]
    found = exposed([[1, 0], [2, 3], [0, 0]], [1, 1, 1], [0, 1, 2], counts)
    two = (math.log(4) + math.log(2)) / 2 - math.log(8)
    assert found.popularity_shift == pytest.approx(two / 2)  # the third has no list
    assert (found.users, found.coverage, found.gini) == (2, 1.0, pytest.approx(0))


def test_recommending_what_is_chosen_shifts_nothing_and_the_most_popular_shifts_up() -> None:
    counts = random_histories(40, seed=5).train_counts(NUM_ITEMS)
    middle = int(np.argsort(counts)[12])
    cases = evaluation_cases(random_histories(40, seed=5, held_out=(middle, 20)), "valid")
    targets = cases.targets(np.arange(len(cases)))
    same = exposure(targets[:, None], targets, cases.users, counts)
    assert same.popularity_shift == 0
    popular = Popularity(NUM_ITEMS, 8, generator=torch.Generator())
    popular.count(torch.from_numpy(counts).float())
    rare = Popularity(NUM_ITEMS, 8, generator=torch.Generator())
    rare.count(-torch.from_numpy(counts).float())
    up, down = (
        exposure(recommend(model, cases, k=3), targets, cases.users, counts).popularity_shift
        for model in (popular, rare)
    )
    assert up > 0.05
    assert down < -0.5


def test_lists_of_other_events_or_items_are_refused() -> None:
    counts = [0, 7, 3]
    for lists, targets, users in (([[1], [2]], [1], [0]), ([[1]], [1, 2], [0, 1]), ([[1]], [1], [0, 1])):
        with pytest.raises(InputError, match="do not belong to the same events"):
            exposed(lists, targets, users, counts)
    for lists, targets in (([[3]], [1]), ([[-1]], [1]), ([[1]], [0]), ([[1]], [3])):
        with pytest.raises(InputError, match="is not an item of the catalogue"):
            exposed(lists, targets, [0], counts)
    with pytest.raises(InputError, match="nothing is recommended"):
        exposed([[0]], [1], [0], counts)


@given(arrays.arrays(np.int64, st.integers(1, 12), elements=st.integers(0, 20)).filter(lambda made: made.sum()))
def test_gini_is_half_the_mean_difference_of_all_pairs_over_the_mean(values: np.ndarray) -> None:
    expected = np.abs(values[:, None] - values[None]).mean() / (2 * values.mean())
    assert gini(values) == pytest.approx(expected, abs=1e-12)


def test_gini_of_equal_shares_and_of_one_owner() -> None:
    assert gini(np.full(9, 4)) == pytest.approx(0, abs=1e-15)
    assert gini(np.array([0, 0, 7, 0])) == pytest.approx(1 - 1 / 4)


def test_hard_rows_hold_the_items_that_occur() -> None:
    rows = HardRows(torch.tensor([[1, 4, 4], [2, 5, 0]]), torch.tensor([3, 2]))
    assert rows_coverage(rows, THREE) == pytest.approx({"head": 1, "torso": 1 / 2, "tail": 2 / 3})
    assert rows_coverage(rows, THREE, threshold=2) == pytest.approx({"head": 0, "torso": 0, "tail": 1 / 3})


def test_soft_rows_hold_what_they_give_a_sum_of_ln_2_and_more() -> None:
    keys = torch.eye(6)
    chances = torch.tensor([[0.80, 0.10, 0.01, 0.03, 0.03, 0.03], [0.01, 0.40, 0.34, 0.05, 0.10, 0.10]])
    rows = LowRankRows(chances.log()[:, None], keys, torch.tensor([1.0]))
    assert rows_coverage(rows, THREE) == {"head": 1, "torso": 0, "tail": 0}  # sums .81, .50, .35, ...
    assert rows_coverage(rows, THREE, threshold=0.45) == {"head": 1, "torso": 0.5, "tail": 0}


def test_a_part_without_items_has_no_coverage() -> None:
    parts = item_parts(np.array([0, 9, 1]))
    assert rows_coverage(CountRows(torch.tensor([0.0, 3.0, 0.0])), parts) == {"head": 1, "torso": None, "tail": 0}


def test_an_item_that_soft_rows_hold_is_drawn_at_least_every_second_time() -> None:
    generator = torch.Generator().manual_seed(1)
    rows = LowRankRows(
        2 * torch.randn(3, 5, 4, generator=generator), torch.randn(25, 4, generator=generator), torch.tensor([1.0])
    )
    drawn = 1 - (1 - rows.items().dense().probabilities.double()).flatten(0, 1).prod(0)  # chance of each item
    single = ItemParts(part_of=np.r_[-1, np.zeros(25, int)], items={"head": 25, "torso": 0, "tail": 0}, interactions={})
    for item in range(25):
        only = single.part_of.copy()
        only[item + 1] = 2
        parts = ItemParts(part_of=only, items={"head": 24, "torso": 0, "tail": 1}, interactions={})
        if rows_coverage(rows, parts)["tail"] == 1:
            assert drawn[item] >= 0.5
        else:
            assert drawn[item] < 0.75
    share = rows_coverage(rows, single)["head"]
    assert share is not None
    assert 0.1 < share < 0.9
    thresholds = [rows_coverage(rows, single, threshold=value)["head"] for value in (0.05, 0.2, 0.5, 1.0, 2.0)]
    assert all(one >= two for one, two in pairwise(thresholds))
    assert thresholds[0] > thresholds[-1]


@pytest.mark.parametrize("kind", sorted(KINDS))
def test_every_kind_of_rows_has_a_coverage(kind: str) -> None:
    rows = examples_of_rows.make(kind)
    parts = item_parts(np.arange(examples_of_rows.V + 1))
    counts = rows.item_counts(examples_of_rows.V).tolist()
    for index, name in enumerate(PARTS):
        held = [counts[item] >= math.log(2) for item in range(1, 10) if parts.part_of[item] == index]
        assert rows_coverage(rows, parts)[name] == pytest.approx(np.mean(held))


def test_wrong_thresholds_and_rows_of_another_catalogue_are_named() -> None:
    rows = HardRows(torch.tensor([[1, 9]]), torch.tensor([2]))
    with pytest.raises(OptionError, match="rows: 9 is their number of items; the catalogue has 6"):
        rows_coverage(rows, THREE)
    with pytest.raises(OptionError, match="threshold: 0 must be above 0"):
        rows_coverage(rows, THREE, threshold=0)
