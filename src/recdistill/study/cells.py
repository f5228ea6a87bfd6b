"""Cells of a study: one model trained on one dataset from one seed, and what it scores on the held-out events.

A cell is named by its content: what is trained on, the split, the model, the item table, the recipe and the seed. So
what is done is never done again, also not by another study in the same folder.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Int
from torch import Tensor

from recdistill.data.development import development_of, histories_of
from recdistill.data.distilled import DistilledDataset, current_versions, is_distilled, read_manifest
from recdistill.data.prepared import PreparedDataset
from recdistill.data.rows import compact_ids
from recdistill.data.sequences import EvaluationCases, Histories, TrainingData, evaluation_cases, training_rows
from recdistill.data.text import Catalogue
from recdistill.distill.run import peak_megabytes
from recdistill.errors import ArtifactError, choose
from recdistill.evaluation.long_tail import Exposure, exposure, recommend
from recdistill.evaluation.metrics import per_case
from recdistill.evaluation.panel import Panel
from recdistill.evaluation.privacy import membership_attack
from recdistill.evaluation.protocols import PROTOCOLS, evaluate
from recdistill.models import MODELS
from recdistill.models.base import Recommender
from recdistill.progress import Progress
from recdistill.rng import Streams
from recdistill.storage import read_json, read_tensors, sha256_of, write_json, write_tensors
from recdistill.study.students import ItemTable, StudentSpec, train_student
from recdistill.training.fit import TrainingRecipe

CELL_FORMAT = 1
"""Part of the name of every cell; counts up when the same settings come to mean something else."""


@dataclass(frozen=True, kw_only=True)
class ModelSpec:
    """A model that is trained on everything."""

    name: str
    """How tables call it."""
    model: str
    """Name in ``MODELS``, its family."""
    config: Mapping[str, Any] = field(default_factory=dict)
    """Keyword arguments of the model; its defaults for the rest."""

    def settings(self) -> dict[str, Any]:
        """Return all arguments of the model, defaults included.

        Raises:
            OptionError: the model is not known, or does not take one of the arguments.
        """
        known = choose(f"model of {self.name}", self.model, MODELS).options()
        for option in self.config:
            choose(f"argument of {self.name}", option, known)
        return known | dict(self.config)


@dataclass(frozen=True, kw_only=True)
class TrainingSet:
    """Something to train on: all data, a distilled dataset or a control."""

    name: str
    """How tables call it."""
    folder: Path
    """A prepared or a distilled dataset."""
    content: str
    """Hash of what is trained on."""
    split: str
    """Hash of the split that it belongs to."""

    @classmethod
    def open(cls, name: str, folder: Path) -> "TrainingSet":
        """Return what lies in a folder.

        Raises:
            ArtifactError: it is neither a prepared nor a distilled dataset.
        """
        folder = folder.absolute()
        if is_distilled(folder):
            manifest = read_manifest(folder)
            return cls(name=name, folder=folder, content=manifest.files["data.safetensors"], split=manifest.source.hash)
        prepared = PreparedDataset.open(folder, verify=False)
        return cls(name=name, folder=folder, content=prepared.hash, split=prepared.hash)

    def rows(self, max_seq_len: int, cut: str) -> tuple[TrainingData, Tensor | None]:
        """Return the rows, and the item factor where one is shipped.

        Args:
            max_seq_len: longest history.
            cut: how rows are cut from real histories: ``windows`` or ``prefixes``.
        """
        if is_distilled(self.folder):
            made = DistilledDataset.load(self.folder)
            return made.rows, made.item_factor
        return training_rows(development_of(PreparedDataset.open(self.folder)).histories, max_seq_len, cut), None


@dataclass(frozen=True, kw_only=True)
class Cell:
    """A job of a grid (:class:`~recdistill.study.grid.Job`): train a model and score it on the test events."""

    folder: Path
    """Of the study."""
    prepared: Path
    """Where validation and test events are."""
    data: TrainingSet
    """What the model is trained on; of the same split."""
    model: ModelSpec
    """Which model."""
    items: ItemTable = "random"
    """Item table of the model."""
    seed: int
    """Of weights, order and dropout."""
    recipe: TrainingRecipe
    """How it is trained; stopped early on the validation events."""
    max_seq_len: int
    """Longest history that it reads."""

    @property
    def key(self) -> str:
        """What it is, for people."""
        return f"{self.data.name}/{self.model.name}/{self.items}/seed-{self.seed}"

    @property
    def path(self) -> Path:
        """The scores; the rank of every event lies beside them."""
        return self.folder / "cells" / f"{sha256_of(self.settings())[:24]}.json"

    @property
    def needs(self) -> Sequence["Cell"]:
        """Nothing."""
        return ()

    def settings(self) -> dict[str, Any]:
        """Return what decides the scores."""
        return {
            "format": CELL_FORMAT,
            "split": self.data.split,
            "data": self.data.content,
            "model": self.model.model,
            "config": self.model.settings(),
            "items": self.items,
            "seed": self.seed,
            "recipe": self.recipe.as_dict(),
            "max_seq_len": self.max_seq_len,
        }

    def done(self) -> bool:
        """Return whether the scores are there."""
        return self.path.exists()

    def run(self, progress: Progress) -> None:
        """Train the model, score it, and write the scores.

        Raises:
            ArtifactError: the prepared dataset is not the one that ``data`` was made from.
        """
        prepared = PreparedDataset.open(self.prepared)
        if prepared.hash != self.data.split:
            raise ArtifactError(
                f"is another split ({prepared.hash[:12]}) than that of {self.data.folder} ({self.data.split[:12]})",
                fix="give the prepared dataset that it was made from",
                path=self.prepared,
            )
        start, histories = peak_megabytes(), histories_of(prepared)
        rows, factor = self.data.rows(self.max_seq_len, self.recipe.rows)
        model, result = train_student(
            rows,
            StudentSpec(
                model=self.model.model,
                config=self.model.config,
                max_seq_len=self.max_seq_len,
                items=self.items,
                recipe=self.recipe,
            ),
            num_items=prepared.num_items,
            seed=self.seed,
            item_factor=factor,
            catalogue=Catalogue(prepared.items(), self.folder / "texts"),
            valid=evaluation_cases(development_of(prepared).histories, "valid"),
            state=None if is_distilled(self.data.folder) else self.path.with_suffix(".state"),
            progress=progress,
        )
        model = model.fixed()
        cost = {"seconds": round(result.seconds, 3), "start_mb": start, "peak_mb": peak_megabytes()}
        cases = evaluation_cases(histories, "test")
        about = {
            "key": self.key,
            "settings": self.settings(),
            **{name: getattr(result, name) for name in ("steps", "epochs", "best_epoch", "losses", "scores")},
            **cost,
            "threads": torch.get_num_threads(),
            "exposure": asdict(exposure_of(model, cases, histories.train_counts(prepared.num_items))),
            "membership": membership_of(model, histories.development()),
            "versions": current_versions(),
        }
        write_scores(self.path, model, cases, about)

    def result(self) -> dict[str, Any]:
        """Return the scores and all that is known about them; ``metrics`` by protocol."""
        found: dict[str, Any] = read_json(self.path)
        return found

    def ranks(self, protocol: str) -> Tensor:
        """Return the rank of every test event."""
        return read_ranks(self.path, protocol)

    def per_event(self, metric: str = "NDCG@10", protocol: str = "full") -> np.ndarray:
        """Return a metric of every test event."""
        values: np.ndarray = per_case(self.ranks(protocol))[metric].numpy()
        return values


def exposure_of(model: Recommender, cases: EvaluationCases, counts: Int[np.ndarray, " V1"]) -> Exposure:
    """Return what a model would show to the users of some held-out events."""
    targets = cases.targets(np.arange(len(cases)))
    return exposure(recommend(model, cases), targets, cases.users, counts)


def membership_of(model: Recommender, histories: Histories) -> dict[str, Any] | None:
    """Return how well a model tells training events from later ones, or ``None`` where no user has both.

    The users are the same ones for all models of a dataset.
    """
    if not ((histories.train_lengths() >= 2) & (histories.valid_end > histories.train_end)).any():
        return None
    return asdict(membership_attack(model, histories, Streams(0).numpy("membership")))


def write_scores(path: Path, model: Recommender, cases: EvaluationCases, about: Mapping[str, Any]) -> None:
    """Score a model under every protocol; write ranks first, so that scores never lack them, then the scores.

    Args:
        path: JSON file of the scores; the ranks lie beside it as safetensors.
        model: a trained model.
        cases: held-out events.
        about: what else the file states.
    """
    scores = {protocol: evaluate(model, cases, protocol=protocol) for protocol in PROTOCOLS}
    write_tensors(
        path.with_suffix(".safetensors"), {protocol: compact_ids(found.ranks) for protocol, found in scores.items()}
    )
    write_json(path, {**about, "metrics": {protocol: found.metrics() for protocol, found in scores.items()}})


def read_ranks(path: Path, protocol: str) -> Tensor:
    """Return the rank of every held-out event, as :func:`write_scores` wrote them beside ``path``."""
    return read_tensors(path.with_suffix(".safetensors"))[protocol].long()


def panels(cells: Sequence[Cell], *, metric: str = "NDCG@10", protocol: str = "full") -> dict[str, Panel]:
    """Return the scores of the finished cells by what they were trained on.

    Args:
        cells: with one item table.
        metric, protocol: which score of every event.
    """
    scores: dict[str, dict[str, dict[int, np.ndarray]]] = {}
    for cell in cells:
        mine = scores.setdefault(cell.data.name, {}).setdefault(cell.model.name, {})
        if cell.done():
            mine[cell.seed] = cell.per_event(metric, protocol)
    return {name: Panel(found) for name, found in scores.items()}
