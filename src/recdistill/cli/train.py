"""recdistill train."""

from pathlib import Path
from typing import Any

from recdistill.cli.bars import progress_bars
from recdistill.cli.clicks import EXPORT, MEMORY, train_on_clicks
from recdistill.cli.folders import check_out, kind_of, named, state_file
from recdistill.cli.materials import material_of, refuse_items
from recdistill.cli.messages import print_facts, print_json
from recdistill.cli.options import (
    Count,
    Flag,
    Pairs,
    Seed,
    defaults_of,
    listed,
    make_record,
    model_arguments,
    parse_pairs,
    under,
)
from recdistill.errors import OptionError, choose
from recdistill.models import MODELS
from recdistill.models.clicks import CLICK_MODELS
from recdistill.study.click_students import FEW_SAMPLES, ClickStudentSpec
from recdistill.study.students import StudentSpec, train_student
from recdistill.training.checkpoint import save_model
from recdistill.training.fit import FitResult, TrainingRecipe

EPILOGUE = "\n\n".join(
    (
        "Names that --option and --recipe take, with their defaults (epochs=30 where no validation events stop it):",
        *(listed(f"--option of {name}", model.options()) for name, model in MODELS.items() if model.options()),
        listed("--recipe", defaults_of(TrainingRecipe)),
        *(listed(f"--option of {name}, clicks", model.options()) for name, model in CLICK_MODELS.items()),
        listed("--recipe of clicks", FEW_SAMPLES.as_dict()),
    )
)


def train(
    data: Path,
    out: Path,
    /,
    *,
    model: str | None = None,
    items: str = "random",
    valid: Path | None = None,
    option: Pairs = (),
    recipe: Pairs = (),
    max_seq_len: Count | None = None,
    version: Count | None = None,
    seed: Seed = 0,
    resume: Flag = False,
    overwrite: Flag = False,
    json: Flag = False,
) -> None:
    """Train a model on a prepared or on a distilled dataset, on a memory of clicks or on an export of one.

    The state of an unfinished run lies beside OUT, so that an interrupted run is continued with --resume to the same
    result.

    Parameters
    ----------
    data
        Folder written by recdistill prepare, distill, stream or export.
    out
        Folder to write the model to.
    model
        sasrec (when left out), gru4rec, narm, bert4rec, popularity, or text: a language model over what items say of
        themselves, with --option encoder=FOLDER. Of clicks: deepfm (when left out), lr, fm, dcnv2, autoint, xdeepfm,
        finalmlp or wukong; on a memory it reads the reference model's tables, frozen, on an export its own.
    items
        Item table of the model when DATA is distilled: random (learnt from its rows alone), given (starts from the
        item factor in DATA) or frozen (that factor, not trained).
    valid
        Prepared dataset whose validation part stops the training early; DATA itself when that is prepared.
    option
        Argument of the model, such as embedding_dim=32; may be repeated. For distilled data the shape of its teacher
        is the default. The names stand below.
    recipe
        Field of the training recipe, such as epochs=50; may be repeated. The names stand below.
    max_seq_len
        Longest history that the model reads; 50, or that of the teacher.
    version
        Version of a memory of clicks; the last one when left out.
    seed
        Seed of weights, order and dropout.
    resume
        Continue an unfinished run with the same settings.
    overwrite
        Replace a model in OUT.
    json
        Print the result as JSON.
    """
    kind = kind_of(data)
    if kind in (MEMORY, EXPORT):
        refuse_given(kind, {"--items": items != "random", "--valid": valid, "--max-seq-len": max_seq_len})
        settled: dict[str, Any] = {"version": version, "seed": seed, "resume": resume, "overwrite": overwrite}
        name = model or ClickStudentSpec.model
        train_on_clicks(data, out, kind, model=name, option=option, recipe=recipe, as_json=json, **settled)
        return
    if version is not None:
        raise OptionError("--version", version, fix="is of a memory of clicks, and DATA is none; leave it out")
    model = model or StudentSpec.model
    choose("--model", model, MODELS)
    arguments = model_arguments("--option", model, parse_pairs("--option", option))
    values = parse_pairs("--recipe", recipe)
    how = make_record("--recipe", TrainingRecipe, values)
    check_out(out, "model", overwrite=overwrite)
    material = material_of(data, valid, max_seq_len=max_seq_len, rows=how.rows)
    refuse_items(items, model, material)
    material.require_texts(model)
    spec = StudentSpec(
        model=model,
        config=material.config(model, arguments),
        max_seq_len=material.max_seq_len,
        items=items,  # type: ignore[arg-type]
        recipe=make_record("--recipe", TrainingRecipe, material.recipe_defaults() | values),
    )
    state = state_file(out, material.content, material.valid is None, spec, seed, resume=resume)
    with progress_bars() as progress, under("--option", MODELS[model].options()):
        trained, result = train_student(
            material.rows,
            spec,
            num_items=material.num_items,
            seed=seed,
            item_factor=material.item_factor,
            catalogue=material.catalogue,
            valid=material.valid,
            state=state,
            progress=progress,
        )
    facts = material.about() | training_facts(spec, result, seed)
    save_model(trained, out, facts, replace=overwrite)
    seen = {"folder": str(out), "model": model, **{key: value for key, value in facts.items() if key != "recipe"}}
    if json:
        print_json(seen)
    else:
        print_facts("trained model", seen)


def refuse_given(kind: str, given: dict[str, Any]) -> None:
    """Raise when an option was given that says nothing of clicks.

    Raises:
        OptionError: naming it.
    """
    for name, value in given.items():
        if value:
            raise OptionError(name, "given", fix=f"is of histories of items, and DATA is {named(kind)}; leave it out")


def training_facts(spec: StudentSpec, result: FitResult, seed: int) -> dict[str, Any]:
    """Return how a model was trained, as it is written beside its weights."""
    return {
        "items": spec.items,
        "recipe": spec.recipe.as_dict(),
        "seed": seed,
        "steps": result.steps,
        "epochs": result.epochs,
        "best_epoch": result.best_epoch,
        "seconds": round(result.seconds, 3),
        "best_valid_ndcg@10": max(result.scores) if result.scores else None,
    }
