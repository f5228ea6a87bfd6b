"""Models of several families trained on the full data: what students are held to, and whose labels rows start from."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from recdistill.data.batches import LOGITS_BYTES
from recdistill.data.development import Development
from recdistill.data.rows import HardRows
from recdistill.distill.base import RunContext
from recdistill.distill.coresets.random_soft import hidden_states
from recdistill.distill.teacher import TeacherSpec, teach
from recdistill.errors import choose
from recdistill.models.base import Recommender
from recdistill.training.fit import TrainingRecipe
from recdistill.training.trajectory import Trajectory


@dataclass(frozen=True, kw_only=True)
class Family:
    """A kind of student."""

    model: str
    """Name in ``MODELS``."""
    config: Mapping[str, Any]
    """Keyword arguments of the model; its defaults for the rest."""


_SMALL = {"embedding_dim": 32, "num_blocks": 1, "num_heads": 1, "inner_dim": 64, "dropout": 0.2}
FAMILIES: dict[str, Family] = {
    "sasrec_32": Family(model="sasrec", config=_SMALL | {"attention_dropout": 0.5}),
    "sasrec_64": Family(model="sasrec", config={}),
    "gru4rec_64": Family(model="gru4rec", config={"hidden_dim": 64, "dropout": 0.2}),
    "narm_32": Family(model="narm", config={"embedding_dim": 32, "hidden_dim": 32}),
    "bert4rec_32": Family(model="bert4rec", config=_SMALL | {"attention_dropout": 0.2}),
}
"""Students that the outer loop can hold, by name."""


@dataclass(frozen=True)
class Peer:
    """A family trained on the full data.

    Args:
        family: its name in :data:`FAMILIES`.
        trajectory: of its training.
        model: with the best weights.
    """

    family: str
    trajectory: Trajectory
    model: Recommender

    @property
    def score(self) -> float:
        """The best validation score of its training."""
        return max(float(score) for score in self.trajectory.header["scores"])


def train_peers(
    train: Development,
    families: Sequence[str],
    max_seq_len: int,
    recipe: TrainingRecipe,
    seed: int,
    cache: Path,
    context: RunContext,
) -> list[Peer]:
    """Return a peer of each family; those in the cache are not trained again.

    Raises:
        OptionError: a family is not known.
        NumericalError: a training diverged.
    """
    peers = []
    for name in families:
        family = choose("families", name, FAMILIES)
        spec = TeacherSpec(model=family.model, config=family.config, max_seq_len=max_seq_len, recipe=recipe)
        trajectory = teach(train, spec, seed, cache, progress=context.progress)
        peers.append(Peer(name, trajectory, trajectory.model().to(context.device)))
    return peers


@contextmanager
def peer_cache(context: RunContext) -> Iterator[Path]:
    """Give the folder where peers are kept; one that is removed afterwards, where the run keeps none."""
    if context.cache is not None:
        yield context.cache
        return
    with TemporaryDirectory(prefix="recdistill-peers-") as folder:
        yield Path(folder)


FIT_STEPS, FIT_RATE = 400, 0.05
FIT_EPS = 1e-5
"""Added to Adam's root: far below the gradients of a label that is off, far above the rounding of one that is not."""


def mean_label_queries(
    models: Sequence[Recommender], rows: HardRows, item_factor: Float[Tensor, "V R"], start: Float[Tensor, "N T R"]
) -> Float[Tensor, "N T R"]:
    """Return queries whose distributions over ``item_factor`` are nearest to the mean of several models' own.

    Nearest in Kullback-Leibler divergence from the mean, position by position: convex problems, solved together by
    Adam. Padding keeps its query.

    Args:
        models: whose distributions are averaged.
        rows: what they read.
        item_factor: keys of the labels.
        start: where the search begins.
    """
    real = torch.arange(rows.length) < rows.lengths.unsqueeze(1)
    states = [hidden_states(model, rows)[real] for model in models]
    queries, found = start[real], start.clone()
    parts, block = [], max(1, LOGITS_BYTES // (4 * len(item_factor)))
    for low in range(0, len(queries), block):
        cut = slice(low, low + block)
        target = torch.zeros(len(queries[cut]), len(item_factor))
        for model, hidden in zip(models, states, strict=True):
            with torch.no_grad():
                target += torch.softmax(hidden[cut] @ model.item_table[1:].T, -1) / len(models)
        parts.append(_nearest(queries[cut], item_factor, target))
    found[real] = torch.cat(parts)
    return found


def _nearest(
    queries: Float[Tensor, "n R"], keys: Float[Tensor, "V R"], target: Float[Tensor, "n V"]
) -> Float[Tensor, "n R"]:
    wanted = target @ keys
    queries = queries.clone().requires_grad_()
    optimizer = torch.optim.Adam([queries], lr=FIT_RATE, eps=FIT_EPS)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, FIT_STEPS)
    for _ in range(FIT_STEPS):
        optimizer.zero_grad()
        with torch.no_grad():  # the gradient of logsumexp(q K^T) - <q, K^T p> is known
            queries.grad = torch.softmax(queries @ keys.T, -1) @ keys - wanted
        optimizer.step()
        schedule.step()
    return queries.detach()
