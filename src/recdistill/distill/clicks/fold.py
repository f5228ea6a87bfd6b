"""One block into a memory: DIET's three steps."""

import itertools
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from scipy.special import expit
from torch import Tensor

from recdistill.data.clicks.block import ClickBlock
from recdistill.distill.base import RunContext
from recdistill.distill.clicks.memory import ClickMemory, carried_over, lifted, units_in
from recdistill.distill.clicks.refine import ClickRefinement, bounded
from recdistill.distill.clicks.selection import el2n, hardest_by_label
from recdistill.distill.diet import DIET
from recdistill.distill.outer_loop import Learnt, OuterLoop
from recdistill.evaluation.clicks import predicted
from recdistill.models.clicks.base import ClickModel
from recdistill.rng import Streams
from recdistill.training.clicks import fit_clicks


@dataclass(frozen=True)
class Folded:
    """What a block leaves.

    Args:
        memory: the units.
        moved: how far the tables of each field moved, as old units see it.
        learnt: what the outer steps had to tell.
    """

    memory: ClickMemory
    moved: Float[Tensor, " F"]
    learnt: Learnt


def fold(
    settings: DIET,
    memory: ClickMemory,
    model: ClickModel,
    block: ClickBlock,
    *,
    seen: int,
    number: int,
    rng: Streams,
    context: RunContext,
) -> Folded:
    """Return the memory after a block, and train the reference model on it in place.

    Args:
        settings: the method.
        memory: units so far; empty before the first block.
        model: the reference model, its tables grown for the ids of the block.
        block: the samples, one or more.
        seen: samples before this block.
        number: of the block, from 1.
        rng: streams of this block.
        context: where the run happens.

    Raises:
        NumericalError: a loss or a meta-gradient is not finite.
    """
    refined, learnt = refine(settings, memory, model, block, rng, context)
    before = model.tables.copied()
    logits = learn_block(settings, model, block, rng)
    options: dict[str, Any] = {"alignment": settings.alignment, "strength": settings.alignment_strength}
    old, moved = carried_over(refined, before, model, block, refresh=settings.refresh, **options)
    count = min(len(block), max(1, units_in(settings.ratio, seen + len(block)) - len(memory)))
    added = select(settings, model, logits, block, count, rng)
    fused = old.joined(lifted(model, added, settings.softness, number))
    if settings.most_units is not None:
        fused = bounded(settings, fused, model, block, settings.most_units, rng)
    return Folded(fused, moved, learnt)


def refine(
    settings: DIET, memory: ClickMemory, model: ClickModel, block: ClickBlock, rng: Streams, context: RunContext
) -> tuple[ClickMemory, Learnt]:
    """Return the old units, moved so that what trains on them foresees a block that nothing has learnt yet."""
    if settings.epochs == 0 or not len(memory):
        return memory, Learnt((), 0.0)
    task = ClickRefinement.prepare(settings, memory, model, block, rng, context)
    learnt = outer_loop(settings).learn(task, context)
    return task.memory(), learnt


def learn_block(settings: DIET, model: ClickModel, block: ClickBlock, rng: Streams) -> Float[np.ndarray, "J n"]:
    """Train the reference model on a block, in place; return what its checkpoints say of it, where that is needed."""
    found: list[np.ndarray] = []
    fit_clicks(
        model,
        block,
        settings.training,
        rng.child("reference"),
        record=lambda done, current: found.append(predicted(current, block)),
        records_per_epoch=settings.checkpoints if settings.selection == "hardest" else 0,
    )
    model.zero_grad(set_to_none=True)  # as large as the tables
    return np.stack(found) if found else np.zeros((0, len(block)), np.float32)


def select(
    settings: DIET, model: ClickModel, logits: Float[np.ndarray, "J n"], block: ClickBlock, count: int, rng: Streams
) -> ClickBlock:
    """Return the samples of a block that become units.

    Args:
        settings: the method.
        model: the reference model, which has learnt the block.
        logits: what its checkpoints say of the block, for ``hardest``.
        block: the samples.
        count: how many become units.
        rng: streams of this block.
    """
    if settings.selection == "random":
        return block.some(np.sort(rng.numpy("random").choice(len(block), count, replace=False)))
    if settings.selection == "independent":
        return made_up(model, block, count, rng)
    scores = el2n(torch.from_numpy(logits), torch.from_numpy(block.labels))
    rate, drop = settings.positive_rate, settings.drop
    return block.some(hardest_by_label(scores.numpy(), block.labels, count, positive_rate=rate, drop=drop))


def made_up(model: ClickModel, block: ClickBlock, count: int, rng: Streams) -> ClickBlock:
    """Return samples that never were: the values of each field as often as in the block, fields independent.

    Their labels are the model's chances.
    """
    draw, parts = rng.numpy("independent"), []
    starts = np.cumsum((0, *block.widths))
    for first, last in itertools.pairwise(starts):
        parts.append(block.ids[draw.integers(len(block), size=count), first:last])
    made = ClickBlock(np.concatenate(parts, axis=1), np.zeros(count, np.float32), block.widths)
    return replace(made, labels=expit(predicted(model, made)).astype(np.float32))


def outer_loop(settings: DIET) -> OuterLoop:
    """Return how units move."""
    return OuterLoop(
        method=settings.method,
        epochs=settings.epochs,
        learning_rate=settings.learning_rate,
        weight_decay=0.0,
        clip_norm=None,  # the task clips, by a mean that runs along
        metric="negative_log_loss",
        remedy=f"a smaller inner learning rate than {settings.inner_learning_rate} often helps",
        judge_start=True,
        schedule="constant",
    )
