"""recdistill distill."""

from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter

from recdistill.cli.bars import progress_bars
from recdistill.cli.folders import cache_folder, check_out, require_kind, state_file
from recdistill.cli.inspect import show_distilled
from recdistill.cli.options import (
    Flag,
    Pairs,
    Seed,
    choose_device,
    defaults_of,
    listed,
    make_record,
    parse_budget,
    parse_pairs,
    under,
)
from recdistill.cli.teachers import TeacherOptions, given_teacher
from recdistill.data.development import Development, development_of
from recdistill.data.distilled import DistilledDataset
from recdistill.data.prepared import PreparedDataset
from recdistill.distill import DISTILLERS
from recdistill.distill.base import Distiller, Engine, RunContext
from recdistill.distill.run import distill as distill_dataset
from recdistill.distill.run import peak_megabytes
from recdistill.distill.teacher import TeacherSpec
from recdistill.errors import OptionError, choose
from recdistill.study.plan import Plan, compared, settings_of, settings_of_teacher
from recdistill.study.plan import teacher_settings as settings_of_spec

EPILOGUE = "\n\n".join(
    (
        "Names that --option takes, with their defaults (num_rows and length are the budget):",
        *(listed(name, defaults_of(made)) for name, made in DISTILLERS.items() if defaults_of(made)["num_rows"]),
    )
)


def distill(
    prepared: Path,
    out: Path,
    /,
    *,
    method: str = "td3",
    budget: Annotated[str | None, Parameter(allow_leading_hyphen=True, metavar="ROWSxITEMS")] = None,
    option: Pairs = (),
    teachers: TeacherOptions = TeacherOptions(),  # noqa: B008 (frozen)
    seed: Seed = 0,
    device: str = "cpu",
    compile: Flag = False,
    plan: Path | None = None,
    resume: Flag = False,
    overwrite: Flag = False,
    json: Flag = False,
) -> None:
    """Make a distilled dataset of a prepared one.

    A teacher is trained on the full data first, and kept for the next time. The state of an unfinished run lies beside
    OUT, so that an interrupted run is continued with --resume to the same result.

    Parameters
    ----------
    prepared
        Folder written by recdistill prepare.
    out
        Folder to write.
    method
        Learnt: td3, farzi, refined, foster. Selected users: k_center, herding, el2n, dealrec, goracs, longest,
        most_recent. Controls: random, random_soft, popularity, untrained. For a teacher that reads the texts of items
        (--teacher-model text --teacher-option encoder=FOLDER): foster, and all that select.
    budget
        Sequences and items per sequence, such as 30x50; the method's default when left out.
    option
        Hyper-parameter of the method, such as rank=16; may be repeated. The names stand below.
    teachers
        Which teacher to learn from.
    seed
        Seed of everything random.
    device
        cpu, cuda or cuda:0.
    compile
        Compile the inner loop: half a minute at the start, then two fifths less time. Needs a C++ compiler; without one
        it goes on uncompiled and says so.
    plan
        Plan of this run, written by recdistill plan --save: it is kept in the artifact, beside what came.
    resume
        Continue an unfinished run with the same settings.
    overwrite
        Replace a distilled dataset in OUT.
    json
        Print the result as JSON.
    """
    distiller = make_distiller(method, budget, parse_pairs("--option", option))
    spec = teachers.spec(length=distiller.length)
    where = choose_device(device)
    require_kind("PREPARED", prepared, "prepared dataset")
    check_out(out, "distilled dataset", overwrite=overwrite)
    train = development_of(PreparedDataset.open(prepared))
    with under("--option", defaults_of(type(distiller))):
        distiller.check(train)
    foretold = None
    if plan is not None:
        foretold = plan_of(plan, train, distiller, teachers, spec, seed=seed, device=str(where), compile=compile)
    state = state_file(out, train.hash, method, distiller, teachers, seed, resume=resume)
    with progress_bars() as progress:
        kept = foretold is None or teachers.folder(train, spec, seed=seed).exists()
        teacher = teachers.find(train, spec, seed=seed, progress=progress)
        teacher_mb = None if kept else peak_megabytes()
        context = RunContext(
            state=state,
            cache=cache_folder(teachers.cache),
            progress=progress,
            device=where,
            engine=Engine(compile=compile),
        )
        with under("--option", defaults_of(type(distiller))):
            made = distill_dataset(train, distiller, teacher, seed=seed, context=context)
        if foretold is not None:
            made = with_prediction(made, foretold, teacher_mb)
        made.save(out, replace=overwrite)
    show_distilled(DistilledDataset.load(out), out, as_json=json)


def plan_of(
    path: Path,
    train: Development,
    distiller: Distiller,
    teachers: TeacherOptions,
    spec: TeacherSpec,
    *,
    seed: int,
    device: str,
    compile: bool,
) -> Plan:
    """Return a saved plan of the run that is asked for.

    Raises:
        ArtifactError: it is no plan, or one of other settings; names the first that differs.
    """
    if teachers.teacher is not None:
        teacher = settings_of_teacher(given_teacher(teachers.teacher, train, cache_folder(teachers.cache)))
    else:
        teacher = settings_of_spec(spec, teachers.seed(seed))
    settings = settings_of(train.hash, distiller, teacher, seed=seed, device=device, compile=compile)
    found = Plan.load(path)
    found.require(settings, path)
    return found


def with_prediction(made: DistilledDataset, plan: Plan, teacher_mb: float | None) -> DistilledDataset:
    """Return a distilled dataset whose manifest holds what was foretold beside what came."""
    predicted = compared(plan, made.manifest, teacher_mb=teacher_mb)
    return replace(made, manifest=made.manifest.model_copy(update={"predicted": predicted}))


def make_distiller(method: str, budget: str | None, values: dict[str, Any]) -> Distiller:
    """Return a method with its hyper-parameters.

    Raises:
        OptionError: the method is not known, or an option or the budget does not fit it.
    """
    kind = choose("--method", method, DISTILLERS)
    if budget is not None:
        if not defaults_of(kind)["num_rows"]:
            raise OptionError("--budget", budget, fix=f"has no use: {method} makes no sequences; leave it out")
        for name in ("num_rows", "length"):
            if name in values:
                raise OptionError(f"--option {name}", values[name], fix=f"is given by --budget {budget} too; give one")
        values = values | dict(zip(("num_rows", "length"), parse_budget(budget), strict=True))
    return make_record("--option", kind, values)
