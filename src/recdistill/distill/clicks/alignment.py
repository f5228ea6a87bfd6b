"""How old vectors follow an embedding table that was trained on: one linear map per field, in closed form.

Under ``lookup`` the map carries only what outer steps have added to a unit; the vectors of the sample that it began as
are looked up anew, which is exact.
"""

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor


def ridge_map(
    before: Float[Tensor, "n D"], after: Float[Tensor, "n D"], weights: Float[Tensor, " n"], strength: float
) -> Float[Tensor, "D D"]:
    """Return ``argmin_A sum_v w_v |A before_v - after_v|^2 + strength |A - I|^2``, the rows of both being vectors.

    ``A = (after^T W before + s I)(before^T W before + s I)^-1``: the identity where nothing moved. Weights are scaled
    to sum to 1, so that ``strength`` does not depend on how many samples a block has.

    Args:
        before: vectors of ids, before.
        after: of the same ids, now.
        weights: how often each id occurs, 0 or more.
        strength: above 0.

    Reference: our reconstruction of DIET's alignment estimation, whose form is not public.
    """
    shares = (weights / weights.sum().clamp(min=1e-30)).to(before.dtype).unsqueeze(1)
    ridge = strength * torch.eye(before.shape[1], dtype=before.dtype, device=before.device)
    crossed, squared = after.T @ (shares * before) + ridge, before.T @ (shares * before) + ridge
    return torch.linalg.solve(squared, crossed, left=False)


def rotation(
    before: Float[Tensor, "n D"], after: Float[Tensor, "n D"], weights: Float[Tensor, " n"], strength: float
) -> Float[Tensor, "D D"]:
    """Return the orthogonal map under which ``before`` comes nearest to ``after``; ``strength`` draws it to none.

    Reference: Schoenemann, A generalized solution of the orthogonal Procrustes problem, Psychometrika 1966.
    """
    shares = (weights / weights.sum().clamp(min=1e-30)).to(before.dtype).unsqueeze(1)
    ridge = strength * torch.eye(before.shape[1], dtype=before.dtype, device=before.device)
    left, _, right = torch.linalg.svd(after.T @ (shares * before) + ridge)
    return left @ right


def no_map(
    before: Float[Tensor, "n D"], after: Float[Tensor, "n D"], weights: Float[Tensor, " n"], strength: float
) -> Float[Tensor, "D D"]:
    """Return the identity."""
    return torch.eye(before.shape[1], dtype=before.dtype, device=before.device)


Alignment = Callable[[Tensor, Tensor, Tensor, float], Tensor]
LOOKUP = "lookup"
ALIGNMENTS: dict[str, Alignment] = {LOOKUP: ridge_map, "ridge": ridge_map, "rotation": rotation, "none": no_map}
"""Alignments by name."""


def aligned(vectors: Float[Tensor, "N F D"], maps: Float[Tensor, "F D D"]) -> Float[Tensor, "N F D"]:
    """Return vectors after the map of their field."""
    return torch.einsum("fij,nfj->nfi", maps, vectors)
