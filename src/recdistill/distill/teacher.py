"""The teacher of a distillation: trained once, cached by content."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from recdistill.data.development import Development
from recdistill.data.sequences import evaluation_cases, training_rows
from recdistill.data.text import Catalogue
from recdistill.errors import OptionError, choose
from recdistill.evaluation.metrics import METRIC_NAMES
from recdistill.evaluation.protocols import evaluate
from recdistill.models import MODELS
from recdistill.models.base import Recommender
from recdistill.progress import SILENT, Progress
from recdistill.rng import Streams
from recdistill.storage import sha256_of
from recdistill.training.fit import TrainingRecipe
from recdistill.training.trajectory import Trajectory, record_trajectory


@dataclass(frozen=True, kw_only=True)
class TeacherSpec:
    """Which teacher, and how it is trained."""

    model: str = "sasrec"
    """Name in ``MODELS``."""
    config: Mapping[str, Any] = field(default_factory=dict)
    """Keyword arguments of the model; its defaults for the rest."""
    max_seq_len: int = 50
    """Longest history that the teacher reads, in items."""
    recipe: TrainingRecipe = field(default_factory=TrainingRecipe)
    """How it is trained."""
    monitor: str = "NDCG@10"
    """Metric on the validation part, in full ranking, that decides which epoch is best."""

    def as_dict(self) -> dict[str, Any]:
        """Return the fields for JSON and for hashes."""
        return asdict(self) | {"recipe": self.recipe.as_dict()}


def teach(
    train: Development,
    spec: TeacherSpec,
    seed: int,
    cache: Path,
    *,
    texts: Path | None = None,
    progress: Progress = SILENT,
) -> Trajectory:
    """Return the trajectory of the teacher, from ``cache`` where the same one was trained before.

    The name in the cache is a hash of the data's split, the model, the recipe and the seed. A run that was interrupted
    is continued. What a text model reads of the items is kept in ``texts``, by default in ``cache``, under a name of
    its own: teachers with different seeds share it.

    Raises:
        OptionError: the model is not known, or does not take an argument in ``config``.
        NumericalError: training diverged.
    """
    choose("monitor", spec.monitor, dict.fromkeys(METRIC_NAMES))
    rng = Streams(seed).child("teacher")
    model = make_model(spec.model, train.num_items, spec.max_seq_len, spec.config, rng)
    about, folder = about_data(train, spec), _folder(train, spec, model, seed, cache)
    catalogue = Catalogue(train.items, texts or cache)
    if (folder / "trajectory.json").exists():
        return Trajectory.open(folder, catalogue)
    if not model.trainable:
        raise OptionError("--teacher-model", spec.model, fix="has nothing to train; choose a trainable model")
    cases = evaluation_cases(train.histories, "valid")
    if len(cases) == 0:
        raise OptionError("validation part", 0, fix="events: a teacher needs some; prepare with another --split")

    def validate(current: Recommender) -> float:
        return evaluate(current, cases).metrics()[spec.monitor]

    rows = training_rows(train.histories, spec.max_seq_len, spec.recipe.rows)
    return record_trajectory(
        model.attach(catalogue),
        rows,
        spec.recipe,
        rng,
        folder,
        validate=validate,
        about=about,
        catalogue=catalogue,
        progress=progress,
    )


def about_data(train: Development, spec: TeacherSpec) -> dict[str, Any]:
    """Return what a trajectory says about the data behind it."""
    return {"data": train.name, "hash": train.hash, "monitor": spec.monitor}


def teacher_folder(train: Development, spec: TeacherSpec, seed: int, cache: Path) -> Path:
    """Return where :func:`teach` keeps a teacher; it need not be there.

    Raises:
        OptionError: the model is not known, or does not take an argument in ``config``.
    """
    model = make_model(spec.model, train.num_items, spec.max_seq_len, spec.config, Streams(seed).child("teacher"))
    return _folder(train, spec, model, seed, cache)


def _folder(train: Development, spec: TeacherSpec, model: Recommender, seed: int, cache: Path) -> Path:
    parts = (about_data(train, spec), model.name, model.config, spec.recipe.as_dict(), seed)
    return cache / f"teacher-{sha256_of(*parts)[:16]}"


def make_model(
    name: str,
    num_items: int,
    max_seq_len: int,
    config: Mapping[str, Any],
    rng: Streams,
    catalogue: Catalogue | None = None,
) -> Recommender:
    """Return a new model with weights drawn from the stream ``init``.

    Args:
        name: in ``MODELS``.
        num_items, max_seq_len, config: arguments of the model.
        rng: streams of its training.
        catalogue: the items, for models that read their texts.

    Raises:
        OptionError: the model is not known, or does not take an argument in ``config``.
    """
    model_class = choose("--model", name, MODELS)
    known = model_class.options()
    for option in config:
        choose(f"argument of {name}", option, known)
    model = model_class(num_items, max_seq_len, **config, generator=rng.torch("init"))
    return model if catalogue is None else model.attach(catalogue)
