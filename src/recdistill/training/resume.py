"""The state of an optimisation run, saved whole after every epoch so that a killed run loses at most one."""

import json
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch import Tensor, nn

from recdistill.storage import read_tensors, write_tensors


@dataclass
class RunState:
    """Where a run stands. The one mutable record of the loop."""

    model: nn.Module
    optimizer: torch.optim.Adam
    epoch: int = 0
    step: int = 0
    best_epoch: int = 0
    best_score: float | None = None
    waited: int = 0
    stopped: bool = False
    losses: list[float] = field(default_factory=list)
    scores: list[float] = field(default_factory=list)
    notes: list[dict[str, float]] = field(default_factory=list)
    best: dict[str, Tensor] = field(default_factory=dict)
    carried: dict[str, Tensor] = field(default_factory=dict)
    seconds_before: float = 0.0
    started: float = field(default_factory=time.perf_counter)

    @staticmethod
    def start(
        model: nn.Module,
        learning_rate: float,
        weight_decay: float,
        *,
        decoupled: bool = False,
        undecayed: Sequence[nn.Parameter] = (),
        fused: bool = False,
    ) -> "RunState":
        """Return the state before the first step of Adam; of AdamW, where the decay is decoupled.

        Args:
            model: whose parameters that want a gradient are trained.
            learning_rate: step size.
            weight_decay: of all parameters but ``undecayed``.
            decoupled: whether the decay is.
            undecayed: parameters without decay.
            fused: take a step in one pass over the parameters, three times as fast for large tables; rounds otherwise.
        """
        trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
        spared = {id(parameter) for parameter in undecayed}
        groups: list[dict[str, Any]] = [
            {"params": [parameter for parameter in trained if id(parameter) not in spared]},
            {"params": [parameter for parameter in trained if id(parameter) in spared], "weight_decay": 0.0},
        ]
        kind = torch.optim.AdamW if decoupled else torch.optim.Adam
        options: dict[str, Any] = {"fused": True} if fused else {}
        made = kind([each for each in groups if each["params"]], learning_rate, weight_decay=weight_decay, **options)
        return RunState(model, made)

    @property
    def seconds(self) -> float:
        """Wall time so far, over all resumed parts."""
        return self.seconds_before + time.perf_counter() - self.started

    def take_score(self, score: float, patience: int | None) -> None:
        """Note a score; keep the weights when it is the best so far, and stop after ``patience`` that were not."""
        self.scores.append(score)
        if patience is None:
            return
        if self.best_score is None or score > self.best_score:
            self.best_score, self.best_epoch, self.waited = score, self.epoch, 0
            self.best = {name: value.detach().clone() for name, value in self.model.state_dict().items()}
        else:
            self.waited += 1
            self.stopped = self.waited >= patience

    def take_first_score(self, score: float) -> None:
        """Let the model as it begins compete, as epoch 0; the score is not among those of the epochs."""
        self.take_score(score, patience=1)
        self.scores.clear()
        self.stopped = False

    def keep_best(self) -> int:
        """Give the model its best weights, where there are any; return their epoch."""
        if not self.best:
            return self.epoch
        self.model.load_state_dict(self.best)
        return self.best_epoch

    def save(self, path: Path) -> None:
        """Write everything to one file in one step."""
        tensors = {f"model.{name}": value for name, value in self.model.state_dict().items()}
        tensors |= {f"best.{name}": value for name, value in self.best.items()}
        tensors |= {f"carried.{name}": value for name, value in self.carried.items()}
        for index, entry in self.optimizer.state_dict()["state"].items():
            tensors |= {f"adam.{index}.{name}": torch.as_tensor(value) for name, value in entry.items()}
        numbers = {name: getattr(self, name) for name in _NUMBERS}
        numbers["seconds_before"] = self.seconds
        path.parent.mkdir(parents=True, exist_ok=True)
        write_tensors(path, tensors, {"state": json.dumps(numbers)})

    def restore(self, path: Path) -> None:
        """Continue from ``path``, where it exists."""
        if not path.exists():
            return
        tensors = read_tensors(path)
        with safe_open(path, framework="pt") as file:
            for name, value in json.loads(file.metadata()["state"]).items():
                setattr(self, name, value)
        self.model.load_state_dict(_below("model.", tensors))
        self.best = _below("best.", tensors)
        self.carried = _below("carried.", tensors)
        adam = _below("adam.", tensors)
        entries: dict[int, dict[str, Tensor]] = {}
        for key, value in adam.items():
            index, name = key.split(".", 1)
            entries.setdefault(int(index), {})[name] = value
        self.optimizer.load_state_dict({**self.optimizer.state_dict(), "state": entries})


_NUMBERS = ("epoch", "step", "best_epoch", "best_score", "waited", "stopped", "losses", "scores", "notes")


def _below(prefix: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}
