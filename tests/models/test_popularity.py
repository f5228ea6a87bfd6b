"""Popularity ranks by counts and has nothing to train."""

import torch

from recdistill.data.batches import HardItems
from recdistill.data.rows import CountRows
from recdistill.data.sequences import evaluation_cases, windows
from recdistill.evaluation.protocols import evaluate
from recdistill.models.popularity import Popularity
from recdistill.rng import Streams
from recdistill.training.fit import TrainingRecipe, fit
from reference.tiny import histories_of_lists


def test_scores_are_counts() -> None:
    model = Popularity(4, 3, generator=torch.Generator())
    fit(model, CountRows(torch.tensor([0.0, 5.0, 1.0, 3.0, 0.0])), TrainingRecipe(), Streams(0))
    users = model.represent(HardItems(torch.tensor([[2, 3], [1, 0]])), torch.tensor([2, 1]))
    assert model.score(users).tolist() == [[5, 1, 3, 0]] * 2


def test_it_counts_real_rows() -> None:
    model = Popularity(5, 3, generator=torch.Generator())
    histories = histories_of_lists([[1, 2, 2], [2, 4, 5, 4]], [[3], [1]], [[3], [3]])
    result = fit(model, windows(histories, 2), TrainingRecipe(), Streams(0))
    assert model.counts.flatten().tolist() == [0, 1, 3, 0, 2, 1]
    assert (result.steps, result.epochs, result.best_epoch, result.losses) == (0, 0, 0, [])
    assert evaluate(model, evaluation_cases(histories, "valid")).ranks.tolist() == [3, 1]
