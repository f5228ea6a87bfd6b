"""From a memory of clicks to models and scores: export, train, evaluate, and what they say of mistakes."""

from pathlib import Path

import numpy as np
import polars as pl
import pytest
from command_line import call

from recdistill.training.click_checkpoint import load_click_model

COLUMNS = ("--categorical", "user,shop", "--numeric", "price", "--label", "click", "--time", "time", "--group", "user")
SMALL = ("--model-option", "embedding_dim=4", "--model-option", "hidden_units=[6]")
for pair in ("epochs=0", "ratio=0.5"):
    SMALL += ("--option", pair)
QUICK = ("--recipe", "epochs=2", "--option", "hidden_units=[6]")


def write_block(folder: Path, day: int, rows: int = 80, **changes: object) -> None:
    draw = np.random.default_rng(day)
    columns = {"user": draw.integers(0, 30, rows), "shop": draw.integers(0, 4, rows), "price": draw.normal(size=rows)}
    columns |= {"click": draw.integers(0, 2, rows), "time": 100 * day + np.arange(rows)}
    pl.DataFrame(columns | changes).write_parquet(folder / f"day-{day}.parquet")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three days, and a memory of the first two."""
    folder = tmp_path_factory.mktemp("clicks")
    for day in range(3):
        write_block(folder, day)
    for day in range(2):
        told = (*COLUMNS, *SMALL) if day == 0 else ()
        assert call("stream", folder / "memory", folder / f"day-{day}.parquet", *told).code == 0
    assert call("export", folder / "memory", folder / "rows", "--groups", "3").code == 0
    return folder


@pytest.fixture
def here(made: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(made)
    return made


@pytest.mark.parametrize(
    ("data", "options", "tables"),
    [
        ("memory", (), "given"),
        ("memory", ("--option", "embedding_dim=3"), "given"),
        ("memory", ("--model", "wukong", "--version", "1"), "given"),
        ("rows", (), "own"),
        ("rows", ("--model", "lr"), "own"),
    ],
)
def test_a_model_is_trained_and_scored(
    here: Path, tmp_path: Path, data: str, options: tuple[str, ...], tables: str
) -> None:
    quick = QUICK if not {"lr", "wukong"} & set(options) else QUICK[:2]
    told = call("train", data, tmp_path / "model", *quick, *options, "--json").json
    assert (told["tables"], told["trained_on"]) == (tables, "diet")
    assert told["version"] == (1 if "--version" in options else 2)
    scored = call("evaluate", tmp_path / "model", "day-2.parquet", "--json").json
    assert scored["rows"] == 80
    assert set(scored["metrics"]) == {"auc", "log_loss", "grouped_auc", "calibration_error"}
    assert "log_loss" in call("evaluate", tmp_path / "model", "day-2.parquet").out
    assert tables in call("inspect", tmp_path / "model").out
    again = call("train", data, tmp_path / "again", *quick, *options).code
    assert again == 0
    first, second = (load_click_model(tmp_path / name).model.state_dict() for name in ("model", "again"))
    assert all(bool((value == second[name]).all()) for name, value in first.items())


def test_an_export_says_what_it_holds(here: Path) -> None:
    told = call("inspect", "rows", "--json").json
    assert (told["rows"], told["fields"], told["method"], told["version"]) == (80, 3, "diet", 2)
    assert told["groups"] == 5 + 5 + 5
    whole = call("export", "memory", "whole", "--groups", "0", "--version", "1", "--json").json
    assert whole["rows"] == 40
    assert whole["groups"] == whole["ids"]
    assert "whole" in call("export", "memory", "whole", "--groups", "0", "--overwrite").out


def test_values_that_came_later_are_unknown(here: Path, tmp_path: Path) -> None:
    assert call("train", "rows", tmp_path / "model", *QUICK).code == 0
    write_block(tmp_path, 5, user=np.arange(1000, 1080), price=[None] * 80)
    assert call("evaluate", tmp_path / "model", tmp_path / "day-5.parquet", "--json").json["rows"] == 80


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("train", "memory", "out", "--items", "frozen"), "--items"),
        (("train", "memory", "out", "--valid", "memory"), "--valid"),
        (("train", "memory", "out", "--max-seq-len", "5"), "--max-seq-len"),
        (("train", "memory", "out", "--model", "sasrec"), "choose from lr, fm"),
        (("train", "memory", "out", "--option", "layers=3"), "layers"),
        (("train", "memory", "out", "--recipe", "rows=windows"), "rows"),
        (("train", "memory", "out", "--version", "9"), "there are: 1 to 2"),
        (("train", "rows", "out", "--version", "1"), "export of one version"),
        (("train", "memory", "rows"), "exists already"),
        (("train", "memory", "rows", "--overwrite"), "holds an export of clicks"),
        (("export", "rows", "out"), "is an export of clicks"),
        (("export", "nothing", "out"), "does not exist"),
        (("export", "memory", "out", "--groups", "1"), "groups"),
        (("export", "memory", "out", "--version", "0"), "--version"),
    ],
)
def test_mistakes_are_named_and_leave_nothing(here: Path, arguments: tuple[str, ...], told: str) -> None:
    result = call(*arguments)
    assert (result.code, told in result.complaint) == (2, True), result.complaint
    assert not (here / "out").exists()


def test_rows_of_one_label_cannot_be_scored(here: Path, tmp_path: Path) -> None:
    assert call("train", "rows", tmp_path / "model", *QUICK).code == 0
    write_block(tmp_path, 7, click=[1] * 80)
    complaint = call("evaluate", tmp_path / "model", tmp_path / "day-7.parquet").complaint
    assert "all 80 labels are 1" in complaint
    pl.read_parquet(tmp_path / "day-7.parquet").drop("shop").write_parquet(tmp_path / "less.parquet")
    assert "no column 'shop'" in call("evaluate", tmp_path / "model", tmp_path / "less.parquet").complaint


def test_a_damaged_model_is_refused(here: Path, tmp_path: Path) -> None:
    assert call("train", "rows", tmp_path / "model", *QUICK).code == 0
    path = tmp_path / "model" / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-4])
    assert "SHA-256" in call("evaluate", tmp_path / "model", "day-2.parquet").complaint
