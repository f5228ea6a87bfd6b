"""Which items the synthetic part of a step sees."""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int
from scipy.cluster.vq import kmeans2
from torch import Tensor

from recdistill.errors import choose
from recdistill.rng import Streams, generator_at

ITEMS = {
    "sampled": "uniform without replacement, anew in every inner step",
    "all": "the whole catalogue",
    "kmeans": "the items nearest to centroids of the item factor, the same ones for ever",
}
STEPS = 1 << 20
"""More than the inner steps of an outer step."""


@dataclass(frozen=True)
class CandidateItems:
    """A rule that gives the candidates of every inner step.

    Args:
        num_items: size of the catalogue, V.
        count: candidates of a step; 0 for all items.
        fixed: the same ones in every step, or ``None`` to draw.
        seed: of the draws.
    """

    num_items: int
    count: int
    fixed: Int[Tensor, " C"] | None
    seed: int

    @staticmethod
    def make(kind: str, count: int, item_factor: Float[Tensor, "V R"], rng: Streams) -> "CandidateItems":
        """Return the rule of a kind.

        Raises:
            OptionError: the kind is not known.
        """
        choose("items", kind, ITEMS)
        num_items = len(item_factor)
        if kind == "all" or count >= num_items:
            return CandidateItems(num_items, 0, None, 0)
        fixed = nearest_to_centroids(item_factor, count, rng.numpy("kmeans")) if kind == "kmeans" else None
        return CandidateItems(num_items, count, fixed, rng.integer("candidates"))

    def draw(self, outer_step: int, step: int) -> Int[Tensor, " C"] | None:
        """Return the candidates of an inner step of an outer step; ``None`` for all items."""
        if self.count == 0:
            return None
        if self.fixed is not None:
            return self.fixed
        generator = generator_at(self.seed, outer_step * STEPS + step)
        return torch.randperm(self.num_items, generator=generator)[: self.count] + 1


def nearest_to_centroids(item_factor: Float[Tensor, "V R"], count: int, rng: np.random.Generator) -> Int[Tensor, " C"]:
    """Return the item nearest to each of ``count`` centroids of k-means, each item once, sorted; at most ``count``."""
    points = item_factor.double().cpu()
    centroids, _ = kmeans2(points.numpy(), count, minit="++", rng=rng)
    found = torch.cdist(torch.from_numpy(centroids), points).argmin(1)
    return found.unique() + 1
