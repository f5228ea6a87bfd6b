"""A dataset on which every job takes a second or two, and invented cells for what is made from cells."""

from pathlib import Path

import numpy as np
import torch

from recdistill.data.prepared import PrepareSpec
from recdistill.demo import STUDENT
from recdistill.distill.base import Engine
from recdistill.evaluation.metrics import per_case
from recdistill.progress import SILENT
from recdistill.storage import write_json, write_tensors
from recdistill.study.grid import Job, in_order
from recdistill.training.fit import TrainingRecipe
from recipes.datasets import Dataset
from recipes.jobs import Scored, Student
from recipes.plans import EqualBytes, Method, Plan, Prefix
from recipes.record import as_json

LENGTH = 12


def tiny(runs: Path) -> Dataset:
    """Return the dataset with quick settings."""
    return Dataset(
        name="tiny",
        source="demo",
        spec=PrepareSpec(name="tiny"),
        clock=True,
        published="ml-100k",
        budgets=((6, LENGTH),),
        compared=(6, LENGTH),
        main=(6, LENGTH),
        sasrec=STUDENT | {"embedding_dim": 8, "inner_dim": 8},
        rank=2,
        bilevel={
            "epochs": 2,
            "outer_batch_size": 4096,
            "synthetic_batch_size": 6,
            "max_inner_steps": 4,
            "window": 2,
            "pool": (0, 1),
            "judge_steps": 3,
        },
        teacher=TrainingRecipe(rows="windows", batch_size=512, epochs=2, steps_per_epoch=2, patience=2),
        judging=TrainingRecipe(batch_size=64, epochs=2, steps_per_epoch=5, patience=2),
        engine=Engine(),
        runs=runs,
    )


def do(*jobs: Job) -> None:
    """Do jobs and what they need in this process."""
    for job in in_order(jobs):
        if not job.done():
            job.path.parent.mkdir(parents=True, exist_ok=True)
            job.run(SILENT)


def fake(cell: Scored, *, users: int = 40, seconds: float = 2.0, ranks: torch.Tensor | None = None) -> None:
    """Write a cell with drawn or given ranks, and what its artifact cost, as the jobs would."""
    rng = np.random.default_rng([cell.place.seed, len(cell.row)])
    ranks = torch.from_numpy(rng.integers(1, 30, users)) if ranks is None else ranks
    cell.path.parent.mkdir(parents=True, exist_ok=True)
    write_tensors(cell.path.with_suffix(".safetensors"), {"full": ranks.short(), "uni100": ranks.short()})
    values = {name: float(one.mean()) for name, one in per_case(ranks).items()}
    place = {"dataset": cell.place.dataset.name, "length": cell.place.length, "seed": cell.place.seed, "threads": 1}
    cost = {"measured": True, "start_mb": 50.0, "peak_mb": 100.0 + cell.place.seed}
    scores = {"metrics": {"full": values, "uni100": values}, "seconds": {"train": seconds}}
    write_json(cell.path, as_json(place | cost | scores | named(cell) | {"settings": cell.settings()}))
    if isinstance(cell, Student) and cell.artifact is not None:
        cell.artifact.path.parent.mkdir(parents=True, exist_ok=True)
        seconds_made = {"seconds": {"distill": 10.0, "peers": 5.0}, "threads": 1}
        write_json(cell.artifact.path, as_json(cost | seconds_made | {"settings": cell.artifact.settings()}))


def named(cell: Scored) -> dict[str, object]:
    """Return the names of a cell's row."""
    if not isinstance(cell, Student):
        return {
            "method": "full",
            "model": "sasrec",
            "budget": "full",
            "items": "random",
            "recipe": "prefixes",
            "bytes": 9,
        }
    method, budget, label = ("full", "full", "") if cell.plan is None else of_plan(cell.plan)
    names = {"method": method, "model": cell.model, "budget": budget, "items": cell.items, "label": label}
    size = {} if cell.plan is None else {"bytes_without_item_factor": 4}
    return names | {"recipe": cell.recipe, "bytes": 10} | size


def of_plan(plan: Plan) -> tuple[str, str, str]:
    """Return method, budget and label."""
    if isinstance(plan, Prefix):
        method, budget, label = of_plan(plan.of)
        return method, f"{plan.num_rows}x{budget.split('x')[1]}", label
    if isinstance(plan, EqualBytes):
        return plan.control, f"77x{plan.length}", ""
    assert isinstance(plan, Method)
    return plan.distiller.method, f"{plan.distiller.num_rows}x{plan.distiller.length}", plan.label
