"""How a held-out event is ranked.

``full``: against the whole catalogue, without the items that the user touched before the event. ``uni100``: against 100
uniform items that the user never touched, before or after; a protocol of the literature, always labelled, because it
flatters every model (Krichene and Rendle, On Sampled Metrics for Item Recommendation, KDD 2020).
"""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from recdistill.data.sequences import EvaluationCases
from recdistill.errors import choose
from recdistill.evaluation.metrics import per_case, pessimistic_ranks
from recdistill.models.base import Recommender
from recdistill.progress import SILENT, Progress
from recdistill.rng import Streams

NUM_NEGATIVES = 100
CASES_PER_BATCH = 512
ITEMS_PER_BLOCK = 65_536


@dataclass(frozen=True)
class Scores:
    """What a model scored.

    Args:
        protocol: ``full`` or ``uni100``.
        ranks: rank of each held-out item, 1 is best.
        users: user index of each held-out event.
    """

    protocol: str
    ranks: Int[Tensor, " N"]
    users: Int[np.ndarray, " N"]

    def metrics(self) -> dict[str, float]:
        """Return the mean of every metric over the held-out events, as fractions."""
        return {name: float(values.mean()) for name, values in per_case(self.ranks).items()}


def full_ranks(
    model: Recommender, cases: EvaluationCases, rows: np.ndarray, *, block: int = ITEMS_PER_BLOCK
) -> Int[Tensor, " B"]:
    """Return exact ranks in the full catalogue, computed in blocks of ``block`` items.

    Memory depends on the block and not on the catalogue. The target's score is read from the same product as its
    rivals', so that items with equal vectors tie exactly; with more than one block that costs a second pass.
    """
    device = model.device
    users = user_vectors(model, cases, rows)
    targets = cases.targets(rows).to(device)
    seen_row, seen_item = (torch.from_numpy(part).to(device) for part in cases.seen(rows, future=False))
    starts = range(1, model.num_items + 1, block)
    first = model.score(users, slice(1, min(1 + block, model.num_items + 1)))
    target_scores = torch.full(targets.shape, float("nan"), dtype=first.dtype, device=device)
    for start in starts:
        scores = first if start == 1 else model.score(users, slice(start, min(start + block, model.num_items + 1)))
        inside = (targets >= start) & (targets < start + scores.shape[1])
        target_scores[inside] = scores[inside, targets[inside] - start]
    ranks = torch.ones_like(targets)
    for start in starts:
        scores = first if start == 1 else model.score(users, slice(start, min(start + block, model.num_items + 1)))
        counted = torch.ones_like(scores, dtype=torch.bool)
        for row, item in ((seen_row, seen_item), (torch.arange(len(targets), device=device), targets)):
            inside = (item >= start) & (item < start + scores.shape[1])
            counted[row[inside], item[inside] - start] = False
        ranks += pessimistic_ranks(scores, target_scores, counted) - 1
    return ranks.cpu()


def user_vectors(model: Recommender, cases: EvaluationCases, rows: np.ndarray) -> Float[Tensor, "B D"]:
    """Return what the model makes of each history before the held-out event."""
    device = model.device
    items, lengths = cases.histories(rows, model.max_seq_len)
    return model.represent(items.to(device), lengths.to(device))


def draw_negatives(
    cases: EvaluationCases, rows: np.ndarray, num_items: int, rng: np.random.Generator
) -> Int[np.ndarray, "B C"]:
    """Return 100 items per case, uniform without replacement among those the user never touched; 0 where too few."""
    negatives = np.zeros((len(rows), NUM_NEGATIVES), dtype=np.int64)
    row_of, item_of = cases.seen(rows, future=True)
    bounds = np.searchsorted(row_of, np.arange(len(rows) + 1))
    for index in range(len(rows)):
        free = np.ones(num_items + 1, dtype=bool)
        free[0] = False
        free[item_of[bounds[index] : bounds[index + 1]]] = False
        pool = np.flatnonzero(free)
        size = min(NUM_NEGATIVES, len(pool))
        negatives[index, :size] = rng.choice(pool, size, replace=False)
    return negatives


def uni100_ranks(model: Recommender, cases: EvaluationCases, rows: np.ndarray, rng: np.random.Generator) -> Tensor:
    """Return ranks among 100 uniform items that the user never touched."""
    device = model.device
    users = user_vectors(model, cases, rows)
    negatives = torch.from_numpy(draw_negatives(cases, rows, model.num_items, rng)).to(device)
    candidates = torch.cat([cases.targets(rows).to(device)[:, None], negatives], dim=1)  # (B, 101)
    vectors = model.item_table[candidates].double()
    scores = torch.einsum("bd,bcd->bc", users.double(), vectors).to(users.dtype)  # as in Recommender.score
    return pessimistic_ranks(scores[:, 1:], scores[:, 0], negatives > 0).cpu()


def _full(model: Recommender, cases: EvaluationCases, rows: np.ndarray, rng: np.random.Generator) -> Tensor:
    return full_ranks(model, cases, rows)


PROTOCOLS = {"full": _full, "uni100": uni100_ranks}


@torch.no_grad()
def evaluate(
    model: Recommender,
    cases: EvaluationCases,
    *,
    protocol: str = "full",
    seed: int = 0,
    progress: Progress = SILENT,
) -> Scores:
    """Return the rank of every held-out event.

    Args:
        model: a trained recommender.
        cases: held-out events.
        protocol: ``full`` or ``uni100``.
        seed: of the negatives of ``uni100``; the same seed gives every model the same negatives.
        progress: told after each batch of cases.

    Raises:
        OptionError: the protocol is not known.
        NumericalError: a score is NaN.
    """
    ranks_of = choose("--protocol", protocol, PROTOCOLS)
    rng, model = Streams(seed).numpy("negatives"), model.fixed()
    ranks = []
    for start in range(0, len(cases), CASES_PER_BATCH):
        rows = np.arange(start, min(start + CASES_PER_BATCH, len(cases)))
        ranks.append(ranks_of(model, cases, rows, rng))
        progress("evaluate", int(rows[-1]) + 1, len(cases))
    joined = torch.cat(ranks) if ranks else torch.empty(0, dtype=torch.long)
    return Scores(protocol=protocol, ranks=joined, users=cases.users)
