"""What recipes and benchmarks share: where data and results lie, cells computed once, and the JSON file."""

import json
import os
import subprocess
from collections.abc import Callable
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from recdistill.data.distilled import current_versions
from recdistill.data.prepared import PreparedDataset
from recdistill.errors import InputError
from recdistill.evaluation.statistics import estimate
from recdistill.machine import machine
from recdistill.rng import Streams
from recdistill.storage import read_json, write_json

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "results"
RUNS = ROOT / "runs"


def data_folder(name: str) -> Path:
    """Return a dataset below $RECDISTILL_DATA.

    Raises:
        InputError: the variable is not set, or the dataset is not there.
    """
    base = os.environ.get("RECDISTILL_DATA")
    if base is None:
        raise InputError("RECDISTILL_DATA is not set; point it at the folder that holds the datasets")
    folder = Path(base) / name
    if not folder.exists():
        raise InputError(f"{folder}: does not exist; RECDISTILL_DATA must hold {name}")
    return folder


def cell(path: Path, compute: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """Return the JSON at ``path``, computed and written when it is not there yet."""
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        write_json(path, compute())
    value: dict[str, Any] = read_json(path)
    return value


def aggregate(cells: list[dict[str, Any]]) -> dict[str, Any]:
    """Return the metrics of one row: mean, 95 % interval and values over the cells, one cell per seed."""
    names = cells[0]["metrics"]
    rng = Streams(0).numpy("bootstrap")
    return {
        name: {
            key: _rounded(value) for key, value in asdict(estimate([c["metrics"][name] for c in cells], rng)).items()
        }
        for name in names
    }


def as_json(value: dict[str, Any]) -> dict[str, Any]:
    """Return a record as it reads back from JSON: tuples become lists, records and paths are refused."""
    read: dict[str, Any] = json.loads(json.dumps(value, allow_nan=False))
    return read


def _rounded(value: Any) -> Any:
    return [round(entry, 5) for entry in value] if isinstance(value, list | tuple) else round(value, 5)


def dataset_facts(prepared: PreparedDataset) -> dict[str, Any]:
    """Return how a result names its dataset."""
    manifest = prepared.manifest
    sizes = {"users": manifest["users"], "items": manifest["items"], "interactions": manifest["interactions"]}
    return {"name": prepared.name, **sizes, "train_bytes": prepared.train_bytes, "hash": prepared.hash}


def write_result(name: str, command: str, body: dict[str, Any]) -> Path:
    """Write ``results/<name>.json`` with the circumstances of the run; return its path. A name may have a folder."""
    path = RESULTS / f"{name}.json"
    head = {
        "name": name,
        "command": command,
        "commit": _commit(),
        "created": datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        "machine": machine(),
        "versions": current_versions(),
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    write_json(path, as_json(head | body))
    return path


def _commit() -> str:
    found = subprocess.run(["git", "rev-parse", "HEAD"], cwd=ROOT, capture_output=True, text=True, check=False)
    changed = subprocess.run(
        ["git", "status", "--porcelain", "--untracked-files=no"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    return (found.stdout.strip() or "unknown") + ("+changes" if changed.stdout.strip() else "")
