"""The contract of a sequential recommender.

A model is built from plain numbers and cut at the embedding: ``embed`` looks items up, ``encode`` knows only vectors.
It draws no random number of its own: weights come from the generator given at construction, and dropout is on exactly
when ``encode`` or ``loss`` is given a generator. So a training step is a pure function of weights, batch and generator,
which is what the meta-gradient needs.
"""

import inspect
from abc import ABC, abstractmethod
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from recdistill.data.batches import Items, SequenceBatch
from recdistill.data.text import Catalogue
from recdistill.errors import OptionError
from recdistill.models.layers import Randomness


class Recommender(nn.Module, ABC):
    """A model that ranks all items by the dot product of a user vector and an item table.

    Subclasses set ``config`` to the keyword arguments that rebuild them, without the generator.
    """

    name: ClassVar[str]
    trainable: ClassVar[bool] = True
    reads_text: ClassVar[bool] = False
    """Whether item vectors are made of the items' texts, so that the model needs a catalogue (:meth:`attach`)."""
    num_items: int
    max_seq_len: int
    config: dict[str, Any]

    @classmethod
    def options(cls) -> dict[str, Any]:
        """Return the optional arguments of the model and their defaults."""
        signature = inspect.signature(cls)
        return {
            name: parameter.default
            for name, parameter in signature.parameters.items()
            if parameter.default is not inspect.Parameter.empty
        }

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return next(self.parameters()).device

    def fresh(self, generator: torch.Generator) -> "Recommender":
        """Return a model of the same kind with weights drawn anew, on the same device and in the same precision."""
        return type(self)(**self.config, generator=generator).to(next(self.parameters()))

    def attach(self, catalogue: Catalogue) -> "Recommender":
        """Tell the model about the items that it ranks, and return it; models that know items by number ignore it."""
        return self

    def sampled(self, batch: SequenceBatch, generator: torch.Generator) -> SequenceBatch:
        """Return the batch with what the model's loss draws for one training step: nothing, unless it says so."""
        return batch

    def fixed(self) -> "Recommender":
        """Return a model that scores as this one does and computes no item vector twice; not for training."""
        return self

    @property
    @abstractmethod
    def item_table(self) -> Float[Tensor, "V1 D"]:
        """The item table; row 0 belongs to padding."""

    @property
    def item_width(self) -> int:
        """Columns of the item table that hold item vectors: all, unless a model keeps more of an item there."""
        return self.item_table.shape[1]

    @property
    def item_table_name(self) -> str:
        """Name of the item table among the model's weights."""
        return next(name for name, value in self.named_parameters() if value is self.item_table)

    @abstractmethod
    def encode(
        self,
        embedded: Float[Tensor, "B T D"],
        lengths: Int[Tensor, " B"],
        positions: Int[Tensor, "B P"] | None = None,
        generator: Randomness | None = None,
    ) -> Float[Tensor, "B P D"]:
        """Return hidden vectors at ``positions`` (all, when ``None``) of left-aligned rows of item vectors.

        ``generator`` switches dropout on.
        """

    def embed(self, items: Items) -> Float[Tensor, "B T D"]:
        """Return item vectors, as ``encode`` reads them."""
        return items.embed(self.item_table)

    def forward(
        self, batch: SequenceBatch, generator: Randomness | None = None
    ) -> tuple[Float[Tensor, ""], Float[Tensor, "B P D"]]:
        """Return the loss, and the hidden vectors from which the targets are predicted; twice differentiable.

        The loss is the weighted mean cross-entropy of the targets, in nats; with negatives the binary one.
        """
        embedded = self.embed(batch.items)
        if batch.negatives is not None:
            inputs = embedded if batch.targets is not None else embedded[:, :-1]
            hidden = self.encode(inputs, batch.lengths, batch.positions, generator)
            losses = self._binary_losses(batch, hidden)
        elif batch.targets is None:  # each input predicts its own row's next item, whose vector is known already
            hidden = self.encode(embedded[:, :-1], batch.lengths, batch.positions, generator)
            targets = following(batch.positions, embedded)
            losses = batch.items.cross_entropy(hidden, self.item_table, targets, embedded)
        else:
            hidden = self.encode(embedded, batch.lengths, batch.positions, generator)
            losses = batch.targets.cross_entropy(hidden, self.item_table, batch.positions)
        return weighted_mean(losses, batch.weights), hidden

    def _binary_losses(self, batch: SequenceBatch, hidden: Float[Tensor, "B P D"]) -> Float[Tensor, "B P"]:
        """Return ``-log sigmoid(<h, e>)`` of each target and ``-log(1 - sigmoid(<h, e>))`` of its negatives, summed."""
        assert batch.negatives is not None
        right = (hidden * self.item_table[batch.target_ids()]).sum(-1)
        wrong = (hidden.unsqueeze(2) * self.item_table[batch.negatives]).sum(-1)  # (B, P, K)
        return F.softplus(-right) + F.softplus(wrong).sum(-1)

    def loss(self, batch: SequenceBatch, generator: Randomness | None = None) -> Float[Tensor, ""]:
        """Return the weighted mean cross-entropy of the targets, in nats."""
        return self.forward(batch, generator)[0]

    def represent(self, items: Items, lengths: Int[Tensor, " B"]) -> Float[Tensor, "B D"]:
        """Return the user vector after the last real item of each row, without dropout."""
        return self.encode(self.embed(items), lengths, (lengths - 1).unsqueeze(1)).squeeze(1)

    def score(
        self, users: Float[Tensor, "B D"], candidates: Int[Tensor, " C"] | slice | None = None
    ) -> Float[Tensor, "B C"]:
        """Return the scores of ``candidates`` (item ids; all real items when ``None``) for user vectors.

        Computed in double and rounded to the model's precision, so that items with equal vectors score equal in
        whatever order a product sums them up.
        """
        table = self.item_table[1:] if candidates is None else self.item_table[candidates]
        return (users.double() @ table.double().T).to(users.dtype)

    def load_item_table(self, factor: Float[Tensor, "V D2"], *, freeze: bool) -> None:
        """Start the item table from an item factor, whose rows belong to the items 1 to V.

        Raises:
            OptionError: the factor has another width, or another number of items, than this model.
        """
        expected = (self.item_table.shape[0] - 1, self.item_width)
        if tuple(factor.shape) != expected:
            raise OptionError(
                "--items",
                f"{factor.shape[0]} x {factor.shape[1]}",
                fix=f"is the shape of the given item factor, but this model needs {expected[0]} x {expected[1]}; "
                f"use --items random, or a model with embedding_dim {factor.shape[1]}",
            )
        with torch.no_grad():
            self.item_table[1:, : self.item_width] = factor.to(self.item_table)
        self.item_table.requires_grad_(not freeze)


def weighted_mean(losses: Float[Tensor, "B P"], weights: Float[Tensor, "B P"]) -> Float[Tensor, ""]:
    """Return the weighted mean; 0 where all weights are."""
    return (losses * weights).sum() / weights.sum().clamp(min=1e-12)


def following(positions: Int[Tensor, "B P"] | None, embedded: Float[Tensor, "B T D"]) -> Int[Tensor, "B P"]:
    """Return the positions after ``positions``, or all but the first."""
    if positions is not None:
        return positions + 1
    later = torch.arange(1, embedded.shape[1], device=embedded.device)
    return later.expand(len(embedded), -1)
