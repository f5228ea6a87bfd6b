"""A student's loss on labelled rows and its judgement beside a peer, against the models' own losses and plain loops.

Proved in float64 for every trainable model: values, gradients in labels and weights, dropout, and where the judgement
has its minimum. How the engine differentiates them is shown in ``test_refined.py``.
"""

import pytest
import torch
from torch import Tensor

from recdistill.bilevel.kernels import Kernels
from recdistill.bilevel.losses import PlannedLoss, SplitLoss
from recdistill.bilevel.optimizer import Student
from recdistill.data.batches import HardItems, SequenceBatch, SoftItems
from recdistill.data.rows import HardRows, LabelledRows
from recdistill.data.sequences import hard_batch
from recdistill.distill.label_losses import BehaviourLoss, LabelledLoss, RealHistories, seen_items, some_positions
from recdistill.distill.soft_items import SoftReader
from recdistill.distill.student_losses import InnerSteps, MinibatchLoss
from recdistill.models import MODELS
from recdistill.models.base import Recommender
from recdistill.rng import generator_at
from reference.examples import EXAMPLES, IDS, LENGTHS, TABLED, V, make

ROWS = HardRows(torch.tensor([[3, 1, 6, 2, 5], [5, 2, 4, 0, 0], [1, 6, 2, 2, 0]]), torch.tensor([5, 3, 4]))
BATCH, DROPOUT = 2, 23
TURNS = [slice(0, 2), slice(2, 3), slice(0, 2)]

every = pytest.mark.parametrize("name", TABLED)
every_read = pytest.mark.parametrize("dense_bytes", [2**20, 0], ids=["dense", "tiled"])


def labels() -> SoftItems:
    generator = torch.Generator().manual_seed(2)
    queries = torch.randn(3, 5, 3, generator=generator, dtype=torch.float64)
    return SoftItems(queries, torch.randn(V, 3, generator=generator, dtype=torch.float64))


def steps_of(model: Recommender, dense_bytes: int = 2**20) -> tuple[InnerSteps, SoftReader]:
    reader = SoftReader.choose(labels(), model.item_table_name, BATCH, dense_bytes)
    return InnerSteps(LabelledLoss(model, ROWS, reader.reads, reader.sizes), 0, 11, DROPOUT), reader


def stored(queries: Tensor, turn: slice) -> SequenceBatch:
    """Return a minibatch as training on the distilled rows sees it."""
    rows = LabelledRows(ROWS.item_ids, ROWS.lengths, queries, labels().keys)
    return rows.batch(torch.arange(3)[turn])


def slopes(value: Tensor, leaves: list[Tensor]) -> list[Tensor]:
    return list(torch.autograd.grad(value, leaves, allow_unused=True, materialize_grads=True))


def close(found: list[Tensor], expected: list[Tensor]) -> None:
    for ours, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-8, atol=1e-10)


@every
@every_read
@pytest.mark.parametrize(("step", "learner"), [(0, 0), (1, 0), (2, 1)])
def test_a_step_is_the_models_own_loss_on_the_stored_rows(name: str, dense_bytes: int, step: int, learner: int) -> None:
    model, items = make(name), labels()
    steps, reader = steps_of(make(name, seed=7), dense_bytes)  # whose weights do not matter
    leaves = [items.queries.requires_grad_(), *model.parameters()]
    expected = model.loss(stored(items.queries, TURNS[step]), generator_at(DROPOUT + learner, step))
    found = steps.plan(step, learner).value(dict(model.named_parameters()), reader.read(items))
    torch.testing.assert_close(found, expected)
    gradient = slopes(expected, leaves)
    assert gradient[0][TURNS[step]].abs().max() > 1e-4
    close(slopes(found, leaves), gradient)
    assert (expected - model.loss(stored(items.queries, TURNS[step]))).abs() > 1e-3  # dropout was on


@every
@every_read
def test_without_masks_a_step_is_the_loss_without_dropout(name: str, dense_bytes: int) -> None:
    model, items = make(name), labels()
    steps, reader = steps_of(make(name, seed=7), dense_bytes)  # whose weights do not matter
    plan, params = steps.plan(1, 0), dict(model.named_parameters())
    linear = {key: read.apply(reader.read(items), params[read.weight]) for key, read in plan.linear.items()}
    drawn = {key: value for key, value in plan.drawn.items() if not key.startswith("mask")}
    assert drawn.keys() == {"items", "lengths", "weights"} < plan.drawn.keys()
    torch.testing.assert_close(plan.loss(params, linear, drawn), model.loss(stored(items.queries, TURNS[1])))


@pytest.mark.parametrize("name", ["gru4rec", "sasrec"])
def test_a_model_without_dropout_asks_for_no_masks(name: str) -> None:
    rates = {option: 0.0 for option in EXAMPLES[name] if "dropout" in option}
    model = MODELS[name](V, 5, **EXAMPLES[name] | rates, generator=torch.Generator().manual_seed(0)).double()
    assert steps_of(model)[0].plan(0, 0).drawn.keys() == {"items", "lengths", "weights"}


@every
def test_labels_at_padding_have_no_gradient(name: str) -> None:
    items, model = labels(), make(name)
    steps, reader = steps_of(model)
    queries = items.queries.requires_grad_()
    values = [steps.plan(step, 0).value(dict(model.named_parameters()), reader.read(items)) for step in range(2)]
    (found,) = slopes(sum(values, torch.zeros(())), [queries])
    real = torch.arange(5) < ROWS.lengths.unsqueeze(1)
    assert found[~real].abs().max() == 0
    assert name == "bert4rec" or (found[real].abs().amax(1) > 1e-6).all()  # Cloze hides some of them at a time


def test_every_step_on_the_same_rows_computes_the_same_function() -> None:
    """So that a recording of one step serves for all, with other masks."""
    steps, _ = steps_of(make("sasrec"))
    assert isinstance(steps, PlannedLoss)
    assert isinstance(steps.loss, MinibatchLoss)
    first, second, third = (steps.plan(step, 0) for step in range(3))
    assert first.loss == second.loss == third.loss
    assert first.linear == third.linear != second.linear
    assert {n: value.shape for n, value in first.drawn.items()} == {n: value.shape for n, value in third.drawn.items()}
    assert not torch.equal(first.drawn["mask 0"], third.drawn["mask 0"])
    assert torch.equal(first.drawn["items"], ROWS.item_ids[:2])
    assert torch.equal(second.drawn["items"], ROWS.item_ids[2:])


def test_a_recording_of_one_step_serves_for_another() -> None:
    model = make("gru4rec")
    steps, reader = steps_of(model)
    student, synthetic = Student.of({n: v.detach() for n, v in model.named_parameters()}), reader.read(labels())
    recorded, plain = Kernels(record=True), Kernels()
    for step, scale in ((0, 1.0), (2, 0.5)):
        loss = steps.plan(step, 0)
        found, expected = (
            each.gradient(student.layout, scale * student.weights, synthetic, loss) for each in (recorded, plain)
        )
        assert expected.weights.abs().max() > 1e-3
        torch.testing.assert_close(found.loss, expected.loss, rtol=1e-10, atol=0)
        torch.testing.assert_close(found.weights, expected.weights, rtol=1e-9, atol=1e-12)
    assert len(recorded._recordings) == 1


POSITIONS = torch.tensor([[3, 0, 3], [1, 1, 0], [0, 0, 0]])


def real_batch() -> SequenceBatch:
    batch = hard_batch(IDS, LENGTHS)
    return SequenceBatch(batch.items, batch.lengths, torch.ones(3, 3), POSITIONS)


def prefix_logits(model: Recommender) -> Tensor:
    """Return the scores of all items after each judged prefix, read alone, (9, V)."""
    found = []
    for row, positions in zip(IDS, POSITIONS.tolist(), strict=True):
        for position in positions:
            shown = HardItems(row[None, : position + 1])
            found.append(model.score(model.represent(shown, torch.tensor([position + 1])))[0])
    return torch.stack(found)


def judgement(peer: Recommender, behaviour: float) -> RealHistories:
    batch = real_batch()
    assert isinstance(batch.items, HardItems)
    queries = peer.encode(peer.embed(HardItems(batch.items.ids[:, :-1])), batch.lengths, batch.positions).detach()
    return RealHistories(BehaviourLoss(peer, peer.item_table.detach()[1:].clone(), behaviour), batch, queries)


def value_of(judge: RealHistories, model: Recommender) -> Tensor:
    (part,) = judge.parts()
    return part.value(dict(model.named_parameters()), {})


@every
@pytest.mark.parametrize("behaviour", [0.0, 0.3, 1.0])
def test_the_judgement_mixes_what_came_next_with_what_the_peer_expects(name: str, behaviour: float) -> None:
    student, peer = make(name), make(name, seed=5)
    judge = judgement(peer, behaviour)
    assert isinstance(judge, SplitLoss)
    ours = torch.log_softmax(prefix_logits(student), -1)
    theirs = torch.softmax(prefix_logits(peer), -1)
    following = IDS.gather(1, POSITIONS + 1).flatten()
    hard = -ours[torch.arange(9), following - 1].mean()
    soft = -(theirs * ours).sum(-1).mean()
    assert (hard - soft).abs() > 1e-2
    expected = (1 - behaviour) * hard + behaviour * soft
    found = value_of(judge, student)
    torch.testing.assert_close(found, expected)
    close(slopes(found, list(student.parameters())), slopes(expected, list(student.parameters())))


@every
def test_the_peer_itself_is_where_behaviour_is_best(name: str) -> None:
    """The gradient is zero there, the value is the entropy of its distributions, and other weights do worse."""
    peer, other = make(name), make(name, seed=5)
    judge, leaves = judgement(peer, 1.0), list(peer.parameters())
    value = value_of(judge, peer)
    assert max(slope.abs().max() for slope in slopes(value, leaves)) < 1e-12
    theirs = torch.softmax(prefix_logits(peer), -1)
    torch.testing.assert_close(value, -(theirs * theirs.log()).sum(-1).mean())
    assert value_of(judge, other) > value + 1e-2
    assert max(slope.abs().max() for slope in slopes(value_of(judgement(peer, 0.9), peer), leaves)) > 1e-3


REPEATED = torch.tensor([[3, 1, 3, 2, 1], [5, 2, 4, 0, 0], [1, 6, 0, 0, 0]])


def test_seen_items_are_those_before_each_once_without_the_one_that_returns() -> None:
    found = seen_items(REPEATED, POSITIONS)
    expected = [[{3, 2}, {3}, {3, 2}], [{5, 2}, {5, 2}, {5}], [{1}, {1}, {1}]]
    assert [[{i for i in cell if i} for cell in row] for row in found.tolist()] == expected
    assert all(len([i for i in cell if i]) == len({i for i in cell if i}) for row in found.tolist() for cell in row)


@every
@pytest.mark.parametrize("behaviour", [0.0, 0.3, 1.0])
def test_what_was_seen_is_left_out_of_both_distributions(name: str, behaviour: float) -> None:
    student, peer = make(name), make(name, seed=5)
    batch = SequenceBatch(HardItems(REPEATED), LENGTHS, torch.ones(3, 3), POSITIONS)
    keys, vectors = peer.item_table.detach()[1:].clone(), peer.embed(HardItems(REPEATED[:, :-1]))
    loss = BehaviourLoss(peer, keys, behaviour, exclude_seen=True)
    judge = RealHistories(loss, batch, peer.encode(vectors, LENGTHS, POSITIONS).detach())
    total = torch.zeros((), dtype=torch.float64)
    for row, positions in zip(REPEATED, POSITIONS.tolist(), strict=True):
        for position in positions:
            shown, target = row[None, : position + 1], int(row[position + 1])
            left = [item for item in range(1, V + 1) if item == target or item not in shown.tolist()[0]]
            ours, theirs = (
                model.score(model.represent(HardItems(shown), torch.tensor([position + 1])))[0, torch.tensor(left) - 1]
                for model in (student, peer)
            )
            wanted = behaviour * torch.softmax(theirs, -1).detach()
            wanted[left.index(target)] += 1 - behaviour
            total = total - (wanted * torch.log_softmax(ours, -1)).sum() / 9
    found = value_of(judge, student)
    torch.testing.assert_close(found, total)
    close(slopes(found, list(student.parameters())), slopes(total, list(student.parameters())))


def test_the_judgement_reads_no_synthetic_data() -> None:
    (part,) = judgement(make("gru4rec"), 0.5).parts()
    assert (part.reads, part.linear) == ({}, {})
    other = judgement(make("gru4rec"), 0.5)
    assert next(iter(other.parts())).loss != part.loss  # a recording belongs to one peer


def test_positions_are_drawn_among_the_real_ones(generator: torch.Generator) -> None:
    batch = hard_batch(IDS, LENGTHS)
    found = some_positions(batch, 4000, generator)
    assert found.items is batch.items
    assert found.lengths is batch.lengths
    assert found.positions is not None
    assert found.weights.tolist() == torch.ones(3, 4000).tolist()
    for positions, length in zip(found.positions, LENGTHS.tolist(), strict=True):
        shares = torch.bincount(positions, minlength=length) / 4000
        assert len(shares) == length
        torch.testing.assert_close(shares, torch.full((length,), 1 / length), rtol=0, atol=0.05)


def test_every_row_has_positions_of_its_own_from_the_generator() -> None:
    batch = hard_batch(IDS[[0, 0]], LENGTHS[[0, 0]])
    one, again, other = (some_positions(batch, 9, generator_at(seed, 0)).positions for seed in (1, 1, 2))
    assert one is not None
    assert torch.equal(one, again)
    assert not torch.equal(one, other)
    assert not torch.equal(one[0], one[1])
