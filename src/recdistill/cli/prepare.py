"""recdistill prepare."""

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from recdistill.cli.messages import parse_pairs, print_json, print_table, progress_bars
from recdistill.data.prepared import PreparedDataset, PrepareSpec
from recdistill.data.prepared import prepare as prepare_dataset
from recdistill.errors import OptionError


def prepare(
    source: Path,
    out: Path,
    /,
    *,
    format: str | None = None,
    name: str | None = None,
    columns: tuple[str, ...] = (),
    time_unit: str | None = None,
    duplicates: str = "error",
    min_rating: float | None = None,
    repeats: str = "keep",
    min_user: int = 1,
    min_item: int = 1,
    min_order: str = "items-then-users",
    k_core: int | None = None,
    user_k: int | None = None,
    item_k: int | None = None,
    split: str = "leave-one-out",
    min_events: int = 3,
    short_users: str = "error",
    fractions: tuple[float, float, float] = (0.8, 0.1, 0.1),
    num_blocks: int = 10,
    overwrite: bool = False,
    json: Annotated[bool, Parameter(negative=())] = False,
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
        Name of a column, as OURS=THEIRS, such as user_id=customer; may be repeated.
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
        Replace another prepared dataset in OUT.
    json
        Print the result as JSON.
    """
    if k_core is not None and (user_k is not None or item_k is not None):
        raise OptionError("--k-core", k_core, fix="excludes --user-k and --item-k; give either")
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
    show_prepared(dataset, as_json=json)


def show_prepared(dataset: PreparedDataset, *, as_json: bool) -> None:
    """Print what a prepared dataset holds."""
    facts = {
        name: dataset.manifest[name]
        for name in ("name", "users", "items", "interactions", "train_interactions", "valid_interactions")
    } | {
        "test_interactions": dataset.manifest["test_interactions"],
        "split": dataset.manifest["spec"]["split"],
        "train_bytes": dataset.train_bytes,
        "hash": dataset.hash,
        "cached": dataset.cached,
        "folder": str(dataset.folder),
    }
    if as_json:
        print_json(facts)
        return
    rows = [[key.replace("_", " "), f"{value:,}" if type(value) is int else str(value)] for key, value in facts.items()]
    print_table("prepared dataset", ["", "value"], rows)
