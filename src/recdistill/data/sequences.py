"""User histories on disk, and the rows that training and evaluation take from them.

Histories are three memory-mapped arrays, so a model trains on a log of any length without loading it: a batch reads
only the positions that it shows.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal, Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Bool, Float, Int

from recdistill.data.batches import PAD, HardItems, SequenceBatch, mask_of
from recdistill.errors import OptionError

Part = Literal["valid", "test"]


@runtime_checkable
class TrainingData(Protocol):
    """Anything a model can train on, real or distilled."""

    def __len__(self) -> int:
        """Return the number of rows."""
        ...

    def batch(self, rows: Int[torch.Tensor, " B"]) -> SequenceBatch:
        """Return some rows, with targets at every position."""
        ...

    def item_counts(self, num_items: int) -> Float[torch.Tensor, " V1"]:
        """Return how often each item occurs; index 0 is padding."""
        ...


@dataclass(frozen=True)
class Histories:
    """The items of every user, oldest first, users one after another.

    Args:
        items: int32, all events.
        offsets: int64, user ``u`` owns ``items[offsets[u]:offsets[u + 1]]``.
        train_end, valid_end: absolute positions where the training and the validation part of each user end.
    """

    items: Int[np.ndarray, " n"]
    offsets: Int[np.ndarray, " U1"]
    train_end: Int[np.ndarray, " U"]
    valid_end: Int[np.ndarray, " U"]

    @property
    def num_users(self) -> int:
        """Number of users."""
        return len(self.train_end)

    def train_lengths(self) -> Int[np.ndarray, " U"]:
        """Return the number of training events of each user."""
        return self.train_end - self.offsets[:-1]

    def train_counts(self, num_items: int) -> Int[np.ndarray, " V1"]:
        """Return the number of training events of each item; index 0 is padding."""
        return _counts(self.items, self.offsets[:-1], self.train_end, num_items)

    def development(self) -> "Histories":
        """Return the histories without the test part: what a distiller may see."""
        blocks = [inside for _, inside in _covered(self.offsets[:-1], self.valid_end, len(self.items))]
        keep = np.concatenate([np.zeros(0, dtype=bool), *blocks])
        sizes = self.valid_end - self.offsets[:-1]
        offsets = np.concatenate([[0], np.cumsum(sizes)])
        train_end = offsets[:-1] + self.train_lengths()
        return Histories(self.items[keep], offsets, train_end, offsets[1:])


def _covered(
    starts: np.ndarray, stops: np.ndarray, size: int, block: int = 1 << 22
) -> Iterator[tuple[int, Bool[np.ndarray, " part"]]]:
    """Yield blocks of the positions 0 to ``size``: where each begins, and which positions lie in one span or more."""
    starts, stops = np.sort(starts), np.sort(stops)
    for low in range(0, size, block):
        count = min(block, size - low)
        (first, last), (ended, ends) = (np.searchsorted(some, [low, low + count]) for some in (starts, stops))
        begun = np.bincount(starts[first:last] - low, minlength=count)
        over = np.bincount(stops[ended:ends] - low, minlength=count)
        yield low, first - ended + np.cumsum(begun - over) > 0


def _counts(items: np.ndarray, starts: np.ndarray, stops: np.ndarray, num_items: int) -> Int[np.ndarray, " V1"]:
    """Return how often each item stands in the spans, each position counted once."""
    counts = np.zeros(num_items + 1, dtype=np.int64)
    for low, inside in _covered(starts, stops, len(items)):
        counts += np.bincount(items[low : low + len(inside)][inside], minlength=num_items + 1)
    return counts


@dataclass(frozen=True)
class SequenceRows:
    """Training rows cut from histories: row ``r`` is ``items[start[r]:stop[r]]``.

    The inputs are all items of a row but the last, the targets all but the first.
    """

    items: Int[np.ndarray, " n"]
    start: Int[np.ndarray, " rows"]
    stop: Int[np.ndarray, " rows"]
    max_seq_len: int
    users: Int[np.ndarray, " rows"]

    def __len__(self) -> int:
        """Return the number of rows."""
        return len(self.start)

    def batch(self, rows: Int[torch.Tensor, " B"]) -> SequenceBatch:
        """Return some rows with targets at every position, as wide as the longest of them."""
        index = rows.numpy()
        ids = gather_spans(self.items, self.start[index], self.stop[index])
        lengths = torch.from_numpy(self.stop[index] - self.start[index] - 1)
        return hard_batch(ids, lengths)

    def item_counts(self, num_items: int) -> Float[torch.Tensor, " V1"]:
        """Return how often each item is an input or target, each event counted once."""
        return torch.from_numpy(_counts(self.items, self.start, self.stop, num_items)).float()


def gather_spans(items: np.ndarray, start: np.ndarray, stop: np.ndarray) -> Int[torch.Tensor, "B T"]:
    """Return ``items[start[b]:stop[b]]`` as left-aligned rows filled up with padding."""
    width = int((stop - start).max(initial=1))
    index = start[:, None] + np.arange(width)
    inside = index < stop[:, None]
    return torch.from_numpy(np.where(inside, items[np.minimum(index, len(items) - 1)], PAD).astype(np.int64))


def hard_batch(ids: Int[torch.Tensor, "B T1"], lengths: Int[torch.Tensor, " B"]) -> SequenceBatch:
    """Return a batch that predicts each next item of rows of ids; ``lengths`` counts the inputs."""
    weights = mask_of(lengths, ids.shape[1] - 1).float()
    return SequenceBatch(items=HardItems(ids), lengths=lengths, weights=weights)


def windows(histories: Histories, max_seq_len: int) -> SequenceRows:
    """Return rows that together predict every training event but each user's first exactly once.

    A history is cut from its end into spans of ``max_seq_len`` predictions; neighbours share one item.
    """
    start, stop, users = [], [], []
    for user, (first, end) in enumerate(
        zip(histories.offsets[:-1].tolist(), histories.train_end.tolist(), strict=True)
    ):
        while end - first >= 2:
            start.append(max(first, end - max_seq_len - 1))
            stop.append(end)
            users.append(user)
            end -= max_seq_len
    first, last, owners = (np.array(values, dtype=np.int64) for values in (start, stop, users))
    return SequenceRows(histories.items, first, last, max_seq_len, owners)


def prefixes(histories: Histories, max_seq_len: int) -> SequenceRows:
    """Return one row per training event but each user's first: the event and at most ``max_seq_len`` before it.

    RecBole's prefix augmentation; meant for the objective ``last``.
    """
    lengths = np.maximum(histories.train_lengths() - 1, 0)
    users = np.repeat(np.arange(histories.num_users), lengths)
    within = np.arange(lengths.sum()) - np.repeat(np.cumsum(lengths) - lengths, lengths)
    first = histories.offsets[:-1][users]
    stop = first + within + 2
    return SequenceRows(histories.items, np.maximum(first, stop - max_seq_len - 1), stop, max_seq_len, users)


ROWS = {"windows": windows, "prefixes": prefixes}


def training_rows(histories: Histories, max_seq_len: int, rows: str) -> SequenceRows:
    """Return the training rows of the kind ``rows``: ``windows`` or ``prefixes``.

    Raises:
        OptionError: no user has two training events.
    """
    made = ROWS[rows](histories, max_seq_len)
    if len(made) == 0:
        raise OptionError(
            "training data", 0, fix="rows: no user has two training events; prepare with a larger --k-core"
        )
    return made


@dataclass(frozen=True)
class EvaluationCases:
    """Held-out events: each is predicted from everything that the same user did before it.

    Args:
        items: all events, as in :class:`Histories`.
        begin: where the user's history begins.
        position: where the held-out event stands.
        end: where the user's history ends, the future included (negatives are drawn outside all of it).
        users: the user of each case.
    """

    items: Int[np.ndarray, " n"]
    begin: Int[np.ndarray, " cases"]
    position: Int[np.ndarray, " cases"]
    end: Int[np.ndarray, " cases"]
    users: Int[np.ndarray, " cases"]

    def __len__(self) -> int:
        """Return the number of held-out events."""
        return len(self.position)

    def some(self, count: int, rng: np.random.Generator) -> "EvaluationCases":
        """Return ``count`` of the cases, uniform without replacement, in order; all, where there are no more."""
        if count >= len(self):
            return self
        chosen = np.sort(rng.choice(len(self), count, replace=False))
        arrays = (self.begin[chosen], self.position[chosen], self.end[chosen], self.users[chosen])
        return EvaluationCases(self.items, *arrays)

    def targets(self, rows: np.ndarray) -> Int[torch.Tensor, " B"]:
        """Return the held-out item ids."""
        return torch.from_numpy(self.items[self.position[rows]].astype(np.int64))

    def histories(self, rows: np.ndarray, max_seq_len: int) -> tuple[HardItems, Int[torch.Tensor, " B"]]:
        """Return what came before the held-out events, at most ``max_seq_len`` items each, and the lengths."""
        stop = self.position[rows]
        start = np.maximum(self.begin[rows], stop - max_seq_len)
        return HardItems(gather_spans(self.items, start, stop)), torch.from_numpy(stop - start)

    def seen(self, rows: np.ndarray, *, future: bool) -> tuple[Int[np.ndarray, " k"], Int[np.ndarray, " k"]]:
        """Return (row, item) pairs of what each user touched before the event, or, with ``future``, at any time."""
        stop = self.end[rows] if future else self.position[rows]
        spans = [np.asarray(self.items[a:b]) for a, b in zip(self.begin[rows], stop, strict=True)]
        sizes = [len(span) for span in spans]
        return np.repeat(np.arange(len(rows)), sizes), np.concatenate([*spans, np.empty(0, np.int32)]).astype(np.int64)


def evaluation_cases(histories: Histories, part: Part) -> EvaluationCases:
    """Return the held-out events of ``part`` that have at least one event of the same user before them."""
    first, last = (
        (histories.train_end, histories.valid_end) if part == "valid" else (histories.valid_end, histories.offsets[1:])
    )
    sizes = last - first
    users = np.repeat(np.arange(histories.num_users), sizes)
    within = np.arange(sizes.sum()) - np.repeat(np.cumsum(sizes) - sizes, sizes)
    position = first[users] + within
    begin = histories.offsets[:-1][users]
    keep = position > begin
    users, position, begin = users[keep], position[keep], begin[keep]
    return EvaluationCases(histories.items, begin, position, histories.offsets[1:][users], users)
