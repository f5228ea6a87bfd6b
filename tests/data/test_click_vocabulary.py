"""The codes of a whole click log: what a block becomes, and that both files bring everything back."""

from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch

from recdistill.data.clicks.block import pooling_weights
from recdistill.data.clicks.fields import ClickSpec, Field
from recdistill.data.clicks.vocabulary import ClickVocabulary
from recdistill.errors import ArtifactError, DataError, OptionError

FIELDS = (
    Field(name="user"),
    Field(name="tags", kind="multi", max_values=2),
    Field(name="price", kind="numeric", buckets=2),
    Field(name="shop", rule="hash", buckets=7),
)
SPEC = ClickSpec(fields=FIELDS, label="click", time="time", group="user")


def frame(**changes: object) -> pl.DataFrame:
    columns: dict[str, object] = {
        "user": ["u", "v", "u"],
        "tags": ["a|b", "", "b|a|c"],
        "price": [1.0, None, 3.0],
        "shop": [1, 2, 1],
        "click": [1, 0, 1],
        "time": [10, 20, 30],
    }
    return pl.DataFrame(columns | changes)


def test_a_block_has_the_columns_of_its_fields_side_by_side() -> None:
    vocabulary = ClickVocabulary.empty(SPEC).grown(frame())
    block = vocabulary.encode(frame())
    assert block.ids[:, :4].tolist() == [[2, 2, 3, 2], [3, 0, 0, 0], [2, 3, 2, 3]]
    assert (block.ids[0, 4], block.ids[1, 4]) == (block.ids[2, 4], vocabulary.codes[3].encode(pl.Series([2]))[0, 0])
    assert vocabulary.num_ids == (4, 4, 4, 9)
    assert block.labels.tolist() == [1, 0, 1]
    assert block.groups is not None
    assert block.groups[0] == block.groups[2] != block.groups[1]
    assert block.widths == (1, 2, 1, 1)
    assert [batch.labels.tolist() for batch in block.batches(2)] == [[1, 0], [1]]
    some = block.some(np.array([2, 0]))
    assert some.ids.tolist() == block.ids[[2, 0]].tolist()
    assert block.frequencies(0, 4).tolist() == [0, 0, 2, 1]


def test_both_files_bring_all_ids_back(tmp_path: Path) -> None:
    vocabulary = ClickVocabulary.empty(SPEC).grown(frame())
    vocabulary.save(tmp_path)
    loaded = ClickVocabulary.load(tmp_path)
    other = frame(user=["w", "v", None], price=[2.0, 4.0, 0.0])
    assert loaded.spec == SPEC
    assert loaded.encode(other).ids.tolist() == vocabulary.encode(other).ids.tolist()
    assert loaded.grown(other).encode(other).ids.tolist() == vocabulary.grown(other).encode(other).ids.tolist()


def test_a_vocabulary_before_its_first_block_can_be_saved(tmp_path: Path) -> None:
    ClickVocabulary.empty(SPEC).save(tmp_path)
    assert ClickVocabulary.load(tmp_path).num_ids == ClickVocabulary.empty(SPEC).num_ids


def test_damaged_files_are_told(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match=r"fields.json.*missing"):
        ClickVocabulary.load(tmp_path)
    ClickVocabulary.empty(SPEC).grown(frame()).save(tmp_path)
    path = tmp_path / "vocabulary.parquet"
    pl.read_parquet(path).filter(pl.col("id") != 2).write_parquet(path)
    with pytest.raises(ArtifactError, match=r"vocabulary.parquet.*user.*ids that are not 2"):
        ClickVocabulary.load(tmp_path)
    path.write_bytes(b"PAR1")
    with pytest.raises(ArtifactError, match=r"vocabulary.parquet.*damaged"):
        ClickVocabulary.load(tmp_path)


@pytest.mark.parametrize("labels", [[1, 0, 5], [1, None, 0], ["yes", "no", "no"]])
def test_labels_are_0_or_1(labels: list[object]) -> None:
    with pytest.raises(DataError, match=r"column 'click'.*label"):
        ClickVocabulary.empty(SPEC).encode(frame(click=labels))


def test_a_spec_gives_every_column_one_part() -> None:
    assert SPEC.columns == ("user", "tags", "price", "shop", "click", "time")
    assert ClickSpec.from_dict(SPEC.as_dict()) == SPEC
    with pytest.raises(OptionError, match=r"fields: 'none'"):
        ClickSpec(fields=())
    with pytest.raises(OptionError, match=r"user.*twice"):
        ClickSpec(fields=(FIELDS[0], FIELDS[0]))
    with pytest.raises(OptionError, match="is the label"):
        ClickSpec(fields=FIELDS, label="price")


def test_values_of_a_row_weigh_alike() -> None:
    ids = torch.tensor([[2, 3, 0], [0, 0, 0], [5, 0, 0]])
    assert pooling_weights(ids).tolist() == [[0.5, 0.5, 0.0], [1.0, 0.0, 0.0], [1.0, 0.0, 0.0]]
