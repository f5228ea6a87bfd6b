"""Labels on which several models agree: how much each is to be believed, and queries that say what the mixture says."""

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from recdistill.data.batches import LOGITS_BYTES
from recdistill.data.rows import HardRows
from recdistill.data.sequences import EvaluationCases
from recdistill.distill.coresets.random_soft import hidden_states
from recdistill.evaluation.protocols import user_vectors
from recdistill.models.base import Recommender

CASES_PER_BLOCK = 512
"""Held-out events that are scored at once."""
WEIGHT_STEPS = 500
"""Steps of the search for weights; each makes the events more likely, and the last ones change the fourth decimal."""
FIT_STEPS, FIT_RATE = 400, 0.05
FIT_EPS = 1e-5
"""Added to Adam's root: far below the gradients of a label that is off, far above the rounding of one that is not."""


def mixture_weights(models: Sequence[Recommender], cases: EvaluationCases) -> Float[Tensor, " M"]:
    """Return the weights, 0 or more with sum 1, under which a mixture of models makes held-out events most likely.

    A concave problem, solved by expectation and maximisation from equal weights. A model that is far behind the others
    gets little: averaged as if it knew as much, it would blur what they say.

    Args:
        models: whose distributions over all items are mixed; all on the CPU.
        cases: held-out events on which no model was trained; with none, the weights are equal.

    Reference: the linear opinion pool; its weights as in Dempster, Laird and Rubin, Maximum Likelihood from Incomplete
    Data via the EM Algorithm, JRSS B 39, 1977, for a mixture of known components.
    """
    weights = torch.full((len(models),), 1 / len(models), dtype=torch.float64)
    if len(models) == 1 or len(cases) == 0:
        return weights.float()
    likelihoods = torch.stack([event_log_likelihoods(model, cases) for model in models])
    scaled = (likelihoods - likelihoods.amax(0)).exp()  # what all models share says nothing about their weights
    for _ in range(WEIGHT_STEPS):
        shares = weights.unsqueeze(1) * scaled
        weights = (shares / shares.sum(0)).mean(1)
    return weights.float()


@torch.no_grad()
def event_log_likelihoods(model: Recommender, cases: EvaluationCases) -> Float[Tensor, " E"]:
    """Return the logarithm of the model's probability of each held-out event, among all items, in float64."""
    parts = []
    for start in range(0, len(cases), CASES_PER_BLOCK):
        rows = np.arange(start, min(start + CASES_PER_BLOCK, len(cases)))
        logs = torch.log_softmax(model.score(user_vectors(model, cases, rows)).double(), -1)
        parts.append(logs.gather(1, (cases.targets(rows) - 1).unsqueeze(1)).squeeze(1))
    return torch.cat(parts)


def mixture_queries(
    models: Sequence[Recommender],
    weights: Float[Tensor, " M"],
    rows: HardRows,
    keys: Float[Tensor, "V R"],
    start: Float[Tensor, "N T R"],
) -> Float[Tensor, "N T R"]:
    """Return queries whose distributions over ``keys`` are nearest to a mixture of several models' own.

    Nearest in Kullback-Leibler divergence from the mixture, position by position: convex problems, solved together by
    Adam. Padding keeps its query.

    Args:
        models: whose distributions are mixed.
        weights: of each, with sum 1.
        rows: what they read.
        keys: of the labels, one per item.
        start: where the search begins.
    """
    real = torch.arange(rows.length) < rows.lengths.unsqueeze(1)
    states = [hidden_states(model, rows)[real] for model in models]
    queries, found = start[real], start.clone()
    parts, block = [], max(1, LOGITS_BYTES // (4 * len(keys)))
    for low in range(0, len(queries), block):
        cut = slice(low, low + block)
        target = torch.zeros(len(queries[cut]), len(keys))
        for model, weight, hidden in zip(models, weights, states, strict=True):
            with torch.no_grad():
                target += weight * torch.softmax(hidden[cut] @ model.item_table[1:].T, -1)
        parts.append(_nearest(queries[cut], keys, target))
    found[real] = torch.cat(parts)
    return found


def _nearest(
    queries: Float[Tensor, "n R"], keys: Float[Tensor, "V R"], target: Float[Tensor, "n V"]
) -> Float[Tensor, "n R"]:
    wanted = target @ keys
    queries = queries.clone().requires_grad_()
    optimizer = torch.optim.Adam([queries], lr=FIT_RATE, eps=FIT_EPS)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, FIT_STEPS)
    for _ in range(FIT_STEPS):
        optimizer.zero_grad()
        with torch.no_grad():  # the gradient of logsumexp(q K^T) - <q, K^T p> is known
            queries.grad = torch.softmax(queries @ keys.T, -1) @ keys - wanted
        optimizer.step()
        schedule.step()
    return queries.detach()
