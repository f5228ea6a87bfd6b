"""The jobs behind results of clicks: memories, chosen rows, and models trained on them, each once per seed."""

import io
import time
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache, cached_property
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import torch

from recdistill.data.clicks.block import ClickBlock
from recdistill.data.clicks.blocks import ClickBlocks, ClickLog
from recdistill.data.clicks.layouts import LAYOUTS
from recdistill.data.clicks.vocabulary import ClickVocabulary
from recdistill.distill.base import RunContext
from recdistill.distill.clicks.export import exported, save_rows
from recdistill.distill.clicks.groups import IdGroups
from recdistill.distill.clicks.stream import ClickStream, Version, is_memory
from recdistill.distill.diet import DIET
from recdistill.models.clicks.base import ClickModel
from recdistill.progress import Progress
from recdistill.rng import Streams
from recdistill.storage import atomic_folder, read_json, read_tensors, write_json, write_tensors
from recdistill.study.grid import Job
from recipes.places import agrees
from recipes.record import RUNS, as_json, data_folder

MODELS: dict[str, tuple[str, Mapping[str, Any]]] = {
    "lr": ("lr", {}),
    "fm": ("fm", {}),
    "fm-4": ("fm", {"embedding_dim": 4}),
    "deepfm": ("deepfm", {}),
    "deepfm-4": ("deepfm", {"embedding_dim": 4, "hidden_units": (32, 16)}),
    "dcnv2": ("dcnv2", {}),
    "autoint": ("autoint", {}),
    "xdeepfm": ("xdeepfm", {}),
    "finalmlp": ("finalmlp", {}),
    "wukong": ("wukong", {}),
}
"""Candidates: architecture, and arguments that differ from the defaults. Those of width 4 read given tables through an
adapter."""
GROUPS = 16
"""Ids that a field keeps in an export."""


@dataclass(frozen=True)
class ClickDataset:
    """A log of clicks in blocks, the last of which is the test.

    Args:
        name: of its results.
        source: folder below the datasets.
        layout: key of ``LAYOUTS``.
        blocks: equal counts of rows.
        runs: where everything computed lies.
    """

    name: str
    source: str
    layout: str
    blocks: int = 10
    runs: Path = field(default=RUNS, compare=False)

    @property
    def training_blocks(self) -> int:
        """Blocks before the test."""
        return self.blocks - 1

    def opened(self) -> ClickBlocks:
        """Return the log in blocks."""
        return ClickBlocks.by_count(LAYOUTS[self.layout].open(data_folder(self.source)), self.blocks)

    def published(self) -> pl.DataFrame:
        """Return the features of the training part as they were published, without label and time."""
        log = self.opened()
        return pl.concat([log.read(index).select(log.log.spec.names) for index in range(self.training_blocks)])


KUAIRAND = ClickDataset("kuairand", "kuairand-pure-window", "kuairand")
LABEL = "label"
"""Column of a soft label in rows that are counted in bytes."""


@dataclass(frozen=True)
class ClickJob(ABC):
    """A job of one dataset and seed. Base of those below."""

    dataset: ClickDataset
    seed: int

    @property
    @abstractmethod
    def name(self) -> str:
        """What all seeds have in common."""

    @property
    def key(self) -> str:
        """Path below the runs."""
        return f"clicks/{self.dataset.name}/seed-{self.seed}/{self.name}"

    @property
    def path(self) -> Path:
        """The result, or what it cost."""
        return self.dataset.runs / f"{self.key}.json"

    @property
    def folder(self) -> Path:
        """Files beside the result."""
        return self.dataset.runs / self.key

    @property
    def needs(self) -> tuple[Job, ...]:
        """Jobs that must be done before."""
        return ()

    @abstractmethod
    def settings(self) -> dict[str, Any]:
        """Return what decides the result."""

    @abstractmethod
    def run(self, progress: Progress) -> None:
        """Make the result."""

    def done(self) -> bool:
        """Return whether the result is there and of these settings."""
        return agrees(self.path, self.settings())

    def told(self) -> dict[str, Any]:
        """Return the result."""
        value: dict[str, Any] = read_json(self.path)
        return value

    def write(self, value: dict[str, Any]) -> None:
        """Write the result."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        about = {"dataset": self.dataset.name, "seed": self.seed, "threads": torch.get_num_threads()}
        write_json(self.path, as_json(about | value | {"settings": self.settings()}))


@dataclass(frozen=True)
class Coded:
    """A log with the ids of its training part."""

    vocabulary: ClickVocabulary
    blocks: tuple[ClickBlock, ...]

    @cached_property
    def train(self) -> ClickBlock:
        """All training blocks in one."""
        parts = self.blocks[:-1]
        ids, labels = np.concatenate([part.ids for part in parts]), np.concatenate([part.labels for part in parts])
        return ClickBlock(ids, labels, parts[0].widths)


@dataclass(frozen=True)
class Code(ClickJob):
    """Writes the ids of all blocks once for all jobs; the same for every seed."""

    @property
    def name(self) -> str:
        """Name of the ids."""
        return "coded"

    def settings(self) -> dict[str, Any]:
        """Return where the log is from."""
        return {"source": self.dataset.source, "layout": self.dataset.layout, "blocks": self.dataset.blocks}

    def run(self, progress: Progress) -> None:
        """Write the blocks."""
        log = self.dataset.opened()
        vocabulary = ClickVocabulary.empty(log.log.spec)
        for index in range(self.dataset.training_blocks):
            vocabulary = vocabulary.grown(log.read(index))
        tensors: dict[str, torch.Tensor] = {}
        for index, frame in enumerate(log):
            block = vocabulary.encode(frame)
            groups = np.zeros(0, np.int64) if block.groups is None else block.groups
            parts = {"ids": block.ids, "labels": block.labels, "groups": groups}
            tensors |= {f"{index}.{name}": torch.from_numpy(np.array(value)) for name, value in parts.items()}
        with atomic_folder(self.folder, replace=True) as temporary:
            vocabulary.save(temporary)
            write_tensors(temporary / "blocks.safetensors", tensors)
        published = self.dataset.published()
        self.write({"samples": len(published), "bytes": parquet_bytes(published)})


def parquet_bytes(rows: pl.DataFrame) -> int:
    """Return the size of features as Parquet, with three decimals of a soft label beside them."""
    draw = np.random.default_rng(0)
    label = pl.Series(LABEL, np.round(draw.random(len(rows)), 3).astype(np.float32))
    file = io.BytesIO()
    rows.with_columns(label).write_parquet(file, compression_level=19)
    return file.tell()


@cache
def coded(dataset: ClickDataset) -> Coded:
    """Return the ids of a log; once per process."""
    folder = Code(dataset, 0).folder
    tensors, vocabulary = read_tensors(folder / "blocks.safetensors"), ClickVocabulary.load(folder)
    blocks = []
    for index in range(dataset.blocks):
        ids, labels, groups = (tensors[f"{index}.{name}"].numpy() for name in ("ids", "labels", "groups"))
        blocks.append(ClickBlock(ids, labels, vocabulary.spec.widths, groups if len(groups) else None))
    return Coded(vocabulary, tuple(blocks))


@dataclass(frozen=True)
class Memory(ClickJob):
    """A memory of the training blocks, folded in one by one.

    Args:
        label: what its settings are called.
        method: the settings.
    """

    label: str
    method: DIET

    @property
    def name(self) -> str:
        """Name of the memory."""
        return f"memory-{self.label}-{self.method.ratio:g}"

    def settings(self) -> dict[str, Any]:
        """Return the method."""
        return {"method": self.method.as_dict(), "blocks": self.dataset.blocks}

    def stream(self) -> ClickStream:
        """Return the memory on disk."""
        return ClickStream.open(self.folder)

    def version(self, number: int | None = None) -> Version:
        """Return one version, the last one where no number is given."""
        return self.stream().version(number)

    def run(self, progress: Progress) -> None:
        """Fold in what is not folded in yet."""
        blocks = self.dataset.opened()
        spec, layout = blocks.log.spec, self.dataset.layout
        begun = is_memory(self.folder) and self.stream().numbers
        stream = self.stream() if begun else ClickStream.create(self.folder, self.method, spec, self.seed, layout)
        for index in range(len(stream.numbers), self.dataset.training_blocks):
            stream.take(ClickLog.of(blocks.read(index).lazy(), spec), RunContext(progress=progress))
            progress("fold", index + 1, self.dataset.training_blocks)
        told = [stream.version(number).manifest for number in stream.numbers]
        names = ("number", "rows", "units", "foreseen", "moved", "seconds", "trace")
        version = stream.version()
        sizes = {path.name: path.stat().st_size for path in version.folder.iterdir()}
        tables = stream.model(version).tables.rows
        self.write(
            {
                "seconds": sum(each["seconds"] for each in told),
                "units": told[-1]["units"],
                "bytes": sizes["memory.safetensors"],
                "bytes_tables": tables.numel() * tables.element_size(),
                "blocks": [{name: each[name] for name in names} for each in told],
            }
        )


@dataclass(frozen=True)
class Export(ClickJob):
    """A memory as samples with groups of ids."""

    memory: Memory
    groups: int = GROUPS

    @property
    def name(self) -> str:
        """Name of the export."""
        return f"export-{self.memory.label}-{self.memory.method.ratio:g}-{self.groups}"

    @property
    def needs(self) -> tuple[Job, ...]:
        """The memory."""
        return (self.memory,)

    def settings(self) -> dict[str, Any]:
        """Return the memory's, and the groups."""
        return self.memory.settings() | {"groups": self.groups}

    def run(self, progress: Progress) -> None:
        """Write the export."""
        started, stream = time.perf_counter(), self.memory.stream()
        version = stream.version()
        model = stream.model(version)
        groups = shared_groups(model, self.groups, self.seed)
        save_rows(exported(version.memory(), model, groups), version.vocabulary(), self.folder, {}, replace=True)
        sizes = {path.name: path.stat().st_size for path in self.folder.iterdir()}
        told = {"bytes": sum(sizes.values()), "files": sizes, "seconds": time.perf_counter() - started}
        self.write(told | {"units": len(version.memory())})


def shared_groups(model: ClickModel, groups: int, seed: int) -> IdGroups:
    """Return groups of the ids of a model's tables."""
    return IdGroups.near(model.tables, groups, Streams(seed).child("groups"))
