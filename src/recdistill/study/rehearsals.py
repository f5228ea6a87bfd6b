"""The probe of a distillation: some outer steps, or a whole one where the method shows no steps.

It begins before there is a teacher. A stand-in takes its place that has the same shapes and claims as many epochs.
"""

import os
import signal
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from types import FrameType
from typing import Any

import torch

from recdistill.data.development import Development
from recdistill.data.sequences import training_rows
from recdistill.data.text import Catalogue
from recdistill.distill.base import Distiller, Engine, RunContext, Summary
from recdistill.distill.outer_loop import Learnt
from recdistill.distill.rehearsal import Rehearsable, RehearsedTask, TrainsOthers
from recdistill.distill.teacher import TeacherSpec, about_data, make_model, teacher_folder
from recdistill.rng import Streams
from recdistill.storage import write_json
from recdistill.study.probes import Enough, Probe, timed, undisturbed, write_rows
from recdistill.training.trajectory import Trajectory, epoch_file, record_trajectory


@dataclass(frozen=True, kw_only=True)
class DistillProbe(Probe):
    """Outer steps of a distillation, or a whole one where it shows no steps."""

    distiller: Distiller
    """The method."""
    teacher: TeacherSpec
    """How its teacher is trained."""
    teacher_seed: int
    """Of the teacher."""
    given: Path | None
    """A teacher that is there; a stand-in of the same shapes is used where there is none."""
    engine: Engine
    """How meta-gradients are computed."""
    device: str = "cpu"
    """Where tensors live."""

    def measure(self) -> dict[str, Any]:
        """Return the figures; leave the rows for the student's probe."""
        train, cache = self.open(), self.folder / "cache"
        folder = self.given or stand_in(train, self.teacher, self.teacher_seed, cache)
        teacher = Trajectory.open(folder, Catalogue(train.items, cache))
        if isinstance(self.distiller, TrainsOthers):
            for spec in self.distiller.others(int(teacher.header["config"]["max_seq_len"])):
                stand_in(train, spec, self.seed, cache)
        context = RunContext(cache=cache, engine=self.engine, device=torch.device(self.device))
        rng = Streams(self.seed).child(self.distiller.method)
        if isinstance(self.distiller, Rehearsable) and self.distiller.epochs:
            found, rows = rehearsed(self.distiller, train, teacher, rng, context, self.limits.distilling)
        else:
            found, rows = tried(self.distiller, train, teacher, rng, context, self.limits.whole)
        if rows is not None:
            write_rows(self.folder, rows)
        return found


def rehearsed(
    distiller: Rehearsable, train: Development, teacher: Trajectory, rng: Streams, context: RunContext, limit: float
) -> tuple[dict[str, Any], Summary | None]:
    """Return seconds of preparation, outer steps and judgement, and the rows as they begin."""
    started = undisturbed()
    loop, task = distiller.outer_loop(), distiller.task(train, teacher, rng, context)
    prepared = undisturbed() - started
    steps: list[tuple[int, float]] = []
    began = undisturbed()
    for index, step in enumerate((task.rehearsals[0], *task.rehearsals)):  # the first one warms up
        if index > 3 and undisturbed() - began > limit:
            break
        steps.append((task.inner_steps(step), timed(partial(_whole_step, task, step))))
    total = loop.total_steps(task)
    fixed, each = line(steps[1:])
    figures = {
        "way": "rehearsed",
        "outer_steps": total,
        "inner_steps": sum(task.inner_steps(step) for step in range(total)),
        "judgements": loop.epochs + loop.judge_start,
        "prepare_s": prepared,
        "start_s": max(0.0, steps[0][1] - fixed - each * steps[0][0]),
        "outer_step_s": fixed,
        "inner_step_s": each,
        "spread": spread(steps[1:], fixed, each),
        "judge_s": timed(lambda: task.judge(1)),
        "steps_timed": len(steps) - 1,
    }
    return figures, distiller.summary(task, Learnt((), 0.0))


def _whole_step(task: RehearsedTask, step: int) -> float:
    return float(task.rehearse(step).outer_loss)  # waits for the device


def line(points: Sequence[tuple[int, float]]) -> tuple[float, float]:
    """Return the constant and the slope of the least-squares line; neither is below 0.

    Where the points do not tell the two apart, all is the constant.
    """
    xs, ys = [float(x) for x, _ in points], [y for _, y in points]
    x_mean, y_mean = sum(xs) / len(xs), sum(ys) / len(ys)
    scatter = sum((x - x_mean) ** 2 for x in xs)
    slope = sum((x - x_mean) * (y - y_mean) for x, y in points) / scatter if scatter else 0.0
    slope = min(max(0.0, slope), y_mean / x_mean if x_mean else 0.0)
    return y_mean - slope * x_mean, slope


def spread(points: Sequence[tuple[int, float]], fixed: float, each: float) -> list[float]:
    """Return the smallest and the largest ratio of a measured to a fitted time."""
    ratios = [seconds / (fixed + each * count) for count, seconds in points]
    return [min(ratios), max(ratios)]


def tried(
    distiller: Distiller, train: Development, teacher: Trajectory, rng: Streams, context: RunContext, limit: float
) -> tuple[dict[str, Any], Summary | None]:
    """Return the seconds of a whole distillation and its rows; what it told of itself, where it takes too long."""
    part = [0.0]

    def told(stage: str, done: int, total: int, note: str = "") -> None:
        if stage == "distill" and total:
            part[0] = done / total

    started, summary = undisturbed(), None
    with alarm(limit) as rung:
        summary = distiller.distill(train, teacher, None, rng, replace(context, progress=told))
    seconds = undisturbed() - started
    if summary is not None and not rung:
        return {"way": "tried", "seconds": seconds}, summary
    return {"way": "begun", "seconds": seconds / part[0] if part[0] else None, "part": part[0], "limit_s": limit}, None


@contextmanager
def alarm(seconds: float) -> Iterator[list[bool]]:
    """End the block after some seconds, without an error; say so in the list that is given. For a main thread."""
    rung: list[bool] = []

    def ring(number: int, frame: FrameType | None) -> None:
        rung.append(True)
        raise Enough

    before = signal.signal(signal.SIGALRM, ring)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield rung
    except Enough:
        pass
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def stand_in(train: Development, spec: TeacherSpec, seed: int, cache: Path) -> Path:
    """Return the folder of a teacher that has learnt one step and claims to have all its epochs, under its own name.

    What reads it does the work that it would do with the real one; the weights of all epochs are one file.
    """
    folder = teacher_folder(train, spec, seed, cache)
    rng = Streams(seed).child("teacher")
    catalogue = Catalogue(train.items, cache)
    model = make_model(spec.model, train.num_items, spec.max_seq_len, spec.config, rng, catalogue)
    rows = training_rows(train.histories, spec.max_seq_len, spec.recipe.rows)
    recipe = replace(spec.recipe, epochs=1, max_steps=1, patience=None)
    about = about_data(train, spec)
    made = record_trajectory(model, rows, recipe, rng, folder, validate=lambda _: 1.0, about=about)
    epochs, first = spec.recipe.epochs, made.folder / epoch_file(1)
    for epoch in range(2, epochs + 1):
        os.link(first, made.folder / epoch_file(epoch))
    files = made.header["files"]
    hashes = {epoch_file(epoch): files[epoch_file(min(epoch, 1))] for epoch in range(epochs + 1)}
    write_json(folder / "trajectory.json", made.header | {"epochs": epochs, "files": hashes})
    return folder
