"""Original ids and the integers that stand for them: items 1 .. V, users 0 .. U - 1. Item 0 is padding."""

from dataclasses import dataclass

import numpy as np
import polars as pl
from numpy.typing import NDArray

from recdistill.data.log import InteractionLog
from recdistill.errors import DataError

PAD = 0
"""The item id that stands for no item."""


@dataclass(frozen=True, kw_only=True)
class Vocabulary:
    """The users and items of a dataset, in an order that does not depend on the file format.

    Ids are sorted as numbers when all of them are whole numbers, and as text otherwise.
    """

    user_ids: pl.Series
    """Original ids; user ``u`` is at ``u``."""
    item_ids: pl.Series
    """Original ids; item ``i`` is at ``i - 1``."""

    @classmethod
    def of(cls, log: InteractionLog) -> "Vocabulary":
        """Return the vocabulary of all users and items with a row in the log."""
        return cls(user_ids=_ordered(log.frame["user_id"]), item_ids=_ordered(log.frame["item_id"]))

    @classmethod
    def from_frames(cls, users: pl.DataFrame, items: pl.DataFrame) -> "Vocabulary":
        """Return the vocabulary of the tables that :meth:`users_frame` and :meth:`items_frame` made.

        Raises:
            DataError: indices have gaps or repeat, or an id repeats.
        """
        for table, index, first, name in ((users, "user", 0, "user_id"), (items, "item", 1, "item_id")):
            expected = np.arange(first, first + table.height)
            if not np.array_equal(table[index].to_numpy(), expected) or table[name].n_unique() != table.height:
                fix = "write every id once, sorted by index"
                raise DataError(f"{index} indices are not {first}, {first + 1}, ...", fix=fix, column=index)
        return cls(user_ids=users["user_id"], item_ids=items["item_id"])

    @property
    def num_users(self) -> int:
        """Number of users, U."""
        return len(self.user_ids)

    @property
    def num_items(self) -> int:
        """Number of items without padding, V."""
        return len(self.item_ids)

    def encode_users(self, ids: pl.Series) -> NDArray[np.int32]:
        """Return the index 0 .. U - 1 of every id; an unknown one raises DataError."""
        return _encode(ids, self.user_ids, 0, "user")

    def encode_items(self, ids: pl.Series) -> NDArray[np.int32]:
        """Return the index 1 .. V of every id; an unknown one raises DataError."""
        return _encode(ids, self.item_ids, 1, "item")

    def decode_users(self, users: NDArray[np.integer]) -> list[str]:
        """Return the original ids of user indices 0 .. U - 1."""
        return _decode(users, self.user_ids, 0, "user")

    def decode_items(self, items: NDArray[np.integer]) -> list[str]:
        """Return the original ids of item indices 1 .. V; padding raises DataError."""
        return _decode(items, self.item_ids, 1, "item")

    def users_frame(self) -> pl.DataFrame:
        """Return ``user`` (Int32) and ``user_id``, sorted by index."""
        index = pl.Series("user", np.arange(self.num_users, dtype=np.int32))
        return pl.DataFrame([index, self.user_ids.alias("user_id")])

    def items_frame(self) -> pl.DataFrame:
        """Return ``item`` (Int32) and ``item_id``, sorted by index."""
        index = pl.Series("item", np.arange(1, self.num_items + 1, dtype=np.int32))
        return pl.DataFrame([index, self.item_ids.alias("item_id")])


def _ordered(ids: pl.Series) -> pl.Series:
    """Return the distinct ids in their order."""
    distinct = ids.unique()
    values = distinct.cast(pl.Int64, strict=False)
    if values.null_count():
        return distinct.sort()
    return pl.DataFrame([distinct, values.alias("__value")]).sort("__value", distinct.name).to_series()


def _encode(ids: pl.Series, known: pl.Series, first: int, kind: str) -> NDArray[np.int32]:
    """Return the index of every id."""
    table = pl.DataFrame({"id": known, "index": np.arange(first, first + len(known), dtype=np.int32)})
    found = ids.alias("id").to_frame().join(table, on="id", how="left", maintain_order="left")["index"]
    if found.null_count():
        missing = ids[int(found.is_null().arg_true()[0])]
        raise DataError(f"{kind} {missing!r} is not in the vocabulary", fix=f"use only the {kind}s of this dataset")
    return found.to_numpy()


def _decode(indices: NDArray[np.integer], known: pl.Series, first: int, kind: str) -> list[str]:
    """Return the id at every index."""
    shifted = np.asarray(indices, dtype=np.int64) - first
    wrong = (shifted < 0) | (shifted >= len(known))
    if wrong.any():
        bad = int(np.asarray(indices)[wrong][0])
        fix = f"use {first} .. {first + len(known) - 1}"
        raise DataError(f"{kind} index {bad} is not in the vocabulary", fix=fix)
    return known.gather(shifted).to_list()
