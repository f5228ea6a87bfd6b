"""Gradients of single users' losses in one weight of a teacher: how hard users are, and whom they help.

One matrix stands for all weights, as the selectors that use this have it: the output map of the last attention, or
what comes nearest to it in a model without attention.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.func import functional_call, grad, jvp, vmap

from recdistill.data.batches import HardItems
from recdistill.data.development import Development
from recdistill.data.rows import HardRows
from recdistill.distill.coresets.representations import require_finite, user_batches
from recdistill.models.base import Recommender

USERS_AT_ONCE = 128
"""Users whose gradients are held at once."""


def probed_weight(model: Recommender) -> str:
    """Return the name of the matrix that stands for all: the last ``attention.output``, else the last other matrix."""
    matrices = [name for name, value in model.named_parameters() if value.dim() == 2 and value is not model.item_table]
    attention = [name for name in matrices if name.endswith("attention.output.weight")]
    outputs = [name for name in matrices if name.split(".")[-2:] in (["output", "weight"], ["output"])]
    return (attention or outputs or matrices)[-1]


@dataclass(frozen=True, eq=False)
class UserGradients:
    """Losses of single users as a function of one weight.

    A user's loss is the mean cross-entropy of all next items among his last ``length`` items, in nats, without dropout.

    Args:
        model: whose weight; in evaluation.
        train: whose users.
        length: items of a user.
    """

    model: Recommender
    train: Development
    length: int

    @cached_property
    def name(self) -> str:
        """Name of the matrix."""
        return probed_weight(self.model)

    @property
    def weight(self) -> Tensor:
        """The matrix."""
        return dict(self.model.named_parameters())[self.name].detach()

    def losses(self, weight: Tensor, ids: Int[Tensor, "B T"], lengths: Int[Tensor, " B"]) -> Float[Tensor, " B"]:
        """Return the loss of each user of a batch; ``lengths`` counts the items."""
        found: Tensor = functional_call(_Losses(self.model), {f"model.{self.name}": weight}, (ids, lengths))
        return found

    def batches(self, users: Int[np.ndarray, " U"]) -> Iterator[tuple[Int[np.ndarray, " B"], HardRows]]:
        """Yield places in ``users`` and their rows, few at a time."""
        for places, rows in user_batches(self.train, users, self.length):
            for start in range(0, len(places), USERS_AT_ONCE):
                cut = slice(start, start + USERS_AT_ONCE)
                yield places[cut], HardRows(rows.item_ids[cut], rows.lengths[cut])

    def norms(self, users: Int[np.ndarray, " U"]) -> Float[Tensor, " U"]:
        """Return the norm of each user's gradient.

        Raises:
            NumericalError: one is not finite.
        """
        found = self.weight.new_empty(len(users))

        def alone(weight: Tensor, ids: Tensor, length: Tensor) -> Tensor:
            return self.losses(weight, ids.unsqueeze(0), length.unsqueeze(0))[0]

        each = vmap(grad(alone), in_dims=(None, 0, 0))
        for places, rows in self.batches(users):
            gradients: Tensor = each(self.weight, rows.item_ids, rows.lengths)
            found[places] = gradients.flatten(1).norm(dim=1)
        require_finite("norm of a user's gradient", found)
        return found

    def mean(self, users: Int[np.ndarray, " U"]) -> Tensor:
        """Return the mean gradient over users, of the weight's shape."""
        total = torch.zeros_like(self.weight)
        for _, rows in self.batches(users):
            total += grad(lambda weight, rows=rows: self.losses(weight, rows.item_ids, rows.lengths).sum())(self.weight)
        return total / len(users)

    def along(self, users: Int[np.ndarray, " U"], direction: Tensor) -> Float[Tensor, " U"]:
        """Return ``<direction, gradient>`` of each user, in one forward pass."""
        found = self.weight.new_empty(len(users))
        for places, rows in self.batches(users):
            found[places] = jvp(
                lambda weight, rows=rows: self.losses(weight, rows.item_ids, rows.lengths),
                (self.weight,),
                (direction,),
            )[1]
        require_finite("influence of a user", found)
        return found

    def curved(self, rows: HardRows, direction: Tensor) -> Tensor:
        """Return the Hessian of the mean loss of some users times a direction."""

        def mean(weight: Tensor) -> Tensor:
            return self.losses(weight, rows.item_ids, rows.lengths).mean()

        product: Tensor = jvp(grad(mean), (self.weight,), (direction,))[1]
        return product


class _Losses(nn.Module):
    """A model whose output is the loss of each row."""

    def __init__(self, model: Recommender) -> None:
        super().__init__()
        self.model = model

    def forward(self, ids: Tensor, lengths: Tensor) -> Tensor:
        items = HardItems(ids)
        embedded = self.model.embed(items)
        inputs = (lengths - 1).clamp(min=1)
        hidden = self.model.encode(embedded[:, :-1], inputs)
        losses = HardItems(ids[:, 1:]).cross_entropy(hidden, self.model.item_table)
        return losses.sum(1) / (lengths - 1).clamp(min=1)
