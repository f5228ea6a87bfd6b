"""What every model promises. A new model gets one line in ``EXAMPLES`` and passes everything here.

Proved in float64 on tiny models: the soft input law, padding, no look-ahead, first and second derivatives, dropout that
is a function of the generator, and files. Not proved: speed, accuracy, other devices.
"""

import json
from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from torch.func import functional_call

from recdistill.data.batches import DenseItems, HardItems, SequenceBatch, SoftItems, mask_of, supervise
from recdistill.data.rows import HardRows, soft_batch
from recdistill.data.sequences import hard_batch
from recdistill.errors import OptionError
from recdistill.models import MODELS
from recdistill.models.base import Recommender
from recdistill.rng import Streams
from recdistill.training.fit import TrainingRecipe, fit
from reference.examples import EXAMPLES, IDS, LENGTHS, TABLED, L, V, make, new

CAUSAL = {"sasrec", "gru4rec", "narm", "text", "popularity"}

every = pytest.mark.parametrize("name", sorted(MODELS))
trainable = pytest.mark.parametrize("name", sorted(name for name, model in MODELS.items() if model.trainable))
tabled = pytest.mark.parametrize("name", TABLED)
causal = pytest.mark.parametrize("name", sorted(CAUSAL & set(MODELS)))


def soft(ids: torch.Tensor, kind: str, first_id: int = 1) -> SoftItems | DenseItems:
    """Return real items of ``ids`` as one-hot distributions."""
    columns = F.one_hot(ids - first_id, V + 1 - first_id).double()
    if kind == "dense":
        return DenseItems(columns, first_id)
    return SoftItems(2000 * columns, torch.eye(V + 1 - first_id, dtype=torch.float64), first_id)


def random_soft(rows: int, length: int, seed: int = 2) -> SoftItems:
    generator = torch.Generator().manual_seed(seed)
    queries = torch.randn(rows, length, 3, dtype=torch.float64, generator=generator)
    return SoftItems(queries, torch.randn(V, 3, dtype=torch.float64, generator=generator))


def at(seed: int = 11) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_every_model_has_an_example() -> None:
    assert set(EXAMPLES) == set(MODELS)
    assert all(MODELS[name].name == name for name in MODELS)


@every
def test_the_config_rebuilds_the_model(name: str) -> None:
    model = make(name)
    again = type(model)(**model.config, generator=at())
    assert again.config == model.config
    assert {k: v.shape for k, v in again.state_dict().items()} == {k: v.shape for k, v in model.state_dict().items()}
    assert (model.num_items, model.max_seq_len) == (V, L)
    assert model.item_table.shape[0] == V + 1
    json.dumps(model.config)


@trainable
@pytest.mark.parametrize("kind", ["soft", "dense"])
@pytest.mark.parametrize("objective", ["all", "last", "last_and_middle"])
@pytest.mark.parametrize("dropout", [False, True])
def test_soft_input_law(name: str, kind: str, objective: str, dropout: bool) -> None:
    model = make(name)
    ids = torch.tensor([[3, 1, 6, 2, 5], [5, 2, 4, 4, 1]])
    hard = supervise(hard_batch(ids, torch.tensor([4, 4])), objective, at(1))
    same = replace(hard, items=soft(ids, kind))
    loss, hidden = model(hard, at() if dropout else None)
    soft_loss, soft_hidden = model(same, at() if dropout else None)
    torch.testing.assert_close(soft_hidden, hidden, rtol=0, atol=1e-12)
    torch.testing.assert_close(soft_loss, loss, rtol=0, atol=1e-12)
    assert loss > 0.1


@trainable
@pytest.mark.parametrize("kind", ["soft", "dense"])
def test_soft_input_law_with_separate_targets(name: str, kind: str) -> None:
    model, ids = make(name), torch.tensor([[3, 1, 6, 2]])
    batch = SequenceBatch(HardItems(ids), torch.tensor([4]), torch.ones(1, 4), targets=HardItems(ids.flip(1)))
    same = replace(batch, items=soft(ids, kind), targets=soft(ids.flip(1), kind))
    torch.testing.assert_close(model.loss(same), model.loss(batch), rtol=0, atol=1e-12)


@trainable
def test_separate_targets_equal_the_next_items(name: str) -> None:
    model = make(name)
    batch = hard_batch(IDS, LENGTHS)
    shifted = SequenceBatch(HardItems(IDS[:, :-1]), LENGTHS, batch.weights, targets=HardItems(IDS[:, 1:]))
    torch.testing.assert_close(model.loss(shifted), model.loss(batch), rtol=0, atol=1e-12)


@trainable
def test_loss_is_the_weighted_mean_of_the_log_likelihood(name: str) -> None:
    model = make(name)
    weights = torch.tensor([[1.0, 0.5, 0.0, 2.0], [1.0, 3.0, 0.0, 0.0], [0.25, 0.0, 0.0, 0.0]])
    batch = replace(hard_batch(IDS, LENGTHS), weights=weights)
    total = 0.0
    with torch.no_grad():
        for row in range(3):
            for position in range(4):
                if weights[row, position]:
                    user = model.represent(HardItems(IDS[row : row + 1, : position + 1]), torch.tensor([position + 1]))
                    likelihood = torch.log_softmax(model.score(user), -1)[0, IDS[row, position + 1] - 1]
                    total -= float(weights[row, position] * likelihood)
        assert float(model.loss(batch)) == pytest.approx(total / float(weights.sum()), abs=1e-12)


@trainable
@pytest.mark.parametrize("kind", ["hard", "soft", "dense"])
@torch.no_grad()
def test_the_loss_at_positions_is_that_of_the_items_after_them(name: str, kind: str) -> None:
    model, ids = make(name), torch.tensor([[3, 1, 6, 2, 5], [5, 2, 4, 4, 1]])
    positions = torch.tensor([[3, 1], [0, 2]])
    items = HardItems(ids) if kind == "hard" else soft(ids, kind)
    batch = SequenceBatch(items, torch.tensor([4, 4]), torch.ones(2, 2), positions)
    total = 0.0
    for row, chosen in enumerate(positions.tolist()):
        for position in chosen:
            user = model.represent(HardItems(ids[row : row + 1, : position + 1]), torch.tensor([position + 1]))
            total -= float(torch.log_softmax(model.score(user), -1)[0, ids[row, position + 1] - 1])
    assert float(model.loss(batch)) == pytest.approx(total / 4, abs=1e-12)


@every
def test_padding_on_the_right_changes_nothing(name: str) -> None:
    model = make(name)
    short = IDS[1:, :3]
    lengths = torch.tensor([3, 2])
    hidden = model.encode(model.embed(HardItems(short)), lengths)
    padded = model.encode(model.embed(HardItems(F.pad(short, (0, 2)))), lengths)
    real = mask_of(lengths, 3)
    torch.testing.assert_close(padded[:, :3][real], hidden[real], rtol=0, atol=1e-12)
    if model.trainable:
        loss = model.loss(hard_batch(short, lengths - 1))
        wide = model.loss(hard_batch(F.pad(short, (0, 2)), lengths - 1))
        torch.testing.assert_close(wide, loss, rtol=0, atol=1e-12)


@every
def test_other_rows_change_nothing(name: str) -> None:
    model = make(name)
    together = model.represent(HardItems(IDS), LENGTHS)
    for row, length in enumerate(LENGTHS.tolist()):
        alone = model.represent(HardItems(IDS[row : row + 1, :length]), LENGTHS[row : row + 1])
        torch.testing.assert_close(alone[0], together[row], rtol=0, atol=1e-12)


@causal
def test_no_position_sees_a_later_item(name: str) -> None:
    model = make(name)
    ids = torch.tensor([[3, 1, 6, 2, 5]])
    before = model.encode(model.embed(HardItems(ids)), torch.tensor([5]))
    for position in range(1, 5):
        changed = ids.clone()
        changed[0, position:] = 4
        after = model.encode(model.embed(HardItems(changed)), torch.tensor([5]))
        torch.testing.assert_close(after[:, :position], before[:, :position], rtol=0, atol=1e-12)
        if model.trainable:
            assert (after[:, position] - before[:, position]).abs().max() > 1e-3


@trainable
def test_every_earlier_item_is_seen(name: str) -> None:
    model = make(name)
    embedded = model.embed(HardItems(torch.tensor([[3, 1, 6, 2, 5]]))).detach().requires_grad_()
    last = model.encode(embedded, torch.tensor([5]), torch.tensor([[4]]))
    weights = torch.randn(last.shape, dtype=torch.float64, generator=at())
    (gradient,) = torch.autograd.grad((last * weights).sum(), embedded)
    assert (gradient.abs().amax(-1) > 1e-8).all()


@trainable
def test_the_order_of_items_matters(name: str) -> None:
    model = make(name)
    found = model.represent(HardItems(torch.tensor([[3, 1, 6], [1, 3, 6]])), torch.tensor([3, 3]))
    assert (found[0] - found[1]).abs().max() > 1e-3


@every
@pytest.mark.parametrize("positions", [[[3], [1], [0]], [[3, 0, 3], [1, 1, 0], [0, 0, 0]]])
def test_positions_equal_gathering_from_everything(name: str, positions: list[list[int]]) -> None:
    model = make(name)
    embedded, index = model.embed(HardItems(IDS[:, :-1])), torch.tensor(positions)
    whole = model.encode(embedded, LENGTHS)
    expected = torch.stack([whole[row, at] for row, at in enumerate(index)])
    torch.testing.assert_close(model.encode(embedded, LENGTHS, index), expected, rtol=0, atol=1e-12)


@every
def test_scores_are_products_with_the_item_table(name: str) -> None:
    model = make(name)
    users = model.represent(HardItems(IDS), LENGTHS)
    scores = model.score(users)
    assert scores.shape == (3, V)
    expected = torch.stack([(users * model.item_table[item]).sum(-1) for item in range(1, V + 1)], dim=1)
    torch.testing.assert_close(scores, expected, rtol=0, atol=1e-12)
    torch.testing.assert_close(model.score(users, torch.tensor([5, 2])), expected[:, [4, 1]], rtol=0, atol=1e-12)
    torch.testing.assert_close(model.score(users, slice(3, 5)), expected[:, 2:4], rtol=0, atol=1e-12)


def loss_of(
    model: Recommender, objective: str, generator: Callable[[], torch.Generator | None]
) -> tuple[Callable[..., torch.Tensor], list[torch.Tensor]]:
    """Return the loss as a function of the queries of soft items and of the weights, and both."""
    items = random_soft(2, 4)
    names = [name for name, _ in model.named_parameters()]

    def loss(queries: torch.Tensor, *weights: torch.Tensor) -> torch.Tensor:
        batch = supervise(soft_batch(SoftItems(queries, items.keys), 2, 4), objective, at(1))
        return functional_call(model, dict(zip(names, weights, strict=True)), (batch, generator()))[0]

    values = [items.queries, *(parameter.detach() for parameter in model.parameters())]
    return loss, [value.clone().requires_grad_() for value in values]


@trainable
@pytest.mark.parametrize("objective", ["all", "last_and_middle"])
@pytest.mark.parametrize("dropout", [False, True])
def test_gradients_equal_finite_differences(name: str, objective: str, dropout: bool) -> None:
    loss, values = loss_of(make(name), objective, at if dropout else lambda: None)
    assert torch.autograd.gradcheck(loss, values, fast_mode=True)


@trainable
@pytest.mark.parametrize("objective", ["all", "last_and_middle"])
@pytest.mark.parametrize("dropout", [False, True])
def test_second_derivatives_equal_finite_differences(name: str, objective: str, dropout: bool) -> None:
    loss, values = loss_of(make(name), objective, at if dropout else lambda: None)
    assert torch.autograd.gradgradcheck(loss, values, fast_mode=True, gen_non_contig_grad_outputs=False, atol=1e-4)


@trainable
def test_the_mixed_second_derivative_is_not_zero(name: str) -> None:
    loss, (queries, *weights) = loss_of(make(name), "all", lambda: None)
    first = torch.autograd.grad(  # reading a few positions needs no key bias, which changes nothing anywhere
        loss(queries, *weights), weights, create_graph=True, allow_unused=True, materialize_grads=True
    )
    (mixed,) = torch.autograd.grad(sum(part.square().sum() for part in first), queries)
    assert (mixed.abs().amax(-1) > 1e-8).all()


@trainable
def test_dropout_is_a_function_of_the_generator(name: str) -> None:
    model, batch = make(name), hard_batch(IDS, LENGTHS)
    plain = model.loss(batch)
    assert torch.equal(model.loss(batch, at(1)), model.loss(batch, at(1)))
    assert model.loss(batch, at(1)) != model.loss(batch, at(2))
    assert model.loss(batch, at(1)) != plain
    assert torch.equal(model.train().loss(batch), plain)
    assert torch.equal(model.eval().loss(batch), plain)
    assert model.loss(batch, at(1)) != plain


@every
def test_weights_come_from_the_generator(name: str) -> None:
    def build(seed: int) -> dict[str, torch.Tensor]:
        return new(name, seed).state_dict()

    one, again, other = build(1), build(1), build(2)
    assert all(torch.equal(one[key], again[key]) for key in one)
    assert all(torch.isfinite(value).all() for value in one.values())
    if MODELS[name].trainable:
        assert any(not torch.equal(one[key], other[key]) for key in one)


@every
def test_the_global_generator_is_left_alone(name: str) -> None:
    before = torch.get_rng_state()
    model = new(name, 11)
    if model.trainable:
        model.loss(hard_batch(IDS, LENGTHS), at()).backward()
    rows = HardRows(IDS, LENGTHS + 1)
    fit(model, rows, TrainingRecipe(epochs=2, steps_per_epoch=1, objective="last_and_middle"), Streams(0))
    assert torch.equal(torch.get_rng_state(), before)


@trainable
def test_training_lowers_the_loss(name: str) -> None:
    model = new(name, 11)
    rows = HardRows(IDS, LENGTHS + 1)
    before = model.loss(rows.batch(torch.arange(3))).item()
    fit(model, rows, TrainingRecipe(epochs=10, learning_rate=0.03), Streams(0))
    assert model.loss(rows.batch(torch.arange(3))).item() < before - 0.2


@trainable
def test_a_row_of_padding_is_never_moved(name: str) -> None:
    model = new(name, 11)
    assert model.item_table[0].abs().max() == 0
    fit(model, HardRows(IDS, LENGTHS + 1), TrainingRecipe(epochs=1, learning_rate=0.03), Streams(0))
    assert model.item_table[0].abs().max() == 0


@tabled
@pytest.mark.parametrize("freeze", [False, True])
def test_a_given_item_table_fills_the_item_vectors(name: str, freeze: bool) -> None:
    """What else a model keeps of an item stays as it was."""
    model, factor = make(name), torch.randn(V, make(name).item_width, generator=at())
    before = model.item_table.detach().clone()
    model.load_item_table(factor, freeze=freeze)
    assert torch.equal(model.item_table[1:, : model.item_width], factor.double())
    assert torch.equal(model.item_table[:, model.item_width :], before[:, model.item_width :])
    assert model.item_table[0].abs().max() == 0
    assert model.item_table.requires_grad is not freeze


@tabled
def test_a_given_item_table_is_trained_on(name: str) -> None:
    model = new(name, 11)
    factor = torch.randn(V, model.item_width, generator=at())
    model.load_item_table(factor, freeze=False)
    fit(model, HardRows(IDS, LENGTHS + 1), TrainingRecipe(epochs=1), Streams(0))
    assert not torch.equal(model.item_table[1:, : model.item_width], factor)


@tabled
def test_a_frozen_item_table_does_not_move(name: str) -> None:
    model = new(name, 11)
    model.load_item_table(torch.randn(V, model.item_width, generator=at()), freeze=True)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    fit(model, HardRows(IDS, LENGTHS + 1), TrainingRecipe(epochs=1, weight_decay=0.1), Streams(0))
    after = model.state_dict()
    assert torch.equal(after[model.item_table_name], before[model.item_table_name])
    assert sum(not torch.equal(value, before[key]) for key, value in after.items()) > 1


@tabled
@pytest.mark.parametrize("shape", [(V + 1, 0), (V, 1), (V - 1, 0)])
def test_a_table_of_another_shape_is_refused(name: str, shape: tuple[int, int]) -> None:
    model = make(name)
    before = model.item_table.clone()
    rows, more = shape
    with pytest.raises(OptionError, match="--items"):
        model.load_item_table(torch.ones(rows, model.item_width + more), freeze=False)
    assert torch.equal(model.item_table, before)
