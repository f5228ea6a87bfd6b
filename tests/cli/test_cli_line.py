"""The straight line from a raw log to metrics through the command line, and what every command prints.

Not proved here: that the numbers are good. See tests/test_demo.py.
"""

import os
import re
import subprocess
import sys
import warnings
from pathlib import Path

import pytest
import torch
from command_line import COMMANDS, TD3, call, entries

import recdistill
from recdistill.cli import app
from recdistill.data.distilled import DistilledDataset
from recdistill.demo import DemoResult, DemoRow
from recdistill.errors import RecdistillWarning
from recdistill.training.checkpoint import load_model

METHODS = ("td3", "random", "random_soft", "longest", "most_recent", "popularity", "untrained")
NAMES = (
    "demo",
    "prepare",
    "plan",
    "distill",
    "train",
    "evaluate",
    "certify",
    "verify",
    "report",
    "inspect",
    "doctor",
)


def test_the_line_leaves_results_and_nothing_else(line):
    assert entries(line.folder) == sorted([*COMMANDS, "cache", "log.csv", "other.csv"])
    assert len(entries(line["cache"])) == 1  # one teacher serves every method


def test_prepare_prints_sizes(line):
    printed = line.printed["prepared"]
    rows = len((line["log.csv"]).read_text().splitlines()) - 1
    assert (printed["users"], printed["items"], printed["interactions"]) == (40, 25, rows)
    assert (printed["valid_interactions"], printed["test_interactions"]) == (40, 40)
    assert printed["train_interactions"] == rows - 80
    assert (printed["split"], printed["cached"]) == ("leave-one-out", False)


def test_prepare_again_does_nothing_and_says_so(line, here):
    before = (line["prepared"] / "manifest.json").stat().st_mtime_ns
    result = call("prepare", line["log.csv"], line["prepared"], "--json")
    assert result.code == 0
    assert result.json["cached"]
    assert "nothing was done" in result.err
    assert (line["prepared"] / "manifest.json").stat().st_mtime_ns == before


@pytest.mark.parametrize("method", METHODS)
def test_distill_prints_what_it_wrote(method, line):
    printed, dataset = line.printed[method], DistilledDataset.load(line[method])
    rows = 0 if method in ("popularity", "untrained") else 3
    assert printed["method"] == dataset.manifest.method == method
    assert printed["sequences"] == len(dataset.rows) == rows
    assert printed["items per sequence"] == (6 if rows else 0)
    assert printed["bytes"] == sum(file.stat().st_size for file in line[method].iterdir())
    assert len(printed["examples"]) == rows
    assert all(place["item"].startswith("i") for row in printed["examples"] for place in row)
    assert dataset.manifest.teacher["config"]["embedding_dim"] == 8


def test_options_of_the_method_reach_it(line):
    parameters = line.printed["td3"]["parameters"]
    assert (parameters["epochs"], parameters["window"], parameters["pool"]) == (3, 2, [0, 1])
    assert len(DistilledDataset.load(line["td3"]).manifest.trace) == 3


def test_train_records_what_it_was_trained_on(line):
    model, about = load_model(line["model"])
    manifest = DistilledDataset.load(line["td3"]).manifest
    assert (about["trained_on"], about["items"], about["epochs"]) == ("td3", "given", 2)
    assert about["data_hash"] == manifest.source.hash
    assert about["rows_hash"] == manifest.files["data.safetensors"]
    assert about["best_valid_ndcg@10"] is not None
    assert (model.config["embedding_dim"], model.max_seq_len) == (8, 8)  # those of the teacher
    assert load_model(line["counts"])[0].name == "popularity"


@pytest.mark.parametrize(("data", "items"), [("td3", "random"), ("random_soft", "frozen"), ("untrained", "given")])
def test_train_with_every_item_table(data, items, line, here):
    result = call("train", line[data], "m", "--items", items, "--recipe", "epochs=1", "--json")
    assert result.code == 0, result.err
    assert (result.json["items"], result.json["trained_on"]) == (items, data)
    factor, table = DistilledDataset.load(line[data]).item_factor, load_model(Path("m"))[0].item_table[1:]
    assert bool((factor == table).all()) == (items != "random")  # 'untrained' takes no step from 'given'


def test_distilled_data_is_trained_for_thirty_epochs_where_nothing_stops_it(line, here):
    shape = ("--recipe", "steps_per_epoch=1")
    assert call("train", line["random"], "m", *shape, "--json").json["epochs"] == 30
    assert call("train", line["random"], "n", *shape, "--recipe", "epochs=2", "--json").json["epochs"] == 2


@pytest.mark.parametrize("protocol", ["full", "uni100"])
@pytest.mark.parametrize("part", ["test", "valid"])
def test_evaluate_prints_metrics(protocol, part, line, here):
    result = call("evaluate", line["model"], line["prepared"], "--protocol", protocol, "--part", part, "--json")
    assert (result.code, result.err) == (0, "")
    assert (result.json["protocol"], result.json["part"], result.json["cases"]) == (protocol, part, 40)
    metrics = result.json["metrics"]
    assert set(metrics) == {f"{name}@{k}" for name in ("HR", "NDCG", "MRR") for k in (5, 10, 20)}
    assert all(0 <= value <= 1 for value in metrics.values())
    assert metrics["HR@5"] <= metrics["HR@10"] <= metrics["HR@20"]


@pytest.mark.parametrize("name", ["prepared", "td3", "popularity", "model", "counts"])
def test_inspect_shows_every_kind(name, line, here):
    result = call("inspect", line[name], "--json")
    assert (result.code, result.err) == (0, "")
    assert result.json["folder"] == str(line[name])
    printed = {key: value for key, value in line.printed[name].items() if key not in ("folder", "cached")}
    assert printed.items() <= result.json.items()
    table = call("inspect", line[name])
    assert table.code == 0
    assert str(line[name])[:40] in table.out


def test_inspect_shows_a_teacher(line, here):
    printed = call("inspect", line.teacher, "--json").json
    assert (printed["model"], printed["epochs"], printed["about"]["data"]) == ("sasrec", 1, "log")
    assert "losses" in call("inspect", line.teacher).out


def test_soft_rows_show_probabilities_and_real_rows_do_not(line, here):
    assert "most probable" in call("inspect", line["td3"]).out
    assert "probab" not in call("inspect", line["longest"]).out


def test_a_given_teacher_is_the_cached_one(line, here):
    arguments = ("--method", "random", "--budget", "3x6", "--teacher", line.teacher)
    assert call("distill", line["prepared"], "again", *arguments).code == 0
    assert (here / "again" / "data.safetensors").read_bytes() == (line["random"] / "data.safetensors").read_bytes()


def test_models_that_a_method_trains_are_kept_in_the_cache(line, here):
    learnt = ("--option", 'families=["gru4rec_64"]', "--option", "peer_epochs=1", "--option", "epochs=0")
    arguments = ("--method", "refined", "--budget", "3x6", *learnt, "--teacher", line.teacher, "--cache", "cache")
    assert call("distill", line["prepared"], "one", *arguments, "--json").json["method"] == "refined"
    (peer,) = (here / "cache").iterdir()
    before = (peer / "trajectory.json").stat().st_mtime_ns
    assert call("distill", line["prepared"], "again", *arguments).code == 0
    assert [entry.stat().st_mtime_ns for entry in (here / "cache").glob("*/trajectory.json")] == [before]
    assert (here / "again" / "data.safetensors").read_bytes() == (here / "one" / "data.safetensors").read_bytes()
    assert entries(here) == ["again", "cache", "one"]


def test_distill_goes_on_uncompiled_where_the_compiler_fails_and_says_so(line, here, monkeypatch):
    def fail(module, inputs):
        raise RuntimeError("no compiler found\nand more")

    monkeypatch.setattr("torch._inductor.compile", fail)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of torch's own first forward derivative
        warnings.simplefilter("always", RecdistillWarning)
        result = call("distill", line["prepared"], "compiled", *TD3, "--teacher", line.teacher, "--compile")
    assert result.code == 0
    said = [text for text in result.err.splitlines() if text.startswith("recdistill: warning: ")]
    assert said == [
        "recdistill: warning: the inner loop runs uncompiled, right but slower; "
        "the compiler failed: RuntimeError: no compiler found"
    ]
    ours, theirs = (DistilledDataset.load(each).rows.tensors() for each in (here / "compiled", line["td3"]))
    for name, value in theirs.items():
        torch.testing.assert_close(ours[name], value, rtol=1e-3, atol=1e-5)


def test_overwrite_replaces_a_result_of_the_same_kind(line, here):
    shape = ("--recipe", "epochs=1", "--recipe", "steps_per_epoch=1")
    for seed in (0, 1):
        result = call("train", line["random"], "m", *shape, "--seed", seed, "--overwrite")
        assert result.code == 0, result.err
        assert load_model(Path("m"))[1]["seed"] == seed
    assert entries(here) == ["m"]


def test_doctor(here, monkeypatch):
    result = call("doctor", "--json")
    assert (result.code, result.err) == (0, "")
    assert result.json["checks"]["sasrec has second derivatives"] is True
    assert result.json["facts"]["recdistill"] == recdistill.__version__
    monkeypatch.setenv("CXX", "no-such-compiler")
    assert call("doctor", "--json").json["facts"]["C++ compiler, for --compile"] is None
    assert "ok" in call("doctor").out


def test_doctor_reports_a_cache_that_cannot_be_written(here, monkeypatch):
    monkeypatch.setattr("recdistill.cli.doctor.os.access", lambda path, mode: False)
    result = call("doctor", "--json")
    assert result.code == 1
    assert result.json["checks"]["cache can be written"] is False


def test_demo_prints_its_table(here, monkeypatch):
    row = DemoRow(trained_on="td3", items="given", hr=0.5, ndcg=0.25, bytes=1234, seconds=1.5)
    page = here / "d" / "report.html"
    made = DemoResult([row], margin=0.4, train_bytes=9, headline="Ranks.", report=page, folder=here / "d", seconds=3.0)
    monkeypatch.setattr("recdistill.cli.demo.run_demo", lambda out, workers, seed, progress: made)
    printed = call("demo", "--out", "d", "--json").json
    assert (printed["margin"], printed["folder"], printed["rows"][0]["hr"]) == (0.4, "d", 0.5)
    assert printed["report"] == str(page)
    shown = call("demo", "--out", "d").out
    assert "0.500" in shown
    assert "TD3, by its certificate: Ranks." in shown
    assert shown.endswith(f"the report, for a browser: {page}\n")


@pytest.mark.parametrize("arguments", [(), ("--help",), *((name, "--help") for name in NAMES)])
def test_help_fits_a_narrow_terminal(arguments, here, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    result = call(*arguments)
    assert (result.code, result.err) == (0, "")
    assert max(len(text) for text in result.out.splitlines()) <= 80
    for name in NAMES if len(arguments) < 2 else ():
        assert re.search(rf"\b{name}\b", result.out)


@pytest.mark.parametrize("name", NAMES)
def test_every_option_is_explained(name, here):
    shown = call(name, "--help").out
    for argument in app[name].assemble_argument_collection(parse_docstring=True):
        assert argument.name.strip("-") in shown
        assert argument.parameter.help, argument.name


def test_help_names_what_option_and_recipe_take(here, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    shown = {name: call(name, "--help").out for name in ("prepare", "distill", "train")}
    assert "movielens-100k" in shown["prepare"]
    assert "judge_steps=200" in shown["distill"]
    assert "precision=float16" in shown["distill"]
    assert "embedding_dim=64" in shown["train"]
    assert "steps_per_epoch=20" in shown["train"]


def test_the_version(here):
    assert call("--version").out == f"{recdistill.__version__}\n"


def test_the_installed_command(line, here):
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    command = Path(sys.executable).with_name("recdistill")
    wrong = subprocess.run([command, "inspect", "nosuch"], capture_output=True, text=True, env=environment)
    assert (wrong.returncode, wrong.stdout) == (2, "")
    assert wrong.stderr == "recdistill: error: nosuch: does not exist; give a folder written by recdistill\n"
    head = f"'{command}' inspect '{line['td3']}' --json | head -c 1"  # the reader of the pipe goes before the writer
    closed = subprocess.run(["bash", "-c", head], capture_output=True, text=True, env=environment)
    assert (closed.stdout, closed.stderr) == ("{", "")
