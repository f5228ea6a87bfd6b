"""One whole outer step of TD3 at the author's ML-100k settings, against a straightforward implementation.

    python -m benchmarks.outer_step --json

The reference (``benchmarks/reference_td3.py``) is written in the style of published research code: a probability
tensor over the catalogue, Adam as a taped function, two encoder passes. Both start from the same weights and factors,
read the same prefixes and take the same number of inner steps (120, the mean of the author's range, of which 40 are
differentiated), each in a process of its own. The engine is measured as it is (``stepwise``), compiled (the compilation
is not timed), and with a tape. At 100,000 items, where the reference does not fit, both also take 15 steps of which 5
are differentiated.

The second half is the cost curve: the engine in tiles, from a thousand items to a million, for 12 inner steps of which
10 are differentiated.
"""

import time
from typing import Any

import torch

from benchmarks.harness import arguments, at_least, at_most, fresh, memory_mb, peak_extra_mb, seconds, show
from benchmarks.problem import Problem, Size
from benchmarks.reference_td3 import ReferenceTD3
from recdistill.data.batches import HardItems
from recdistill.distill.base import Engine
from recipes.record import write_result

INNER_STEPS = 120
WINDOW = 40
SHORT_STEPS, SHORT_WINDOW = 15, 5
CURVE_STEPS, CURVE_WINDOW = 12, 10
SIZES = (1_682, 10_000)
LARGE = 100_000
CURVE = (1_000, 10_000, 100_000, 1_000_000)
ENGINES = {
    "taped": Engine(mode="taped", dense_bytes=2**62),
    "stepwise": Engine(dense_bytes=2**30),
    "compiled": Engine(dense_bytes=2**30, compile=True),
    "tiled": Engine(dense_bytes=1),
}


def ours(engine: str, items: int, inner_steps: int, window: int, repeats: int) -> dict[str, Any]:
    """Return the figures of an outer step of the library; without repeats, the time is that of the first one."""
    problem = Problem(Size(items=items), ENGINES[engine], window)
    problem.start, problem.reader, problem.judgement  # noqa: B018 - made now, so that they do not count
    losses: list[float] = []

    def step() -> None:
        losses.append(problem.outer_step(inner_steps))

    start = time.perf_counter()
    extra = peak_extra_mb(step)
    timed = seconds(step, repeats) if repeats else {"seconds": time.perf_counter() - start}
    weights = problem.start.weights
    return {
        "peak_mb": memory_mb("VmHWM"),
        "extra_mb": extra,
        "weights_mb": weights.numel() * weights.element_size() / 1024**2,
        "outer_loss": losses[0],
    } | timed


def reference(items: int, inner_steps: int, window: int, repeats: int) -> dict[str, Any]:
    """Return the figures of an outer step of the reference."""
    problem = Problem(Size(items=items), ENGINES["taped"])
    size, batch = problem.size, problem.judgement.batch
    assert isinstance(batch.items, HardItems)
    factors = {name: value.detach().clone() for name, value in problem.synthetic.named_parameters()}
    item_factor = problem.synthetic.item_factor
    peer = ReferenceTD3(
        problem.model.config,
        core=factors["core"],
        user_factor=factors["user_factor"],
        time_factor=factors["time_factor"],
        item_factor=item_factor,
        window=window,
    )
    weights = {name: value.detach().clone() for name, value in problem.model.named_parameters()}
    ids, lengths = batch.items.ids, batch.lengths
    targets = ids.gather(1, lengths.unsqueeze(1)).squeeze(1)
    inputs = torch.where(torch.arange(size.length - 1) < lengths.unsqueeze(1), ids[:, :-1], 0)
    features = problem.judgement.features
    assert features is not None
    losses: list[float] = []

    def step() -> None:
        losses.append(peer.outer_step(weights, inputs, lengths, targets, features, inner_steps))

    extra = peak_extra_mb(step)
    return {"extra_mb": extra, "outer_loss": losses[0]} | seconds(step, repeats)


def targets(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return what was asked for, beside what was measured."""
    taken = {(row["method"], row["items"], row["window"]): row for row in rows}
    result = []
    for items, window, least in ((1_682, WINDOW, 3), (LARGE, SHORT_WINDOW, 10)):
        ratio = taken["reference", items, window]["seconds"] / taken["compiled", items, window]["seconds"]
        what = f"outer step at {items:,} items, window {window}: reference over ours (compiled)"
        result.append(at_least(what, least, ratio))
    million = taken["tiled", 1_000_000, CURVE_WINDOW]["peak_mb"] / 1024
    return [*result, at_most("outer step at 1,000,000 items, whole process, GB", 6, million)]


def main() -> None:
    """Measure, print and write."""
    options = arguments(__doc__ or "")
    rows: list[dict[str, Any]] = []

    def add(method: str, items: int, repeats: int, inner_steps: int = INNER_STEPS, window: int = WINDOW) -> None:
        function, name = (reference, {}) if method == "reference" else (ours, {"engine": method})
        size = {"items": items, "inner_steps": inner_steps, "window": window}
        rows.append({"method": method} | size | fresh(function, options.threads, repeats=repeats, **size, **name))
        show(rows[-1])

    for items in SIZES[:1] if options.quick else SIZES:
        for method in ("reference", "taped", "stepwise", "compiled"):
            add(method, items, 1 if options.quick else 3)
    if not options.quick:
        add("reference", LARGE, 1)
        add("compiled", LARGE, 1)
        for method in ("reference", "stepwise", "compiled"):
            add(method, LARGE, 1, SHORT_STEPS, SHORT_WINDOW)
    for items in CURVE[:2] if options.quick else CURVE:
        add("tiled", items, 0, CURVE_STEPS, CURVE_WINDOW)
    if options.json and not options.quick:
        command = "python -m benchmarks.outer_step --json"
        write_result(
            "benchmarks/outer_step", command, {"threads": options.threads, "rows": rows, "targets": targets(rows)}
        )


if __name__ == "__main__":
    main()
