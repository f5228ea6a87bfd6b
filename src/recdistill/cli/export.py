"""recdistill export."""

from pathlib import Path

from recdistill.cli.folders import check_out, require_kind
from recdistill.cli.messages import print_facts, print_json
from recdistill.cli.options import Count, Flag
from recdistill.distill.clicks.export import exported, save_rows
from recdistill.distill.clicks.groups import IdGroups
from recdistill.distill.clicks.stream import ClickStream
from recdistill.rng import Streams

GROUPS = 16


def export(
    memory: Path,
    out: Path,
    /,
    *,
    version: Count | None = None,
    groups: int = GROUPS,
    overwrite: Flag = False,
    json: Flag = False,
) -> None:
    """Write a memory of clicks as plain samples with ids, for models that bring their own tables.

    OUT gets Parquet files that any framework reads: rows with a number per field and a soft label, and for every value
    of the log its number. Values that the reference model hardly tells apart share a number.

    Parameters
    ----------
    memory
        Folder of the memory, written by recdistill stream.
    out
        Folder to write to.
    version
        Version of the memory; the last one when left out.
    groups
        Most numbers of a field; 0 gives every value its own.
    overwrite
        Replace an export in OUT.
    json
        Print the result as JSON.
    """
    require_kind("MEMORY", memory, "memory of clicks")
    check_out(out, "export of clicks", overwrite=overwrite)
    stream = ClickStream.open(memory)
    opened = stream.version(version)
    model, units = stream.model(opened), opened.memory()
    if groups == 0:
        shared = IdGroups.single(model.tables.num_ids, model.tables.widths)
    else:
        shared = IdGroups.near(model.tables, groups, Streams(stream.seed).child(f"version {opened.number}"))
    rows = exported(units, model, shared)
    about = {"memory": opened.manifest["files"]["memory.safetensors"], "version": opened.number}
    about |= {"method": stream.settings.method, "layout": stream.layout, "seed": stream.seed}
    save_rows(rows, opened.vocabulary(), out, about, replace=overwrite)
    facts = {
        "folder": str(out),
        "version": opened.number,
        "rows": len(rows),
        "share of the samples": round(len(rows) / opened.manifest["seen"], 4),
        "ids": sum(model.tables.num_ids),
        "groups": sum(shared.counts),
        "bytes": sum(path.stat().st_size for path in out.iterdir()),
    }
    if json:
        print_json(facts)
    else:
        print_facts("export of clicks", facts)
