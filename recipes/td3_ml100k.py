"""TD3 30x50 on MovieLens-100k, in parity with the paper and beside every control.

    make results/td3_ml100k.json

Each seed has its own teacher, distillation, selections and students. Two recipes train the students. *judging* is the
library's default with early stopping on validation NDCG@10, the same for every row. *parity* is the author's: 200 Adam
steps with the inner learning rate, no stopping. Both score the test events once, against 100 sampled items and in full
ranking. Every finished cell is kept in ``runs/td3_ml100k``, so that the recipe can be stopped and started again.
"""

import argparse
import os
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, get_args

import torch

from recdistill.data.development import Development, development_of, histories_of
from recdistill.data.distilled import DistilledDataset, size_in_bytes
from recdistill.data.prepared import PreparedDataset, PrepareSpec, prepare
from recdistill.data.sequences import TrainingData, evaluation_cases, training_rows
from recdistill.distill.base import Distiller, Engine, RunContext
from recdistill.distill.coresets.counts import PopularityCounts
from recdistill.distill.coresets.longest import Longest
from recdistill.distill.coresets.most_recent import MostRecent
from recdistill.distill.coresets.random import Random
from recdistill.distill.coresets.random_soft import RandomSoft
from recdistill.distill.coresets.untrained import Untrained
from recdistill.distill.run import distill
from recdistill.distill.td3 import TD3
from recdistill.distill.teacher import TeacherSpec, teach
from recdistill.evaluation.protocols import PROTOCOLS, evaluate
from recdistill.models.base import Recommender
from recdistill.study.students import ItemTable, StudentSpec, train_student
from recdistill.training.fit import TrainingRecipe
from recdistill.training.trajectory import Trajectory
from recipes.record import RUNS, aggregate, cell, data_folder, dataset_facts, write_result

SEEDS = (0, 1, 2)
ROWS, LENGTH = 30, 50
MODEL = {
    "embedding_dim": 32,
    "num_blocks": 1,
    "num_heads": 1,
    "inner_dim": 64,
    "dropout": 0.2,
    "attention_dropout": 0.5,
}
TEACHER = TeacherSpec(
    config=MODEL,
    max_seq_len=LENGTH,
    recipe=TrainingRecipe(rows="prefixes", objective="last", batch_size=2048, epochs=100),
)
METHOD = TD3(num_rows=ROWS, length=LENGTH)
RECIPES = {"judging": TrainingRecipe(), "parity": METHOD.student_recipe()}
PUBLISHED = {"td3 30x50": (0.6614, 0.3856), "full": (0.6946, 0.4134)}
FLOOR = {"HR@10 uni100": 0.72, "NDCG@10 uni100": 0.45, "HR@10 full": 0.19, "NDCG@10 full": 0.105}


def equal_bytes() -> tuple[int, int]:
    """Return how many random rows, and how many with soft labels, take the bytes that TD3 adds to the item factor."""
    width = MODEL["embedding_dim"]
    td3 = 4 * (ROWS * METHOD.rank + LENGTH * METHOD.rank + METHOD.rank**2 * int(width))
    hard_row, soft_row = 2 * LENGTH + 2, LENGTH * (2 + 2 * int(width)) + 2
    return int(td3 / hard_row), int(td3 / soft_row)


def methods() -> Iterator[Distiller]:
    """Yield TD3 and every control, at equal rows and at equal bytes."""
    hard_rows, soft_rows = equal_bytes()
    yield METHOD
    for selector in (Random, RandomSoft, Longest, MostRecent):
        yield selector(num_rows=ROWS, length=LENGTH)
    yield Random(num_rows=hard_rows, length=LENGTH)
    yield RandomSoft(num_rows=soft_rows, length=LENGTH)
    yield PopularityCounts()
    yield Untrained()


@dataclass(frozen=True)
class Seed:
    """Everything that is done for one seed."""

    seed: int
    folder: Path
    prepared: PreparedDataset
    train: Development

    @staticmethod
    def open(seed: int) -> "Seed":
        """Return the work of one seed on the prepared data."""
        folder = RUNS / "td3_ml100k"
        prepared = PreparedDataset.open(folder / "prepared")
        return Seed(seed, folder / f"seed-{seed}", prepared, development_of(prepared))

    def run(self) -> None:
        """Compute every cell that is not there yet."""
        teacher = teach(self.train, TEACHER, self.seed, self.folder / "cache", progress=self.report)
        if self.seed == SEEDS[0]:
            cell(self.folder / "full-data.json", lambda: {"seconds": self.full_data_seconds()})
        self.full(teacher)
        for method in methods():
            dataset, folder = self.distilled(method, teacher)
            size = size_in_bytes(folder)
            only = {"popularity": ("random",), "untrained": ("given",)}
            for items in only.get(method.method, get_args(ItemTable)):
                for recipe in RECIPES:
                    self.student(dataset, size, items, recipe)

    def full_data_seconds(self) -> float:
        """Return how long training on all data takes, by the recipe of the teacher, on this machine as it is now."""
        with TemporaryDirectory() as cache:
            return teach(self.train, TEACHER, self.seed, Path(cache)).seconds

    def full(self, teacher: Trajectory) -> None:
        """Score a model trained on all data by the judging recipe, and the teacher."""
        about = {
            "method": "full",
            "model": "sasrec",
            "budget": "full",
            "items": "random",
            "bytes": self.train.train_bytes,
        }
        path = self.folder / "cells" / "full-teacher.json"
        cell(path, lambda: self.scored(teacher.model(), about | {"recipe": "prefixes"}, {"train": teacher.seconds}))
        rows = training_rows(self.train.histories, LENGTH, "windows")
        path = self.folder / "cells" / "full-judging.json"
        cell(path, lambda: self.trained(rows, None, about | {"recipe": "judging"}, {}))

    def distilled(self, method: Distiller, teacher: Trajectory) -> tuple[DistilledDataset, Path]:
        """Return the artifact of a method, made now if need be."""
        folder = self.folder / f"{method.method}-{budget_of(method)}"
        if not folder.exists():
            state = self.folder / f"{folder.name}.state"
            context = RunContext(state=state, progress=self.report, engine=Engine(compile=True))
            distill(self.train, method, teacher, seed=self.seed, context=context).save(folder)
        return DistilledDataset.load(folder), folder

    def student(self, dataset: DistilledDataset, size: dict[str, int], items: str, recipe: str) -> None:
        """Train and score one student."""
        manifest = dataset.manifest
        about = {
            "method": manifest.method,
            "model": "popularity" if manifest.method == "popularity" else "sasrec",
            "budget": f"{manifest.num_rows}x{manifest.length}",
            "items": items,
            "recipe": recipe,
            "bytes": size["total"],
            "bytes_without_item_factor": size["total"] - size["item_factor"],
        }
        path = self.folder / "cells" / f"{manifest.method}-{about['budget']}-{items}-{recipe}.json"
        facts = {"distill": manifest.seconds["distill"]}
        cell(path, lambda: self.trained(dataset.rows, dataset, about, facts, manifest.peak_mb))

    def trained(
        self,
        rows: TrainingData,
        dataset: DistilledDataset | None,
        about: dict[str, Any],
        seconds: dict[str, float],
        peak_mb: float | None = None,
    ) -> dict[str, Any]:
        """Return the cell of a student trained on ``rows``."""
        config = MODEL if about["model"] == "sasrec" else {}
        recipe = RECIPES[about["recipe"]]
        spec = StudentSpec(model=about["model"], config=config, max_seq_len=LENGTH, items=about["items"], recipe=recipe)
        model, result = train_student(
            rows,
            spec,
            num_items=self.train.num_items,
            seed=self.seed,
            item_factor=None if dataset is None else dataset.item_factor,
            valid=evaluation_cases(self.train.histories, "valid") if about["recipe"] == "judging" else None,
        )
        return self.scored(model, about | {"steps": result.steps}, seconds | {"train": result.seconds}, peak_mb)

    def scored(
        self, model: Recommender, about: dict[str, Any], seconds: dict[str, float], peak_mb: float | None = None
    ) -> dict[str, Any]:
        """Return the cell of a trained model: its test scores under both protocols."""
        cases = evaluation_cases(histories_of(self.prepared), "test")
        metrics = {
            f"{name} {protocol}": value
            for protocol in PROTOCOLS
            for name, value in evaluate(model, cases, protocol=protocol).metrics().items()
        }
        print(about, {name: round(metrics[name], 4) for name in FLOOR}, flush=True)
        return about | {"seed": self.seed, "metrics": metrics, "seconds": seconds, "peak_mb": peak_mb}

    def report(self, stage: str, done: int, total: int, note: str = "") -> None:
        """Print where the seed stands."""
        if done == total or done % 24 == 0:
            print(f"seed {self.seed}: {stage} {done}/{total} {note}", flush=True)


def budget_of(method: Distiller) -> str:
    return f"{method.num_rows}x{method.length}"


def collect(folder: Path) -> list[dict[str, Any]]:
    """Return one row per setting and protocol, over all seeds."""
    groups: dict[str, list[dict[str, Any]]] = {}
    for seed in SEEDS:
        for path in sorted((folder / f"seed-{seed}" / "cells").glob("*.json")):
            groups.setdefault(path.stem, []).append(cell(path, dict))
    rows = []
    for cells in groups.values():
        metrics = aggregate(cells)
        for protocol in PROTOCOLS:
            named = {name.split()[0]: value for name, value in metrics.items() if name.endswith(f" {protocol}")}
            keys = ("method", "model", "budget", "items", "recipe", "bytes", "bytes_without_item_factor")
            row = {key: cells[0][key] for key in keys if key in cells[0]}
            seconds = {
                name: round(sum(c["seconds"][name] for c in cells) / len(cells), 2) for name in cells[0]["seconds"]
            }
            peaks = [c["peak_mb"] for c in cells if c["peak_mb"]]
            rows.append(
                row
                | {"ranking": protocol, "seeds": len(cells), "metrics": named, "seconds": seconds}
                | {"peak_mb": max(peaks) if peaks else None}
            )
    return sorted(rows, key=lambda row: (row["ranking"], row["recipe"], row["method"], row["budget"], row["items"]))


def targets(rows: list[dict[str, Any]], full_seconds: float) -> list[dict[str, Any]]:
    """Return what was aimed at and what was reached; ``full_seconds`` is how long training on all data takes."""

    def find(**wanted: str) -> dict[str, Any]:
        return next(row for row in rows if all(row[key] == value for key, value in wanted.items()))

    full = {"method": "full", "recipe": "judging"}
    td3 = find(method="td3", items="given", recipe="parity", ranking="uni100")
    made = [
        _target(f"{name}, SASRec on all data", floor, find(**full, ranking=name.split()[1]), name.split()[0])
        for name, floor in FLOOR.items()
    ]
    for name, published in zip(("HR@10", "NDCG@10"), PUBLISHED["td3 30x50"], strict=True):
        made.append(_target(f"{name} uni100, td3 30x50 in parity mode", published, td3, name))
    seconds = td3["seconds"]["distill"]
    for what, most, measured in (
        ("minutes of one distillation, at most", 30, seconds / 60),
        ("seconds of one distillation: at most a third of the first engine's 1,747", 582, seconds),
        ("distillation over training on all data (published: 20), at most", 2, seconds / full_seconds),
    ):
        made.append({"what": what, "published": most, "measured": round(measured, 2), "met": measured <= most})
    return made


def _target(what: str, wanted: float, row: dict[str, Any], metric: str) -> dict[str, Any]:
    measured = row["metrics"][metric]["mean"]
    return {"what": what, "published": wanted, "measured": measured, "met": measured >= wanted}


def work(seed: int, threads: int) -> int:
    """Run one seed."""
    torch.set_num_threads(threads)
    Seed.open(seed).run()
    return seed


def main() -> None:
    """Run all seeds and write the result."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=os.cpu_count(), help="threads; seeds run one after the other")
    threads = parser.parse_args().threads
    folder = RUNS / "td3_ml100k"
    prepared = prepare(data_folder("raw/ml-100k"), folder / "prepared", PrepareSpec(name="ml-100k"))
    for seed in SEEDS:
        with ProcessPoolExecutor(
            1, mp_context=get_context("spawn")
        ) as pool:  # a process each, so that peaks are its own
            print(f"seed {pool.submit(work, seed, threads).result()} done", flush=True)
    rows = collect(folder)
    full = cell(folder / f"seed-{SEEDS[0]}" / "full-data.json", dict)
    body = {
        "dataset": dataset_facts(prepared),
        "seeds": list(SEEDS),
        "threads": threads,
        "rows": rows,
        "targets": targets(rows, full["seconds"]),
    }
    print(write_result("td3_ml100k", "make results/td3_ml100k.json", body))


if __name__ == "__main__":
    main()
