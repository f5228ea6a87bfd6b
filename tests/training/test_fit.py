"""The training loop: deterministic, resumable to the bit, and loud when it goes wrong."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from recdistill.data.batches import supervise
from recdistill.data.rows import CountRows
from recdistill.data.sequences import SequenceRows, windows
from recdistill.errors import NumericalError, OptionError
from recdistill.models.base import Recommender
from recdistill.models.popularity import Popularity
from recdistill.models.sasrec import SASRec
from recdistill.rng import Streams, generator_at
from recdistill.training.fit import FitResult, TrainingRecipe, fit
from recdistill.training.resume import RunState
from reference.tiny import NUM_ITEMS, random_histories, sasrec

RECIPE = TrainingRecipe(epochs=4, steps_per_epoch=3, batch_size=8, learning_rate=0.01)


@pytest.fixture(scope="module")
def rows() -> SequenceRows:
    """Seventeen training rows: three batches of eight."""
    made = windows(random_histories(17, seed=5), 14)
    assert len(made) == 17
    return made


def model(seed: int = 0) -> SASRec:
    return sasrec(max_seq_len=14, dropout=0.3, attention_dropout=0.3, seed=seed)


def weights(made: Recommender) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in made.state_dict().items()}


def equal(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def test_the_loop_equals_torch_adam_step_by_step(rows: SequenceRows) -> None:
    recipe = TrainingRecipe(epochs=2, steps_per_epoch=1, batch_size=8, weight_decay=0.1, objective="last_and_middle")
    made, rng = model(), Streams(3)
    result = fit(made, rows, recipe, rng)
    reference = model()
    optimizer = torch.optim.Adam(reference.parameters(), lr=1e-3, weight_decay=0.1)
    step, losses = 0, []
    for epoch in range(2):
        losses.append([])
        order = torch.randperm(17, generator=generator_at(rng.integer("order"), epoch))
        for chosen in (order[:8], order[8:16], order[16:]):
            batch = supervise(rows.batch(chosen), recipe.objective, generator_at(rng.integer("middle"), step))
            loss = reference.loss(batch, generator_at(rng.integer("dropout"), step))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses[-1].append(loss.item())
            step += 1
    assert equal(weights(made), weights(reference))
    assert (result.steps, result.epochs, result.best_epoch) == (6, 2, 2)
    assert result.losses == pytest.approx([sum(part) / 3 for part in losses], abs=1e-6)


def test_the_same_seed_gives_the_same_weights(rows: SequenceRows) -> None:
    found = []
    for seed in (1, 1, 2):
        made = model()
        fit(made, rows, RECIPE, Streams(seed))
        found.append(weights(made))
    assert equal(found[0], found[1])
    assert not equal(found[0], found[2])


@pytest.mark.parametrize("objective", ["all", "last", "last_and_middle"])
def test_training_lowers_the_loss(rows: SequenceRows, objective: str) -> None:
    recipe = TrainingRecipe(epochs=12, steps_per_epoch=10, batch_size=8, learning_rate=0.02, objective=objective)
    losses = fit(model(), rows, recipe, Streams(0)).losses
    assert losses[-1] < losses[0] - 0.5


@pytest.mark.parametrize(
    ("changes", "steps", "epochs"),
    [
        ({}, 12, 4),
        ({"steps_per_epoch": 4}, 24, 4),  # two passes of three batches
        ({"steps_per_epoch": 20, "batch_size": 64}, 80, 4),
        ({"max_steps": 5}, 5, 2),
        ({"max_steps": 6}, 6, 2),
        ({"max_steps": 1}, 1, 1),
        ({"max_steps": 1000}, 12, 4),
    ],
)
def test_an_epoch_is_whole_passes_and_steps_are_limited(
    rows: SequenceRows, changes: dict[str, Any], steps: int, epochs: int
) -> None:
    recipe = TrainingRecipe(**{"epochs": 4, "steps_per_epoch": 3, "batch_size": 8} | changes)
    result = fit(model(), rows, recipe, Streams(0))
    assert (result.steps, result.epochs, len(result.losses)) == (steps, epochs, epochs)


def test_every_row_is_seen_in_every_pass(rows: SequenceRows, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[list[int]] = []

    def spy(self: SequenceRows, chosen: torch.Tensor) -> Any:
        seen.append(chosen.tolist())
        return original(self, chosen)

    original = SequenceRows.batch
    monkeypatch.setattr(SequenceRows, "batch", spy)
    fit(model(), rows, TrainingRecipe(epochs=2, steps_per_epoch=6, batch_size=8), Streams(0))
    assert [len(chosen) for chosen in seen] == [8, 8, 1] * 4
    passes = [seen[at] + seen[at + 1] + seen[at + 2] for at in range(0, 12, 3)]
    assert all(sorted(one) == list(range(17)) for one in passes)
    assert len({tuple(one) for one in passes}) == 4


def scores_of(values: list[float]) -> Callable[[Recommender], float]:
    """Return a validation that gives these scores one after another."""
    left = iter(values)
    return lambda model: next(left)


def test_early_stopping_restores_the_best_epoch(rows: SequenceRows) -> None:
    recipe = TrainingRecipe(epochs=20, steps_per_epoch=3, batch_size=8, patience=2)
    kept: dict[int, dict[str, torch.Tensor]] = {}
    told = []

    def record(epoch: int, current: Recommender, score: float | None) -> None:
        kept[epoch] = weights(current)
        told.append(score)

    made = model()
    start = weights(made)
    result = fit(made, rows, recipe, Streams(0), validate=scores_of([0.1, 0.3, 0.2, 0.3, 0.9]), record=record)
    assert (result.best_epoch, result.epochs) == (2, 4)  # an equal score is no improvement
    assert result.scores == [0.1, 0.3, 0.2, 0.3]
    assert told == [None, 0.1, 0.3, 0.2, 0.3]
    assert equal(kept[0], start)
    assert equal(weights(made), kept[2])
    assert not equal(kept[2], kept[4])


def test_without_patience_the_last_weights_are_kept(rows: SequenceRows) -> None:
    recipe = TrainingRecipe(epochs=3, steps_per_epoch=3, batch_size=8, patience=None)
    made, plain = model(), model()
    result = fit(made, rows, recipe, Streams(0), validate=scores_of([0.9, 0.2, 0.1]))
    fit(plain, rows, recipe, Streams(0))
    assert (result.best_epoch, result.epochs, result.scores) == (3, 3, [0.9, 0.2, 0.1])
    assert equal(weights(made), weights(plain))


def test_validation_comes_every_few_epochs(rows: SequenceRows) -> None:
    recipe = TrainingRecipe(epochs=5, steps_per_epoch=3, batch_size=8, validate_every=2)
    result = fit(model(), rows, recipe, Streams(0), validate=scores_of([0.1, 0.2]))
    assert (result.scores, result.best_epoch, result.epochs) == ([0.1, 0.2], 4, 5)


def validation(made: Recommender) -> float:
    """Return a score that rises and falls with the weights."""
    return float(made.item_table.detach().sum())


def killed(rows: SequenceRows, state: Path, recipe: TrainingRecipe, epoch: int, by: str) -> None:
    """Run until ``epoch`` and die there."""

    def record(done: int, current: Recommender, score: float | None) -> None:
        if by == "record" and done == epoch:
            raise KeyboardInterrupt

    def progress(stage: str, done: int, total: int, note: str = "") -> None:
        if by == "progress" and done == epoch:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fit(model(), rows, recipe, Streams(0), validate=validation, record=record, state=state, progress=progress)


@pytest.mark.parametrize("by", ["record", "progress"])
@pytest.mark.parametrize("epoch", [1, 3])
@pytest.mark.parametrize("patience", [None, 2, 10])
def test_a_killed_run_continues_to_the_same_bits(
    rows: SequenceRows, tmp_path: Path, by: str, epoch: int, patience: int | None
) -> None:
    recipe = TrainingRecipe(
        epochs=6,
        steps_per_epoch=3,
        batch_size=8,
        learning_rate=0.01,
        weight_decay=0.01,
        patience=patience,
        objective="last_and_middle",
    )
    whole = model()
    expected = fit(whole, rows, recipe, Streams(0), validate=validation)
    state = tmp_path / "run" / "state"
    killed(rows, state, recipe, epoch, by)
    made = model(seed=9)  # whatever the new process starts with
    if not state.exists():  # killed before the first save: starts anew
        made = model()
    recorded = []
    result = fit(
        made,
        rows,
        recipe,
        Streams(0),
        validate=validation,
        state=state,
        record=lambda done, current, score: recorded.append(done),
    )
    first = epoch if by == "record" else epoch + 1
    assert [done for done in recorded if done] == list(range(first, expected.epochs + 1))
    assert equal(weights(made), weights(whole))
    assert (result.steps, result.epochs, result.best_epoch) == (expected.steps, expected.epochs, expected.best_epoch)
    assert (result.losses, result.scores) == (expected.losses, expected.scores)
    assert not state.exists()


def test_a_run_that_is_killed_twice_and_at_its_end(rows: SequenceRows, tmp_path: Path) -> None:
    whole = model()
    fit(whole, rows, RECIPE, Streams(0))
    for epoch in (1, 2, 4):
        with pytest.raises(KeyboardInterrupt):
            fit(model(), rows, RECIPE, Streams(0), state=tmp_path / "state", progress=stop_at(epoch))
    made = model(seed=9)
    result = fit(made, rows, RECIPE, Streams(0), state=tmp_path / "state")
    assert equal(weights(made), weights(whole))
    assert result.steps == 12


def stop_at(epoch: int) -> Callable[..., None]:
    def progress(stage: str, done: int, total: int, note: str = "") -> None:
        if done == epoch:
            raise KeyboardInterrupt

    return progress


def test_the_time_of_resumed_parts_adds_up(rows: SequenceRows, tmp_path: Path) -> None:
    state = tmp_path / "state"
    with pytest.raises(KeyboardInterrupt):
        fit(model(), rows, RECIPE, Streams(0), state=state, progress=stop_at(1))
    run = RunState.start(model(), 0.01, 0.0)
    run.restore(state)
    assert 0 < run.seconds_before < 60
    run.seconds_before = 1000.0
    run.save(state)
    assert 1000 < fit(model(), rows, RECIPE, Streams(0), state=state).seconds < 1060


def test_a_frozen_table_survives_an_interruption(rows: SequenceRows, tmp_path: Path) -> None:
    def frozen() -> SASRec:
        made = model()
        made.load_item_table(torch.ones(NUM_ITEMS, 8), freeze=True)
        return made

    whole, made = frozen(), frozen()
    fit(whole, rows, RECIPE, Streams(0))
    with pytest.raises(KeyboardInterrupt):
        fit(frozen(), rows, RECIPE, Streams(0), state=tmp_path / "state", progress=stop_at(2))
    fit(made, rows, RECIPE, Streams(0), state=tmp_path / "state")
    assert equal(weights(made), weights(whole))
    assert torch.equal(made.item_table[1:], torch.ones(NUM_ITEMS, 8))


@pytest.mark.parametrize("bad_step", [1, 5])
def test_a_loss_that_is_nan_names_the_step(rows: SequenceRows, bad_step: int, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []

    def loss(self: SASRec, batch: Any, generator: Any = None) -> torch.Tensor:
        calls.append(1)
        value = original(self, batch, generator)
        return value * float("nan") if len(calls) == bad_step else value

    original = SASRec.loss
    monkeypatch.setattr(SASRec, "loss", loss)
    with pytest.raises(NumericalError, match="the loss is nan") as caught:
        fit(model(), rows, RECIPE, Streams(0))
    assert caught.value.step == bad_step
    assert caught.value.stage == "training sasrec"


def test_an_infinite_loss_is_an_error_too(rows: SequenceRows, tmp_path: Path) -> None:
    made = model()
    with torch.no_grad():
        made.item_table[4] = float("inf")
    with pytest.raises(NumericalError) as caught:
        fit(made, rows, RECIPE, Streams(0), state=tmp_path / "state")
    assert caught.value.step == 1
    assert not (tmp_path / "state").exists()  # nothing broken is kept to continue from


def test_no_rows_leave_the_model_as_it_is() -> None:
    made = model()
    before = weights(made)
    result = fit(made, CountRows(torch.zeros(NUM_ITEMS + 1)), RECIPE, Streams(0))
    assert (result.steps, result.epochs, result.best_epoch, result.losses) == (0, 0, 0, [])
    assert equal(weights(made), before)


def test_popularity_counts(rows: SequenceRows) -> None:
    made = Popularity(NUM_ITEMS, 5, generator=torch.Generator())
    result = fit(made, rows, RECIPE, Streams(0), validate=validation)
    assert isinstance(result, FitResult)
    assert result.steps == 0
    assert made.counts.flatten().tolist() == rows.item_counts(NUM_ITEMS).tolist()
    assert made.counts.sum() > 17


def test_progress_is_told_after_every_epoch(rows: SequenceRows) -> None:
    told = []
    fit(
        model(),
        rows,
        RECIPE,
        Streams(0),
        validate=lambda made: 0.25,
        progress=lambda stage, done, total, note="": told.append((stage, done, total, note)),
    )
    assert [entry[:3] for entry in told] == [("train", epoch, 4) for epoch in range(1, 5)]
    assert all("loss " in note and "score 0.2500" in note for *_, note in told)


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("learning_rate", 0.0),
        ("learning_rate", -1.0),
        ("learning_rate", float("nan")),
        ("weight_decay", -0.1),
        ("weight_decay", float("nan")),
        ("batch_size", 0),
        ("epochs", 0),
        ("steps_per_epoch", 0),
        ("validate_every", 0),
        ("max_steps", 0),
        ("patience", 0),
        ("objective", "lst"),
        ("rows", "window"),
    ],
)
def test_recipes_refuse_bad_values(option: str, value: Any) -> None:
    with pytest.raises(OptionError, match=option):
        TrainingRecipe(**{option: value})


def test_recipes_name_the_nearest_choice() -> None:
    with pytest.raises(OptionError, match="did you mean 'prefixes'"):
        TrainingRecipe(rows="prefix")
