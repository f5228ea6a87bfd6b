"""DEALRec: users that move the teacher's loss most, taken evenly over the range of scores."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from recdistill.data.development import Development
from recdistill.distill.coresets.gradients import UserGradients
from recdistill.distill.coresets.selection import UserSelector, last_items, usable_users
from recdistill.errors import NumericalError, require_above, require_at_least, require_rate
from recdistill.rng import Streams
from recdistill.training.trajectory import Trajectory


@dataclass(frozen=True, kw_only=True)
class DEALRec(UserSelector):
    """Users by influence and effort, each cut to the last ``length`` items.

    The influence of a user is ``<s, g_i>``, with his gradient ``g_i`` and ``s`` near ``H^-1`` times the mean gradient
    (LiSSA); the effort is ``|g_i|``. Both are brought to [0, 1] and added. The highest scores are dropped; the range of
    the others is cut into strata, and from the smallest stratum to the largest each gives its share at random.

    Reference: Lin et al., Data-efficient Fine-tuning for LLM-based Recommendation, SIGIR 2024, arXiv 2401.17197.

    Departures: one sequence model is surrogate and target, where the paper takes the effort from a large language
    model's last adapter. All gradients are in one matrix of it
    (:func:`~recdistill.distill.coresets.gradients.probed_weight`).
    """

    method: ClassVar[str] = "dealrec"

    effort_weight: float = 0.3
    """Weight of the effort (lambda), 0 or more."""
    hard_prune: float = 0.1
    """Part of the users with the highest scores that is dropped, in [0, 1); fewer where too few would be left."""
    strata: int = 50
    """Parts of equal width of the range of scores, at least 1."""
    depth: int = 200
    """Steps of LiSSA, at least 1."""
    damping: float = 0.01
    """Of LiSSA, in [0, 1)."""
    scale: float = 25.0
    """The Hessian is divided by it; above 0."""
    lissa_users: int = 64
    """Users in a step of LiSSA, at least 1."""

    def __post_init__(self) -> None:
        """Check every field."""
        super().__post_init__()
        require_at_least(0, effort_weight=self.effort_weight)
        require_at_least(1, strata=self.strata, depth=self.depth, lissa_users=self.lissa_users)
        require_rate(hard_prune=self.hard_prune, damping=self.damping)
        require_above(0, scale=self.scale)

    @torch.no_grad()
    def choose_users(self, train: Development, teacher: Trajectory, rng: Streams) -> Int[np.ndarray, " N"]:
        """Return the chosen users."""
        users, model = usable_users(train), teacher.best()
        gradients = UserGradients(model, train, min(self.length, model.max_seq_len + 1))
        direction = self.inverse_product(gradients, users, rng)
        influence, effort = gradients.along(users, direction), gradients.norms(users)
        scores = in_unit(influence) + self.effort_weight * in_unit(effort)
        kept = self.pruned(scores.numpy())
        chosen = by_strata(scores.numpy()[kept], self.num_rows, self.strata, rng.numpy("strata"))
        return users[kept[chosen]]

    def inverse_product(self, gradients: UserGradients, users: Int[np.ndarray, " U"], rng: Streams) -> Tensor:
        """Return about ``scale`` times the inverse Hessian times the mean gradient (LiSSA).

        Raises:
            NumericalError: the recursion diverges.
        """
        mean, draw = gradients.mean(users), rng.numpy("lissa")
        found = mean.clone()
        for step in range(self.depth):
            some = draw.choice(users, min(self.lissa_users, len(users)), replace=False)
            product = gradients.curved(last_items(gradients.train, some, gradients.length), found)
            found = mean + (1 - self.damping) * found - product / self.scale
            if not torch.isfinite(found).all():
                cause = f"a larger scale than {self.scale:g} often helps"
                raise NumericalError("the influence is not finite", stage="selecting users", step=step + 1, cause=cause)
        return found

    def pruned(self, scores: Float[np.ndarray, " U"]) -> Int[np.ndarray, " n"]:
        """Return the places of all scores but the highest ones."""
        dropped = min(int(self.hard_prune * len(scores)), len(scores) - self.num_rows)
        return np.sort(np.argsort(scores, kind="stable")[: len(scores) - dropped])


def in_unit(values: Float[Tensor, " U"]) -> Float[Tensor, " U"]:
    """Return values brought to [0, 1] by minimum and maximum; 0 where all are equal."""
    spread = values.max() - values.min()
    return (values - values.min()) / spread if spread > 0 else torch.zeros_like(values)


def by_strata(
    scores: Float[np.ndarray, " U"], count: int, strata: int, rng: np.random.Generator
) -> Int[np.ndarray, " N"]:
    """Return the places of ``count`` scores, taken at random from strata of equal width, the smallest stratum first.

    Each gives ``min(its size, floor(what is still wanted / strata left))``.

    Args:
        scores: at least ``count``.
        count: 1 or more.
        strata: 1 or more; empty ones do not count.
        rng: draws within a stratum.
    """
    edges = np.linspace(scores.min(), scores.max(), strata + 1)
    place = np.clip(np.searchsorted(edges, scores, side="right") - 1, 0, strata - 1)
    groups = sorted((np.flatnonzero(place == one) for one in np.unique(place)), key=len)
    chosen: list[np.ndarray] = []
    wanted = count
    for index, group in enumerate(groups):
        share = min(len(group), wanted // (len(groups) - index))
        chosen.append(rng.choice(group, share, replace=False))
        wanted -= share
    return np.concatenate(chosen)
