"""The soft input law, the cross-entropy of soft targets, subsets of candidates, and the targets of an objective.

All but the last are proved for a catalogue that is written out and for one that is read in tiles.
"""

import math

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st

from recdistill.data.batches import (
    OBJECTIVES,
    DenseItems,
    HardItems,
    Items,
    ReadItems,
    SequenceBatch,
    SoftItems,
    mask_of,
    pick,
    supervise,
)
from recdistill.data.sequences import hard_batch
from recdistill.errors import OptionError

V, D = 7, 5
IDS = torch.tensor([[3, 1, 7, 7], [5, 2, 6, 4]])
POSITIONS = torch.tensor([[3, 0, 1], [2, 2, 0]])


def one_hot(ids: torch.Tensor, kind: str, first_id: int = 1) -> Items:
    """Return ``ids`` as soft or dense items; the logits of a wrong item are 2000 lower, which is 0 in float64."""
    columns = F.one_hot(ids - first_id, V + 1 - first_id).double()
    if kind == "dense":
        return DenseItems(columns, first_id)
    return SoftItems(2000 * columns, torch.eye(V + 1 - first_id, dtype=torch.float64), first_id)


def random_items(kind: str, first_id: int, generator: torch.Generator) -> SoftItems | DenseItems:
    queries = torch.randn(2, 4, 3, dtype=torch.float64, generator=generator)
    keys = torch.randn(V + 1 - first_id, 3, dtype=torch.float64, generator=generator)
    items = SoftItems(queries, keys, first_id)
    return items if kind == "soft" else items.dense()


@pytest.fixture(params=["written out", "in tiles"])
def catalogue(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let nothing fit, so that sums over items are taken three at a time."""
    if request.param == "in tiles":
        monkeypatch.setattr("recdistill.data.batches.LOGITS_BYTES", 0)
        monkeypatch.setattr("recdistill.data.soft_items.tile_for", lambda rows, itemsize: 3)


@pytest.fixture
def table(generator: torch.Generator, catalogue: None) -> torch.Tensor:
    made = torch.randn(V + 1, D, dtype=torch.float64, generator=generator)
    made[0] = 0
    return made


@pytest.fixture
def hidden(generator: torch.Generator) -> torch.Tensor:
    return torch.randn(2, 4, D, dtype=torch.float64, generator=generator)


kinds = pytest.mark.parametrize("kind", ["soft", "dense"])
first_ids = pytest.mark.parametrize("first_id", [1, 0])


@kinds
@first_ids
def test_one_hot_items_embed_as_hard_ones(kind: str, first_id: int, table: torch.Tensor) -> None:
    found = one_hot(IDS, kind, first_id).embed(table)
    torch.testing.assert_close(found, HardItems(IDS).embed(table), rtol=0, atol=1e-12)
    torch.testing.assert_close(found, table[IDS], rtol=0, atol=1e-12)


@kinds
@pytest.mark.parametrize("positions", [None, POSITIONS])
def test_one_hot_targets_cost_what_hard_ones_cost(
    kind: str, positions: torch.Tensor | None, table: torch.Tensor, hidden: torch.Tensor
) -> None:
    hidden = pick(hidden, positions)
    found = one_hot(IDS, kind).cross_entropy(hidden, table, positions)
    expected = HardItems(IDS).cross_entropy(hidden, table, positions)
    assert found.shape == hidden.shape[:2]
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-12)


def test_hard_cross_entropy_is_the_negative_log_likelihood(table: torch.Tensor, hidden: torch.Tensor) -> None:
    found = HardItems(IDS).cross_entropy(hidden, table)
    for row in range(2):
        for position in range(4):
            scores = [float(hidden[row, position] @ table[item]) for item in range(1, V + 1)]
            total = math.log(sum(math.exp(score) for score in scores))
            assert float(found[row, position]) == pytest.approx(total - scores[IDS[row, position] - 1], abs=1e-12)


def test_padding_costs_nothing_and_embeds_to_row_zero(table: torch.Tensor, hidden: torch.Tensor) -> None:
    ids = IDS.clone()
    ids[:, -1] = 0
    found = HardItems(ids).cross_entropy(hidden, table)
    assert found[:, -1].tolist() == [0, 0]
    assert (found[:, :-1] > 0).all()
    assert HardItems(ids).embed(table)[:, -1].abs().max() == 0


def test_padding_gives_no_gradient_to_row_zero(table: torch.Tensor) -> None:
    table.requires_grad_()
    HardItems(torch.tensor([[0, 2]])).embed(table).sum().backward()
    assert table.grad is not None
    assert table.grad[0].abs().max() == 0
    assert table.grad[2].abs().max() == 1


@kinds
@first_ids
def test_cross_entropy_is_divergence_plus_entropy(
    kind: str, first_id: int, table: torch.Tensor, hidden: torch.Tensor, generator: torch.Generator
) -> None:
    items = random_items(kind, first_id, generator)
    probabilities = items.probabilities if isinstance(items, DenseItems) else items.dense().probabilities
    model = torch.softmax(hidden @ table[first_id:].T, -1)
    divergence = F.kl_div(model.log(), probabilities, reduction="none").sum(-1)
    entropy = -(probabilities * probabilities.log()).sum(-1)
    found = items.cross_entropy(hidden, table)
    torch.testing.assert_close(found, divergence + entropy, rtol=0, atol=1e-12)
    expected = torch.einsum("btv,btv->bt", probabilities, -model.log())
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-12)


def test_cross_entropy_and_divergence_have_the_same_gradient(
    table: torch.Tensor, hidden: torch.Tensor, generator: torch.Generator
) -> None:
    items = random_items("soft", 1, generator)
    table.requires_grad_()
    (ours,) = torch.autograd.grad(items.cross_entropy(hidden, table).sum(), table)
    log_model = torch.log_softmax(hidden @ table[1:].T, -1)
    divergence = F.kl_div(log_model, items.dense().probabilities, reduction="sum")
    torch.testing.assert_close(ours, torch.autograd.grad(divergence, table)[0], rtol=0, atol=1e-12)


@kinds
@first_ids
@pytest.mark.parametrize("positions", [None, POSITIONS])
def test_a_known_embedding_changes_nothing(
    kind: str,
    first_id: int,
    positions: torch.Tensor | None,
    table: torch.Tensor,
    hidden: torch.Tensor,
    generator: torch.Generator,
) -> None:
    items, hidden = random_items(kind, first_id, generator), pick(hidden, positions)
    given = items.cross_entropy(hidden, table, positions, items.embed(table))
    torch.testing.assert_close(items.cross_entropy(hidden, table, positions), given, rtol=0, atol=1e-12)


@first_ids
def test_soft_items_equal_their_dense_form(first_id: int, table: torch.Tensor, generator: torch.Generator) -> None:
    items = random_items("soft", first_id, generator)
    assert isinstance(items, SoftItems)
    dense = items.dense()
    assert dense.first_id == first_id
    torch.testing.assert_close(dense.probabilities.sum(-1), torch.ones(2, 4, dtype=torch.float64), rtol=0, atol=1e-12)
    torch.testing.assert_close(items.embed(table), dense.embed(table), rtol=0, atol=1e-12)


def test_a_padding_column_takes_part_in_the_softmax(table: torch.Tensor, hidden: torch.Tensor) -> None:
    everything_on_padding = DenseItems(F.one_hot(torch.zeros(2, 4, dtype=torch.long), V + 1).double(), first_id=0)
    assert everything_on_padding.embed(table).abs().max() == 0
    found = everything_on_padding.cross_entropy(hidden, table)
    torch.testing.assert_close(found, torch.logsumexp(hidden @ table.T, -1), rtol=0, atol=1e-12)


def test_soft_cross_entropy_by_hand() -> None:
    hidden, table = torch.tensor([[[1.0, 2.0]]]), torch.tensor([[9.0, 9.0], [1.0, 0.0], [0.0, 1.0]])
    found = DenseItems(torch.tensor([[[0.25, 0.75]]])).cross_entropy(hidden, table)
    assert float(found) == pytest.approx(math.log(math.e + math.e**2) - 1.75, abs=1e-6)


@kinds
@first_ids
def test_distributions_at_positions(kind: str, first_id: int, table: torch.Tensor, generator: torch.Generator) -> None:
    items = random_items(kind, first_id, generator)
    assert items.at(None).embed(table).equal(items.embed(table))
    found = items.at(POSITIONS)
    assert found.first_id == first_id
    torch.testing.assert_close(found.embed(table), pick(items.embed(table), POSITIONS), rtol=0, atol=1e-12)


CANDIDATES = {
    "all": list(range(1, V + 1)),
    "all, in another order": [4, 7, 1, 3, 2, 6, 5],
    "some": [6, 2, 3],
    "one": [5],
    "the first and the last": [V, 1],
}
every_subset = pytest.mark.parametrize("candidates", CANDIDATES.values(), ids=CANDIDATES)


def losses_of(items: Items, hidden: torch.Tensor, table: torch.Tensor, leaves: list[torch.Tensor]) -> tuple:
    """Return expected vectors and cross-entropies, and the gradient of a function of both."""
    embedded, losses = items.embed(table), items.cross_entropy(hidden, table)
    weighed = (losses * torch.arange(8).view(2, 4)).sum() + embedded.square().sum()
    return embedded.detach(), losses.detach(), *torch.autograd.grad(weighed, leaves)


@kinds
@first_ids
@pytest.mark.parametrize("order", ["all", "all, in another order"])
def test_with_all_items_as_candidates_nothing_changes(
    kind: str, first_id: int, order: str, table: torch.Tensor, hidden: torch.Tensor, generator: torch.Generator
) -> None:
    candidates = torch.tensor(CANDIDATES[order] + [0] * (1 - first_id))
    items = random_items("soft", first_id, generator)
    assert isinstance(items, SoftItems)
    leaves = [value.requires_grad_() for value in (items.queries, items.keys, table, hidden)]
    subset = items.subset(candidates)
    found = losses_of(subset if kind == "soft" else subset.dense(), hidden, table, leaves)
    torch.testing.assert_close(found, losses_of(items, hidden, table, leaves), rtol=1e-10, atol=1e-10)
    columns = candidates - first_id
    torch.testing.assert_close(subset.dense().probabilities, items.dense().probabilities[..., columns])


@kinds
@first_ids
@every_subset
def test_a_subset_is_the_softmax_over_its_candidates(
    kind: str,
    first_id: int,
    candidates: list[int],
    table: torch.Tensor,
    hidden: torch.Tensor,
    generator: torch.Generator,
) -> None:
    """Renormalised, on both sides: neither the items nor the model's own softmax see another item."""
    items, ids = random_items("soft", first_id, generator), torch.tensor(candidates)
    assert isinstance(items, SoftItems)
    leaves = [value.requires_grad_() for value in (items.queries, items.keys, table, hidden)]
    chosen = items.dense().probabilities[..., ids - first_id]
    shares = chosen / chosen.sum(-1, keepdim=True)
    embedded, log_model = shares @ table[ids], torch.log_softmax(hidden @ table[ids].T, -1)
    losses = -(shares * log_model).sum(-1)
    weighed = (losses * torch.arange(8).view(2, 4)).sum() + embedded.square().sum()
    expected = embedded.detach(), losses.detach(), *torch.autograd.grad(weighed, leaves)
    subset = items.subset(ids) if kind == "soft" else items.subset(ids).dense()
    torch.testing.assert_close(losses_of(subset, hidden, table, leaves), expected, rtol=1e-10, atol=1e-10)
    assert subset.candidates is not None
    assert subset.candidates.tolist() == candidates


@kinds
def test_positions_and_devices_keep_the_candidates(kind: str, table: torch.Tensor, generator: torch.Generator) -> None:
    items = random_items("soft", 1, generator)
    assert isinstance(items, SoftItems)
    subset = items.subset(torch.tensor([6, 2])) if kind == "soft" else items.subset(torch.tensor([6, 2])).dense()
    torch.testing.assert_close(subset.at(POSITIONS).embed(table), pick(subset.embed(table), POSITIONS))
    moved = subset.to(torch.device("meta")).candidates
    assert moved is not None
    assert str(moved.device) == "meta"


def test_a_padding_column_can_be_a_candidate(table: torch.Tensor, generator: torch.Generator) -> None:
    items = random_items("soft", 0, generator)
    assert isinstance(items, SoftItems)
    shares = items.dense().probabilities
    found = items.subset(torch.tensor([0, 3])).embed(table)
    torch.testing.assert_close(found, (shares[..., [3]] / shares[..., [0, 3]].sum(-1, keepdim=True)) * table[3])


@pytest.mark.parametrize(
    ("first_id", "candidates", "said"),
    [
        (1, [], "none"),
        (1, [3, 0], "0"),
        (0, [0, -1], "-1"),
        (1, [V + 1, 2], str(V + 1)),
        (0, [2, V + 1], str(V + 1)),
        (1, [4, 2, 4], "4.*more than once"),
    ],
)
def test_bad_candidates_are_refused(
    first_id: int, candidates: list[int], said: str, generator: torch.Generator
) -> None:
    items = random_items("soft", first_id, generator)
    assert isinstance(items, SoftItems)
    with pytest.raises(OptionError, match=f"candidates.*{said}"):
        items.subset(torch.tensor(candidates, dtype=torch.long))


def test_a_subset_of_a_subset_is_refused(generator: torch.Generator) -> None:
    items = random_items("soft", 1, generator)
    assert isinstance(items, SoftItems)
    with pytest.raises(OptionError, match=r"candidates.*already"):
        items.subset(torch.tensor([1, 2, 3])).subset(torch.tensor([1]))


@first_ids
@pytest.mark.parametrize("candidates", [None, [6, 2, 3]])
@pytest.mark.parametrize("positions", [None, POSITIONS])
def test_items_that_were_read_cost_what_they_cost_before(
    first_id: int,
    candidates: list[int] | None,
    positions: torch.Tensor | None,
    table: torch.Tensor,
    hidden: torch.Tensor,
    generator: torch.Generator,
) -> None:
    items, hidden = random_items("soft", first_id, generator), pick(hidden, positions)
    assert isinstance(items, SoftItems)
    items = items if candidates is None else items.subset(torch.tensor(candidates))
    read = ReadItems(items.embed(table), first_id, items.candidates)
    assert read.embed(table) is read.vectors
    expected = items.cross_entropy(hidden, table, positions)
    torch.testing.assert_close(read.cross_entropy(hidden, table, positions), expected, rtol=0, atol=1e-12)
    embedded = read.embed(table)
    torch.testing.assert_close(read.cross_entropy(hidden, table, positions, embedded), expected, rtol=0, atol=1e-12)
    torch.testing.assert_close(read.at(POSITIONS).vectors, pick(embedded, POSITIONS), rtol=0, atol=0)


def test_read_items_move_with_their_candidates() -> None:
    moved = ReadItems(torch.zeros(2, 4, D), 0, torch.tensor([1, 3])).to(torch.device("meta"))
    assert moved.candidates is not None
    assert {str(value.device) for value in (moved.vectors, moved.candidates)} == {"meta"}
    assert moved.first_id == 0


def test_what_does_not_fit_gives_the_same_gradients(
    table: torch.Tensor, hidden: torch.Tensor, generator: torch.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    ids, soft = torch.tensor([[3, 0, 7, 7], [5, 2, 0, 4]]), random_items("soft", 1, generator)
    assert isinstance(soft, SoftItems)
    leaves = [value.requires_grad_() for value in (table, hidden, soft.queries, soft.keys)]
    found = []
    for limit in (0, 2**26):
        monkeypatch.setattr("recdistill.data.batches.LOGITS_BYTES", limit)
        found.append((losses_of(HardItems(ids), hidden, table, leaves[:2]), losses_of(soft, hidden, table, leaves)))
    torch.testing.assert_close(*found, rtol=1e-10, atol=1e-10)


def test_pick_takes_positions_row_by_row() -> None:
    values = torch.arange(24).view(2, 3, 4)
    assert pick(values, torch.tensor([[2], [0]])).tolist() == [[values[0, 2].tolist()], [values[1, 0].tolist()]]
    assert pick(values[:, :, 0], torch.tensor([[2, 2], [0, 1]])).tolist() == [[8, 8], [12, 16]]
    assert pick(values, None) is values


def test_mask_of() -> None:
    assert mask_of(torch.tensor([0, 1, 3]), 3).tolist() == [[False] * 3, [True, False, False], [True] * 3]


def test_to_moves_every_tensor(generator: torch.Generator) -> None:
    meta = torch.device("meta")
    soft = random_items("soft", 0, generator)
    batch = SequenceBatch(soft, torch.tensor([4, 4]), torch.ones(2, 1), torch.tensor([[0], [0]]), soft.dense()).to(meta)
    assert isinstance(batch.items, SoftItems)
    assert isinstance(batch.targets, DenseItems)
    assert batch.items.first_id == batch.targets.first_id == 0
    tensors = (batch.items.queries, batch.items.keys, batch.targets.probabilities, batch.lengths, batch.weights)
    assert {str(tensor.device) for tensor in tensors} == {"meta"}
    assert batch.positions is not None
    assert batch.positions.device == HardItems(IDS).to(meta).ids.device == meta


def hard_rows(lengths: list[int]) -> SequenceBatch:
    """Return rows with ``lengths`` inputs each: row ``b`` holds the items 1, 2, ..., one more than inputs."""
    width = max(lengths) + 1
    ids = torch.arange(1, width + 1).expand(len(lengths), -1) * mask_of(torch.tensor(lengths) + 1, width)
    return hard_batch(ids, torch.tensor(lengths))


lengths_of_rows = st.lists(st.integers(1, 12), min_size=1, max_size=5)


@given(lengths_of_rows)
def test_objective_all_keeps_the_batch(lengths: list[int]) -> None:
    batch = hard_rows(lengths)
    assert supervise(batch, "all") is batch


@given(lengths_of_rows)
def test_objective_last_keeps_the_last_real_position(lengths: list[int]) -> None:
    batch = supervise(hard_rows(lengths), "last")
    assert batch.positions is not None
    assert batch.positions.tolist() == [[length - 1] for length in lengths]
    assert batch.weights.tolist() == [[1.0]] * len(lengths)


@given(lengths_of_rows, st.integers(0, 2**31))
def test_objective_last_and_middle_keeps_an_earlier_target_too(lengths: list[int], seed: int) -> None:
    batch = supervise(hard_rows(lengths), "last_and_middle", torch.Generator().manual_seed(seed))
    assert batch.positions is not None
    assert batch.weights.tolist() == [[1.0, 1.0]] * len(lengths)
    for length, (last, middle) in zip(lengths, batch.positions.tolist(), strict=True):
        size = length + 1
        assert last == length - 1
        if size == 2:
            assert middle == 0  # there is no other
        else:
            assert max(1, min(5, size // 2)) <= middle + 1 <= size - 2


@pytest.mark.parametrize(("size", "targets"), [(3, {1}), (4, {2}), (7, {3, 4, 5}), (12, {5, 6, 7, 8, 9, 10})])
def test_middle_targets_are_uniform(size: int, targets: set[int]) -> None:
    batch = supervise(hard_rows([size - 1] * 3000), "last_and_middle", torch.Generator().manual_seed(0))
    assert batch.positions is not None
    found, counts = torch.unique(batch.positions[:, 1] + 1, return_counts=True)
    assert set(found.tolist()) == targets
    assert (counts / 3000 - 1 / len(targets)).abs().max() < 0.04


def test_middle_targets_are_redrawn_at_each_call() -> None:
    batch, generator = hard_rows([11] * 20), torch.Generator().manual_seed(0)
    first = supervise(batch, "last_and_middle", generator).positions
    second = supervise(batch, "last_and_middle", generator).positions
    again = supervise(batch, "last_and_middle", torch.Generator().manual_seed(0)).positions
    assert first is not None
    assert second is not None
    assert again is not None
    assert (first != second).any()
    assert (first == again).all()


def test_the_objectives_are_those_of_the_recipes() -> None:
    assert OBJECTIVES == ("all", "last", "last_and_middle")
