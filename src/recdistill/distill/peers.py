"""Models of several families trained on the full data: what students are held to, and whose labels rows start from."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from recdistill.data.development import Development
from recdistill.distill.base import RunContext
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
        trajectory = teach(train, peer_spec(name, max_seq_len, recipe), seed, cache, progress=context.progress)
        peers.append(Peer(name, trajectory, trajectory.model().to(context.device)))
    return peers


def peer_spec(family: str, max_seq_len: int, recipe: TrainingRecipe) -> TeacherSpec:
    """Return how the peer of a family is trained.

    Raises:
        OptionError: the family is not known.
    """
    found = choose("families", family, FAMILIES)
    return TeacherSpec(model=found.model, config=found.config, max_seq_len=max_seq_len, recipe=recipe)


@contextmanager
def peer_cache(context: RunContext) -> Iterator[Path]:
    """Give the folder where peers are kept; one that is removed afterwards, where the run keeps none."""
    if context.cache is not None:
        yield context.cache
        return
    with TemporaryDirectory(prefix="recdistill-peers-") as folder:
        yield Path(folder)
