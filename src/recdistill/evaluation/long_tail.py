"""Whom a dataset or a model serves: popular items or rare ones.

Items are divided into head, torso and tail by their training events, a third of the events each. Then: how well each
part is predicted, how popular the recommended items are beside those that users really chose, how many items are ever
recommended, and how much of each part a distilled dataset still holds.
"""

import math
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from recdistill.data.batches import PAD
from recdistill.data.rows import Rows
from recdistill.data.sequences import EvaluationCases
from recdistill.errors import InputError, NumericalError, OptionError, require_above, require_at_least
from recdistill.evaluation.metrics import hit_rate, ndcg
from recdistill.evaluation.protocols import CASES_PER_BATCH, ITEMS_PER_BLOCK, user_vectors
from recdistill.models.base import Recommender
from recdistill.progress import SILENT, Progress

PARTS = ("head", "torso", "tail")
LIKELY = math.log(2)
"""Expected count from which a dataset drawn from the rows holds an item at least every second time."""


@dataclass(frozen=True, kw_only=True)
class ItemParts:
    """Items by popularity.

    Args:
        part_of: index into :data:`PARTS` of each item; -1 at index 0, which is padding.
        items: number of items in each part.
        interactions: number of training events in each part.
    """

    part_of: Int[np.ndarray, " V1"]
    items: dict[str, int]
    interactions: dict[str, int]

    @property
    def num_items(self) -> int:
        """Size of the catalogue, V."""
        return len(self.part_of) - 1


def item_parts(counts: Int[np.ndarray, " V1"]) -> ItemParts:
    """Return head, torso and tail of a catalogue.

    Items are sorted by their number of training events, ties by item id. The head is the fewest items, from the most
    popular down, that hold at least a third of the events; head and torso together are the fewest that hold at least
    two thirds; the tail is the rest, items without any training event included. The torso is empty where one item
    alone holds two thirds, and so on.

    Args:
        counts: training events of each item; index 0 is padding and is not read.

    Raises:
        InputError: a count is negative, or there is no event at all.
    """
    events = counts[1:].astype(np.int64)
    if (events < 0).any():
        raise InputError(f"an item has {events.min()} training events; counts must be 0 or more")
    if events.sum() == 0:
        raise InputError("no item has a training event; popularity parts need at least one")
    order = np.argsort(-events, kind="stable")
    below = 3 * np.cumsum(events[order])  # exact thirds of integers
    head, middle = (int(np.searchsorted(below, third * events.sum())) + 1 for third in (1, 2))
    part_of = np.full(len(counts), -1)
    part_of[order + 1] = np.repeat([0, 1, 2], [head, middle - head, len(events) - middle])
    return ItemParts(
        part_of=part_of,
        items={name: int((part_of == index).sum()) for index, name in enumerate(PARTS)},
        interactions={name: int(events[part_of[1:] == index].sum()) for index, name in enumerate(PARTS)},
    )


@dataclass(frozen=True, kw_only=True)
class PartAccuracy:
    """Accuracy on the held-out events whose target lies in one part of the catalogue.

    Args:
        events: how many there are.
        metrics: ``NDCG@k`` and ``HR@k`` as fractions, under the protocol of the ranks; ``None`` without events.
    """

    events: int
    metrics: dict[str, float] | None


def accuracy_by_part(
    ranks: Int[Tensor, " N"], targets: Int[Tensor, " _"], parts: ItemParts, *, k: int = 10
) -> dict[str, PartAccuracy]:
    """Return accuracy for the events whose target is a head, torso or tail item.

    Args:
        ranks: rank of each held-out item, 1 is best, as in :class:`~recdistill.evaluation.protocols.Scores`.
        targets: the held-out items, in the same order.
        parts: of the same catalogue.
        k: cutoff, 1 or more.

    Raises:
        InputError: ranks and targets are not equally many, or a target is not an item.
        OptionError: ``k`` is smaller than 1.
    """
    require_at_least(1, k=k)
    if len(ranks) != len(targets):
        raise InputError(f"{len(ranks)} ranks and {len(targets)} targets do not belong to the same events")
    _check_items(targets, parts.num_items)
    part_of = torch.from_numpy(parts.part_of)[targets]
    return {name: _accuracy(ranks[part_of == index], k) for index, name in enumerate(PARTS)}


def _accuracy(ranks: Int[Tensor, " N"], k: int) -> PartAccuracy:
    if len(ranks) == 0:
        return PartAccuracy(events=0, metrics=None)
    metrics = {f"NDCG@{k}": float(ndcg(ranks, k).mean()), f"HR@{k}": float(hit_rate(ranks, k).mean())}
    return PartAccuracy(events=len(ranks), metrics=metrics)


@torch.no_grad()
def recommend(
    model: Recommender,
    cases: EvaluationCases,
    *,
    k: int = 10,
    block: int = ITEMS_PER_BLOCK,
    progress: Progress = SILENT,
) -> Int[Tensor, "N k"]:
    """Return the ``k`` best unseen items for each held-out event, best first; 0 where fewer are unseen.

    Scores and seen items are those of :func:`~recdistill.evaluation.protocols.full_ranks`: everything that the user
    touched before the event is left out, here also a target that was touched before. Equal scores go to the smaller
    item id, so that the lists do not depend on the blocks.

    Memory is that of a batch of cases times a block of items, whatever the catalogue.

    Args:
        model: a trained recommender.
        cases: held-out events.
        k: length of the lists, 1 or more.
        block: items that are scored at a time, 1 or more.
        progress: told after each batch of cases.

    Raises:
        OptionError: ``k`` or ``block`` is smaller than 1.
        NumericalError: a score is NaN.
    """
    require_at_least(1, k=k, block=block)
    lists = [torch.empty(0, k, dtype=torch.long)]
    for start in range(0, len(cases), CASES_PER_BATCH):
        rows = np.arange(start, min(start + CASES_PER_BATCH, len(cases)))
        lists.append(_best_unseen(model, cases, rows, k, block))
        progress("recommend", int(rows[-1]) + 1, len(cases))
    return torch.cat(lists)


def _best_unseen(
    model: Recommender, cases: EvaluationCases, rows: np.ndarray, k: int, block: int
) -> Int[Tensor, "B k"]:
    device = model.device
    users = user_vectors(model, cases, rows)
    seen_row, seen_item = (torch.from_numpy(part).to(device) for part in cases.seen(rows, future=False))
    best = users.new_full((len(rows), k), -math.inf)
    ids = torch.full(best.shape, PAD, device=device)
    for start in range(1, model.num_items + 1, block):
        scores = model.score(users, slice(start, min(start + block, model.num_items + 1)))
        if torch.isnan(scores).any():
            raise NumericalError(
                "a score is NaN", stage="recommend", step=0, cause="the model has NaN weights; train it again"
            )
        inside = (seen_item >= start) & (seen_item < start + scores.shape[1])
        scores[seen_row[inside], seen_item[inside] - start] = -math.inf
        columns = _top_columns(scores, min(k, scores.shape[1]))
        best = torch.cat([best, scores.gather(1, columns)], dim=1)
        ids = torch.cat([ids, columns + start], dim=1)
        order = best.argsort(dim=1, descending=True, stable=True)[:, :k]  # ids of earlier blocks are smaller
        best, ids = best.gather(1, order), ids.gather(1, order)
    return torch.where(best > -math.inf, ids, PAD).cpu()


def _top_columns(scores: Float[Tensor, "B C"], k: int) -> Int[Tensor, "B k"]:
    """Return the columns of the ``k`` largest scores in ascending order; among equal ones the first."""
    top = scores.topk(k, dim=1)
    last = top.values[:, -1:]
    columns = top.indices.sort(dim=1).values
    tied = ((scores >= last).sum(1) > k).nonzero().squeeze(1)  # topk may take any of the equal ones
    if len(tied):
        some, last = scores[tied], last[tied]
        above, equal = some > last, some == last
        room = k - above.sum(1, keepdim=True)
        chosen = above | (equal & (equal.cumsum(1, dtype=torch.int32) <= room))
        columns[tied] = chosen.nonzero()[:, 1].view(len(tied), k)
    return columns


@dataclass(frozen=True, kw_only=True)
class Exposure:
    """What a model shows to its users.

    Args:
        k: length of the lists.
        popularity_shift: mean over users of the log-popularity of what is recommended minus that of what was chosen;
            0.7 means about twice as popular, negative means rarer.
        coverage: part of the catalogue that is recommended to anyone, 0 to 1.
        gini: inequality of how often items are recommended, 0 (all equally often) to ``1 - 1 / V`` (one item only).
        users: how many the means are over.
    """

    k: int
    popularity_shift: float
    coverage: float
    gini: float
    users: int


def exposure(
    recommended: Int[Tensor, "N k"],
    targets: Int[Tensor, " _"],
    users: Int[np.ndarray, " _"],
    counts: Int[np.ndarray, " V1"],
) -> Exposure:
    """Return how popular, how many and how evenly spread the recommended items are.

    The popularity of an item is ``log(1 + training events)``. Popularity spans orders of magnitude, so a plain mean is
    that of the few largest; a difference of logarithms is a ratio, so it can be compared between logs of different
    size; and one is added for the items without training events. Each list is set against the item that the user chose
    at that very event, events are averaged within users, then users.

    Coverage and Gini depend on the number of lists: compare models on the same events only.

    Args:
        recommended: lists of :func:`recommend`; 0 is no item.
        targets: the items that were chosen at these events.
        users: the user of each event.
        counts: training events of each item; index 0 is padding.

    Raises:
        InputError: the three are not equally many, an item is not in the catalogue, or nothing is recommended.

    Reference: Abdollahpouri et al., The Unfairness of Popularity Bias in Recommendation, RMSE workshop at RecSys 2019,
    arXiv 1907.13286 (popularity of profiles against that of recommendations).
    Departures: differences of logarithms in place of relative differences of means.
    """
    if not len(recommended) == len(targets) == len(users):
        numbers = f"{len(recommended)} lists, {len(targets)} targets and {len(users)} users"
        raise InputError(f"{numbers} do not belong to the same events")
    num_items = len(counts) - 1
    _check_items(targets, num_items)
    _check_items(recommended[recommended != PAD], num_items)
    shown = (recommended != PAD).numpy()
    if not shown.any():
        raise InputError("nothing is recommended: there are no events, or every user has seen every item")
    popularity = np.log1p(counts.astype(float))
    some = shown.any(axis=1)  # a user who has seen everything has an empty list
    lists, sizes = recommended.numpy()[some], shown[some].sum(axis=1)
    shift = (popularity[lists] * shown[some]).sum(axis=1) / sizes - popularity[targets.numpy()[some]]
    owner = np.unique(users[some], return_inverse=True)[1]
    times = np.bincount(recommended.numpy()[shown], minlength=num_items + 1)[1:]
    return Exposure(
        k=recommended.shape[1],
        popularity_shift=float((np.bincount(owner, shift) / np.bincount(owner)).mean()),
        coverage=float((times > 0).mean()),
        gini=gini(times),
        users=int(owner.max()) + 1,
    )


def gini(values: Int[np.ndarray, " n"]) -> float:
    """Return the Gini coefficient: half the mean absolute difference of all ordered pairs, over the mean.

    Args:
        values: 0 or more, with a positive sum.
    """
    ordered = np.sort(values.astype(float))
    places = np.arange(1, len(ordered) + 1)
    return float(((2 * places - len(ordered) - 1) * ordered).sum() / (len(ordered) * ordered.sum()))


def rows_coverage(rows: Rows, parts: ItemParts, *, threshold: float = LIKELY) -> dict[str, float | None]:
    """Return which share of each part's items a distilled dataset holds; ``None`` for a part without items.

    An item is held when its expected count in the rows reaches ``threshold``. The default, ``ln 2``, has one meaning
    for all kinds of rows. Where items are ids it means once or more. Where they are drawn from distributions, the
    chance that an item is never drawn is ``prod(1 - p) <= exp(-sum p)``, so from ``ln 2`` on it is drawn at least every
    second time. It errs on the low side: some items with a smaller count are as likely.

    Only the rows' own items count; a teacher's labels beside them give weight to every item.

    Args:
        rows: any kind; of rows that hold counts only, the counts are read.
        parts: of the same catalogue.
        threshold: expected count, above 0.

    Raises:
        OptionError: the threshold is not above 0, or the rows hold items outside the catalogue.
    """
    require_above(0, threshold=threshold)
    counts = rows.item_counts(parts.num_items)
    if len(counts) != parts.num_items + 1:
        raise OptionError("rows", len(counts) - 1, fix=f"is their number of items; the catalogue has {parts.num_items}")
    held = (counts >= threshold).cpu().numpy()
    return {
        name: float(held[parts.part_of == index].mean()) if parts.items[name] else None
        for index, name in enumerate(PARTS)
    }


def _check_items(items: Tensor, num_items: int) -> None:
    wrong = items[(items < 1) | (items > num_items)]
    if len(wrong):
        raise InputError(f"{int(wrong[0])} is not an item of the catalogue, whose ids are 1 to {num_items}")
