"""From finished cells to the rows of a result: means over seeds, and comparisons user by user."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np

from recdistill.evaluation.metrics import per_case
from recdistill.evaluation.panel import Panel
from recdistill.evaluation.protocols import PROTOCOLS
from recdistill.evaluation.statistics import compare, holm
from recdistill.rng import Streams
from recdistill.storage import read_json
from recipes.datasets import Dataset
from recipes.jobs import Scored
from recipes.places import Prepare
from recipes.record import aggregate

Row = dict[str, Any]
NAMES = (
    "dataset",
    "length",
    "method",
    "model",
    "budget",
    "label",
    "items",
    "recipe",
    "bytes",
    "bytes_without_item_factor",
    "threads",
)
"""Fields of a cell that all seeds of a row share."""


def by_row(cells: Sequence[Scored]) -> dict[str, list[Scored]]:
    """Return the cells of each row, one per seed, in the order of their first."""
    rows: dict[str, list[Scored]] = {}
    for cell in cells:
        rows.setdefault(cell.row, []).append(cell)
    return rows


def finished(cells: Sequence[Scored]) -> list[Scored]:
    """Return the cells that are there."""
    return [cell for cell in cells if cell.done()]


def rows_of(cells: Sequence[Scored], protocols: Sequence[str] = tuple(PROTOCOLS)) -> list[Row]:
    """Return one row per setting and protocol over the seeds that are finished; rows without any are left out."""
    rows: list[Row] = []
    for name, group in by_row(cells).items():
        there = [cell.cell() for cell in finished(group)]
        if there:
            rows += [_row(name, there, protocol) | {"seeds_wanted": len(group)} for protocol in protocols]
    return rows


def _row(name: str, cells: list[dict[str, Any]], protocol: str) -> Row:
    shared = {key: cells[0][key] for key in NAMES if key in cells[0]}
    seconds = {key: round(float(np.mean([cell["seconds"][key] for cell in cells])), 2) for key in cells[0]["seconds"]}
    figures = aggregate([{"metrics": cell["metrics"][protocol]} for cell in cells])
    peaks = [cell["peak_mb"] for cell in cells if cell["measured"]]
    made = {"ranking": protocol, "seeds": len(cells), "metrics": figures, "seconds": seconds}
    return shared | made | {"peak_mb": max(peaks) if peaks else None, "name": name}


def find(rows: Sequence[Row], **wanted: Any) -> Row | None:
    """Return the first row with these values, or ``None``."""
    return next((row for row in rows if all(row.get(key) == value for key, value in wanted.items())), None)


def missing(cells: Sequence[Scored]) -> list[str]:
    """Return the names of the cells that are not there."""
    return [cell.key for cell in cells if not cell.done()]


def datasets_of(cells: Sequence[Scored]) -> list[dict[str, Any]]:
    """Return the facts of every dataset that is prepared."""
    found: dict[str, Dataset] = {cell.place.dataset.name: cell.place.dataset for cell in cells}
    prepared = [Prepare(dataset) for dataset in found.values()]
    return [read_json(job.path)["data"] for job in prepared if job.done()]


def per_user(cells: Sequence[Scored], metric: str, protocol: str) -> np.ndarray:
    """Return a metric of every held-out event, (seeds, events)."""
    return np.stack([per_case(cell.ranks(protocol))[metric].numpy() for cell in cells])


def panel_of(cells: Mapping[str, Sequence[Scored]], *, metric: str = "NDCG@10", protocol: str = "full") -> Panel:
    """Return the scores of the finished ones of the cells of each model."""
    return Panel(
        {
            model: {cell.place.seed: per_user([cell], metric, protocol)[0] for cell in finished(some)}
            for model, some in cells.items()
        }
    )


def comparison(
    first: Sequence[Scored], second: Sequence[Scored], *, metric: str = "NDCG@10", protocol: str = "full"
) -> dict[str, Any] | None:
    """Return how one row does beside another on the seeds that both have, or ``None`` where they share none."""
    ours, theirs = ({cell.place.seed: cell for cell in finished(cells)} for cells in (first, second))
    seeds = sorted(ours.keys() & theirs.keys())
    if not seeds:
        return None
    values = [per_user([cells[seed] for seed in seeds], metric, protocol) for cells in (ours, theirs)]
    found = compare(values[0], values[1], Streams(0).numpy("comparison"))
    names = {"first": first[0].row, "second": second[0].row, "metric": metric, "ranking": protocol}
    return names | rounded(asdict(found))


def comparisons(pairs: Sequence[tuple[Sequence[Scored], Sequence[Scored]]], **options: str) -> list[dict[str, Any]]:
    """Return the comparisons of all pairs, with p-values also corrected for their number."""
    found = [made for first, second in pairs if (made := comparison(first, second, **options)) is not None]
    for entry, corrected in zip(found, holm([entry["p"] for entry in found]), strict=True):
        entry["p_holm"] = rounded(corrected)
    return found


def rounded(value: Any) -> Any:
    """Return a value with five decimals everywhere."""
    if isinstance(value, dict):
        return {key: rounded(entry) for key, entry in value.items()}
    return round(value, 5) if isinstance(value, float) else value


def body_of(cells: Sequence[Scored], rows: list[Row], targets: list[dict[str, Any]], **more: Any) -> dict[str, Any]:
    """Return the body of a result: datasets, rows, targets, and what is missing."""
    data = datasets_of(cells)
    seeds = sorted({cell.place.seed for cell in finished(cells)})
    about = {"dataset": data[0], "datasets": data, "seeds": seeds, "cells": len(cells), "missing": missing(cells)}
    return about | {"rows": rows, "targets": targets} | more
