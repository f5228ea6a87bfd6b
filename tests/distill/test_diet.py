"""DIET: one block after another into a memory; its derivative against autograd, its promises on a known stream.

Not proved here: that it beats its controls; that is for real logs.
"""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.func import functional_call

from recdistill.bilevel.optimizer import Adam, Student
from recdistill.data.clicks.block import ClickBatch, ClickBlock
from recdistill.distill.base import RunContext
from recdistill.distill.clicks.fold import Folded, fold, learn_block, select
from recdistill.distill.clicks.memory import ClickMemory
from recdistill.distill.clicks.refine import ClickRefinement
from recdistill.distill.diet import DIET
from recdistill.errors import OptionError
from recdistill.evaluation.clicks import click_scores, predicted
from recdistill.models.clicks import CLICK_MODELS
from recdistill.models.clicks.base import ClickModel
from recdistill.rng import Streams
from recdistill.training.clicks import ClickRecipe, fit_clicks

NUM_IDS, WIDTHS = (8, 8, 5), (1, 1, 1)
TINY = DIET(
    model_options={"embedding_dim": 4, "hidden_units": (8,)},
    training=ClickRecipe(learning_rate=0.01, batch_size=64, epochs=1),
    checkpoints=3,
    ratio=0.05,
    epochs=2,
    steps_per_epoch=3,
    window=2,
    max_inner_steps=5,
    inner_batch_size=8,
    inner_learning_rate=0.01,
    outer_batch_size=32,
    held_out=0.5,
)


def block_of(seed: int, rows: int = 400) -> ClickBlock:
    """Clicks that depend on whether the first two ids are both odd or both even."""
    generator = np.random.default_rng(seed)
    ids = np.stack([generator.integers(2, n, rows) for n in NUM_IDS], axis=1).astype(np.int32)
    chance = np.where((ids[:, 0] + ids[:, 1]) % 2 == 0, 0.85, 0.1)
    return ClickBlock(ids, (generator.uniform(size=rows) < chance).astype(np.float32), WIDTHS)


def model_of(settings: DIET = TINY) -> ClickModel:
    made = CLICK_MODELS[settings.model]
    return made(NUM_IDS, WIDTHS, **settings.model_options, generator=torch.Generator().manual_seed(0))


def stream(settings: DIET, blocks: Sequence[ClickBlock], **context: Any) -> tuple[ClickModel, list[Folded]]:
    """Fold blocks one after another."""
    model, found, seen = model_of(settings), [], 0
    memory = ClickMemory.empty(WIDTHS, 4)
    for number, block in enumerate(blocks, start=1):
        rng = Streams(0).child(f"block {number}")
        made = fold(settings, memory, model, block, seen=seen, number=number, rng=rng, context=RunContext(**context))
        memory, seen = made.memory, seen + len(block)
        found.append(made)
    return model, found


def task_of(settings: DIET = TINY) -> ClickRefinement:
    model, block, rng = model_of(settings), block_of(1), Streams(0)
    made = select(settings, model, learn_block(settings, model, block, rng), block, 20, rng)
    vectors = model.embed(made.batch(slice(None))).detach()
    logits, ids = 2 * torch.from_numpy(made.labels) - 1, torch.from_numpy(made.ids)
    memory = ClickMemory(vectors, logits, torch.ones(20, dtype=torch.long), ids)
    return ClickRefinement.prepare(settings, memory, model, block_of(2), rng, RunContext())


def test_a_memory_grows_with_its_stream() -> None:
    _, found = stream(TINY, [block_of(seed) for seed in range(3)])
    assert [len(made.memory) for made in found] == [20, 40, 60]
    assert found[2].memory.blocks.tolist() == [1] * 20 + [2] * 20 + [3] * 20
    assert [len(made.learnt.trace) for made in found] == [0, 2, 2]  # no units before the first block
    assert found[0].moved.max() > 0  # from tables that nothing was learnt in


def test_a_bounded_memory_does_not() -> None:
    _, found = stream(replace(TINY, most_units=25), [block_of(seed) for seed in range(3)])
    assert [len(made.memory) for made in found] == [20, 25, 25]


@pytest.mark.parametrize(
    "options",
    [{}, {"addressing": False}, {"alignment": "rotation"}, {"selection": "hardest"}, {"selection": "independent"}],
)
def test_the_same_stream_gives_the_same_memory(options: dict[str, Any]) -> None:
    settings = replace(TINY, **options)
    runs = [stream(settings, [block_of(0), block_of(1)])[1][-1].memory for _ in range(2)]
    assert torch.equal(runs[0].vectors, runs[1].vectors)
    assert torch.equal(runs[0].logits, runs[1].logits)


def test_a_killed_block_ends_like_one_that_was_not(tmp_path: Path) -> None:
    blocks = [block_of(0), block_of(1)]
    expected = stream(TINY, blocks)[1][-1].memory

    def kill(stage: str, done: int, total: int, note: str = "") -> None:
        if done == 4:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        stream(TINY, blocks, state=tmp_path / "state", progress=kill)
    assert (tmp_path / "state").exists()
    found = stream(TINY, blocks, state=tmp_path / "state")[1][-1].memory
    assert torch.equal(found.vectors, expected.vectors)
    assert torch.equal(found.logits, expected.logits)


def test_a_model_learns_from_the_memory_what_the_stream_says() -> None:
    settings = replace(TINY, training=replace(TINY.training, epochs=20), ratio=0.1)
    model, found = stream(settings, [block_of(seed) for seed in range(3)])
    student = model_of(settings)
    student.tables = model.tables
    student.tables.requires_grad_(False)
    recipe = ClickRecipe(learning_rate=0.01, batch_size=32, epochs=30)
    fit_clicks(student, found[-1].memory, recipe, Streams(1))
    test = block_of(9, rows=2000)
    assert click_scores(test.labels, predicted(student, test)).auc > 0.8


@pytest.mark.parametrize("name", CLICK_MODELS)
def test_every_model_can_be_the_reference(name: str) -> None:
    settings = replace(TINY, model=name, model_options={"embedding_dim": 4}, epochs=1, steps_per_epoch=2)
    _, found = stream(settings, [block_of(0), block_of(1)])
    assert found[1].memory.vectors.isfinite().all()


def test_a_step_is_the_derivative_of_unrolled_training() -> None:
    task = task_of(replace(TINY, window=3, max_inner_steps=3, active=0.5))
    task.model.double()
    task.synthetic.double()
    start = {name: value.double() for name, value in task.start.items()}
    begun = replace(task.begun, vectors=task.begun.vectors.double(), logits=task.begun.logits.double())
    task = replace(task, start=start, begun=begun)
    seen: dict[str, Any] = {}
    addressed = type(task).addressed

    def noted(self: ClickRefinement, draw: torch.Generator) -> Any:
        seen["targets"], seen["active"] = addressed(self, draw)
        return seen["targets"], seen["active"]

    object.__setattr__(task, "addressed", noted.__get__(task))
    result = task.outer_step(4)
    units = {name: value.detach().clone().requires_grad_() for name, value in task.synthetic.named_parameters()}
    student = Student.of(start)
    student = student.with_weights(student.weights.requires_grad_())
    from recdistill.rng import generator_at

    seed = generator_at(task.rng.integer("batches"), 4).initial_seed()
    for turn in range(3):
        rows = seen["active"][torch.randperm(10, generator=generator_at(seed, turn))[:8]]
        labels = torch.sigmoid(units["labels"][rows] * task.synthetic.scale)
        params = student.params
        loss = functional_call(task.model, params, (ClickBatch(labels, vectors=units["vectors"][rows]),))
        slopes = torch.autograd.grad(loss, list(params.values()), create_graph=True)
        student = Adam(learning_rate=0.01).update(student, torch.cat([slope.flatten() for slope in slopes]))
    outer = functional_call(task.model, student.params, (seen["targets"],))
    outer = outer + task.settings.anchor * (units["vectors"] - begun.vectors).square().mean()
    expected = dict(zip(units, torch.autograd.grad(outer, list(units.values())), strict=True))
    assert float(result.outer_loss) == pytest.approx(outer.item(), rel=1e-9)
    for name, value in expected.items():
        torch.testing.assert_close(result.gradient[name], value, rtol=1e-7, atol=1e-12)
    idle = torch.ones(20, dtype=torch.bool)
    idle[seen["active"]] = False
    assert result.gradient["labels"][idle].abs().max() == 0


def test_a_meta_gradient_far_above_the_mean_is_cut() -> None:
    task = task_of(replace(TINY, clip=1e-3, steps_per_epoch=3))
    results = list(task.steps(0))
    norms = [float(torch.stack([value.norm() for value in each.gradient.values()]).norm()) for each in results]
    assert results[0].notes["clipped"] == 0
    for step in (1, 2):
        mean = np.mean([each.notes["meta_gradient"] for each in results[:step]])
        assert norms[step] == pytest.approx(1e-3 * mean, rel=1e-4)


def test_labels_move_at_a_rate_of_their_own() -> None:
    task = task_of(replace(TINY, learning_rate=1e-3, label_rate=2e-2))
    assert task.synthetic.scale == pytest.approx(20)
    torch.testing.assert_close(task.memory().logits, task.begun.logits)


def test_scores_are_those_of_the_checkpoints() -> None:
    model, block = model_of(), block_of(0)
    found = learn_block(replace(TINY, selection="hardest"), model, block, Streams(0))
    assert found.shape == (TINY.checkpoints, len(block))
    np.testing.assert_array_equal(found[-1], predicted(model, block))
    assert not np.allclose(found[0], found[-1])
    assert all(parameter.grad is None for parameter in model.parameters())
    assert learn_block(replace(TINY, selection="random"), model_of(), block, Streams(0)).shape == (0, len(block))


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"model": "lightgbm"}, r"model.*choose from lr, fm"),
        ({"selection": "best"}, r"selection.*hardest, random"),
        ({"alignment": "mlp"}, "alignment"),
        ({"ratio": 2.0}, "ratio"),
        ({"softness": -0.1}, "softness"),
        ({"positive_rate": 1.5}, "positive_rate"),
        ({"max_inner_steps": 1}, "max_inner_steps: 1 must be at least window 2"),
        ({"outer_batch_size": 1}, "outer_batch_size"),
        ({"most_units": 0}, "most_units"),
    ],
)
def test_options_that_cannot_be_are_refused(options: dict[str, Any], told: str) -> None:
    with pytest.raises(OptionError, match=told):
        replace(TINY, **options)
