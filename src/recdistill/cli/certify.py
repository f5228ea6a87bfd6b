"""recdistill certify."""

from pathlib import Path
from typing import Annotated, get_args

from cyclopts import Parameter
from pydantic import TypeAdapter, ValidationError

from recdistill.certificate.certify import certify as certify_dataset
from recdistill.certificate.headline import headline
from recdistill.certificate.record import FILE, Certificate, Span
from recdistill.certificate.trainings import Examination
from recdistill.cli.bars import progress_bars
from recdistill.cli.folders import beside, cache_folder, check_writable, require_kind
from recdistill.cli.messages import print_json, print_table, say
from recdistill.cli.options import Count, Flag, Pairs, dashed, defaults_of, listed, make_record, parse_pairs
from recdistill.cli.workers import WorkerOptions
from recdistill.errors import ArtifactError, InputError, OptionError, choose
from recdistill.report.page import ENDING as REPORT
from recdistill.report.page import write_report
from recdistill.storage import read_json
from recdistill.study.cells import ModelSpec
from recdistill.study.students import ItemTable
from recdistill.study.zoo import ZOO
from recdistill.training.fit import TrainingRecipe

EPILOGUE = "\n\n".join(
    (
        f"Models of the zoo: {' '.join(spec.name for spec in ZOO)}",
        listed("Names that --recipe takes, with their defaults", defaults_of(TrainingRecipe)),
    )
)


def certify(
    distilled: Path,
    prepared: Path,
    /,
    *,
    models: str | None = None,
    seeds: Count = 5,
    items: str = "random",
    controls: str = "random,random_soft",
    recipe: Pairs = (),
    max_seq_len: Count | None = None,
    metric: str = "NDCG@10",
    protocol: str = "full",
    student: str | None = None,
    study: Path | None = None,
    cache: Path | None = None,
    report: Path | None = None,
    minutes: Annotated[float | None, Parameter(allow_leading_hyphen=True)] = None,
    workers: WorkerOptions = WorkerOptions(),  # noqa: B008 (frozen)
    overwrite: Flag = False,
    json: Flag = False,
) -> int:
    """Say what may be concluded from training on a distilled dataset, with uncertainty.

    Trains a panel of models on all data, on the distilled dataset and on controls in the same bytes, from several
    seeds, and writes the certificate into DISTILLED and a report beside it. Finished trainings are kept: the same
    command goes on where it was stopped, and other distilled datasets of the same data share those on all data.

    Parameters
    ----------
    distilled
        Folder written by recdistill distill.
    prepared
        The prepared dataset that it was made from.
    models
        Names of the zoo with commas between them, or a JSON file with a list of {"name", "model", "config"}. When left
        out, eleven models of five families; with --items given or frozen, ten whose item vectors fit the item factor.
    seeds
        Trainings of each model on each dataset; below 5 intervals are wide, below 2 nothing can be verified.
    items
        Item table of models on the distilled dataset and on controls: random, given or frozen.
    controls
        Controls with commas between them: random, random_soft; none for no controls.
    recipe
        Field of the training recipe, the same for every training; may be repeated. The names stand below.
    max_seq_len
        Longest history that models read; that of the teacher when left out.
    metric
        What models are ranked by, such as NDCG@10.
    protocol
        full or uni100.
    student
        Model whose training recdistill verify repeats; the first that learns when left out.
    study
        Folder of finished trainings; PREPARED with .study after its name when left out.
    cache
        Folder where teachers are kept; $RECDISTILL_CACHE or the user's cache folder when left out.
    report
        File of the report; DISTILLED with .report.html after its name when left out.
    minutes
        Begin no training after so long; the certificate says what is missing.
    workers
        Where trainings run.
    overwrite
        Replace the certificate and the report.
    json
        Print the certificate as JSON.
    """
    choose("--items", items, dict.fromkeys(get_args(ItemTable)))
    require_kind("DISTILLED", distilled, "distilled dataset")
    require_kind("PREPARED", prepared, "prepared dataset")
    page = report or beside(distilled, REPORT)
    refuse_old(distilled, page, overwrite=overwrite)
    check_writable(distilled / FILE)
    check_writable(page)
    kept = (study or beside(prepared, ".study")).absolute()
    check_writable(kept / "cells")
    with dashed("models", "seeds", "controls", "max_seq_len", "metric", "protocol", "student"):
        exam = Examination(
            distilled=distilled.absolute(),
            prepared=prepared.absolute(),
            folder=kept,
            cache=cache_folder(cache),
            models=() if models is None else models_of(models),
            seeds=seeds,
            items=items,  # type: ignore[arg-type]
            controls=() if controls == "none" else tuple(controls.split(",")),
            recipe=make_record("--recipe", TrainingRecipe, parse_pairs("--recipe", recipe)),
            max_seq_len=max_seq_len,
            metric=metric,
            protocol=protocol,
            student=student,
        )
    with progress_bars() as progress:
        found = certify_dataset(exam, workers.make(), minutes=minutes, progress=progress)
    write_report(page, distilled, prepared)
    for key, error in found.outcome.failed.items():
        say(f"failed: {key}: {error.strip().splitlines()[-1]}")
    if json:
        print_json(found.certificate.model_dump(mode="json"))
    else:
        show(found.certificate, page)
    return 1 if found.outcome.failed else 0


def models_of(given: str) -> tuple[ModelSpec, ...]:
    """Return a panel from names of the zoo with commas between them, or from a JSON file.

    Raises:
        OptionError: a name is not in the zoo.
        InputError: the file is missing, or holds something else, or a model that is not known.
    """
    if not given.endswith(".json"):
        known = {spec.name: spec for spec in ZOO}
        return tuple(choose("models", name.strip(), known) for name in given.split(","))
    path = Path(given)
    try:
        found = TypeAdapter(list[ModelSpec]).validate_python(read_json(path))
    except ValidationError as error:
        first = error.errors()[0]
        where = " ".join(str(part) for part in first["loc"])
        fix = 'give a list of {"name": ..., "model": ..., "config": {...}}'
        raise ArtifactError(f"entry {where}: {first['msg']}", fix=fix, path=path) from None
    for spec in found:
        try:
            spec.settings()
        except OptionError as error:
            raise InputError(f"{path}: {error}") from None
    return tuple(found)


def refuse_old(distilled: Path, page: Path, *, overwrite: bool) -> None:
    """Raise when there is a certificate or a report already, before anything takes time.

    Raises:
        InputError: one is there and may not be replaced, or the report would lie inside the distilled dataset.
    """
    if page.absolute().parent == distilled.absolute():
        raise InputError(f"{page}: lies in the distilled dataset, whose files are fixed; choose another place")
    for path in (distilled / FILE, page):
        if path.exists() and not overwrite:
            raise InputError(f"{path}: exists already; pass --overwrite to replace it")


def show(certificate: Certificate, page: Path) -> None:
    """Print the headline, a line for each dataset, and where the report lies."""
    print(headline(certificate))
    columns = ["trained on", "bytes", "rows", "mean ratio", "tau", "regret", "best model found"]
    lines = []
    for dataset in certificate.datasets:
        found = dataset.fidelity["all"]
        lines.append(
            [
                f"{dataset.name} ({dataset.rule})" if dataset.rule else dataset.name,
                f"{dataset.bytes:,}",
                f"{dataset.num_rows:,}",
                spanned(dataset.mean_ratio["all"]),
                spanned(found.tau) if found else "-",
                spanned(found.regret) if found else "-",
                ("yes" if found.top_1 else "no") if found else "-",
            ]
        )
    print_table(f"{len(certificate.judges)} models, {certificate.setting.metric}", columns, lines)
    if certificate.missing:
        say(f"{len(certificate.missing)} trainings are missing; the same command with --overwrite goes on")
    print(f"report: {page}")


def spanned(span: Span | None) -> str:
    """Return a value with its interval."""
    return "-" if span is None else f"{span.value:.3f} [{span.low:.3f}, {span.high:.3f}]"
