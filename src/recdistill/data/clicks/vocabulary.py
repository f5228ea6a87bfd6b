"""The ids of all fields of a click log, as they stand after some blocks; saved as two files.

fields.json          the spec; edges of numeric fields
vocabulary.parquet   field, id, value of every value with an id of its own
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from recdistill.data.clicks.block import ClickBlock
from recdistill.data.clicks.codes import FIRST, BucketCodes, Codes, GrowingCodes, codes_of
from recdistill.data.clicks.fields import ClickSpec
from recdistill.errors import ArtifactError, DataError, RecdistillError
from recdistill.storage import read_json, write_json


@dataclass(frozen=True)
class ClickVocabulary:
    """Codes of every field.

    Args:
        spec: the fields, the label, the time.
        codes: of each field, in their order.
    """

    spec: ClickSpec
    codes: tuple[Codes, ...]

    @staticmethod
    def empty(spec: ClickSpec) -> "ClickVocabulary":
        """Return the codes before the first block."""
        return ClickVocabulary(spec, tuple(codes_of(field) for field in spec.fields))

    @property
    def num_ids(self) -> tuple[int, ...]:
        """Ids of each field."""
        return tuple(codes.num_ids for codes in self.codes)

    def grown(self, frame: pl.DataFrame) -> "ClickVocabulary":
        """Return the codes after a block was seen; no id moves.

        Raises:
            DataError: a value does not fit its field.
        """
        codes = zip(self.codes, self.spec.names, strict=True)
        return ClickVocabulary(self.spec, tuple(each.grown(frame[name]) for each, name in codes))

    def encode(self, frame: pl.DataFrame) -> ClickBlock:
        """Return a block as arrays.

        Raises:
            DataError: a value does not fit its field, or a label is neither 0 nor 1.
        """
        codes = zip(self.codes, self.spec.names, strict=True)
        ids = np.concatenate([each.encode(frame[name]) for each, name in codes], axis=1)
        labels = labels_of(frame[self.spec.label])
        group = self.spec.group
        groups = None if group is None else frame[group].rank("dense").fill_null(0).cast(pl.Int64).to_numpy()
        return ClickBlock(ids, labels, self.spec.widths, groups)

    def save(self, folder: Path) -> None:
        """Write both files into a folder that is there."""
        write_json(folder / "fields.json", self.told())
        grown = [codes for codes in self.codes if isinstance(codes, GrowingCodes)]
        parts = [
            pl.DataFrame(
                {
                    "field": pl.repeat(codes.of.name, len(codes.values), dtype=pl.String, eager=True),
                    "id": np.arange(FIRST, codes.num_ids, dtype=np.int32),
                    "value": codes.values,
                }
            )
            for codes in grown
        ]
        schema = {"field": pl.String, "id": pl.Int32, "value": pl.String}
        pl.concat([pl.DataFrame(schema=schema), *parts]).write_parquet(folder / "vocabulary.parquet")

    def told(self) -> dict[str, Any]:
        """Return the spec and the edges of numeric fields, for JSON."""
        edges = {codes.of.name: codes.edges for codes in self.codes if isinstance(codes, BucketCodes)}
        return {"spec": self.spec.as_dict(), "edges": edges}

    @staticmethod
    def of(told: dict[str, Any], values: pl.DataFrame) -> "ClickVocabulary":
        """Return the codes of what :meth:`told` said, and of values with ``field``, ``id`` and ``value``.

        Raises:
            DataError: ids are not 2, 3, ... or a value has two.
        """
        spec = ClickSpec.from_dict(told["spec"])
        edges = {name: value if value is None else tuple(value) for name, value in told["edges"].items()}
        return ClickVocabulary(spec, tuple(_restored(codes_of(field), values, edges) for field in spec.fields))

    @staticmethod
    def load(folder: Path) -> "ClickVocabulary":
        """Return what :meth:`save` wrote.

        Raises:
            ArtifactError: a file is missing or damaged.
        """
        told = read_json(folder / "fields.json")
        path = folder / "vocabulary.parquet"
        try:
            return ClickVocabulary.of(told, pl.read_parquet(path))
        except (KeyError, TypeError, OSError, pl.exceptions.PolarsError, RecdistillError) as error:
            fix = "restore the folder from where it came"
            raise ArtifactError(f"is damaged ({error})", fix=fix, path=path) from None


def _restored(codes: Codes, frame: pl.DataFrame, edges: dict[str, tuple[float, ...] | None]) -> Codes:
    name = codes.of.name
    if isinstance(codes, BucketCodes):
        return BucketCodes(codes.of, edges[name])
    if not isinstance(codes, GrowingCodes):
        return codes
    mine = frame.filter(pl.col("field") == name).sort("id")
    if mine["id"].to_list() != list(range(FIRST, FIRST + mine.height)) or mine["value"].n_unique() != mine.height:
        raise DataError("has ids that are not 2, 3, ..., or a value twice", fix="restore the file", column=name)
    return GrowingCodes(codes.of, mine["value"].rename(""))


def labels_of(column: pl.Series) -> np.ndarray:
    """Return labels as 0. and 1.

    Raises:
        DataError: a label is something else.
    """
    fix = "make it 0 or 1, for instance whether a rating is 4 or more"
    if not (column.dtype.is_numeric() or column.dtype == pl.Boolean):
        raise DataError(f"the label is {column.dtype}", fix=fix, column=column.name)
    values = column.cast(pl.Float32)
    wrong = column.filter((~values.is_in([0.0, 1.0])).fill_null(True))
    if len(wrong):
        raise DataError(f"the label {wrong[0]} is neither 0 nor 1", fix=fix, column=column.name)
    return np.array(values.to_numpy())  # a copy of its own, that torch may hold
