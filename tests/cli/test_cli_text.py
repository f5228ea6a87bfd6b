"""The line with a model that reads texts, on the command line: a log with titles, FOSTER, students, and mistakes."""

from pathlib import Path

import polars as pl
import pytest
from command_line import TEACHER, call

from recdistill.data.distilled import DistilledDataset
from recdistill.storage import read_tensors
from reference.encoders import tiny_encoder, titles
from reference.logs import write_ring

READER = ("--teacher-model", "text", "--max-seq-len", "8", "--teacher-recipe", "epochs=1")
for pair in (
    f"encoder={tiny_encoder()}",
    "max_tokens=16",
    "embedding_dim=8",
    "candidates=7",
    'body_options={"num_blocks":1}',
):
    READER += ("--teacher-option", pair)
FOSTER = ("--method", "foster", "--budget", "3x6")
for pair in (
    "epochs=1",
    "steps_per_epoch=2",
    "inner_steps=2",
    "num_candidates=7",
    "judge_steps=4",
    "outer_batch_size=8",
):
    FOSTER += ("--option", pair)


def write_log(folder: Path, *, without: tuple[str, ...] = (), more: int = 0) -> Path:
    """Return a folder with interactions and items that have titles."""
    folder.mkdir()
    write_ring(folder / "interactions.csv", users=40 + more)
    names = [f"i{item}" for item in range(25)]
    shown = [None if name in without else title for name, title in zip(names, titles(25), strict=True)]
    pl.DataFrame({"item_id": names, "title": shown}).write_csv(folder / "items.csv")
    return folder


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with prepared data, what foster and random_soft made of it, and a student of the first."""
    folder = tmp_path_factory.mktemp("text")
    write_log(folder / "log")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setenv("RECDISTILL_CACHE", str(folder / "cache"))
        for arguments in (
            ("prepare", "log", "prepared"),
            ("distill", "prepared", "foster", *FOSTER, *READER),
            ("distill", "prepared", "soft", "--method", "random_soft", "--budget", "3x6", *READER),
            ("distill", "prepared", "plain", "--method", "random", "--budget", "3x6", *TEACHER),
            ("train", "foster", "student", "--model", "text", "--valid", "prepared", "--recipe", "epochs=1"),
        ):
            result = call(*arguments)
            assert result.code == 0, result.err
    return folder


@pytest.fixture(autouse=True)
def here(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("RECDISTILL_CACHE", str(made / "cache"))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_the_artifact_carries_the_texts(made: Path) -> None:
    catalogue = DistilledDataset.load(made / "foster").catalogue()
    assert catalogue is not None
    assert sorted(catalogue.texts()) == sorted(titles(25))
    assert "text" not in DistilledDataset.load(made / "plain").vocabulary.columns


def test_a_student_is_scored(made: Path) -> None:
    result = call("evaluate", made / "student", made / "prepared", "--json")
    assert result.code == 0, result.err
    assert 0 <= result.json["metrics"]["HR@20"] <= 1
    assert (result.json["model"], result.json["trained_on"]) == ("text", "foster")


def test_a_student_ranks_items_of_another_log(made: Path, here: Path) -> None:
    write_log(here / "log", more=5)
    assert call("prepare", "log", "other").code == 0
    assert call("evaluate", made / "student", "other", "--json").code == 0


def test_a_decoder_with_adapters_learns_what_was_distilled_with_an_encoder(made: Path, here: Path) -> None:
    pairs = (f"encoder={tiny_encoder('qwen3')}", "pooling=last", "max_tokens=16", "embedding_dim=8", "lora_rank=2")
    options = [part for pair in pairs for part in ("--option", pair)]
    result = call(
        *("train", made / "foster", "decoder", "--model", "text", *options),
        *("--valid", made / "prepared", "--recipe", "epochs=2", "--json"),
    )
    assert result.code == 0, result.err
    adapters = [name for name in read_tensors(here / "decoder" / "model.safetensors") if "lora" in name]
    assert adapters
    score = call("evaluate", "decoder", made / "prepared", "--json").json
    assert (score["model"], score["trained_on"]) == ("text", "foster")


def test_models_over_item_numbers_train_on_the_same_rows(made: Path, here: Path) -> None:
    result = call(
        "train", made / "foster", "m", "--model", "gru4rec", "--items", "given", "--recipe", "epochs=1", "--json"
    )
    assert result.code == 0, result.err
    result = call("train", made / "soft", "n", "--items", "frozen", "--recipe", "epochs=1", "--json")
    assert result.code == 0, result.err


def test_all_data_train_a_text_model_in_all_layers(made: Path, here: Path) -> None:
    options = ("--option", f"encoder={tiny_encoder()}", "--option", "layers=all", "--option", "max_tokens=16")
    result = call("train", made / "prepared", "m", "--model", "text", *options, "--recipe", "epochs=1", "--json")
    assert result.code == 0, result.err
    assert call("inspect", "m", "--json").json["config"]["layers"] == "all"


def test_a_plan_of_foster_is_made(made: Path) -> None:
    result = call("plan", made / "prepared", *FOSTER, *READER, "--model", "text", "--json")
    assert result.code == 0, result.err
    stages = {stage["stage"]: stage for stage in result.json["stages"]}
    assert stages["distill"]["basis"]["way"] == "rehearsed"
    assert stages["teacher"]["predicted_s"] > 0


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("train", "plain", "m", "--model", "text"), "reads texts of items, and this distilled dataset has none"),
        (
            ("train", "prepared", "m", "--model", "text"),
            "'huawei-noah/TinyBERT_General_4L_312D' is no folder, and was not found",
        ),
        (("train", "foster", "m", "--model", "text", "--items", "given"), "a text model makes item vectors of texts"),
        (
            ("train", "prepared", "m", "--model", "text", "--option", "encoder=missing"),
            "'missing' is no folder, and was not found on the Hugging Face hub",
        ),
        (
            (
                "train",
                "prepared",
                "m",
                "--model",
                "text",
                "--option",
                f"encoder={tiny_encoder()}",
                "--option",
                "template={name}",
            ),
            "'name' is not known",
        ),
        (
            (
                "train",
                "prepared",
                "m",
                "--model",
                "text",
                "--option",
                f"encoder={tiny_encoder()}",
                "--option",
                "max_tokens=99",
            ),
            "max_tokens: 99 must lie in 3 .. 32",
        ),
        (
            (
                "train",
                "prepared",
                "m",
                "--model",
                "text",
                "--option",
                f"encoder={tiny_encoder()}",
                "--option",
                "layers=some",
            ),
            "layers: 'some' is refused",
        ),
        (
            ("distill", "prepared", "m", "--method", "td3", "--budget", "3x6", *READER),
            "has no item table to differentiate in",
        ),
    ],
)
def test_mistakes_are_told_in_one_line(
    arguments: tuple[str, ...], told: str, made: Path, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    known = [made / part if (made / part).is_dir() else part for part in arguments]
    result = call(*known)
    assert result.code == 2
    assert told in result.err.splitlines()[-1]
    assert not (here / "m").exists()


def test_an_item_without_a_title_is_told(here: Path) -> None:
    write_log(here / "log", without=("i7",))
    assert call("prepare", "log", "prepared").code == 0
    result = call("distill", "prepared", "m", *FOSTER, *READER)
    assert result.code == 2
    assert "item 'i7' has no text: title empty" in result.err.splitlines()[-1]
