"""One small example of every kind of rows."""

import torch

from recdistill.data.batches import DenseItems, HardItems, SequenceBatch, SoftItems
from recdistill.data.rows import CountRows, HardRows, LabelledRows, LowRankLabelledRows, LowRankRows, Rows, TuckerRows

V, R, L = 9, 4, 3
IDS = torch.tensor([[3, 1, 9, 2], [5, 9, 0, 0], [4, 4, 4, 0]])
LENGTHS = torch.tensor([4, 2, 3])


def make(kind: str, precision: torch.dtype = torch.float32) -> Rows:
    """Return three small rows of a kind (none, for ``counts``)."""
    generator = torch.Generator().manual_seed(5)

    def normal(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator)

    factor = normal(V, R)
    if kind == "hard":
        return HardRows(IDS, LENGTHS)
    if kind == "labelled":
        return LabelledRows(IDS, LENGTHS, normal(3, 4, R).to(precision), factor)
    if kind == "low_rank_labelled":
        return LowRankLabelledRows(IDS, LENGTHS, normal(3, 4, 2).to(precision), factor, normal(2, R))
    if kind == "tucker":
        return TuckerRows(normal(2, 3, R), normal(3, 2), normal(5, 3), factor)
    if kind == "low_rank":
        return LowRankRows(normal(3, 5, L), normal(V, L), torch.tensor([0.7]))
    if kind == "counts":
        return CountRows(torch.arange(V + 1.0))
    raise AssertionError(f"no example of the kind {kind}: write one")


def same(one: SequenceBatch, other: SequenceBatch) -> None:
    """Assert that two batches hold equal tensors."""
    for ours, theirs in zip(flat(one), flat(other), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=0)


def flat(batch: SequenceBatch) -> list[object]:
    found: list[object] = [batch.lengths, batch.weights, batch.positions is None]
    for items in (batch.items, batch.targets):
        if isinstance(items, HardItems):
            found.append(items.ids)
        elif isinstance(items, SoftItems):
            found += [items.queries, items.keys, items.first_id]
        elif isinstance(items, DenseItems):
            found += [items.probabilities, items.first_id]
    return found
