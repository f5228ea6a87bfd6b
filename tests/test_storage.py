"""Files are either whole or absent."""

import hashlib
import json
import os
from pathlib import Path

import pytest
import torch

from recdistill.errors import ArtifactError, InputError
from recdistill.storage import (
    atomic_folder,
    read_json,
    read_tensors,
    refuse_existing,
    sha256,
    sha256_of,
    write_json,
    write_tensors,
    write_text,
)


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_folder_appears_when_it_is_complete(tmp_path: Path) -> None:
    target = tmp_path / "new" / "deep"
    with atomic_folder(target) as temporary:
        (temporary / "a").write_text("1")
        assert not target.exists()
        assert temporary.parent == target.parent
    assert names(target) == ["a"]
    assert names(target.parent) == ["deep"]


@pytest.mark.parametrize("replace", [False, True])
def test_a_folder_that_fails_leaves_what_was_there(tmp_path: Path, replace: bool) -> None:
    target = tmp_path / "made"
    if replace:
        write_text(tmp_path / "x", "")
        target.mkdir()
        (target / "old").write_text("1")
    with pytest.raises(ValueError, match="stop"), atomic_folder(target, replace=replace) as temporary:  # noqa: PT012
        (temporary / "new").write_text("2")
        raise ValueError("stop")
    assert names(tmp_path) == (["made", "x"] if replace else [])
    assert not replace or names(target) == ["old"]


def test_an_old_folder_is_replaced_whole(tmp_path: Path) -> None:
    target = tmp_path / "made"
    target.mkdir()
    (target / "old").write_text("1")
    with atomic_folder(target, replace=True) as temporary:
        (temporary / "new").write_text("2")
        assert names(target) == ["old"]
    assert names(target) == ["new"]
    assert names(tmp_path) == ["made"]


def test_an_empty_folder_may_be_filled(tmp_path: Path) -> None:
    (tmp_path / "made").mkdir()
    with atomic_folder(tmp_path / "made") as temporary:
        (temporary / "new").write_text("2")
    assert names(tmp_path / "made") == ["new"]
    assert names(tmp_path) == ["made"]


def test_what_exists_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("1")
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "a").write_text("1")
    for path, match in ((tmp_path / "file", "is a file"), (tmp_path / "folder", "exists already")):
        with pytest.raises(InputError, match=match):
            refuse_existing(path)
        with pytest.raises(InputError, match=match), atomic_folder(path):
            pass
    with pytest.raises(InputError, match="is a file"):
        refuse_existing(tmp_path / "file", replace=True)
    refuse_existing(tmp_path / "folder", replace=True)
    refuse_existing(tmp_path / "nothing")
    assert (tmp_path / "folder" / "a").read_text() == "1"


def test_text_replaces_in_one_step(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a"
    write_text(path, "old")
    seen = []

    def replace(source: Path, target: Path) -> None:
        seen.append((Path(source).read_text(encoding="utf-8"), Path(target).read_text()))
        original(source, target)

    original = os.replace
    monkeypatch.setattr("recdistill.storage.os.replace", replace)
    write_text(path, "n\u00e9w")
    assert seen == [("n\u00e9w", "old")]
    assert path.read_text(encoding="utf-8") == "n\u00e9w"
    assert names(tmp_path) == ["a"]


def test_json_survives(tmp_path: Path) -> None:
    value = {"a": [1, 2.5, None, True], "b": {"c": "\u00fc"}}
    write_json(tmp_path / "a", value)
    assert read_json(tmp_path / "a") == value
    assert (tmp_path / "a").read_text(encoding="utf-8").endswith("}\n")


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_json_without_nan(tmp_path: Path, bad: float) -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_json(tmp_path / "a", {"x": bad})
    assert names(tmp_path) == []


@pytest.mark.parametrize("content", [b"{", b"\xff\xfe", b""])
def test_what_is_no_json_is_named(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a.json").write_bytes(content)
    with pytest.raises(ArtifactError, match=r"a\.json: is not JSON"):
        read_json(tmp_path / "a.json")


@pytest.mark.parametrize("read", [read_json, read_tensors])
def test_a_missing_file_is_named(tmp_path: Path, read) -> None:
    with pytest.raises(ArtifactError, match=r"nothing\.json: is missing") as caught:
        read(tmp_path / "nothing.json")
    assert caught.value.path == tmp_path / "nothing.json"


def test_tensors_survive(tmp_path: Path) -> None:
    weights = torch.randn(3, 4, requires_grad=True)
    write_tensors(tmp_path / "a", {"w": weights, "t": weights.T, "n": torch.tensor([True])}, {"note": "x"})
    found = read_tensors(tmp_path / "a")
    assert torch.equal(found["w"], weights)
    assert torch.equal(found["t"], weights.T)
    assert found["n"].tolist() == [True]
    assert not found["w"].requires_grad
    assert names(tmp_path) == ["a"]


def test_what_is_no_safetensors_is_named(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"\x80\x04pickle")
    with pytest.raises(ArtifactError, match="is not a safetensors file"):
        read_tensors(tmp_path / "a")


def test_hashes(tmp_path: Path) -> None:
    content = bytes(range(256)) * 10_000  # more than one block
    (tmp_path / "a").write_bytes(content)
    assert sha256(tmp_path / "a") == hashlib.sha256(content).hexdigest()
    assert sha256_of({"b": 1, "a": 2}) == sha256_of({"a": 2, "b": 1})
    assert len({sha256_of(1, 2), sha256_of([1, 2]), sha256_of("1", 2), sha256_of(12)}) == 4
    assert sha256_of(1) == hashlib.sha256(json.dumps([1]).encode()).hexdigest()
