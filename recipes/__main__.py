"""Run experiments.

    python -m recipes parity fair --workers 2 --minutes 60

Does the jobs of the named recipes that are not done yet, most important first, and writes ``results/<recipe>.json`` of
every recipe that is complete. Stop it whenever you like: finished jobs are kept, a distillation goes on from its last
pass. ``--collect`` runs nothing and writes the results from what is finished, saying what is missing.
"""

import argparse
import os
import signal
import sys
from collections.abc import Sequence
from typing import Any

from recdistill.study.grid import Job, Outcome, in_order, run_grid
from recdistill.study.local import LocalProcesses
from recipes import (
    ablation,
    beyond,
    cost,
    diet_kuairand,
    fair,
    foster,
    foster_ablation,
    foster_ids,
    foster_transfer,
    magazine_filters,
    parity,
    size_curve,
    transfer,
)
from recipes.cells import Recipe
from recipes.record import write_result

MODULES = (
    *(parity, fair, beyond, transfer, ablation, cost, size_curve, magazine_filters),
    *(foster, foster_ids, foster_ablation, foster_transfer, diet_kuairand),
)
RECIPES: dict[str, Recipe[Any]] = {module.RECIPE.name: module.RECIPE for module in MODULES}


def arguments(given: Sequence[str] | None) -> argparse.Namespace:
    """Return the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m recipes", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("recipes", nargs="+", choices=[*RECIPES, "all"], metavar="RECIPE", help=", ".join(RECIPES))
    parser.add_argument("--workers", type=int, default=2, help="jobs at a time, a process each (default: 2)")
    parser.add_argument("--threads", type=int, default=1, help="of each job (default: 1)")
    parser.add_argument("--minutes", type=float, help="begin no job after so long; those that run are finished")
    parser.add_argument("--seeds", type=int, nargs="+", help="these only (default: those of the recipe)")
    parser.add_argument(
        "--only", nargs="+", default=[], metavar="PART", help="only jobs whose names hold all of these parts"
    )
    parser.add_argument("--list", action="store_true", help="print the jobs and whether they are done, and stop")
    parser.add_argument("--collect", action="store_true", help="write the results from what is finished, and stop")
    found = parser.parse_args(given)
    for name in ("workers", "threads"):
        if getattr(found, name) < 1:
            parser.error(f"--{name} {getattr(found, name)}: must be 1 or more")
    return found


def wanted(recipes: Sequence[Recipe[Any]], seeds: Sequence[int] | None, only: Sequence[str]) -> list[Job]:
    """Return the cells of some recipes, first recipe first, whose names hold every part of ``only``."""
    cells = [cell for recipe in recipes for cell in recipe.cells(seeds or recipe.seeds)]
    return [cell for cell in cells if all(part in cell.key for part in only)]


def collect(recipe: Recipe[Any], *, partial: bool) -> bool:
    """Write the result of a recipe; return whether it was written.

    Args:
        recipe: which.
        partial: also where cells are missing, but not where all are.
    """
    cells = recipe.cells(recipe.seeds)
    there = [cell.done() for cell in cells]
    if cells and (not any(there) or not (partial or all(there))):
        print(f"{recipe.name}: {len(cells) - sum(there)} of {len(cells)} cells are missing; not written")
        return False
    path = write_result(recipe.name, f"make results/{recipe.name}.json", recipe.body(cells))
    print(f"{path}: {sum(there)} of {len(cells)} cells")
    return True


def line(stage: str, done: int, total: int, note: str = "") -> None:
    """Print the end of a job."""
    print(f"[{done}/{total}] {note}", flush=True)


def report(outcome: Outcome) -> None:
    """Print what became of the jobs."""
    print(f"{len(outcome.done)} done, {len(outcome.failed)} failed, {len(outcome.left)} left")
    for key, error in outcome.failed.items():
        print(f"FAILED {key}\n  {error.strip().splitlines()[-1]}")


def main(given: Sequence[str] | None = None) -> int:
    """Run what the command line asks for; return 1 where a job failed, else 0."""
    options = arguments(given)
    names = list(RECIPES) if "all" in options.recipes else list(dict.fromkeys(options.recipes))
    recipes = [RECIPES[name] for name in names]
    if options.collect:
        written = [collect(recipe, partial=True) for recipe in recipes]
        return 0 if all(written) else 1
    cells = wanted(recipes, options.seeds, options.only)
    if options.list:
        for job in in_order(cells):
            print("done   " if job.done() else "       ", job.key)
        return 0
    os.environ["OMP_NUM_THREADS"] = str(options.threads)  # for what starts threads of its own, such as compilers
    workers = LocalProcesses(
        size=options.workers, threads=options.threads, talk=True, preload=["recipes.cells", "recipes.diet_kuairand"]
    )
    outcome = run_grid(cells, workers, minutes=options.minutes, progress=line)
    report(outcome)
    for recipe in recipes:
        collect(recipe, partial=False)
    return 1 if outcome.failed else 0


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that a stopped grid stops its workers
    sys.exit(main())
