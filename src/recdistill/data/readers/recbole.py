"""RecBole atomic files: ``NAME.inter`` with a typed header, and ``NAME.user`` and ``NAME.item`` beside it.

The header names and types every field, ``user_id:token<TAB>rating:float``; types are token, float, token_seq
and float_seq. Sequences become one text joined by ``|``, titles stay as they are. Reference: RecBole
documentation, "Atomic Files".
"""

from pathlib import Path

import polars as pl

from recdistill.data.columns import numbers
from recdistill.data.log import InteractionLog, log_name, make_log
from recdistill.data.origin import Origin
from recdistill.data.readers.base import Reader, ReadOptions, beside, files_in, one_file
from recdistill.data.readers.text import Layout, need_columns, read_text
from recdistill.errors import DataError

NEEDS = "RecBole .inter file"
TYPES = ("token", "float", "token_seq", "float_seq")
TITLES = ("title", "movie_title", "item_title", "product_title", "name", "item_name", "product_name")

_TABS = Layout(separator="\t")


def sniff(path: Path) -> bool:
    """Return whether this is an .inter file or a folder with one."""
    return path.suffix == ".inter" if path.is_file() else bool(files_in(path, lambda f: f.suffix == ".inter"))


def inputs(path: Path) -> list[Path]:
    """Return the .inter file and what lies beside it."""
    inter = one_file(path, lambda f: f.suffix == ".inter", NEEDS)
    return [inter, *beside(inter, f"{inter.stem}.item", f"{inter.stem}.user")]


def read(path: Path, options: ReadOptions) -> InteractionLog:
    """Return the log of a RecBole dataset."""
    inter, *side = inputs(path)
    frame, origin = _typed(inter, options)
    order = "position" if "position" in frame.columns and "timestamp" not in frame.columns else "timestamp"
    fix = "map it with --columns, as in --columns user_id=NAME"
    need_columns(inter, frame.columns, ("user_id", "item_id", order), fix)
    tables = {file.suffix: _typed(file, options)[0] for file in side}
    for file in side:
        need_columns(file, tables[file.suffix].columns, (f"{file.suffix[1:]}_id",), fix)
    return make_log(
        frame,
        name=log_name(inter),
        items=_with_title(tables.get(".item")),
        users=tables.get(".user"),
        origin=origin,
        time_unit=options.time_unit or "s",
        duplicates=options.duplicates,
    )


def _typed(path: Path, options: ReadOptions) -> tuple[pl.DataFrame, Origin]:
    """Return an atomic file with our column names."""
    frame, part = read_text(path, _TABS)
    types = _header_types(path, frame.columns)
    ours = {source: name for name, source in options.columns.items()}
    names = {ours.get(field, field): field for field in types}
    for name, source in options.columns.items():
        if source not in types and path.suffix == ".inter":
            need_columns(path, list(types), (source,), f"correct --columns {name}={source}")
    origin = Origin(parts=(part,), names=names)
    frame = frame.rename(dict(zip(frame.columns, names, strict=True)))
    return frame.with_columns(_cast(frame[name], types[names[name]], name, origin) for name in names), origin


def _header_types(path: Path, header: list[str]) -> dict[str, str]:
    """Return field -> type."""
    types = {}
    for field in header:
        name, _, kind = field.rpartition(":")
        if not name or kind not in TYPES:
            raise DataError(
                f"the header names no type for {field!r}",
                fix=f"write NAME:TYPE with a type of {', '.join(TYPES)}, as in {(name or field)}:token",
                path=path,
                line=1,
                column=field,
            )
        types[name] = kind
    return types


def _cast(column: pl.Series, kind: str, name: str, origin: Origin) -> pl.Series:
    """Return a column as its type says; the columns of every log are typed later, with better messages."""
    if kind.endswith("_seq") and name not in TITLES:
        return column.str.replace_all(" ", "|", literal=True)
    if kind == "float" and name not in ("timestamp", "position", "rating", "label"):
        present = column.is_not_null()
        filled = column.fill_null("0")
        return numbers(filled, origin).to_frame().select(pl.when(present).then(pl.col(name))).to_series()
    return column


def _with_title(items: pl.DataFrame | None) -> pl.DataFrame | None:
    """Return the items with the first title-like field called ``title``."""
    found = next((name for name in TITLES if items is not None and name in items.columns), None)
    return items if items is None or found is None else items.rename({found: "title"})


READER = Reader(name="recbole", needs=NEEDS, sniff=sniff, inputs=inputs, read=read, maps_columns=True)
