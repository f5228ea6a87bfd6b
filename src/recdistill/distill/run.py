"""One distillation from data to artifact: times it, and writes down how it was made."""

import resource
import sys
import time
from dataclasses import asdict

import polars as pl

from recdistill.data.development import Development
from recdistill.data.distilled import DistilledDataset, Manifest, Source, current_versions
from recdistill.data.text import TEXT
from recdistill.distill.base import Distiller, RunContext
from recdistill.rng import Streams
from recdistill.training.trajectory import Trajectory


def distill(
    train: Development, distiller: Distiller, teacher: Trajectory, *, seed: int, context: RunContext
) -> DistilledDataset:
    """Return the artifact that ``distiller`` makes of ``train``.

    Args:
        train: training and validation events.
        distiller: with its hyper-parameters.
        teacher: a model trained on the same data.
        seed: of everything random.
        context: where to keep state and report progress.

    Raises:
        OptionError: the budget or an option does not fit the data or the teacher.
        NumericalError: a loss became NaN.
    """
    started = time.perf_counter()
    summary = distiller.distill(train, teacher, None, Streams(seed).child(distiller.method), context)
    seconds = summary.seconds or time.perf_counter() - started
    costs = {"teacher": teacher.seconds, "distill": seconds}
    if summary.peer_seconds:
        costs["peers"] = summary.peer_seconds
    manifest = Manifest(
        kind=summary.rows.kind,
        method=distiller.method,
        parameters=asdict(distiller),  # type: ignore[call-overload]
        num_rows=len(summary.rows),
        length=summary.rows.length,
        source=Source(
            name=train.name,
            hash=train.hash,
            users=train.histories.num_users,
            items=train.num_items,
            train_interactions=train.train_interactions,
            train_bytes=train.train_bytes,
        ),
        teacher={
            "model": teacher.header["model"],
            "config": teacher.header["config"],
            "recipe": teacher.header["recipe"],
            "seed": teacher.header["seed"],
            "best_epoch": teacher.best_epoch,
        },
        seed=seed,
        seconds={name: round(value, 3) for name, value in costs.items()},
        peak_mb=peak_megabytes(),
        versions=current_versions(),
        trace=list(summary.trace),
    )
    texts, items = teacher.texts(), train.items
    if texts is not None:
        items = items.with_columns(pl.Series(TEXT, texts))
    return DistilledDataset(summary.rows, summary.item_factor, items, manifest)


def peak_megabytes() -> float:
    """Return the largest resident memory this process has had, in MB (10^6 bytes)."""
    unit = 1 if sys.platform == "darwin" else 1024
    return round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e6, 1)
