"""recdistill train."""

from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter

from recdistill.cli.messages import make_record, parse_pairs, print_json, print_table, progress_bars, state_file
from recdistill.data.development import development_of, histories_of
from recdistill.data.distilled import DistilledDataset, is_distilled
from recdistill.data.prepared import PreparedDataset
from recdistill.data.sequences import EvaluationCases, TrainingData, evaluation_cases, training_rows
from recdistill.errors import ArtifactError, OptionError, choose
from recdistill.models import MODELS
from recdistill.storage import refuse_existing
from recdistill.study import StudentSpec, train_student
from recdistill.training.checkpoint import save_model
from recdistill.training.fit import TrainingRecipe


def train(
    data: Path,
    out: Path,
    /,
    *,
    model: str = "sasrec",
    items: str = "random",
    valid: Path | None = None,
    option: tuple[str, ...] = (),
    recipe: tuple[str, ...] = (),
    max_seq_len: int | None = None,
    seed: int = 0,
    resume: Annotated[bool, Parameter(negative=())] = False,
    overwrite: Annotated[bool, Parameter(negative=())] = False,
    json: Annotated[bool, Parameter(negative=())] = False,
) -> None:
    """Train a model on a prepared or on a distilled dataset.

    Parameters
    ----------
    data
        Folder written by recdistill prepare or recdistill distill.
    out
        Folder to write the model to.
    model
        sasrec or popularity.
    items
        Item table of the model when DATA is distilled: random (learnt from its rows alone), given (starts from the
        item factor in DATA) or frozen (that factor, not trained).
    valid
        Prepared dataset whose validation part stops the training early; DATA itself when that is prepared.
    option
        Argument of the model, as NAME=VALUE, such as embedding_dim=32; may be repeated. For distilled data the shape
        of its teacher is the default.
    recipe
        Field of the training recipe, as NAME=VALUE, such as epochs=50; may be repeated.
    max_seq_len
        Longest history that the model reads; 50, or that of the teacher.
    seed
        Seed of weights, order and dropout.
    resume
        Continue an unfinished run with the same settings.
    overwrite
        Replace OUT.
    json
        Print the result as JSON.
    """
    choose("--model", model, MODELS)
    refuse_existing(out, replace=overwrite)
    given = parse_pairs("--option", option)
    values = parse_pairs("--recipe", recipe)
    if is_distilled(data):
        distilled = DistilledDataset.load(data)
        rows: TrainingData = distilled.rows
        factor, num_items, source = distilled.item_factor, distilled.manifest.source.items, distilled.manifest.source
        data_hash, data_name, made_by = source.hash, source.name, distilled.manifest.method
        taught = distilled.manifest.teacher
        config = same_shape(model, taught) | given
        length = max_seq_len or int(taught["config"]["max_seq_len"])
        cases = None if valid is None else validation_of(valid, data_hash)
        if cases is None:
            values = {"epochs": 30} | values
    else:
        prepared = PreparedDataset.open(data)
        development = development_of(prepared)
        if items != "random":
            raise OptionError("--items", items, fix="needs distilled data, which ships an item factor; use random")
        factor, num_items, length = None, prepared.num_items, max_seq_len or 50
        data_hash, data_name, made_by, config = prepared.hash, prepared.name, "full", given
        kind = values.get("rows", "windows")
        rows = training_rows(development.histories, length, kind)
        cases = evaluation_cases(development.histories, "valid") if valid is None else validation_of(valid, data_hash)
    spec = StudentSpec(
        model=model,
        config=config,
        max_seq_len=length,
        items=items,  # type: ignore[arg-type]
        recipe=make_record("--recipe", TrainingRecipe, values),
    )
    state = state_file(out, data_hash, made_by, spec, seed, resume=resume)
    with progress_bars() as progress:
        trained, result = train_student(
            rows,
            spec,
            num_items=num_items,
            seed=seed,
            item_factor=factor,
            valid=cases,
            state=state,
            progress=progress,
        )
    facts: dict[str, Any] = {
        "data": data_name,
        "data_hash": data_hash,
        "trained_on": made_by,
        "items": items,
        "recipe": asdict(spec.recipe),
        "seed": seed,
        "steps": result.steps,
        "epochs": result.epochs,
        "best_epoch": result.best_epoch,
        "seconds": round(result.seconds, 3),
        "best_valid_ndcg@10": max(result.scores) if result.scores else None,
    }
    save_model(trained, out, facts, replace=overwrite)
    shown = {"folder": str(out), "model": model, **{key: value for key, value in facts.items() if key != "recipe"}}
    if json:
        print_json(shown)
    else:
        print_table("trained model", ["", "value"], [[key, str(value)] for key, value in shown.items()])


def same_shape(model: str, teacher: dict[str, Any]) -> dict[str, Any]:
    """Return the arguments of the teacher that ``model`` takes too, so that the given item table fits."""
    return {name: value for name, value in teacher["config"].items() if name in MODELS[model].options()}


def validation_of(folder: Path, data_hash: str) -> EvaluationCases:
    """Return the validation events of a prepared dataset.

    Raises:
        ArtifactError: it is not the one that the training data was made from.
    """
    prepared = PreparedDataset.open(folder)
    require_same_data(folder, prepared.hash, data_hash)
    return evaluation_cases(histories_of(prepared), "valid")


def require_same_data(folder: Path, found: str, wanted: str) -> None:
    """Raise when two hashes of splits differ.

    Raises:
        ArtifactError: they do.
    """
    if found != wanted:
        raise ArtifactError(
            f"is not the prepared dataset that the model's data was made from (split {found[:12]}, not {wanted[:12]})",
            fix="give that one; item numbers would not match",
            path=folder,
        )
