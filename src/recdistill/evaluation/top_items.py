"""The most probable items at each position of one row, without writing out more than a block of distributions."""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from recdistill.data.batches import SoftItems
from recdistill.data.rows import HardRows, LabelledRows, Rows, SoftRows
from recdistill.errors import OptionError, require_at_least

NUMBERS_PER_BLOCK = 1 << 22
"""Largest matrix of positions by items that is written out, in numbers."""


@dataclass(frozen=True, kw_only=True)
class TopItems:
    """The most probable items of each position of a row.

    Args:
        ids: 1 to V, the most probable first; of equal ones the smaller.
        chances: their probabilities.
    """

    ids: Int[Tensor, "T k"]
    chances: Float[Tensor, "T k"]


def top_items(rows: Rows, row: int, k: int) -> TopItems | None:
    """Return the most probable items of a row, or ``None`` where rows of this kind hold no items.

    Where rows hold ids, ``k`` does not count: each position has its item, with probability 1, and positions of padding
    are left out. Where distributions include padding (``pad_column`` of TD3), padding is left out, and probabilities
    add up to less than 1.

    Time and memory: ``T V`` products, of which :data:`NUMBERS_PER_BLOCK` are held at a time.

    Args:
        rows: ids or distributions.
        row: which, 0 or more.
        k: how many items, 1 or more; all, where there are fewer.

    Raises:
        OptionError: there is no such row, or ``k`` is smaller than 1.
    """
    require_at_least(1, k=k)
    _check_row(rows, row)
    if isinstance(rows, SoftRows):
        items = rows.items()
        return _top(items, items.queries[row], k)
    if isinstance(rows, HardRows):
        ids = rows.item_ids[row, : int(rows.lengths[row])].unsqueeze(1)
        return TopItems(ids=ids, chances=torch.ones(ids.shape))
    return None


def top_labels(rows: Rows, row: int, k: int) -> TopItems | None:
    """Return what a teacher thinks most probable after each item of a row, or ``None`` where rows have no labels.

    Args:
        rows, row, k: as for :func:`top_items`.

    Raises:
        OptionError: there is no such row, or ``k`` is smaller than 1.
    """
    require_at_least(1, k=k)
    if not isinstance(rows, LabelledRows):
        return None
    _check_row(rows, row)
    queries = rows.target_queries[row, : int(rows.lengths[row])].to(rows.keys)
    return _top(SoftItems(queries.unsqueeze(0), rows.keys), queries, k)


def _check_row(rows: Rows, row: int) -> None:
    if isinstance(rows, SoftRows | HardRows) and not 0 <= row < len(rows):
        raise OptionError("row", row, fix=f"must be one of 0 .. {len(rows) - 1}")


def _top(items: SoftItems, queries: Float[Tensor, "T R"], k: int) -> TopItems:
    keys, first_id = items.keys.detach(), items.first_id
    ids, chances = [], []
    for some in queries.detach().split(max(1, NUMBERS_PER_BLOCK // len(keys))):
        probabilities = torch.softmax(some @ keys.T, dim=-1)[:, 1 - first_id :]
        best = probabilities.topk(min(k, probabilities.shape[1]), dim=1)
        # topk gives equal values in any order: first by id, then, stably, by probability
        by_id = best.indices.argsort(dim=1)
        order = by_id.gather(1, best.values.gather(1, by_id).argsort(dim=1, descending=True, stable=True))
        ids.append(best.indices.gather(1, order) + 1)
        chances.append(best.values.gather(1, order))
    return TopItems(ids=torch.cat(ids).cpu(), chances=torch.cat(chances).cpu())
