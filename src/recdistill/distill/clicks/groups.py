"""Groups of ids whose vectors in the reference model's tables lie close together.

A model with tables of its own sees most ids of a field never, or once, in a few thousand samples. Ids that the
reference model hardly tells apart may share what is learnt: a model learns one vector per group, and every id reads
that of its group. One small number per id, a byte or less, says which.
"""

import warnings
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from jaxtyping import Float, Int
from scipy.cluster.vq import kmeans2, vq

from recdistill.data.clicks.codes import FIRST
from recdistill.errors import InputError, require_at_least
from recdistill.models.clicks.base import ClickModel, FieldTables
from recdistill.rng import Streams

ITERATIONS = 20
"""Of k-means."""


@dataclass(frozen=True)
class IdGroups:
    """A group for every id of every field.

    Args:
        of_ids: for each field, the group of each of its ids; 0 and 1, the missing and the unknown value, are groups
            of their own, and groups are numbered from 0 without a gap.
        widths: columns of each field.
    """

    of_ids: tuple[Int[np.ndarray, " _"], ...]
    widths: tuple[int, ...]

    @staticmethod
    def single(num_ids: tuple[int, ...], widths: tuple[int, ...]) -> "IdGroups":
        """Return groups of one id each."""
        return IdGroups(tuple(np.arange(count, dtype=np.int32) for count in num_ids), widths)

    @staticmethod
    def near(tables: FieldTables, most: int, rng: Streams) -> "IdGroups":
        """Return at most ``most`` groups a field, beside those of missing and unknown values, by k-means of its rows.

        A field with no more ids than that keeps them all. No id counts more than another: ids that were hardly learnt
        lie near 0 and make few groups among themselves.

        Args:
            tables: of the reference model.
            most: at least 2.
            rng: stream ``groups`` is used.

        Raises:
            OptionError: ``most`` is below 2.
        """
        require_at_least(2, groups=most)
        draw, found = rng.numpy("groups"), []
        for field, count in enumerate(tables.num_ids):
            if count - FIRST <= most:
                found.append(np.arange(count, dtype=np.int32))
                continue
            labels = clusters(tables.of(field).detach()[FIRST:].double().cpu().numpy(), most, draw)
            found.append(np.concatenate([np.arange(FIRST), FIRST + labels]).astype(np.int32))
        return IdGroups(tuple(found), tables.widths)

    @cached_property
    def counts(self) -> tuple[int, ...]:
        """Groups of each field; one more than the largest number."""
        return tuple(max(FIRST, int(groups.max()) + 1) for groups in self.of_ids)

    def of(self, ids: Int[np.ndarray, "n C"]) -> Int[np.ndarray, "n C"]:
        """Return the group of every id of some rows."""
        columns = [groups for groups, width in zip(self.of_ids, self.widths, strict=True) for _ in range(width)]
        parts = [groups[ids[:, column]] for column, groups in enumerate(columns)]
        return np.stack(parts, axis=1).astype(np.int32)

    @torch.no_grad()
    def expand(self, model: ClickModel) -> None:
        """Give every id its group's vector, in a model that was trained on groups; groups are then no more.

        Raises:
            InputError: the model's tables are not those of these groups.
        """
        if model.tables.num_ids != self.counts:
            raise InputError(f"the model has tables of {model.tables.num_ids} rows, the groups need {self.counts}")
        wide = tuple(len(groups) for groups in self.of_ids)
        made = FieldTables(wide, self.widths, model.tables.rows.shape[1], torch.Generator()).to(model.tables.rows)
        for field, groups in enumerate(self.of_ids):
            made.of(field)[:] = model.tables.of(field)[torch.from_numpy(groups).long()]
        model.tables = made
        model.config = {**model.config, "num_ids": wide}


def clusters(points: Float[np.ndarray, "n D"], most: int, draw: np.random.Generator) -> Int[np.ndarray, " n"]:
    """Return the cluster of each point, from 0 without a gap; points in one place are always together."""
    places, index = np.unique(points, axis=0, return_inverse=True)
    if len(places) <= most:
        return index.reshape(-1)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="One of the clusters is empty")  # it is left out below
        centroids, _ = kmeans2(points, most, iter=ITERATIONS, minit="++", rng=draw)
    return np.unique(vq(points, centroids)[0], return_inverse=True)[1].reshape(-1)
