"""The artifact: what is written is what is read, and a damaged one is refused by file."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from recdistill.data.distilled import (
    FORMAT_VERSION,
    DistilledDataset,
    Manifest,
    Source,
    current_versions,
    is_distilled,
    read_manifest,
    size_in_bytes,
)
from recdistill.data.rows import KINDS, HardRows, Rows
from recdistill.errors import ArtifactError, InputError, RecdistillError
from recdistill.storage import sha256
from reference.rows import IDS, LENGTHS, L, R, V, make, same
from reference.tiny import vocabulary

kinds = pytest.mark.parametrize("kind", sorted(KINDS))
FILES = ("data.safetensors", "vocabulary.parquet", "README.md")


def dataset(rows: Rows, **changes: Any) -> DistilledDataset:
    """Return an artifact of ``rows``."""
    values: dict[str, Any] = {
        "kind": rows.kind,
        "method": "random",
        "parameters": {"num_rows": 3},
        "num_rows": len(rows),
        "length": rows.length,
        "source": Source(name="tiny", hash="ab" * 32, users=7, items=V, train_interactions=1234, train_bytes=999),
        "teacher": {"model": "sasrec"},
        "seed": 3,
        "seconds": {"distill": 0.5},
        "peak_mb": 10.0,
        "versions": current_versions(),
        "trace": [{"outer_loss": 1.5}],
    }
    factor = getattr(rows, "item_factor", torch.ones(V, R))
    return DistilledDataset(rows, factor, vocabulary(V), Manifest(**values | changes))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """An artifact of hard rows."""
    dataset(make("hard")).save(tmp_path / "made")
    return tmp_path / "made"


def edit_manifest(folder: Path, change: Callable[[dict[str, Any]], None]) -> None:
    """Rewrite ``manifest.json``."""
    path = folder / "manifest.json"
    value = json.loads(path.read_text())
    change(value)
    path.write_text(json.dumps(value))


def edit_tensors(folder: Path, **tensors: torch.Tensor | None) -> None:
    """Rewrite the tensors, and state their new hash as a forger would."""
    path = folder / "data.safetensors"
    found = load_file(path) | tensors
    save_file({name: tensor for name, tensor in found.items() if tensor is not None}, path)
    edit_manifest(folder, lambda value: value["files"].update({"data.safetensors": sha256(path)}))


def refused(folder: Path, file: str, match: str) -> None:
    with pytest.raises(ArtifactError, match=match) as caught:
        DistilledDataset.load(folder)
    assert Path(caught.value.path) == folder / file
    assert "\n" not in str(caught.value)


@kinds
def test_every_kind_survives_the_disk(kind: str, tmp_path: Path) -> None:
    made = dataset(make(kind))
    saved = made.save(tmp_path / "made")
    loaded = DistilledDataset.load(tmp_path / "made")
    assert loaded.manifest == saved.manifest
    assert loaded.manifest.model_copy(update={"shapes": {}, "files": {}}) == made.manifest
    assert loaded.vocabulary.equals(made.vocabulary)
    assert torch.equal(loaded.item_factor, made.item_factor)
    assert (len(loaded.rows), loaded.rows.length) == (len(made.rows), made.rows.length)
    assert loaded.rows.item_counts(V).tolist() == made.rows.item_counts(V).tolist()
    if kind != "counts":
        every = torch.arange(len(made.rows))
        same(loaded.rows.batch(every), made.rows.batch(every))


def test_half_precision_labels_survive_the_disk(tmp_path: Path) -> None:
    made = dataset(make("labelled", torch.float16))
    made.save(tmp_path / "made")
    stored = load_file(tmp_path / "made" / "data.safetensors")["target_queries"]
    assert stored.dtype == torch.float16
    loaded = DistilledDataset.load(tmp_path / "made").rows.tensors()["target_queries"]
    assert torch.equal(loaded, stored)


@kinds
def test_nothing_in_the_folder_can_run(kind: str, tmp_path: Path) -> None:
    dataset(make(kind)).save(tmp_path / "made")
    assert sorted(file.name for file in (tmp_path / "made").iterdir()) == sorted([*FILES, "manifest.json"])
    assert (tmp_path / "made" / "vocabulary.parquet").read_bytes()[:4] == b"PAR1"
    header = (tmp_path / "made" / "data.safetensors").read_bytes()
    json.loads(header[8 : 8 + int.from_bytes(header[:8], "little")])


def test_saving_twice_gives_the_same_bytes(tmp_path: Path) -> None:
    made = dataset(make("tucker"))
    one, other = made.save(tmp_path / "one"), made.save(tmp_path / "other")
    assert one.manifest.files == other.manifest.files
    assert DistilledDataset.load(tmp_path / "one").save(tmp_path / "third").manifest == one.manifest


def test_only_known_columns_of_the_vocabulary_are_written(tmp_path: Path) -> None:
    made = dataset(make("hard"))
    wide = made.vocabulary.with_columns(genre=made.vocabulary["title"])
    DistilledDataset(made.rows, made.item_factor, wide.drop("title"), made.manifest).save(tmp_path / "made")
    assert DistilledDataset.load(tmp_path / "made").vocabulary.columns == ["item", "item_id"]


@pytest.mark.parametrize("name", FILES)
def test_a_changed_byte_is_found(folder: Path, name: str) -> None:
    content = bytearray((folder / name).read_bytes())
    content[-5] ^= 1
    (folder / name).write_bytes(bytes(content))
    refused(folder, name, "another SHA-256")


@pytest.mark.parametrize("name", FILES)
def test_a_missing_file_is_found(folder: Path, name: str) -> None:
    (folder / name).unlink()
    refused(folder, name, "is missing")


@pytest.mark.parametrize("name", FILES)
def test_a_file_without_a_stated_hash_is_refused(folder: Path, name: str) -> None:
    edit_manifest(folder, lambda value: value["files"].pop(name))
    refused(folder, name, "another SHA-256")


def test_a_folder_without_a_manifest_is_no_artifact(folder: Path) -> None:
    (folder / "manifest.json").unlink()
    refused(folder, "", "not a distilled dataset")
    assert not is_distilled(folder)


def test_a_manifest_that_is_not_json(folder: Path) -> None:
    (folder / "manifest.json").write_text("{")
    refused(folder, "manifest.json", "is not JSON")
    assert not is_distilled(folder)


@pytest.mark.parametrize("value", [[], "text", {"format": "recdistill-prepared"}, {}])
def test_a_manifest_of_something_else(folder: Path, value: object) -> None:
    (folder / "manifest.json").write_text(json.dumps(value))
    refused(folder, "manifest.json", "format")
    assert not is_distilled(folder)


def test_a_newer_version_is_refused(folder: Path) -> None:
    edit_manifest(folder, lambda value: value.update(format_version=FORMAT_VERSION + 1, kind="of the future"))
    refused(folder, "manifest.json", f"format version {FORMAT_VERSION + 1}")


def test_an_unknown_kind_is_refused(folder: Path) -> None:
    edit_manifest(folder, lambda value: value.update(kind="harder"))
    refused(folder, "manifest.json", "kind 'harder'")


@pytest.mark.parametrize(
    ("field", "value"),
    [("num_rows", -1), ("num_rows", "three"), ("length", None), ("source", {"name": "x"}), ("files", []), ("seed", "")],
)
def test_a_wrong_field_is_named(folder: Path, field: str, value: object) -> None:
    edit_manifest(folder, lambda manifest: manifest.update({field: value}))
    refused(folder, "manifest.json", f"field '{field}")


def test_a_field_that_is_not_there_is_named(folder: Path) -> None:
    edit_manifest(folder, lambda value: value.pop("method"))
    refused(folder, "manifest.json", "field 'method'")


def test_fields_of_later_minor_versions_are_kept(folder: Path) -> None:
    edit_manifest(folder, lambda value: value.update(note="hello"))
    assert DistilledDataset.load(folder).manifest.model_dump()["note"] == "hello"


@pytest.mark.parametrize(
    ("name", "tensor", "match"),
    [
        ("item_ids", IDS[:, :3].clone(), "'item_ids' has shape"),
        ("item_ids", IDS[:2].clone(), "'item_ids' has shape"),
        ("item_ids", IDS.flatten(), "'item_ids' has shape"),
        ("lengths", LENGTHS[:2].clone(), "'lengths' has shape"),
        ("lengths", None, "'lengths' has shape None"),
        ("item_factor", torch.ones(V - 1, R), "'item_factor' has shape"),
        ("item_factor", None, "'item_factor' has shape None"),
        ("more", torch.ones(2), "'more' has shape"),
    ],
)
def test_wrong_tensors_are_refused(folder: Path, name: str, tensor: torch.Tensor | None, match: str) -> None:
    edit_tensors(folder, **{name: tensor})
    refused(folder, "data.safetensors", match)


@pytest.mark.parametrize(
    ("kind", "name", "shape"),
    [
        ("labelled", "target_queries", (3, 4, R + 1)),
        ("low_rank_labelled", "target_queries", (3, 4, 3)),
        ("low_rank_labelled", "label_basis", (2, R + 1)),
        ("tucker", "core", (2, 3, R + 1)),
        ("tucker", "core", (2, 2, R)),
        ("tucker", "user_factor", (2, 2)),
        ("tucker", "time_factor", (4, 3)),
        ("tucker", "pad_column", (2,)),
        ("low_rank", "latent", (3, 4, L)),
        ("low_rank", "latent", (2, 5, L)),
        ("low_rank", "decoder", (V - 1, L)),
        ("low_rank", "decoder", (V, L + 1)),
        ("low_rank", "temperature", (2,)),
        ("counts", "counts", (V,)),
    ],
)
def test_shapes_that_do_not_fit_each_other_are_refused(
    tmp_path: Path, kind: str, name: str, shape: tuple[int, ...]
) -> None:
    dataset(make(kind)).save(tmp_path / "made")
    edit_tensors(tmp_path / "made", **{name: torch.ones(shape)})
    refused(tmp_path / "made", "data.safetensors", "has shape")


def test_a_learnt_decoder_counts_beside_the_item_factor(tmp_path: Path) -> None:
    dataset(make("low_rank")).save(tmp_path / "made")
    stored = load_file(tmp_path / "made" / "data.safetensors")
    assert {name: tuple(tensor.shape) for name, tensor in stored.items()} == {
        "latent": (3, 5, L),
        "decoder": (V, L),
        "temperature": (1,),
        "item_factor": (V, R),
    }
    sizes = size_in_bytes(tmp_path / "made")
    assert sizes["item_factor"] == V * R * 4
    assert sizes["data"] - sizes["item_factor"] > 4 * (3 * 5 * L + V * L + 1)


@pytest.mark.parametrize("bad", [0.0, -1.0])
def test_a_temperature_that_is_not_above_zero_is_refused(tmp_path: Path, bad: float) -> None:
    dataset(make("low_rank")).save(tmp_path / "made")
    edit_tensors(tmp_path / "made", temperature=torch.tensor([bad]))
    with pytest.raises(RecdistillError, match=f"temperature of the rows is {bad}, not above 0"):
        DistilledDataset.load(tmp_path / "made")


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_numbers_that_are_not_finite_are_refused(folder: Path, bad: float) -> None:
    factor = torch.ones(V, R)
    factor[3, 2] = bad
    edit_tensors(folder, item_factor=factor)
    refused(folder, "data.safetensors", "'item_factor' holds a NaN or infinity")


@pytest.mark.parametrize("bad", [V + 1, -1])
def test_an_item_outside_the_catalogue_is_refused(folder: Path, bad: int) -> None:
    ids = IDS.clone()
    ids[0, 0] = bad
    edit_tensors(folder, item_ids=ids)
    refused(folder, "data.safetensors", "item ids reach")


@pytest.mark.parametrize("bad", [5, -1])
def test_a_length_outside_the_rows_is_refused(folder: Path, bad: int) -> None:
    edit_tensors(folder, lengths=torch.tensor([4, 2, bad]))
    refused(folder, "data.safetensors", "length")


def test_a_file_that_is_no_safetensors_is_refused(folder: Path) -> None:
    (folder / "data.safetensors").write_bytes(b"\x80\x04pickle")
    edit_manifest(
        folder, lambda value: value["files"].update({"data.safetensors": sha256(folder / "data.safetensors")})
    )
    refused(folder, "data.safetensors", "not a safetensors file")


def test_an_existing_folder_is_kept(folder: Path) -> None:
    before = {file.name: file.read_bytes() for file in folder.iterdir()}
    with pytest.raises(InputError, match="exists already"):
        dataset(make("tucker")).save(folder)
    assert {file.name: file.read_bytes() for file in folder.iterdir()} == before
    dataset(make("tucker")).save(folder, replace=True)
    assert DistilledDataset.load(folder).manifest.kind == "tucker"


@pytest.mark.parametrize("replace", [False, True])
def test_a_failure_half_way_leaves_nothing_behind(folder: Path, monkeypatch: pytest.MonkeyPatch, replace: bool) -> None:
    def fail(path: Path, value: object) -> None:
        assert (path.parent / "data.safetensors").exists()
        raise OSError("disk full")

    monkeypatch.setattr("recdistill.data.distilled.write_json", fail)
    target = folder if replace else folder.parent / "other"
    with pytest.raises(OSError, match="disk full"):
        dataset(make("tucker")).save(target, replace=replace)
    assert [file.name for file in folder.parent.iterdir()] == ["made"]
    assert DistilledDataset.load(folder).manifest.kind == "hard"


def test_sizes_are_those_on_disk(folder: Path) -> None:
    sizes = size_in_bytes(folder)
    assert sizes["total"] == sum(file.stat().st_size for file in folder.iterdir())
    assert sizes["data"] == (folder / "data.safetensors").stat().st_size
    assert sizes["item_factor"] == V * R * 4
    assert is_distilled(folder)
    assert read_manifest(folder).shapes == {"item_ids": [3, 4], "lengths": [3], "item_factor": [V, R]}


def test_the_card_tells_what_it_is(folder: Path) -> None:
    card = (folder / "README.md").read_text()
    assert card.startswith("---\npretty_name: tiny, distilled by random\n")
    assert "3 sequences of 4 items, made by `random` from **tiny** (1,234 training" in card
    assert "* `num_rows`: 3" in card
    assert "`abababababababab`" in card
    assert card.isascii()


def test_ids_of_a_large_catalogue_survive(tmp_path: Path) -> None:
    rows = HardRows(torch.tensor([[40_000, 1]]), torch.tensor([2]))
    source = Source(name="large", hash="ab" * 32, users=1, items=40_000, train_interactions=2, train_bytes=9)
    made = dataset(rows, source=source)
    DistilledDataset(rows, torch.zeros(40_000, 1), vocabulary(40_000), made.manifest).save(tmp_path / "made")
    assert DistilledDataset.load(tmp_path / "made").rows.batch(torch.tensor([0])).items.ids.tolist() == [[40_000, 1]]
