"""The most probable items of a row are those of its written-out distributions, whatever the blocks."""

import pytest
import torch

from recdistill.data.rows import KINDS, CountRows, HardRows, LabelledRows, SoftRows, TuckerRows
from recdistill.errors import OptionError
from recdistill.evaluation import top_items as module
from recdistill.evaluation.top_items import top_items, top_labels
from reference.rows import IDS, LENGTHS, V, make

SOFT = [kind for kind in KINDS if isinstance(make(kind), SoftRows)]
LABELLED = [kind for kind, rows in KINDS.items() if issubclass(rows, LabelledRows)]


def in_order(probabilities: torch.Tensor, k: int) -> list[list[int]]:
    """Return the first k items of each position, by sorting pairs."""
    found = []
    for position in probabilities.tolist():
        pairs = sorted((-chance, item) for item, chance in enumerate(position, start=1))
        found.append([item for _, item in pairs[:k]])
    return found


@pytest.mark.parametrize("kind", SOFT)
@pytest.mark.parametrize("block", [1, 2 * V, 1 << 22])
def test_soft_rows_give_what_their_distributions_say(kind: str, block: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "NUMBERS_PER_BLOCK", block)
    rows = make(kind)
    assert isinstance(rows, SoftRows)
    for row in range(len(rows)):
        dense = rows.items().dense().probabilities[row]
        found = top_items(rows, row, 3)
        assert found is not None
        assert found.ids.tolist() == in_order(dense, 3)
        torch.testing.assert_close(found.chances, dense.gather(1, found.ids - 1))


def test_padding_among_the_items_is_left_out() -> None:
    rows = make("tucker")
    assert isinstance(rows, TuckerRows)
    padded = TuckerRows(rows.core, rows.user_factor, rows.time_factor, rows.item_factor, pad_column=True)
    with_padding, without = top_items(padded, 0, V), top_items(rows, 0, V)
    assert with_padding is not None
    assert without is not None
    assert torch.equal(with_padding.ids, without.ids)
    assert (with_padding.chances.sum(1) < 1 - 1e-4).all()
    torch.testing.assert_close(without.chances.sum(1), torch.ones(5))


def test_equal_items_come_in_the_order_of_their_ids() -> None:
    rows = TuckerRows(torch.zeros(1, 1, 2), torch.ones(1, 1), torch.ones(4, 1), torch.randn(V, 2))
    found = top_items(rows, 0, V)
    assert found is not None
    assert found.ids.tolist() == [list(range(1, V + 1))] * 4


@pytest.mark.parametrize("kind", ["hard", *LABELLED])
def test_rows_of_ids_give_their_items_without_padding(kind: str) -> None:
    rows = make(kind)
    for row, length in enumerate(LENGTHS.tolist()):
        found = top_items(rows, row, 3)
        assert found is not None
        assert found.ids.squeeze(1).tolist() == IDS[row, :length].tolist()
        assert (found.chances == 1).all()


@pytest.mark.parametrize("kind", LABELLED)
@pytest.mark.parametrize("precision", [torch.float32, torch.float16])
def test_labels_are_the_distribution_after_each_item(kind: str, precision: torch.dtype) -> None:
    rows = make(kind, precision)
    assert isinstance(rows, LabelledRows)
    for row, length in enumerate(LENGTHS.tolist()):
        dense = torch.softmax(rows.target_queries[row, :length].float() @ rows.keys.T, -1)
        found = top_labels(rows, row, 2)
        assert found is not None
        assert found.ids.tolist() == in_order(dense, 2)
        torch.testing.assert_close(found.chances, dense.gather(1, found.ids - 1))


def test_kinds_without_items_or_labels_give_none() -> None:
    counts, hard = make("counts"), make("hard")
    assert isinstance(counts, CountRows)
    assert isinstance(hard, HardRows)
    assert top_items(counts, 0, 1) is None
    assert top_labels(counts, 0, 1) is None
    assert top_labels(hard, 0, 1) is None


@pytest.mark.parametrize("function", [top_items, top_labels])
def test_rows_that_are_not_there_are_refused(function) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(OptionError, match=r"row: 3 must be one of 0 \.\. 2"):
        function(make("labelled"), 3, 1)
    with pytest.raises(OptionError, match="k: 0 must be 1 or more"):
        function(make("labelled"), 0, 0)
