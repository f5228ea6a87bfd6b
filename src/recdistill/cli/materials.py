"""What a model is trained on: the rows of a prepared or of a distilled dataset, and what comes with them."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, get_args

from torch import Tensor

from recdistill.cli.folders import cache_folder, require_kind
from recdistill.data.development import development_of, histories_of
from recdistill.data.distilled import DistilledDataset, is_distilled
from recdistill.data.prepared import PreparedDataset
from recdistill.data.sequences import EvaluationCases, TrainingData, evaluation_cases, training_rows
from recdistill.data.text import Catalogue
from recdistill.errors import ArtifactError, OptionError, choose
from recdistill.models import MODELS
from recdistill.models.text import OF_THE_ENCODER
from recdistill.study.students import ItemTable

EPOCHS_WITHOUT_VALIDATION = 30


@dataclass(frozen=True, kw_only=True)
class Material:
    """Training data, and what the command line takes from it."""

    rows: TrainingData
    num_items: int
    max_seq_len: int
    valid: EvaluationCases | None
    name: str
    """Of the data that was prepared."""
    hash: str
    """Of its split."""
    content: str
    """Names the rows themselves, so that no run is continued on others."""
    made_by: str = "full"
    """``full``, or the method that distilled."""
    item_factor: Tensor | None = None
    teacher: Mapping[str, Any] = field(default_factory=dict)
    """Arguments of the teacher's model."""
    catalogue: Catalogue | None = None
    """The items, with their texts or attributes; ``None`` where distilled rows carry none."""

    def config(self, model: str, asked: dict[str, Any]) -> dict[str, Any]:
        """Return the arguments of ``model``: what was asked, and from the teacher what it takes too.

        So the given item table fits. Another encoder than the teacher's brings its own settings, or the defaults.
        """
        shape = self._shape(model)
        if asked.get("encoder") not in (None, shape.get("encoder")):
            shape = {name: value for name, value in shape.items() if name not in OF_THE_ENCODER}
        return shape | asked

    def _shape(self, model: str) -> dict[str, Any]:
        shape = {name: value for name, value in self.teacher.items() if name in MODELS[model].options()}
        if "body_options" in self.teacher and not MODELS[model].reads_text:  # a teacher that reads texts
            shape = dict(self.teacher["body_options"]) if self.teacher["body"] == model else {}
            if self.item_factor is not None:
                shape["embedding_dim"] = self.item_factor.shape[1]
        return shape

    def require_texts(self, model: str) -> None:
        """Raise when a model reads texts and there are none.

        Raises:
            OptionError: naming the model.
        """
        if MODELS[model].reads_text and self.catalogue is None:
            raise OptionError(
                "--model",
                model,
                fix="reads texts of items, and this distilled dataset has none, for its teacher read none; distill "
                "with --teacher-model text",
            )

    def recipe_defaults(self) -> dict[str, Any]:
        """Return what differs from the recipe's own defaults: nothing stops a training without validation events."""
        return {} if self.valid is not None else {"epochs": EPOCHS_WITHOUT_VALIDATION}

    def about(self) -> dict[str, Any]:
        """Return how a model names what it was trained on."""
        return {"data": self.name, "data_hash": self.hash, "trained_on": self.made_by, "rows_hash": self.content}


def material_of(data: Path, valid: Path | None, *, max_seq_len: int | None, rows: str) -> Material:
    """Return what ``data`` gives to train on.

    Args:
        data: folder of a prepared or of a distilled dataset.
        valid: prepared dataset with the validation events.
        max_seq_len: longest history; that of the teacher, or 50, when ``None``.
        rows: how real histories are cut.
    """
    require_kind("DATA", data, "distilled dataset", "prepared dataset")
    if is_distilled(data):
        return distilled_material(DistilledDataset.load(data), valid, max_seq_len)
    return prepared_material(PreparedDataset.open(data), valid, max_seq_len or 50, rows)


def distilled_material(dataset: DistilledDataset, valid: Path | None, max_seq_len: int | None) -> Material:
    """Return the rows of a distilled dataset, the item factor and the shape of the teacher."""
    manifest = dataset.manifest
    source, teacher = manifest.source, manifest.teacher["config"]
    return Material(
        rows=dataset.rows,
        num_items=source.items,
        max_seq_len=max_seq_len or int(teacher["max_seq_len"]),
        valid=None if valid is None else validation_of(valid, source.hash),
        name=source.name,
        hash=source.hash,
        content=manifest.files["data.safetensors"],
        made_by=manifest.method,
        item_factor=dataset.item_factor,
        teacher=teacher,
        catalogue=dataset.catalogue(cache_folder(None)),
    )


def prepared_material(dataset: PreparedDataset, valid: Path | None, max_seq_len: int, rows: str) -> Material:
    """Return the training rows of a prepared dataset, and its own validation events."""
    histories = development_of(dataset).histories
    return Material(
        rows=training_rows(histories, max_seq_len, rows),
        num_items=dataset.num_items,
        max_seq_len=max_seq_len,
        valid=some(evaluation_cases(histories, "valid")) if valid is None else validation_of(valid, dataset.hash),
        name=dataset.name,
        hash=dataset.hash,
        content=dataset.hash,
        catalogue=Catalogue(dataset.items(), cache_folder(None)),
    )


def refuse_items(items: str, model: str, material: Material) -> None:
    """Raise when an item table makes no sense for a model and its data.

    Raises:
        OptionError: it is not known, the data or the model has none, or nothing would be trained.
    """
    choose("--items", items, dict.fromkeys(get_args(ItemTable)))
    if items != "random" and material.item_factor is None:
        raise OptionError("--items", items, fix="needs distilled data, which ships an item factor; use random")
    if items != "random" and not MODELS[model].trainable:
        raise OptionError("--items", items, fix=f"has no use for the model {model}, which counts; use random")
    if items == "random" and MODELS[model].trainable and len(material.rows) == 0:
        raise OptionError(
            "--items",
            items,
            fix=f"leaves nothing to learn from: {material.made_by} ships no rows; use given, or --model popularity",
        )


def validation_of(folder: Path, data_hash: str) -> EvaluationCases | None:
    """Return the validation events of a prepared dataset, or ``None`` where its split has none.

    Raises:
        ArtifactError: it is not the one that the training data was made from.
    """
    require_kind("--valid", folder, "prepared dataset")
    prepared = PreparedDataset.open(folder)
    require_same_data(folder, prepared.hash, data_hash)
    return some(evaluation_cases(histories_of(prepared), "valid"))


def some(cases: EvaluationCases) -> EvaluationCases | None:
    """Return the events, or ``None`` where there are none."""
    return cases if len(cases) else None


def require_same_data(folder: Path, found: str, wanted: str | None) -> None:
    """Raise when the split of a prepared dataset is not the one that is wanted.

    Raises:
        ArtifactError: it is another, or none is known.
    """
    if found != wanted:
        told = f"(split {found[:12]}, not {(wanted or 'unknown')[:12]})"
        raise ArtifactError(
            f"is not the prepared dataset that the model's data was made from {told}",
            fix="give that one; item numbers would not match",
            path=folder,
        )
