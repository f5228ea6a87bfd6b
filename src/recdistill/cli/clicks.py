"""What train and evaluate do with clicks."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from recdistill.cli.bars import progress_bars
from recdistill.cli.folders import check_out, state_file
from recdistill.cli.messages import print_facts, print_json, print_table
from recdistill.cli.options import Pairs, make_record, parse_pairs, under
from recdistill.data.clicks.vocabulary import ClickVocabulary
from recdistill.distill.clicks.export import ClickRows, load_rows
from recdistill.distill.clicks.memory import ClickMemory
from recdistill.distill.clicks.stream import ClickStream
from recdistill.errors import DataError, OptionError, choose
from recdistill.evaluation.clicks import click_scores, predicted
from recdistill.models.clicks import CLICK_MODELS
from recdistill.models.clicks.base import ClickModel, FieldTables
from recdistill.progress import Progress
from recdistill.storage import sha256_of
from recdistill.study.click_students import (
    FEW_SAMPLES,
    ClickStudentSpec,
    train_on_rows,
    train_with_given_tables,
)
from recdistill.training.click_checkpoint import SavedClickModel, load_click_model, save_click_model
from recdistill.training.clicks import ClickRecipe
from recdistill.training.fit import FitResult

MEMORY, EXPORT, MODEL = "memory of clicks", "export of clicks", "model of clicks"
MEANING = {
    "auc": "chance that a clicked row is above another",
    "log_loss": "mean cross-entropy, nats",
    "grouped_auc": "the same within a group, weighted by rows",
    "calibration_error": "predicted less measured rate, twenty bins",
}


@dataclass(frozen=True)
class ClickSource:
    """Samples to train on: units of a memory with the tables they live in, or exported rows."""

    samples: ClickMemory | ClickRows
    vocabulary: ClickVocabulary
    layout: str | None
    about: dict[str, Any]
    content: str
    """Names the samples, so that no run is continued on others."""
    tables: FieldTables | None = None

    def train(self, spec: ClickStudentSpec, seed: int, state: Path, progress: Progress) -> tuple[ClickModel, FitResult]:
        """Return a trained model and what its training did."""
        if isinstance(self.samples, ClickRows):
            return train_on_rows(self.samples, spec, seed=seed, state=state, progress=progress)
        assert self.tables is not None
        return train_with_given_tables(self.samples, spec, self.tables, seed=seed, state=state, progress=progress)


def click_source(data: Path, kind: str, version: int | None) -> ClickSource:
    """Return what lies in a folder of this kind.

    Raises:
        OptionError: there is no such version, or an export is asked for one.
        ArtifactError: the folder is damaged.
    """
    if kind == EXPORT:
        if version is not None:
            raise OptionError("--version", version, fix="is of a memory, and DATA is an export of one version")
        rows, vocabulary, header = load_rows(data)
        about = {"trained_on": header["method"], "tables": "own", "version": header["version"]}
        return ClickSource(rows, vocabulary, header["layout"], about, sha256_of(header["files"]))
    stream = ClickStream.open(data)
    opened = stream.version(version)
    about = {"trained_on": stream.settings.method, "tables": "given", "version": opened.number}
    tables = stream.model(opened).tables
    content = sha256_of(opened.manifest["files"])
    return ClickSource(opened.memory(), opened.vocabulary(), stream.layout, about, content, tables)


def train_on_clicks(
    data: Path,
    out: Path,
    kind: str,
    *,
    model: str,
    option: Pairs,
    recipe: Pairs,
    version: int | None,
    seed: int,
    resume: bool,
    overwrite: bool,
    as_json: bool,
) -> None:
    """Train a model of clicks and write it to ``out``.

    Raises:
        InputError: an option or a folder is refused.
    """
    made = choose("--model", model, CLICK_MODELS)
    values = parse_pairs("--option", option)
    for name in values:
        choose("--option", name, made.options())
    how = make_record("--recipe", ClickRecipe, FEW_SAMPLES.as_dict() | parse_pairs("--recipe", recipe))
    check_out(out, MODEL, overwrite=overwrite)
    source = click_source(data, kind, version)
    spec = ClickStudentSpec(model=model, config=values, recipe=how)
    state = state_file(out, source.content, spec.model, spec.config, spec.recipe.as_dict(), seed, resume=resume)
    with progress_bars() as progress, under("--option", made.options()):
        trained, result = source.train(spec, seed, state, progress)
    facts = source.about | {"recipe": how.as_dict(), "seed": seed}
    facts |= {"steps": result.steps, "seconds": round(result.seconds, 3)}
    save_click_model(SavedClickModel(trained, source.vocabulary, source.layout, facts), out, replace=overwrite)
    seen = {"folder": str(out), "model": model, **{key: value for key, value in facts.items() if key != "recipe"}}
    if as_json:
        print_json(seen)
    else:
        print_facts("trained model of clicks", seen)


def evaluate_clicks(folder: Path, block: Path, *, as_json: bool) -> None:
    """Score a model of clicks on the rows of a block.

    Raises:
        DataError: the block cannot be read, or all its labels are the same.
    """
    saved = load_click_model(folder)
    log = saved.log(block)
    coded = saved.vocabulary.encode(log.between(int(log.times[0]), None))
    if coded.labels.min() == coded.labels.max():
        told = f"all {len(coded):,} labels are {coded.labels[0]:g}, and AUC compares clicked rows with others"
        raise DataError(told, fix="give rows of both kinds", path=block)
    scores = click_scores(coded.labels, predicted(saved.model, coded), coded.groups).as_dict()
    if as_json:
        facts = {"model": saved.model.name, "trained_on": saved.about["trained_on"], "tables": saved.about["tables"]}
        print_json(facts | {"rows": len(coded), "clicked": float(coded.labels.mean()), "metrics": scores})
        return
    title = f"{saved.model.name} trained on {saved.about['trained_on']} with {saved.about['tables']} tables"
    rows = [[name, f"{value:.4f}", MEANING[name]] for name, value in scores.items()]
    print_table(f"{title}, {len(coded):,} rows", ["metric", "", ""], rows)
