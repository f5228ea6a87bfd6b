"""From finished cells of clicks to a result: scores, how models are ranked, block by block, cost, targets."""

from collections.abc import Iterable, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
from scipy import stats

from recdistill.data.clicks.codes import FIRST
from recdistill.evaluation.fidelity import agreement, noise_ceiling
from recdistill.storage import sha256
from recipes.click_jobs import GROUPS, MODELS, ClickDataset, Code, coded
from recipes.click_students import FROZEN, SCRATCH, Student, Units
from recipes.collect import rounded
from recipes.record import aggregate

Row = dict[str, Any]
OWN = "full-scratch"
"""The row of candidates trained on everything, with tables of their own."""


def body_of(cells: Sequence[Student], dataset: ClickDataset, ratios: Sequence[float], main: float) -> dict[str, Any]:
    """Return the body of a result."""
    there = [cell for cell in cells if cell.done()]
    told = {cell.key: cell.told() for cell in there}
    groups = by_row(cells)
    rows = [found for group in groups.values() for found in rows_of(group, told)]
    ranked = [found for name in groups if (found := fidelity(name, groups, told)) is not None]
    compared = comparisons(groups, told, ratios)
    return {
        "dataset": facts_of(dataset),
        "seeds": sorted({cell.seed for cell in there}),
        "cells": len(cells),
        "missing": [cell.key for cell in cells if not cell.done()],
        "models": {name: {"architecture": kind, **config} for name, (kind, config) in MODELS.items()},
        "rows": rows,
        "fidelity": ranked,
        "noise_ceiling": ceiling(groups, told),
        "comparisons": compared,
        "streams": streams_of(there),
        "targets": targets(ranked, compared, main),
    }


def facts_of(dataset: ClickDataset) -> Row:
    """Return how a result names its dataset: its training part, and the bytes of that as Parquet."""
    code = Code(dataset, 0)
    about: Row = {"name": dataset.name, "blocks": dataset.blocks, "users": None, "items": None}
    if not code.done():
        return about | {"interactions": None, "train_bytes": None, "hash": None}
    log, told = coded(dataset), code.told()
    sizes = dict(zip(log.vocabulary.spec.names, log.vocabulary.num_ids, strict=True))
    counts = {"users": sizes["user_id"] - FIRST, "items": sizes["item_id"] - FIRST, "interactions": told["samples"]}
    digest = sha256(code.folder / "blocks.safetensors")
    return about | counts | {"train_bytes": told["bytes"], "hash": digest}


def by_row(cells: Iterable[Student]) -> dict[str, list[Student]]:
    """Return the cells of each row, all candidates and seeds."""
    rows: dict[str, list[Student]] = {}
    for cell in cells:
        rows.setdefault(cell.row, []).append(cell)
    return rows


def rows_of(group: Sequence[Student], told: dict[str, Row]) -> list[Row]:
    """Return the scores of each candidate of a row, over the seeds that are there."""
    there, cell = [told[cell.key] for cell in group if cell.key in told], group[0]
    found = []
    for name in MODELS:
        mine = [each for each in there if each["model"] == name]
        if not mine:
            continue
        seconds = {key: round(float(np.mean([each["seconds"][key] for each in mine])), 2) for key in mine[0]["seconds"]}
        seconds["distill"] = round(float(np.mean([each["made"] for each in mine])), 2)
        found.append(
            {
                "name": cell.row,
                "method": cell.source.name,
                "model": name,
                "budget": median_of(mine, "units"),
                "items": cell.tables,
                "ranking": f"block {cell.tested_on + 1}",
                "tested_on": cell.tested_on + 1,
                "bytes": median_of(mine, "bytes"),
                "seeds": len(mine),
                "metrics": aggregate(mine),
                "seconds": seconds,
                "peak_mb": None,
            }
        )
    return found


def median_of(cells: Sequence[Row], name: str) -> int | None:
    """Return the median of a number that every cell has, or ``None``."""
    return None if cells[0][name] is None else int(np.median([cell[name] for cell in cells]))


def by_seed(name: str, groups: dict[str, list[Student]], told: dict[str, Row], metric: str) -> dict[int, np.ndarray]:
    """Return a metric of all candidates, in the order of ``MODELS``, for each seed that has all of them."""
    found: dict[int, dict[str, float]] = {}
    for cell in groups.get(name, []):
        if cell.key in told:
            found.setdefault(cell.seed, {})[cell.model] = told[cell.key]["metrics"][metric]
    return {
        seed: np.array([values[model] for model in MODELS])
        for seed, values in found.items()
        if len(values) == len(MODELS)
    }


def ceiling(groups: dict[str, list[Student]], told: dict[str, Row]) -> Row | None:
    """Return how full-data rankings agree: tau between halves of the seeds, Spearman of each seed with the others."""
    own = by_seed(OWN, groups, told, "auc")
    if len(own) < 2:
        return None
    scores = np.stack([own[seed] for seed in sorted(own)])
    return {"tau": noise_ceiling(scores), "spearman": one_and_others(scores), "seeds": len(own)}


def one_and_others(scores: np.ndarray) -> float:
    """Return the mean Spearman correlation of single seeds with the mean of all others."""
    found = []
    for seed in range(len(scores)):
        others = np.delete(scores, seed, axis=0).mean(axis=0)
        found.append(float(stats.spearmanr(scores[seed], others).statistic))
    return float(np.mean(found))


def fidelity(name: str, groups: dict[str, list[Student]], told: dict[str, Row]) -> Row | None:
    """Return how a row ranks candidates as full data does, and how far each is from its own full-data score.

    ``None`` where the row has no seed with all candidates that full data has too.
    """
    own, mine = by_seed(OWN, groups, told, "auc"), by_seed(name, groups, told, "auc")
    seeds = sorted(own.keys() & mine.keys())
    if name == OWN or not seeds:
        return None
    full, scores = (np.stack([each[seed] for seed in seeds]) for each in (own, mine))
    means = full.mean(axis=0), scores.mean(axis=0)
    found = asdict(agreement(*means))
    losses = [np.stack([by_seed(row, groups, told, "log_loss")[seed] for seed in seeds]) for row in (OWN, name)]
    return rounded(
        {
            "name": name,
            "tables": groups[name][0].tables,
            "seeds": len(seeds),
            **found,
            "regret_auc": found["regret"] * float(means[0].max()),
            "gap": interval_of((scores - full).mean(axis=1)),
            "distance": float(np.abs(means[1] - means[0]).mean()),
            "log_loss_gap": interval_of((losses[1] - losses[0]).mean(axis=1)),
            "auc": float(means[1].mean()),
            "by_model": dict(zip(MODELS, (means[1] - means[0]).tolist(), strict=True)),
        }
    )


def interval_of(values: np.ndarray) -> Row:
    """Return the mean over seeds with Student's 95 % interval; without one where there is a single seed."""
    mean = float(values.mean())
    if len(values) < 2:
        return {"value": mean, "low": None, "high": None}
    half = float(stats.t.ppf(0.975, len(values) - 1) * values.std(ddof=1) / np.sqrt(len(values)))
    return {"value": mean, "low": mean - half, "high": mean + half}


def comparisons(groups: dict[str, list[Student]], told: dict[str, Row], ratios: Sequence[float]) -> list[Row]:
    """Return DIET beside its controls: mean AUC over candidates, seed by seed."""
    found = []
    for ratio in ratios:
        diet = {tables: f"diet-{ratio:g}-{tables}" for tables in (FROZEN, SCRATCH)}
        inside = f"random_soft-like-export-diet-{ratio:g}-{GROUPS}-{SCRATCH}"
        pairs = [
            (diet[SCRATCH], inside, "equal bytes"),
            (diet[SCRATCH], f"random_soft-{ratio:g}-{SCRATCH}", "equal rows"),
            (diet[SCRATCH], f"random_soft_grouped-{ratio:g}-{SCRATCH}", "equal rows and groups"),
            (diet[FROZEN], f"random_soft-{ratio:g}-{FROZEN}", "equal rows"),
        ]
        for first, second, how in pairs:
            ours, theirs = (by_seed(name, groups, told, "auc") for name in (first, second))
            seeds = sorted(ours.keys() & theirs.keys())
            if seeds:
                values = np.array([(ours[seed] - theirs[seed]).mean() for seed in seeds])
                names = {"first": first, "second": second, "how": how, "seeds": len(seeds)}
                found.append(rounded(names | {"difference": interval_of(values)}))
    return found


def streams_of(cells: Sequence[Student]) -> list[Row]:
    """Return every stream, block by block: what the reference model foresaw, and a model trained on the memory."""
    memories = {}
    scores: dict[tuple[str, int], dict[int, float]] = {}
    for cell in cells:
        if not isinstance(cell.source, Units):
            continue
        memory = cell.source.memory
        memories[memory.key] = memory
        if cell.source.version is not None:
            scores.setdefault((memory.key, cell.seed), {})[cell.source.version] = cell.told()["metrics"]["auc"]
    found = []
    for key, memory in memories.items():
        blocks = memory.told()["blocks"]
        foreseen = [None if each["foreseen"] is None else round(each["foreseen"]["auc"], 5) for each in blocks]
        accepted = [max((step["valid_negative_log_loss"] for step in each["trace"]), default=None) for each in blocks]
        mine = scores.get((key, memory.seed), {})
        found.append(
            {
                "label": memory.label,
                "ratio": memory.method.ratio,
                "seed": memory.seed,
                "foreseen": foreseen,
                "on_memory": {str(number): round(value, 5) for number, value in sorted(mine.items())},
                "best_epoch_score": accepted,
                "moved_most": [round(max(each["moved"].values()), 5) for each in blocks],
                "seconds": round(memory.told()["seconds"], 1),
            }
        )
    return found


def targets(ranked: Sequence[Row], compared: Sequence[Row], main: float) -> list[Row]:
    """Return what was aimed at and what was reached, at the main ratio."""
    named = {entry["name"]: entry for entry in ranked}
    found: list[Row] = []

    def add(what: str, aim: str, value: float | None, met: bool) -> None:
        if value is not None:
            found.append(
                {"what": what, "published": None, "target": aim, "measured": round(value, 5), "met": bool(met)}
            )

    frozen, control = (named.get(f"{name}-{main:g}-{FROZEN}") for name in ("diet", "random_soft"))
    if frozen is not None:
        gap = frozen["distance"]
        add("frozen: mean distance of AUC from own full-data score", "<= .003", gap, gap <= 0.003)
        rank = frozen["spearman"]
        add("frozen: Spearman over candidates", ">= .8", rank, rank is not None and rank >= 0.8)
        if control is not None and rank is not None and control["spearman"] is not None:
            more = rank - control["spearman"]
            add("frozen: Spearman less that of random rows with soft labels", "> 0", more, more > 0)
        add("frozen: regret in AUC", "<= .001", frozen["regret_auc"], frozen["regret_auc"] <= 0.001)
    scratch = named.get(f"diet-{main:g}-{SCRATCH}")
    for entry in compared:
        if entry["how"] == "equal bytes" and entry["first"] == f"diet-{main:g}-{SCRATCH}":
            low = entry["difference"]["low"]
            value = entry["difference"]["value"]
            add("scratch: AUC less that of random rows with soft labels in equal bytes", "> 0", value, (low or 0) > 0)
    if scratch is not None:
        add("scratch: mean AUC over candidates", ">= .72", scratch["auc"], scratch["auc"] >= 0.72)
    return found
