"""recdistill inspect."""

from pathlib import Path
from typing import Any

from recdistill.cli.clicks import MODEL
from recdistill.cli.folders import kind_of
from recdistill.cli.messages import print_facts, print_json, print_table
from recdistill.cli.options import Flag
from recdistill.cli.prepare import show_prepared
from recdistill.data.distilled import DistilledDataset, size_in_bytes
from recdistill.data.prepared import PreparedDataset
from recdistill.data.rows import SoftRows
from recdistill.distill.clicks.export import HEADER, load_rows
from recdistill.distill.clicks.stream import ClickStream
from recdistill.errors import ArtifactError
from recdistill.evaluation.top_items import top_items
from recdistill.storage import read_json
from recdistill.training.checkpoint import load_model
from recdistill.training.click_checkpoint import load_click_model
from recdistill.training.trajectory import Trajectory

SHOWN_ROWS, SHOWN_POSITIONS = 3, 5


def inspect(folder: Path, /, *, json: Flag = False) -> None:
    """Show what a folder written by recdistill holds, after checking it.

    Parameters
    ----------
    folder
        A distilled dataset, a prepared dataset, a model, a teacher, a memory of clicks or an export of one.
    json
        Print the result as JSON.
    """
    if not folder.is_dir():
        told = "is a file" if folder.exists() else "does not exist"
        raise ArtifactError(told, fix="give a folder written by recdistill", path=folder)
    if kind_of(folder) == MODEL:
        _show_click_model(folder, as_json=json)
    elif (folder / HEADER).exists():
        show_export(folder, as_json=json)
    elif (folder / "model.json").exists():
        _show_model(folder, as_json=json)
    elif (folder / "trajectory.json").exists():
        header = Trajectory.open(folder).header
        facts = {name: value for name, value in header.items() if name != "files"}
        _show_facts("teacher", {"folder": str(folder)} | facts, as_json=json)
    elif (folder / "stream.json").exists():
        show_memory(ClickStream.open(folder), as_json=json)
    elif (folder / "manifest.json").exists():
        written = read_json(folder / "manifest.json")
        if isinstance(written, dict) and written.get("format") == "recdistill-prepared":
            show_prepared(PreparedDataset.open(folder), as_json=json)
        else:
            show_distilled(DistilledDataset.load(folder), folder, as_json=json)
    else:
        raise ArtifactError(
            "holds nothing that recdistill wrote", fix="raw data is read by: recdistill prepare", path=folder
        )


def _show_model(folder: Path, *, as_json: bool) -> None:
    model, about = load_model(folder)
    facts = {
        "folder": str(folder),
        "model": model.name,
        "weights": sum(value.numel() for value in model.state_dict().values()),
    }
    _show_facts("model", facts | {"config": model.config} | about, as_json=as_json)


def _show_click_model(folder: Path, *, as_json: bool) -> None:
    saved = load_click_model(folder)
    shape = {name: value for name, value in saved.model.config.items() if name not in ("num_ids", "widths")}
    facts = {"folder": str(folder), "model": saved.model.name, "fields": len(saved.vocabulary.spec.fields)}
    weights = sum(value.numel() for value in saved.model.state_dict().values())
    facts |= {"ids": sum(saved.vocabulary.num_ids), "weights": weights, "config": shape} | dict(saved.about)
    _show_facts("model of clicks", facts, as_json=as_json)


def show_export(folder: Path, *, as_json: bool) -> None:
    """Print what an export of clicks holds."""
    rows, vocabulary, about = load_rows(folder)
    facts = {name: about[name] for name in ("method", "version", "seed")}
    facts |= {"rows": len(rows), "fields": len(vocabulary.spec.fields), "ids": sum(vocabulary.num_ids)}
    facts |= {"groups": sum(rows.groups.counts), "bytes": sum(path.stat().st_size for path in folder.iterdir())}
    _show_facts("export of clicks", {"folder": str(folder)} | facts, as_json=as_json)


def _show_facts(title: str, facts: dict[str, Any], *, as_json: bool) -> None:
    if as_json:
        print_json(facts)
    else:
        print_facts(title, facts)


def show_distilled(dataset: DistilledDataset, folder: Path, *, as_json: bool) -> None:
    """Print what a distilled dataset holds, its size, and the most probable items of its first rows."""
    manifest, size = dataset.manifest, size_in_bytes(folder)
    facts = {
        "folder": str(folder),
        "method": manifest.method,
        "kind": manifest.kind,
        "sequences": manifest.num_rows,
        "items per sequence": manifest.length,
        "source": manifest.source.name,
        "bytes": size["total"],
        "bytes of the item factor": size["item_factor"],
        "share of the training log": round(size["total"] / manifest.source.train_bytes, 4),
        "share of the users": round(manifest.num_rows / manifest.source.users, 4),
        "seed": manifest.seed,
        "seconds": manifest.seconds,
        "peak MB": manifest.peak_mb,
    }
    examples = most_probable(dataset)
    if as_json:
        print_json(facts | {"parameters": manifest.parameters, "examples": examples})
        return
    print_facts("distilled dataset", facts)
    soft = isinstance(dataset.rows, SoftRows)
    for row, places in enumerate(examples):
        lines = [[str(place["position"]), str(place["item"]), f"{place['probability']:.3f}"] for place in places]
        if soft:
            print_table(f"sequence {row + 1}, most probable items", ["position", "item", "probability"], lines)
        else:
            print_table(f"sequence {row + 1}, first items", ["position", "item"], [line[:2] for line in lines])


def show_memory(stream: ClickStream, *, as_json: bool) -> None:
    """Print what a memory of clicks holds, and what every block did to it."""
    versions = [stream.version(number).manifest for number in stream.numbers]
    facts = {
        "folder": str(stream.folder),
        "method": stream.settings.method,
        "reference model": stream.settings.model,
        "fields": len(stream.spec.fields),
        "blocks": len(versions),
        "samples seen": versions[-1]["seen"] if versions else 0,
        "units": versions[-1]["units"] if versions else 0,
        "seed": stream.seed,
    }
    if as_json:
        print_json(facts | {"versions": [{k: v for k, v in each.items() if k != "files"} for each in versions]})
        return
    print_facts("memory of clicks", facts)
    if versions:
        names = ["version", "samples", "clicked", "units", "AUC before", "new ids", "moved most", "seconds"]
        print_table("blocks, in the order in which they came", names, [_block_line(each) for each in versions])


def _block_line(told: dict[str, Any]) -> list[str]:
    """Return the line of a block; the AUC is that of the reference model before it learnt the block."""
    field, moved = max(told["moved"].items(), key=lambda pair: pair[1])
    foreseen = "-" if told["foreseen"] is None else f"{told['foreseen']['auc']:.4f}"
    counts = [str(told["number"]), f"{told['rows']:,}", f"{told['clicked']:.4f}", f"{told['units']:,}"]
    return [*counts, foreseen, f"{sum(told['new_ids'].values()):,}", f"{field} {moved:.3f}", f"{told['seconds']:.1f}"]


def most_probable(dataset: DistilledDataset) -> list[list[dict[str, Any]]]:
    """Return the most probable item at the first positions of the first rows."""
    names, shown = dataset.titles(), []
    for row in range(min(SHOWN_ROWS, len(dataset.rows))):
        found = top_items(dataset.rows, row, 1)
        if found is None:
            return []
        places = zip(found.ids[:SHOWN_POSITIONS, 0].tolist(), found.chances[:SHOWN_POSITIONS, 0].tolist(), strict=True)
        shown.append(
            [
                {"position": place, "item": names[item], "probability": round(chance, 4)}
                for place, (item, chance) in enumerate(places, 1)
            ]
        )
    return shown
