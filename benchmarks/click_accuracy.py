"""Accuracy of the library's click models beside FuxiCTR's own: one log, one split, equal settings, the same batches.

    python -m benchmarks.click_accuracy --fuxictr ENVIRONMENT/bin/python --zoo FUXICTR/model_zoo --json

ENVIRONMENT is a virtual environment of its own, in which FuxiCTR is installed; FUXICTR is a checkout of its repository
(reczoo/FuxiCTR), because the package has the parts of which these models are made, but not the models:

    python3.11 -m venv ENVIRONMENT
    ENVIRONMENT/bin/pip install torch==2.13.0 fuxictr==2.3.10

Both sides train on the first nine of ten blocks of KuaiRand and are asked about the tenth, which has ids that training
never saw. FuxiCTR reads the ids that our vocabulary gave, and is fed our batches in our order; that both trained on the
same rows is checked by hash. Nothing regularises. Metrics are counted by the library on both sides, after one epoch and
after two. What still differs is in ``benchmarks/click_settings.py`` and in the result.

Every finished run is kept in ``runs/click_accuracy``, so that it can be stopped and started again, also with
``--models``, ``--seeds`` or ``--side``.
"""

import argparse
import subprocess
import time
from dataclasses import asdict, dataclass
from functools import cached_property
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.click_settings import COMMON, DIFFERENCES, RECIPE, SETTINGS
from benchmarks.fuxictr_peer import fingerprint
from benchmarks.harness import at_least, show
from recdistill.data.clicks.block import ClickBlock
from recdistill.data.clicks.blocks import ClickBlocks
from recdistill.data.clicks.layouts import LAYOUTS
from recdistill.data.clicks.vocabulary import ClickVocabulary
from recdistill.errors import InputError
from recdistill.evaluation.clicks import click_scores, predicted
from recdistill.models.clicks import CLICK_MODELS
from recdistill.models.clicks.base import ClickModel
from recdistill.rng import Streams, generator_at
from recdistill.storage import read_json, sha256, sha256_of, write_json
from recdistill.training.clicks import fit_clicks
from recipes.record import RUNS, aggregate, cell, data_folder, write_result

SEEDS = (0, 1, 2)
FOLDER = RUNS / "click_accuracy"
PEER = Path(__file__).with_name("fuxictr_peer.py")
DATASET = "kuairand-pure-window"
BLOCKS = 10
METRICS = ("auc", "log_loss")
SIDES = ("recdistill", "fuxictr")
EPOCHS = tuple(range(1, RECIPE.epochs + 1))
TOLERANCE = 0.003
"""AUC that ours may lie below FuxiCTR's."""


@dataclass(frozen=True)
class Problem:
    """The rows that both sides train on and are asked about."""

    train: ClickBlock
    test: ClickBlock
    vocabulary: ClickVocabulary

    @staticmethod
    def of(blocks: ClickBlocks) -> "Problem":
        """Return the last block as a test of what is learnt from those before it, whose values alone have ids."""
        *earlier, last = blocks
        vocabulary = ClickVocabulary.empty(blocks.log.spec)
        for frame in earlier:
            vocabulary = vocabulary.grown(frame)
        parts = [vocabulary.encode(frame) for frame in earlier]
        ids, labels = (np.concatenate([getattr(part, name) for part in parts]) for name in ("ids", "labels"))
        return Problem(ClickBlock(ids, labels, parts[0].widths), vocabulary.encode(last), vocabulary)

    @cached_property
    def arrays(self) -> dict[str, np.ndarray]:
        """What FuxiCTR is given."""
        return {"train_ids": self.train.ids, "train_labels": self.train.labels, "test_ids": self.test.ids}

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 of it."""
        return fingerprint(*self.arrays.values())

    @property
    def fields(self) -> list[dict[str, Any]]:
        """Name, ids and columns of every field."""
        spec = self.vocabulary.spec
        rows = zip(spec.names, self.vocabulary.num_ids, spec.widths, strict=True)
        return [{"name": name, "num_ids": num_ids, "width": width} for name, num_ids, width in rows]

    def facts(self) -> dict[str, Any]:
        """Return how the result names the data."""
        return {
            "name": DATASET,
            "train_rows": len(self.train),
            "test_rows": len(self.test),
            "fields": len(self.fields),
            "ids": sum(self.vocabulary.num_ids),
            "train_click_rate": round(float(self.train.labels.mean()), 5),
            "test_click_rate": round(float(self.test.labels.mean()), 5),
            "hash": self.fingerprint,
        }

    def orders(self, seed: int) -> np.ndarray:
        """Return the rows of every epoch in the order in which :func:`fit_clicks` takes them."""
        first = Streams(seed).integer("order")
        drawn = [torch.randperm(len(self.train), generator=generator_at(first, epoch)) for epoch in range(len(EPOCHS))]
        return torch.stack(drawn).numpy()

    def metrics(self, logits: list[np.ndarray]) -> dict[str, float]:
        """Return the metrics of the test rows after every epoch, by name and epoch."""
        found: dict[str, float] = {}
        for epoch, values in zip(EPOCHS, logits, strict=True):
            scores = click_scores(self.test.labels, values).as_dict()
            found |= {f"{name} {epoch}": scores[name] for name in METRICS}
        return found

    def ours(self, model: str, seed: int) -> dict[str, Any]:
        """Return the cell of a run of the library."""
        streams, spec = Streams(seed), self.vocabulary.spec
        made = CLICK_MODELS[model](
            self.vocabulary.num_ids, spec.widths, **SETTINGS[model].config, generator=streams.torch("weights")
        )
        logits: list[np.ndarray] = []

        def record(_: float, trained: ClickModel) -> None:
            logits.append(predicted(trained, self.test))

        started = time.process_time()
        result = fit_clicks(made, self.train, RECIPE, streams, record=record)
        return {
            "losses": result.losses,
            "parameters": sum(value.numel() for value in made.parameters()),
            "cpu_seconds": time.process_time() - started,
            "fingerprint": self.fingerprint,
            "metrics": self.metrics(logits),
        }

    def peers(self, model: str, seed: int, python: Path, zoo: Path) -> dict[str, Any]:
        """Return the cell of a run of FuxiCTR, under the environment's ``python``."""
        folder = FOLDER / "fuxictr"
        folder.mkdir(parents=True, exist_ok=True)
        data, orders = folder / f"data-{self.fingerprint[:12]}.npz", folder / f"orders-{seed}.npy"
        if not data.exists():
            np.savez(data, **self.arrays)  # type: ignore[arg-type]
        np.save(orders, self.orders(seed))
        setting = SETTINGS[model]
        job, result = folder / f"{model}-{seed}.job", folder / f"{model}-{seed}.json"
        wanted = {"data": data.name, "orders": orders.name, "fields": self.fields, "batch_size": RECIPE.batch_size}
        wanted |= {"file": str(zoo / setting.file), "options": COMMON | setting.peer_options(), "seed": seed}
        write_json(job, wanted)
        command = [str(python), "-W", "ignore", str(PEER), job.name, result.name]
        subprocess.run(command, cwd=folder, check=True, stdout=subprocess.DEVNULL)
        found: dict[str, Any] = read_json(result)
        logits = [np.array(values) for values in found.pop("logits")]
        if found["fingerprint"] != self.fingerprint:
            raise InputError(f"FuxiCTR trained on other rows than ours; remove {FOLDER}")
        return found | {"metrics": self.metrics(logits)}


def rows_of(cells: dict[tuple[str, str], list[dict[str, Any]]]) -> list[dict[str, Any]]:
    """Return, for every model and number of epochs, a row per side and one of the differences, seed by seed."""
    rows: list[dict[str, Any]] = []
    for model, epoch in product(dict.fromkeys(name for name, _ in cells), EPOCHS):
        for side in SIDES:
            found = cells[model, side]
            about = {"model": model, "side": side, "epochs": epoch, "seeds": len(found)}
            about |= {"parameters": found[0]["parameters"]}
            about |= {"train_loss": round(float(np.mean([one["losses"][epoch - 1] for one in found])), 5)}
            rows.append(about | {"metrics": _of_epoch(aggregate(found), epoch)})
        ours, peers = (cells[model, side] for side in SIDES)
        compared = aggregate([difference(*pair) for pair in zip(ours, peers, strict=True)])
        rows.append({"model": model, "side": "difference", "epochs": epoch, "metrics": _of_epoch(compared, epoch)})
    return rows


def difference(ours: dict[str, Any], peers: dict[str, Any]) -> dict[str, Any]:
    """Return a cell with our metrics less FuxiCTR's; both saw the same batches in the same order."""
    return {"metrics": {name: value - peers["metrics"][name] for name, value in ours["metrics"].items()}}


def _of_epoch(metrics: dict[str, Any], epoch: int) -> dict[str, Any]:
    return {name: metrics[f"{name} {epoch}"] for name in METRICS}


def targets(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return what was asked for: no model of ours is less accurate than FuxiCTR's by more than the tolerance."""
    return [
        at_least(
            f"AUC of {row['model']} after {row['epochs']} epoch{'s' * (row['epochs'] > 1)}: ours less FuxiCTR's",
            -TOLERANCE,
            row["metrics"]["auc"]["mean"],
        )
        for row in rows
        if row["side"] == "difference"
    ]


def main() -> None:
    """Run what is asked for and not there yet; write the result where every model has runs on both sides."""
    options = _arguments()
    torch.set_num_threads(1)
    log = LAYOUTS["kuairand"].open(data_folder(DATASET))
    problem = Problem.of(ClickBlocks.by_count(log, BLOCKS))
    cells: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for seed, model, side in product(options.seeds, options.models, options.side):
        path = FOLDER / "cells" / f"{side}-{model}-{seed}-{_key(problem, model, side, options.zoo)}.json"
        found = cell(path, lambda: _run(problem, side, model, seed, options))  # noqa: B023 - called at once
        cells.setdefault((model, side), []).append(found)
        scores = {name: round(value, 5) for name, value in found["metrics"].items()}
        show({"model": model, "side": side, "seed": seed} | scores)
    if len(options.side) < len(SIDES) or not cells:
        return
    rows = rows_of(cells)
    for row in rows:
        show(row)
    if options.json:
        command = "python -m benchmarks.click_accuracy --fuxictr ENVIRONMENT/bin/python --zoo FUXICTR/model_zoo --json"
        write_result("benchmarks/click_accuracy", command, _body(problem, rows, cells, options))


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--fuxictr", type=Path, required=True, help="Python of an environment that has FuxiCTR")
    parser.add_argument("--zoo", type=Path, required=True, help="model_zoo of a checkout of FuxiCTR's repository")
    parser.add_argument("--models", nargs="+", choices=SETTINGS, default=list(SETTINGS), help="which models")
    parser.add_argument("--seeds", nargs="+", type=int, default=list(SEEDS), help="which seeds")
    parser.add_argument("--side", nargs="+", choices=SIDES, default=list(SIDES), help="which sides to train")
    parser.add_argument("--json", action="store_true", help="write results/benchmarks/click_accuracy.json")
    options = parser.parse_args()
    options.fuxictr = options.fuxictr.absolute()  # not resolved: a link to the system's Python would lose its packages
    options.zoo = options.zoo.absolute()
    return options


def _key(problem: Problem, model: str, side: str, zoo: Path) -> str:
    """Return a name for the settings of a run, so that a cell of other settings is never taken for it."""
    setting = SETTINGS[model]
    parts: list[Any] = [asdict(setting), RECIPE.as_dict(), problem.fingerprint]
    if side == "fuxictr":
        parts += [COMMON, sha256(zoo / setting.file)]
    return sha256_of(*parts)[:12]


def _run(problem: Problem, side: str, model: str, seed: int, options: argparse.Namespace) -> dict[str, Any]:
    if side == "recdistill":
        return problem.ours(model, seed)
    return problem.peers(model, seed, options.fuxictr, options.zoo)


def _body(
    problem: Problem,
    rows: list[dict[str, Any]],
    cells: dict[tuple[str, str], list[dict[str, Any]]],
    options: argparse.Namespace,
) -> dict[str, Any]:
    peer = next(found[0]["versions"] for (_, side), found in cells.items() if side == "fuxictr")
    return {
        "dataset": problem.facts(),
        "seeds": options.seeds,
        "threads": 1,
        "peer_versions": peer,
        "peer_files": {SETTINGS[name].file: sha256(options.zoo / SETTINGS[name].file) for name in options.models},
        "recipe": RECIPE.as_dict(),
        "settings": {name: asdict(SETTINGS[name]) for name in options.models},
        "differences": DIFFERENCES,
        "rows": rows,
        "targets": targets(rows),
    }


if __name__ == "__main__":
    main()
