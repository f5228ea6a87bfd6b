"""The contract of a click model, and the tables that its fields are looked up in.

A model is cut behind the look-up: ``embed`` makes one vector per field of a batch, everything after it knows vectors
only. So distilled samples may enter as vectors. The logit is an affine map of a hidden vector, ``last``, plus an
``offset`` without weights of its own: so the gradient of the loss in ``last`` is ``(p - y) [hidden; 1]``, which is all
that scores of samples need. As everywhere, a model draws no random number of its own.

Letters: ``B`` batch, ``C`` columns of ids, ``F`` fields, ``D`` width of an embedding, ``W`` of the hidden vector.
"""

import inspect
import itertools
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from recdistill.data.clicks.block import ClickBatch, pooling_weights
from recdistill.errors import OptionError, require_at_least
from recdistill.models.layers import Randomness, dropout, linear

STD = 1e-2
"""Standard deviation of an embedding before training."""


class FieldTables(nn.Module):
    """Embedding tables of all fields, one under the other in one tensor.

    Args:
        num_ids: rows of each field.
        widths: columns that each field has in a row of ids; the vectors of several values are averaged.
        embedding_dim: width, D.
        generator: where the rows are drawn from, ``N(0, 0.01^2)``.
    """

    def __init__(
        self, num_ids: Sequence[int], widths: Sequence[int], embedding_dim: int, generator: torch.Generator
    ) -> None:
        super().__init__()
        if len(num_ids) != len(widths) or not num_ids:
            told = f"{len(num_ids)} tables for {len(widths)} fields"
            raise OptionError("num_ids", told, fix="give the rows of one table for each field")
        self.num_ids, self.widths = tuple(num_ids), tuple(widths)
        self.rows = nn.Parameter(torch.empty(sum(num_ids), embedding_dim).normal_(0.0, STD, generator=generator))

    @property
    def starts(self) -> tuple[int, ...]:
        """First row of each field."""
        return tuple(itertools.accumulate(self.num_ids, initial=0))[:-1]

    def of(self, field: int) -> Float[Tensor, "n D"]:
        """Return the rows of a field."""
        start = self.starts[field]
        return self.rows[start : start + self.num_ids[field]]

    def forward(self, ids: Int[Tensor, "B C"]) -> Float[Tensor, "B F D"]:
        """Return the vector of each field, twice differentiable in the rows."""
        starts = [start for start, width in zip(self.starts, self.widths, strict=True) for _ in range(width)]
        found = F.embedding(ids + torch.tensor(starts, device=ids.device), self.rows)  # (B, C, D)
        if all(width == 1 for width in self.widths):
            return found
        pooled, column = [], 0
        for width in self.widths:
            part = found[:, column : column + width]
            if width > 1:
                weights = pooling_weights(ids[:, column : column + width]).to(part.dtype)
                part = (part * weights.unsqueeze(-1)).sum(1, keepdim=True)
            pooled.append(part)
            column += width
        return torch.cat(pooled, dim=1)

    @torch.no_grad()
    def copied(self) -> "FieldTables":
        """Return tables of their own with the same rows."""
        made = FieldTables(self.num_ids, self.widths, self.rows.shape[1], torch.Generator()).to(self.rows)
        made.rows.copy_(self.rows)
        return made

    def grown(self, num_ids: Sequence[int], generator: torch.Generator) -> "FieldTables":
        """Return tables with more rows: those of these ids as they are, new ones drawn.

        Raises:
            OptionError: a field has fewer rows than now.
        """
        made = FieldTables(num_ids, self.widths, self.rows.shape[1], generator).to(self.rows)
        if any(new < old for new, old in zip(num_ids, self.num_ids, strict=True)):
            raise OptionError(
                "num_ids", tuple(num_ids), fix=f"must be {self.num_ids} or more; ids are never taken back"
            )
        with torch.no_grad():
            for field, rows in enumerate(self.num_ids):
                made.of(field)[:rows] = self.of(field)
        return made


class FieldAdapter(nn.Module):
    """A linear map for every field, from the width of given tables to that of a model.

    Args:
        num_fields: F.
        given_dim: width of the tables, G.
        embedding_dim: width that the model reads, D.
        generator: where the maps are drawn from: orthonormal rows or columns, so that lengths stay about what they are.
    """

    def __init__(self, num_fields: int, given_dim: int, embedding_dim: int, generator: torch.Generator) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(num_fields, given_dim, embedding_dim))
        for field in range(num_fields):
            nn.init.orthogonal_(self.weight.data[field], generator=generator)

    def forward(self, vectors: Float[Tensor, "B F G"]) -> Float[Tensor, "B F D"]:
        """Return vectors of the model's width."""
        return torch.einsum("bfg,fgd->bfd", vectors, self.weight)


class ClickModel(nn.Module, ABC):
    """A model of the probability of a click. Base of those in :data:`CLICK_MODELS`.

    Subclasses build what follows the look-up in ``__init__`` from plain numbers, beginning with ``num_ids``, ``widths``
    and ``embedding_dim``, add the keyword arguments of their own to ``config``, from which a model is rebuilt, and call
    :meth:`finish` last.
    """

    name: ClassVar[str]
    config: dict[str, Any]
    tables: FieldTables
    last: nn.Linear

    def __init__(
        self, num_ids: Sequence[int], widths: Sequence[int], embedding_dim: int, generator: torch.Generator
    ) -> None:
        super().__init__()
        require_at_least(1, embedding_dim=embedding_dim)
        self.config = {"num_ids": tuple(num_ids), "widths": tuple(widths), "embedding_dim": embedding_dim}
        self.tables = FieldTables(num_ids, widths, embedding_dim, generator)
        self.adapter: FieldAdapter | None = None

    @classmethod
    def options(cls) -> dict[str, Any]:
        """Return the optional arguments of the model and their defaults."""
        parameters = inspect.signature(cls).parameters.items()
        return {name: each.default for name, each in parameters if each.default is not inspect.Parameter.empty}

    def finish(self, hidden_dim: int, generator: torch.Generator) -> None:
        """Add the last layer, and draw all weights behind the tables: Xavier-normal matrices, biases of 0."""
        self.last = linear(hidden_dim, 1)
        with torch.no_grad():
            for name, parameter in self.named_parameters():
                if name == "tables.rows":
                    continue
                if parameter.dim() >= 2:
                    nn.init.xavier_normal_(parameter, generator=generator)
                else:
                    parameter.fill_(1.0 if name.endswith("norm.weight") else 0.0)

    @property
    def num_fields(self) -> int:
        """Number of fields, F."""
        return len(self.tables.num_ids)

    def embed(self, batch: ClickBatch) -> Float[Tensor, "B F D"]:
        """Return the vectors of a batch, looked up unless the batch has them; of the model's width in either case."""
        if batch.vectors is not None:
            found = batch.vectors
        else:
            assert batch.ids is not None
            found = self.tables(batch.ids)
        return found if self.adapter is None else self.adapter(found)

    @abstractmethod
    def hidden(self, vectors: Float[Tensor, "B F D"], generator: Randomness | None = None) -> Float[Tensor, "B W"]:
        """Return what the last layer reads; ``generator`` switches dropout on."""

    def offset(self, vectors: Float[Tensor, "B F D"]) -> Float[Tensor, " B"]:
        """Return what is added to the last layer's output: 0, unless a model says so."""
        return vectors.new_zeros(len(vectors))

    def logits(self, vectors: Float[Tensor, "B F D"], generator: Randomness | None = None) -> Float[Tensor, " B"]:
        """Return the logits of samples; twice differentiable."""
        return self.logits_of(self.hidden(vectors, generator), vectors)

    def logits_of(self, hidden: Float[Tensor, "B W"], vectors: Float[Tensor, "B F D"]) -> Float[Tensor, " B"]:
        """Return the logits where what the last layer reads is known already."""
        found: Tensor = self.last(hidden).squeeze(1)
        return found + self.offset(vectors)

    def forward(self, batch: ClickBatch, generator: Randomness | None = None) -> Float[Tensor, ""]:
        """Return the mean binary cross-entropy, in nats; labels may be probabilities, which it is differentiable in."""
        logits = self.logits(self.embed(batch), generator)
        return (F.softplus(logits) - batch.labels * logits).mean()

    def take_tables(self, tables: FieldTables, generator: torch.Generator) -> None:
        """Read given tables in place of its own, which no training moves; through an adapter where widths differ.

        Args:
            tables: of the same fields; not copied.
            generator: where the adapter is drawn from.

        Raises:
            OptionError: the fields are others.
        """
        if tables.widths != self.tables.widths:
            raise OptionError("tables", tables.widths, fix=f"must be of fields of {self.tables.widths} columns")
        own = self.tables.rows.shape[1]
        self.tables = tables.requires_grad_(False)
        if tables.rows.shape[1] != own:
            self.adapter = FieldAdapter(self.num_fields, tables.rows.shape[1], own, generator)
        self.config = {**self.config, "num_ids": tables.num_ids}

    def grow(self, num_ids: Sequence[int], generator: torch.Generator) -> None:
        """Give new ids rows of their own; nothing that was learnt changes.

        Raises:
            OptionError: a field has fewer ids than before.
        """
        self.tables = self.tables.grown(num_ids, generator)
        self.config = {**self.config, "num_ids": tuple(num_ids)}


class FirstOrder(nn.Module):
    """A weight for every coordinate of every field: the linear part of a model that is cut behind the look-up.

    Departures: published models look a weight per id up in tables of its own; the inner product of the id's vector with
    a weight per field says the same wherever vectors are wider than 0, and distilled vectors have it too.
    """

    def __init__(self, num_fields: int, embedding_dim: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(num_fields, embedding_dim))

    def forward(self, vectors: Float[Tensor, "B F D"]) -> Float[Tensor, " B"]:
        """Return the weighted sum."""
        return torch.einsum("bfd,fd->b", vectors, self.weight)


def pairwise(vectors: Float[Tensor, "B F D"]) -> Float[Tensor, "B D"]:
    """Return the sum over pairs of fields of the products of their vectors, coordinate by coordinate."""
    return 0.5 * (vectors.sum(1).square() - vectors.square().sum(1))


class MLP(nn.Module):
    """Linear layers, each followed by ReLU and dropout.

    Args:
        inputs: width of the input.
        widths: of each layer; none returns the input.
        dropout: rate, in [0, 1).
    """

    def __init__(self, inputs: int, widths: Sequence[int], dropout: float) -> None:
        super().__init__()
        sizes = [inputs, *widths]
        self.layers = nn.ModuleList(linear(*pair) for pair in itertools.pairwise(sizes))
        self.dropout = dropout

    def forward(self, values: Float[Tensor, "B I"], generator: Randomness | None = None) -> Float[Tensor, "B O"]:
        """Return the output of the last layer."""
        for layer in self.layers:
            values = dropout(torch.relu(layer(values)), self.dropout, generator)
        return values
