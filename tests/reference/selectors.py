"""Selectors as loops over plain numbers and single rows."""

import math
from collections.abc import Sequence

import torch

from recdistill.data.batches import HardItems
from recdistill.models.base import Recommender

Point = Sequence[float]


def mean_of(points: Sequence[Point]) -> list[float]:
    """Return the mean of each coordinate."""
    return [math.fsum(values) / len(points) for values in zip(*points, strict=True)]


def k_center(points: Sequence[Point], count: int) -> list[int]:
    """Return the point nearest the mean, then always the one whose nearest chosen point is farthest."""
    mean = mean_of(points)
    chosen = [min(range(len(points)), key=lambda index: math.dist(points[index], mean))]
    while len(chosen) < count:
        others = [index for index in range(len(points)) if index not in chosen]
        chosen.append(max(others, key=lambda index: radius([points[index]], [points[other] for other in chosen])))
    return chosen


def radius(points: Sequence[Point], centers: Sequence[Point]) -> float:
    """Return the largest distance of a point from its nearest center."""
    return max(min(math.dist(point, center) for center in centers) for point in points)


def herding(points: Sequence[Point], count: int) -> list[int]:
    """Return points by their product with what is missing: (chosen + 1) means less the sum of the chosen."""
    mean, chosen = mean_of(points), []
    for step in range(count):
        missing = [(step + 1) * value - sum(points[index][axis] for index in chosen) for axis, value in enumerate(mean)]
        others = [index for index in range(len(points)) if index not in chosen]
        chosen.append(max(others, key=lambda index: sum(a * b for a, b in zip(missing, points[index], strict=True))))
    return chosen


@torch.no_grad()
def vector(model: Recommender, events: Sequence[int]) -> list[float]:
    """Return the user vector after the last of ``events``, read alone."""
    shown = list(events)[-model.max_seq_len :]
    return model.represent(HardItems(torch.tensor([shown])), torch.tensor([len(shown)]))[0].tolist()


@torch.no_grad()
def el2n(models: Sequence[Recommender], events: Sequence[int], length: int) -> float:
    """Return the mean error of predicting each of the last ``length`` events from those before it."""
    errors = []
    for model in models:
        row = list(events)[-min(length, model.max_seq_len + 1) :]
        for place in range(1, len(row)):
            user = model.represent(HardItems(torch.tensor([row[:place]])), torch.tensor([place]))
            missing = torch.softmax(model.score(user)[0].double(), 0)
            missing[row[place] - 1] -= 1
            errors.append(math.sqrt(math.fsum(value**2 for value in missing.tolist())))
    return sum(errors) / len(errors)
