"""Where results lie, and what everything there begins with: prepared data, and models trained on all of them.

    runs/<dataset>/prepared
    runs/<dataset>/L<length>/seed-<k>/teachers/         trajectories, named by content; peer-<family>.json
    runs/<dataset>/L<length>/seed-<k>/artifacts/<name>  distilled datasets, and <name>.json with what they cost
    runs/<dataset>/L<length>/seed-<k>/cells/<name>.json scores, and <name>.safetensors with the rank of every user

A length has its own teachers and full-data rows, because histories are cut to the length of the summary.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from recdistill.data.development import Development, development_of, histories_of
from recdistill.data.prepared import PreparedDataset, prepare
from recdistill.data.sequences import EvaluationCases, evaluation_cases
from recdistill.data.text import Catalogue
from recdistill.distill.base import RunContext
from recdistill.distill.peers import FAMILIES, train_peers
from recdistill.distill.run import peak_megabytes
from recdistill.distill.teacher import TeacherSpec, teach
from recdistill.progress import Progress
from recdistill.rng import Streams
from recdistill.storage import read_json, write_json
from recdistill.study.grid import Job
from recdistill.training.fit import TrainingRecipe
from recdistill.training.trajectory import Trajectory
from recipes.datasets import Dataset
from recipes.record import as_json, data_folder, dataset_facts


def agrees(path: Path, settings: dict[str, Any]) -> bool:
    """Return whether the file at ``path`` was made with these settings; options that came later do not count."""
    if not path.exists():
        return False
    return _same(read_json(path)["settings"], as_json(settings))


def _same(stored: Any, wanted: Any) -> bool:
    """Return whether two values are equal where both have something to say, however deep."""
    if isinstance(stored, dict) and isinstance(wanted, dict):
        return all(_same(stored[name], value) for name, value in wanted.items() if name in stored)
    return bool(stored == wanted)


@dataclass(frozen=True)
class Place:
    """A dataset, a length and a seed: all that a teacher belongs to."""

    dataset: Dataset
    length: int
    seed: int

    @property
    def key(self) -> str:
        """Path below the runs."""
        return f"{self.dataset.name}/L{self.length}/seed-{self.seed}"

    @property
    def folder(self) -> Path:
        """Where everything of this place lies."""
        return self.dataset.runs / self.key

    @property
    def teachers(self) -> Path:
        """Cache of models trained on all data."""
        return self.folder / "teachers"

    def prepared(self) -> PreparedDataset:
        """Return the prepared data."""
        return PreparedDataset.open(self.dataset.folder / "prepared")

    def train(self) -> Development:
        """Return what distillers may see."""
        return development_of(self.prepared())

    def test(self) -> EvaluationCases:
        """Return the events that are scored once, at the end."""
        return evaluation_cases(histories_of(self.prepared()), "test")

    def valid(self, train: Development) -> EvaluationCases:
        """Return the events that stop a student's training."""
        cases = evaluation_cases(train.histories, "valid")
        most = self.dataset.valid_cases
        return cases if most is None else cases.some(most, Streams(0).numpy("valid cases"))

    @property
    def texts(self) -> Path:
        """Where what is read of the items' texts is kept, for all seeds."""
        return self.dataset.folder / "texts"

    def catalogue(self, train: Development) -> Catalogue:
        """Return the items with their texts."""
        return Catalogue(train.items, self.texts)

    def teacher_spec(self) -> TeacherSpec:
        """Return the teacher."""
        dataset = self.dataset
        return TeacherSpec(
            model=dataset.teacher_model,
            config=dataset.config(dataset.teacher_model),
            max_seq_len=self.length,
            recipe=dataset.teacher,
        )

    def teacher(self, train: Development, progress: Progress) -> Trajectory:
        """Return the trained teacher, from the cache where it is there."""
        return teach(train, self.teacher_spec(), self.seed, self.teachers, texts=self.texts, progress=progress)


@dataclass(frozen=True)
class Prepare:
    """Prepared data."""

    dataset: Dataset

    @property
    def key(self) -> str:
        """Path below the runs."""
        return f"{self.dataset.name}/prepared"

    @property
    def path(self) -> Path:
        """How the data were prepared; beside them, because their folder is written in one step."""
        return self.dataset.folder / "prepared.json"

    @property
    def needs(self) -> tuple[Job, ...]:
        """Nothing."""
        return ()

    def settings(self) -> dict[str, Any]:
        """Return how the data are prepared."""
        return self.dataset.spec.as_dict()

    def done(self) -> bool:
        """Return whether the data are there and are of these settings."""
        return agrees(self.path, self.settings())

    def run(self, progress: Progress) -> None:
        """Read, filter, split and write the data."""
        folder = self.dataset.folder / "prepared"
        made = prepare(data_folder(self.dataset.source), folder, self.dataset.spec, progress=progress)
        write_json(self.path, as_json({"data": dataset_facts(made), "settings": self.settings()}))


@dataclass(frozen=True)
class PeerModel:
    """A model of another family trained on all data, which methods that hold students of several families share."""

    place: Place
    family: str
    """Key of ``FAMILIES``."""
    epochs: int
    """Most epochs of its training."""

    @property
    def key(self) -> str:
        """Path below the runs."""
        return f"{self.place.key}/peer-{self.family}"

    @property
    def path(self) -> Path:
        """What its training cost."""
        return self.place.teachers / f"peer-{self.family}.json"

    @property
    def needs(self) -> tuple[Job, ...]:
        """The data."""
        return (Prepare(self.place.dataset),)

    def settings(self) -> dict[str, Any]:
        """Return model and training."""
        family = FAMILIES[self.family]
        return {"model": family.model, "config": dict(family.config), "training": self.recipe.as_dict()}

    @property
    def recipe(self) -> TrainingRecipe:
        """How it is trained: as the method itself would."""
        return TrainingRecipe(epochs=self.epochs)

    def done(self) -> bool:
        """Return whether it is there and is of these settings."""
        return agrees(self.path, self.settings())

    def run(self, progress: Progress) -> None:
        """Train it."""
        start, place = peak_megabytes(), self.place
        cache, context = place.teachers, RunContext(progress=progress)
        peers = train_peers(place.train(), (self.family,), place.length, self.recipe, place.seed, cache, context)
        cost = {"seconds": peers[0].trajectory.seconds, "start_mb": start, "peak_mb": peak_megabytes()}
        write_json(self.path, as_json(cost | {"settings": self.settings()}))
