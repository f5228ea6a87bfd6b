"""What a distilled dataset gives away about the users it was made from.

Two questions, each with a reference beside it. How near is each distilled row to one real user, compared with how near
real users are to each other? And does a model that was trained on the rows tell training events from events held out,
compared with a model trained on everything and with one that only counts?

No answer shows that a dataset is anonymous. A short distance or a high AUC shows that something leaks; a long distance
or an AUC near its reference shows that these two attacks, which are simple ones, found nothing.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from scipy import sparse
from torch import Tensor

from recdistill.data.batches import SoftItems
from recdistill.data.rows import HardRows, Rows, SoftRows
from recdistill.data.sequences import EvaluationCases, Histories, gather_spans
from recdistill.errors import InputError, NumericalError, OptionError, require_at_least
from recdistill.evaluation.protocols import CASES_PER_BATCH, ITEMS_PER_BLOCK, user_vectors
from recdistill.evaluation.statistics import LEVEL, PART, Interval
from recdistill.models.base import Recommender

EVENTS_PER_BLOCK = 1 << 22
"""Training events that are read at a time."""
EVENTS_PER_USER = 256
"""What a user counts for at least when blocks are cut, so that a block has no more than 16,384 users."""
ROWS_PER_BLOCK = 256
NUMBERS_PER_BLOCK = 1 << 24
"""Largest matrix of rows, or positions, by items that is written out, in numbers."""


@dataclass(frozen=True, kw_only=True)
class Nearness:
    """How near each row is to one real user.

    Args:
        users: the nearest user of each row; -1 where no user has any item of it.
        distances: 1 minus the containment of the row in that user's training items, 0 to 1.
        copied: whether the row is a contiguous part of a user's training history.
    """

    users: Int[np.ndarray, " N"]
    distances: Float[np.ndarray, " N"]
    copied: Bool[np.ndarray, " N"]

    @property
    def median(self) -> float:
        """Median distance."""
        return float(np.median(self.distances))

    @property
    def minimum(self) -> float:
        """Smallest distance."""
        return float(self.distances.min())

    @property
    def copied_share(self) -> float:
        """Share of the rows that are copies."""
        return float(self.copied.mean())


def nearness(
    rows: Rows, histories: Histories, num_items: int, *, left_out: Int[np.ndarray, " N"] | None = None
) -> Nearness:
    """Return the nearest user of each row, and whether the row is a copy.

    With ``p_t`` the distribution at position ``t`` of a row of ``T`` items (one-hot where the row holds ids) and
    ``H_u`` the set of training items of user ``u``, the containment is ``sum_t p_t(H_u) / T``: the chance that an item
    drawn at a random position of the row is one that the user has, so, how much of the *row* is one person's. A
    symmetric measure (Jaccard) would not do: a row cut from a long history would look far from it. The weakness of
    containment: long histories are near to many rows, and rows of few different items to many users; it means nothing
    without :func:`nearness_of_users`. Among equally near users the one with the fewest items counts, then the first.

    Soft rows spread their mass, so they are never as near to anyone as a sequence is. For a like comparison with real
    users, ask for the nearness of their :func:`likeliest` items as well; ``copied`` reads soft rows that way already.
    Mass on padding is left out. A teacher's labels beside a row are not looked at. A row of one item is a copy as soon
    as anyone has the item.

    Time: a sparse product of ``events x rows``. Memory: blocks of :data:`EVENTS_PER_BLOCK` events and of rows written
    out as :data:`NUMBERS_PER_BLOCK` numbers, together below half a GB, plus 24 bytes per user. With a million items the
    histories are read once for every 16 rows.

    Args:
        rows: ids or distributions.
        histories: real users; only their training parts are read.
        num_items: size of the catalogue, V.
        left_out: for each row a user that it is not compared with, -1 for none.

    Raises:
        OptionError: there are no rows, or they hold items outside the catalogue.

    Reference: Broder, On the resemblance and containment of documents, SEQUENCES 1997.
    Departures: the elements of a row are its positions; each may be a distribution.
    """
    if not isinstance(rows, HardRows | SoftRows) or len(rows) == 0:
        raise OptionError("rows", rows.kind, fix="hold no sequence that could be compared with users")
    read = rows if isinstance(rows, HardRows) else rows.items()
    last = int(read.item_ids.max()) if isinstance(read, HardRows) else len(read.keys) + read.first_id - 1
    if last > num_items:
        raise OptionError("rows", last, fix=f"is their last item, but the catalogue ends at {num_items}")
    excluded = np.full(len(rows), -1) if left_out is None else left_out
    users, distances = np.full(len(rows), -1), np.ones(len(rows))
    step = max(1, min(ROWS_PER_BLOCK, NUMBERS_PER_BLOCK // (num_items + 1)))
    for start in range(0, len(rows), step):
        part = np.arange(start, min(start + step, len(rows)))
        weights = np.stack([_expected(read, row, num_items) for row in part.tolist()], axis=1)  # (V + 1, part)
        users[part], distances[part] = _nearest(weights, histories, excluded[part])
    sequences = rows if isinstance(rows, HardRows) else likeliest(rows)
    return Nearness(users=users, distances=distances, copied=_copied(sequences, histories, num_items, excluded))


def nearness_of_users(
    histories: Histories, num_items: int, *, length: int, count: int, rng: np.random.Generator
) -> Nearness:
    """Return how near real users' rows are to the nearest *other* user: what the nearness of distilled rows means.

    The rows are the last ``length`` training items of users with two or more, drawn without replacement. Distilled rows
    that are nearer to someone than these are closer to single persons than persons are to each other.

    Args:
        histories, num_items: as for :func:`nearness`.
        length: items per row, 2 or more; that of the distilled rows.
        count: how many users to draw, at least 1; all, where there are fewer.
        rng: where they are drawn from.

    Raises:
        OptionError: ``length`` or ``count`` is too small, or no user has two training events.
    """
    require_at_least(2, length=length)
    require_at_least(1, count=count)
    usable = np.flatnonzero(histories.train_lengths() >= 2)
    if len(usable) == 0:
        raise OptionError("histories", 0, fix="is the number of users with two training events; one or more are needed")
    drawn = rng.choice(usable, min(count, len(usable)), replace=False)
    stop = histories.train_end[drawn]
    start = np.maximum(histories.offsets[drawn], stop - length)
    rows = HardRows(gather_spans(histories.items, start, stop), torch.from_numpy(stop - start))
    return nearness(rows, histories, num_items, left_out=drawn)


def likeliest(rows: SoftRows) -> HardRows:
    """Return the likeliest item of each position, padding left out; the smaller id of two."""
    items = rows.items()
    found = [torch.cat([part.argmax(1) + 1 for part in _probabilities(items, row)]) for row in range(len(rows))]
    return HardRows(torch.stack(found), torch.full((len(rows),), rows.length))


def _probabilities(items: SoftItems, row: int) -> Iterator[Float[Tensor, "P V"]]:
    """Yield the distributions of one row over the items 1 to V, some positions at a time."""
    step = max(1, NUMBERS_PER_BLOCK // len(items.keys))
    for queries in items.queries[row].split(step):
        some = replace(items, queries=queries.unsqueeze(0)).dense()
        yield some.probabilities[0, :, 1 - some.first_id :].detach().cpu()


def _expected(rows: HardRows | SoftItems, row: int, num_items: int) -> Float[np.ndarray, " V1"]:
    """Return how often each item is expected in one row; index 0 is padding."""
    if isinstance(rows, HardRows):
        ids = rows.item_ids[row, : int(rows.lengths[row])].cpu().numpy()
        return np.bincount(ids, minlength=num_items + 1).astype(float)
    counts = np.zeros(num_items + 1)
    for probabilities in _probabilities(rows, row):
        counts[1 : 1 + probabilities.shape[1]] += probabilities.sum(0, dtype=torch.float64).numpy()
    return counts


def _nearest(
    weights: Float[np.ndarray, "V1 N"], histories: Histories, left_out: Int[np.ndarray, " N"]
) -> tuple[Int[np.ndarray, " N"], Float[np.ndarray, " N"]]:
    """Return the nearest user of each row and the distance to it."""
    rows = np.arange(weights.shape[1])
    most, fewest, nearest = np.zeros(len(rows)), np.full(len(rows), np.inf), np.full(len(rows), -1)
    for first, last in _user_blocks(histories):
        sets = _item_sets(histories, first, last, len(weights))
        shared = sets @ weights  # (users, N)
        inside = (left_out >= first) & (left_out < last)
        shared[left_out[inside] - first, rows[inside]] = 0.0
        best = shared.max(axis=0)
        sizes = np.where(shared == best, np.diff(sets.indptr)[:, None], np.inf)
        smallest = sizes.argmin(axis=0)
        size = sizes[smallest, rows]
        better = (best > most) | ((best == most) & (best > 0) & (size < fewest))
        most[better], fewest[better], nearest[better] = best[better], size[better], first + smallest[better]
    total = np.maximum(weights.sum(axis=0), np.finfo(float).tiny)
    return nearest, np.clip(1 - most / total, 0, 1)


def _user_blocks(histories: Histories) -> Iterator[tuple[int, int]]:
    """Yield spans of users with about :data:`EVENTS_PER_BLOCK` training events each."""
    cost = np.cumsum(np.maximum(histories.train_lengths(), EVENTS_PER_USER))
    ends = np.searchsorted(cost, np.arange(EVENTS_PER_BLOCK, cost[-1], EVENTS_PER_BLOCK), side="right")
    yield from pairwise(np.unique(np.r_[0, ends, histories.num_users]).tolist())


def _item_sets(histories: Histories, first: int, last: int, width: int) -> sparse.csr_array:
    """Return the training items of some users as a matrix of users by items: 1 where the user has the item."""
    start, stop = histories.offsets[first:last], histories.train_end[first:last]
    sizes = stop - start
    bounds = np.r_[0, np.cumsum(sizes)]
    places = np.repeat(start - bounds[:-1], sizes) + np.arange(bounds[-1])
    sets = sparse.csr_array((np.ones(len(places)), histories.items[places], bounds), shape=(last - first, width))
    sets.sum_duplicates()
    sets.data[:] = 1.0
    return sets


def _copied(
    rows: HardRows, histories: Histories, num_items: int, left_out: Int[np.ndarray, " N"]
) -> Bool[np.ndarray, " N"]:
    """Return which rows are a contiguous part of a training history, that of the left-out user excepted."""
    starts = range(0, len(histories.items), EVENTS_PER_BLOCK)
    counts = np.zeros(num_items + 1, dtype=np.int64)
    for start in starts:
        counts += np.bincount(histories.items[start : start + EVENTS_PER_BLOCK], minlength=num_items + 1)
    sequences = [ids[:size].cpu().numpy() for ids, size in zip(rows.item_ids, rows.lengths.tolist(), strict=True)]
    # A copy can lie only where the rarest item of its row occurs.
    anchors = [int(counts[sequence].argmin()) for sequence in sequences]
    copied = np.zeros(len(rows), dtype=bool)
    for start in starts:
        items = histories.items[start : start + EVENTS_PER_BLOCK]
        for row in np.flatnonzero(~copied).tolist():
            begins = start + np.flatnonzero(items == sequences[row][anchors[row]]) - anchors[row]
            copied[row] = _occurs(sequences[row], begins, histories, int(left_out[row]))
    return copied


def _occurs(
    sequence: Int[np.ndarray, " T"], begins: Int[np.ndarray, " n"], histories: Histories, left_out: int
) -> bool:
    """Return whether a training history, not that of ``left_out``, holds ``sequence`` at one of the places."""
    begins = begins[begins >= 0]
    users = np.searchsorted(histories.offsets, begins, side="right") - 1
    begins = begins[(begins + len(sequence) <= histories.train_end[users]) & (users != left_out)]
    for offset, item in enumerate(sequence.tolist()):
        begins = begins[histories.items[begins + offset] == item]
    return len(begins) > 0


@dataclass(frozen=True, kw_only=True)
class Attack:
    """How well a score tells members from others.

    Args:
        auc: chance that a random member scores above a random other, ties counting half; with its 95 % interval.
        members, others: how many scores there are of each.
    """

    auc: Interval
    members: int
    others: int


def attack_auc(
    members: Float[np.ndarray, " M"],
    others: Float[np.ndarray, " O"],
    rng: np.random.Generator,
    *,
    paired: bool = False,
    resamples: int = 2_000,
) -> Attack:
    """Return how well a score tells members from others.

    The interval is that of a percentile bootstrap over both sides. It has no width where the two sides do not overlap
    at all, however few scores there are.

    Args:
        members, others: scores, higher for those that are thought to be members.
        rng: where the resamples are drawn from.
        paired: entry ``i`` of both belongs to one user; users are drawn, both scores with them.
        resamples: number of bootstrap resamples, 1 or more.

    Raises:
        InputError: a side is empty, a score is not finite, or pairs are not equally many.
        OptionError: ``resamples`` is smaller than 1.

    Reference: Hanley and McNeil, The meaning and use of the area under a receiver operating characteristic (ROC) curve,
    Radiology 1982 (the rank statistic).
    """
    require_at_least(1, resamples=resamples)
    for name, scores in (("member", members), ("other", others)):
        if len(scores) == 0 or not np.isfinite(scores).all():
            raise InputError(f"{len(scores)} {name} scores, {np.isfinite(scores).sum()} finite; all must be, and some")
    if paired and len(members) != len(others):
        raise InputError(f"{len(members)} members and {len(others)} others cannot be paired")
    values, place = np.unique(np.concatenate([members, others]), return_inverse=True)
    sides, drawn, step = np.split(place, [len(members)]), [], max(1, PART // len(place))
    for start in range(0, resamples, step):
        count = min(step, resamples - start)
        picks = [rng.integers(0, len(side), (count, len(side))) for side in sides]
        picks = picks[:1] * 2 if paired else picks
        drawn.append(_auc(*(_shares(side[pick], len(values)) for side, pick in zip(sides, picks, strict=True))))
    value = _auc(*(_shares(side[None], len(values)) for side in sides))[0]
    auc = Interval(float(value), *np.quantile(np.concatenate(drawn), LEVEL).tolist())
    return Attack(auc=auc, members=len(members), others=len(others))


def _shares(places: Int[np.ndarray, "R n"], size: int) -> Float[np.ndarray, "R K"]:
    """Return, per line, the share of entries at each of ``size`` values."""
    flat = (places + size * np.arange(len(places))[:, None]).ravel()
    return np.bincount(flat, minlength=len(places) * size).reshape(-1, size) / places.shape[1]


def _auc(members: Float[np.ndarray, "R K"], others: Float[np.ndarray, "R K"]) -> Float[np.ndarray, " R"]:
    """Return ``P(member > other) + P(member = other) / 2`` from shares at ascending values."""
    return np.einsum("rk,rk->r", members, others.cumsum(axis=1) - others / 2)


def membership_cases(
    histories: Histories, rng: np.random.Generator, *, users: int = 10_000
) -> tuple[EvaluationCases, EvaluationCases]:
    """Return last training events and first validation events of the same users, in the same order.

    Args:
        histories: real users, with a validation part.
        rng: where users are drawn from, among those with both events and something before them.
        users: how many to draw, 1 or more; all, where there are fewer.

    Raises:
        OptionError: ``users`` is smaller than 1.
        InputError: no user has two training events and a validation event.
    """
    require_at_least(1, users=users)
    usable = np.flatnonzero((histories.train_lengths() >= 2) & (histories.valid_end > histories.train_end))
    if len(usable) == 0:
        raise InputError("no user has two training events and a validation event; there is nothing to tell apart")
    drawn = np.sort(rng.choice(usable, min(users, len(usable)), replace=False))
    begin, end, position = histories.offsets[drawn], histories.offsets[drawn + 1], histories.train_end[drawn]
    member, other = (EvaluationCases(histories.items, begin, at, end, drawn) for at in (position - 1, position))
    return member, other


@torch.no_grad()
def log_likelihoods(
    model: Recommender, cases: EvaluationCases, *, block: int = ITEMS_PER_BLOCK
) -> Float[np.ndarray, " N"]:
    """Return the log-likelihood of each event given all events of the same user before it, in nats.

    The softmax is over all items, as in training; scores are computed in blocks of ``block`` items, as for ranks.

    Raises:
        OptionError, NumericalError: ``block`` is smaller than 1; a likelihood is NaN or infinite.
    """
    require_at_least(1, block=block)
    found = [torch.empty(0, dtype=torch.float64)]
    for start in range(0, len(cases), CASES_PER_BATCH):
        rows = np.arange(start, min(start + CASES_PER_BATCH, len(cases)))
        users, targets = user_vectors(model, cases, rows), cases.targets(rows).to(model.device)
        chosen, total = (users.new_full((len(rows),), -torch.inf, dtype=torch.float64) for _ in range(2))
        for first in range(1, model.num_items + 1, block):
            scores = model.score(users, slice(first, min(first + block, model.num_items + 1))).double()
            inside = (targets >= first) & (targets < first + scores.shape[1])
            chosen[inside] = scores[inside, targets[inside] - first]
            total = torch.logaddexp(total, scores.logsumexp(1))
        found.append((chosen - total).cpu())
    values = torch.cat(found)
    if not torch.isfinite(values).all():
        what, cause = "a log-likelihood is not finite", "the model has NaN or very large weights; train it again"
        raise NumericalError(what, stage="membership", step=0, cause=cause)
    return values.numpy()


def membership_attack(
    model: Recommender, histories: Histories, rng: np.random.Generator, *, users: int = 10_000, resamples: int = 2_000
) -> Attack:
    """Return how well a model's likelihoods tell the events it may have learnt from events held out.

    Members are last training events, the others first validation events of the same users; the score is the
    log-likelihood. That is defined for a model trained on anything: all rows, chosen rows, synthetic rows.

    An AUC of .5 is *not* what a model without leakage has. The held-out event comes later: tastes have drifted, its
    history is one event longer, its item may have been rare before; and it may have chosen the epoch. Only a comparison
    says anything: run this with a generator from the same seed, hence on the same users, for a model trained on the
    full data and for popularity, which knows counts and no single user. What lies above popularity is what sequences
    add, drift included; near the full data, a model knows training events as well as if it had seen them all.

    It cannot show whether a *particular* user was used, nor that nothing leaks: one threshold for all is the weakest
    attack of its kind. Where rows are chosen users, :func:`attack_auc` of the :func:`log_likelihoods` of their events
    and of those of other users with as many (not paired) asks the sharper question.

    Args:
        model: any trained recommender.
        histories, rng, users: as for :func:`membership_cases`; resamples come from ``rng`` too.
        resamples: number of bootstrap resamples.

    Raises:
        OptionError, InputError, NumericalError: as for the three functions named above.

    Reference: Yeom et al., Privacy Risk in Machine Learning: Analyzing the Connection to Overfitting, CSF 2018, arXiv
    1709.01604 (the attack by loss). Stronger ones: Carlini et al., Membership Inference Attacks From First Principles,
    S&P 2022, arXiv 2112.03570.
    Departures: events in place of examples; the AUC in place of one threshold.
    """
    member, other = (log_likelihoods(model, cases) for cases in membership_cases(histories, rng, users=users))
    return attack_auc(member, other, rng, paired=True, resamples=resamples)
