"""Where the time of an outer step goes: TD3 at the author's ML-100k settings, part by part.

    python -m benchmarks.profile_step --json

Every part is timed around its calls, so that the parts of a part are in it. Then the exact ways to a second-order
product, for one step of the inner loop: as they are, recorded, and compiled.
"""

import time
from collections.abc import Callable
from typing import Any

from benchmarks.harness import arguments, fresh, show
from benchmarks.problem import Problem, Size
from recdistill.bilevel.kernels import Kernels, time_products
from recdistill.bilevel.optimizer import Adam
from recdistill.bilevel.unroll import _Walk
from recdistill.distill.base import Engine
from recdistill.distill.soft_items import DenseRead
from recdistill.distill.student_losses import InnerSteps
from recipes.record import write_result

INNER_STEPS = 120
PARTS: list[tuple[str, type, str]] = [
    ("read soft items: P E", DenseRead, "apply"),
    ("its transpose: P^T G", DenseRead, "transpose"),
    ("gradient in P: G E^T", DenseRead, "accumulate"),
    ("encoder and loss, all derivatives", Kernels, "_call"),
    ("draw masks and targets", InnerSteps, "plan"),
    ("optimiser, forwards", Adam, "update"),
    ("optimiser, backwards", Adam, "pull_back"),
    ("judge on real prefixes", _Walk, "judge"),
]


def measure(compile: bool, repeats: int) -> dict[str, Any]:
    """Return seconds per outer step, in all and part by part."""
    problem = Problem(Size(), Engine(compile=compile))
    problem.outer_step(INNER_STEPS)
    spent = dict.fromkeys((name for name, _, _ in PARTS), 0.0)
    calls = dict.fromkeys(spent, 0)

    def timed(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*inputs: Any, **named: Any) -> Any:
            start = time.perf_counter()
            result = function(*inputs, **named)
            spent[name] += time.perf_counter() - start
            calls[name] += 1
            return result

        return call

    for name, owner, method in PARTS:
        setattr(owner, method, timed(name, getattr(owner, method)))
    start = time.perf_counter()
    for _ in range(repeats):
        problem.outer_step(INNER_STEPS)
    total = (time.perf_counter() - start) / repeats
    parts = {name: {"seconds": spent[name] / repeats, "calls": calls[name] // repeats} for name in spent}
    return {"seconds": total, "parts": parts}


def products(record: bool, compile: bool) -> dict[str, Any]:
    """Return the median seconds of every product."""
    problem = Problem(Size(), Engine())
    read = problem.reader.read(problem.synthetic.frozen_rows().items())
    step = InnerSteps(problem.loss, plain=0, middle_seed=1, dropout_seed=2).plan(0, 0)
    kernels = Kernels(record=record, compile=compile)
    return time_products(problem.start.layout, problem.start.weights, read, step, kernels, repeats=99)


def main() -> None:
    """Measure, print and write."""
    options = arguments(__doc__ or "")
    rows = []
    for compile in (False, True):
        found = fresh(measure, options.threads, compile=compile, repeats=1 if options.quick else 8)
        rows.append({"compiled": compile, "inner_steps": INNER_STEPS} | found)
        show(rows[-1])
    ways = []
    for name, record, compile in (("as they are", False, False), ("recorded", True, False), ("compiled", True, True)):
        ways.append({"kernels": name} | fresh(products, options.threads, record=record, compile=compile))
        show(ways[-1])
    if options.json and not options.quick:
        body = {"threads": options.threads, "rows": rows, "products": ways, "targets": []}
        write_result("benchmarks/profile_step", "python -m benchmarks.profile_step --json", body)


if __name__ == "__main__":
    main()
