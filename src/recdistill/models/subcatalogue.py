"""The items that occur in a batch, as a catalogue of their own."""

from dataclasses import replace

import torch
from jaxtyping import Int
from torch import Tensor

from recdistill.data.batches import Distributions, HardItems, Items, SequenceBatch


def occurring(batch: SequenceBatch) -> Int[Tensor, " n"] | None:
    """Return the items that the loss of a batch reads, sorted and each once; ``None`` where it reads all of them."""
    targets = batch.items if batch.targets is None else batch.targets
    if isinstance(targets, HardItems) and batch.negatives is None:
        return None  # a softmax over all items
    found = [_read(batch.items), _read(targets)]
    if batch.negatives is not None:
        found.append(batch.negatives.flatten())
    if any(part is None for part in found):
        return None
    items = torch.cat([part.cpu() for part in found if part is not None]).unique()
    return items[items > 0]


def _read(items: Items) -> Tensor | None:
    if isinstance(items, HardItems):
        return items.ids.flatten()
    assert isinstance(items, Distributions)
    return items.candidates


def renumbered(batch: SequenceBatch, items: Int[Tensor, " n"]) -> SequenceBatch:
    """Return a batch in which item ``items[i]`` is called ``i + 1``; padding stays 0.

    Args:
        batch: reads no other items.
        items: sorted, each once.
    """
    return replace(
        batch,
        items=_renamed(batch.items, items),
        targets=None if batch.targets is None else _renamed(batch.targets, items),
        negatives=None if batch.negatives is None else places(batch.negatives, items),
    )


def _renamed(some: Items, items: Int[Tensor, " n"]) -> Items:
    if isinstance(some, HardItems):
        return HardItems(places(some.ids, items))
    assert isinstance(some, Distributions)
    assert some.candidates is not None
    return some.over(places(some.candidates, items))


def places(ids: Int[Tensor, "*shape"], items: Int[Tensor, " n"]) -> Int[Tensor, "*shape"]:
    """Return ``i + 1`` for an id that is ``items[i]``, and 0 for padding."""
    return torch.where(ids > 0, torch.searchsorted(items.to(ids.device), ids.contiguous()) + 1, 0)
