"""The outer loop of bi-level methods: epochs of meta-gradients, each followed by a judgement; the best epoch is kept.

The loop knows neither items nor models. What is learnt, how a step is differentiated and how a result is judged is a
*task*; how the parameters move, when a run is saved and what happens to a number that is not finite is the loop's.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from recdistill.bilevel.unroll import MetaResult
from recdistill.distill.base import RunContext
from recdistill.errors import NumericalError, choose, require_above, require_at_least
from recdistill.training.resume import RunState


@runtime_checkable
class OuterTask(Protocol):
    """What the outer loop does not know.

    A run that was killed begins again at the start of an epoch. So everything random must be keyed by the epoch and the
    number of the step, and what a step leaves for the next must not outlive the epoch, or the task carries it over
    (:class:`CarriesOver`).
    """

    @property
    def synthetic(self) -> nn.Module:
        """Its parameters are learnt, its state is saved."""
        ...

    @property
    def steps_per_epoch(self) -> int:
        """Outer steps in each epoch, at least 1."""
        ...

    def steps(self, epoch: int) -> Iterator[MetaResult]:
        """Yield the outer loss of each step of an epoch, 0 or more, and its gradient by name of the parameter.

        A step is to be computed when it is asked for: the parameters move between two of them.
        """
        ...

    def judge(self, epoch: int) -> float:
        """Return the score of the parameters after ``epoch`` epochs on validation data; the larger the better."""
        ...


@runtime_checkable
class CarriesOver(Protocol):
    """A task whose steps leave something for the next epoch: it is saved with the run."""

    def carried(self) -> dict[str, Tensor]:
        """Return what the next epoch needs."""
        ...

    def carry_on(self, carried: dict[str, Tensor]) -> None:
        """Take what an interrupted run left; nothing, at the beginning of a run."""
        ...


@dataclass(frozen=True)
class Learnt:
    """What a run leaves beside the parameters.

    Args:
        trace: outer loss and score of every epoch, and the means of what the steps had to tell.
        seconds: wall time over all resumed parts.
    """

    trace: tuple[dict[str, float], ...]
    seconds: float


@dataclass(frozen=True, kw_only=True)
class OuterLoop:
    """Adam along meta-gradients.

    Args:
        method: name in errors.
        epochs: at least 1.
        learning_rate: first step size, above 0.
        weight_decay: decay of the parameters, 0 or more.
        clip_norm: largest norm of a meta-gradient over all parameters, above 0; ``None`` for any.
        metric: name of the score that decides which epoch is best.
        remedy: what to try when a number is not finite.
        judge_start: let the parameters as they begin compete for the best epoch, as epoch 0.
        decoupled: decouple the decay from the gradient, as AdamW does.
        schedule: of the step size, which falls to 0 along a ``cosine`` over the whole run, or is ``constant``.

    Raises:
        OptionError: a value is out of its range.
    """

    method: str
    epochs: int
    learning_rate: float
    weight_decay: float
    clip_norm: float | None
    metric: str
    remedy: str
    judge_start: bool = False
    decoupled: bool = False
    schedule: str = "cosine"

    def __post_init__(self) -> None:
        """Check every field."""
        require_at_least(1, epochs=self.epochs)
        require_at_least(0, weight_decay=self.weight_decay)
        require_above(0, learning_rate=self.learning_rate)
        if self.clip_norm is not None:
            require_above(0, clip_norm=self.clip_norm)
        choose("schedule", self.schedule, dict.fromkeys(("cosine", "constant")))

    def learn(self, task: OuterTask, context: RunContext) -> Learnt:
        """Move the parameters of ``task`` to those of the best epoch.

        The state is saved after every epoch; a file that is there already is continued from, and removed at the end.

        Raises:
            NumericalError: an outer loss or a meta-gradient is not finite.
        """
        run = self.start(task)
        if context.state is not None:
            run.restore(context.state)
        if isinstance(task, CarriesOver):
            task.carry_on(run.carried)
        if self.judge_start and run.epoch == 0:
            run.take_first_score(task.judge(0))
        while run.epoch < self.epochs:
            losses = self.epoch(task, run, context)
            run.losses.append(sum(losses) / len(losses))
            run.epoch += 1
            run.take_score(task.judge(run.epoch), patience=self.epochs + 1)
            if isinstance(task, CarriesOver):
                run.carried = task.carried()
            if context.state is not None:
                run.save(context.state)
            note = f"outer loss {run.losses[-1]:.3f}, {self.metric} {run.scores[-1]:.4f} (validation)"
            context.progress("distill", run.step, self.total_steps(task), note)
        run.keep_best()
        if context.state is not None:
            context.state.unlink(missing_ok=True)
        trace = tuple(
            {"outer_loss": loss, f"valid_{self.metric}": score} | notes
            for loss, score, notes in zip(run.losses, run.scores, run.notes, strict=True)
        )
        return Learnt(trace, run.seconds)

    def start(self, task: OuterTask) -> RunState:
        """Return the state before the first step."""
        return RunState.start(task.synthetic, self.learning_rate, self.weight_decay, decoupled=self.decoupled)

    def total_steps(self, task: OuterTask) -> int:
        """Return the number of steps of a whole run."""
        return self.epochs * task.steps_per_epoch

    def epoch(self, task: OuterTask, run: RunState, context: RunContext) -> list[float]:
        """Take the steps of one epoch; return the outer losses."""
        losses, notes, total = [], [], self.total_steps(task)
        for result in task.steps(run.epoch):
            self.move(run, result, total)
            losses.append(float(result.outer_loss))
            notes.append(result.notes)
            context.progress("distill", run.step, total, f"outer loss {losses[-1]:.3f}")
        run.notes.append(mean_notes(notes))
        return losses

    def move(self, run: RunState, result: MetaResult, total_steps: int) -> None:
        """Move the parameters once along a meta-gradient."""
        self._require_finite("outer loss", result.outer_loss, run.step)
        if self.schedule == "cosine":
            for group in run.optimizer.param_groups:
                group["lr"] = self.learning_rate * 0.5 * (1 + math.cos(math.pi * run.step / total_steps))
        for name, parameter in run.model.named_parameters():
            parameter.grad = result.gradient[name].contiguous()
        bound = math.inf if self.clip_norm is None else self.clip_norm
        norm = nn.utils.clip_grad_norm_(run.model.parameters(), bound)
        self._require_finite("norm of the meta-gradient", norm, run.step)
        run.optimizer.step()
        run.step += 1

    def _require_finite(self, what: str, value: Tensor, step: int) -> None:
        if not torch.isfinite(value):
            raise NumericalError(
                f"the {what} is {float(value)}",
                stage=f"distilling with {self.method}",
                step=step + 1,
                cause=self.remedy,
            )


def mean_notes(notes: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """Return the mean of every note; of a multiplier also the part of the steps in which it was 0."""
    found: dict[str, float] = {}
    for name in dict.fromkeys(name for note in notes for name in note):
        values = [note[name] for note in notes if name in note]
        found[name] = sum(values) / len(values)
        if name.startswith("multiplier"):
            found[f"{name}_zero"] = sum(value == 0 for value in values) / len(values)
    return found
