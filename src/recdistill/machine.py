"""What a run ran on: figures of time and memory mean nothing without it."""

import os
import platform
from pathlib import Path
from typing import Any

import torch


def machine() -> dict[str, Any]:
    """Return processor, cores, GPU and system of this machine; no name of host or user."""
    gpu = torch.cuda.get_device_name(0) if torch.cuda.is_available() else None
    return {"cpu": processor(), "cores": os.cpu_count(), "gpu": gpu, "system": platform.system()}


def processor(info: Path = Path("/proc/cpuinfo")) -> str:
    """Return the name of the processor, or its architecture where the system does not tell."""
    if not info.exists():
        return platform.processor() or platform.machine()
    names = [line.split(":", 1)[1].strip() for line in info.read_text().splitlines() if line.startswith("model name")]
    return names[0] if names else platform.machine()
