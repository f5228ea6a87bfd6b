"""EL2N: users whose next items surprise a teacher that has only begun to learn."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from recdistill.data.batches import PAD, HardItems
from recdistill.data.development import Development
from recdistill.distill.coresets.representations import require_finite, user_batches
from recdistill.distill.coresets.selection import UserSelector, top_users, usable_users
from recdistill.errors import OptionError
from recdistill.models.base import Recommender
from recdistill.rng import Streams
from recdistill.training.trajectory import Trajectory

BLOCK_BYTES = 2**24
"""Largest matrix of positions by items, in bytes (one position is always done).

Per position, D = 64, one thread, blocks of 2^20, 2^22, 2^24, 2^26 bytes: 26, 24, 34, 54 us for 10,000 items; 788, 582,
386, 591 us for 100,000.
"""


@dataclass(frozen=True, kw_only=True)
class EL2N(UserSelector):
    """Users by the error of an early teacher, largest first, each cut to the last ``length`` items; ties at random.

    The error of a prediction is ``||softmax - onehot||_2 = sqrt(||p||^2 - 2 p_y + 1)`` over all items, the score of a
    user its mean over epochs and over the predicted positions of the row that would be kept.

    When not to use it: for very small budgets, or logs with noise. The hardest users are also the strangest.

    Costs one pass over all predictions per epoch, without gradients, each with the whole softmax.

    Reference: Paul, Ganguli and Dziugaite, Deep Learning on a Data Diet: Finding Important Examples Early in Training,
    NeurIPS 2021, arXiv 2107.07075.

    Departures: the paper scores images, one label each; the mean over positions is ours. It averages over training runs
    at one early epoch; here over the early epochs of one teacher, without dropout. Where ``length`` items are more than
    the teacher can read and predict (``max_seq_len + 1``), the last of them are scored.
    """

    method: ClassVar[str] = "el2n"

    epochs: tuple[int, int] = (1, 10)
    """First and last teacher epoch that scores, and all between; 0 is the start. A teacher may end before the last."""

    def __post_init__(self) -> None:
        """Check every field."""
        super().__post_init__()
        if not 0 <= self.epochs[0] <= self.epochs[1]:
            raise OptionError("epochs", self.epochs, fix="must be two epochs, the first not after the last, from 0")

    def choose_users(self, train: Development, teacher: Trajectory, rng: Streams) -> Int[np.ndarray, " N"]:
        """Return the users with the largest errors.

        Raises:
            OptionError: the teacher has none of the epochs.
        """
        users = usable_users(train)
        scores = np.zeros(train.histories.num_users)
        for epoch in self.epochs_of(teacher):
            scores[users] += user_errors(teacher.model(epoch).fixed(), train, users, self.length).numpy()
        return top_users(users, scores, self.num_rows, rng.numpy("ties"))

    def epochs_of(self, teacher: Trajectory) -> range:
        """Return the epochs of ``teacher`` that score.

        Raises:
            OptionError: the teacher has none of them.
        """
        first, last = self.epochs
        if teacher.num_epochs < first:
            raise OptionError(
                "epochs",
                self.epochs,
                fix=f"start after the teacher's last epoch {teacher.num_epochs}; "
                "train the teacher for more epochs, or start earlier",
            )
        return range(first, min(last, teacher.num_epochs) + 1)


@torch.no_grad()
def user_errors(
    model: Recommender, train: Development, users: Int[np.ndarray, " U"], length: int
) -> Float[Tensor, " U"]:
    """Return the mean error of the model's predictions within each user's last ``length`` training items.

    Args:
        model: read without dropout.
        train: where the histories are.
        users: with two training events or more.
        length: items per user, 2 or more; the model reads at most ``max_seq_len`` and predicts one more.

    Raises:
        NumericalError: an error is NaN.
    """
    means = torch.empty(len(users), dtype=torch.float64)
    for places, rows in user_batches(train, users, min(length, model.max_seq_len + 1)):
        inputs, targets = HardItems(rows.item_ids[:, :-1]), rows.item_ids[:, 1:]
        hidden = model.encode(model.embed(inputs), rows.lengths - 1)
        real = targets != PAD
        errors = torch.zeros(targets.shape, dtype=torch.float64)
        errors[real] = prediction_errors(hidden[real], model.item_table[1:], targets[real] - 1)
        means[places] = errors.sum(1) / (rows.lengths - 1)
    require_finite("prediction error", means)
    return means


def prediction_errors(
    hidden: Float[Tensor, "N D"], table: Float[Tensor, "V D"], targets: Int[Tensor, " N"]
) -> Float[Tensor, " N"]:
    """Return ``||softmax(h E^T) - onehot(y)||_2`` of every row, in double precision.

    Summed as ``(1 - p_y)^2 + sum of the other p_v^2``: neither a certain prediction nor a large catalogue cancels.

    Args:
        hidden: one vector per prediction.
        table: one vector per item.
        targets: row of ``table`` that was right.
    """
    rows = max(1, BLOCK_BYTES // (len(table) * hidden.element_size()))
    errors = []
    for part, right in zip(hidden.split(rows), targets.unsqueeze(1).split(rows), strict=True):
        probabilities = torch.softmax(part @ table.T, dim=1)  # (rows, V)
        missing = 1 - probabilities.gather(1, right).squeeze(1).double()
        others = probabilities.scatter_(1, right, 0.0).square_().sum(1).double()
        errors.append((missing**2 + others).sqrt())
    return torch.cat(errors)
