"""The meta-gradient with a tape and without: error, memory and time, on the same weights, data and dropout.

    python -m benchmarks.meta_gradient --json

A student of two blocks and width 64 reads 50 synthetic rows of 50 items (2,500 positions), takes some plain steps and
the window, and is judged on 256 real prefixes. ``taped`` records the window with autograd on distributions written out,
as is usual; ``stepwise`` is the library's default; ``few states`` is the same with 32 MiB for kept students, where
some steps are trained again; ``reversible`` keeps the first of a fresh optimiser alone and undoes every other step.
Last, what single precision costs the tape itself.

Every figure comes from a process of its own. What is measured is kept in ``runs/benchmarks`` until it is deleted, so
that the benchmark can be stopped and started again. Memory is what the call needs beyond what was held before it; of
``stepwise``, what is kept of every step (weights, moments, gradient, soft inputs) is given by itself (``states_mb``).
"""

import math
import tempfile
import time
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

from benchmarks.harness import arguments, at_least, at_most, fresh, peak_extra_mb, seconds, show
from benchmarks.problem import Problem, Size
from recdistill.bilevel.optimizer import Tensors
from recdistill.distill.base import Engine
from recipes.record import RUNS, cell, write_result

STUDENT = {"rows": 50, "minibatch": 50, "width": 64, "blocks": 2, "heads": 2, "inner": 256, "real": 256}
PLAIN = 10
"""Steps before the window, so that the optimiser is warm, as it is in practice."""

BOTH = ("float32", "float64")
LEAN = ("taped", "stepwise", "few states")


@dataclass(frozen=True)
class Case:
    """One size, and what is measured there: the larger, the less, for half an hour to suffice.

    Args:
        items: catalogue.
        window: differentiated steps.
        dtypes: precisions.
        modes: names of :data:`ENGINES`.
        plain: steps before the window.
        repeats: timed calls after the one whose memory is measured; 0 to time that one.
    """

    items: int
    window: int
    dtypes: tuple[str, ...] = ("float32",)
    modes: tuple[str, ...] = LEAN
    plain: int = PLAIN
    repeats: int = 0


GRID = [
    Case(1_000, 10, BOTH, (*LEAN, "reversible"), repeats=3),
    Case(1_000, 40, BOTH, (*LEAN, "reversible"), repeats=1),
    Case(1_000, 160),
    Case(10_000, 10, BOTH),
    Case(10_000, 40),
    Case(100_000, 10, modes=("taped", "stepwise")),
    Case(1_000_000, 2, modes=("stepwise",), plain=0),
]
QUICK = [Case(500, 4, BOTH, (*LEAN, "reversible")), Case(500, 8)]
ENGINES = {
    "taped": Engine(mode="taped", dense_bytes=2**62),
    "stepwise": Engine(state_bytes=2**62),
    "few states": Engine(state_bytes=2**25),
    "reversible": Engine(mode="reversible"),
}


def measure(mode: str, items: int, window: int, plain: int, dtype: str, keep: str, repeats: int) -> dict[str, Any]:
    """Return the figures of one mode; write its gradient to the file ``keep``."""
    Problem(Size(items=70, rows=4, minibatch=4, real=8), ENGINES[mode], 2).meta_gradient(2)  # libraries load themselves
    problem = Problem(Size(items=items, **STUDENT), ENGINES[mode], window, getattr(torch, dtype))
    problem.start, problem.reader, problem.judgement  # noqa: B018 - made now, so that they do not count
    found: dict[str, torch.Tensor] = {}
    notes: dict[str, float] = {}

    def call() -> None:
        result, gradient = problem.meta_gradient(plain + window)
        found.update(gradient)
        notes.update(result.notes)

    start = time.perf_counter()
    extra = peak_extra_mb(call)
    timed = seconds(call, repeats) if repeats else {"seconds": time.perf_counter() - start}
    save_file({name: value.contiguous() for name, value in found.items()}, keep)
    row = {"extra_mb": extra} | notes | timed
    if mode == "stepwise":
        weights, size = problem.start.weights, problem.size
        kept = 4 * weights.numel() + size.minibatch * size.length * size.width
        row["states_mb"] = window * kept * weights.element_size() / 1024**2
    return row


def rounding(window: int) -> dict[str, float]:
    """Return what single precision costs at 1,000 items: the errors against the tape in double precision."""
    found = {}
    for name, mode, dtype in (
        ("tape", "taped", "float32"),
        ("ours", "stepwise", "float32"),
        ("exact", "taped", "float64"),
    ):
        problem = Problem(Size(items=1_000, **STUDENT), ENGINES[mode], window, getattr(torch, dtype))
        found[name] = problem.meta_gradient(PLAIN + window)[1]
    errors = {name: distance(found[name], found["exact"]) for name in ("tape", "ours")}
    return errors | {"between": distance(found["ours"], found["tape"])}


def distance(ours: Tensors, theirs: Tensors) -> float:
    """Return the relative distance of two gradients."""
    difference = sum(float((ours[name].double() - theirs[name].double()).square().sum()) for name in ours)
    return (difference / sum(float(value.double().square().sum()) for value in theirs.values())) ** 0.5


def compare(case: Case, threads: int) -> list[dict[str, Any]]:
    """Return the rows of one size, with the error of the gradient against the tape's."""
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for dtype in case.dtypes:
            files = {mode: Path(folder) / f"{mode}-{dtype}" for mode in ENGINES}
            for mode in case.modes:
                size = {"items": case.items, "window": case.window, "plain": case.plain}
                options = {"mode": mode, "dtype": dtype, "keep": str(files[mode]), "repeats": case.repeats}
                found = fresh(measure, threads, **size, **options)
                if mode != "taped" and files["taped"].exists() and files[mode].exists():
                    found["error"] = distance(load_file(files[mode]), load_file(files["taped"]))
                found = {name: value if math.isfinite(value) else None for name, value in found.items()}
                rows.append(size | {"mode": mode, "dtype": dtype} | found)
                show(rows[-1])
    return rows


def targets(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return what was asked for, beside what was measured."""
    single = [row for row in rows if row["dtype"] == "float32"]
    pick = {(row["items"], row["window"], row["mode"]): row for row in single}
    result = []
    for dtype, most in (("float64", 1e-9), ("float32", 1e-4)):
        same = [row for row in rows if row["dtype"] == dtype and row["mode"] == "stepwise" and "error" in row]
        for window in sorted({row["window"] for row in same}):
            error = max(row["error"] for row in same if row["window"] == window)
            result.append(at_most(f"relative error of the gradient, {dtype}, window {window}", most, error))
    short, long = (pick[1_000, window, "stepwise"] for window in (10, 160))
    growth = (long["extra_mb"] - long["states_mb"]) / (short["extra_mb"] - short["states_mb"])
    result.append(at_most("memory at window 160 over window 10, states apart, 1,000 items", 1.5, growth))
    for items in (1_000, 10_000):
        for mode in ("stepwise", "few states"):
            saving = pick[items, 40, "taped"]["extra_mb"] / pick[items, 40, mode]["extra_mb"]
            result.append(at_least(f"memory of the tape over {mode} at window 40, {items:,} items", 8, saving))
    return result


def measured(path: Path, case: Case, threads: int) -> list[dict[str, Any]]:
    """Return the rows of a size, measured now unless an interrupted run has left them."""
    rows: list[dict[str, Any]] = cell(path, lambda: {"rows": compare(case, threads)})["rows"]
    return rows


def main() -> None:
    """Measure, print and write."""
    options = arguments(__doc__ or "")
    rows: list[dict[str, Any]] = []
    for case in QUICK if options.quick else GRID:
        path = RUNS / "benchmarks" / "meta_gradient" / f"{case.items}-{case.window}.json"
        rows += compare(case, options.threads) if options.quick else measured(path, case, options.threads)
    if options.quick:
        return
    single = []
    for window in (10, 40):
        path = RUNS / "benchmarks" / "meta_gradient" / f"rounding-{window}.json"
        single.append({"window": window} | cell(path, partial(fresh, rounding, options.threads, window=window)))
        show(single[-1])
    if options.json:
        body = {"threads": options.threads, "rows": rows, "rounding": single, "targets": targets(rows)}
        write_result("benchmarks/meta_gradient", "python -m benchmarks.meta_gradient --json", body)


if __name__ == "__main__":
    main()
