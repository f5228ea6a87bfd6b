"""The only training loop. Real and distilled data go through it alike."""

import math
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from recdistill.data.batches import OBJECTIVES, supervise
from recdistill.data.sequences import ROWS, TrainingData
from recdistill.errors import NumericalError, choose, require_above, require_at_least
from recdistill.models.base import Recommender
from recdistill.models.popularity import Popularity
from recdistill.progress import SILENT, Progress
from recdistill.rng import Streams, generator_at
from recdistill.training.resume import RunState


@dataclass(frozen=True, kw_only=True)
class TrainingRecipe:
    """How a model is trained. The defaults are the library's judging recipe, the same for every method and control."""

    learning_rate: float = 1e-3
    """Adam step size, above 0."""
    weight_decay: float = 0.0
    """L2-coupled decay of Adam, 0 or more."""
    batch_size: int = 64
    """Rows per step, at least 1."""
    epochs: int = 200
    """Most epochs, at least 1."""
    steps_per_epoch: int = 20
    """An epoch is as many whole passes over the rows as make at least so many steps: one pass for a real log, many for
    a distilled dataset of a few rows. At least 1."""
    max_steps: int | None = None
    """Most optimiser steps; ``None`` for no limit."""
    rows: str = "windows"
    """How rows are cut from real histories: ``windows`` or ``prefixes`` (RecBole's augmentation)."""
    objective: str = "all"
    """``all``, ``last`` or ``last_and_middle`` predicted positions."""
    patience: int | None = 15
    """Validations without improvement before stopping; ``None`` trains to the end and keeps the last weights."""
    validate_every: int = 1
    """Validate after every so many epochs, at least 1."""
    optimizer: str = "adam"
    """``adam``, with the decay added to the gradient, or ``adamw``, with the decay decoupled from it."""

    def __post_init__(self) -> None:
        """Check every field."""
        require_above(0, learning_rate=self.learning_rate)
        require_at_least(0, weight_decay=self.weight_decay)
        counts = ("batch_size", "epochs", "steps_per_epoch", "validate_every", "max_steps", "patience")
        require_at_least(1, **{name: getattr(self, name) for name in counts})
        choose("objective", self.objective, dict.fromkeys(OBJECTIVES))
        choose("rows", self.rows, ROWS)
        choose("optimizer", self.optimizer, dict.fromkeys(("adam", "adamw")))

    def as_dict(self) -> dict[str, Any]:
        """Return the fields for JSON and for hashes.

        The optimiser is left out where it is Adam: records that are older than the choice stay what they are.
        """
        values = asdict(self)
        if self.optimizer == "adam":
            del values["optimizer"]
        return values


@dataclass(frozen=True)
class FitResult:
    """What training did.

    Args:
        steps: optimiser steps taken.
        epochs: epochs done.
        best_epoch: epoch whose weights the model now has.
        seconds: wall time, validation included, over all resumed parts.
        losses: mean loss of each epoch, in nats.
        scores: validation score after each validated epoch.
    """

    steps: int
    epochs: int
    best_epoch: int
    seconds: float
    losses: list[float] = field(default_factory=list)
    scores: list[float] = field(default_factory=list)


def fit(
    model: Recommender,
    data: TrainingData,
    recipe: TrainingRecipe,
    rng: Streams,
    *,
    validate: Callable[[Recommender], float] | None = None,
    record: Callable[[int, Recommender, float | None], None] | None = None,
    state: Path | None = None,
    progress: Progress = SILENT,
) -> FitResult:
    """Train ``model`` in place and return what happened.

    Deterministic in ``rng``: the order of rows is keyed by the epoch and dropout by the step, so a run that is
    interrupted and continued from ``state`` ends with the same weights as one that is not.

    Args:
        model: trained in place; ends with the weights of the best validated epoch, or the last ones.
        data: real or distilled rows.
        recipe: how.
        rng: streams ``order``, ``dropout``, ``middle`` and ``sampled`` are used.
        validate: returns the score to be maximised; without it the last weights are kept.
        record: called before training and after every epoch with its number, the model and its score.
        state: a file where the run is saved after every epoch and continued from; removed at the end.
        progress: told after every epoch.

    Raises:
        NumericalError: the loss is NaN or infinite.
    """
    if isinstance(model, Popularity):
        model.count(data.item_counts(model.num_items))
    if not model.trainable or len(data) == 0:
        if record is not None:
            record(0, model, None)
        return FitResult(steps=0, epochs=0, best_epoch=0, seconds=0.0)
    decoupled = recipe.optimizer == "adamw"
    run = RunState.start(model, recipe.learning_rate, recipe.weight_decay, decoupled=decoupled)
    if state is not None:
        run.restore(state)
    total = most_epochs(len(data), recipe)
    if record is not None and run.epoch == 0:
        record(0, model, None)
    while run.epoch < total and not run.stopped:
        _one_epoch(model, data, recipe, rng, run)
        score = None
        if validate is not None and run.epoch % recipe.validate_every == 0:
            score = validate(model)
            run.take_score(score, recipe.patience)
        if record is not None:
            record(run.epoch, model, score)
        if state is not None:
            run.save(state)
        note = f"loss {run.losses[-1]:.3f}" + (f", score {score:.4f}" if score is not None else "")
        progress("train", run.epoch, total, note)
    best_epoch = run.keep_best()
    if state is not None:
        state.unlink(missing_ok=True)
    return FitResult(run.step, run.epoch, best_epoch, run.seconds, run.losses, run.scores)


def steps_in_epoch(num_rows: int, recipe: TrainingRecipe) -> int:
    """Return the optimiser steps of an epoch that ``max_steps`` does not cut short; ``num_rows`` is at least 1."""
    return _passes(num_rows, recipe) * math.ceil(num_rows / recipe.batch_size)


def most_epochs(num_rows: int, recipe: TrainingRecipe) -> int:
    """Return after how many epochs training ends where no validation stops it before; ``num_rows`` is at least 1."""
    if recipe.max_steps is None:
        return recipe.epochs
    return min(recipe.epochs, math.ceil(recipe.max_steps / steps_in_epoch(num_rows, recipe)))


def _passes(num_rows: int, recipe: TrainingRecipe) -> int:
    return math.ceil(recipe.steps_per_epoch / math.ceil(num_rows / recipe.batch_size))


def _one_epoch(model: Recommender, data: TrainingData, recipe: TrainingRecipe, rng: Streams, run: RunState) -> None:
    order = generator_at(rng.integer("order"), run.epoch)
    passes = [torch.randperm(len(data), generator=order) for _ in range(_passes(len(data), recipe))]
    batches = [rows for one in passes for rows in one.split(recipe.batch_size)]
    if recipe.max_steps is not None:
        batches = batches[: recipe.max_steps - run.step]
    losses = [_one_step(model, data, rows, recipe, rng, run) for rows in batches]
    require_finite(losses, model.name, recipe.learning_rate, run.step)
    run.losses.append(float(torch.stack(losses).mean()))
    run.epoch += 1


def _one_step(
    model: Recommender, data: TrainingData, rows: Tensor, recipe: TrainingRecipe, rng: Streams, run: RunState
) -> Tensor:
    device = model.device
    middle = generator_at(rng.integer("middle"), run.step)
    batch = supervise(data.batch(rows), recipe.objective, middle)
    batch = model.sampled(batch, generator_at(rng.integer("sampled"), run.step)).to(device)
    loss = model.loss(batch, generator_at(rng.integer("dropout"), run.step, device))
    run.optimizer.zero_grad(set_to_none=True)
    loss.backward()
    run.optimizer.step()
    run.step += 1
    return loss.detach()


def require_finite(losses: list[Tensor], model: str, learning_rate: float, last_step: int) -> None:
    """Raise unless the losses of the steps up to ``last_step`` are numbers.

    Raises:
        NumericalError: naming the first step whose loss is not.
    """
    finite = torch.isfinite(torch.stack(losses))
    if finite.all():
        return
    bad = int((~finite).nonzero()[0])
    raise NumericalError(
        f"the loss is {float(losses[bad])}",
        stage=f"training {model}",
        step=last_step - len(losses) + bad + 1,
        cause=f"a smaller learning rate than {learning_rate} often helps",
    )
