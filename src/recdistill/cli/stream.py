"""recdistill stream."""

from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter

from recdistill.cli.bars import progress_bars
from recdistill.cli.folders import check_writable
from recdistill.cli.inspect import show_memory
from recdistill.cli.messages import print_json
from recdistill.cli.options import Flag, Pairs, Seed, defaults_of, listed, make_record, parse_pairs, under
from recdistill.data.clicks.fields import ClickSpec, Field
from recdistill.data.clicks.layouts import LAYOUTS
from recdistill.distill.base import RunContext
from recdistill.distill.clicks.stream import ClickStream, is_memory
from recdistill.distill.diet import DIET
from recdistill.errors import InputError, OptionError, RecdistillError, choose
from recdistill.models.clicks import CLICK_MODELS
from recdistill.rng import Streams
from recdistill.training.clicks import ClickRecipe

SET_ELSEWHERE = ("model", "model_options", "training")
OPTIONS = {name: value for name, value in defaults_of(DIET).items() if name not in SET_ELSEWHERE}
EPILOGUE = "\n\n".join(
    (
        listed("Names that --option takes, with their defaults", OPTIONS),
        listed("--recipe", defaults_of(ClickRecipe)),
        "Layouts: " + "; ".join(f"{name} ({layout.needs})" for name, layout in LAYOUTS.items()),
    )
)
Names = Annotated[tuple[str, ...], Parameter(negative=(), show_default=False, metavar="COLUMN,...")]


def stream(
    memory: Path,
    block: Path,
    /,
    *,
    layout: str | None = None,
    categorical: Names = (),
    numeric: Names = (),
    multi: Names = (),
    label: str | None = None,
    time: str | None = None,
    group: str | None = None,
    model: str | None = None,
    model_option: Pairs = (),
    recipe: Pairs = (),
    option: Pairs = (),
    seed: Seed | None = None,
    json: Flag = False,
) -> None:
    """Fold a block of clicks into a memory that models train on in place of the log (DIET).

    The first call makes the memory and says what a row holds: by a layout, or by the columns of each kind. Later calls
    give the next block and nothing else. Every version stays and can be opened again. A call that is interrupted
    leaves the memory as it was; the same call again continues it.

    Parameters
    ----------
    memory
        Folder of the memory; made where it is not there.
    block
        Parquet, CSV or TSV file with the rows of the block, or a folder of such files.
    layout
        First call: a published click log by its name, see below.
    categorical
        First call: columns of one value a row, with commas between; may be repeated.
    numeric
        First call: columns of numbers, which are cut into buckets by the first block.
    multi
        First call: columns of several values a row: lists, or text with | between.
    label
        First call: column of the label, 0 or 1; label when left out.
    time
        First call: column of the time; blocks must come in its order. Without it their order is that of the calls.
    group
        First call: column by whose values grouped AUC groups, such as the user.
    model
        First call: reference model: lr, fm, deepfm, dcnv2, autoint, xdeepfm, finalmlp or wukong; deepfm when left out.
    model_option
        First call: argument of that model, such as embedding_dim=16; may be repeated.
    recipe
        First call: field of that model's training, such as batch_size=4096; may be repeated. The names stand below.
    option
        First call: hyper-parameter of the method, such as ratio=0.02; may be repeated.
    seed
        First call: seed of everything random; 0 when left out.
    json
        Print the result as JSON.
    """
    given: dict[str, Any] = {"--layout": layout, "--categorical": categorical, "--numeric": numeric, "--multi": multi}
    given |= {"--label": label, "--time": time, "--group": group, "--seed": seed}
    given |= {"--model": model, "--model-option": model_option, "--option": option, "--recipe": recipe}
    named = {name: value for name, value in given.items() if value not in (None, ())}
    begun = ClickStream.open(memory) if is_memory(memory) else None
    if begun is not None and begun.numbers:
        for name, value in named.items():
            raise OptionError(name, value, fix="was settled by the first block of this memory; leave it out")
        current = begun
    else:
        check_writable(memory)
        settings = settings_of(model or DIET.model, model_option, recipe, option)
        fields = layout_of(layout, named) or fields_of(categorical, numeric, multi, label or "label", time, group)
        current = ClickStream.create(memory, settings, fields, seed or 0, layout)
    try:
        with progress_bars() as progress:
            version = current.take(current.log(block), RunContext(progress=progress))
    except RecdistillError:
        if not current.numbers:
            current.discard()  # a memory without a block is none
        raise
    if json:
        print_json({name: value for name, value in version.manifest.items() if name != "files"})
    else:
        show_memory(current, as_json=False)


def settings_of(model: str, model_option: Pairs, recipe: Pairs, option: Pairs) -> DIET:
    """Return the method.

    Raises:
        OptionError: a name is not known, or a value is refused.
    """
    made = choose("--model", model, CLICK_MODELS)
    values = parse_pairs("--model-option", model_option)
    for name in values:
        choose("--model-option", name, made.options())
    wanted = parse_pairs("--option", option)
    for name in wanted:
        choose("--option", name, OPTIONS)
    training = make_record("--recipe", ClickRecipe, parse_pairs("--recipe", recipe))
    settings = make_record("--option", DIET, wanted | {"model": model, "model_options": values, "training": training})
    with under("--model-option", made.options()):
        settings.new_model((2,), (1,), Streams(0))  # says now what it would say after the first block was read
    return settings


def layout_of(layout: str | None, named: dict[str, Any]) -> ClickSpec | None:
    """Return the columns of a layout; ``None`` where none is asked for.

    Raises:
        OptionError: it is not known, or columns are given beside it.
    """
    if layout is None:
        return None
    spec = choose("--layout", layout, LAYOUTS).spec
    for name in ("--categorical", "--numeric", "--multi", "--label", "--time", "--group"):
        if name in named:
            raise OptionError(name, named[name], fix=f"is settled by --layout {layout}; leave one of them out")
    return spec


def fields_of(
    categorical: tuple[str, ...],
    numeric: tuple[str, ...],
    multi: tuple[str, ...],
    label: str,
    time: str | None,
    group: str | None,
) -> ClickSpec:
    """Return the columns that were named.

    Raises:
        InputError: no feature was named.
        OptionError: a column has two parts to play.
    """
    kinds = {"categorical": categorical, "numeric": numeric, "multi": multi}
    fields = [Field(name=name, kind=kind) for kind, given in kinds.items() for name in split(given)]
    if not fields:
        told = "a new memory must be told what a row holds"
        raise InputError(f"{told}; name a --layout, or the columns by --categorical, --numeric and --multi")
    with under("--categorical, --numeric, --multi", ("fields",)):
        return ClickSpec(fields=tuple(fields), label=label, time=time, group=group)


def split(given: tuple[str, ...]) -> list[str]:
    """Return names that were given with commas between."""
    return [name.strip() for text in given for name in text.split(",") if name.strip()]
