"""Labels in a subspace: which subspace, what is stored, and that the outer loop learns in it."""

import itertools
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from recdistill.data.development import Development
from recdistill.data.rows import HardRows, LabelledRows, LowRankLabelledRows
from recdistill.distill.base import RunContext, Summary
from recdistill.distill.coresets.random_soft import RandomSoft, hidden_states
from recdistill.distill.labels import Labels, label_basis
from recdistill.distill.refined import Refined, RefineTask
from recdistill.distill.run import distill
from recdistill.errors import OptionError
from recdistill.rng import Streams
from recdistill.training.trajectory import Trajectory
from reference.tiny import NUM_ITEMS

TINY = Refined(
    num_rows=5,
    length=6,
    users="random",
    labels="teacher",
    label_rank=3,
    families=("gru4rec_64",),
    peer_epochs=2,
    epochs=0,
    steps_per_epoch=3,
    window=2,
    plain_steps=2,
    inner_batch_sizes=(2, 5),
    real_batch_size=6,
    real_positions=3,
    judge_steps=2,
    precision="float32",
)


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def summary(settings: Refined, train: Development, teacher: Trajectory) -> Summary:
    return settings.distill(train, teacher, None, Streams(0).child("refined"), RunContext())


def divergence(queries: Tensor, kept: Tensor, keys: Tensor) -> float:
    """Return the mean divergence of labels from those that are kept of them."""
    wanted, found = (torch.log_softmax(some.double() @ keys.double().T, -1) for some in (queries, kept))
    return float((wanted.exp() * (wanted - found)).sum(-1).mean())


def kept_in(basis: Tensor, queries: Tensor, keys: Tensor) -> Tensor:
    """Return the queries of a subspace with the nearest logits: weighted least squares, up to a constant."""
    weights = torch.softmax(queries @ keys.T, -1).mean(0)
    centred = (keys - weights @ keys) * weights.sqrt().unsqueeze(1)
    return torch.linalg.lstsq(centred @ basis.T, centred @ queries.T).solution.T @ basis


def test_a_whole_basis_loses_nothing() -> None:
    queries, keys = normal(40, 6), normal(30, 6, seed=1)
    basis = label_basis(queries, keys, 6)
    torch.testing.assert_close(basis @ basis.T, torch.eye(6))
    torch.testing.assert_close(queries @ basis.T @ basis, queries)


def test_labels_that_lie_in_a_subspace_are_kept() -> None:
    queries, keys = normal(40, 2) @ normal(2, 6, seed=1), normal(30, 6, seed=2)
    basis = label_basis(queries, keys, 2)
    torch.testing.assert_close(queries @ basis.T @ basis, queries, rtol=1e-4, atol=1e-4)


def test_what_no_softmax_sees_takes_no_room() -> None:
    """Along a direction in which all items are alike labels can differ as they like."""
    keys = torch.cat([normal(30, 5, seed=1), torch.ones(30, 1)], dim=1)
    queries = torch.cat([normal(40, 2, seed=2) @ normal(2, 5, seed=3), 100 * normal(40, 1, seed=4)], dim=1)
    basis = label_basis(queries, keys, 2)
    assert divergence(queries, kept_in(basis, queries, keys), keys) < 1e-8


def test_more_numbers_keep_more_and_more_than_plain_components() -> None:
    queries, keys = normal(60, 8), normal(50, 8, seed=1) * torch.logspace(0, -1, 8)
    losses = []
    for rank in (1, 2, 4, 7):
        plain = torch.linalg.svd(queries, full_matrices=False).Vh[:rank]
        ours, theirs = (kept_in(basis, queries, keys) for basis in (label_basis(queries, keys, rank), plain))
        losses.append(divergence(queries, ours, keys))
        assert losses[-1] < divergence(queries, theirs, keys)
    assert all(more > less for more, less in itertools.pairwise(losses))


@pytest.mark.parametrize("precision", ["float16", "float32"])
def test_rows_hold_so_many_numbers_for_each_label(precision: str, train: Development, teacher: Trajectory) -> None:
    settings = replace(TINY, precision=precision)
    ours = distill(train, settings, teacher, seed=0, context=RunContext())
    theirs = distill(train, RandomSoft(num_rows=5, length=6), teacher, seed=0, context=RunContext())
    assert isinstance(ours.rows, LowRankLabelledRows)
    assert isinstance(theirs.rows, LabelledRows)
    assert torch.equal(ours.rows.item_ids, theirs.rows.item_ids)
    assert ours.rows.target_queries.shape == (5, 6, 3)
    assert ours.rows.target_queries.dtype == getattr(torch, precision)
    assert ours.rows.keys.shape == (NUM_ITEMS, 3)


def test_labels_are_nearest_to_the_teachers_own(train: Development, teacher: Trajectory) -> None:
    """In the divergence from the teacher, which no plain projection of its hidden states reaches."""
    rows = summary(TINY, train, teacher).rows
    assert isinstance(rows, LowRankLabelledRows)
    model, real = teacher.model(), torch.arange(6) < rows.lengths.unsqueeze(1)
    whole = hidden_states(model, HardRows(rows.item_ids, rows.lengths))[real]
    kept, basis = rows.target_queries[real], rows.label_basis
    torch.testing.assert_close(basis, label_basis(whole, rows.item_factor, 3))
    wanted = torch.softmax(whole @ rows.item_factor.T, -1)
    slope = (torch.softmax(kept @ rows.keys.T, -1) - wanted) @ rows.keys
    assert slope.abs().max() < 1e-3
    lost, projected = (divergence(whole, some @ basis, rows.item_factor) for some in (kept, whole @ basis.T))
    assert lost < projected


def test_peers_labels_are_fitted_in_the_subspace(train: Development, teacher: Trajectory) -> None:
    settings = replace(TINY, labels="peers")
    low, whole = (summary(replace(settings, label_rank=rank), train, teacher).rows for rank in (3, None))
    assert isinstance(low, LowRankLabelledRows)
    assert isinstance(whole, LabelledRows)
    real = torch.arange(6) < whole.lengths.unsqueeze(1)
    torch.testing.assert_close(low.label_basis, label_basis(whole.target_queries[real], whole.item_factor, 3))
    torch.testing.assert_close(
        divergence(whole.target_queries[real], low.target_queries[real] @ low.label_basis, whole.item_factor),
        _least(whole, low, real),
        rtol=0.05,
        atol=1e-6,
    )


def _least(whole: LabelledRows, low: LowRankLabelledRows, real: Tensor) -> float:
    """Return the least divergence from whole labels in the subspace, by another way: long gradient descent."""
    kept = (whole.target_queries[real] @ low.label_basis.T).double().requires_grad_()
    keys = low.keys.double()
    wanted = torch.softmax(whole.target_queries[real].double() @ whole.item_factor.double().T, -1)
    optimizer = torch.optim.LBFGS([kept], max_iter=500, line_search_fn="strong_wolfe")

    def loss() -> Tensor:
        optimizer.zero_grad()
        value = -(wanted * torch.log_softmax(kept @ keys.T, -1)).sum()
        value.backward()
        return value

    optimizer.step(loss)
    return divergence(whole.target_queries[real], kept.detach().float() @ low.label_basis, whole.item_factor)


def test_the_outer_loop_learns_in_the_subspace(
    train: Development, teacher: Trajectory, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(RefineTask, "judge", lambda self, epoch: float(epoch))  # the last epoch is kept
    start, end = (summary(replace(TINY, epochs=epochs), train, teacher).rows for epochs in (0, 1))
    assert isinstance(start, LowRankLabelledRows)
    assert isinstance(end, LowRankLabelledRows)
    assert torch.equal(start.label_basis, end.label_basis)
    real = torch.arange(6) < start.lengths.unsqueeze(1)
    moved = (end.target_queries - start.target_queries).abs().amax(-1)
    assert (moved[real] > 1e-4).all()
    assert moved[~real].max() == 0


def test_items_are_those_of_the_stored_rows() -> None:
    rows, factor, basis = HardRows(torch.ones(2, 4).long(), torch.tensor([4, 2])), normal(9, 5), normal(3, 5, seed=1)
    labels = Labels(rows, normal(2, 4, 3, seed=2), factor, basis)
    stored = labels.stored("float32").batch(torch.arange(2)).targets
    assert stored is not None
    table = normal(10, 7, seed=3)
    torch.testing.assert_close(labels.items().embed(table), stored.embed(table))


@pytest.mark.parametrize("rank", [0, -1])
def test_a_rank_below_one_is_refused(rank: int) -> None:
    with pytest.raises(OptionError, match="label_rank"):
        replace(TINY, label_rank=rank)


def test_a_rank_above_the_width_is_refused(train: Development, teacher: Trajectory) -> None:
    width = teacher.model().item_width
    with pytest.raises(OptionError, match=f"label_rank.*{width + 1}.*at most {width}, the width of the item table"):
        summary(replace(TINY, label_rank=width + 1), train, teacher)
