"""recdistill plan."""

from pathlib import Path
from typing import Annotated, get_args

from cyclopts import Parameter

from recdistill.cli.bars import progress_bars
from recdistill.cli.distill import EPILOGUE as EPILOGUE  # the same options
from recdistill.cli.distill import make_distiller
from recdistill.cli.folders import cache_folder, check_writable, require_kind
from recdistill.cli.messages import print_json, print_table
from recdistill.cli.options import (
    Count,
    Flag,
    Pairs,
    Seed,
    choose_device,
    defaults_of,
    make_record,
    model_arguments,
    parse_pairs,
    under,
)
from recdistill.cli.teachers import TeacherOptions, given_teacher
from recdistill.data.development import development_of
from recdistill.data.prepared import PreparedDataset
from recdistill.distill.base import Engine
from recdistill.distill.run import peak_megabytes
from recdistill.errors import InputError, choose
from recdistill.models import MODELS
from recdistill.study.calibration import Asked
from recdistill.study.calibration import plan as make_plan
from recdistill.study.grid import duration
from recdistill.study.plan import Plan, Stage
from recdistill.study.students import ItemTable, StudentSpec
from recdistill.training.fit import TrainingRecipe

BUSY = 1.15
"""Slowdown by other work from which it is worth saying."""
NAMES = {
    "teacher": "teacher",
    "distill": "distillation",
    "full": "a model on all data",
    "distilled": "a model on the distilled rows",
}


def plan(
    prepared: Path,
    /,
    *,
    method: str = "td3",
    budget: Annotated[str | None, Parameter(allow_leading_hyphen=True, metavar="ROWSxITEMS")] = None,
    option: Pairs = (),
    teachers: TeacherOptions = TeacherOptions(),  # noqa: B008 (frozen)
    model: str = "sasrec",
    items: str = "random",
    model_option: Pairs = (),
    recipe: Pairs = (),
    trainings: Count = 1,
    seed: Seed = 0,
    device: str = "cpu",
    compile: Flag = False,
    save: Path | None = None,
    overwrite: Flag = False,
    json: Flag = False,
) -> None:
    """Say what a distillation will take on this machine, in seconds and memory, and after how many trainings it pays.

    Every stage is begun for real and stopped after some seconds, half a minute in all; compiling takes as long again.
    Nothing of it is kept. Where validation events stop a training nobody knows when, so a range stands beside the
    seconds.

    Parameters
    ----------
    prepared
        Folder written by recdistill prepare.
    method
        As for recdistill distill.
    budget
        As for recdistill distill.
    option
        As for recdistill distill; the names stand below.
    teachers
        Which teacher to learn from.
    model
        Model to be trained on all data or on the distilled rows: sasrec, gru4rec, narm, bert4rec or popularity.
    items
        Item table of the model on the distilled rows: random, given or frozen.
    model_option
        Argument of the model, such as embedding_dim=32; may be repeated. The shape of the teacher is the default.
    recipe
        Field of the model's training recipe, such as epochs=50; may be repeated.
    trainings
        How many models are to be trained, to compare all with and without distilling.
    seed
        Seed of the run.
    device
        cpu, cuda or cuda:0.
    compile
        As for recdistill distill.
    save
        File for the plan, as JSON. Given to recdistill distill as --plan, it is kept beside what came.
    overwrite
        Replace a plan in SAVE.
    json
        Print the plan as JSON.
    """
    memory = peak_megabytes()
    distiller = make_distiller(method, budget, parse_pairs("--option", option))
    spec = teachers.spec(length=distiller.length)
    choose("--model", model, MODELS)
    choose("--items", items, dict.fromkeys(get_args(ItemTable)))
    shared = {name: value for name, value in spec.config.items() if name in MODELS[model].options()}
    chosen = model_arguments("--model-option", model, parse_pairs("--model-option", model_option))
    student = StudentSpec(
        model=model,
        config=shared | chosen,
        max_seq_len=spec.max_seq_len,
        items=items,  # type: ignore[arg-type]
        recipe=make_record("--recipe", TrainingRecipe, parse_pairs("--recipe", recipe)),
    )
    where = choose_device(device)
    require_kind("PREPARED", prepared, "prepared dataset")
    if save is not None:
        check_file(save, overwrite=overwrite)
    if teachers.teacher is not None:
        given = development_of(PreparedDataset.open(prepared, verify=False))
        given_teacher(teachers.teacher, given, cache_folder(teachers.cache))
    asked = Asked(
        prepared=prepared,
        distiller=distiller,
        teacher=spec,
        teacher_seed=teachers.seed(seed),
        given=teachers.teacher,
        cache=cache_folder(teachers.cache),
        student=student,
        seed=seed,
        device=str(where),
        engine=Engine(compile=compile),
        trainings=trainings,
    )
    with progress_bars() as progress, under("--option", defaults_of(type(distiller))):
        made = make_plan(asked, start_mb=memory, progress=progress)
    if save is not None:
        made.save(save)
    if json:
        print_json(made.model_dump(mode="json"))
    else:
        show_plan(made)


def check_file(path: Path, *, overwrite: bool) -> None:
    """Raise when a plan cannot be written.

    Raises:
        InputError: something lies there, or the folder cannot be written.
    """
    if path.is_dir():
        raise InputError(f"{path}: is a folder, and a file is to be written there; choose another name")
    if path.exists() and not overwrite:
        raise InputError(f"{path}: exists already; choose another name, or pass --overwrite to replace it")
    if path.exists():
        Plan.load(path)  # nothing else is replaced
    check_writable(path)


def show_plan(made: Plan) -> None:
    """Print the stages, and when distilling has paid."""
    rows = [
        [NAMES[stage.stage], seconds(stage.predicted_s), likely(stage), megabytes(stage), rule(stage)]
        for stage in made.stages
    ]
    print_table("what it will take", ["stage", "expected", "likely", "memory MB", "how known"], rows)
    print(verdict(made))
    if made.slowdown > BUSY:
        print(f"Other work slows this machine by a factor of {made.slowdown:.1f}, now and in these seconds.")
    print(f"Measured in {duration(made.calibration_s)}, with {made.threads} thread{'s' * (made.threads > 1)}.")


def seconds(value: float | None) -> str:
    """Return a time for people."""
    if value is None:
        return "-"
    return f"{value:.1f} s" if value < 10 else duration(value)


def likely(stage: Stage) -> str:
    """Return the range of a stage."""
    if stage.done:
        return "nothing to do"
    return "-" if stage.low_s is None else f"{seconds(stage.low_s)} to {seconds(stage.high_s)}"


def megabytes(stage: Stage) -> str:
    """Return the memory of a stage."""
    return "-" if stage.predicted_mb is None else f"{stage.predicted_mb:,.0f}"


def rule(stage: Stage) -> str:
    """Return how a stage is known."""
    epochs = stage.basis.get("epochs")
    if not epochs or stage.basis["rule"] == "nothing to train":
        return str(stage.basis["rule"])
    low, expected, high = epochs
    told = f"{expected} epochs" if low == high else f"{expected} epochs ({low} to {high})"
    return f"{told}, {stage.basis['rule']}"


def verdict(made: Plan) -> str:
    """Return whether distilling pays, as sentences."""
    taken = {stage.stage: stage.predicted_s for stage in made.stages}
    if None in taken.values():
        return "When distilling pays cannot be said: a stage is not foretold."
    low, high = made.break_even_range
    spent = sum(value or 0.0 for name, value in taken.items() if name in ("teacher", "distill"))
    both = {name: made.trainings * (taken[name] or 0.0) for name in ("full", "distilled")}
    if made.break_even is None:
        said = "Distilling does not pay in time: a training on the distilled rows is not expected to be quicker."
    else:
        said = f"Distilling pays after {made.break_even} trainings"
        said += f" (likely {low} to {'never' if high is None else high})."
    without, together = seconds(both["full"]), seconds(spent + both["distilled"])
    many = "training takes" if made.trainings == 1 else "trainings take"
    return f"{said}\n{made.trainings} {many} {without} on all data, and {together} with distilling first."
