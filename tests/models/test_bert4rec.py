"""BERT4Rec against explicit sequences with masks in them; what every model promises is in ``test_contract.py``.

Proved in float64 on tiny models: what is read for the next item; which slots Cloze hides, how often, and that hidden
items stay hidden; the loss for given draws, with and without separate targets, dropout included. Not proved: accuracy.
"""

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from recdistill.data.batches import DenseItems, HardItems, SequenceBatch, SoftItems
from recdistill.data.rows import LabelledRows
from recdistill.data.sequences import hard_batch
from recdistill.errors import OptionError
from recdistill.models.bert4rec import BERT4Rec
from recdistill.models.layers import MaskPlan, Masks
from reference.examples import EXAMPLES, IDS, LENGTHS, L, V, make
from reference.models import bert4rec, weights_of

BLOCKS, HEADS = 2, 2
WITHOUT_DROPOUT = {"dropout": 0.0, "attention_dropout": 0.0}


def model_of(**changes: Any) -> BERT4Rec:
    """Return the example with other options and the same weights."""
    made = BERT4Rec(V, L, **EXAMPLES["bert4rec"] | changes, generator=torch.Generator().manual_seed(0)).double()
    made.load_state_dict(make("bert4rec").state_dict())
    return made


def labelled(ids: Tensor = IDS[:, :4], lengths: Tensor = LENGTHS) -> SequenceBatch:
    """Return rows with a distribution after every item that is not the row's own next one."""
    generator = torch.Generator().manual_seed(4)
    queries = torch.randn(*ids.shape, 3, dtype=torch.float64, generator=generator)
    rows = LabelledRows(ids, lengths, queries, torch.randn(V, 3, dtype=torch.float64, generator=generator))
    return rows.batch(torch.arange(len(ids)))


BATCHES = {"own next items": hard_batch(IDS, LENGTHS), "separate targets": labelled()}
every_batch = pytest.mark.parametrize("batch", BATCHES.values(), ids=BATCHES)


def read_at(model: BERT4Rec, row: list[int | None], slots: list[int], masks: list[Tensor] | None = None) -> Tensor:
    return bert4rec(weights_of(model), BLOCKS, HEADS, row, slots, masks or [])


@torch.no_grad()
@pytest.mark.parametrize("positions", [None, [[3, 0], [1, 1], [0, 0]], [[3], [1], [0]]])
def test_the_next_item_is_read_from_a_mask_after_the_history(positions: list[list[int]] | None) -> None:
    model = model_of()
    index = None if positions is None else torch.tensor(positions)
    found = model.encode(model.embed(HardItems(IDS)), LENGTHS + 1, index)
    for row, read in enumerate(positions or [range(length + 1) for length in LENGTHS.tolist()]):
        for place, position in enumerate(read):
            history = IDS[row, : position + 1].tolist()
            expected = read_at(model, [*history, None], [position + 1])[0]
            torch.testing.assert_close(found[row, place, :-1], expected, rtol=0, atol=1e-12)
            assert found[row, place, -1] == 1


@torch.no_grad()
def test_the_last_column_is_a_bias_of_the_scores_and_of_nothing_else() -> None:
    model = model_of()
    users, before = model.represent(HardItems(IDS), LENGTHS), model.score(model.represent(HardItems(IDS), LENGTHS))
    products = users[:, : model.item_width] @ model.item_table[1:, : model.item_width].T
    torch.testing.assert_close(before, products + model.item_table[1:, -1], rtol=0, atol=1e-12)
    model.item_table[3, -1] += 0.75
    again = model.represent(HardItems(IDS), LENGTHS)
    assert torch.equal(again, users)
    expected = before.clone()
    expected[:, 2] += 0.75
    torch.testing.assert_close(model.score(again), expected, rtol=0, atol=1e-12)


def test_a_new_model_has_no_bias_yet() -> None:
    model = BERT4Rec(V, L, **EXAMPLES["bert4rec"], generator=torch.Generator().manual_seed(0))
    assert model.item_width == 4
    assert model.item_table.shape == (V + 1, 5)
    assert model.item_table[:, -1].abs().max() == 0
    assert model.item_table[1:, :-1].abs().min() > 0


def counted(model: BERT4Rec, batch: SequenceBatch, generator: torch.Generator) -> Tensor:
    """Return which slots after the first the loss is taken at."""
    loss, read = model(batch, generator)
    (slope,) = torch.autograd.grad(loss, read)
    return slope.abs().amax(-1) > 0


def shown(model: BERT4Rec, batch: SequenceBatch, generator: torch.Generator) -> Tensor:
    """Return which items are read for any slot in which the row still goes on."""
    assert isinstance(batch.items, HardItems)
    columns = torch.nn.functional.one_hot(batch.items.ids, V + 1).double().requires_grad_()
    _, read = model(replace(batch, items=DenseItems(columns, first_id=0)), generator)
    direction = torch.randn(read.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    real = (batch.weights > 0).unsqueeze(-1)
    (slope,) = torch.autograd.grad((read * direction * real).sum(), columns)
    return slope.abs().amax(-1) > 0


@every_batch
@pytest.mark.parametrize("seed", range(6))
def test_items_are_read_exactly_where_they_are_not_hidden(batch: SequenceBatch, seed: int) -> None:
    """The first item is never hidden; of what stands after the end of a row nothing is read."""
    model = model_of(**WITHOUT_DROPOUT)
    hidden = counted(model, batch, torch.Generator().manual_seed(seed))
    found = shown(model, batch, torch.Generator().manual_seed(seed))
    ends = LENGTHS + (batch.targets is None)
    for row, length in enumerate(LENGTHS.tolist()):
        assert not hidden[row, length:].any()
        for slot in range(found.shape[1]):
            reads = slot < ends[row] and (slot == 0 or not hidden[row, slot - 1])
            assert bool(found[row, slot]) is bool(reads), (row, slot)


def many_rows(separate: bool, count: int = 6000) -> SequenceBatch:
    """Return rows of five inputs, every third of them of two."""
    generator = torch.Generator().manual_seed(9)
    lengths = torch.where(torch.arange(count) % 3 == 0, 2, 5)
    ids = torch.randint(1, V + 1, (count, 6), generator=generator)
    ids = ids * (torch.arange(6) <= lengths.unsqueeze(1))
    return labelled(ids[:, :5], lengths) if separate else hard_batch(ids, lengths)


@pytest.mark.parametrize(("mask_ratio", "last_ratio"), [(0.2, 0.5), (0.6, 0.0), (0.5, 0.8)])
@pytest.mark.parametrize("separate", [False, True])
def test_items_are_hidden_at_their_rates(mask_ratio: float, last_ratio: float, separate: bool) -> None:
    """Without separate targets the last item is hidden like any other, or alone; the slot after a row is always."""
    model = model_of(mask_ratio=mask_ratio, last_ratio=last_ratio)
    batch = many_rows(separate)
    hidden = counted(model, batch, torch.Generator().manual_seed(2))
    at_random, last = 1 - last_ratio, 1.0 if separate else last_ratio + (1 - last_ratio) * mask_ratio
    for length in (2, 5):
        rows = hidden[batch.lengths == length]
        rates = rows.double().mean(0)
        expected = [at_random * mask_ratio] * (length - 1) + [last] + [0] * (5 - length)
        assert rates.tolist() == pytest.approx(expected, abs=0.03)
        assert not rows[:, length:].any()
        assert not separate or rows[:, length - 1].all()
        if length == 5:
            both = (rows[:, 0] & rows[:, 2]).double().mean()
            assert float(both) == pytest.approx(at_random * mask_ratio**2, abs=0.03)
            kept = (1 - mask_ratio) ** 4 * (1 if separate else mask_ratio)
            alone = (rows.sum(1) == 1) & rows[:, 4]
            assert float(alone.double().mean()) == pytest.approx(last_ratio + at_random * kept, abs=0.03)


def test_every_step_hides_other_slots() -> None:
    model, batch, generator = model_of(), many_rows(separate=False, count=50), torch.Generator().manual_seed(2)
    assert not torch.equal(counted(model, batch, generator), counted(model, batch, generator))


HIDDEN = torch.tensor([[0, 1, 0, 1], [1, 1, 0, 1], [0, 0, 1, 0]]).bool()
"""What is drawn at random: slots 2 and 4 of the first row, 1 and 2 of the second; the others are padding."""
ONLY_LAST = torch.tensor([[False], [True], [False]])
"""The second row hides its last item, and no more."""
CHOSEN = {"own next items": [[2, 4], [2], []], "separate targets": [[2, 4], [2], [1]]}
"""The slots that are hidden then."""


def given_draws() -> list[Tensor]:
    return [(~HIDDEN).float(), (~ONLY_LAST).float()]


def by_hand(model: BERT4Rec, batch: SequenceBatch, chosen: list[list[int]], masks: list[Tensor]) -> float:
    """Return the mean cross-entropy at the chosen slots; ``masks`` are those of dropout."""
    assert isinstance(batch.items, HardItems)
    table, losses = weights_of(model)["item_embedding"][1:], []
    for row, (length, hidden) in enumerate(zip(LENGTHS.tolist(), chosen, strict=True)):
        slots = list(range(1, length + 1))
        items: list[int | None] = [*batch.items.ids[row, : length + 1].tolist()]
        items = [None if slot in hidden else item for slot, item in enumerate([*items, None][: length + 1])]
        read = read_at(model, items, slots, [cut(mask[row], length) for mask in masks])
        for slot in hidden:
            logs = torch.log_softmax(table[:, :-1] @ read[slot - 1] + table[:, -1], -1)
            if batch.targets is None:
                losses.append(-float(logs[batch.items.ids[row, slot] - 1]))
            else:
                assert isinstance(batch.targets, SoftItems)
                losses.append(-float(batch.targets.dense().probabilities[row, slot - 1] @ logs))
    return sum(losses) / len(losses)


def cut(mask: Tensor, length: int) -> Tensor:
    """Return the part of a row's mask that belongs to what it reads: all ``length + 1`` slots, or all but the first."""
    if mask.dim() == 3:
        return mask[:, : length + (mask.shape[1] == mask.shape[2]), : length + 1]
    return mask[: length + (mask.shape[0] == 5)]


@torch.no_grad()
@pytest.mark.parametrize("case", BATCHES)
def test_the_loss_is_the_mean_cross_entropy_of_what_is_hidden(case: str) -> None:
    model, batch = model_of(**WITHOUT_DROPOUT), BATCHES[case]
    found = model.loss(batch, Masks(given_draws()))
    assert float(found) == pytest.approx(by_hand(model, batch, CHOSEN[case], []), abs=1e-12)


@torch.no_grad()
@pytest.mark.parametrize("case", BATCHES)
def test_dropout_acts_on_embedding_attention_and_both_outputs(case: str) -> None:
    model, batch, plan = model_of(), BATCHES[case], MaskPlan()
    model.loss(batch, plan)
    draws = plan.draw(torch.Generator().manual_seed(5))[2:]
    rates = [0.3, 0.4, 0.3, 0.3, 0.4, 0.3, 0.3]  # embedding; weights, projection and feed-forward of two blocks
    assert [draw.max().item() for draw in draws] == pytest.approx([1 / (1 - rate) for rate in rates])
    found = model.loss(batch, Masks(given_draws() + draws))
    assert float(found) == pytest.approx(by_hand(model, batch, CHOSEN[case], draws), abs=1e-12)


@torch.no_grad()
def test_weights_count_in_the_mean_and_what_weighs_nothing_is_not_hidden() -> None:
    model, batch = model_of(**WITHOUT_DROPOUT), BATCHES["own next items"]
    single = []
    for row, slot in ((0, 2), (0, 4), (1, 2)):
        weights = torch.zeros(3, 4)
        weights[row, slot - 1] = 1
        single.append(float(model.loss(replace(batch, weights=weights), Masks(given_draws()))))
        chosen = [[slot] if other == row else [] for other in range(3)]
        assert single[-1] == pytest.approx(by_hand(model, batch, chosen, []), abs=1e-12)
    both = [model(replace(batch, weights=batch.weights * scale), Masks(given_draws())) for scale in (1.0, 4.0)]
    torch.testing.assert_close(*both, rtol=0, atol=1e-12)


@torch.no_grad()
def test_with_nothing_hidden_the_loss_is_zero() -> None:
    draws = [torch.ones(3, 4), torch.ones(3, 1)]
    assert float(model_of(**WITHOUT_DROPOUT).loss(BATCHES["own next items"], Masks(draws))) == 0


@torch.no_grad()
def test_a_hidden_item_is_a_target_and_nothing_else() -> None:
    model, batch = model_of(**WITHOUT_DROPOUT), BATCHES["own next items"]
    loss, read = model(batch, Masks(given_draws()))
    for row, slot in ((0, 2), (0, 4), (1, 2), (0, 0), (0, 1), (0, 3), (1, 0), (1, 1)):
        ids = IDS.clone()
        ids[row, slot] = ids[row, slot] % V + 1
        changed_loss, changed = model(replace(batch, items=HardItems(ids)), Masks(given_draws()))
        assert abs(float(changed_loss - loss)) > 1e-4
        assert torch.equal(changed, read) is (slot in CHOSEN["own next items"][row])


@torch.no_grad()
def test_separate_targets_say_what_follows_even_where_the_next_item_is_shown() -> None:
    """A target counts where the slot after its item is hidden, and is never read."""
    model, batch = model_of(**WITHOUT_DROPOUT), BATCHES["separate targets"]
    assert isinstance(batch.targets, SoftItems)
    loss, read = model(batch, Masks(given_draws()))
    for row, length in enumerate(LENGTHS.tolist()):
        for position in range(length):
            queries = batch.targets.queries.clone()
            queries[row, position] *= -1
            targets = replace(batch.targets, queries=queries)
            changed_loss, changed = model(replace(batch, targets=targets), Masks(given_draws()))
            assert torch.equal(changed, read)
            assert (changed_loss != loss) == (position + 1 in CHOSEN["separate targets"][row])


@every_batch
@pytest.mark.parametrize("changes", [{}, WITHOUT_DROPOUT, {"last_ratio": 0.0}], ids=str)
def test_draws_made_beforehand_give_the_loss_of_the_generator(batch: SequenceBatch, changes: dict[str, Any]) -> None:
    model, plan = model_of(**changes), MaskPlan()
    model.loss(batch, plan)
    values = []
    for seed in range(3):
        loss = model.loss(batch, torch.Generator().manual_seed(seed))
        again = model.loss(batch, Masks(plan.draw(torch.Generator().manual_seed(seed))))
        assert torch.equal(again, loss)
        values.append(loss.item())
    assert len(set(values)) == 3


@torch.no_grad()
def test_chosen_positions_predict_the_next_item_with_dropout_and_without_cloze() -> None:
    batch = replace(BATCHES["own next items"], positions=LENGTHS.unsqueeze(1) - 1, weights=torch.ones(3, 1))
    plain = model_of().loss(batch)
    generators = [torch.Generator().manual_seed(seed) for seed in (0, 0, 1)]
    noisy = [float(model_of().loss(batch, generator)) for generator in generators]
    assert noisy[0] == noisy[1]
    assert len({float(plain), *noisy}) == 3
    assert torch.equal(model_of(**WITHOUT_DROPOUT).loss(batch, torch.Generator()), plain)


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("embedding_dim", 0),
        ("num_blocks", 0),
        ("num_heads", 3),
        ("inner_dim", 0),
        ("dropout", 1.0),
        ("attention_dropout", -0.1),
        ("mask_ratio", 0.0),
        ("mask_ratio", 1.0),
        ("last_ratio", 1.0),
    ],
)
def test_options_out_of_range_are_refused(option: str, value: float) -> None:
    with pytest.raises(OptionError, match=option):
        BERT4Rec(5, 5, **{option: value}, generator=torch.Generator())
