"""What benchmarks share: a fresh process for every measurement, its memory and its time."""

import argparse
import gc
import json
import multiprocessing
import resource
import statistics
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import Any

import torch

LIMIT_GB = 18
"""Address space of a measuring process; what needs more counts as not fitting."""


def arguments(text: str) -> argparse.Namespace:
    """Return the options that every benchmark has."""
    parser = argparse.ArgumentParser(description=text, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="write results/benchmarks/NAME.json beside printing")
    parser.add_argument("--quick", action="store_true", help="small sizes only, to see that it runs")
    parser.add_argument("--threads", type=int, default=multiprocessing.cpu_count(), help="threads of torch")
    return parser.parse_args()


def fresh(function: Callable[..., dict[str, Any]], threads: int, **options: Any) -> dict[str, Any]:
    """Return ``function(**options)``, computed in a process of its own; ``{"fits": False}`` where memory ran out."""
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, mp_context=context, initializer=_start, initargs=(threads,)) as pool:
        try:
            return {"fits": True} | pool.submit(function, **options).result()
        except (MemoryError, BrokenProcessPool):
            return {"fits": False}
        except RuntimeError as error:
            if "allocate memory" not in str(error) and "bad_alloc" not in str(error):
                raise
            return {"fits": False}


def _start(threads: int) -> None:
    torch.set_num_threads(threads)
    limit = LIMIT_GB * 1024**3
    resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))


def memory_mb(what: str) -> float:
    """Return a figure of this process from the kernel, such as ``VmRSS`` or ``VmHWM``, in MB."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(what):
            return int(line.split()[1]) / 1024
    raise KeyError(what)


def peak_extra_mb(function: Callable[[], Any]) -> float:
    """Return how much memory a call needs beyond what is held before it, in MB; it must be the first of its kind."""
    gc.collect()
    Path("/proc/self/clear_refs").write_text("5")
    before = memory_mb("VmRSS")
    function()
    return memory_mb("VmHWM") - before


def seconds(function: Callable[[], Any], repeats: int) -> dict[str, float]:
    """Return median and range of the wall time of a call, in seconds."""
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        function()
        times.append(time.perf_counter() - start)
    return {"seconds": statistics.median(times), "seconds_low": min(times), "seconds_high": max(times)}


def show(row: dict[str, Any]) -> None:
    """Print one row."""
    print(json.dumps(row), flush=True)


def at_most(what: str, limit: float, measured: float) -> dict[str, Any]:
    """Return an upper limit that was asked for, beside what was measured."""
    return {"what": what, "target": f"at most {limit:g}", "measured": measured, "met": measured <= limit}


def at_least(what: str, limit: float, measured: float) -> dict[str, Any]:
    """Return a lower limit that was asked for, beside what was measured."""
    return {"what": what, "target": f"at least {limit:g}", "measured": measured, "met": measured >= limit}
