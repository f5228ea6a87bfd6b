"""Ranks in the full catalogue and among negatives, against a loop over all items."""

import numpy as np
import pytest
import torch

from recdistill.data.batches import HardItems
from recdistill.data.sequences import EvaluationCases, Histories, evaluation_cases
from recdistill.errors import NumericalError, OptionError
from recdistill.evaluation.protocols import NUM_NEGATIVES, Scores, draw_negatives, evaluate, full_ranks, uni100_ranks
from recdistill.models.base import Recommender
from recdistill.models.popularity import Popularity
from recdistill.models.sasrec import SASRec
from reference import metrics as slow
from reference.tiny import NUM_ITEMS, histories_of_lists, random_histories, sasrec


def all_rows(cases: EvaluationCases) -> np.ndarray:
    return np.arange(len(cases))


@torch.no_grad()
def slow_ranks(model: Recommender, cases: EvaluationCases) -> list[int]:
    """Return the rank of every case: one history, one item and one score at a time."""
    ranks = []
    for begin, position in zip(cases.begin, cases.position, strict=True):
        before = cases.items[begin:position].tolist()
        shown = before[-model.max_seq_len :]
        hidden = model.represent(HardItems(torch.tensor([shown])), torch.tensor([len(shown)]))[0]
        scores = [float(hidden @ model.item_table[item]) for item in range(1, model.num_items + 1)]
        ranks.append(slow.full_rank(scores, int(cases.items[position]), set(before)))
    return ranks


@pytest.fixture
def model() -> SASRec:
    made = sasrec(max_seq_len=4, num_blocks=2).double()
    with torch.no_grad():
        made.item_table.mul_(50)
    return made


@pytest.fixture
def cases() -> EvaluationCases:
    return evaluation_cases(random_histories(25, seed=1, held_out=(3, 20)), "valid")


@pytest.mark.parametrize("block", [1, 3, NUM_ITEMS, NUM_ITEMS + 5])
def test_full_ranks_equal_the_loop(model: SASRec, cases: EvaluationCases, block: int) -> None:
    expected = slow_ranks(model, cases)
    assert len(set(expected)) > 3
    with torch.no_grad():
        found = full_ranks(model, cases, all_rows(cases), block=block)
    assert found.tolist() == expected


def test_full_ranks_of_the_test_part(model: SASRec, histories: Histories) -> None:
    cases = evaluation_cases(histories, "test")
    assert full_ranks(model, cases, all_rows(cases)).tolist() == slow_ranks(model, cases)


@pytest.fixture
def line() -> SASRec:
    """A model whose score of item ``i`` is exactly ``i``, for every user."""
    made = sasrec(10, max_seq_len=5, embedding_dim=2)
    with torch.no_grad():
        made.item_table.copy_(torch.stack([torch.arange(11.0), torch.zeros(11)], dim=1))
    made.represent = lambda items, lengths: torch.tensor([[1.0, 0.0]]).expand(len(lengths), -1)
    return made


@pytest.mark.parametrize("block", [1, 4, 10])
def test_seen_items_are_no_rivals_but_later_ones_are(line: SASRec, block: int) -> None:
    cases = evaluation_cases(histories_of_lists([[10, 8, 10]], [[7]], [[9]]), "valid")
    assert full_ranks(line, cases, all_rows(cases), block=block).tolist() == [2]  # only 9, which comes later


@pytest.mark.parametrize("block", [1, 4, 10])
def test_a_target_that_was_seen_before_is_ranked(line: SASRec, block: int) -> None:
    cases = evaluation_cases(histories_of_lists([[9, 5]], [[5]], [[1]]), "valid")
    assert full_ranks(line, cases, all_rows(cases), block=block).tolist() == [5]  # behind 6, 7, 8 and 10


@pytest.mark.parametrize("block", [1, 4, 10])
@pytest.mark.parametrize("protocol", ["full", "uni100"])
def test_a_constant_scorer_gets_the_worst_rank(protocol: str, block: int) -> None:
    model = Popularity(10, 5, generator=torch.Generator())
    cases = evaluation_cases(histories_of_lists([[1, 2], [3]], [[4], [5]], [[6], [7]]), "valid")
    if protocol == "full":
        assert full_ranks(model, cases, all_rows(cases), block=block).tolist() == [8, 9]
    else:  # 1, 2, 4, 6 and 3, 5, 7 were touched
        assert evaluate(model, cases, protocol=protocol).ranks.tolist() == [7, 8]


@pytest.mark.parametrize("num_items", [7, 65, 130])
@pytest.mark.parametrize("users", [1, 3, 16])
@pytest.mark.parametrize("width", [32, 66])
@pytest.mark.parametrize("protocol", ["full", "blocks", "uni100"])
def test_equal_item_vectors_tie_exactly(protocol: str, width: int, users: int, num_items: int) -> None:
    model = sasrec(num_items, max_seq_len=20, embedding_dim=width, num_heads=1)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        model.item_table[1:] = torch.randn(width, generator=generator)
        model.position_embedding.normal_(generator=generator)
    train = [([1, 2] * 9)[: 2 + user] for user in range(users)]  # the same items, other user vectors
    cases = evaluation_cases(histories_of_lists(train, [[3]] * users, [[4]] * users), "valid")
    if protocol == "uni100":
        ranks = uni100_ranks(model, cases, all_rows(cases), np.random.default_rng(0))
        worst = min(NUM_NEGATIVES, num_items - 4) + 1
    else:
        ranks = full_ranks(model, cases, all_rows(cases), block=num_items if protocol == "full" else 4)
        worst = num_items - 2
    assert ranks.tolist() == [worst] * users


def test_negatives_were_never_touched_and_do_not_repeat() -> None:
    histories = random_histories(30, seed=2)
    cases = evaluation_cases(histories, "valid")
    negatives = draw_negatives(cases, all_rows(cases), 150, np.random.default_rng(0))
    assert negatives.shape == (len(cases), NUM_NEGATIVES)
    for user, row in zip(cases.users, negatives, strict=True):
        touched = set(histories.items[histories.offsets[user] : histories.offsets[user + 1]].tolist())
        assert 20 in touched  # the test event: the future counts too
        assert not touched & set(row.tolist())
        assert len(set(row.tolist())) == NUM_NEGATIVES
        assert row.min() >= 1
        assert row.max() <= 150


def test_negatives_reach_the_whole_catalogue() -> None:
    cases = evaluation_cases(histories_of_lists([[1, 2]] * 40, [[3]] * 40, [[4]] * 40), "valid")
    negatives = draw_negatives(cases, all_rows(cases), 120, np.random.default_rng(0))
    assert set(negatives.flatten().tolist()) == set(range(5, 121))


def test_a_small_catalogue_has_fewer_negatives() -> None:
    cases = evaluation_cases(histories_of_lists([[1, 2]], [[3]], [[4]]), "valid")
    (row,) = draw_negatives(cases, all_rows(cases), 9, np.random.default_rng(0)).tolist()
    assert sorted(row[:5]) == [5, 6, 7, 8, 9]
    assert set(row[5:]) == {0}


def test_uni100_ranks_equal_the_loop(model: SASRec, cases: EvaluationCases) -> None:
    negatives = draw_negatives(cases, all_rows(cases), model.num_items, np.random.default_rng(5))
    with torch.no_grad():
        items, lengths = cases.histories(all_rows(cases), model.max_seq_len)
        scores = model.represent(items, lengths) @ model.item_table.T
    expected = [
        slow.rank_of(float(row[target]), [float(row[item]) for item in rivals if item])
        for row, target, rivals in zip(scores, cases.targets(all_rows(cases)), negatives, strict=True)
    ]
    with torch.no_grad():
        found = uni100_ranks(model, cases, all_rows(cases), np.random.default_rng(5))
    assert found.tolist() == expected


def test_the_same_seed_draws_the_same_negatives_for_every_model(
    cases: EvaluationCases, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn = []

    def spy(*args):
        drawn.append(draw_negatives(*args))
        return drawn[-1]

    monkeypatch.setattr("recdistill.evaluation.protocols.draw_negatives", spy)
    for model, seed in ((sasrec(150), 4), (Popularity(150, 8, generator=torch.Generator()), 4), (sasrec(150), 5)):
        evaluate(model, cases, protocol="uni100", seed=seed)
    assert (drawn[0] == drawn[1]).all()
    assert (drawn[0] != drawn[2]).any()


def test_evaluate_goes_through_the_cases_in_batches(
    model: SASRec, cases: EvaluationCases, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = evaluate(model, cases)
    monkeypatch.setattr("recdistill.evaluation.protocols.CASES_PER_BATCH", 7)
    told = []
    parts = evaluate(model, cases, progress=lambda stage, done, total, note="": told.append((stage, done, total)))
    assert parts.ranks.tolist() == whole.ranks.tolist() == slow_ranks(model, cases)
    assert told == [("evaluate", done, 25) for done in (7, 14, 21, 25)]
    assert parts.users.tolist() == list(range(25))
    assert not parts.ranks.requires_grad


def test_metrics_are_means_over_cases() -> None:
    scores = Scores("full", torch.tensor([1, 8, 30]), np.arange(3))
    found = scores.metrics()
    assert found["HR@5"] == pytest.approx(1 / 3, abs=1e-12)
    assert found["HR@10"] == pytest.approx(2 / 3, abs=1e-12)
    assert found["MRR@10"] == pytest.approx((1 + 1 / 8) / 3, abs=1e-12)


def test_no_case_gives_no_rank(model: SASRec) -> None:
    cases = evaluation_cases(histories_of_lists([[1, 2]], [[]], [[]]), "valid")
    assert evaluate(model, cases).ranks.shape == (0,)


def test_an_unknown_protocol_is_named_with_the_nearest(model: SASRec, cases: EvaluationCases) -> None:
    with pytest.raises(OptionError, match=r"'uni10' is not known.*did you mean 'uni100'"):
        evaluate(model, cases, protocol="uni10")


def test_nan_weights_are_an_error(model: SASRec, cases: EvaluationCases) -> None:
    with torch.no_grad():
        model.item_table[7] = float("nan")
    with pytest.raises(NumericalError, match="NaN"):
        evaluate(model, cases)
