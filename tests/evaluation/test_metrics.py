"""Metrics against a loop, ir-measures and scikit-learn, ties included."""

import ir_measures
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from ir_measures import RR, Success, nDCG
from sklearn.metrics import ndcg_score

from recdistill.errors import NumericalError
from recdistill.evaluation.metrics import CUTOFFS, METRICS, per_case, pessimistic_ranks
from reference import metrics as slow

coarse = st.sampled_from([-1.0, 0.0, 0.5, 2.0])  # few values, so that ties are common


@st.composite
def scored_cases(draw):
    """Return scores of candidates, target scores, and which candidates count."""
    rows, columns = draw(st.integers(1, 4)), draw(st.integers(1, 8))
    row = st.lists(coarse, min_size=columns, max_size=columns)
    scores = draw(st.lists(row, min_size=rows, max_size=rows))
    targets = draw(st.lists(coarse, min_size=rows, max_size=rows))
    flags = st.lists(st.booleans(), min_size=columns, max_size=columns)
    return scores, targets, draw(st.lists(flags, min_size=rows, max_size=rows))


@given(scored_cases())
def test_ranks_equal_the_loop(case) -> None:
    scores, targets, counted = case
    found = pessimistic_ranks(torch.tensor(scores), torch.tensor(targets), torch.tensor(counted))
    expected = [
        slow.rank_of(target, [s for s, count in zip(row, flags, strict=True) if count])
        for row, target, flags in zip(scores, targets, counted, strict=True)
    ]
    assert found.tolist() == expected


@given(st.lists(st.integers(1, 40), min_size=1, max_size=20))
def test_metrics_equal_the_loop(ranks: list[int]) -> None:
    found = per_case(torch.tensor(ranks))
    assert list(found) == [f"{name}@{k}" for name in ("HR", "NDCG", "MRR") for k in CUTOFFS]
    for name, values in found.items():
        metric, k = name.split("@")
        expected = [slow.METRICS[metric](rank, int(k)) for rank in ranks]
        assert values.dtype == torch.float64
        np.testing.assert_allclose(values.numpy(), expected, rtol=0, atol=1e-12)


def test_known_values() -> None:
    ranks = torch.tensor([1, 2, 5, 6])
    assert METRICS["HR"](ranks, 5).tolist() == [1, 1, 1, 0]
    assert METRICS["MRR"](ranks, 5).tolist() == [1, 0.5, 0.2, 0]
    assert METRICS["NDCG"](ranks, 5).tolist() == pytest.approx(
        [1, 0.6309297535714575, 0.38685280723454163, 0], abs=1e-12
    )


def test_ties_count_against_the_model() -> None:
    every = torch.ones(1, 3, dtype=torch.bool)
    assert pessimistic_ranks(torch.tensor([[1.0, 1.0, 0.0]]), torch.tensor([1.0]), every).tolist() == [3]


def test_infinite_scores_are_ranked() -> None:
    every = torch.ones(2, 2, dtype=torch.bool)
    scores = torch.tensor([[float("inf"), 0.0], [float("-inf"), 0.0]])
    assert pessimistic_ranks(scores, torch.tensor([1.0, float("-inf")]), every).tolist() == [2, 3]


def test_no_candidate_is_rank_one() -> None:
    none = torch.zeros(1, 2, dtype=torch.bool)
    assert pessimistic_ranks(torch.tensor([[9.0, 9.0]]), torch.tensor([0.0]), none).tolist() == [1]


def test_nan_is_an_error_where_it_counts() -> None:
    nan = float("nan")
    scores = torch.tensor([[nan, 1.0]])
    uncounted = torch.tensor([[False, True]])
    assert pessimistic_ranks(scores, torch.tensor([2.0]), uncounted).tolist() == [1]
    with pytest.raises(NumericalError, match="NaN"):
        pessimistic_ranks(scores, torch.tensor([2.0]), torch.tensor([[True, True]]))
    with pytest.raises(NumericalError, match="NaN"):
        pessimistic_ranks(torch.tensor([[1.0, 1.0]]), torch.tensor([nan]), uncounted)


@pytest.fixture
def untied(rng: np.random.Generator) -> tuple[np.ndarray, torch.Tensor]:
    """Return scores of 40 candidates in 30 cases, the target first, and the target's ranks."""
    scores = rng.permuted(np.tile(np.arange(40.0), (30, 1)), axis=1)
    every = torch.ones(30, 39, dtype=torch.bool)
    return scores, pessimistic_ranks(torch.from_numpy(scores[:, 1:]), torch.from_numpy(scores[:, 0]), every)


@pytest.mark.parametrize("k", CUTOFFS)
def test_metrics_equal_ir_measures(untied: tuple[np.ndarray, torch.Tensor], k: int) -> None:
    scores, ranks = untied
    relevant = [ir_measures.Qrel(str(case), "0", 1) for case in range(len(scores))]
    run = [
        ir_measures.ScoredDoc(str(case), str(item), float(score))
        for case, row in enumerate(scores)
        for item, score in enumerate(row)
    ]
    theirs = {"HR": Success @ k, "NDCG": nDCG @ k, "MRR": RR @ k}
    found = ir_measures.calc_aggregate(theirs.values(), relevant, run)
    ours = per_case(ranks)
    for name, measure in theirs.items():
        assert float(ours[f"{name}@{k}"].mean()) == pytest.approx(found[measure], abs=1e-12)


@pytest.mark.parametrize("k", CUTOFFS)
def test_ndcg_equals_scikit_learn(untied: tuple[np.ndarray, torch.Tensor], k: int) -> None:
    scores, ranks = untied
    relevance = np.zeros_like(scores)
    relevance[:, 0] = 1
    assert float(per_case(ranks)[f"NDCG@{k}"].mean()) == pytest.approx(ndcg_score(relevance, scores, k=k), abs=1e-12)
