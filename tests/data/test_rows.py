"""Every kind of rows: batches, counts, and the way through named tensors."""

import pytest
import torch

from recdistill.data.batches import HardItems, SoftItems, supervise
from recdistill.data.rows import (
    KINDS,
    LabelledRows,
    LowRankLabelledRows,
    LowRankRows,
    SoftRows,
    TuckerRows,
    compact_ids,
    soft_batch,
    tucker_queries,
)
from recdistill.errors import RecdistillError
from reference.rows import IDS, LENGTHS, R, V, make, same
from reference.tiny import sasrec

kinds = pytest.mark.parametrize("kind", sorted(KINDS))
with_rows = pytest.mark.parametrize("kind", sorted(set(KINDS) - {"counts"}))


@kinds
def test_kinds_are_named_and_described(kind: str) -> None:
    rows = make(kind)
    assert rows.kind == kind
    assert KINDS[kind] is type(rows)
    stored = rows.tensors()
    assert {name: len(shape.split()) for name, shape in rows.shapes().items()} == {
        name: tensor.dim() for name, tensor in stored.items()
    }


@with_rows
def test_rows_survive_their_tensors(kind: str) -> None:
    rows = make(kind)
    factor = getattr(rows, "item_factor", None)
    again = KINDS[kind].from_tensors({name: tensor.clone() for name, tensor in rows.tensors().items()}, factor)
    assert (len(again), again.length) == (len(rows), rows.length)
    every = torch.arange(len(rows))
    same(again.batch(every), rows.batch(every))
    assert again.item_counts(V).tolist() == rows.item_counts(V).tolist()


@with_rows
def test_a_batch_of_some_rows_holds_those_rows(kind: str) -> None:
    rows, chosen = make(kind), torch.tensor([2, 0])
    every, some = rows.batch(torch.arange(3)), rows.batch(chosen)
    assert some.lengths.tolist() == every.lengths[chosen].tolist()
    assert some.weights.tolist() == every.weights[chosen].tolist()
    table = torch.randn(V + 1, 2, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(some.items.embed(table), every.items.embed(table)[chosen], rtol=0, atol=1e-6)


@with_rows
@pytest.mark.parametrize("objective", ["all", "last", "last_and_middle"])
def test_a_model_trains_on_every_kind(kind: str, objective: str) -> None:
    model = sasrec(V, max_seq_len=5, embedding_dim=R)
    batch = supervise(make(kind).batch(torch.arange(3)), objective, torch.Generator().manual_seed(0))
    loss = model.loss(batch)
    loss.backward()
    assert 1 < loss.item() < 4  # near ln 9, the loss of an untrained model
    assert model.item_table.grad is not None
    assert model.item_table.grad.abs().sum() > 0


def test_labels_in_half_precision_train_too() -> None:
    model = sasrec(V, max_seq_len=5, embedding_dim=R)
    half = model.loss(make("labelled", torch.float16).batch(torch.arange(3)))
    full = model.loss(make("labelled").batch(torch.arange(3)))
    assert half.item() == pytest.approx(full.item(), abs=1e-3)


def test_hard_rows_predict_the_next_item() -> None:
    batch = make("hard").batch(torch.tensor([1, 2]))
    assert isinstance(batch.items, HardItems)
    assert batch.items.ids.tolist() == IDS[1:].tolist()
    assert batch.lengths.tolist() == [1, 2]
    assert batch.weights.tolist() == [[1, 0, 0], [1, 1, 0]]
    assert make("hard").item_counts(V).tolist() == [0, 1, 1, 1, 3, 1, 0, 0, 0, 2]


def test_labelled_rows_have_a_target_after_every_item() -> None:
    rows = make("labelled")
    assert isinstance(rows, LabelledRows)
    batch = rows.batch(torch.arange(3))
    assert isinstance(batch.targets, SoftItems)
    assert batch.lengths.tolist() == LENGTHS.tolist()
    assert batch.weights.sum(1).tolist() == [4, 2, 3]
    found = batch.targets.dense().probabilities
    expected = torch.softmax(torch.einsum("ntr,vr->ntv", rows.target_queries, rows.item_factor), -1)
    torch.testing.assert_close(found, expected)
    assert batch.targets.first_id == 1


def test_low_rank_labels_are_those_of_the_written_out_queries() -> None:
    rows = make("low_rank_labelled")
    assert isinstance(rows, LowRankLabelledRows)
    found = rows.batch(torch.arange(3)).targets
    assert isinstance(found, SoftItems)
    whole = LabelledRows(rows.item_ids, rows.lengths, rows.target_queries @ rows.label_basis, rows.item_factor)
    expected = whole.batch(torch.arange(3)).targets
    assert isinstance(expected, SoftItems)
    torch.testing.assert_close(found.dense().probabilities, expected.dense().probabilities)


def test_tucker_queries_by_loop() -> None:
    rows = make("tucker")
    assert isinstance(rows, TuckerRows)
    found = tucker_queries(rows.core, rows.user_factor, rows.time_factor)
    for a in range(3):
        for b in range(5):
            expected = sum(
                rows.core[i, j] * rows.user_factor[a, i] * rows.time_factor[b, j] for i in range(2) for j in range(3)
            )
            torch.testing.assert_close(found[a, b], expected)


def test_tucker_rows_are_distributions_over_real_items() -> None:
    rows = make("tucker")
    assert isinstance(rows, TuckerRows)
    items = rows.items()
    assert items.first_id == 1
    assert items.dense().probabilities.shape == (3, 5, V)
    counts = rows.item_counts(V)
    assert counts[0] == 0
    assert float(counts.sum()) == pytest.approx(15, abs=1e-4)
    torch.testing.assert_close(counts[1:], items.dense().probabilities.sum((0, 1)))


def test_tucker_rows_with_a_padding_column() -> None:
    plain = make("tucker")
    assert isinstance(plain, TuckerRows)
    rows = TuckerRows(plain.core, plain.user_factor, plain.time_factor, plain.item_factor, pad_column=True)
    items = rows.items()
    assert items.first_id == 0
    with_padding = items.dense().probabilities
    assert with_padding.shape == (3, 5, V + 1)
    assert (with_padding[..., 0] > 0).all()
    renormalised = with_padding[..., 1:] / with_padding[..., 1:].sum(-1, keepdim=True)
    torch.testing.assert_close(renormalised, plain.items().dense().probabilities)
    counts = rows.item_counts(V)
    assert counts[0] == 0
    assert float(counts.sum()) == pytest.approx(15 - float(with_padding[..., 0].sum()), abs=1e-4)
    again = TuckerRows.from_tensors(rows.tensors(), rows.item_factor)
    assert again.pad_column is True
    assert TuckerRows.from_tensors(plain.tensors(), plain.item_factor).pad_column is False


def test_low_rank_rows_by_loop() -> None:
    rows = make("low_rank")
    assert isinstance(rows, LowRankRows)
    items = rows.items()
    assert items.first_id == 1
    found = items.dense().probabilities
    assert found.shape == (3, 5, V)
    for a in range(3):
        for b in range(5):
            logits = torch.stack([(rows.latent[a, b] * rows.decoder[item]).sum() / 0.7 for item in range(V)])
            torch.testing.assert_close(found[a, b], logits.exp() / logits.exp().sum())
    counts = rows.item_counts(V)
    assert counts[0] == 0
    torch.testing.assert_close(counts[1:], found.sum((0, 1)))


def test_low_rank_rows_need_no_item_factor() -> None:
    rows = make("low_rank")
    again = LowRankRows.from_tensors(rows.tensors(), None)
    same(again.batch(torch.arange(3)), rows.batch(torch.arange(3)))


def test_rows_that_hold_distributions_are_soft() -> None:
    assert {kind for kind in KINDS if isinstance(make(kind), SoftRows)} == {"tucker", "low_rank"}


def test_count_rows_hold_counts_and_no_rows() -> None:
    rows = make("counts")
    assert (len(rows), rows.length) == (0, 0)
    assert rows.item_counts(V).tolist() == list(range(V + 1))
    with pytest.raises(RecdistillError, match="no rows"):
        rows.batch(torch.arange(0))


@pytest.mark.parametrize("kind", ["labelled", "low_rank_labelled", "tucker"])
def test_rows_that_need_the_item_factor_say_so(kind: str) -> None:
    with pytest.raises(RecdistillError, match="need the item factor"):
        KINDS[kind].from_tensors(make(kind).tensors(), None)


@pytest.mark.parametrize(("largest", "dtype"), [(0, torch.int16), ((1 << 15) - 1, torch.int16), (1 << 15, torch.int32)])
def test_ids_are_stored_in_the_narrowest_type(largest: int, dtype: torch.dtype) -> None:
    compact = compact_ids(torch.tensor([0, largest]))
    assert compact.dtype == dtype
    assert compact.tolist() == [0, largest]
    assert compact_ids(torch.empty(0, dtype=torch.long)).dtype == torch.int16


def test_soft_batches_are_full() -> None:
    batch = soft_batch(HardItems(IDS), 3, 4)
    assert batch.lengths.tolist() == [3, 3, 3]
    assert batch.weights.tolist() == [[1, 1, 1]] * 3


@pytest.mark.parametrize("kind", ["tucker", "low_rank"])
def test_expected_counts_do_not_depend_on_blocks(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = make(kind)
    whole = rows.item_counts(V)
    monkeypatch.setattr("recdistill.data.rows.LOGITS_BYTES", 4 * V * 4 + 3)  # four positions of fifteen at a time
    torch.testing.assert_close(rows.item_counts(V), whole)
