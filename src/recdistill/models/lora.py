"""Low-rank adapters of an encoder's trained layers: what is learnt in place of their weights.

The adapters are those of the package peft. What is ours: their weights are drawn from a given generator, and their
dropout takes one at every call, as everywhere in this library.
"""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from recdistill.errors import InputError, require_above, require_rate
from recdistill.models.encoders import INSTALL
from recdistill.models.layers import Randomness, dropout

_ADAPTER = "default"


class LowRankAdapters:
    """Adapters beside every linear map of some layers, put there when this is made.

    Args:
        layers: their own weights are frozen.
        rank: of each adapter, at least 1.
        alpha: the output is multiplied by ``alpha / rank``; above 0.
        dropout: rate on an adapter's input.
        generator: where the first factor is drawn from; the second is 0, so that nothing is changed at the start.

    Raises:
        OptionError: a value is out of its range.
        InputError: peft is not installed.

    Reference: Hu et al., LoRA: Low-Rank Adaptation of Large Language Models, ICLR 2022, arXiv 2106.09685.
    """

    def __init__(
        self, layers: nn.Module, *, rank: int, alpha: float, dropout: float, generator: torch.Generator
    ) -> None:
        require_above(0, lora_alpha=alpha)
        require_rate(lora_dropout=dropout)
        try:
            from peft import LoraConfig, inject_adapter_in_model
        except ImportError:
            raise InputError(f"adapters (lora_rank) need the package peft; {INSTALL}") from None
        names = {name.rpartition(".")[2] for name, part in layers.named_modules() if isinstance(part, nn.Linear)}
        scale: Any = alpha  # a fraction is taken, and declared as a whole number
        config = LoraConfig(r=rank, lora_alpha=scale, lora_dropout=0.0, target_modules=sorted(names), bias="none")
        with torch.random.fork_rng(devices=[]):  # peft draws from the global generator; what it draws is drawn anew
            inject_adapter_in_model(config, layers, adapter_name=_ADAPTER)
        self._dropouts: list[_Dropout] = []
        for part in list(layers.modules()):
            dropouts = getattr(part, "lora_dropout", None)
            if isinstance(dropouts, nn.ModuleDict) and _ADAPTER in dropouts:
                self._dropouts.append(_Dropout(dropout))
                dropouts[_ADAPTER] = self._dropouts[-1]
        with torch.no_grad():
            for name, parameter in layers.named_parameters():
                learnt = ".lora_" in name
                parameter.requires_grad_(learnt)
                if ".lora_A." in name:
                    bound = 1 / math.sqrt(parameter.shape[1])
                    parameter.uniform_(-bound, bound, generator=generator)

    @contextmanager
    def randomness(self, generator: Randomness | None) -> Iterator[None]:
        """Take the dropout of the calls inside from ``generator``; none when it is ``None``."""
        for part in self._dropouts:
            part.generator = generator
        try:
            yield
        finally:
            for part in self._dropouts:
                part.generator = None


class _Dropout(nn.Module):
    """Dropout that takes its generator from outside."""

    def __init__(self, rate: float) -> None:
        super().__init__()
        self.rate = rate
        self.generator: Randomness | None = None

    def forward(self, values: Tensor) -> Tensor:
        return dropout(values, self.rate, self.generator)
