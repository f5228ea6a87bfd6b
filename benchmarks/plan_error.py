"""What `recdistill plan` foretells, against what comes: seconds and memory of every stage.

    RECDISTILL_DATA=... OMP_NUM_THREADS=1 python -m benchmarks.plan_error --threads 1 --json

Each repetition has its own seed and begins with a plan; then the stages are run for real, each in a process of its own:
the teacher, the distillation, and a student on all data and on the distilled rows. Nothing is kept in a cache between
them. The demo's TD3 is run whole. On ML-100k (TD3 30x50 with the author's settings, SASRec of width 32; teacher on
prefixes, students with the library's recipe) the distillation has 1 epoch of 30, for planning and for running alike:
its outer steps and judgements are the same in every epoch.

An error is predicted over actual, less 1. ``error_s`` is that of wall time: on a machine with other work also the error
of taking it to go on as during the calibration. ``error_free_s`` is the plan's own: without the time for which a
process was ready and others ran.
"""

import statistics
import tempfile
import time
from collections.abc import Callable
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any

from benchmarks.harness import arguments, at_most, fresh, show
from recdistill.data.development import development_of
from recdistill.data.distilled import DistilledDataset
from recdistill.data.prepared import PreparedDataset, PrepareSpec, prepare
from recdistill.data.sequences import evaluation_cases, training_rows
from recdistill.demo import LENGTH, RECIPE, STUDENT, generate, methods
from recdistill.distill.base import RunContext
from recdistill.distill.run import distill, peak_megabytes
from recdistill.distill.teacher import TeacherSpec, teach
from recdistill.study.calibration import Asked, plan
from recdistill.study.estimates import slowdown_of
from recdistill.study.probes import scheduled
from recdistill.study.students import StudentSpec, train_student
from recipes.datasets import ML_100K
from recipes.record import RUNS, cell, data_folder, write_result

SEEDS = (0, 1, 2)
STAGES = ("teacher", "distill", "full", "distilled")
ALL = "whole run"
KINDS = ("s", "free_s", "mb")
_SECONDS = [f"{side}_{kind}" for side in ("predicted", "actual") for kind in ("s", "free_s")]
ALLOWED = 0.3
"""Largest error that was asked for."""


def asked_of(case: str, folder: Path, seed: int) -> Asked:
    """Return the run that is planned, with its teacher in ``folder``."""
    prepared = folder / "prepared"
    shared: dict[str, Any] = {"prepared": prepared, "teacher_seed": seed, "seed": seed, "cache": folder / "cache"}
    if case == "demo":
        spec = TeacherSpec(config=STUDENT, max_seq_len=LENGTH, recipe=RECIPE)
        student = StudentSpec(config=STUDENT, max_seq_len=LENGTH, recipe=RECIPE)
        return Asked(distiller=methods()[0], teacher=spec, student=student, **shared)
    spec = TeacherSpec(config=ML_100K.sasrec, max_seq_len=ML_100K.main[1], recipe=ML_100K.teacher)
    student = StudentSpec(config=ML_100K.sasrec, max_seq_len=ML_100K.main[1], recipe=ML_100K.judging)
    return Asked(distiller=ML_100K.td3(ML_100K.main, epochs=1), teacher=spec, student=student, **shared)


def make_data(case: str, folder: Path, seed: int) -> None:
    """Write the prepared dataset."""
    if case == "demo":
        prepare(generate(folder / "raw", seed), folder / "prepared", PrepareSpec(name="demo"))
    else:
        prepare(data_folder(ML_100K.source), folder / "prepared", ML_100K.spec)


def foretell(case: str, folder: Path, seed: int) -> dict[str, Any]:
    """Return the plan; the body of a process."""
    start = peak_megabytes()
    return plan(asked_of(case, folder, seed), start_mb=start).model_dump(mode="json")


def stage(case: str, folder: Path, seed: int, name: str) -> dict[str, Any]:
    """Run a stage and return what it took; the body of a process."""
    asked = asked_of(case, folder, seed)
    train = development_of(PreparedDataset.open(asked.prepared))
    work: dict[str, Callable[[], dict[str, Any]]] = {
        "teacher": lambda: _teacher(asked, train),
        "distill": lambda: _distill(asked, train, folder),
        "full": lambda: _student(asked, train, None),
        "distilled": lambda: _student(asked, train, DistilledDataset.load(folder / "distilled")),
    }
    started, (ran, waited) = time.perf_counter(), scheduled()
    found = work[name]()
    seconds, (ran_then, waited_then) = time.perf_counter() - started, scheduled()
    slowdown = slowdown_of([{"ran_s": ran_then - ran, "waited_s": waited_then - waited}])
    actual = {"actual_s": round(seconds, 3), "actual_free_s": round(seconds / slowdown, 3)}
    return {**actual, "actual_mb": peak_megabytes(), "slowdown": round(slowdown, 2)} | found


def _teacher(asked: Asked, train: Any) -> dict[str, Any]:
    made = teach(train, asked.teacher, asked.teacher_seed, asked.cache)
    return {"epochs": made.num_epochs}


def _distill(asked: Asked, train: Any, folder: Path) -> dict[str, Any]:
    teacher = teach(train, asked.teacher, asked.teacher_seed, asked.cache)
    context = RunContext(cache=asked.cache, engine=asked.engine)
    distill(train, asked.distiller, teacher, seed=asked.seed, context=context).save(folder / "distilled")
    return {}


def _student(asked: Asked, train: Any, made: DistilledDataset | None) -> dict[str, Any]:
    spec = asked.student
    rows = made.rows if made else training_rows(train.histories, spec.max_seq_len, spec.recipe.rows)
    valid = evaluation_cases(train.histories, "valid")
    _, result = train_student(rows, spec, num_items=train.num_items, seed=asked.seed, valid=valid)
    return {"epochs": result.epochs, "steps": result.steps}


def repetition(case: str, seed: int, threads: int) -> list[dict[str, Any]]:
    """Return one row per stage of a run that was planned first."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        make_data(case, folder, seed)
        options: dict[str, Any] = {"case": case, "folder": folder, "seed": seed}
        made = fresh(foretell, threads, **options)
        planned = {one["stage"]: one for one in made["stages"]}
        rows = []
        for part in STAGES:
            came = fresh(stage, threads, name=part, **options)
            rows.append(
                {"case": case, "seed": seed, "plan_s": made["calibration_s"], "plan_slowdown": made["slowdown"]}
                | row_of(planned[part], came)
            )
            show(rows[-1])
        return rows


def row_of(planned: dict[str, Any], came: dict[str, Any]) -> dict[str, Any]:
    """Return a stage as it was foretold, as it came, and the errors."""
    basis = planned["basis"]
    pairs = {"s": planned["predicted_s"], "mb": planned["predicted_mb"], "free_s": basis["undisturbed_s"]}
    known = {name: basis[name] for name in ("rule", "epochs", "probe_s") if name in basis}
    return {
        "stage": planned["stage"],
        **{name: planned[name] for name in ("predicted_s", "low_s", "high_s", "predicted_mb")},
        "predicted_free_s": basis["undisturbed_s"],
        "predicted_epochs": known.pop("epochs", None),
        **{name: value for name, value in came.items() if name != "fits"},
        **{f"error_{name}": round(value / came[f"actual_{name}"] - 1, 3) for name, value in pairs.items()},
        "inside": planned["low_s"] <= came["actual_s"] <= planned["high_s"],
        **known,
    }


def whole_runs(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return a row for the sum of all stages of every run; its memory is that of the largest stage."""
    found = []
    for case, seed in dict.fromkeys((row["case"], row["seed"]) for row in rows):
        mine = [row for row in rows if (row["case"], row["seed"]) == (case, seed)]
        seconds = {name: sum(row[name] for row in mine) for name in _SECONDS}
        memory = {name: max(row[name] for row in mine) for name in ("predicted_mb", "actual_mb")}
        total = {name: round(value, 3) for name, value in (seconds | memory).items()}
        errors = {kind: round(total[f"predicted_{kind}"] / total[f"actual_{kind}"] - 1, 3) for kind in KINDS}
        about = {"case": case, "seed": seed, "stage": ALL}
        found.append(about | total | {f"error_{kind}": value for kind, value in errors.items()})
    return found


def summary(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return median and worst error of every stage, and of the whole run, over the repetitions."""
    found = []
    for case in dict.fromkeys(row["case"] for row in rows):
        for part in (*STAGES, ALL):
            mine = [row for row in rows if (row["case"], row["stage"]) == (case, part)]
            if not mine:
                continue
            sizes = {name: [abs(row[f"error_{name}"]) for row in mine] for name in KINDS}
            middle = {f"median_{name}": round(statistics.median(sizes[name]), 3) for name in sizes}
            worst = {f"worst_{name}": max(sizes[name]) for name in sizes}
            found.append({"case": case, "stage": part, "repetitions": len(mine)} | middle | worst)
    return found


def _rows(case: str, seed: int, threads: int) -> dict[str, Any]:
    return {"rows": repetition(case, seed, threads)}


def main() -> None:
    """Measure, print and write; repetitions that are finished are kept in ``runs/plan_error``."""
    options = arguments(__doc__ or "")
    cases = ("demo", ML_100K.name)
    rows: list[dict[str, Any]] = []
    if options.quick:
        rows += repetition("demo", SEEDS[0], options.threads)
    else:
        for seed, case in product(SEEDS, cases):
            kept = RUNS / "plan_error" / f"{case}-seed-{seed}-threads-{options.threads}.json"
            rows += cell(kept, partial(_rows, case, seed, options.threads))["rows"]
    rows += whole_runs(rows)
    errors = summary(rows)
    for row in errors:
        show(row)
    if options.json and not options.quick:
        targets = [
            at_most(f"{row['case']}, {row['stage']}: median error of {what}", ALLOWED, row[f"median_{name}"])
            for row in errors
            for name, what in (("s", "seconds"), ("free_s", "undisturbed seconds"), ("mb", "memory"))
        ]
        command = "python -m benchmarks.plan_error --json"
        body = {"threads": options.threads, "rows": rows, "errors": errors, "targets": targets}
        write_result("benchmarks/plan_error", command, body)


if __name__ == "__main__":
    main()
