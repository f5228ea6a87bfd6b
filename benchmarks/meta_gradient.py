"""The meta-gradient with a tape and without: error, memory and time, on the same weights, data and dropout.

    python -m benchmarks.meta_gradient --json

A student of two blocks and width 64 reads 50 synthetic rows of 50 items (2,500 positions), takes 10 plain steps and the
window, and is judged on 256 real prefixes. ``taped`` records the window with autograd on distributions written out, as
everybody does; ``stepwise`` is the library's default; ``few states`` is the same with 32 MiB for kept students, where
some steps are trained again; ``reversible`` keeps none and undoes every step.

Every figure comes from a process of its own. Memory is what the call needs beyond what was held before it; of
``stepwise``, what is kept of every step (weights, moments, gradient, soft inputs) is given by itself (``states_mb``).
"""

import tempfile
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

from benchmarks.harness import arguments, fresh, peak_extra_mb, seconds, show
from benchmarks.problem import Problem, Size
from recdistill.distill.base import Engine
from recipes.record import write_result

STUDENT = {"rows": 50, "minibatch": 50, "width": 64, "blocks": 2, "heads": 2, "inner": 256, "real": 256}
GRID = [(1_000, window) for window in (10, 40, 160)] + [(10_000, window) for window in (10, 40, 160)]
GRID += [(100_000, 10), (1_000_000, 10)]
PLAIN = 10
"""Steps before the window, so that the optimiser is warm, as it is in practice."""
QUICK = [(500, 4), (500, 8)]
ENGINES = {
    "taped": Engine(mode="taped", dense_bytes=2**62),
    "stepwise": Engine(state_bytes=2**62),
    "few states": Engine(state_bytes=2**25),
    "reversible": Engine(mode="reversible"),
}


def measure(mode: str, items: int, window: int, dtype: str, keep: str, repeats: int) -> dict[str, Any]:
    """Return the figures of one mode; write its gradient to the file ``keep``."""
    Problem(Size(items=70, rows=4, minibatch=4, real=8), ENGINES[mode], 2).meta_gradient(2)  # libraries load themselves
    problem = Problem(Size(items=items, **STUDENT), ENGINES[mode], window, getattr(torch, dtype))
    problem.start, problem.reader, problem.judgement  # noqa: B018 - made now, so that they do not count
    found: dict[str, torch.Tensor] = {}
    notes: dict[str, float] = {}

    def call() -> None:
        result, gradient = problem.meta_gradient(PLAIN + window)
        found.update(gradient)
        notes.update(result.notes)

    extra = peak_extra_mb(call)
    save_file({name: value.contiguous() for name, value in found.items()}, keep)
    row = {"extra_mb": extra} | notes | seconds(call, repeats)
    if mode == "stepwise":
        weights, size = problem.start.weights, problem.size
        kept = 4 * weights.numel() + size.minibatch * size.length * size.width
        row["states_mb"] = window * kept * weights.element_size() / 1024**2
    return row


def distance(one: Path, other: Path) -> float:
    """Return the relative distance of two gradients."""
    ours, theirs = load_file(one), load_file(other)
    difference = sum(float((ours[name].double() - theirs[name].double()).square().sum()) for name in ours)
    return (difference / sum(float(value.double().square().sum()) for value in theirs.values())) ** 0.5


def compare(items: int, window: int, threads: int, folder: Path) -> list[dict[str, Any]]:
    """Return the rows of one size, with the error of the gradient against the tape's."""
    rows = []
    large = items >= 100_000
    for dtype in ("float32",) if large or window > 40 else ("float32", "float64"):
        files = {}
        for mode in ENGINES:
            row = {"items": items, "window": window, "mode": mode, "dtype": dtype}
            files[mode] = folder / f"{items}-{window}-{mode}-{dtype}"
            if mode == "taped" and items > 100_000:
                found: dict[str, Any] = {"fits": False}
            else:
                options = {"mode": mode, "items": items, "window": window, "dtype": dtype, "keep": str(files[mode])}
                found = fresh(measure, threads, repeats=1 if large or window > 40 else 3, **options)
            if mode != "taped" and files["taped"].exists():
                found["error"] = distance(files[mode], files["taped"])
            rows.append(row | found)
            show(rows[-1])
    return rows


def targets(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return what was asked for, beside what was measured."""
    single = [row for row in rows if row["dtype"] == "float32"]
    pick = {(row["items"], row["window"], row["mode"]): row for row in single}
    error = {
        dtype: max(
            row["error"]
            for row in rows
            if row["dtype"] == dtype and row["mode"] in ("stepwise", "few states") and "error" in row
        )
        for dtype in ("float32", "float64")
    }
    result = [
        {
            "what": "relative error of the gradient, float64",
            "target": "at most 1e-9",
            "measured": error["float64"],
            "met": error["float64"] <= 1e-9,
        },
        {
            "what": "relative error of the gradient, float32",
            "target": "at most 1e-4",
            "measured": error["float32"],
            "met": error["float32"] <= 1e-4,
        },
    ]
    for items in (1_000, 10_000):
        if (items, 160, "stepwise") not in pick:
            continue
        ours = {window: pick[items, window, "stepwise"] for window in (10, 40, 160)}
        growth = (ours[160]["extra_mb"] - ours[160]["states_mb"]) / (ours[10]["extra_mb"] - ours[10]["states_mb"])
        result.append(
            {
                "what": f"memory at window 160 over window 10, states apart, {items:,} items",
                "target": "at most 1.5",
                "measured": growth,
                "met": growth <= 1.5,
            }
        )
        for mode in ("stepwise", "few states"):
            saving = pick[items, 40, "taped"]["extra_mb"] / pick[items, 40, mode]["extra_mb"]
            result.append(
                {
                    "what": f"memory of the tape over {mode} at window 40, {items:,} items",
                    "target": "at least 8",
                    "measured": saving,
                    "met": saving >= 8,
                }
            )
    return result


def main() -> None:
    """Measure, print and write."""
    options = arguments(__doc__ or "")
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as folder:
        for items, window in QUICK if options.quick else GRID:
            rows += compare(items, window, options.threads, Path(folder))
    if options.json and not options.quick:
        command = "python -m benchmarks.meta_gradient --json"
        write_result(
            "benchmarks/meta_gradient", command, {"threads": options.threads, "rows": rows, "targets": targets(rows)}
        )


if __name__ == "__main__":
    main()
