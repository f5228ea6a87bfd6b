"""recdistill prepare."""

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from recdistill.cli.bars import progress_bars
from recdistill.cli.folders import check_writable
from recdistill.cli.messages import print_facts, print_json, say
from recdistill.cli.options import Count, Flag, parse_pairs
from recdistill.data.prepared import PreparedDataset, PrepareSpec
from recdistill.data.prepared import prepare as prepare_dataset
from recdistill.data.readers import READERS
from recdistill.errors import OptionError

Columns = Annotated[tuple[str, ...], Parameter(negative=(), show_default=False, metavar="OURS=THEIRS")]
Shares = Annotated[
    tuple[float, float, float], Parameter(negative=(), show_default=str, metavar="SHARE", allow_leading_hyphen=True)
]

EPILOGUE = f"Names that --format takes: {', '.join(READERS)}."


def prepare(
    source: Path,
    out: Path,
    /,
    *,
    format: str | None = None,
    name: str | None = None,
    columns: Columns = (),
    time_unit: str | None = None,
    duplicates: str = "error",
    min_rating: float | None = None,
    repeats: str = "keep",
    min_user: Count = 1,
    min_item: Count = 1,
    min_order: str = "items-then-users",
    k_core: Count | None = None,
    user_k: Count | None = None,
    item_k: Count | None = None,
    split: str = "leave-one-out",
    min_events: Count = 3,
    short_users: str = "error",
    fractions: Shares = (0.8, 0.1, 0.1),
    num_blocks: Count = 10,
    overwrite: Flag = False,
    json: Flag = False,
) -> None:
    """Read a raw log, filter it, split it, and write a prepared dataset.

    Parameters
    ----------
    source
        Raw file or folder: RecBole atomic files, MovieLens, Amazon reviews, Epinions, KuaiRand, or any CSV, TSV or
        Parquet with named columns.
    out
        Folder to write. The same source and settings as before are found there and nothing is done.
    format
        Format of the source; recognised by itself when left out.
    name
        Name of the dataset; that of the source when left out.
    columns
        What the source calls a column, such as user_id=customer; may be repeated. Ours are user_id, item_id,
        timestamp, position, rating, label and split.
    time_unit
        Unit of the timestamps: s, ms, us, ns or iso.
    duplicates
        Rows that repeat an earlier one exactly: error, drop or keep.
    min_rating
        Smallest rating to keep.
    repeats
        Later rows of the same user and item: keep or drop.
    min_user
        Fewest rows of a user, filtered once.
    min_item
        Fewest rows of an item, filtered once.
    min_order
        Order of the filters above: items-then-users or users-then-items.
    k_core
        Fewest rows of every user and item, filtered until nothing changes.
    user_k
        The same for users alone.
    item_k
        The same for items alone.
    split
        leave-one-out, time, blocks or given (a column named split).
    min_events
        For leave-one-out: fewest rows of a user.
    short_users
        For leave-one-out: users with fewer rows: error, drop or train.
    fractions
        For time: shares of train, valid and test.
    num_blocks
        For blocks: number of time blocks.
    overwrite
        Replace a prepared dataset in OUT that was made from something else.
    json
        Print the result as JSON.
    """
    if k_core is not None and (user_k is not None or item_k is not None):
        raise OptionError("--k-core", k_core, fix="excludes --user-k and --item-k; give either")
    check_writable(out)
    spec = PrepareSpec(
        format=format,
        columns=parse_pairs("--columns", columns),
        time_unit=time_unit,
        duplicates=duplicates,
        min_rating=min_rating,
        repeats=repeats,
        min_user=min_user,
        min_item=min_item,
        min_order=min_order,
        user_k=k_core or user_k or 1,
        item_k=k_core or item_k or 1,
        split=split,
        min_events=min_events,
        short_users=short_users,
        fractions=fractions,
        num_blocks=num_blocks,
        name=name,
    )
    with progress_bars() as progress:
        dataset = prepare_dataset(source, out, spec, overwrite=overwrite, progress=progress)
    if dataset.cached:
        say(f"{out} holds this dataset already; nothing was done")
    show_prepared(dataset, as_json=json)


def show_prepared(dataset: PreparedDataset, *, as_json: bool) -> None:
    """Print what a prepared dataset holds."""
    sizes = ("name", "users", "items", "interactions", "train_interactions", "valid_interactions", "test_interactions")
    facts = {name: dataset.manifest[name] for name in sizes} | {
        "split": dataset.manifest["split"]["method"],
        "train_bytes": dataset.train_bytes,
        "hash": dataset.hash,
        "folder": str(dataset.folder),
    }
    if as_json:
        print_json(facts | {"cached": dataset.cached})
    else:
        print_facts("prepared dataset", facts)
