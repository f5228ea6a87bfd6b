"""Models of clicks on disk: a folder that reads a log by itself. Nothing is pickled.

model.json           the model and its arguments; hashes of the other files
model.safetensors    its weights, the tables among them
fields.json, vocabulary.parquet    which values have which ids
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from recdistill.data.clicks.blocks import ClickLog
from recdistill.data.clicks.layouts import open_log
from recdistill.data.clicks.vocabulary import ClickVocabulary
from recdistill.errors import ArtifactError, RecdistillError, choose
from recdistill.models.clicks import CLICK_MODELS
from recdistill.models.clicks.base import ClickModel, FieldTables
from recdistill.storage import atomic_folder, read_tensors, sha256, write_json, write_tensors
from recdistill.training.checkpoint import check_hash, read_header

FORMAT = "recdistill-click-model"
FORMAT_VERSION = 1


@dataclass(frozen=True)
class SavedClickModel:
    """A model of clicks, and how it reads a log.

    Args:
        model: the model.
        vocabulary: ids of values, the spec among it.
        layout: how its log is published, a key of ``LAYOUTS``; ``None`` for tables with the spec's columns.
        about: JSON-serialisable facts that travel with it.
    """

    model: ClickModel
    vocabulary: ClickVocabulary
    layout: str | None
    about: Mapping[str, Any]

    def log(self, path: Path) -> ClickLog:
        """Return a log in a file or folder.

        Raises:
            DataError: it cannot be read, or a column is missing.
        """
        return open_log(path, self.vocabulary.spec, self.layout)


def save_click_model(saved: SavedClickModel, folder: Path, *, replace: bool = False) -> None:
    """Write a model folder in one step.

    Args:
        saved: the model.
        folder: where to; must not exist, unless ``replace``.
        replace: take the place of an existing folder.
    """
    model = saved.model
    with atomic_folder(folder, replace=replace) as temporary:
        saved.vocabulary.save(temporary)
        write_tensors(temporary / "model.safetensors", dict(model.state_dict()))
        files = {path.name: sha256(path) for path in sorted(temporary.iterdir())}
        head = {"format": FORMAT, "format_version": FORMAT_VERSION, "model": model.name, "config": model.config}
        head |= {"table_dim": model.tables.rows.shape[1], "layout": saved.layout, "about": dict(saved.about)}
        write_json(temporary / "model.json", head | {"files": files})


def load_click_model(folder: Path) -> SavedClickModel:
    """Return a saved model.

    Raises:
        ArtifactError: the folder is no model of clicks, is damaged, or is newer than this version reads.
    """
    what = "a model of clicks; make one with: recdistill train"
    header = read_header(folder / "model.json", FORMAT, FORMAT_VERSION, what)
    for name in ("model.safetensors", "fields.json", "vocabulary.parquet"):
        check_hash(folder / name, header)
    try:
        config, nothing = dict(header["config"]), torch.Generator().manual_seed(0)
        model = choose("model", header["model"], CLICK_MODELS)(**config, generator=nothing)
        if header["table_dim"] != config["embedding_dim"]:
            tables = FieldTables(config["num_ids"], config["widths"], header["table_dim"], nothing)
            model.take_tables(tables, nothing)
        model.load_state_dict(read_tensors(folder / "model.safetensors"))
        found = SavedClickModel(model, ClickVocabulary.load(folder), header["layout"], header["about"])
    except (KeyError, TypeError, RuntimeError, RecdistillError) as error:
        path = folder / "model.json"
        raise ArtifactError(f"does not describe a model ({error})", fix="train it again", path=path) from None
    return found
