"""The demo: the whole line on a generated log whose structure is known.

Items belong to series. After watching a part of a series, a user goes on to one of its next three parts with
probability ``FOLLOW`` and jumps to a random item, popular ones more often, otherwise. So a model that has learnt the
series must put the next item among its first ten for most events, and a popularity ranking cannot: the demo fails when
the trained model does not beat popularity by ``MARGIN``.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl

from recdistill.certificate.certify import certify
from recdistill.certificate.headline import headline
from recdistill.certificate.record import Certificate
from recdistill.certificate.trainings import Examination
from recdistill.data.development import Development, development_of, histories_of
from recdistill.data.distilled import DistilledDataset, size_in_bytes
from recdistill.data.prepared import PreparedDataset, PrepareSpec, prepare
from recdistill.data.sequences import EvaluationCases, TrainingData, evaluation_cases, training_rows
from recdistill.distill.base import Distiller, RunContext
from recdistill.distill.coresets.counts import PopularityCounts
from recdistill.distill.coresets.random import Random
from recdistill.distill.coresets.random_soft import RandomSoft
from recdistill.distill.coresets.untrained import Untrained
from recdistill.distill.run import distill
from recdistill.distill.td3 import TD3
from recdistill.distill.teacher import TeacherSpec, teach
from recdistill.errors import RecdistillError
from recdistill.evaluation.protocols import evaluate
from recdistill.progress import SILENT, Progress
from recdistill.report.page import write_report
from recdistill.rng import Streams
from recdistill.storage import atomic_folder
from recdistill.study.cells import ModelSpec
from recdistill.study.grid import Workers
from recdistill.study.students import ItemTable, StudentSpec, train_student
from recdistill.training.fit import TrainingRecipe

RAW_FILES = ("interactions.parquet", "items.parquet")
"""What the generated log consists of."""
NUM_USERS, NUM_SERIES, PARTS = 600, 15, 20
EVENTS = (12, 32)
FOLLOW, NEXT = 0.8, (0.6, 0.25, 0.15)
MARGIN = 0.30
"""Smallest lead in HR@10 (full ranking) of the model trained on all data over popularity."""
ROWS, LENGTH = 10, 20
SEEDS = 3
"""Trainings of each model for the certificate."""
STUDENT = {"embedding_dim": 32, "num_blocks": 1, "num_heads": 1, "inner_dim": 64, "dropout": 0.2}
RECIPE = TrainingRecipe(learning_rate=3e-3, epochs=40, patience=3)
PANEL = (
    ModelSpec(name="sasrec_32", model="sasrec", config=STUDENT),
    ModelSpec(name="gru4rec_32", model="gru4rec", config={"embedding_dim": 32, "hidden_dim": 32}),
    ModelSpec(name="sasrec_8", model="sasrec", config=STUDENT | {"embedding_dim": 8, "inner_dim": 16}),
    ModelSpec(name="popularity", model="popularity"),
)
"""Models of the certificate: too few to claim much, as the report says, but quick."""


@dataclass(frozen=True)
class DemoRow:
    """One line of the demo's table."""

    trained_on: str
    items: str
    hr: float
    ndcg: float
    bytes: int | None
    seconds: float


@dataclass(frozen=True)
class DemoResult:
    """What the demo found."""

    rows: Sequence[DemoRow]
    margin: float
    train_bytes: int
    headline: str
    report: Path
    folder: Path
    seconds: float


def generate(folder: Path, seed: int) -> Path:
    """Write the generated log as a folder of Parquet and return it; 600 users, 300 items, about 13,000 events."""
    rng = Streams(seed).child("demo").numpy("log")
    popularity = 1 / np.arange(1, NUM_SERIES * PARTS + 1)
    popularity = rng.permutation(popularity / popularity.sum())
    users, items, times = [], [], []
    for user in range(NUM_USERS):
        count = int(rng.integers(*EVENTS))
        users += [f"user-{user:03d}"] * count
        items += walk(count, popularity, rng)
        times += (1_700_000_000 + np.cumsum(rng.integers(60, 86_400, count))).tolist()
    log = pl.DataFrame({"user_id": users, "item_id": [f"item-{item:03d}" for item in items], "timestamp": times})
    titles = [f"Series {chr(65 + item // PARTS)}, part {item % PARTS + 1}" for item in range(NUM_SERIES * PARTS)]
    names = pl.DataFrame({"item_id": [f"item-{item:03d}" for item in range(len(titles))], "title": titles})
    with atomic_folder(folder, replace=True) as temporary:
        for name, table in zip(RAW_FILES, (log.sort("timestamp"), names), strict=True):
            table.write_parquet(temporary / name)
    return folder


def walk(count: int, popularity: np.ndarray, rng: np.random.Generator) -> list[int]:
    """Return the items of one user."""
    item = int(rng.choice(len(popularity), p=popularity))
    items = [item]
    while len(items) < count:
        if rng.random() < FOLLOW:
            step = 1 + int(rng.choice(len(NEXT), p=NEXT))
            item = item - item % PARTS + (item % PARTS + step) % PARTS  # a series begins again at its end
        else:
            item = int(rng.choice(len(popularity), p=popularity))
        items.append(item)
    return items


def methods() -> list[Distiller]:
    """Return TD3, small enough for a minute, and controls."""
    td3 = TD3(
        num_rows=ROWS,
        length=LENGTH,
        epochs=15,
        outer_batch_size=1024,
        synthetic_batch_size=ROWS,
        outer_learning_rate=0.1,
        max_inner_steps=40,
        window=10,
        pool=(1, 30),
        inner_learning_rate=0.01,
        judge_steps=60,
    )
    selectors = (Random, RandomSoft)
    return [td3, *(make(num_rows=ROWS, length=LENGTH) for make in selectors), PopularityCounts(), Untrained()]


def run_demo(folder: Path, workers: Workers, *, seed: int = 0, progress: Progress = SILENT) -> DemoResult:
    """Run the whole line in ``folder``; return the table and where the report lies.

    Args:
        folder: everything is written below it.
        workers: where the trainings of the certificate run.
        seed: of everything random.
        progress: told about every step.

    Raises:
        RecdistillError: the model trained on all data does not beat popularity by :data:`MARGIN`.
    """
    started = time.perf_counter()
    raw = generate(folder / "raw", seed)
    prepared = prepare(raw, folder / "prepared", PrepareSpec(name="demo"), overwrite=True, progress=progress)
    rows = compare(folder, prepared, seed, progress)
    margin = rows[0].hr - next(row.hr for row in rows if row.trained_on == "popularity")
    if margin < MARGIN:
        raise RecdistillError(
            f"the demo is broken: HR@10 {rows[0].hr:.3f} on all data is not {MARGIN} above popularity, "
            f"{rows[0].hr - margin:.3f}"
        )
    certificate, page = certified(folder, "td3", workers, progress)
    return DemoResult(
        rows=rows,
        margin=margin,
        train_bytes=prepared.train_bytes,
        headline=headline(certificate),
        report=page,
        folder=folder,
        seconds=time.perf_counter() - started,
    )


def compare(folder: Path, prepared: PreparedDataset, seed: int, progress: Progress = SILENT) -> list[DemoRow]:
    """Make the dataset of every method below ``folder``; return the scores of SASRec on each, all data first."""
    train = development_of(prepared)
    spec = TeacherSpec(config=STUDENT, max_seq_len=LENGTH, recipe=RECIPE)
    teacher = teach(train, spec, seed, folder / "cache", progress=progress)
    judge = _Judge(train, evaluation_cases(histories_of(prepared), "test"), seed)
    rows = [
        judge.score("full data", training_rows(train.histories, LENGTH, "windows"), None, "random", train.train_bytes)
    ]
    made = [(method, folder / method.method) for method in methods()]
    for index, (method, out) in enumerate(made):
        dataset = distill(train, method, teacher, seed=seed, context=RunContext(progress=progress))
        dataset.save(out, replace=True)
        rows += judge.all_tables(dataset, out)
        progress("methods", index + 1, len(made), method.method)
    return rows


def certified(folder: Path, name: str, workers: Workers, progress: Progress = SILENT) -> tuple[Certificate, Path]:
    """Return the certificate of one of the datasets below ``folder``, and its report."""
    exam = Examination(
        distilled=(folder / name).absolute(),
        prepared=(folder / "prepared").absolute(),
        folder=(folder / "study").absolute(),
        cache=folder / "cache",
        models=PANEL,
        seeds=SEEDS,
        recipe=RECIPE,
    )
    certificate = certify(exam, workers, progress=progress).certificate
    return certificate, write_report(folder / "report.html", exam.distilled, exam.prepared)


@dataclass(frozen=True)
class _Judge:
    """Trains the same student on everything and scores it on the test part."""

    train: Development
    test: EvaluationCases
    seed: int

    def all_tables(self, dataset: DistilledDataset, out: Path) -> list[DemoRow]:
        """Return a line per item table that makes sense for the dataset."""
        method, size = dataset.manifest.method, size_in_bytes(out)["total"]
        tables: tuple[ItemTable, ...] = ("random", "given", "frozen")
        if method in ("popularity", "untrained"):
            tables = ("random",) if method == "popularity" else ("given",)
        return [self.score(method, dataset.rows, dataset, items, size) for items in tables]

    def score(
        self, name: str, data: TrainingData, dataset: DistilledDataset | None, items: ItemTable, size: int
    ) -> DemoRow:
        """Return the line of one student."""
        model_name = "popularity" if name == "popularity" else "sasrec"
        config = {} if name == "popularity" else STUDENT
        spec = StudentSpec(model=model_name, config=config, max_seq_len=LENGTH, items=items, recipe=RECIPE)
        model, result = train_student(
            data,
            spec,
            num_items=self.train.num_items,
            seed=self.seed,
            item_factor=None if dataset is None else dataset.item_factor,
            valid=evaluation_cases(self.train.histories, "valid"),
        )
        metrics = evaluate(model, self.test).metrics()
        return DemoRow(name, items, metrics["HR@10"], metrics["NDCG@10"], size, result.seconds)
