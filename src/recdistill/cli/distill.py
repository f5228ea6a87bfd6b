"""recdistill distill."""

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
from recdistill.cli.teachers import TeacherOptions
from recdistill.data.development import development_of
from recdistill.data.distilled import DistilledDataset
from recdistill.data.prepared import PreparedDataset
from recdistill.distill import DISTILLERS
from recdistill.distill.base import Distiller, Engine, RunContext
from recdistill.distill.run import distill as distill_dataset
from recdistill.errors import OptionError, choose

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
        Learnt: td3, farzi, refined. Selected users: k_center, herding, el2n, longest, most_recent. Controls: random,
        random_soft, popularity, untrained.
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
    state = state_file(out, train.hash, method, distiller, teachers, seed, resume=resume)
    with progress_bars() as progress:
        teacher = teachers.find(train, spec, seed=seed, progress=progress)
        context = RunContext(
            state=state,
            cache=cache_folder(teachers.cache),
            progress=progress,
            device=where,
            engine=Engine(compile=compile),
        )
        with under("--option", defaults_of(type(distiller))):
            made = distill_dataset(train, distiller, teacher, seed=seed, context=context)
        made.save(out, replace=overwrite)
    show_distilled(DistilledDataset.load(out), out, as_json=json)


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
