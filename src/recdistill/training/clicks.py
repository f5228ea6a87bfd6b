"""Training of click models: passes over samples, on the log and on distilled samples alike."""

import math
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from torch import Tensor

from recdistill.data.clicks.block import ClickBatch
from recdistill.errors import require_above, require_at_least
from recdistill.models.clicks.base import ClickModel
from recdistill.progress import SILENT, Progress
from recdistill.rng import Streams, generator_at
from recdistill.training.fit import FitResult, require_finite
from recdistill.training.resume import RunState


@runtime_checkable
class ClickData(Protocol):
    """Samples that can be drawn by index: a block of a log, or a distilled memory."""

    def __len__(self) -> int:
        """Return the number of samples."""
        ...

    def batch(self, rows: np.ndarray) -> ClickBatch:
        """Return some of them."""
        ...


@dataclass(frozen=True, kw_only=True)
class ClickRecipe:
    """How a click model is trained. The defaults are the judging recipe, the same for every method and control."""

    learning_rate: float = 1e-3
    """Adam step size, above 0."""
    weight_decay: float = 1e-5
    """L2-coupled decay of Adam, 0 or more, of all weights but the tables. In them it would take the rows of ids that a
    block has not: where the decay is all the gradient there is, Adam makes whole steps of it."""
    batch_size: int = 256
    """Samples per step, at least 1."""
    epochs: int = 1
    """Most passes, at least 1. Click models overfit in the second pass over a log; few samples need many."""
    steps_per_epoch: int = 1
    """An epoch is as many whole passes as make at least so many steps, at least 1."""
    patience: int | None = None
    """Validations without improvement before stopping; ``None`` trains to the end and keeps the last weights."""

    def __post_init__(self) -> None:
        """Check every field."""
        require_above(0, learning_rate=self.learning_rate)
        require_at_least(0, weight_decay=self.weight_decay)
        counts = ("batch_size", "epochs", "steps_per_epoch", "patience")
        require_at_least(1, **{name: getattr(self, name) for name in counts})

    def as_dict(self) -> dict[str, Any]:
        """Return the fields for JSON and for hashes."""
        return asdict(self)


def fit_clicks(
    model: ClickModel,
    data: ClickData,
    recipe: ClickRecipe,
    rng: Streams,
    *,
    validate: Callable[[ClickModel], float] | None = None,
    record: Callable[[float, ClickModel], None] | None = None,
    records_per_epoch: int = 1,
    state: Path | None = None,
    progress: Progress = SILENT,
) -> FitResult:
    """Train ``model`` in place and return what happened.

    Deterministic in ``rng``, so that a run continued from ``state`` ends with the weights of one that was not stopped.

    Args:
        model: trained in place; ends with the weights of the best validated epoch, or the last ones.
        data: samples with labels, which may be probabilities.
        recipe: how.
        rng: streams ``order`` and ``dropout`` are used.
        validate: returns the score to be maximised, after every epoch; without it the last weights are kept.
        record: called with the epochs done so far, a fraction, and the model, evenly spaced within every epoch.
        records_per_epoch: how often; cut to the steps that there are.
        state: a file where the run is saved after every epoch and continued from; removed at the end.
        progress: told after every epoch.

    Raises:
        NumericalError: the loss is NaN or infinite.
    """
    tables = tuple(model.tables.parameters())
    run = RunState.start(model, recipe.learning_rate, recipe.weight_decay, undecayed=tables, fused=True)
    if state is not None:
        run.restore(state)
    while len(data) and run.epoch < recipe.epochs and not run.stopped:
        _one_epoch(model, data, recipe, rng, run, record, records_per_epoch)
        score = None if validate is None else validate(model)
        if score is not None:
            run.take_score(score, recipe.patience)
        if state is not None:
            run.save(state)
        note = f"loss {run.losses[-1]:.4f}" + ("" if score is None else f", score {score:.4f}")
        progress("train", run.epoch, recipe.epochs, note)
    best_epoch = run.keep_best()
    if state is not None:
        state.unlink(missing_ok=True)
    return FitResult(run.step, run.epoch, best_epoch, run.seconds, run.losses, run.scores)


def _one_epoch(
    model: ClickModel,
    data: ClickData,
    recipe: ClickRecipe,
    rng: Streams,
    run: RunState,
    record: Callable[[float, ClickModel], None] | None,
    records: int,
) -> None:
    order = generator_at(rng.integer("order"), run.epoch)
    passes = math.ceil(recipe.steps_per_epoch / math.ceil(len(data) / recipe.batch_size))
    orders = [torch.randperm(len(data), generator=order) for _ in range(passes)]
    batches = [rows for one in orders for rows in one.split(recipe.batch_size)]
    spaced = {math.ceil(len(batches) * index / records) for index in range(1, records + 1)}
    losses = []
    for index, rows in enumerate(batches, start=1):
        losses.append(_one_step(model, data.batch(rows.numpy()), rng, run))
        if record is not None and index in spaced:
            record(run.epoch + index / len(batches), model)
    require_finite(losses, model.name, recipe.learning_rate, run.step)
    run.losses.append(float(torch.stack(losses).mean()))
    run.epoch += 1


def _one_step(model: ClickModel, batch: ClickBatch, rng: Streams, run: RunState) -> Tensor:
    device = model.last.weight.device
    loss: Tensor = model(batch.to(device), generator_at(rng.integer("dropout"), run.step, device))
    run.optimizer.zero_grad(set_to_none=True)
    loss.backward()
    run.optimizer.step()
    run.step += 1
    return loss.detach()
