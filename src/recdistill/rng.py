"""Seeds: one integer in, independent generators out, one per named stage.

No module of recdistill draws from a global generator. A run has one seed; each stage asks for a stream by name, so
adding a stage, or drawing more in one of them, never moves another. Dropout is keyed by step (:func:`generator_at`),
so a step that is computed twice sees the same mask.
"""

import hashlib
from dataclasses import dataclass

import numpy as np
import torch


@dataclass(frozen=True)
class Streams:
    """A seed, and the path of stage names below it.

    Args:
        seed: any integer, 0 or larger.
        path: names of the enclosing stages.
    """

    seed: int
    path: tuple[str, ...] = ()

    def child(self, name: str) -> "Streams":
        """Return the streams of a sub-stage."""
        return Streams(self.seed, (*self.path, name))

    def integer(self, name: str) -> int:
        """Return the 63-bit seed of the stream ``name``."""
        text = "/".join((str(self.seed), *self.path, name))
        return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "little") >> 1

    def torch(self, name: str, device: torch.device | str = "cpu") -> torch.Generator:
        """Return a new torch generator for the stream ``name``."""
        return torch.Generator(device=device).manual_seed(self.integer(name))

    def numpy(self, name: str) -> np.random.Generator:
        """Return a new numpy generator for the stream ``name``."""
        return np.random.default_rng(self.integer(name))


def generator_at(seed: int, step: int, device: torch.device | str = "cpu") -> torch.Generator:
    """Return the generator of one step: the same ``(seed, step)`` always gives the same numbers."""
    mixed = (seed * 0x9E3779B97F4A7C15 + step * 0xBF58476D1CE4E5B9) & 0x7FFFFFFFFFFFFFFF
    return torch.Generator(device=device).manual_seed(mixed)
