"""Training of click models: it learns, it repeats itself, and a run that is stopped ends like one that is not."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from recdistill.data.clicks.block import ClickBatch, ClickBlock
from recdistill.errors import NumericalError, OptionError
from recdistill.evaluation.clicks import click_scores, predicted
from recdistill.models.clicks import CLICK_MODELS
from recdistill.models.clicks.base import ClickModel
from recdistill.rng import Streams
from recdistill.training.clicks import ClickRecipe, fit_clicks

RECIPE = ClickRecipe(learning_rate=0.02, batch_size=32, epochs=6, weight_decay=0.0)


def block_of(rows: int = 600, seed: int = 0) -> ClickBlock:
    """Clicks that depend on a pair of fields: on whether both ids are odd or both even."""
    generator = np.random.default_rng(seed)
    ids = generator.integers(0, 6, (rows, 3)).astype(np.int32)
    chance = np.where((ids[:, 0] + ids[:, 1]) % 2 == 0, 0.9, 0.1)
    return ClickBlock(ids, (generator.uniform(size=rows) < chance).astype(np.float32), (1, 1, 1))


def model_of(name: str = "fm") -> ClickModel:
    options: dict[str, Any] = {} if name in ("lr", "fm") else {"dropout": 0.1}
    return CLICK_MODELS[name]((6, 6, 6), (1, 1, 1), 8, **options, generator=torch.Generator().manual_seed(0))


def weights(model: ClickModel) -> torch.Tensor:
    return torch.cat([value.flatten() for value in model.state_dict().values()])


@pytest.mark.parametrize("name", sorted(set(CLICK_MODELS) - {"lr"}))
def test_every_model_of_pairs_learns_what_a_pair_says(name: str) -> None:
    model = model_of(name)
    fit_clicks(model, block_of(2000), RECIPE, Streams(0))
    scores = click_scores(block_of(seed=1).labels, predicted(model, block_of(seed=1)))
    assert scores.auc > 0.85
    assert scores.log_loss < 0.45


def test_a_linear_model_cannot() -> None:
    model = model_of("lr")
    fit_clicks(model, block_of(2000), RECIPE, Streams(0))
    assert abs(click_scores(block_of(seed=1).labels, predicted(model, block_of(seed=1))).auc - 0.5) < 0.08


def test_a_run_that_is_stopped_ends_like_one_that_is_not(tmp_path: Path) -> None:
    whole, stopped = model_of("deepfm"), model_of("deepfm")
    expected = fit_clicks(whole, block_of(), RECIPE, Streams(1))
    state = tmp_path / "state"

    def kill(stage: str, done: int, total: int, note: str = "") -> None:
        if done == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fit_clicks(stopped, block_of(), RECIPE, Streams(1), state=state, progress=kill)
    fresh = model_of("deepfm")
    found = fit_clicks(fresh, block_of(), RECIPE, Streams(1), state=state)
    assert torch.equal(weights(fresh), weights(whole))
    assert (found.steps, found.losses) == (expected.steps, expected.losses)
    assert not state.exists()


def test_records_are_evenly_spaced() -> None:
    seen: list[float] = []
    options: dict[str, Any] = {"record": lambda done, _: seen.append(done), "records_per_epoch": 5}
    fit_clicks(model_of(), block_of(32 * 10), replace(RECIPE, epochs=2), Streams(0), **options)
    assert seen == pytest.approx([0.2, 0.4, 0.6, 0.8, 1.0, 1.2, 1.4, 1.6, 1.8, 2.0])
    seen.clear()
    fit_clicks(model_of(), block_of(64), replace(RECIPE, epochs=1), Streams(0), **options)
    assert seen == [0.5, 1.0]  # two steps, not five


def test_the_best_epoch_is_kept() -> None:
    scores = iter([0.1, 0.9, 0.3, 0.2, 0.95])
    kept: dict[int, torch.Tensor] = {}
    model = model_of()

    def validate(current: ClickModel) -> float:
        kept[len(kept) + 1] = weights(current).clone()
        return next(scores)

    result = fit_clicks(model, block_of(), replace(RECIPE, patience=2), Streams(0), validate=validate)
    assert (result.epochs, result.best_epoch) == (4, 2)
    assert torch.equal(weights(model), kept[2])


def test_few_samples_are_passed_over_many_times() -> None:
    result = fit_clicks(model_of(), block_of(10), replace(RECIPE, epochs=2, steps_per_epoch=7), Streams(0))
    assert result.steps == 14
    assert fit_clicks(model_of(), block_of(0), RECIPE, Streams(0)).steps == 0


def test_a_loss_that_is_no_number_stops_the_run() -> None:
    class Broken:
        def __len__(self) -> int:
            return 64

        def batch(self, rows: np.ndarray) -> ClickBatch:
            return ClickBatch(torch.full((len(rows),), torch.nan), vectors=torch.zeros(len(rows), 3, 8))

    with pytest.raises(NumericalError, match=r"training fm, step 1: the loss is nan.*learning rate than 0.02"):
        fit_clicks(model_of(), Broken(), RECIPE, Streams(0))


@pytest.mark.parametrize("options", [{"learning_rate": 0.0}, {"epochs": 0}, {"patience": 0}, {"weight_decay": -1.0}])
def test_recipes_that_cannot_be_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(OptionError, match=next(iter(options))):
        replace(RECIPE, **options)
