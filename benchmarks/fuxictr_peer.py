"""One training run of a model of FuxiCTR, in FuxiCTR's own environment; started by ``benchmarks/click_accuracy.py``.

    python fuxictr_peer.py JOB.json RESULT.json

Model, initial weights, loss, optimiser and training step (``train_step``) are FuxiCTR's. Three things are not. Rows are
coded already, and come in the batches of the other side, in their order. Gradients are not clipped (FuxiCTR's own
default cuts their norm at 10). And the run ends with its last weights: FuxiCTR's ``fit`` lowers the step size and
chooses an epoch by a validation set, which this comparison does not have. Logits of the test rows are written after
every epoch. This file knows nothing of recdistill and runs where that is not installed.
"""

import hashlib
import importlib.util
import json
import math
import sys
import time
from importlib import import_module
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

PACKAGES = ("fuxictr", "torch", "numpy")
LABEL = "label"


def fingerprint(*arrays: np.ndarray) -> str:
    """Return the SHA-256 of arrays, their types and shapes included."""
    digest = hashlib.sha256()
    for array in arrays:
        digest.update(f"{array.dtype.str} {array.shape} ".encode())
        digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()


def field_specs(fields: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """Return how FuxiCTR describes fields; the vectors of several values are averaged, those that are there."""
    specs = {}
    for one in fields:
        spec = {"source": "", "type": "categorical", "vocab_size": one["num_ids"]}
        if one["width"] > 1:
            pooling = "layers.MaskedAveragePooling()"
            spec |= {"type": "sequence", "max_len": one["width"], "padding_idx": 0, "feature_encoder": pooling}
        specs[one["name"]] = spec
    return specs


def columns(fields: list[dict[str, Any]], ids: Tensor) -> dict[str, Tensor]:
    """Return the ids of every field: (B,), or (B, width) where it has several values."""
    widths = [one["width"] for one in fields]
    parts = ids.split(widths, dim=1)
    return {one["name"]: part if one["width"] > 1 else part[:, 0] for one, part in zip(fields, parts, strict=True)}


class Peer:
    """A model of FuxiCTR and the rows that it is trained on.

    Args:
        job: ``file`` (of the model), ``options`` (its arguments), ``fields`` (name, num_ids and width of each),
            ``data`` and ``orders`` (files beside the job), ``batch_size`` and ``seed``.
        folder: where these lie.
    """

    def __init__(self, job: dict[str, Any], folder: Path) -> None:
        with np.load(folder / job["data"], allow_pickle=False) as data:
            arrays = {name: data[name] for name in ("train_ids", "train_labels", "test_ids")}
        self.fingerprint = fingerprint(*arrays.values())
        self.rows = {name: torch.from_numpy(array) for name, array in arrays.items()}
        self.orders = torch.from_numpy(np.load(folder / job["orders"], allow_pickle=False))
        self.fields, self.batch_size = job["fields"], job["batch_size"]
        features = import_module("fuxictr.features").FeatureMap("clicks", str(folder))
        features.features.update(field_specs(self.fields))
        features.labels, features.num_fields = [LABEL], features.get_num_fields()
        features.default_emb_dim = job["options"].get("embedding_dim")
        import_module("fuxictr.pytorch.torch_utils").seed_everything(job["seed"])
        self.model = model_class(Path(job["file"]))(features, model_root=str(folder), **job["options"])
        self.model._max_gradient_norm = math.inf
        if self.model.regularization_loss() != 0:
            raise ValueError("FuxiCTR's model has a regulariser that it was not told of")

    def train(self) -> tuple[list[Tensor], list[float]]:
        """Train; return the logits of the test rows and the mean loss of every epoch."""
        logits, losses = [], []
        for order in self.orders:
            self.model.train()
            steps = [self.model.train_step(self._batch(rows)).detach() for rows in order.split(self.batch_size)]
            losses.append(float(torch.stack(steps).mean()))
            logits.append(self.logits())
        return logits, losses

    def _batch(self, rows: Tensor) -> dict[str, Tensor]:
        ids, labels = (self.rows[f"train_{name}"][rows] for name in ("ids", "labels"))
        return columns(self.fields, ids) | {LABEL: labels}

    @torch.no_grad()
    def logits(self) -> Tensor:
        """Return the logits of the test rows: what FuxiCTR's model has before the last sigmoid."""
        self.model.eval()
        activation, self.model.output_activation = self.model.output_activation, nn.Identity()
        parts = self.rows["test_ids"].split(8192)
        found = [self.model(columns(self.fields, ids))["y_pred"].flatten() for ids in parts]
        self.model.output_activation = activation
        return torch.cat(found)


def model_class(path: Path) -> Any:
    """Return the class of a file of FuxiCTR's ``model_zoo``, which no package of it has."""
    spec = importlib.util.spec_from_file_location(path.stem, path)
    if spec is None or spec.loader is None:
        raise FileNotFoundError(path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return getattr(module, path.stem)


def main(job: Path, result: Path) -> None:
    """Run one job and write its result."""
    torch.set_num_threads(1)
    peer = Peer(json.loads(job.read_text(encoding="utf-8")), job.parent)
    started = time.process_time()
    logits, losses = peer.train()
    found = {
        "logits": [values.tolist() for values in logits],
        "losses": losses,
        "parameters": sum(value.numel() for value in peer.model.parameters()),
        "cpu_seconds": time.process_time() - started,
        "fingerprint": peer.fingerprint,
        "versions": {name: version(name) for name in PACKAGES},
    }
    result.write_text(json.dumps(found), encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
