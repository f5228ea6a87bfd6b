"""GORACS: a group of users that is near the validation users as a whole, and not too hard."""

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from jaxtyping import Float, Int

from recdistill.data.batches import HardItems
from recdistill.data.development import Development
from recdistill.data.sequences import evaluation_cases
from recdistill.distill.coresets.gradients import UserGradients
from recdistill.distill.coresets.representations import user_vectors
from recdistill.distill.coresets.selection import UserSelector, usable_users
from recdistill.errors import InputError, OptionError, require_at_least
from recdistill.models.base import Recommender
from recdistill.rng import Streams
from recdistill.training.trajectory import Trajectory


@dataclass(frozen=True, kw_only=True)
class GORACS(UserSelector):
    """Users whose vectors are transported to those of the validation events most cheaply, as a group.

    The cost of a pair is the distance of its vectors, less ``gradient_weight`` times the norm of the user's gradient,
    each divided by its maximum. Users are first chosen greedily, so that every event has a near one; then users are
    exchanged as long as the optimal transport becomes cheaper.

    When not to use it: without validation events.

    Reference: Mei et al., GORACS: Group-level Optimal Transport-guided Coreset Selection for LLM-based Recommender
    Systems, KDD 2025, arXiv 2506.04015.

    Departures: gradients are in one matrix of the sequence model
    (:func:`~recdistill.distill.coresets.gradients.probed_weight`). Where there are more validation events than
    ``most_events``, some are drawn.
    """

    method: ClassVar[str] = "goracs"

    gradient_weight: float = 0.1
    """Weight of the gradient's norm (lambda), 0 or more."""
    iterations: int = 100
    """Most exchanges, 0 or more."""
    cut: int = 30
    """Users inside and outside that are tried in an exchange, at least 1."""
    most_events: int = 2000
    """Most validation events, at least 1."""

    def __post_init__(self) -> None:
        """Check every field."""
        super().__post_init__()
        require_at_least(0, gradient_weight=self.gradient_weight, iterations=self.iterations)
        require_at_least(1, cut=self.cut, most_events=self.most_events)

    def check(self, train: Development) -> None:
        """Raise when the budget is larger than the data, or when there are no validation events."""
        super().check(train)
        _library()
        if len(evaluation_cases(train.histories, "valid")) == 0:
            raise OptionError("--method", self.method, fix="needs validation events; prepare with another --split")

    @torch.no_grad()
    def choose_users(self, train: Development, teacher: Trajectory, rng: Streams) -> Int[np.ndarray, " N"]:
        """Return the chosen users."""
        users, model = usable_users(train), teacher.best()
        points = user_vectors(model, train, users)
        targets = self.event_vectors(model, train, rng)
        gradients = UserGradients(model, train, min(self.length, model.max_seq_len + 1))
        costs = costs_of(torch.cdist(points, targets), gradients.norms(users), self.gradient_weight)
        chosen = greedy_group(costs, self.num_rows)
        return users[exchanged(costs, chosen, self.iterations, self.cut)]

    @torch.no_grad()
    def event_vectors(self, model: Recommender, train: Development, rng: Streams) -> torch.Tensor:
        """Return what the model makes of the histories before validation events, (events, D)."""
        cases = evaluation_cases(train.histories, "valid").some(self.most_events, rng.numpy("events"))
        items, lengths = cases.histories(np.arange(len(cases)), model.max_seq_len)
        parts = zip(items.ids.split(512), lengths.split(512), strict=True)
        return torch.cat([model.represent(HardItems(ids), some) for ids, some in parts])


def costs_of(
    distances: Float[torch.Tensor, "U M"], norms: Float[torch.Tensor, " U"], gradient_weight: float
) -> Float[np.ndarray, "U M"]:
    """Return the cost of transporting each user to each event, in [0, 1]."""
    far, hard = distances.max().clamp(min=1e-12), norms.max().clamp(min=1e-12)
    costs = distances / far - gradient_weight * (norms / hard).unsqueeze(1)
    low, high = costs.min(), costs.max()
    return ((costs - low) / (high - low).clamp(min=1e-12)).double().numpy()


def greedy_group(costs: Float[np.ndarray, "U M"], count: int) -> Int[np.ndarray, " N"]:
    """Return rows such that every column has a cheap one: greedy facility location.

    Rows that are nobody's cheapest any more are dropped, and others taken, until ``count`` are left; a row that was
    dropped is not taken again.

    Args:
        costs: at least ``count`` rows.
        count: 1 or more.
    """
    chosen: list[int] = []
    free = np.ones(len(costs), dtype=bool)
    cheapest = np.full(costs.shape[1], np.inf)
    while len(chosen) < count:
        if not free.any():  # every row was tried: the dropped ones cost nothing, so take them as they come
            rest = [row for row in range(len(costs)) if row not in set(chosen)]
            return np.array(chosen + rest[: count - len(chosen)])
        totals = np.minimum(costs, cheapest).sum(1)
        totals[~free] = np.inf
        best = int(totals.argmin())
        free[best] = False
        chosen.append(best)
        owners = np.array(chosen)[costs[chosen].argmin(0)]
        chosen = [row for row in chosen if (owners == row).any()]
        cheapest = costs[chosen].min(0)
    return np.array(chosen)


def transport(costs: Float[np.ndarray, "N M"]) -> tuple[float, Float[np.ndarray, " N"]]:
    """Return the cost of the optimal transport between uniform weights, and the potentials of the rows."""
    rows, columns = costs.shape
    _, log = _library().emd(
        np.full(rows, 1 / rows), np.full(columns, 1 / columns), np.ascontiguousarray(costs), log=True
    )
    return float(log["cost"]), np.asarray(log["u"])


def exchanged(
    costs: Float[np.ndarray, "U M"], chosen: Int[np.ndarray, " N"], iterations: int, cut: int
) -> Int[np.ndarray, " N"]:
    """Return a group that no tried exchange of one row makes cheaper, or the one after ``iterations`` exchanges.

    An exchange is looked for between the ``cut`` rows inside that seem worst and the ``cut`` rows outside that seem
    best, by what the potentials promise; the first that lowers the cost is made.
    """
    chosen = chosen.copy()
    value, potentials = transport(costs[chosen])
    for _ in range(iterations):
        promise = promised(costs, chosen, potentials)
        inside = chosen[np.argsort(-promise[chosen], kind="stable")][:cut]
        outside = np.setdiff1d(np.arange(len(costs)), chosen)
        outside = outside[np.argsort(promise[outside], kind="stable")][:cut]
        for gone, come in ((gone, come) for gone in inside for come in outside):
            tried = np.where(chosen == gone, come, chosen)
            other, found = transport(costs[tried])
            if other < value - 1e-12:
                chosen, value, potentials = tried, other, found
                break
        else:
            break
    return chosen


def promised(
    costs: Float[np.ndarray, "U M"], chosen: Int[np.ndarray, " N"], potentials: Float[np.ndarray, " N"]
) -> Float[np.ndarray, " U"]:
    """Return what each row would change in the transport's cost, as the potentials promise: the lower, the better.

    With ``f_j`` the cheapest way to column ``j`` from the rows inside (other than the row itself), and ``y_e`` the
    ``ceil(M / N)``-th largest of ``C_ej - f_j``, this is ``mean_j min(C_ej - y_e - f_j, 0) + y_e / N``.
    """
    columns, rows = costs.shape[1], len(chosen)
    reduced = costs[chosen] - potentials[:, None]  # (N, M)
    order = np.argsort(reduced, axis=0, kind="stable")[:2]
    cheapest = np.take_along_axis(reduced, order, axis=0)
    without = np.where(np.arange(rows)[:, None] == order[0], cheapest[min(1, rows - 1)], cheapest[0])  # (N, M)
    found = np.empty(len(costs))
    share = -(-columns // rows)
    place = {int(row): index for index, row in enumerate(chosen)}
    for row in range(len(costs)):
        floor = without[place[row]] if row in place else cheapest[0]
        gains = costs[row] - floor
        level = np.partition(gains, columns - share)[columns - share]
        found[row] = np.minimum(gains - level, 0).mean() + level / rows
    return found


def _library() -> Any:
    try:
        import ot
    except ImportError:
        raise InputError(
            "method goracs needs the package POT (optimal transport); install it with: pip install 'recdistill[ot]'"
        ) from None
    return ot
