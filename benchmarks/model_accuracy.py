"""Accuracy of the library's models beside RecBole's own: one split, one rule, equal settings.

    python -m benchmarks.model_accuracy --recbole ENVIRONMENT/bin/python --json

ENVIRONMENT is a virtual environment of its own, in which RecBole is installed:

    python3.11 -m venv ENVIRONMENT
    ENVIRONMENT/bin/pip install 'setuptools<81' torch recbole 'numpy<2' 'pandas<2.2' 'scipy<1.12'

RecBole reads the prepared log with each event's place in the user's history as its time: its own reading scales
timestamps and keeps them in single precision, which reorders events that lie a second apart.

Before anything is compared, two things are checked: that both sides train on the same rows and are asked the same
questions, by hash; and that both models compute the same, by giving ours RecBole's weights.

Ranks are counted by one rule on both sides: *unseen* (items that the user touched before take no part; the library's)
and, beside it, *all* (they do; RecBole's for sequential models). Every finished run is kept in ``runs/model_accuracy``,
so that it can be stopped and started again, also with ``--models``, ``--seeds`` or ``--side``.
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
import polars as pl
import torch

from benchmarks.harness import at_least, at_most, show
from benchmarks.model_settings import COMMON, DIFFERENCES, LENGTH, SETTINGS
from benchmarks.model_weights import largest_difference
from benchmarks.recbole_peer import fingerprint
from recdistill.data.development import histories_of
from recdistill.data.prepared import PreparedDataset, PrepareSpec, prepare
from recdistill.data.sequences import EvaluationCases, Histories, evaluation_cases, training_rows
from recdistill.errors import InputError
from recdistill.evaluation.metrics import per_case, pessimistic_ranks
from recdistill.evaluation.protocols import evaluate, user_vectors
from recdistill.models.base import Recommender
from recdistill.rng import Streams
from recdistill.storage import read_json, sha256_of, write_json, write_text
from recdistill.study.students import StudentSpec, train_student
from recipes.record import RUNS, aggregate, cell, data_folder, dataset_facts, write_result

SEEDS = (0, 1, 2)
FOLDER = RUNS / "model_accuracy"
PEER = Path(__file__).with_name("recbole_peer.py")
METRICS = ("NDCG@10", "HR@10")
RULES = ("unseen", "all")
SIDES = ("recdistill", "recbole")
SAME_SCORE = 1e-4
"""Most that rounding in single precision may move a score, in standard deviations of the scores."""


@dataclass(frozen=True)
class Problem:
    """The data that both sides train on and are judged by."""

    prepared: PreparedDataset

    @cached_property
    def histories(self) -> Histories:
        """All events."""
        return histories_of(self.prepared)

    @cached_property
    def tokens(self) -> tuple[list[str], list[str]]:
        """The source's ids of users 0 .. U - 1 and of items 0 .. V; padding has none."""
        users, items = (pl.read_parquet(self.prepared.folder / f"{name}s.parquet") for name in ("user", "item"))
        return users["user_id"].cast(pl.String).to_list(), ["", *items["item_id"].cast(pl.String).to_list()]

    @cached_property
    def fingerprints(self) -> dict[str, str]:
        """SHA-256 of the training rows and of the held-out events."""
        rows = training_rows(self.histories, LENGTH, "prefixes")
        found = {"train": self._fingerprint(rows.users, rows.start, rows.stop - 1)}
        for part in ("valid", "test"):
            cases = evaluation_cases(self.histories, part)
            start = np.maximum(cases.begin, cases.position - LENGTH)
            found[part] = self._fingerprint(cases.users, start, cases.position)
        return found

    def _fingerprint(self, users: np.ndarray, start: np.ndarray, target: np.ndarray) -> str:
        user_ids, item_ids = self.tokens
        events = [item_ids[item] for item in self.histories.items.tolist()]
        spans = [events[first:last] for first, last in zip(start.tolist(), target.tolist(), strict=True)]
        return fingerprint([user_ids[user] for user in users], spans, [events[place] for place in target])

    def write_log(self, folder: Path) -> str:
        """Write the events for RecBole, each with its place in the user's history; return the dataset's name."""
        name = "prepared"
        user_ids, item_ids = self.tokens
        offsets = self.histories.offsets
        places = np.arange(len(self.histories.items)) - np.repeat(offsets[:-1], np.diff(offsets))
        users = np.repeat(np.arange(self.histories.num_users), np.diff(offsets))
        lines = [
            f"{user_ids[user]}\t{item_ids[item]}\t{place}"
            for user, item, place in zip(users, self.histories.items, places, strict=True)
        ]
        path = folder / name / f"{name}.inter"
        path.parent.mkdir(parents=True, exist_ok=True)
        write_text(path, "\n".join(["user_id:token\titem_id:token\tplace:float", *lines, ""]))
        return name

    def ours(self, model: str, seed: int) -> dict[str, Any]:
        """Return the cell of a run of the library."""
        setting = SETTINGS[model]
        rows = training_rows(self.histories, LENGTH, "prefixes")
        spec = StudentSpec(model=model, config=setting.config, max_seq_len=LENGTH, recipe=setting.recipe)
        started = time.process_time()
        trained, result = train_student(
            rows,
            spec,
            num_items=self.prepared.num_items,
            seed=seed,
            valid=evaluation_cases(self.histories, "valid"),
        )
        seconds = {"wall": result.seconds, "cpu": time.process_time() - started}
        ranks = ranks_of(trained, evaluation_cases(self.histories, "test"))
        order = np.argsort(np.array(self.tokens[0]))
        facts = {
            "best_epoch": result.best_epoch,
            "scores": result.scores,
            "parameters": sum(value.numel() for value in trained.parameters()),
            "seconds": seconds,
            "fingerprints": self.fingerprints,
        }
        return facts | {"ranks": {rule: values[order].tolist() for rule, values in ranks.items()}}

    def peers(self, model: str, seed: int, python: Path) -> dict[str, Any]:
        """Return the cell of a run of RecBole, under the environment's ``python``."""
        found: dict[str, Any] = read_json(self._run_peer(model, python, f"{model}-{seed}.json", {"seed": seed}))
        return found

    def same_weights(self, model: str, python: Path) -> dict[str, Any]:
        """Return the cell of the comparison of scores under the same weights."""
        wanted = {"seed": 0, "snapshot_steps": 4}
        with np.load(self._run_peer(model, python, f"{model}.npz", wanted), allow_pickle=False) as snapshot:
            return {"model": model, "largest_score_difference": largest_difference(model, snapshot)}

    def _run_peer(self, model: str, python: Path, name: str, wanted: dict[str, int]) -> Path:
        """Run a job in RecBole's environment; return the path of its result."""
        folder = FOLDER / "recbole"
        setting, log = SETTINGS[model], self.write_log(folder)
        options = COMMON | setting.peer_options() | {"data_path": str(folder)}
        job, result = folder / f"{name}.job", folder / name
        write_json(job, {"model": setting.peer, "dataset": log, "options": options} | wanted)
        command = [str(python), "-W", "ignore", str(PEER), job.name, result.name]
        subprocess.run(command, cwd=folder, check=True, stdout=subprocess.DEVNULL)
        return result


@torch.no_grad()
def ranks_of(model: Recommender, cases: EvaluationCases) -> dict[str, np.ndarray]:
    """Return the rank of each held-out item by both rules, one per user in the order of users."""
    rows = np.arange(len(cases))
    scores = model.score(user_vectors(model, cases, rows))
    target = cases.targets(rows).unsqueeze(1) - 1
    rivals = torch.ones_like(scores, dtype=torch.bool).scatter_(1, target, False)
    everything = pessimistic_ranks(scores, scores.gather(1, target).squeeze(1), rivals)
    return {"unseen": evaluate(model, cases).ranks.numpy(), "all": everything.numpy()}


def with_metrics(found: dict[str, Any], problem: Problem) -> dict[str, Any]:
    """Return a cell with the metrics of its ranks.

    Raises:
        InputError: the run trained on other rows or was asked other questions, or RecBole counts in another way.
    """
    for part, expected in problem.fingerprints.items():
        if found["fingerprints"][part] != expected:
            raise InputError(f"the {part} rows of a run are not those of {problem.prepared.folder}; remove {FOLDER}")
    metrics = {
        f"{name} {rule}": float(values.mean())
        for rule in RULES
        for name, values in per_case(torch.tensor(found["ranks"][rule])).items()
        if name in METRICS
    }
    if "own_evaluation" in found:
        _check_peer(found, metrics, sorted(problem.tokens[0]))
    return found | {"metrics": metrics}


def _check_peer(found: dict[str, Any], metrics: dict[str, float], users: list[str]) -> None:
    """Raise unless RecBole's own evaluation of the same weights is what our count gives, for the same users."""
    if found["users"] != users:
        raise InputError("RecBole evaluated other users than ours; both must hold out one event of every user")
    for name, own in (("NDCG@10", "ndcg@10"), ("HR@10", "hit@10")):
        counted = metrics[f"{name} all"]
        if abs(found["own_evaluation"][own] - counted) > 1e-6:
            told = f"RecBole finds {name} {found['own_evaluation'][own]} where its ranks give {counted}"
            raise InputError(f"{told}; this release counts in another way than benchmarks/recbole_peer.py expects")


def difference(
    ours: np.ndarray, peers: np.ndarray, rng: np.random.Generator, resamples: int = 4000
) -> dict[str, float]:
    """Return the mean difference and its 95 % bootstrap interval, over seeds and, paired, over users.

    Args:
        ours, peers: (seeds, users), one value per held-out event; the same users in the same order.
        rng: where the resamples are drawn from.
        resamples: how many.
    """
    means = []
    for _ in range(resamples):
        users = rng.integers(0, ours.shape[1], ours.shape[1])
        drawn = [side[rng.integers(0, len(side), len(side))][:, users].mean() for side in (ours, peers)]
        means.append(drawn[0] - drawn[1])
    low, high = np.quantile(means, [0.025, 0.975])
    return {"difference": float(ours.mean() - peers.mean()), "low": float(low), "high": float(high)}


def seed_noise(groups: list[list[float]]) -> float:
    """Return the standard deviation over seeds, pooled over groups of runs that differ by the seed alone."""
    squares = sum(float(np.var(values)) * len(values) for values in groups)
    return float((squares / sum(len(values) - 1 for values in groups)) ** 0.5)


def rows_of(cells: dict[tuple[str, str], list[dict[str, Any]]]) -> list[dict[str, Any]]:
    """Return one row per model, side and rule, and one per model and rule that compares the sides."""
    rows: list[dict[str, Any]] = []
    for (model, side), found in cells.items():
        metrics = aggregate(found)
        about = {"seeds": len(found), "parameters": found[0]["parameters"]}
        about |= {"best_epochs": [one["best_epoch"] for one in found]}
        about |= {"cpu_seconds": round(float(np.mean([one["seconds"]["cpu"] for one in found])), 1)}
        for rule in RULES:
            named = {name: metrics[f"{name} {rule}"] for name in METRICS}
            rows.append({"model": model, "side": side, "ranking": rule} | about | {"metrics": named})
    for model, rule in product(dict.fromkeys(name for name, _ in cells), RULES):
        ours, peers = (np.stack([_per_user(one, rule) for one in cells[model, side]]) for side in SIDES)
        compared = {
            name: difference(ours[..., index], peers[..., index], Streams(0).numpy("bootstrap"))
            for index, name in enumerate(METRICS)
        }
        rows.append({"model": model, "side": "difference", "ranking": rule, "metrics": compared})
    return rows


def _per_user(found: dict[str, Any], rule: str) -> np.ndarray:
    """Return (users, metrics)."""
    values = per_case(torch.tensor(found["ranks"][rule]))
    return torch.stack([values[name] for name in METRICS], dim=-1).numpy()


def targets(rows: list[dict[str, Any]], same: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return what was asked for: equal scores under equal weights; trained, no worse than the seeds' noise explains.

    Noise is the standard deviation over seeds, pooled over models and sides; two standard errors of the difference of
    two means are allowed.
    """
    made = [
        at_most(
            f"score of {one['model']} under RecBole's weights, largest difference in standard deviations of the scores",
            SAME_SCORE,
            one["largest_score_difference"],
        )
        for one in same
    ]
    for name in METRICS:
        runs = [row for row in rows if row["ranking"] == "unseen" and row["side"] in SIDES]
        noise = seed_noise([row["metrics"][name]["values"] for row in runs])
        for row in rows:
            if row["ranking"] != "unseen" or row["side"] in SIDES:
                continue
            seeds = [other["seeds"] for other in runs if other["model"] == row["model"]]
            least = -2 * noise * sum(1 / count for count in seeds) ** 0.5
            what = f"{name} of {row['model']}: ours less RecBole's"
            made.append(at_least(what, round(least, 5), round(row["metrics"][name]["difference"], 5)))
    return made


def main() -> None:
    """Run what is asked for and not there yet; write the result where every model has runs on both sides."""
    options = _arguments()
    torch.set_num_threads(1)
    spec = PrepareSpec(name="ml-100k")
    problem = Problem(prepare(data_folder("raw/ml-100k-recbole"), FOLDER / "prepared", spec))
    same = [_same_weights(problem, model, options.recbole) for model in options.models]
    cells: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for seed, model, side in product(options.seeds, options.models, options.side):
        path = FOLDER / "cells" / f"{side}-{model}-{seed}-{_key(model, problem)}.json"
        found = cell(path, lambda: _run(problem, side, model, seed, options.recbole))  # noqa: B023 - called at once
        cells.setdefault((model, side), []).append(with_metrics(found, problem))
        scores = {name: round(value, 4) for name, value in cells[model, side][-1]["metrics"].items()}
        show({"model": model, "side": side, "seed": seed, "best_epoch": found["best_epoch"]} | scores)
    if len(options.side) < len(SIDES) or not cells:
        return
    rows = rows_of(cells)
    for row in rows:
        show(row)
    if options.json:
        command = "python -m benchmarks.model_accuracy --recbole ENVIRONMENT/bin/python --json"
        write_result("benchmarks/model_accuracy", command, _body(problem, rows, same, cells, options.seeds))


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--recbole", type=Path, required=True, help="Python of an environment that has RecBole")
    parser.add_argument("--models", nargs="+", choices=SETTINGS, default=list(SETTINGS), help="which models")
    parser.add_argument("--seeds", nargs="*", type=int, default=list(SEEDS), help="which seeds; none: train nothing")
    parser.add_argument("--side", nargs="+", choices=SIDES, default=list(SIDES), help="which sides to train")
    parser.add_argument("--json", action="store_true", help="write results/benchmarks/model_accuracy.json")
    options = parser.parse_args()
    options.recbole = options.recbole.absolute()  # not resolved: a link to the system's Python would lose its packages
    return options


def _same_weights(problem: Problem, model: str, python: Path) -> dict[str, Any]:
    path = FOLDER / "cells" / f"weights-{model}-{_key(model, problem)}.json"
    found = cell(path, lambda: problem.same_weights(model, python))
    show(found)
    return found


def _key(model: str, problem: Problem) -> str:
    """Return a name for the settings of a run, so that a cell of other settings is never taken for it."""
    return sha256_of(asdict(SETTINGS[model]), COMMON, problem.prepared.hash)[:12]


def _run(problem: Problem, side: str, model: str, seed: int, python: Path) -> dict[str, Any]:
    return problem.ours(model, seed) if side == "recdistill" else problem.peers(model, seed, python)


def _body(
    problem: Problem,
    rows: list[dict[str, Any]],
    same: list[dict[str, Any]],
    cells: dict[tuple[str, str], list[dict[str, Any]]],
    seeds: list[int],
) -> dict[str, Any]:
    settings = {name: asdict(setting) for name, setting in SETTINGS.items() if (name, SIDES[0]) in cells}
    peer = next(found[0]["versions"] for (_, side), found in cells.items() if side == "recbole")
    return {
        "dataset": dataset_facts(problem.prepared),
        "max_seq_len": LENGTH,
        "seeds": seeds,
        "threads": 1,
        "peer_versions": peer,
        "settings": settings,
        "differences": DIFFERENCES,
        "rows": rows,
        "same_weights": same,
        "targets": targets(rows, same),
    }


if __name__ == "__main__":
    main()
