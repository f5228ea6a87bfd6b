"""recdistill distill."""

from pathlib import Path
from typing import Annotated

import torch
from cyclopts import Parameter

from recdistill.cli.inspect import show_distilled
from recdistill.cli.messages import make_record, parse_budget, parse_pairs, progress_bars, state_file
from recdistill.cli.teachers import TeacherOptions
from recdistill.data.development import development_of
from recdistill.data.distilled import DistilledDataset
from recdistill.data.prepared import PreparedDataset
from recdistill.distill import DISTILLERS
from recdistill.distill.base import RunContext
from recdistill.distill.run import distill as distill_dataset
from recdistill.errors import choose
from recdistill.storage import refuse_existing


def distill(
    prepared: Path,
    out: Path,
    /,
    *,
    method: str = "td3",
    budget: str | None = None,
    option: tuple[str, ...] = (),
    teachers: TeacherOptions = TeacherOptions(),  # noqa: B008 (frozen)
    seed: int = 0,
    device: str = "cpu",
    resume: Annotated[bool, Parameter(negative=())] = False,
    overwrite: Annotated[bool, Parameter(negative=())] = False,
    json: Annotated[bool, Parameter(negative=())] = False,
) -> None:
    """Make a distilled dataset of a prepared one.

    Parameters
    ----------
    prepared
        Folder written by recdistill prepare.
    out
        Folder to write.
    method
        td3, or a control: random, random_soft, longest, most_recent, popularity, untrained.
    budget
        Sequences x items per sequence, such as 30x50; the method's default when left out.
    option
        Hyper-parameter of the method, as NAME=VALUE, such as rank=16; may be repeated.
    teachers
        Which teacher to learn from.
    seed
        Seed of everything random.
    device
        cpu, cuda or cuda:0.
    resume
        Continue an unfinished run with the same settings.
    overwrite
        Replace OUT.
    json
        Print the result as JSON.
    """
    values = parse_pairs("--option", option)
    if budget is not None:
        values["num_rows"], values["length"] = parse_budget(budget)
    distiller = make_record("--option", choose("--method", method, DISTILLERS), values)
    refuse_existing(out, replace=overwrite)
    where = choose_device(device)
    train = development_of(PreparedDataset.open(prepared))
    state = state_file(out, train.hash, method, distiller, teachers, seed, resume=resume)
    with progress_bars() as progress:
        teacher = teachers.find(train, length=distiller.length, seed=seed, progress=progress)
        context = RunContext(state=state, progress=progress, device=where)
        made = distill_dataset(train, distiller, teacher, seed=seed, context=context)
        made = made.save(out, replace=overwrite)
    show_distilled(DistilledDataset.load(out), out, as_json=json)


def choose_device(name: str) -> torch.device:
    """Return a torch device that is there.

    Raises:
        OptionError: the name is not a device, or this machine has none such.
    """
    there = {"cpu": torch.device("cpu")}
    if torch.cuda.is_available():
        there["cuda"] = torch.device("cuda")
        there |= {f"cuda:{index}": torch.device("cuda", index) for index in range(torch.cuda.device_count())}
    return choose("--device", name, there)
