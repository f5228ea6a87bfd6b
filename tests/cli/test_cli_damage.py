"""Folders that were damaged, or come from a newer recdistill, are refused in one line that names the file."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from command_line import call, entries


def changed_byte(name: str) -> Callable[[Path], None]:
    def damage(folder: Path) -> None:
        data = bytearray((folder / name).read_bytes())
        data[-5] ^= 1
        (folder / name).write_bytes(data)

    return damage


def removed(name: str) -> Callable[[Path], None]:
    return lambda folder: (folder / name).unlink()


def edited(name: str, *keys: str, value: object) -> Callable[[Path], None]:
    def damage(folder: Path) -> None:
        header = json.loads((folder / name).read_text())
        place = header
        for key in keys[:-1]:
            place = place[key]
        place[keys[-1]] = value
        (folder / name).write_text(json.dumps(header))

    return damage


def cut(name: str) -> Callable[[Path], None]:
    return lambda folder: (folder / name).write_text((folder / name).read_text()[:-30])


DAMAGE = {
    "prepared, byte": ("prepared", changed_byte("history_items.npy"), ("history_items.npy", "SHA-256", "prepare")),
    "prepared, gone": ("prepared", removed("users.parquet"), ("users.parquet", "is missing", "prepare")),
    "prepared, newer": ("prepared", edited("manifest.json", "format_version", value=99), ("version 99", "update")),
    "prepared, shape": ("prepared", edited("manifest.json", "users", value=41), ("users.parquet", "41", "prepare")),
    "prepared, no JSON": ("prepared", cut("manifest.json"), ("manifest.json", "is not JSON", "make it again")),
    "distilled, byte": ("td3", changed_byte("data.safetensors"), ("data.safetensors", "SHA-256", "distill again")),
    "distilled, gone": ("td3", removed("vocabulary.parquet"), ("vocabulary.parquet", "is missing", "distill again")),
    "distilled, newer": ("td3", edited("manifest.json", "format_version", value=2), ("version 2", "update recdistill")),
    "distilled, shape": ("td3", edited("manifest.json", "num_rows", value=9), ("'user_factor'", "N is 9", "again")),
    "distilled, kind": ("td3", edited("manifest.json", "kind", value="x"), ("manifest.json", "'x'", "update")),
    "distilled, field": ("td3", edited("manifest.json", "seed", value="x"), ("'seed'", "distill again")),
    "model, byte": ("model", changed_byte("model.safetensors"), ("model.safetensors", "SHA-256", "make it again")),
    "model, gone": ("model", removed("model.safetensors"), ("model.safetensors", "is missing", "make it again")),
    "model, newer": ("model", edited("model.json", "format_version", value=7), ("version 7", "update recdistill")),
    "model, shape": ("model", edited("model.json", "config", "inner_dim", value=9), ("shape", "make it again")),
}
USES: dict[str, tuple[tuple[str, ...], ...]] = {
    "prepared": (("inspect", "d"), ("distill", "d", "out", "--method", "random"), ("train", "d", "out")),
    "td3": (("inspect", "d"), ("train", "d", "out")),
    "model": (("inspect", "d"), ("evaluate", "d", "@prepared")),
}


@pytest.mark.parametrize("name", DAMAGE)
def test_damage_is_found_by_every_command_that_reads_it(name, line, here):
    kind, damage, pieces = DAMAGE[name]
    shutil.copytree(line[kind], here / "d")
    damage(here / "d")
    for arguments in USES[kind]:
        result = call(*(line[word[1:]] if word.startswith("@") else word for word in arguments))
        assert result.code == 2, result
        missing = [piece for piece in pieces if piece not in result.complaint]
        assert not missing, result.complaint
        assert entries(here) == ["d"]


def test_a_teacher_of_other_data_a_newer_or_a_damaged_one_is_refused(line, here):
    distill = ("--method", "random", "--budget", "3x6", "--teacher")
    complaint = call("distill", line["other"], "out", *distill, line.teacher).complaint
    assert f"{line.teacher}: was trained on other data" in complaint
    assert "leave --teacher out" in complaint
    shutil.copytree(line.teacher, here / "t")
    edited("trajectory.json", "format_version", value=5)(here / "t")
    assert "version 5" in call("distill", line["prepared"], "out", *distill, "t").complaint
    assert "version 5" in call("inspect", "t").complaint
    shutil.copytree(line.teacher, here / "u")
    changed_byte("epoch-0001.safetensors")(here / "u")
    complaint = call("distill", line["prepared"], "out", *distill, "u").complaint
    assert "u/epoch-0001.safetensors: has another SHA-256" in complaint
    assert entries(here) == ["t", "u"]
