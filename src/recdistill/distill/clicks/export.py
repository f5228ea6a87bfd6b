"""A memory as plain samples with ids, for models that bring their own tables, in this library or in another.

    clicks.json          what it was made of; hashes of the other files
    rows.parquet         a column per field, with the groups of its ids; the label, a probability
    values.parquet       field, value, group, of every value with an id of its own; a numeric or hashed field has the
                         numbers of its buckets, from 0
    fields.json          the spec, and the edges of numeric fields

The groups of a sample of the log are looked up in the values. Values are sorted, the ids of the memory are not kept.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pyarrow.parquet as pq
import torch
from jaxtyping import Float, Int
from scipy.special import expit

from recdistill.data.clicks.block import ClickBatch, ClickBlock
from recdistill.data.clicks.codes import FIRST, MISSING, GrowingCodes
from recdistill.data.clicks.fields import ClickSpec
from recdistill.data.clicks.vocabulary import ClickVocabulary
from recdistill.distill.clicks.groups import IdGroups
from recdistill.distill.clicks.memory import ClickMemory
from recdistill.errors import ArtifactError, RecdistillError
from recdistill.evaluation.clicks import predicted
from recdistill.models.clicks.base import ClickModel
from recdistill.storage import atomic_folder, read_json, sha256, write_json
from recdistill.training.checkpoint import check_hash, read_header

FORMAT = "recdistill-clicks"
FORMAT_VERSION = 1
HEADER = "clicks.json"
DECIMALS = 3
"""Of a stored label."""


@dataclass(frozen=True)
class ClickRows:
    """Samples with soft labels, whose ids stand for groups of ids.

    Args:
        ids: groups of every column.
        labels: probabilities.
        groups: of the log's ids.
    """

    ids: Int[np.ndarray, "n C"]
    labels: Float[np.ndarray, " n"]
    groups: IdGroups

    def __len__(self) -> int:
        return len(self.labels)

    def batch(self, rows: np.ndarray) -> ClickBatch:
        """Return some of them, as a model of groups sees them."""
        return ClickBatch(torch.from_numpy(self.labels[rows]), torch.from_numpy(self.ids[rows]))


def exported(memory: ClickMemory, model: ClickModel, groups: IdGroups) -> ClickRows:
    """Return the samples that the units of a memory began as, with the labels that the reference model gives them now.

    What outer steps did to vectors and labels is not in them: it has no meaning away from the reference model's tables.

    Args:
        memory: the units.
        model: the reference model of the same version.
        groups: of the ids.
    """
    ids = memory.ids.numpy()
    chances = expit(predicted(model, ClickBlock(ids, np.zeros(len(ids), np.float32), groups.widths)))
    return ClickRows(groups.of(ids), np.round(chances, DECIMALS).astype(np.float32), groups)


def save_rows(
    rows: ClickRows, vocabulary: ClickVocabulary, folder: Path, about: Mapping[str, Any], *, replace: bool = False
) -> None:
    """Write a folder in one step.

    Args:
        rows: the samples.
        vocabulary: values of the ids that the groups are of.
        folder: where to; must not exist, unless ``replace``.
        about: JSON-serialisable facts that travel with it.
        replace: take the place of an existing folder.
    """
    with atomic_folder(folder, replace=replace) as temporary:
        write_json(temporary / "fields.json", vocabulary.told())
        as_table(rows, vocabulary.spec).write_parquet(temporary / "rows.parquet", compression_level=19)
        written = {"compression": "zstd", "compression_level": 19, "use_dictionary": ["field"]}
        encoded = {"column_encoding": {"value": "DELTA_BYTE_ARRAY"}}
        pq.write_table(
            values_of(rows.groups, vocabulary).to_arrow(), temporary / "values.parquet", **written, **encoded
        )
        files = {path.name: sha256(path) for path in sorted(temporary.iterdir())}
        head = {"format": FORMAT, "format_version": FORMAT_VERSION, "rows": len(rows)}
        write_json(temporary / HEADER, head | dict(about) | {"files": files})


def values_of(groups: IdGroups, vocabulary: ClickVocabulary) -> pl.DataFrame:
    """Return the group of every value, field by field, shorter values first."""
    parts = []
    for codes, mine in zip(vocabulary.codes, groups.of_ids, strict=True):
        if isinstance(codes, GrowingCodes):
            values = codes.values.cast(pl.String)
        else:
            values = pl.int_range(codes.num_ids - FIRST, eager=True).cast(pl.String)
        table = pl.DataFrame({"value": values.rename("value"), "group": mine[FIRST:].astype(np.uint32)})
        table = table.select(pl.lit(codes.of.name).alias("field"), "value", "group")
        parts.append(table.sort(pl.col("value").str.len_bytes(), "value"))
    return pl.concat(parts)


def as_table(rows: ClickRows, spec: ClickSpec) -> pl.DataFrame:
    """Return samples as a table: a number per field, a list of them where a field has several columns, the label."""
    table, column = {}, 0
    for name, width, count in zip(spec.names, spec.widths, rows.groups.counts, strict=True):
        part = rows.ids[:, column : column + width]
        kind = pl.UInt8 if count <= 2**8 else pl.UInt16 if count <= 2**16 else pl.UInt32
        if width == 1:
            table[name] = pl.Series(name, part[:, 0]).cast(kind)
        else:
            values = [[int(value) for value in row if value != MISSING] for row in part]
            table[name] = pl.Series(name, values, dtype=pl.List(kind))
        column += width
    return pl.DataFrame(table | {spec.label: pl.Series(rows.labels)})


def load_rows(folder: Path) -> tuple[ClickRows, ClickVocabulary, dict[str, Any]]:
    """Return exported samples, the vocabulary of the log, and the facts saved with them.

    Raises:
        ArtifactError: the folder is no export, is damaged, or is newer than this version reads.
    """
    about = read_header(
        folder / HEADER, FORMAT, FORMAT_VERSION, "an export of clicks; make one with: recdistill export"
    )
    for name in ("fields.json", "values.parquet", "rows.parquet"):
        check_hash(folder / name, about)
    try:
        values = pl.read_parquet(folder / "values.parquet")
        place = pl.int_range(FIRST, FIRST + pl.len(), dtype=pl.Int32).over("field").alias("id")
        vocabulary = ClickVocabulary.of(read_json(folder / "fields.json"), values.with_columns(place))
        spec = vocabulary.spec
        groups = IdGroups(tuple(_groups(values.filter(pl.col("field") == name)) for name in spec.names), spec.widths)
        table = pl.read_parquet(folder / "rows.parquet")
        parts = [_columns(table[name], width) for name, width in zip(spec.names, spec.widths, strict=True)]
        rows = ClickRows(np.concatenate(parts, axis=1), np.array(table[spec.label].to_numpy()), groups)
    except (OSError, ValueError, KeyError, pl.exceptions.PolarsError, RecdistillError) as error:
        raise ArtifactError(f"is damaged ({error})", fix="export the memory again", path=folder) from None
    return rows, vocabulary, about


def _groups(values: pl.DataFrame) -> Int[np.ndarray, " n"]:
    return np.concatenate([np.arange(FIRST), values["group"].to_numpy()]).astype(np.int32)


def _columns(column: pl.Series, width: int) -> Int[np.ndarray, "n W"]:
    if width == 1:
        return column.cast(pl.Int32).to_numpy()[:, None]
    found = np.full((len(column), width), MISSING, dtype=np.int32)
    for row, values in enumerate(column.to_list()):
        found[row, : len(values)] = values
    return found
