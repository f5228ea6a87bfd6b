"""One training run of RecBole's own model, in RecBole's own environment; started by ``benchmarks/model_accuracy.py``.

    python recbole_peer.py JOB.json RESULT.json

A job with ``snapshot_steps`` trains so many steps only, and its result is an .npz file with weights and scores.

Model, rows, batches, optimiser and stopping are RecBole's. Two things are not. Validation and test count ranks by one
rule, which ``model_accuracy`` applies to both sides, because RecBole lets a sequential model recommend what the user
has seen; and the best weights stay in memory, because RecBole writes them with pickle. RecBole's own evaluation of the
same weights is reported beside them. This file knows nothing of recdistill and runs where that is not installed.
"""

import copy
import hashlib
import json
import sys
import time
from importlib import import_module
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

PACKAGES = ("recbole", "torch", "numpy", "pandas", "scipy")


def rank_targets(scores: Tensor, targets: Tensor, excluded: Tensor) -> Tensor:
    """Return the rank of each target: 1 plus the other items that score at least as high.

    Args:
        scores: (B, V + 1); column 0 belongs to padding and takes no part.
        targets: (B,) item ids.
        excluded: (B, V + 1) true where an item takes no part; the target itself always does.
    """
    rivals = ~excluded
    rivals[:, 0] = False
    rivals[torch.arange(len(targets)), targets] = False
    own = scores.gather(1, targets.unsqueeze(1))
    if not bool(torch.isfinite(own).all()):
        raise ValueError("the score of a target is not finite; the training diverged")
    return 1 + ((scores >= own) & rivals).sum(1)


def ndcg_at_10(ranks: Tensor) -> float:
    """Return the mean of ``1 / log2(rank + 1)``, 0 beyond rank 10."""
    return float(torch.where(ranks <= 10, 1 / torch.log2(ranks.double() + 1), 0.0).mean())


def fingerprint(users: list[str], histories: list[list[str]], targets: list[str]) -> str:
    """Return the SHA-256 of rows in any order: user, what came before, oldest first, and the item that follows."""
    lines = sorted(" ".join([user, *items, item]) for user, items, item in zip(users, histories, targets, strict=True))
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


class Peer:
    """A dataset, a model and a trainer of RecBole.

    Args:
        job: ``model`` (name in RecBole), ``dataset`` (folder below ``data_path``), ``seed`` and ``options`` (RecBole's
            configuration).
    """

    def __init__(self, job: dict[str, Any]) -> None:
        config_class = import_module("recbole.config").Config
        data, tools = import_module("recbole.data"), import_module("recbole.utils")
        options = job["options"] | {"seed": job["seed"]}
        config = config_class(model=job["model"], dataset=job["dataset"], config_dict=options)
        self.item, self.user = config["ITEM_ID_FIELD"], config["USER_ID_FIELD"]
        self.history, self.length = self.item + config["LIST_SUFFIX"], config["ITEM_LIST_LENGTH_FIELD"]
        tools.init_seed(job["seed"], True)
        self.dataset = data.create_dataset(config)
        self.loaders = dict(zip(("train", "valid", "test"), data.data_preparation(config, self.dataset), strict=True))
        tools.init_seed(job["seed"], True)
        self.model = tools.get_model(job["model"])(config, self.loaders["train"].dataset)
        base = tools.get_trainer(config["MODEL_TYPE"], config["model"])
        self.trainer = _trainer(base, lambda: ndcg_at_10(self.ranks("valid", exclude_seen=True)))(config, self.model)
        self.excluded = {part: self._seen(part) for part in ("valid", "test")}

    def rows(self, part: str) -> dict[str, Tensor]:
        """Return the columns of a part: users, histories, their lengths, and the items that follow."""
        table: dict[str, Tensor] = self.loaders[part].dataset.inter_feat.interaction
        return table

    def _seen(self, part: str) -> Tensor:
        """Return (U, V + 1): what each user touched before the event of ``part``; histories are cut, events are not."""
        seen = torch.zeros(self.dataset.user_num, self.dataset.item_num, dtype=torch.bool)
        for earlier in ("train", "valid", "test"):
            rows = self.rows(earlier)
            seen[rows[self.user].unsqueeze(1), rows[self.history]] = True
            if earlier == part:
                return seen
            seen[rows[self.user], rows[self.item]] = True
        raise ValueError(part)

    @torch.no_grad()
    def ranks(self, part: str, *, exclude_seen: bool) -> Tensor:
        """Return the rank of each held-out item, in the order of :meth:`rows`."""
        self.model.eval()
        ranks = []
        for interaction, *_ in self.loaders[part]:
            users, targets = interaction[self.user], interaction[self.item]
            excluded = self.excluded[part][users] if exclude_seen else torch.zeros(1, dtype=torch.bool)
            scores = self.model.full_sort_predict(interaction).view(len(users), -1)
            ranks.append(rank_targets(scores, targets, excluded.expand_as(scores).clone()))
        return torch.cat(ranks)

    def fingerprint(self, part: str) -> str:
        """Return :func:`fingerprint` of a part, in the ids of the source."""
        rows = self.rows(part)
        items = self.dataset.id2token(self.item, torch.arange(self.dataset.item_num).numpy())
        histories = [
            [items[item] for item in row[:length]]
            for row, length in zip(rows[self.history].tolist(), rows[self.length].tolist(), strict=True)
        ]
        users = self.dataset.id2token(self.user, rows[self.user].numpy()).tolist()
        return fingerprint(users, histories, [items[item] for item in rows[self.item].tolist()])

    def train(self) -> None:
        """Train, and end with the weights of the best epoch."""
        self.trainer.fit(self.loaders["train"], self.loaders["valid"], verbose=False, saved=True)
        self.model.load_state_dict(self.trainer.best)

    def snapshot(self, steps: int, cases: int = 256) -> dict[str, Any]:
        """Return the weights after a few large steps, and the scores that they give to some test histories."""
        self.model.train()
        optimizer = torch.optim.Adam(self.model.parameters(), lr=0.01)
        for interaction, _ in zip(self.loaders["train"], range(steps), strict=False):
            optimizer.zero_grad()
            self.model.calculate_loss(interaction).backward()
            optimizer.step()
        self.model.eval()
        interaction = next(iter(self.loaders["test"]))[0]
        with torch.no_grad():
            scores = self.model.full_sort_predict(interaction).view(len(interaction), -1)
        found = {"scores": scores, "histories": interaction[self.history], "lengths": interaction[self.length]}
        weights = {f"weights.{name}": value.numpy() for name, value in self.model.state_dict().items()}
        return weights | {name: value[:cases].numpy() for name, value in found.items()}

    def result(self) -> dict[str, Any]:
        """Return the ranks of the test events by both rules, ordered by user, and RecBole's own evaluation."""
        users = self.dataset.id2token(self.user, self.rows("test")[self.user].numpy()).tolist()
        order = sorted(range(len(users)), key=lambda row: users[row])
        ranks = {
            "unseen": self.ranks("test", exclude_seen=True).tolist(),
            "all": self.ranks("test", exclude_seen=False).tolist(),
        }
        return {
            "users": [users[row] for row in order],
            "ranks": {rule: [values[row] for row in order] for rule, values in ranks.items()},
            "own_evaluation": dict(self.trainer.evaluate(self.loaders["test"], load_best_model=False)),
            "best_epoch": self.trainer.best_epoch,
            "scores": self.trainer.scores,
            "parameters": sum(value.numel() for value in self.model.parameters()),
        }


def _trainer(base: Any, score: Any) -> Any:
    """Return ``base``, a trainer of RecBole, with another validation score and its best weights in memory."""

    class Trainer(base):
        """RecBole's trainer."""

        def _valid_epoch(self, valid_data: Any, show_progress: bool = False) -> tuple[float, dict[str, float]]:
            value = score()
            self.scores = [*getattr(self, "scores", []), value]
            return value, {"ndcg@10": value}

        def _save_checkpoint(self, epoch: int, verbose: bool = True, **_: Any) -> None:
            self.best, self.best_epoch = copy.deepcopy(self.model.state_dict()), epoch + 1

    return Trainer


def main(job: Path, result: Path) -> None:
    """Run one job and write its result."""
    torch.set_num_threads(1)
    wanted = json.loads(job.read_text(encoding="utf-8"))
    peer = Peer(wanted)
    if "snapshot_steps" in wanted:
        np.savez(result, **peer.snapshot(wanted["snapshot_steps"]))
        return
    fingerprints = {part: peer.fingerprint(part) for part in ("train", "valid", "test")}
    wall, cpu = time.perf_counter(), time.process_time()
    peer.train()
    seconds = {"wall": time.perf_counter() - wall, "cpu": time.process_time() - cpu}
    about = {"fingerprints": fingerprints, "seconds": seconds, "versions": {name: version(name) for name in PACKAGES}}
    result.write_text(json.dumps(peer.result() | about), encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
