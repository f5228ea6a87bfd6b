"""Groups of ids, and a memory as plain samples: what is written is what is read, and every id reads its group."""

from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch

from recdistill.data.clicks.block import ClickBatch, ClickBlock
from recdistill.data.clicks.fields import ClickSpec, Field
from recdistill.data.clicks.vocabulary import ClickVocabulary
from recdistill.distill.clicks.export import ClickRows, exported, load_rows, save_rows
from recdistill.distill.clicks.groups import IdGroups
from recdistill.distill.clicks.memory import lifted
from recdistill.errors import ArtifactError, InputError, OptionError
from recdistill.models.clicks import CLICK_MODELS
from recdistill.models.clicks.base import ClickModel, FieldTables
from recdistill.rng import Streams
from recdistill.study.click_students import ClickStudentSpec, train_on_rows, train_with_given_tables
from recdistill.training.clicks import ClickRecipe

QUICK = ClickRecipe(learning_rate=0.05, batch_size=32, epochs=20, weight_decay=0.0)
SPEC = ClickSpec(
    fields=(Field(name="user"), Field(name="tags", kind="multi", max_values=2), Field(name="price", kind="numeric")),
    label="click",
    time=None,
)


def frame_of(rows: int = 60) -> pl.DataFrame:
    draw = np.random.default_rng(0)
    tags = [[f"t{value}" for value in draw.integers(0, 9, draw.integers(0, 3))] for _ in range(rows)]
    columns = {"user": draw.integers(0, 30, rows), "tags": tags, "price": draw.normal(size=rows)}
    return pl.DataFrame(columns | {"click": draw.integers(0, 2, rows)})


def model_of(num_ids: tuple[int, ...], widths: tuple[int, ...], dim: int = 4) -> ClickModel:
    made = CLICK_MODELS["deepfm"](num_ids, widths, dim, hidden_units=(8,), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        made.tables.rows.mul_(100)
    return made


def told(frame: pl.DataFrame) -> tuple[ClickVocabulary, ClickBlock, ClickModel]:
    vocabulary = ClickVocabulary.empty(SPEC).grown(frame)
    return vocabulary, vocabulary.encode(frame), model_of(vocabulary.num_ids, SPEC.widths)


def test_near_ids_share_a_group() -> None:
    tables = FieldTables((12, 5), (1, 1), 2, torch.Generator().manual_seed(0))
    places = torch.tensor([0.0, 10, 20]).repeat(4)[:10]
    with torch.no_grad():
        tables.of(0)[2:] = places.unsqueeze(1) + torch.linspace(0, 0.1, 10).unsqueeze(1)
    groups = IdGroups.near(tables, 3, Streams(0))
    assert groups.of_ids[0][:2].tolist() == [0, 1]  # missing and unknown values are their own
    named = groups.of_ids[0][2:]
    same = named[:, None] == named[None]
    assert (same == (places[:, None] == places[None]).numpy()).all()
    assert groups.of_ids[1].tolist() == [0, 1, 2, 3, 4]  # three ids are no more than three groups
    assert groups.counts == (5, 5)


def test_groups_come_from_the_seed_and_at_least_two_are_needed() -> None:
    tables = FieldTables((200,), (1,), 3, torch.Generator().manual_seed(0))
    first, second, other = (IdGroups.near(tables, 8, Streams(seed)) for seed in (0, 0, 1))
    assert (first.of_ids[0] == second.of_ids[0]).all()
    assert (first.of_ids[0] != other.of_ids[0]).any()
    assert first.counts == (10,)
    with pytest.raises(OptionError, match="groups"):
        IdGroups.near(tables, 1, Streams(0))


def test_ids_that_all_lie_in_one_place_are_few_groups() -> None:
    tables = FieldTables((50,), (1,), 3, torch.Generator().manual_seed(0))
    with torch.no_grad():
        tables.rows.zero_()
    assert IdGroups.near(tables, 4, Streams(0)).counts == (3,)
    with torch.no_grad():
        tables.of(0)[10:20] = 1
    assert IdGroups.near(tables, 4, Streams(0)).counts == (4,)


def test_an_expanded_model_says_of_ids_what_it_said_of_groups() -> None:
    groups = IdGroups((np.array([0, 1, 3, 2, 3]), np.array([0, 1, 2])), (1, 2))
    model = model_of(groups.counts, groups.widths)
    ids = np.array([[2, 2, 0], [3, 1, 2], [4, 2, 1]], dtype=np.int32)
    before = model.logits(model.embed(ClickBatch(torch.zeros(3), torch.from_numpy(groups.of(ids)))))
    groups.expand(model)
    assert model.config["num_ids"] == model.tables.num_ids == (5, 3)
    after = model.logits(model.embed(ClickBatch(torch.zeros(3), torch.from_numpy(ids))))
    torch.testing.assert_close(before, after)
    with pytest.raises(InputError, match="groups need"):
        groups.expand(model)


@pytest.mark.parametrize("most", [4, None])
def test_an_export_is_read_as_it_was_written(most: int | None, tmp_path: Path) -> None:
    frame = frame_of()
    vocabulary, block, model = told(frame)
    memory = lifted(model, block, 1.0, number=1)
    tables = model.tables
    groups = IdGroups.single(tables.num_ids, tables.widths) if most is None else IdGroups.near(tables, most, Streams(0))
    rows = exported(memory, model, groups)
    save_rows(rows, vocabulary, tmp_path / "out", {"method": "diet"})
    found, known, about = load_rows(tmp_path / "out")
    assert about["method"] == "diet"
    assert known.num_ids == vocabulary.num_ids
    np.testing.assert_array_equal(found.ids, groups.of(block.ids))
    np.testing.assert_array_equal(found.labels, rows.labels)
    again = found.groups.of(known.encode(frame).ids)  # ids are others, the groups of values are the same
    np.testing.assert_array_equal(again, groups.of(block.ids))


def test_an_export_is_a_table_that_others_read(tmp_path: Path) -> None:
    frame = frame_of()
    vocabulary, block, model = told(frame)
    groups = IdGroups.near(model.tables, 4, Streams(0))
    save_rows(exported(lifted(model, block, 0.0, 1), model, groups), vocabulary, tmp_path / "out", {})
    table = pl.read_parquet(tmp_path / "out" / "rows.parquet")
    assert table.columns == ["user", "tags", "price", "click"]
    assert table["click"].is_between(0, 1).all()  # the reference model's chances, whatever the units' labels were
    numbers = pl.read_parquet(tmp_path / "out" / "values.parquet").filter(pl.col("field") == "user")
    values = frame.select(pl.col("user").cast(pl.String).alias("value"))
    by_hand = values.join(numbers, on="value", how="left", maintain_order="left")
    assert table["user"].to_list() == by_hand["group"].to_list()
    assert [len(tags) for tags in table["tags"].to_list()] == [len(tags) for tags in frame["tags"].to_list()]


def test_a_damaged_export_is_refused(tmp_path: Path) -> None:
    vocabulary, block, model = told(frame_of())
    single = IdGroups.single(model.tables.num_ids, model.tables.widths)
    save_rows(exported(lifted(model, block, 1.0, 1), model, single), vocabulary, tmp_path / "out", {})
    path = tmp_path / "out" / "rows.parquet"
    path.write_bytes(path.read_bytes()[:-8])
    with pytest.raises(ArtifactError, match="SHA-256"):
        load_rows(tmp_path / "out")
    with pytest.raises(ArtifactError, match="recdistill export"):
        load_rows(tmp_path)


def planted(rows: int, seed: int) -> ClickBlock:
    """Clicks that depend on whether two ids are both odd or both even."""
    draw = np.random.default_rng(seed)
    ids = draw.integers(2, 12, (rows, 2)).astype(np.int32)
    chance = np.where(ids.sum(1) % 2 == 0, 0.9, 0.1)
    return ClickBlock(ids, (draw.random(rows) < chance).astype(np.float32), (1, 1))


@pytest.mark.parametrize("dim", [4, 3, 6])
def test_a_model_of_any_width_learns_behind_given_tables(dim: int) -> None:
    tables = FieldTables((12, 12), (1, 1), 4, torch.Generator().manual_seed(0))
    before = tables.rows.detach().clone()
    spec = ClickStudentSpec(model="deepfm", config={"embedding_dim": dim, "hidden_units": (16,)}, recipe=QUICK)
    with torch.no_grad():
        tables.rows.mul_(100)
    model, _ = train_with_given_tables(planted(1500, 0), spec, tables, seed=0)
    assert torch.equal(model.tables.rows, before * 100)  # nothing trained them
    assert (model.adapter is None) == (dim == 4)
    block = planted(300, 1)
    logits = model.logits(model.embed(block.batch(slice(None))))
    assert float(((logits > 0).float() == torch.from_numpy(block.labels)).float().mean()) > 0.8


def test_a_model_learns_from_rows_and_tells_ids_of_the_log_apart() -> None:
    odd = np.array([0, 1, *(2 + index % 2 for index in range(10))])
    groups, block = IdGroups((odd, odd), (1, 1)), planted(400, 0)
    rows = ClickRows(groups.of(block.ids), block.labels, groups)
    spec = ClickStudentSpec(model="fm", config={"embedding_dim": 4}, recipe=QUICK)
    model, _ = train_on_rows(rows, spec, seed=0)
    block = planted(300, 1)
    logits = model.logits(model.embed(block.batch(slice(None))))
    assert model.tables.num_ids == (12, 12)
    assert float(((logits > 0).float() == torch.from_numpy(block.labels)).float().mean()) > 0.8


def test_tables_of_other_fields_are_refused() -> None:
    model = model_of((3, 3), (1, 1))
    with pytest.raises(OptionError, match="columns"):
        model.take_tables(FieldTables((3, 3), (1, 2), 4, torch.Generator()), torch.Generator())
