"""Gradient matching: vectors whose gradients, in a network that has learnt nothing, are those of real samples."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor
from torch.func import functional_call

from recdistill.data.clicks.block import ClickBatch, ClickBlock
from recdistill.distill.clicks.memory import ClickMemory, lifted
from recdistill.errors import NumericalError, choose, require_above, require_at_least
from recdistill.models.clicks import CLICK_MODELS
from recdistill.models.clicks.base import ClickModel, FieldTables
from recdistill.progress import SILENT, Progress
from recdistill.rng import Streams, generator_at

TABLES = "tables."


@dataclass(frozen=True, kw_only=True)
class GradientMatching:
    """Dense stand-ins for the categorical inputs of random samples, learnt by matching gradients for a single step.

    In every step a network is drawn anew behind the reference model's tables; label by label, the gradient of a batch
    of units in its weights is drawn towards that of a batch of real samples. Labels stay hard.

    When not to use it: the gradients of an untrained network know little of a late one.

    Reference: Wang et al., Gradient Matching for Categorical Data Distillation in CTR Prediction (CGM), RecSys 2023;
    of which the abstract could be had.

    Departures: the distance, sizes and step sizes are ours: sum over weight tensors of one less the cosine, as Zhao et
    al., Dataset Condensation with Gradient Matching, ICLR 2021, arXiv 2006.05929, have it row by row.
    """

    model: str = "deepfm"
    """Network, a key of ``CLICK_MODELS``."""
    steps: int = 1_000
    """Networks that are drawn, at least 1."""
    batch_size: int = 256
    """Real samples, and units, of one label in a step; at least 1."""
    learning_rate: float = 1e-2
    """Adam step size of vectors, above 0."""

    def __post_init__(self) -> None:
        """Check every field."""
        choose("model", self.model, CLICK_MODELS)
        require_at_least(1, steps=self.steps, batch_size=self.batch_size)
        require_above(0, learning_rate=self.learning_rate)

    def distill(
        self, block: ClickBlock, rows: np.ndarray, reference: ClickModel, rng: Streams, progress: Progress = SILENT
    ) -> ClickMemory:
        """Return units that began as some rows of a block.

        Args:
            block: real samples of both labels.
            rows: where units begin.
            reference: whose tables give real samples their vectors.
            rng: streams ``draws`` and ``networks``.
            progress: told now and then.

        Raises:
            NumericalError: the distance is not finite.
        """
        begun = lifted(reference, block.some(rows), 0.0, 1)
        vectors = begun.vectors.clone().requires_grad_(True)
        optimizer = torch.optim.Adam([vectors], lr=self.learning_rate)
        real = [torch.from_numpy(np.flatnonzero((block.labels > 0.5) == clicked)) for clicked in (False, True)]
        mine = [((begun.logits > 0) == clicked).nonzero().squeeze(1) for clicked in (False, True)]
        for step in range(self.steps):
            draw = generator_at(rng.integer("draws"), step)
            network = self._network(reference.tables, generator_at(rng.integer("networks"), step))
            loss = vectors.new_zeros(())
            for label, (theirs, ours) in enumerate(zip(real, mine, strict=True)):
                if not len(theirs) or not len(ours):
                    continue
                chosen = theirs[torch.randint(len(theirs), (self.batch_size,), generator=draw)].numpy()
                units = ours[torch.randperm(len(ours), generator=draw)[: self.batch_size]]
                with torch.no_grad():
                    looked_up = reference.embed(block.batch(chosen))
                target = [value.detach() for value in gradient(network, looked_up, label, create_graph=False)]
                loss = loss + distance(gradient(network, vectors[units], label, create_graph=True), target)
            if not torch.isfinite(loss):
                cause = f"a smaller learning rate than {self.learning_rate} often helps"
                told = "the distance of gradients is not finite"
                raise NumericalError(told, stage="gradient matching", step=step + 1, cause=cause)
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
            if (step + 1) % 50 == 0:
                progress("match", step + 1, self.steps, f"distance {float(loss.detach()):.3f}")
        return ClickMemory(vectors.detach(), begun.logits, begun.blocks, begun.ids)

    def _network(self, tables: FieldTables, generator: torch.Generator) -> ClickModel:
        options: dict[str, Any] = {"embedding_dim": tables.rows.shape[1], "generator": generator}
        return CLICK_MODELS[self.model]((1,) * len(tables.widths), tables.widths, **options)


def gradient(
    network: ClickModel, vectors: Float[Tensor, "B F D"], label: int, *, create_graph: bool
) -> Sequence[Tensor]:
    """Return the gradient of the mean loss of samples of one label, in every weight behind the tables that has one."""
    weights: dict[str, Tensor] = {
        name: value for name, value in network.named_parameters() if not name.startswith(TABLES)
    }
    batch = ClickBatch(torch.full((len(vectors),), float(label)), vectors=vectors)
    loss: Tensor = functional_call(network, weights, (batch,))
    found = torch.autograd.grad(loss, list(weights.values()), create_graph=create_graph, allow_unused=True)
    return [value for value in found if value is not None]


def distance(ours: Sequence[Tensor], theirs: Sequence[Tensor]) -> Float[Tensor, ""]:
    """Return the sum over weights of one less the cosine of two gradients."""
    parts = []
    for mine, other in zip(ours, theirs, strict=True):
        norms = mine.norm() * other.norm()
        parts.append(1 - (mine * other).sum() / norms.clamp(min=1e-12))
    return torch.stack(parts).sum()
