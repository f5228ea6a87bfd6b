"""A stream of 20 million rows that are made as they are needed, folded into a memory block by block.

    python -m benchmarks.click_stream --json --threads 1

Users and items are drawn by a power law over a catalogue that grows with every block, so that each block has ids that
no earlier one had. Labels come from a planted model: biases of users and items, a product of their tastes, categories,
the price, and the tab by the hour; what categories and the price are worth drifts from block to block.

Every block is a Parquet file, which ``ClickStream.take`` folds in: the same call as that of ``recdistill stream``. One
process folds them all, so that whatever it held on to would show. Beside every block stand wall and processor time, the
resident memory before and its peak. *growing* is the default path: every value has an id of its own; *hashed* lets
users and items share a fixed number of ids. In another process the parts of some blocks are done by themselves, among
them one plain pass of the reference model: what folding costs is told as a multiple of it. The last block is folded in
once more by the command line, from the version before.

Figures are kept block by block below ``runs``; a run that was stopped goes on with the block that is missing.
The published ones were measured with ``POLARS_MAX_THREADS=1`` on cores that other work used too: processor time tells
more of them than wall time.
"""

import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import torch
from jaxtyping import Float, Int

from benchmarks.harness import arguments, at_most, fresh, memory_mb, show
from recdistill.data.clicks.fields import ClickSpec, Field
from recdistill.distill.base import RunContext
from recdistill.distill.clicks.stream import ClickStream, content_hash, scores_of
from recdistill.distill.diet import DIET
from recdistill.evaluation.clicks import predicted
from recdistill.models.clicks.base import ClickModel
from recdistill.rng import Streams
from recdistill.storage import sha256
from recdistill.training.clicks import ClickRecipe, fit_clicks
from recipes.record import RUNS, cell, write_result

DAY = 86_400_000
"""Milliseconds that a block lasts."""
TASTE = 4
"""Width of the tastes whose product users and items have."""
RATE = -1.9
"""Logit that makes a little less than a quarter of all rows clicks."""
PRIME = 2_654_435_761
"""Spreads ranks over numbers, so that a small id is not a popular one."""
SPEC = ClickSpec(
    fields=(
        *(Field(name=name) for name in ("user_id", "item_id", "category", "hour", "tab", "device", "city")),
        Field(name="price", kind="numeric"),
        Field(name="age", kind="numeric", buckets=20),
        Field(name="tags", kind="multi", max_values=3),
    ),
    label="click",
    time="time_ms",
)
"""What a row holds: ten fields, of which one has several values."""
HASHED = {"user_id": 200_000, "item_id": 50_000}
"""Ids that users and items share where they are hashed."""
SETTINGS = DIET(
    model_options={"embedding_dim": 16},
    training=ClickRecipe(batch_size=4096),
    ratio=0.002,
    most_units=20_000,
)
"""DeepFM; units grow for ten blocks, and then there are as many as may be."""
TAKEN_APART = (2, 10, 20)
"""Blocks whose parts are timed by themselves."""
EARLY, LATE = range(2, 6), range(16, 21)
"""Blocks whose peaks are compared."""
HASHED_BLOCKS = 6
"""Blocks that are folded in with hashed users and items: the first ones."""


@dataclass(frozen=True)
class ClickWorld:
    """A log in blocks of a day each.

    Args:
        rows: of each block.
        blocks: in which the catalogue grows from a fifth of its size to the whole.
        users: of the last block.
        items: of the last block.
        exponent: of the power law, above 0 and not 1.
        seed: of everything random.
    """

    rows: int = 1_000_000
    blocks: int = 20
    users: int = 1_500_000
    items: int = 200_000
    exponent: float = 0.8
    seed: int = 0

    def block(self, number: int) -> pl.DataFrame:
        """Return the block of this number, from 1, in order of time."""
        rng = np.random.default_rng((self.seed, number))
        user, item = (self.ranks(most, number, rng) for most in (self.users, self.items))
        times = np.sort(rng.integers(0, DAY, self.rows)) + number * DAY
        hour, tab = times // 3_600_000 % 24, rng.integers(0, 6, self.rows)
        price = np.exp(self.prices[item] + 0.1 * rng.normal(size=self.rows))
        logits = self.logits(number, user, item, hour, tab, np.log(price))
        columns = {
            "user_id": (user + 1) * PRIME % 2**32,
            "item_id": (item + 1) * PRIME % 2**32,
            "category": named("c", item % 300),
            "hour": hour,
            "tab": tab,
            "device": named("d", user % 12),
            "city": named("city ", user % 401),
            "price": np.round(price, 2),
            "age": rng.exponential(30.0, self.rows).astype(np.int64),
            "tags": tag_lists(item),
            "click": (rng.random(self.rows) < 1 / (1 + np.exp(-logits))).astype(np.int8),
            "time_ms": times,
        }
        return pl.DataFrame(columns)

    def ranks(self, most: int, number: int, rng: np.random.Generator) -> Int[np.ndarray, " n"]:
        """Return ranks from 0, drawn with chances ``(rank + 1) ** -exponent``, among those that the block knows."""
        known = most * (0.2 + 0.8 * min(1.0, number / self.blocks))
        power = 1 - self.exponent
        drawn = ((known**power - 1) * rng.random(self.rows) + 1) ** (1 / power)
        return np.minimum(drawn.astype(np.int64), most) - 1

    def logits(
        self,
        number: int,
        user: Int[np.ndarray, " n"],
        item: Int[np.ndarray, " n"],
        hour: Int[np.ndarray, " n"],
        tab: Int[np.ndarray, " n"],
        price: Float[np.ndarray, " n"],
    ) -> Float[np.ndarray, " n"]:
        """Return the logits of the planted model in a block; prices are logarithms."""
        angle = 2 * np.pi * number / 40
        category, users, items = item % 300, self.tastes[0][user], self.tastes[1][item]
        drifting = np.sin(category + angle) - 0.4 * np.cos(angle) * price
        fixed = 0.3 * np.cos(hour * (tab + 1) * np.pi / 12) + 0.3 * np.sin(item // 300 % 1000)
        return RATE + users[:, 0] + items[:, 0] + (users[:, 1:] * items[:, 1:]).sum(1) + 0.7 * drifting + fixed

    @cached_property
    def tastes(self) -> tuple[Float[np.ndarray, "U T"], Float[np.ndarray, "I T"]]:
        """Bias and taste of every user and of every item."""
        rng = np.random.default_rng((self.seed, 0))
        sizes = (self.users, self.items)
        drawn = [0.7 * rng.standard_normal((size, 1 + TASTE), dtype=np.float32) for size in sizes]
        return drawn[0], drawn[1]

    @cached_property
    def prices(self) -> Float[np.ndarray, " I"]:
        """Logarithm of the price of every item."""
        return np.random.default_rng((self.seed, 0, 1)).normal(size=self.items)


def named(prefix: str, numbers: Int[np.ndarray, " n"]) -> pl.Series:
    """Return numbers as text behind a prefix."""
    return prefix + pl.Series(numbers).cast(pl.String)


def tag_lists(item: Int[np.ndarray, " n"]) -> pl.Series:
    """Return one to three tags of each item, as lists."""
    tags = [named("t", item // 300 % 1000), named("t", 1000 + item % 77), named("t", 1100 + item % 991)]
    count = pl.Series(1 + item % 3)
    frame = pl.DataFrame({"count": count, "a": tags[0], "b": tags[1], "c": tags[2]})
    return frame.select(pl.concat_list("a", "b", "c").list.head(pl.col("count")).alias("tags"))["tags"]


def write_blocks(world: ClickWorld, folder: Path) -> dict[str, Any]:
    """Write those files of the log that are not there yet, block by block; return their size."""
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(1, world.blocks + 1):
        if not block_path(folder, number).exists():
            unfinished = folder / "unfinished"
            world.block(number).write_parquet(unfinished, compression="zstd")
            unfinished.rename(block_path(folder, number))
    return {"bytes": sum(path.stat().st_size for path in folder.glob("*.parquet"))}


def block_path(folder: Path, number: int) -> Path:
    """Return where a block of the log lies."""
    return folder / f"{number:02d}.parquet"


def spec_of(variant: str) -> ClickSpec:
    """Return the fields of a variant."""
    if variant == "growing":
        return SPEC
    sizes = ((field, HASHED.get(field.name)) for field in SPEC.fields)
    hashed = (field if size is None else replace(field, rule="hash", buckets=size) for field, size in sizes)
    return replace(SPEC, fields=tuple(hashed))


def fold_blocks(base: Path, variant: str, blocks: int) -> dict[str, Any]:
    """Fold all blocks that are missing into the memory of a variant; the body of a process."""
    folder = base / variant / "memory"
    stream = ClickStream.create(folder, SETTINGS, spec_of(variant), seed=0) if not folder.exists() else None
    stream = stream or ClickStream.open(folder)
    for number in range(1, blocks + 1):
        row_path = base / variant / f"{number:02d}.json"
        if not row_path.exists() and number in stream.numbers:
            shutil.rmtree(folder / "versions" / f"{number:04d}")  # its figures were lost
        compute = partial(folded, stream, block_path(base / "log", number))
        show({"variant": variant} | cell(row_path, compute))
    return {}


def folded(stream: ClickStream, path: Path) -> dict[str, Any]:
    """Fold a block in; return what it took."""
    refinement: list[float] = []

    def progress(stage: str, done: int, total: int, note: str = "") -> None:
        if stage == "distill":
            refinement.append(time.perf_counter())

    before = memory_mb("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")
    with timed() as spent:
        version = stream.take(stream.log(path), RunContext(progress=progress))
    about, files = version.manifest, list(version.folder.iterdir())
    weights = version.weights()
    return {
        "block": version.number,
        "process": os.getpid(),
        "rows": about["rows"],
        **spent,
        "rows_per_second": about["rows"] / spent["seconds"],
        "refinement_seconds": refinement[-1] - refinement[0] if refinement else 0.0,
        "resident_before_mb": before,
        "peak_mb": memory_mb("VmHWM"),
        "ids": len(weights["tables.rows"]),
        "tables_mb": weights["tables.rows"].nbytes / 1024**2,
        "units": about["units"],
        "units_mb": about["unit_bytes"] / 1024**2,
        "version_mb": sum(file.stat().st_size for file in files) / 1024**2,
        "clicked": about["clicked"],
        "foreseen_auc": (about["foreseen"] or {}).get("auc"),
    }


@contextmanager
def timed() -> Iterator[dict[str, float]]:
    """Yield a record that has the wall and processor time of the block's body at its end."""
    found: dict[str, float] = {}
    wall, processor = time.perf_counter(), time.process_time()
    yield found
    found["seconds"] = time.perf_counter() - wall
    found["processor_seconds"] = time.process_time() - processor


def taken_apart(base: Path, variant: str, number: int) -> dict[str, Any]:
    """Return what the parts of a block take, each by itself, and one plain pass over it; the body of a process."""
    stream = ClickStream.open(base / variant / "memory")
    last = stream.version(number - 1)
    parts: dict[str, dict[str, float]] = {}

    def part(name: str, call: Callable[[], Any]) -> Any:
        with timed() as spent:
            found = call()
        parts[name] = spent
        return found

    log = stream.log(block_path(base / "log", number))
    frame = part("read", lambda: log.between(int(log.times[0]), None))
    part("hash", lambda: content_hash(frame))
    known = part("load ids", last.vocabulary)
    vocabulary = part("new ids", lambda: known.grown(frame))
    block = part("encode", lambda: vocabulary.encode(frame))
    model = part("load model", lambda: grown(stream.model(last), vocabulary.num_ids))
    part("foresee", lambda: scores_of(model, block))
    part("plain pass", lambda: fit_clicks(model, block, stream.settings.training, Streams(0)))
    part("score by checkpoints", lambda: [predicted(model, block) for _ in range(stream.settings.checkpoints)])
    return {"block": number, "parts": parts}


def grown(model: ClickModel, num_ids: tuple[int, ...]) -> ClickModel:
    """Return a model after it was given rows for new ids."""
    model.grow(num_ids, torch.Generator().manual_seed(0))
    return model


def by_command(base: Path, number: int) -> dict[str, Any]:
    """Return what the command line takes for a block, and whether it leaves the same units."""
    whole = base / "growing" / "memory"
    with tempfile.TemporaryDirectory(dir=base) as name:
        memory = Path(name) / "memory"
        shutil.copytree(whole, memory, copy_function=os.link)
        shutil.rmtree(memory / "versions" / f"{number:04d}")
        command = "from recdistill.cli import main; main()"
        arguments = ["stream", str(memory), str(block_path(base / "log", number)), "--json"]
        start = time.perf_counter()
        process = subprocess.Popen([sys.executable, "-c", command, *arguments], stdout=subprocess.DEVNULL)
        _, status, used = os.wait4(process.pid, 0)
        spent = time.perf_counter() - start
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode:
            raise RuntimeError(f"recdistill stream ended with {process.returncode}")
        names = [f"versions/{number:04d}/{file}.safetensors" for file in ("memory", "reference")]
        same = all(sha256(memory / name) == sha256(whole / name) for name in names)
    processor = used.ru_utime + used.ru_stime
    found = {"block": number, "seconds": spent, "processor_seconds": processor, "peak_mb": used.ru_maxrss / 1024}
    return found | {"same_units_and_weights": same}


def summary(rows: list[dict[str, Any]], apart: list[dict[str, Any]]) -> dict[str, Any]:
    """Return the figures to state, over all blocks of a variant."""
    peaks = {row["block"]: row["peak_mb"] for row in rows}
    found: dict[str, Any] = {
        "rows": sum(row["rows"] for row in rows),
        "seconds": sum(row["seconds"] for row in rows),
        "rows_per_second": float(np.median([row["rows_per_second"] for row in rows])),
        "rows_per_processor_second": float(np.median([row["rows"] / row["processor_seconds"] for row in rows])),
        "peak_mb": max(peaks.values()),
    }
    early, late = ([peaks[number] for number in span if number in peaks] for span in (EARLY, LATE))
    if early and late:
        tables = [row["tables_mb"] for row in rows]
        slope, rest = np.polyfit(tables, list(peaks.values()), 1)
        found["peak_mb_early"], found["peak_mb_late"] = float(np.median(early)), float(np.median(late))
        found["tables_held_at_the_peak"], found["peak_mb_without_tables"] = float(slope), float(rest)
        fitted = rest + slope * np.array(tables)
        found["largest_peak_unexplained_mb"] = float(np.abs(fitted - np.array(list(peaks.values()))).max())
    if apart:
        taken = {row["block"]: row["processor_seconds"] for row in rows}
        ratios = [taken[each["block"]] / each["parts"]["plain pass"]["processor_seconds"] for each in apart]
        found["processor_time_over_a_plain_pass"] = float(np.median(ratios))
    return found


def measured(base: Path, world: ClickWorld, threads: int) -> dict[str, Any]:
    """Return all figures; what is there already is not measured again."""
    written = fresh(write_blocks, threads, world=world, folder=base / "log")
    wanted = {"growing": world.blocks, "hashed": min(world.blocks, HASHED_BLOCKS)}
    body: dict[str, Any] = {"log_mb": written["bytes"] / 1024**2, "rows": [], "apart": [], "summaries": {}}
    for variant, blocks in wanted.items():
        done = fresh(fold_blocks, threads, base=base, variant=variant, blocks=blocks)
        if not done["fits"]:
            raise MemoryError(f"{variant}: the process ran out of memory, or was killed")
        rows = [cell(base / variant / f"{number:02d}.json", dict) for number in range(1, blocks + 1)]
        apart = []
        for number in [number for number in TAKEN_APART if variant == "growing" and number <= blocks]:
            compute = partial(fresh, taken_apart, threads, base=base, variant=variant, number=number)
            apart.append(cell(base / variant / f"parts-{number:02d}.json", compute))
            show(apart[-1])
        body["summaries"][variant] = summary(rows, apart)
        body["rows"] += rows
        body["apart"] += apart
    body["by_command"] = cell(base / "command.json", lambda: by_command(base, world.blocks))
    show(body["by_command"])
    return body


def targets(body: dict[str, Any]) -> list[dict[str, Any]]:
    """Return what was asked for, beside what was measured."""
    growing = body["summaries"]["growing"]
    second, *later = [row["peak_mb"] for row in body["rows"] if row["variant"] == "hashed"][1:]
    what = "hashed users and items: largest peak of the later blocks over that of the second"
    return [
        at_most("20 blocks of a million rows: peak resident memory, GB", 6, growing["peak_mb"] / 1024),
        at_most(what, 1.1, max(later) / second),
    ]


def main() -> None:
    """Measure, print and write."""
    options = arguments(__doc__ or "")
    if options.quick:
        with tempfile.TemporaryDirectory() as name:
            measured(Path(name), ClickWorld(rows=20_000, blocks=3, users=30_000, items=4_000), options.threads)
        return
    world = ClickWorld()
    body = measured(RUNS / "benchmarks" / "click_stream", world, options.threads)
    if options.json:
        command = "python -m benchmarks.click_stream --json --threads 1"
        about = {
            "threads": options.threads,
            "world": asdict(world),
            "settings": SETTINGS.as_dict(),
            "hashed_ids": HASHED,
        }
        write_result("benchmarks/click_stream", command, about | body | {"targets": targets(body)})


if __name__ == "__main__":
    main()
