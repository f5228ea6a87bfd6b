"""What it costs to try all candidates on DIET's memory, beside trying them on the stream, in one run.

    python -m benchmarks.diet_cost --json

KuaiRand, nine blocks, ten candidates one after the other in one process: on the log (one pass, tables of their own), on
the memory with the reference model's tables, and on its export with tables of their own; and the folding of the blocks
itself. Time is that of the processor, so that others on the machine matter less. DIET's abstract speaks of up to 60
times; a round of candidates repeats, the folding does not, so both are told with and without it.
"""

import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.harness import arguments, at_least, fresh, show
from recdistill.data.clicks.blocks import ClickLog
from recdistill.data.clicks.vocabulary import ClickVocabulary
from recdistill.distill.base import RunContext
from recdistill.distill.clicks.export import exported
from recdistill.distill.clicks.groups import IdGroups
from recdistill.distill.clicks.stream import ClickStream
from recdistill.distill.diet import DIET
from recdistill.progress import silent
from recdistill.rng import Streams
from recdistill.study.click_students import ClickStudentSpec, train_on_rows, train_with_given_tables
from recdistill.training.clicks import ClickRecipe
from recipes.click_jobs import GROUPS, KUAIRAND, MODELS
from recipes.click_students import trained_in_order
from recipes.record import write_result

PUBLISHED = 60
RATIO = 0.01


def timed(function: Callable[[], Any]) -> float:
    """Return the seconds of the processor that a call takes."""
    start = time.process_time()
    function()
    return time.process_time() - start


def specs(names: tuple[str, ...], **options: Any) -> dict[str, ClickStudentSpec]:
    """Return candidates by name."""
    return {name: ClickStudentSpec(model=MODELS[name][0], config=MODELS[name][1], **options) for name in names}


def on_the_log(names: tuple[str, ...], blocks: int) -> dict[str, Any]:
    """Return the time of every candidate on the stream; the body of a process."""
    log = KUAIRAND.opened()
    frames = [log.read(index) for index in range(blocks)]
    vocabulary = ClickVocabulary.empty(log.log.spec)
    for frame in frames:
        vocabulary = vocabulary.grown(frame)
    coded = tuple(vocabulary.encode(frame) for frame in frames)
    candidates = specs(names, recipe=ClickRecipe())
    ids = vocabulary.num_ids
    return {
        name: timed(lambda spec=spec: trained_in_order(coded, spec, ids, 0, silent))  # type: ignore[misc]
        for name, spec in candidates.items()
    }


def on_the_memory(names: tuple[str, ...], blocks: int, ratio: float, epochs: int) -> dict[str, Any]:
    """Return the time of folding all blocks and of every candidate on what that gave; the body of a process."""
    log = KUAIRAND.opened()
    with tempfile.TemporaryDirectory() as folder:
        settings = DIET(ratio=ratio, epochs=epochs)
        stream = ClickStream.create(Path(folder) / "memory", settings, log.log.spec, 0, KUAIRAND.layout)
        frames = [log.read(index) for index in range(blocks)]

        def fold_all() -> None:
            for frame in frames:
                stream.take(ClickLog.of(frame.lazy(), log.log.spec), RunContext())

        folding = timed(fold_all)
        version = stream.version()
        model, memory = stream.model(version), version.memory()
    rows = exported(memory, model, IdGroups.near(model.tables, GROUPS, Streams(0)))
    given, own = {}, {}
    for name, spec in specs(names).items():
        given[name] = timed(lambda spec=spec: train_with_given_tables(memory, spec, model.tables, seed=0))  # type: ignore[misc]
        own[name] = timed(lambda spec=spec: train_on_rows(rows, spec, seed=0))  # type: ignore[misc]
    return {"units": len(memory), "folding": folding, "frozen": given, "scratch": own}


def row_of(ratio: float, epochs: int, log: dict[str, float], memory: dict[str, Any]) -> dict[str, Any]:
    """Return sums over candidates, and how many times cheaper the memory is."""
    full = sum(log.values())
    found: dict[str, Any] = {"ratio": ratio, "outer_epochs": epochs, "units": memory["units"], "full_s": full}
    found |= {"folding_s": memory["folding"]}
    for tables in ("frozen", "scratch"):
        mine = sum(memory[tables].values())
        found |= {f"{tables}_s": mine, f"{tables}_times": full / mine}
        found |= {f"{tables}_times_with_folding": full / (mine + memory["folding"])}
        saved = full - mine
        found[f"{tables}_rounds_to_pay"] = memory["folding"] / saved if saved > 0 else None
    return found


def main() -> None:
    """Measure, print and write."""
    options = arguments(__doc__ or "")
    names = ("lr", "fm") if options.quick else tuple(MODELS)
    blocks = 2 if options.quick else KUAIRAND.training_blocks
    log = fresh(on_the_log, options.threads, names=names, blocks=blocks)
    log.pop("fits")
    show({"on the log, seconds": log})
    rows, by_model = [], {}
    for epochs in (2,) if options.quick else (0, 2):
        memory = fresh(on_the_memory, options.threads, names=names, blocks=blocks, ratio=RATIO, epochs=epochs)
        rows.append(row_of(RATIO, epochs, log, memory))
        by_model[f"{epochs} epochs"] = {tables: memory[tables] for tables in ("frozen", "scratch")}
        show(rows[-1])
    if options.json and not options.quick:
        best = max(row["frozen_times"] for row in rows)
        aims = [at_least("candidates on the log over candidates on the memory, without folding", PUBLISHED, best)]
        body = {"threads": options.threads, "blocks": blocks, "full": log, "by_model": by_model, "rows": rows}
        write_result("benchmarks/diet_cost", "python -m benchmarks.diet_cost --json", body | {"targets": aims})


if __name__ == "__main__":
    main()
