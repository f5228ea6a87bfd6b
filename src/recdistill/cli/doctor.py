"""recdistill doctor."""

import os
import platform
import shutil
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

from recdistill.cli.folders import cache_folder
from recdistill.cli.messages import print_facts, print_json, print_table
from recdistill.cli.options import Flag
from recdistill.data.batches import SoftItems
from recdistill.data.distilled import current_versions
from recdistill.data.rows import soft_batch
from recdistill.models import MODELS
from recdistill.rng import Streams

NEEDED = ("torch", "numpy", "polars", "pyarrow", "safetensors", "pydantic", "cyclopts", "rich", "scipy", "jaxtyping")


def doctor(*, json: Flag = False) -> int:
    """Say what this machine can do, and check what distillation needs.

    Parameters
    ----------
    json
        Print the result as JSON.
    """
    cache = cache_folder(None)
    facts: dict[str, Any] = {
        "recdistill": current_versions()["recdistill"],
        "python": platform.python_version(),
        "processor cores": os.cpu_count(),
        "torch threads": torch.get_num_threads(),
        "memory GB": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9, 1),
        "gpu": torch.cuda.get_device_name(0) if torch.cuda.is_available() else None,
        "C++ compiler, for --compile": cpp_compiler(),
        "transformers, for --model text": installed("transformers"),
        "peft, for lora_rank": installed("peft"),
        "POT, for --method goracs": installed("pot"),
        "cache": str(cache),
        "free disk GB": round(shutil.disk_usage(_existing(cache)).free / 1e9, 1),
    } | {f"version of {name}": version(name) for name in NEEDED}
    checks = {
        "cache can be written": os.access(_existing(cache), os.W_OK),
        **{f"{name} has second derivatives": has_double_backward(name) for name in trainable_models()},
    }
    if json:
        print_json({"facts": facts, "checks": checks})
    else:
        print_facts("this machine", facts)
        print_table("checks", ["", "result"], [[name, "ok" if good else "FAILED"] for name, good in checks.items()])
    return 0 if all(checks.values()) else 1


def installed(package: str) -> str | None:
    """Return the version of an optional package, or ``None`` where it is not there."""
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def cpp_compiler() -> str | None:
    """Return the path of the compiler that torch would use."""
    names = [os.environ["CXX"]] if "CXX" in os.environ else ["g++", "clang++", "c++"]
    return next(filter(None, map(shutil.which, names)), None)


def _existing(path: Path) -> Path:
    return next(folder for folder in (path, *path.absolute().parents) if folder.exists())


def trainable_models() -> list[str]:
    """Return the names of the models that a distiller can train without anything that lies outside of them."""
    return [name for name, model in MODELS.items() if model.trainable and not model.reads_text]


def has_double_backward(name: str) -> bool:
    """Return whether the loss of a model on soft rows can be differentiated twice here."""
    rng = Streams(0).child("doctor")
    model = MODELS[name](6, 4, generator=rng.torch("init"))
    queries = torch.randn(2, 4, 3, generator=rng.torch("queries")).requires_grad_()
    items = SoftItems(queries, torch.randn(6, 3, generator=rng.torch("keys")))
    loss = model.loss(soft_batch(items, 2, 4))
    try:
        first = torch.autograd.grad(loss, [model.item_table], create_graph=True)[0]
        second = torch.autograd.grad(first.square().sum(), [queries])[0]
    except RuntimeError:
        return False
    return bool(torch.isfinite(second).all())
