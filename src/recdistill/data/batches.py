"""What a sequence model sees.

The items of a batch are *hard* (an id per position), *soft* (a distribution over items per position, kept as factors)
or *dense* (the same distribution written out). All three know two things, and models use nothing else of them:

* ``embed(table)``: the expected row of an item table at each position;
* ``cross_entropy(hidden, table)``: the cross-entropy between the items and ``softmax(hidden table^T)``.

A soft item whose distribution is one-hot gives what the hard id gives. This law lets any model train on distilled rows.

Shapes: ``B`` rows, ``T`` positions, ``P`` predicted positions, ``V`` items, ``R`` rank of the factors, ``D`` embedding.
Item id 0 is padding, so an item table has ``V + 1`` rows.

For a target distribution ``p`` with expected embedding ``x = p E`` the cross-entropy is exactly
``logsumexp(h E^T) - <h, x>``; it differs from the Kullback-Leibler divergence by the entropy of ``p``, in which no
model weight occurs, so both have the same gradient in the weights and the same mixed second derivatives.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass, replace
from typing import Protocol, runtime_checkable

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor

from recdistill.data.soft_items import expected_rows, logsumexp_rows
from recdistill.errors import OptionError, choose

PAD = 0


@runtime_checkable
class Items(Protocol):
    """The items at ``(B, T)`` positions, hard or soft."""

    def embed(self, table: Float[Tensor, "V1 D"]) -> Float[Tensor, "B T D"]:
        """Return the expected row of ``table`` at each position."""
        ...

    def cross_entropy(
        self,
        hidden: Float[Tensor, "B P D"],
        table: Float[Tensor, "V1 D"],
        positions: Int[Tensor, "B P"] | None = None,
        embedded: Float[Tensor, "B T D"] | None = None,
    ) -> Float[Tensor, "B P"]:
        """Return the cross-entropy between the items at ``positions`` and ``softmax(hidden table^T)``, in nats.

        Args:
            hidden: one vector per predicted position.
            table: item table.
            positions: which of the items are the targets; all, when ``None``.
            embedded: ``embed(table)``, where it is already known; soft items then need nothing else.
        """
        ...

    def to(self, device: torch.device) -> "Items":
        """Return the same items on another device."""
        ...


def pick(values: Tensor, positions: Int[Tensor, "B P"] | None) -> Tensor:
    """Return ``values[b, positions[b, p]]`` for a tensor of shape (B, T, ...); all when ``positions`` is ``None``."""
    if positions is None:
        return values
    index = positions.reshape(*positions.shape, *[1] * (values.dim() - 2))
    return values.gather(1, index.expand(*positions.shape, *values.shape[2:]))


LOGITS_BYTES = 2**26
"""Largest matrix of positions by items that is written out, in bytes; a larger one is summed up in tiles."""


def _fits(hidden: Tensor, table: Tensor) -> bool:
    return hidden[..., 0].numel() * len(table) * hidden.element_size() <= LOGITS_BYTES


def log_normaliser(hidden: Float[Tensor, "B P D"], table: Float[Tensor, "V D"]) -> Float[Tensor, "B P"]:
    """Return ``logsumexp(hidden table^T)`` over the items; in tiles where the products are too many."""
    if _fits(hidden, table):
        return torch.logsumexp(hidden @ table.T, dim=-1)
    return logsumexp_rows(hidden.flatten(0, 1), table).view(hidden.shape[:2])


@dataclass(frozen=True)
class HardItems:
    """Item ids, 1 to V; 0 is padding."""

    ids: Int[Tensor, "B T"]

    def embed(self, table: Float[Tensor, "V1 D"]) -> Float[Tensor, "B T D"]:
        """Return the rows of ``table``."""
        return F.embedding(self.ids, table, padding_idx=PAD)

    def cross_entropy(
        self,
        hidden: Float[Tensor, "B P D"],
        table: Float[Tensor, "V1 D"],
        positions: Int[Tensor, "B P"] | None = None,
        embedded: Float[Tensor, "B T D"] | None = None,
    ) -> Float[Tensor, "B P"]:
        """Return the negative log-likelihood over all real items; 0 where the target is padding."""
        ids = pick(self.ids, positions)
        if _fits(hidden, table):
            logits = (hidden @ table[1:].T).flatten(0, 1)  # (B P, V)
            return F.cross_entropy(logits, ids.flatten() - 1, ignore_index=-1, reduction="none").view(ids.shape)
        losses = log_normaliser(hidden, table[1:]) - (hidden * F.embedding(ids, table)).sum(-1)
        return losses * (ids != PAD)

    def to(self, device: torch.device) -> "HardItems":
        """Return the same ids on another device."""
        return HardItems(self.ids.to(device))


class Distributions(ABC):
    """A distribution at every position: over the items ``first_id, first_id + 1, ...``, or over some candidates."""

    first_id: int
    candidates: Int[Tensor, " C"] | None

    @abstractmethod
    def embed(self, table: Float[Tensor, "V1 D"]) -> Float[Tensor, "B T D"]:
        """Return the expected row of ``table`` under each distribution."""

    @abstractmethod
    def at(self, positions: Int[Tensor, "B P"] | None) -> "Distributions":
        """Return the distributions at one list of positions per row; all when ``None``."""

    @abstractmethod
    def to(self, device: torch.device) -> "Distributions":
        """Return the same distributions on another device."""

    @abstractmethod
    def over(self, candidates: Int[Tensor, " C"]) -> "Distributions":
        """Return the same distributions over items that are called otherwise."""

    def cross_entropy(
        self,
        hidden: Float[Tensor, "B P D"],
        table: Float[Tensor, "V1 D"],
        positions: Int[Tensor, "B P"] | None = None,
        embedded: Float[Tensor, "B T D"] | None = None,
    ) -> Float[Tensor, "B P"]:
        """Return ``logsumexp(h E^T) - <h, p E>``."""
        expected = self.at(positions).embed(table) if embedded is None else pick(embedded, positions)
        return log_normaliser(hidden, self.candidates_of(table)) - (hidden * expected).sum(-1)

    def candidates_of(self, table: Float[Tensor, "V1 D"]) -> Float[Tensor, "C D"]:
        """Return the rows of the items over which the distributions run."""
        return table[self.first_id :] if self.candidates is None else table[self.candidates]


@dataclass(frozen=True)
class DenseItems(Distributions):
    """Distributions written out.

    For catalogues and batches small enough to hold ``B T V`` numbers; :class:`SoftItems` otherwise.

    Args:
        probabilities: each sums to 1.
        first_id: 1, or 0 where padding is a column.
        candidates: the items of the columns, where these are not all.
    """

    probabilities: Float[Tensor, "B T C"]
    first_id: int = 1
    candidates: Int[Tensor, " C"] | None = None

    def embed(self, table: Float[Tensor, "V1 D"]) -> Float[Tensor, "B T D"]:
        """Return the expected row of ``table`` under each distribution."""
        return self.probabilities @ self.candidates_of(table)

    def at(self, positions: Int[Tensor, "B P"] | None) -> "DenseItems":
        """Return the distributions at one list of positions per row; all when ``None``."""
        return replace(self, probabilities=pick(self.probabilities, positions))

    def over(self, candidates: Int[Tensor, " C"]) -> "DenseItems":
        """Return the same distributions over items that are called otherwise."""
        return replace(self, candidates=candidates)

    def to(self, device: torch.device) -> "DenseItems":
        """Return the same distributions on another device."""
        return replace(self, probabilities=self.probabilities.to(device), candidates=_moved(self.candidates, device))


@dataclass(frozen=True)
class SoftItems(Distributions):
    """Distributions ``softmax(queries keys^T)`` over items, kept as factors.

    Args:
        queries: one per position.
        keys: one per item; row ``c`` belongs to item ``first_id + c``, or to ``candidates[c]``.
        first_id: 1, or 0 where padding is a column of the softmax (the habit of TD3's published code).
        candidates: the items over which the distributions run; all, when ``None``.
    """

    queries: Float[Tensor, "B T R"]
    keys: Float[Tensor, "C R"]
    first_id: int = 1
    candidates: Int[Tensor, " C"] | None = None

    def subset(self, candidates: Int[Tensor, " C"]) -> "SoftItems":
        """Return the same positions over some of the items only: the softmax, and the model's own, see no others.

        Args:
            candidates: item ids, each once.

        Raises:
            OptionError: there are none, one is not among the items or occurs twice, or this is a subset already.
        """
        if self.candidates is not None:
            raise OptionError("candidates", len(candidates), fix="were chosen already; take a subset of all items")
        last = self.first_id + len(self.keys) - 1
        outside = candidates[(candidates < self.first_id) | (candidates > last)]
        if len(candidates) == 0 or len(outside):
            wrong = int(outside[0]) if len(outside) else "none"
            raise OptionError("candidates", wrong, fix=f"must be items, one or more of {self.first_id} .. {last}")
        if len(candidates.unique()) < len(candidates):
            values, counts = candidates.unique(return_counts=True)
            raise OptionError(
                "candidates", int(values[counts > 1][0]), fix="occurs more than once; give each item once"
            )
        return replace(self, keys=self.keys[candidates - self.first_id], candidates=candidates)

    def dense(self) -> DenseItems:
        """Return the distributions written out: ``B T C`` numbers."""
        return DenseItems(torch.softmax(self.queries @ self.keys.T, dim=-1), self.first_id, self.candidates)

    def embed(self, table: Float[Tensor, "V1 D"]) -> Float[Tensor, "B T D"]:
        """Return the expected row of ``table`` under each distribution."""
        if _fits(self.queries, self.keys):
            return self.dense().embed(table)
        queries = self.queries.flatten(0, 1)
        normaliser = logsumexp_rows(queries, self.keys)
        return expected_rows(queries, self.keys, self.candidates_of(table), normaliser).unflatten(
            0, self.queries.shape[:2]
        )

    def at(self, positions: Int[Tensor, "B P"] | None) -> "SoftItems":
        """Return the distributions at one list of positions per row; all when ``None``."""
        return replace(self, queries=pick(self.queries, positions))

    def over(self, candidates: Int[Tensor, " C"]) -> "SoftItems":
        """Return the same distributions over items that are called otherwise."""
        return replace(self, candidates=candidates)

    def to(self, device: torch.device) -> "SoftItems":
        """Return the same distributions on another device."""
        candidates = _moved(self.candidates, device)
        return replace(self, queries=self.queries.to(device), keys=self.keys.to(device), candidates=candidates)


@dataclass(frozen=True)
class ReadItems(Distributions):
    """Distributions of which nothing is known but the expected item vectors under one table.

    Where the same distributions are read again and again, whoever does that reads them in its own way.

    Args:
        vectors: the expected rows of the table that the model has at the moment.
        first_id: item of the first column.
        candidates: the items of the columns, where these are not all.
    """

    vectors: Float[Tensor, "B T D"]
    first_id: int = 1
    candidates: Int[Tensor, " C"] | None = None

    def embed(self, table: Float[Tensor, "V1 D"]) -> Float[Tensor, "B T D"]:
        """Return the vectors; ``table`` must be that from which they were made."""
        return self.vectors

    def at(self, positions: Int[Tensor, "B P"] | None) -> "ReadItems":
        """Return the vectors at one list of positions per row; all when ``None``."""
        return replace(self, vectors=pick(self.vectors, positions))

    def over(self, candidates: Int[Tensor, " C"]) -> "ReadItems":
        """Return the same distributions over items that are called otherwise."""
        return replace(self, candidates=candidates)

    def to(self, device: torch.device) -> "ReadItems":
        """Return the same vectors on another device."""
        return replace(self, vectors=self.vectors.to(device), candidates=_moved(self.candidates, device))


def _moved(values: Tensor | None, device: torch.device) -> Tensor | None:
    return None if values is None else values.to(device)


@dataclass(frozen=True)
class SequenceBatch:
    """Rows of items and what is to be predicted from them.

    Rows are left-aligned: the first ``lengths[b]`` items are inputs. By default each input predicts the next item of
    its own row, so that ``items`` is one longer than the inputs (``L = T + 1``). With ``targets`` every item is an
    input (``L = T``) and ``targets`` says what follows each of them.

    Args:
        items: the rows.
        lengths: number of real inputs per row, 1 to T.
        weights: weight of each prediction in the loss, 0 at padding.
        positions: inputs from which something is predicted; ``None`` means every one (``P = T``).
        targets: what follows each input, where it is not the row's own next item.
        negatives: items that do not follow, drawn for each target; with them the loss is the binary one.
    """

    items: Items
    lengths: Int[Tensor, " B"]
    weights: Float[Tensor, "B P"]
    positions: Int[Tensor, "B P"] | None = None
    targets: Items | None = None
    negatives: Int[Tensor, "B P K"] | None = None

    def to(self, device: torch.device) -> "SequenceBatch":
        """Return the same batch on another device."""
        return SequenceBatch(
            items=self.items.to(device),
            lengths=self.lengths.to(device),
            weights=self.weights.to(device),
            positions=None if self.positions is None else self.positions.to(device),
            targets=None if self.targets is None else self.targets.to(device),
            negatives=_moved(self.negatives, device),
        )

    def target_ids(self) -> Int[Tensor, "B P"]:
        """Return what is to be predicted, where that is ids."""
        if self.targets is not None:
            assert isinstance(self.targets, HardItems)
            return pick(self.targets.ids, self.positions)
        assert isinstance(self.items, HardItems)
        return pick(self.items.ids[:, 1:], self.positions)

    def with_negatives(self, count: int, num_items: int, generator: torch.Generator) -> "SequenceBatch":
        """Return the batch with ``count`` items per target, uniform over all items but the target.

        Args:
            count: at least 1.
            num_items: size of the catalogue, at least 2.
            generator: where they are drawn from, on the CPU.
        """
        targets = self.target_ids().unsqueeze(2)
        drawn = torch.randint(1, num_items, (*targets.shape[:2], count), generator=generator).to(targets.device)
        return replace(self, negatives=drawn + (drawn >= targets) * (targets > 0))

    def among(self, candidates: Int[Tensor, " C"]) -> "SequenceBatch":
        """Return the batch with all its distributions over some of the items only.

        Raises:
            OptionError: see :meth:`SoftItems.subset`.
        """
        return replace(
            self,
            items=self.items.subset(candidates) if isinstance(self.items, SoftItems) else self.items,
            targets=self.targets.subset(candidates) if isinstance(self.targets, SoftItems) else self.targets,
        )


OBJECTIVES = ("all", "last", "last_and_middle")


def supervise(batch: SequenceBatch, objective: str, generator: torch.Generator | None = None) -> SequenceBatch:
    """Return ``batch`` with only the targets that ``objective`` asks for.

    ``all`` keeps every position. ``last`` keeps the last real one. ``last_and_middle`` keeps the last and one random
    earlier position per row, redrawn at each call, with equal weights (TD3's augmented learner training, ALT): target
    ``p`` uniform on ``min(5, n // 2) .. n - 2``, where ``n = length + 1`` is the number of items in the row.

    Args:
        batch: a batch with targets at every position.
        objective: one of :data:`OBJECTIVES`.
        generator: needed for ``last_and_middle``.

    Raises:
        OptionError: the objective is not known, or has no generator where it needs one.
    """
    choose("objective", objective, dict.fromkeys(OBJECTIVES))
    if objective == "all":
        return batch
    last = (batch.lengths - 1).unsqueeze(1)  # (B, 1)
    positions = last
    if objective == "last_and_middle":
        if generator is None:
            raise OptionError("objective", objective, fix="draws positions and needs a generator")
        size = last + 2
        low = torch.minimum(torch.full_like(size, 5), size // 2).clamp(min=1)
        uniform = torch.rand(last.shape, generator=generator).to(last.device)
        middle = low + (uniform * (size - 1 - low)).long() - 1
        positions = torch.cat([last, torch.minimum(middle, (last - 1).clamp(min=0))], dim=1)
    return replace(batch, positions=positions, weights=batch.weights.gather(1, positions))


def mask_of(lengths: Int[Tensor, " B"], width: int) -> Bool[Tensor, "B T"]:
    """Return which positions of left-aligned rows are real."""
    return torch.arange(width, device=lengths.device) < lengths.unsqueeze(1)
