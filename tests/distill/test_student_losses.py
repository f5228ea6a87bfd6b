"""The student's loss on synthetic rows and its judgement on real ones, against the model's own loss.

Proved in float64: that both are the same functions of weights and rows, with the same dropout and targets; what their
randomness is keyed by; and that the judgement may be cut into parts. How the engine differentiates them is shown
elsewhere.
"""

from dataclasses import replace
from itertools import pairwise, product

import pytest
import torch
from torch import Tensor

from recdistill.bilevel.kernels import Kernels
from recdistill.bilevel.losses import PlannedLoss, SplitLoss, StepLoss, inner_step, outer_parts
from recdistill.bilevel.optimizer import Student
from recdistill.data.batches import OBJECTIVES, SequenceBatch, SoftItems, mask_of, supervise
from recdistill.data.rows import soft_batch
from recdistill.data.sequences import hard_batch
from recdistill.distill.soft_items import SoftReader
from recdistill.distill.student_losses import (
    ACTIVATIONS,
    InnerSteps,
    RealBatch,
    RealLoss,
    SyntheticLoss,
    rows_per_part,
)
from recdistill.models.sasrec import SASRec
from recdistill.rng import generator_at
from reference.tiny import NUM_ITEMS, sasrec

LENGTH, ROWS, BATCH = 9, 5, 3
MIDDLE, DROPOUT = 11, 23


def student(dropout: float = 0.4) -> SASRec:
    """Return a model in float64 with weights large enough that nothing is near zero by accident."""
    made = sasrec(max_seq_len=8, num_blocks=2, dropout=dropout, attention_dropout=dropout / 2).double()
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in made.parameters():
            parameter += 0.3 * torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
    return made


def soft(first_id: int = 1, rows: int = ROWS) -> SoftItems:
    generator = torch.Generator().manual_seed(2)
    queries = torch.randn(rows, LENGTH, 3, generator=generator, dtype=torch.float64)
    keys = torch.randn(NUM_ITEMS + 1 - first_id, 3, generator=generator, dtype=torch.float64)
    return SoftItems(queries, keys, first_id)


def steps_of(
    model: SASRec, objective: str = "last_and_middle", first_id: int = 1, dense_bytes: int = 2**20, plain: int = 0
) -> tuple[InnerSteps, SoftReader]:
    reader = SoftReader.choose(soft(first_id), model.item_table_name, BATCH, dense_bytes)
    loss = SyntheticLoss(model, LENGTH, objective, first_id, reader.reads, reader.sizes)
    return InnerSteps(loss, plain, MIDDLE, DROPOUT), reader


def value_and_slopes(value: Tensor, leaves: list[Tensor]) -> list[Tensor]:
    return [value.detach(), *torch.autograd.grad(value, leaves, allow_unused=True, materialize_grads=True)]


def close(found: list[Tensor], expected: list[Tensor]) -> None:
    assert all(part.abs().max() > 1e-6 for part in expected[:2])
    for ours, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("objective", OBJECTIVES)
@pytest.mark.parametrize("first_id", [1, 0])
@pytest.mark.parametrize("dense_bytes", [2**20, 0])
@pytest.mark.parametrize(("step", "learner"), [(0, 0), (1, 0), (4, 1)])
def test_a_step_is_the_models_own_loss_on_the_same_rows(
    objective: str, first_id: int, dense_bytes: int, step: int, learner: int
) -> None:
    model, items = student(), soft(first_id)
    steps, reader = steps_of(model, objective, first_id, dense_bytes)
    leaves = [items.queries.requires_grad_(), *model.parameters()]
    rows = slice(0, BATCH) if step % 2 == 0 else slice(BATCH, ROWS)
    own = SoftItems(items.queries[rows], items.keys, first_id)
    batch = soft_batch(own, len(own.queries), LENGTH)
    batch = supervise(batch, objective, generator_at(MIDDLE + learner, step))
    expected = model.loss(batch, generator_at(DROPOUT + learner, step))
    found = steps.plan(step, learner).value(dict(model.named_parameters()), reader.read(items))
    close(value_and_slopes(found, leaves), value_and_slopes(expected, leaves))
    assert (expected - model.loss(batch)).abs() > 1e-3  # dropout was on


def test_without_dropout_no_masks_are_drawn() -> None:
    steps, _ = steps_of(student(dropout=0.0), "last")
    assert steps.plan(0, 0).drawn.keys() == {"positions", "weights"}
    steps, _ = steps_of(student(dropout=0.0), "all")
    assert steps.plan(0, 0).drawn == {}


def test_learners_together_have_the_sum_of_their_losses() -> None:
    model, items = student(), soft()
    steps, reader = steps_of(model)
    weights = {name: torch.stack([value, 0.5 * value]).detach() for name, value in model.named_parameters()}
    together = inner_step(steps, reader.read(items), 1, learners=2).value(weights, reader.read(items))
    alone = [
        steps.plan(1, learner).value({name: value[learner] for name, value in weights.items()}, reader.read(items))
        for learner in range(2)
    ]
    torch.testing.assert_close(together, alone[0] + alone[1])


def drawn(part: str, steps: InnerSteps, step: int, learner: int) -> tuple[float, ...]:
    """Return all numbers of a kind that are drawn for a step."""
    found = steps.plan(step, learner).drawn
    return tuple(torch.cat([value.flatten() for name, value in found.items() if name.startswith(part)]).tolist())


@pytest.mark.parametrize(
    ("part", "seed", "other"), [("mask", "dropout_seed", "middle_seed"), ("positions", "middle_seed", "dropout_seed")]
)
def test_what_is_drawn_is_keyed_by_its_seed_the_step_and_the_learner(part: str, seed: str, other: str) -> None:
    model = student()
    reader = SoftReader.choose(soft(rows=24), model.item_table_name, 12, 2**20)
    loss = SyntheticLoss(model, LENGTH, "last_and_middle", 1, reader.reads, reader.sizes)
    steps = InnerSteps(loss, 0, MIDDLE, DROPOUT)
    assert isinstance(steps, PlannedLoss)
    keys = list(product((100, 200), (0, 1, 2, 3), (0, 1, 2)))
    draws = [drawn(part, replace(steps, **{seed: value}), step, learner) for value, step, learner in keys]
    assert len(set(draws)) == len(draws)
    changed = replace(steps, **{other: 7})
    assert draws == [drawn(part, replace(changed, **{seed: value}), step, learner) for value, step, learner in keys]
    next_seed = drawn(part, replace(steps, **{seed: 101}), 2, 0)
    assert next_seed == drawn(part, replace(steps, **{seed: 100}), 2, 1)  # a learner's seeds are those of one alone


def test_every_step_draws_the_same_shapes_for_the_same_function() -> None:
    """So that a recording of one step serves for all that read as many rows."""
    steps, _ = steps_of(student())
    plans = {(step, learner): steps.plan(step, learner) for step in range(5) for learner in (0, 1)}
    for (step, learner), plan in plans.items():
        first = plans[step % 2, 0]
        assert plan.loss == first.loss
        assert hash(plan.loss) == hash(first.loss)
        assert (plan.reads, plan.linear) == (first.reads, first.linear), (step, learner)
        assert {n: (v.shape, v.dtype) for n, v in plan.drawn.items()} == {
            n: (v.shape, v.dtype) for n, v in first.drawn.items()
        }
    assert plans[0, 0].linear != plans[1, 0].linear


def test_a_recording_of_one_step_serves_for_another() -> None:
    """Masks, positions and the learners' weights go in; nothing of the recorded step stays in it."""
    model, weights = student(), torch.Generator().manual_seed(8)
    steps, reader = steps_of(model)
    single, synthetic = (
        Student.of({name: value.detach() for name, value in model.named_parameters()}),
        reader.read(soft()),
    )
    for learners in (None, 2):
        axes = () if learners is None else (learners,)
        flat = single.weights + 0.1 * torch.randn(*axes, len(single.weights), generator=weights, dtype=torch.float64)
        recorded, plain = Kernels(record=True), Kernels()
        for step, scale in ((0, 1.0), (4, 0.5)):
            loss = inner_step(steps, synthetic, step, learners)
            found, expected = (
                each.gradient(single.layout, scale * flat, synthetic, loss) for each in (recorded, plain)
            )
            assert expected.weights.abs().max() > 1e-3
            torch.testing.assert_close(found.loss, expected.loss, rtol=1e-10, atol=0)
            torch.testing.assert_close(found.weights, expected.weights, rtol=1e-9, atol=1e-12)
        assert len(recorded._recordings) == 1


@pytest.mark.parametrize(
    ("plain", "turns"), [(0, [0, 1, 0, 1, 0]), (1, [0, 0, 1, 0, 1]), (2, [0, 1, 0, 1, 0]), (3, [0, 1, 0, 0, 1])]
)
def test_the_window_begins_again_at_the_first_minibatch(plain: int, turns: list[int]) -> None:
    steps, reader = steps_of(student(), plain=plain)
    plans = [steps.plan(step, 0) for step in range(5)]
    assert [reader.reads.index(plan.linear["embedded"]) for plan in plans] == turns
    assert [len(plan.drawn["positions"]) for plan in plans] == [reader.sizes[turn] for turn in turns]
    masks = [plan.drawn["mask 0"] for plan, turn in zip(plans, turns, strict=True) if turn == 0]
    assert not any(torch.equal(*pair) for pair in pairwise(masks))  # the same rows, with new masks


REAL_ROWS = 7
WEIGHTS = {
    "equal": torch.ones(REAL_ROWS, dtype=torch.float64),
    "unequal": torch.tensor([1.0, 0.5, 3.0, 0.0, 2.0, 0.25, 0.0], dtype=torch.float64),
}


def real_batch(weights: str = "equal") -> SequenceBatch:
    generator = torch.Generator().manual_seed(3)
    ids = torch.randint(1, NUM_ITEMS + 1, (REAL_ROWS, LENGTH), generator=generator)
    lengths = torch.tensor([8, 1, 3, 5, 8, 2, 6])
    batch = supervise(hard_batch(ids * mask_of(lengths + 1, LENGTH), lengths), "last")
    return replace(batch, weights=WEIGHTS[weights].unsqueeze(1))


def teacher_features() -> Tensor:
    generator = torch.Generator().manual_seed(4)
    return torch.randn(REAL_ROWS, 8, generator=generator, dtype=torch.float64)


def total(parts: list[StepLoss], model: SASRec) -> Tensor:
    return torch.stack([part.value(dict(model.named_parameters()), {}) for part in parts]).sum()


PARTS = {1: [1] * 7, 2: [2, 2, 2, 1], 3: [3, 3, 1], 7: [7], 100: [7]}
every_part = pytest.mark.parametrize("part", PARTS)
every_weight = pytest.mark.parametrize("weights", WEIGHTS)


@every_part
@every_weight
@pytest.mark.parametrize("scale", ["mean", "sum_half", None])
def test_the_parts_sum_to_the_loss_of_the_whole_batch(part: int, weights: str, scale: str | None) -> None:
    """The next-item loss is a weighted mean over the batch; all rows count alike in the alignment."""
    model, batch, features = student(), real_batch(weights), teacher_features()
    expected, hidden = model(batch)
    if scale is not None:
        squares = (hidden.squeeze(1) - features).square()
        expected = expected + 0.7 * (squares.mean() if scale == "mean" else squares.sum() / 2)
    judge = RealBatch(RealLoss(model, 0.7, scale or "mean"), batch, features if scale else None, part)
    assert isinstance(judge, SplitLoss)
    parts = list(judge.parts())
    assert [len(each.drawn["items"]) for each in parts] == PARTS[part]
    leaves = list(model.parameters())
    close(value_and_slopes(total(parts, model), leaves), value_and_slopes(expected, leaves))


@every_part
@every_weight
def test_a_part_has_its_share_of_the_weights(part: int, weights: str) -> None:
    parts = list(RealBatch(RealLoss(student(), 0.0, "mean"), real_batch(weights), None, part).parts())
    own = [each.drawn["weights"].sum() / WEIGHTS[weights].sum() for each in parts]
    assert [float(each.drawn["share"]) for each in parts] == pytest.approx([float(share) for share in own])
    assert sum(float(each.drawn["share"]) for each in parts) == pytest.approx(1)


@every_part
def test_judged_with_dropout_every_part_has_masks_of_its_own(part: int) -> None:
    """The first part's are those that the model itself would draw."""
    model, batch = student(), real_batch()
    judge = RealBatch(RealLoss(model, 0.0, "mean"), batch, None, part, generator_at(5, 0))
    generator, expected = generator_at(5, 0), []
    for rows in torch.arange(REAL_ROWS).split(part):
        own = replace(
            batch,
            items=type(batch.items)(batch.items.ids[rows]),
            lengths=batch.lengths[rows],
            weights=batch.weights[rows],
            positions=batch.positions[rows],
        )
        expected.append(model.loss(own, generator) * len(rows) / REAL_ROWS)
    found = total(list(judge.parts()), model)
    leaves = list(model.parameters())
    close(value_and_slopes(found, leaves), value_and_slopes(torch.stack(expected).sum(), leaves))
    assert (found - model.loss(batch)).abs() > 1e-3


def test_all_learners_are_judged_on_the_same_rows_and_the_mean_is_taken() -> None:
    model = student()
    judge = RealBatch(RealLoss(model, 0.7, "mean"), real_batch(), teacher_features(), 3)
    weights = {name: torch.stack([value, 0.5 * value]).detach() for name, value in model.named_parameters()}
    together = torch.stack([part.value(weights, {}) for part in outer_parts(judge, {}, learners=2)]).sum()
    alone = [
        torch.stack(
            [part.value({name: value[learner] for name, value in weights.items()}, {}) for part in judge.parts()]
        ).sum()
        for learner in range(2)
    ]
    assert (alone[0] - alone[1]).abs() > 1e-3
    torch.testing.assert_close(together, (alone[0] + alone[1]) / 2)


@pytest.mark.parametrize("rows", [1, 50, 4096, 10**6])
@pytest.mark.parametrize("length", [1, 50])
@pytest.mark.parametrize("num_items", [20, 200_000])
def test_a_part_fills_the_cache_or_pays_for_the_weights(rows: int, length: int, num_items: int) -> None:
    model = sasrec(num_items, max_seq_len=length)
    found = rows_per_part(rows, length, model)
    assert 1 <= found <= rows
    numbers = max(ACTIVATIONS, sum(value.numel() for value in model.parameters()) / 4)
    assert (num_items == 20) is (numbers == ACTIVATIONS)
    assert found == rows or found * length * 8 >= numbers
    assert (found - 1) * length * 8 < numbers
