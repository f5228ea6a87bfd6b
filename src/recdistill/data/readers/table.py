"""Any table with named columns: CSV, TSV or Parquet, or a folder of Parquet files as Spark writes them.

Common column names are recognised; others are given with ``--columns user_id=NAME``. A folder may hold
``interactions`` with ``items`` and ``users`` beside it. Time: a column of numbers is in seconds unless its
name ends in ms, us or ns; texts are ISO 8601, in UTC unless they say otherwise. ``--columns position=@row``
says that the rows of every user are in time order already.
"""

import re
from pathlib import Path

import polars as pl

from recdistill.data.columns import with_types
from recdistill.data.log import InteractionLog, log_name, make_log
from recdistill.data.origin import Origin, Part
from recdistill.data.readers.base import Reader, ReadOptions, beside, files_in, one_file
from recdistill.data.readers.text import Layout, head, listed, need_columns, read_text
from recdistill.errors import DataError

NEEDS = "CSV, TSV or Parquet table with named columns, or folder of Parquet files"
NAMES = {
    "user_id": "userid user uid reviewerid customerid memberid visitorid viewerid accountid sessionid",
    "item_id": "itemid item iid parentasin asin movieid videoid productid articleid newsid songid trackid "
    "artistid bookid businessid gameid poiid sku",
    "timestamp": "timestamp unixtimestamp unixreviewtime timestamps ts time unixtime eventtime timestampms "
    "timems timestampus timeus timestampns timens datetime createdat date",
    "position": "position pos rank order sequence timebucket",
    "rating": "rating overall stars score ratings",
    "label": "label click isclick clicked",
    "split": "split",
}
"""Our column name -> names that mean it, best first; case, blanks, ``_``, ``-`` and ``.`` do not matter."""
TITLES = ["title", "itemtitle", "movietitle", "producttitle", "name", "itemname", "productname"]
ROW = "@row"
"""Value of the mapping of ``position`` that means the order of the rows."""

_ENDINGS = (".parquet", ".csv", ".tsv", ".csv.gz", ".tsv.gz")


def _is_table(file: Path) -> bool:
    return file.name.endswith(_ENDINGS)


def sniff(path: Path) -> bool:
    """Return whether this is a table, or a folder with one."""
    return _is_table(path) if path.is_file() else bool(files_in(path, _is_table))


def inputs(path: Path) -> list[Path]:
    """Return the tables of interactions, then those of items and users."""
    whole = files_in(path, lambda f: _stem(f) == "interactions" and _is_table(f))
    if whole or (path.is_file() and _stem(path) == "interactions"):
        main = one_file(path, lambda f: f in whole, NEEDS)
        return [main, *beside(main, *(f"{stem}{end}" for stem in ("items", "users") for end in _ENDINGS))]
    parts = files_in(path, lambda f: f.suffix == ".parquet")
    return parts or [one_file(path, _is_table, NEEDS)]


def _stem(file: Path) -> str:
    return file.name.split(".")[0]


def read(path: Path, options: ReadOptions) -> InteractionLog:
    """Return the log of a table."""
    files = inputs(path)
    side = {_stem(f): f for f in files[1:] if _stem(files[0]) == "interactions"}
    main = [files[0]] if side else files
    frame, parts = _load(main)
    roles = _roles(main[0], frame, dict(options.columns))
    unit = options.time_unit or _unit(main[0], frame, roles.get("timestamp"))
    return make_log(
        _renamed(frame, roles, options.columns),
        name=log_name(path.parent if path.is_file() and _stem(path) == "interactions" else path),
        items=_side(side.get("items"), "item_id"),
        users=_side(side.get("users"), "user_id"),
        origin=Origin(parts=parts, names=dict(roles)),
        time_unit=unit,
        duplicates=options.duplicates,
    )


def _load(files: list[Path]) -> tuple[pl.DataFrame, tuple[Part, ...]]:
    """Return the rows of all files below each other."""
    loaded = [_parquet(file) if file.suffix == ".parquet" else read_text(file, _layout(file)) for file in files]
    first = loaded[0][0]
    for file, (frame, _) in zip(files, loaded, strict=True):
        if frame.columns != first.columns:
            told = f"has columns {', '.join(frame.columns)}, and {files[0].name} has {', '.join(first.columns)}"
            raise DataError(told, fix="give files of one table", path=file)
    try:
        return pl.concat([frame for frame, _ in loaded], how="vertical_relaxed"), tuple(part for _, part in loaded)
    except pl.exceptions.PolarsError as error:
        reason = str(error).splitlines()[0]
        fix = "give files of one table"
        raise DataError(f"the files differ in types ({reason})", fix=fix, path=files[0].parent) from None


def _parquet(file: Path) -> tuple[pl.DataFrame, Part]:
    """Return a Parquet file."""
    try:
        frame = pl.read_parquet(file)
    except (pl.exceptions.PolarsError, pl.exceptions.PanicException, OSError) as error:
        reason = str(error).splitlines()[0]
        raise DataError(f"is not a readable Parquet file ({reason})", fix="write it again", path=file) from None
    return frame, Part(path=file, rows=frame.height)


def _layout(file: Path) -> Layout:
    """Return the layout of a text table, by the commonest separator in its header."""
    header = next(iter(head(file, 1)), "")
    return Layout(separator=max(",\t;|", key=header.count), quoted=True)


def _plain(name: str) -> str:
    return re.sub(r"[\s_.\-]", "", name).lower()


def _roles(file: Path, frame: pl.DataFrame, mapping: dict[str, str]) -> dict[str, str]:
    """Return our column name -> that of the source, for every column that is there."""
    for name, source in mapping.items():
        if not (name == "position" and source == ROW):
            need_columns(file, frame.columns, (source,), f"correct --columns {name}={source}")
    roles = {name: source for name, source in mapping.items() if source != ROW}
    plain = {_plain(column): column for column in reversed(frame.columns) if column not in roles.values()}
    for name, known in NAMES.items():
        found = next((plain[k] for k in known.split() if k in plain), None)
        if name not in roles and found is not None:
            roles[name] = found
    if "position" in mapping and "timestamp" not in mapping:
        roles.pop("timestamp", None)
    _complete(file, frame, {**mapping, **roles})
    return roles


def _complete(file: Path, frame: pl.DataFrame, roles: dict[str, str]) -> None:
    """Raise when users, items or the order are missing."""
    there = f"there are {listed(frame.columns)}"
    line = 1 if file.suffix != ".parquet" else None
    for name in ("user_id", "item_id"):
        if name not in roles:
            raise DataError(
                f"no column is recognised as {name}; {there}",
                fix=f"name it with --columns {name}=NAME; a table without a header needs one",
                path=file,
                line=line,
                column=name,
            )
    if "timestamp" not in roles and "position" not in roles:
        raise DataError(
            f"no column is recognised as time or order; {there}",
            fix="pass --columns timestamp=NAME or position=NAME, or position=@row if rows are in time order",
            path=file,
            line=line,
            column="timestamp",
        )


def _unit(file: Path, frame: pl.DataFrame, column: str | None) -> str | None:
    """Return the time unit that the name of a column tells; None when it tells nothing."""
    if column is None:
        return None
    if _plain(column) == "date" and not frame.schema[column].is_temporal():
        return "iso"
    found = re.search(r"(?:[a-z]|[_\-. ])(ms|us|ns)$", column, re.IGNORECASE)
    known = found is not None and (_plain(column) in NAMES["timestamp"].split() or not column[found.start()].isalpha())
    return found.group(1).lower() if found is not None and known else None


def _renamed(frame: pl.DataFrame, roles: dict[str, str], mapping: object) -> pl.DataFrame:
    """Return the frame under our names; a column that only looks like one of ours gets ``_source`` added."""
    ours = {source: name for name, source in roles.items()}
    taken = {column: f"{column}_source" for column in frame.columns if column in NAMES and column not in ours}
    frame = frame.rename({**ours, **taken})
    if isinstance(mapping, dict) and mapping.get("position") == ROW:
        frame = frame.with_columns(pl.int_range(pl.len()).alias("position"))
    return frame


def _side(file: Path | None, key: str) -> pl.DataFrame | None:
    """Return a table of items or users with our name for its id and its title."""
    if file is None:
        return None
    frame, _ = _load([file])
    plain = {_plain(column): column for column in reversed(frame.columns)}
    source = next((plain[k] for k in NAMES[key].split() if k in plain), None)
    if source is None:
        told = f"no column is recognised as {key}; there are {listed(frame.columns)}"
        raise DataError(told, fix=f"rename it to {key}", path=file, column=key)
    title = next((plain[k] for k in TITLES if k in plain), None)
    renames = {source: key, **({title: "title"} if title else {})}
    return with_types(frame.rename(renames), keep=(key, "title"))


READER = Reader(name="table", needs=NEEDS, sniff=sniff, inputs=inputs, read=read, maps_columns=True)
