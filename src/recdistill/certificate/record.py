"""The certificate of a distilled dataset: ``certificate.json`` in its folder.

It states, for every model of a panel, the accuracy after training on all data, on the distilled dataset and on
controls; how alike the four rank the models; and what it cost. It names the content that it is about, and carries a
checksum of itself, so that damage and careless edits are seen; a careful forgery is seen when the stated student is
trained again (:mod:`recdistill.certificate.verify`).

All metrics are fractions. An interval is of 95 %; what it is drawn over stands where it is made.
"""

from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from recdistill.data.distilled import Source
from recdistill.errors import ArtifactError
from recdistill.storage import read_record, sha256_of, write_json

FILE = "certificate.json"
FORMAT_VERSION = 1
GROUPS = ("all", "unused")
"""Groups of models: all, and those that the method did not hold as teacher or student while it learnt."""


class _Record(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Span(_Record):
    """A value with its 95 % interval."""

    value: float
    low: float
    high: float


class Subject(_Record):
    """The distilled dataset that the certificate is about."""

    content: str
    """SHA-256 of its ``data.safetensors``."""
    method: str
    num_rows: int
    length: int
    seed: int
    bytes: int
    """Of the folder without the certificate."""
    item_factor_bytes: int
    """Of these, the teacher's item table."""
    source: Source


class Setting(_Record):
    """How everything was trained and scored."""

    metric: str
    """Such as ``NDCG@10``; what every figure is of that names no other."""
    protocol: str
    """``full`` or ``uni100``."""
    events: int
    """Test events."""
    items: str
    """Item table of students of rows that ship one: ``random``, ``given`` or ``frozen``."""
    seeds: tuple[int, ...]
    """Of weights, order and dropout; controls draw other rows for each."""
    max_seq_len: int
    recipe: dict[str, Any]
    """Fields of the training recipe, the same for everything."""
    threads: int
    """Of torch, in each training."""


class Judge(_Record):
    """A model of the panel."""

    name: str
    model: str
    """Its family: name in ``MODELS``."""
    config: dict[str, Any]
    used: bool
    """Whether the method held it, as teacher or as student, while it learnt."""


class Score(_Record):
    """A model trained on one dataset, over the seeds that are there."""

    model: str
    """Name of the judge."""
    seeds: tuple[int, ...]
    values: tuple[float, ...]
    """The metric, one per seed."""
    mean: Span
    """Over seeds and users."""
    ratio: Span | None
    """To the same model on all data; ``None`` for all data themselves."""
    metrics: dict[str, dict[str, float]]
    """Every metric by protocol, mean over seeds."""
    parts: dict[str, float | None]
    """The metric for events whose item is of the ``head``, ``torso`` or ``tail``; ``None`` without such events."""
    popularity_shift: float
    """Log-popularity of what is recommended minus that of what users chose."""
    coverage: float
    """Part of the catalogue that is recommended to anyone."""
    gini: float
    """Inequality of how often items are recommended."""
    membership: Span | None
    """AUC of telling training events from later ones, with the interval of the first seed; ``None`` where no user has
    both."""
    seconds: float
    """Of training, mean over seeds."""
    peak_mb: float
    """Largest memory of the process."""
    steps: float
    """Optimiser steps, mean over seeds."""
    curve: tuple[float, ...]
    """Validation NDCG@10 after each epoch of the first seed."""
    curve_steps: int
    """Optimiser steps of that training."""


class Fidelity(_Record):
    """How a dataset ranks a group of models, beside all data."""

    models: int
    seeds: int
    tau: Span | None
    """Kendall's tau-b; ``None`` where all models of a side tie."""
    spearman: float | None
    pearson: float | None
    top_1: bool
    regret: Span
    """Part of the best score that is lost by shipping the model that wins here."""
    pairwise_accuracy: float | None
    """Of the pairs of models that all data tell apart; ``None`` where they tell none apart."""


class Ceiling(_Record):
    """How well all data agree with themselves on a group of models."""

    seeds: int
    tau: float | None
    """Mean tau between disjoint halves of the seeds."""
    pairs_apart: int
    pairs: int


class Gain(_Record):
    """The distilled dataset minus another one, in points of the metric, averaged over models."""

    difference: Span
    p: float
    p_holm: float
    """Corrected for the number of comparisons in the certificate."""
    seeds: int


class Near(_Record):
    """How near rows are to single real users; see :func:`~recdistill.evaluation.privacy.nearness`."""

    median: float
    minimum: float
    copied: float
    """Part of the rows that stand in a real history as they are."""


class Dataset(_Record):
    """Something that the models were trained on."""

    name: str
    kind: Literal["all", "distilled", "control"]
    rule: str
    """For a control, what makes it comparable: ``equal bytes`` or ``equal rows``; else empty."""
    method: str
    num_rows: int
    length: int
    bytes: int
    """On disk; of all data, the training log as Parquet."""
    scores: tuple[Score, ...]
    mean_ratio: dict[str, Span | None]
    """By group: mean over its models of their ratios."""
    fidelity: dict[str, Fidelity | None]
    """By group; ``None`` for all data, and where no seed is complete."""
    gain: Gain | None
    """Of the distilled dataset over this one; ``None`` for itself."""
    items_held: dict[str, float | None]
    """Part of the head, torso and tail items that the rows hold."""
    near: Near | None
    """Of the rows of the first seed; ``None`` without rows, and for all data."""

    def score(self, model: str) -> Score | None:
        """Return the score of a model, or ``None`` where it is missing."""
        return next((score for score in self.scores if score.model == model), None)


class Cost(_Record):
    """Seconds on the machine of the certificate, one process at a time."""

    teacher: float
    peers: float
    """Models of other families that the method trained for itself."""
    distill: float
    full: float
    """Training a model on all data, mean over models."""
    distilled: float
    """Training a model on the distilled dataset."""
    break_even: int | None
    """Trainings after which teacher, peers and distillation have paid; ``None`` where training is not quicker."""


class Student(_Record):
    """The training that anyone can repeat: its score must lie in ``interval``."""

    judge: str
    """Name of the model."""
    seeds: tuple[int, ...]
    values: tuple[float, ...]
    interval: Span
    """95 % for one more training on the same rows: mean over seeds, and a t-interval for a single new value."""


class Certificate(_Record):
    """What ``certificate.json`` states."""

    format: Literal["recdistill-certificate"] = "recdistill-certificate"
    format_version: int = Field(default=FORMAT_VERSION, ge=1)
    subject: Subject
    setting: Setting
    judges: tuple[Judge, ...]
    datasets: tuple[Dataset, ...]
    """All data first, the distilled dataset second, then controls."""
    ceiling: dict[str, Ceiling | None]
    """By group; ``None`` with fewer than two seeds."""
    parts: dict[str, dict[str, int]]
    """Of the catalogue: ``items`` and ``interactions`` of head, torso and tail."""
    near_users: Near | None
    """How near real users are to each other: what nearness is to be compared with."""
    cost: Cost
    student: Student | None
    """``None`` with fewer than two seeds: one value has no interval."""
    predicted: dict[str, Any] | None
    """What ``recdistill plan`` foretold and what came, where it was asked."""
    missing: tuple[str, ...]
    """Trainings that are not finished; every figure is of what is there."""
    created: str
    machine: dict[str, Any]
    versions: dict[str, str]
    checksum: str = ""
    """SHA-256 of everything else."""

    @property
    def full(self) -> Dataset:
        """All data."""
        return self.datasets[0]

    @property
    def distilled(self) -> Dataset:
        """The distilled dataset."""
        return self.datasets[1]

    @property
    def controls(self) -> tuple[Dataset, ...]:
        """The controls."""
        return self.datasets[2:]

    def digest(self) -> str:
        """Return the SHA-256 of everything but the checksum."""
        return sha256_of(self.model_dump(mode="json", exclude={"checksum"}))

    def sealed(self) -> "Certificate":
        """Return the certificate with its checksum."""
        return self.model_copy(update={"checksum": self.digest()})

    def save(self, folder: Path) -> Path:
        """Write the sealed certificate into the folder of a distilled dataset in one step; return its path."""
        path = folder / FILE
        write_json(path, self.sealed().model_dump(mode="json"))
        return path

    @staticmethod
    def load(folder: Path) -> "Certificate":
        """Return the certificate in the folder of a distilled dataset.

        Its checksum is not compared; see :func:`~recdistill.certificate.verify.verify`.

        Raises:
            ArtifactError: there is none, it is not one of ours, or it is newer than this version reads.
        """
        path = folder / FILE
        if not path.exists():
            raise ArtifactError(
                f"has no {FILE}", fix="write one with: recdistill certify DISTILLED PREPARED", path=folder
            )
        return read_record(path, Certificate, "certificate", "write one with: recdistill certify")
