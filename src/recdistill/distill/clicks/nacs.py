"""NaCS: a coreset of clicks by gradients of a corrected loss, without the samples that a model is least sure of."""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from scipy.special import expit

from recdistill.data.clicks.block import ClickBlock
from recdistill.errors import require_above, require_at_least, require_rate
from recdistill.evaluation.clicks import predicted
from recdistill.models.clicks import CLICK_MODELS
from recdistill.models.clicks.base import ClickModel
from recdistill.rng import Streams, generator_at
from recdistill.training.clicks import ClickRecipe, fit_clicks

CONFIDENCE = 1.96
"""Standard errors of the upper loss."""


@dataclass(frozen=True, kw_only=True)
class NaCS:
    """Samples whose gradients stand for those of all, in rounds; then the most doubtful are left out.

    In each round a model is trained on what is chosen so far, beginning with random rows. A sample is the derivative of
    its corrected loss in the predicted chance, smoothed over rounds as Adam smooths gradients. Within each label and
    each random part of the log, rows are chosen greedily so that every gradient has a near one among them: facility
    location on ``1 - |g_i - g_j|``, with a random sample of candidates per choice. The label of the correction moves
    from the log's to the model's chance, the more the later the round and the surer the model.

    When not to use it: where the rate of clicks matters. It takes as many clicked rows as others.

    Reference: NaCS (noise-aware coreset selection for click-through rate prediction), the rules of its authors' code;
    the correction is ProSelfLC, Wang et al., CVPR 2021.

    Departures: models of a round are this library's DeepFM, in steps of its own size; losses of the dropout passes are
    of the log's labels; the size of a part is ours.
    """

    rounds: int = 3
    """Rounds, at least 1."""
    epsilon: float = 1e-3
    """Accuracy of a greedy choice, in (0, 1): candidates are ``rows ln(1 / epsilon) / choices``."""
    part: int = 4096
    """Rows of one label that choose among themselves, at least 2."""
    drop: float = 0.1
    """Share of the chosen that is left out as doubtful, in [0, 1)."""
    passes: int = 10
    """Predictions with dropout behind the doubt, at least 2."""
    dropout: float = 0.2
    """Rate in these and in training, in (0, 1)."""
    learning_rate: float = 1e-2
    """Adam step size, above 0."""

    def __post_init__(self) -> None:
        """Check every field."""
        require_at_least(1, rounds=self.rounds)
        require_at_least(2, part=self.part, passes=self.passes)
        require_above(0, learning_rate=self.learning_rate, epsilon=self.epsilon, dropout=self.dropout)
        require_rate(drop=self.drop, epsilon=self.epsilon, dropout=self.dropout)

    def choose(self, block: ClickBlock, num_ids: tuple[int, ...], count: int, rng: Streams) -> Int[np.ndarray, " m"]:
        """Return ``count`` rows, ascending; half of them clicked where there are so many.

        Args:
            block: the samples.
            num_ids: ids of each field.
            count: from 2 to the number of rows.
            rng: streams ``start`` and those of each round.
        """
        wanted = min(len(block), math.ceil(count / (1 - self.drop)))
        rows = rng.numpy("start").choice(len(block), wanted, replace=False)
        smoothed, squared = np.zeros(len(block)), np.zeros(len(block))
        for number in range(1, self.rounds + 1):
            mine = rng.child(f"round {number}")
            model = self._trained(block.some(np.sort(rows)), num_ids, mine)
            gradient = corrected_gradient(expit(predicted(model, block)), block.labels, number / self.rounds)
            smoothed, squared = 0.9 * smoothed + 0.1 * gradient, 0.999 * squared + 0.001 * gradient**2
            scaled = (smoothed / (1 - 0.9**number)) / (np.sqrt(squared / (1 - 0.999**number)) + 1e-8)
            rows = self._covering(scaled, block.labels > 0.5, wanted, mine)
        doubt = self._upper_losses(model, block.some(rows), rng)
        return np.sort(rows[np.argsort(doubt, kind="stable")[:count]])

    def _trained(self, block: ClickBlock, num_ids: tuple[int, ...], rng: Streams) -> ClickModel:
        options: dict[str, Any] = {"dropout": self.dropout, "generator": rng.torch("model")}
        model = CLICK_MODELS["deepfm"](num_ids, block.widths, **options)
        fit_clicks(model, block, ClickRecipe(learning_rate=self.learning_rate, steps_per_epoch=100), rng)
        return model

    def _covering(self, values: np.ndarray, clicked: np.ndarray, wanted: int, rng: Streams) -> np.ndarray:
        half = min(wanted // 2, int(clicked.sum()))
        half = max(half, wanted - int((~clicked).sum()))
        draw, found = rng.numpy("parts"), []
        for rows, count in ((np.flatnonzero(clicked), half), (np.flatnonzero(~clicked), wanted - half)):
            parts = np.array_split(draw.permutation(rows), max(1, len(rows) // self.part))
            ends = np.round(np.linspace(0, count, len(parts) + 1)).astype(int)
            for part, size in zip(parts, np.diff(ends), strict=True):
                found.append(part[facility_location(values[part], int(size), self.epsilon, draw)])
        return np.concatenate(found)

    @torch.no_grad()
    def _upper_losses(self, model: ClickModel, block: ClickBlock, rng: Streams) -> Float[np.ndarray, " n"]:
        seed, labels, losses = rng.integer("doubt"), block.labels, []
        vectors = model.embed(block.batch(slice(None)))
        for turn in range(self.passes):
            logits = model.logits(vectors, generator_at(seed, turn)).double().numpy()
            losses.append(np.logaddexp(0.0, logits) - labels * logits)
        stacked = np.stack(losses)
        found: np.ndarray = stacked.mean(0) + CONFIDENCE * stacked.std(0, ddof=1) / math.sqrt(self.passes)
        return found


def corrected_gradient(
    chance: Float[np.ndarray, " n"], labels: Float[np.ndarray, " n"], progress: float
) -> Float[np.ndarray, " n"]:
    """Return the derivative in the chance of the cross-entropy with labels that lean to the model.

    ``target = (1 - e) y + e p`` with ``e = sigmoid(16 (t - .5)) (1 - H(p) / ln 2)``: late, and where the model is sure.

    Args:
        chance: predicted, in (0, 1).
        labels: 0 or 1.
        progress: t, from 0 to 1.
    """
    safe = np.clip(chance.astype(np.float64), 1e-6, 1 - 1e-6)
    entropy = -(safe * np.log(safe) + (1 - safe) * np.log(1 - safe))
    trust = expit(16 * (progress - 0.5)) * (1 - entropy / math.log(2))
    target = (1 - trust) * labels + trust * safe
    found: np.ndarray = (safe - target) / (safe * (1 - safe))
    return found


def facility_location(
    values: Float[np.ndarray, " n"], count: int, epsilon: float, draw: np.random.Generator
) -> Int[np.ndarray, " m"]:
    """Return places of ``count`` numbers that leave each number near one of them, by stochastic greedy choices.

    Reference: Mirzasoleiman et al., Lazier Than Lazy Greedy, AAAI 2015, arXiv 1409.7938, algorithm 1.
    """
    nearest = np.full(len(values), np.inf)
    free, chosen = np.arange(len(values)), []
    size = max(1, math.ceil(len(values) * math.log(1 / epsilon) / max(1, count)))
    for _ in range(count):
        asked = draw.choice(len(free), min(size, len(free)), replace=False)
        distances = np.abs(values[free[asked], None] - values)
        best = asked[int(np.argmin(np.minimum(distances, nearest).sum(1)))]
        chosen.append(int(free[best]))
        nearest = np.minimum(nearest, np.abs(values - values[free[best]]))
        free = np.delete(free, best)
    return np.array(chosen, dtype=np.int64)
