"""How units move: a proxy trains on active units and is judged on real samples of a block that nothing has learnt."""

import copy
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.func import functional_call

from recdistill.bilevel.optimizer import Adam, Student, Tensors
from recdistill.bilevel.unroll import MetaResult, Unroll, random_unroll
from recdistill.data.clicks.block import ClickBatch, ClickBlock
from recdistill.distill.base import RunContext
from recdistill.distill.clicks.addressing import active_units, hard_targets, influences, last_gradients
from recdistill.distill.clicks.memory import LARGEST_LOGIT, ClickMemory, kept
from recdistill.distill.diet import DIET
from recdistill.evaluation.clicks import log_loss, predicted
from recdistill.models.clicks.base import ClickModel
from recdistill.rng import Streams, generator_at
from recdistill.training.clicks import ClickRecipe, fit_clicks

TABLES = "tables.rows"
"""The weights that a proxy does not train: units enter behind them."""


class Units(nn.Module):
    """Vectors and label logits of a memory, as parameters.

    Logits are kept divided by ``scale``, so that one step size moves them ``scale`` times as far as vectors.
    """

    def __init__(self, memory: ClickMemory, scale: float) -> None:
        super().__init__()
        self.scale = scale
        self.vectors = nn.Parameter(memory.vectors.clone())
        self.labels = nn.Parameter(memory.logits / scale)


@dataclass(frozen=True, eq=False)
class ClickRefinement:
    """Everything of one block's outer steps that does not change."""

    settings: DIET
    begun: ClickMemory
    model: ClickModel
    start: Tensors
    block: ClickBlock
    judged: ClickBlock
    synthetic: Units
    rng: Streams
    context: RunContext

    @staticmethod
    def prepare(
        settings: DIET,
        memory: ClickMemory,
        model: ClickModel,
        block: ClickBlock,
        rng: Streams,
        context: RunContext,
    ) -> "ClickRefinement":
        """Return the task of a block.

        Args:
            settings: the method.
            memory: the units as they begin.
            model: the reference model before it learns the block; its tables stay, and a proxy begins as it is.
            block: real samples, in the order of time: targets of the steps, and at the end those that units are judged
                on.
            rng: streams of this block.
            context: where the run happens.
        """
        start = {name: value.detach().clone() for name, value in model.state_dict().items() if name != TABLES}
        units = Units(memory, settings.label_rate / settings.learning_rate)
        parts = (*parted(block, settings.held_out), units, rng.child("refine"), context)
        return ClickRefinement(settings, memory, model, start, *parts)

    @property
    def steps_per_epoch(self) -> int:
        """Outer steps."""
        return self.settings.steps_per_epoch

    def memory(self) -> ClickMemory:
        """Return the units as they are now."""
        logits = (self.synthetic.labels.detach() * self.synthetic.scale).clamp(-LARGEST_LOGIT, LARGEST_LOGIT)
        return replace(self.begun, vectors=self.synthetic.vectors.detach().clone(), logits=logits)

    def steps(self, epoch: int) -> Iterator[MetaResult]:
        """Yield the meta-gradient of each outer step, clipped at a multiple of the mean norm so far in the epoch."""
        mean, taken = 0.0, 0
        for step in range(epoch * self.steps_per_epoch, (epoch + 1) * self.steps_per_epoch):
            result = self.outer_step(step)
            norm = float(torch.stack([value.norm() for value in result.gradient.values()]).norm())
            bound = self.settings.clip * mean if taken else norm
            mean, taken = (mean * taken + norm) / (taken + 1), taken + 1
            share = min(1.0, bound / norm) if norm > 0 else 1.0
            gradient = {name: share * value for name, value in result.gradient.items()}
            yield MetaResult(result.outer_loss, gradient, result.student, {"meta_gradient": norm, "clipped": 1 - share})

    def outer_step(self, step: int) -> MetaResult:
        """Return the loss on the targets of a proxy trained on active units, and its derivative in all units."""
        settings = self.settings
        draw = generator_at(self.rng.integer("step"), step)
        targets, active = self.addressed(draw)
        lengths = (settings.window, settings.max_inner_steps)
        inner_steps = random_unroll(*lengths, generator_at(self.rng.integer("unroll"), step))
        seed = generator_at(self.rng.integer("batches"), step).initial_seed()
        size = min(settings.inner_batch_size, len(active))

        def inner(params: Tensors, units: Tensors, turn: int) -> Tensor:
            rows = active[torch.randperm(len(active), generator=generator_at(seed, turn))[:size]]
            labels = torch.sigmoid(units["labels"][rows] * self.synthetic.scale)
            batch = ClickBatch(labels, vectors=units["vectors"][rows])
            loss: Tensor = functional_call(self.model, params, (batch,))
            return loss

        def outer(params: Tensors, units: Tensors) -> Tensor:
            loss: Tensor = functional_call(self.model, params, (targets,))
            if settings.anchor == 0:
                return loss
            return loss + settings.anchor * (units["vectors"] - self.begun.vectors).square().mean()

        parameters = {name: value.detach() for name, value in self.synthetic.named_parameters()}
        return self.estimator(inner, outer, Student.of(self.start), parameters, inner_steps)

    @cached_property
    def estimator(self) -> Unroll:
        """How the derivative is found."""
        optimizer = Adam(learning_rate=self.settings.inner_learning_rate)
        return self.context.engine.unroll(optimizer, self.settings.window)

    @torch.no_grad()
    def addressed(self, draw: torch.Generator) -> tuple[ClickBatch, Int[Tensor, " m"]]:
        """Return the real samples that a step is judged on, looked up, and the units that it may move."""
        settings, units = self.settings, self.synthetic
        count = max(1, round(settings.active * len(self.begun)))
        size = min(settings.outer_batch_size, len(self.block))
        pool = torch.randperm(len(self.block), generator=draw)[: size * settings.pool].numpy()
        if not settings.addressing:
            active = torch.randperm(len(self.begun), generator=draw)[:count].sort().values
            return self.looked_up(pool[:size]), active
        real, proxy = self.looked_up(pool), self.proxy()
        gradients, hidden, logits = gradients_of(proxy, real)
        rows = hard_targets(gradients.norm(dim=1), real.labels, size, uniform=settings.uniform, generator=draw)
        now = ClickBatch(torch.sigmoid(units.labels * units.scale), vectors=units.vectors.detach())
        found = influences(gradients_of(proxy, now)[0], gradients[rows].mean(0), hidden, logits, settings.damping)
        assert real.vectors is not None
        return ClickBatch(real.labels[rows], vectors=real.vectors[rows]), active_units(found, count, draw)

    @torch.no_grad()
    def looked_up(self, rows: np.ndarray) -> ClickBatch:
        """Return samples of the block as vectors."""
        batch = self.block.batch(rows)
        return ClickBatch(batch.labels, vectors=self.model.embed(batch))

    def proxy(self) -> ClickModel:
        """Return a copy of the reference model whose tables no training moves; copies share them."""
        return copy.deepcopy(self._frozen, {id(self._frozen.tables): self._frozen.tables})

    @cached_property
    def _frozen(self) -> ClickModel:
        made = copy.deepcopy(self.model)
        made.tables.requires_grad_(False)
        return made

    def judge(self, epoch: int) -> float:
        """Return minus the log loss, on samples that no step sees, of a proxy that has trained on the units."""
        settings = self.settings
        proxy = self.proxy()
        size = min(settings.inner_batch_size, len(self.begun))
        steps = settings.max_inner_steps
        recipe = ClickRecipe(
            learning_rate=settings.inner_learning_rate, weight_decay=0.0, batch_size=size, steps_per_epoch=steps
        )
        fit_clicks(proxy, self.memory(), recipe, self.rng.child("judge"))
        return -log_loss(self.judged.labels, predicted(proxy, self.judged))


def parted(block: ClickBlock, held_out: float) -> tuple[ClickBlock, ClickBlock]:
    """Return a block without its last samples, and these; of a block of one sample, that one both times."""
    first = max(1, len(block) - max(1, round(held_out * len(block))))
    rows = np.arange(len(block))
    return block.some(rows[:first]), block.some(rows[first:] if len(block) > 1 else rows)


@torch.no_grad()
def gradients_of(
    model: ClickModel, batch: ClickBatch
) -> tuple[Float[Tensor, "n W1"], Float[Tensor, "n W"], Float[Tensor, " n"]]:
    """Return each sample's gradient in the last layer, what that layer reads, and the logits."""
    vectors = model.embed(batch)
    hidden = model.hidden(vectors)
    logits = model.logits_of(hidden, vectors)
    return last_gradients(hidden, logits, batch.labels), hidden, logits


def bounded(
    settings: DIET, memory: ClickMemory, model: ClickModel, block: ClickBlock, most: int, rng: Streams
) -> ClickMemory:
    """Return at most ``most`` units, those with the largest influence on samples of the block, whatever its sign."""
    if len(memory) <= most:
        return memory
    count = min(settings.outer_batch_size * settings.pool, len(block))
    rows = np.sort(rng.numpy("bounded").choice(len(block), count, replace=False))
    gradients, hidden, logits = gradients_of(model, block.batch(rows))
    units = gradients_of(model, ClickBatch(torch.sigmoid(memory.logits), vectors=memory.vectors))[0]
    found = influences(units, gradients.mean(0), hidden, logits, settings.damping)
    return kept(memory, found.abs(), most)
