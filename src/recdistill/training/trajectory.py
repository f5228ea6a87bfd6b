"""A training run as a record: the weights after every epoch, and which were best.

Distillers start students from it and take the best weights as their teacher. On disk: a folder with
``trajectory.json`` and one safetensors file per epoch.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from recdistill.data.sequences import TrainingData
from recdistill.data.text import Catalogue
from recdistill.models import MODELS
from recdistill.models.base import Recommender
from recdistill.progress import SILENT, Progress
from recdistill.rng import Streams
from recdistill.storage import atomic_folder, read_tensors, sha256, write_json, write_tensors
from recdistill.training.checkpoint import build, check_hash, load_weights, read_header
from recdistill.training.fit import TrainingRecipe, fit

FORMAT = "recdistill-trajectory"
FORMAT_VERSION = 1


@dataclass(frozen=True)
class Trajectory:
    """A recorded training run.

    Args:
        folder: where it lies.
        header: the content of ``trajectory.json``.
        catalogue: the items that its models rank; needed by models that read texts.
    """

    folder: Path
    header: dict[str, Any]
    catalogue: Catalogue | None = None

    @staticmethod
    def open(folder: Path, catalogue: Catalogue | None = None) -> "Trajectory":
        """Return the trajectory in ``folder``.

        Raises:
            ArtifactError: there is none, or it is newer than this version reads.
        """
        what = "a teacher; recdistill distill trains one and keeps it in its cache"
        header = read_header(folder / "trajectory.json", FORMAT, FORMAT_VERSION, what)
        return Trajectory(folder, header, catalogue)

    @property
    def num_epochs(self) -> int:
        """Number of recorded epochs; epoch 0 is the start and comes on top."""
        return int(self.header["epochs"])

    @property
    def best_epoch(self) -> int:
        """The epoch with the best validation score."""
        return int(self.header["best_epoch"])

    @property
    def seconds(self) -> float:
        """Wall time of the training run."""
        return float(self.header["seconds"])

    def weights(self, epoch: int) -> dict[str, Tensor]:
        """Return the weights after ``epoch``, 0 to ``num_epochs``."""
        path = self.folder / epoch_file(epoch)
        check_hash(path, self.header)
        return read_tensors(path)

    def model(self, epoch: int | None = None) -> Recommender:
        """Return the model after ``epoch``; the best one, when ``None``."""
        model = build(self.header["model"], self.header["config"])
        load_weights(model, self.weights(self.best_epoch if epoch is None else epoch), self.folder)
        return model if self.catalogue is None else model.attach(self.catalogue)

    def texts(self) -> list[str] | None:
        """Return what the model reads of each item; ``None`` where it knows items by number."""
        if self.catalogue is None or not MODELS[self.header["model"]].reads_text:
            return None
        config = self.header["config"]
        return self.catalogue.texts(config["template"], config["missing_text"])

    def best(self) -> Recommender:
        """Return the best model for scoring and reading: every item vector stands in its table."""
        return self.model().fixed()


def epoch_file(epoch: int) -> str:
    """Return the file name of one epoch's weights."""
    return f"epoch-{epoch:04d}.safetensors"


def record_trajectory(
    model: Recommender,
    data: TrainingData,
    recipe: TrainingRecipe,
    rng: Streams,
    folder: Path,
    *,
    validate: Callable[[Recommender], float],
    about: dict[str, Any],
    catalogue: Catalogue | None = None,
    progress: Progress = SILENT,
) -> Trajectory:
    """Train ``model`` and write its trajectory.

    An unfinished run leaves ``<folder>.partial``, from which the same call continues to the same result.

    Args:
        model: trained in place; ends with its best weights.
        data: training rows.
        recipe: how.
        rng: streams of the training.
        folder: where the finished trajectory goes.
        validate: the score that decides which epoch is best.
        about: JSON-serialisable facts that travel with it.
        catalogue: what the model ranks, for those who open the trajectory.
        progress: told after every epoch.
    """
    working = folder.parent / f"{folder.name}.partial"
    working.mkdir(parents=True, exist_ok=True)

    def keep(epoch: int, current: Recommender, score: float | None) -> None:
        write_tensors(working / epoch_file(epoch), dict(current.state_dict()))

    result = fit(model, data, recipe, rng, validate=validate, record=keep, state=working / "state", progress=progress)
    with atomic_folder(folder, replace=True) as temporary:
        files = {}
        for epoch in range(result.epochs + 1):
            (working / epoch_file(epoch)).rename(temporary / epoch_file(epoch))
            files[epoch_file(epoch)] = sha256(temporary / epoch_file(epoch))
        header = {
            "format": FORMAT,
            "format_version": FORMAT_VERSION,
            "model": model.name,
            "config": model.config,
            "recipe": recipe.as_dict(),
            "seed": rng.seed,
            "epochs": result.epochs,
            "best_epoch": result.best_epoch,
            "seconds": result.seconds,
            "losses": result.losses,
            "scores": result.scores,
            "about": about,
            "files": files,
        }
        write_json(temporary / "trajectory.json", header)
    for left in working.iterdir():
        left.unlink()
    working.rmdir()
    return Trajectory.open(folder, catalogue)
