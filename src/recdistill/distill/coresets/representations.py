"""What selectors read off a teacher: users in batches of like length, their vectors, and fair ties."""

from collections.abc import Iterator

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from recdistill.data.batches import HardItems
from recdistill.data.development import Development
from recdistill.data.rows import HardRows
from recdistill.distill.coresets.selection import last_items
from recdistill.errors import NumericalError
from recdistill.models.base import Recommender

USERS_PER_BATCH = 512
"""Most users that a teacher reads at once."""

PAIRS_PER_BATCH = 2**19
"""Most pairs of positions at once: attention keeps a number for each, BERT4Rec a vector."""


def user_batches(
    train: Development, users: Int[np.ndarray, " U"], length: int
) -> Iterator[tuple[Int[np.ndarray, " B"], HardRows]]:
    """Yield all users, those with most items first: their places in ``users``, and their last ``length`` items.

    Rows of one batch are about equally long, so that little of it is padding.
    """
    sizes = np.minimum(train.histories.train_lengths()[users], length)
    order = np.argsort(-sizes, kind="stable")
    start = 0
    while start < len(order):
        width = int(sizes[order[start]])
        places = order[start : start + max(1, min(USERS_PER_BATCH, PAIRS_PER_BATCH // width**2))]
        yield places, last_items(train, users[places], length)
        start += len(places)


@torch.no_grad()
def user_vectors(model: Recommender, train: Development, users: Int[np.ndarray, " U"]) -> Float[Tensor, "U D"]:
    """Return the model's user vector after the last training item of each user.

    A history is cut to the last items that the model reads.

    Raises:
        NumericalError: a vector is NaN or infinite.
    """
    vectors = torch.empty(len(users), model.item_table.shape[1])
    for places, rows in user_batches(train, users, model.max_seq_len):
        vectors[places] = model.represent(HardItems(rows.item_ids), rows.lengths)
    require_finite("user vector", vectors)
    return vectors


def require_finite(what: str, values: Float[Tensor, "U *D"]) -> None:
    """Raise when a number that a teacher gave is NaN or infinite.

    Raises:
        NumericalError: naming the number.
    """
    if not torch.isfinite(values).all():
        raise NumericalError(
            f"a {what} is NaN or infinite",
            stage="selecting users",
            step=0,
            cause="the teacher's weights are damaged; train it again",
        )


def draw_largest(values: Float[Tensor, " U"], rng: np.random.Generator) -> int:
    """Return the place of the largest value; one of them at random, where several are largest."""
    return int(rng.choice(torch.nonzero(values == values.max()).flatten().numpy()))
