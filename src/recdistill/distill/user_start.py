"""Factors that begin at real users: their last items, smoothed, projected onto a Tucker decomposition.

The logits of a smoothed one-hot row are, but for a constant, a spike at its item. Their least-squares projection onto
the item factor is a query per position; the queries of all rows and positions are a tensor, of which the Tucker
decomposition with the least error in the logits is taken. A spike lies almost wholly outside of what a narrow item
factor can say, so that the projected logits are far too flat; one factor, the most likely one, sets them right.

Shapes: ``N`` rows, ``T`` positions, ``V`` items, ``R`` width of the item factor, ``R1 R2`` ranks of users and time.
"""

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from recdistill.data.development import Development
from recdistill.data.rows import tucker_queries
from recdistill.distill.coresets.selection import last_items, random_users
from recdistill.distill.synthetic import TuckerSequences
from recdistill.rng import Streams

SWEEPS = 10
"""Rounds of alternating least squares; twice as many lower the error of a random tensor by a part in ten thousand."""
LOGITS = 2**23
"""Logits from which the scale is found, 64 MB; positions beyond are left out evenly."""
LARGEST_SCALE = 2.0**20
"""Where the search for a scale ends, should all logits be equal."""


@torch.no_grad()
def start_from_users(synthetic: TuckerSequences, train: Development, *, smoothing: float, rng: Streams) -> None:
    """Move the factors to random users of ``train``.

    Ranks that the rows cannot fill keep their random factors and get a core of 0, from which they can still learn.

    Args:
        synthetic: changed in place.
        train: where the users are drawn from, without replacement, among those with two training events.
        smoothing: probability spread evenly over all items, in (0, 1).
        rng: stream ``users``.
    """
    num_rows, length = len(synthetic.user_factor), len(synthetic.time_factor)
    items = right_aligned(last_items(train, random_users(train, num_rows, rng), length).item_ids, length)
    whitened, roots = spike_queries(items, synthetic.item_factor)
    user, time = tucker_factors(whitened, synthetic.core.shape[0], synthetic.core.shape[1])
    core = torch.einsum("abr,ai,bj->ijr", whitened, user, time) @ roots
    places = evenly_spaced(items > 0, most=LOGITS // len(synthetic.item_factor))
    logits = tucker_queries(core, user, time)[places] @ synthetic.item_factor.T
    scale = likeliest_scale(logits, items[places], smoothing)
    synthetic.core.zero_()
    synthetic.core[: user.shape[1], : time.shape[1]] = scale * core
    synthetic.user_factor[:, : user.shape[1]] = user
    synthetic.time_factor[:, : time.shape[1]] = time


def right_aligned(item_ids: Int[Tensor, "N T1"], length: int) -> Int[Tensor, "N T"]:
    """Return left-aligned rows of at most ``length`` items with their last item in the last column, 0 before them."""
    rows = torch.zeros(len(item_ids), length, dtype=torch.long)
    rows[:, : item_ids.shape[1]] = item_ids
    shift = length - (rows != 0).sum(1, keepdim=True)
    return rows.gather(1, (torch.arange(length) - shift) % length)


def spike_queries(
    items: Int[Tensor, "N T"], item_factor: Float[Tensor, "V R"]
) -> tuple[Float[Tensor, "N T R"], Float[Tensor, "R R"]]:
    """Return least-squares queries of one-hot logits, and the matrix from which they still have to be multiplied.

    The queries are whitened: distances between them are those between their logits, a constant per row apart. Positions
    without an item have a query of 0, which is the uniform distribution.
    """
    centred = item_factor - item_factor.mean(0)
    values, vectors = torch.linalg.eigh(centred.T @ centred)
    kept = values > 1e-5 * values[-1]  # a direction in which the items do not differ would only be noise
    roots = vectors * torch.where(kept, values.clamp(min=1e-30).rsqrt(), 0.0)  # (R, R)
    padded = torch.cat([centred.new_zeros(1, centred.shape[1]), centred @ roots])
    return padded[items], roots.T


def tucker_factors(
    queries: Float[Tensor, "N T R"], user_rank: int, time_rank: int
) -> tuple[Float[Tensor, "N R1"], Float[Tensor, "T R2"]]:
    """Return orthonormal user and time factors of the Tucker decomposition nearest to ``queries``.

    The core is ``queries`` times both. Ranks are cut to the numbers of rows and positions.

    Reference: De Lathauwer, De Moor and Vandewalle, On the best rank-1 and rank-(R1, R2, ..., RN) approximation of
    higher-order tensors, SIAM J. Matrix Anal. Appl. 2000 (alternating least squares), without the third mode.
    """
    time = _leading(queries.transpose(0, 1).flatten(1), time_rank)
    user = queries.new_zeros(len(queries), 0)
    for _ in range(SWEEPS):
        user = _leading(torch.einsum("abr,bj->ajr", queries, time).flatten(1), user_rank)
        time = _leading(torch.einsum("abr,ai->bir", queries, user).flatten(1), time_rank)
    return user, time


def _leading(unfolded: Float[Tensor, "rows columns"], rank: int) -> Float[Tensor, "rows rank"]:
    """Return the leading left singular vectors, as many as there are up to ``rank``."""
    return torch.linalg.svd(unfolded, full_matrices=False)[0][:, :rank]


def evenly_spaced(real: Bool[Tensor, "N T"], most: int) -> Bool[Tensor, "N T"]:
    """Return at most ``most`` of the true places, and at least one, spread over all of them."""
    places = real.flatten().nonzero().squeeze(1)
    count = min(len(places), max(1, most))
    chosen = places[torch.arange(count) * len(places) // count]
    return torch.zeros(real.numel(), dtype=torch.bool).index_fill(0, chosen, True).view_as(real)


def likeliest_scale(logits: Float[Tensor, "n V"], items: Int[Tensor, " n"], smoothing: float) -> float:
    """Return the factor under which ``softmax(factor logits)`` fits the smoothed items best.

    The cross-entropy is convex in the factor; its minimum is found by halving, to a part in a million.
    """
    logits = logits.double()
    wanted = (1 - smoothing) * logits.gather(1, items.unsqueeze(1) - 1).squeeze(1) + smoothing * logits.mean(1)

    def slope(factor: float) -> float:
        return float(((torch.softmax(factor * logits, -1) * logits).sum(-1) - wanted).mean())

    low, high = 0.0, 1.0
    while slope(high) < 0 and high < LARGEST_SCALE:
        low, high = high, 2 * high
    for _ in range(20):
        middle = (low + high) / 2
        low, high = (middle, high) if slope(middle) < 0 else (low, middle)
    return (low + high) / 2
