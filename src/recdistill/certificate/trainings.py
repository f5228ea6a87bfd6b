"""Which trainings a certificate rests on.

Every model of a panel is trained on all data, on the distilled dataset and on its controls, from every seed, by one
recipe. The trainings are cells of a study: what was trained before, for this certificate or for another one of the same
split, is not trained again.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Literal

from recdistill.data.development import Development, development_of, histories_of
from recdistill.data.distilled import DistilledDataset, Manifest
from recdistill.data.prepared import PreparedDataset
from recdistill.data.sequences import EvaluationCases, evaluation_cases
from recdistill.errors import ArtifactError, OptionError, choose, require_at_least
from recdistill.evaluation.metrics import METRIC_NAMES
from recdistill.evaluation.protocols import PROTOCOLS
from recdistill.models import MODELS
from recdistill.progress import SILENT, Progress
from recdistill.study.cells import Cell, ModelSpec, TrainingSet
from recdistill.study.controls import METHODS, Control, draw_control, equal_bytes, equal_rows, teacher_of
from recdistill.study.students import ItemTable
from recdistill.study.zoo import ZOO, zoo_at
from recdistill.training.fit import TrainingRecipe

ALL, DISTILLED = "all", "distilled"
"""Names of all data and of the distilled dataset; controls have their own."""


@dataclass(frozen=True, kw_only=True)
class Trained:
    """Something that every model is trained on.

    Args:
        name: how tables call it.
        kind: what it is.
        control: which control it is; ``None`` otherwise.
        by_seed: the rows for each seed; only a control has others for another seed.
    """

    name: str
    kind: Literal["all", "distilled", "control"]
    control: Control | None = None
    by_seed: Mapping[int, TrainingSet]


@dataclass(frozen=True, kw_only=True)
class Examination:
    """A distilled dataset, the data it was made from, and how models are trained on both.

    Raises:
        OptionError: an option is out of its range, or a model does not fit the item table.
        ArtifactError: the two folders do not belong together, or the split has no events to choose or to judge by.
    """

    distilled: Path
    """Folder of the distilled dataset."""
    prepared: Path
    """Folder of the prepared dataset that it was made from."""
    folder: Path
    """Where finished trainings and controls are kept, for other certificates of the same data too."""
    cache: Path
    """Where teachers are kept."""
    models: tuple[ModelSpec, ...] = ()
    """The panel; when empty, the zoo of the library (:mod:`recdistill.study.zoo`)."""
    seeds: int = 5
    """Trainings of each model on each dataset, at least 1; below 2 nothing can be verified later."""
    items: ItemTable = "random"
    """Item table of the models on rows that ship one."""
    controls: tuple[str, ...] = tuple(METHODS)
    """Which stand beside the dataset."""
    recipe: TrainingRecipe = field(default_factory=TrainingRecipe)
    """How every model is trained."""
    max_seq_len: int | None = None
    """Longest history that models read; that of the teacher when ``None``."""
    metric: str = "NDCG@10"
    """What models are ranked by."""
    protocol: str = "full"
    """Ranking protocol of that metric."""
    student: str | None = None
    """Model whose training ``verify`` repeats; the first of the panel that learns when ``None``."""

    def __post_init__(self) -> None:
        """Check every field, and that everything belongs together."""
        require_at_least(1, seeds=self.seeds, max_seq_len=self.max_seq_len)
        choose("metric", self.metric, dict.fromkeys(METRIC_NAMES))
        choose("protocol", self.protocol, PROTOCOLS)
        for name in self.controls:
            choose("controls", name, METHODS)
        self._check_data()
        self._check_models()

    def _check_data(self) -> None:
        found, wanted = self.data.hash, self.manifest.source.hash
        if found != wanted:
            raise ArtifactError(
                f"is another split ({found[:12]}) than the one that {self.distilled} was made from ({wanted[:12]})",
                fix="give the prepared dataset that it was made from",
                path=self.prepared,
            )
        for part, cases in (("test", self.test), ("validation", evaluation_cases(self.train.histories, "valid"))):
            if len(cases) == 0:
                raise ArtifactError(
                    f"has no {part} events", fix="prepare it with a split that has some", path=self.prepared
                )

    def _check_models(self) -> None:
        names = [spec.name for spec in self.panel]
        twice = next((name for name in names if names.count(name) > 1), None)
        if twice is not None:
            raise OptionError("models", twice, fix="names two models; names must differ")
        if len(names) < 2:
            raise OptionError(
                "models", ", ".join(names), fix="is one model, and one cannot be ranked; give two or more"
            )
        width = self.made.item_factor.shape[1]
        for spec in self.panel:
            settings = spec.settings()
            if self.items != "random" and settings.get("embedding_dim", width) != width:
                told = f"has item vectors of {settings['embedding_dim']} numbers, the item factor {width}"
                raise OptionError("models", spec.name, fix=f"{told}; leave it out, or use items random")
        if self.student is not None:
            choose("student", self.student, {spec.name: spec for spec in self.panel if learns(spec)})

    @cached_property
    def made(self) -> DistilledDataset:
        """The distilled dataset."""
        return DistilledDataset.load(self.distilled)

    @property
    def manifest(self) -> Manifest:
        """How it was made."""
        return self.made.manifest

    @cached_property
    def data(self) -> PreparedDataset:
        """The prepared dataset."""
        return PreparedDataset.open(self.prepared)

    @cached_property
    def train(self) -> Development:
        """The prepared dataset without its test part."""
        return development_of(self.data)

    @cached_property
    def test(self) -> EvaluationCases:
        """The test events."""
        return evaluation_cases(histories_of(self.data), "test")

    @cached_property
    def panel(self) -> tuple[ModelSpec, ...]:
        """The models."""
        if self.models:
            return self.models
        return ZOO if self.items == "random" else zoo_at(self.made.item_factor.shape[1])

    @property
    def length(self) -> int:
        """Longest history that models read."""
        return self.max_seq_len or int(self.manifest.teacher["config"]["max_seq_len"])

    @property
    def stated(self) -> str | None:
        """Model whose training is stated; ``None`` where none learns."""
        return self.student or next((spec.name for spec in self.panel if learns(spec)), None)


def learns(spec: ModelSpec) -> bool:
    """Return whether a model has weights to train."""
    return MODELS[spec.model].trainable


def datasets_of(exam: Examination, progress: Progress = SILENT) -> list[Trained]:
    """Return what models are trained on: all data, the distilled dataset, then controls, whose rows are drawn now.

    The teacher of the distilled dataset labels the controls; where it is not in the cache, it is trained once more.
    """
    seeds = range(exam.seeds)
    whole, made = TrainingSet.open(ALL, exam.prepared), TrainingSet.open(DISTILLED, exam.distilled)
    found = [
        Trained(name=ALL, kind="all", by_seed=dict.fromkeys(seeds, whole)),
        Trained(name=DISTILLED, kind="distilled", by_seed=dict.fromkeys(seeds, made)),
    ]
    controls = controls_of(exam)
    if not controls:
        return found

    def taught(stage: str, done: int, total: int, note: str = "") -> None:
        progress("teacher" if stage == "train" else stage, done, total, note)

    teacher = teacher_of(exam.manifest, exam.train, exam.cache, progress=taught)
    for control in controls:
        drawn = {
            seed: draw_control(control, exam.train, teacher, draw, exam.folder / "controls")
            for seed, draw in _draws(exam, control)
        }
        sets = {seed: TrainingSet.open(control.name, path) for seed, path in drawn.items()}
        found.append(Trained(name=control.name, kind="control", control=control, by_seed=sets))
    return found


def _draws(exam: Examination, control: Control) -> list[tuple[int, int]]:
    """Return the seed from which a control is drawn for each seed of a training; never the dataset's own draw."""
    own = exam.manifest.seed if control.method == exam.manifest.method else exam.seeds
    return [(seed, seed + (seed >= own)) for seed in range(exam.seeds)]


def controls_of(exam: Examination) -> list[Control]:
    """Return the controls: each in the bytes of the distilled dataset, and with as many rows where that is more."""
    found = []
    for method in exam.controls:
        in_bytes, in_rows = (
            equal_bytes(method, exam.made, exam.train),
            equal_rows(method, exam.manifest, exam.train),
        )
        found += [in_bytes, in_rows] if in_rows.num_rows > in_bytes.num_rows else [in_bytes]
    return found


def cells_of(exam: Examination, datasets: Sequence[Trained]) -> list[Cell]:
    """Return the trainings, seed by seed and model by model, so that a study cut short has whole comparisons."""
    return [
        Cell(
            folder=exam.folder,
            prepared=exam.prepared,
            data=dataset.by_seed[seed],
            model=spec,
            items=exam.items if learns(spec) and dataset.kind != "all" else "random",
            seed=seed,
            recipe=exam.recipe,
            max_seq_len=exam.length,
        )
        for seed in range(exam.seeds)
        for spec in exam.panel
        for dataset in datasets
    ]
