"""FuxiCTR and the library are given the same rows, batches and settings, and their answers are counted alike.

Proved here, without FuxiCTR and without its data: every argument of a model is handed over, nothing regularises, the
test rows have no ids of their own, the batches of FuxiCTR are those of the library, logits are taken before the last
sigmoid, and the published rows are those of all models. Not proved here: that FuxiCTR's models read their arguments as
we think.
"""

import ast
import json
import sys
from dataclasses import asdict
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch
from torch import nn

from benchmarks import fuxictr_peer
from benchmarks.click_accuracy import EPOCHS, METRICS, SIDES, TOLERANCE, Problem, difference, rows_of, targets
from benchmarks.click_settings import COMMON, DIFFERENCES, RECIPE, SETTINGS
from recdistill.data.clicks.block import ClickBatch
from recdistill.data.clicks.blocks import ClickBlocks, ClickLog
from recdistill.data.clicks.codes import UNKNOWN
from recdistill.data.clicks.fields import ClickSpec, Field
from recdistill.evaluation.clicks import click_scores
from recdistill.models.clicks import CLICK_MODELS
from recdistill.rng import Streams
from recdistill.training.clicks import fit_clicks
from recipes.record import RESULTS, as_json

ROWS = 3000
RESULT = RESULTS / "benchmarks" / "click_accuracy.json"


@pytest.fixture(scope="module")
def problem() -> Problem:
    """Three blocks of a log; its last row alone has an item that no other has."""
    rng = np.random.default_rng(0)
    items = [f"i{item}" for item in rng.integers(0, 20, ROWS)]
    frame = pl.DataFrame(
        {
            "item": [*items[:-1], "new"],
            "tags": ["|".join(map(str, rng.integers(0, 9, rng.integers(0, 4)))) for _ in range(ROWS)],
            "price": rng.normal(size=ROWS),
            "label": rng.integers(0, 2, ROWS),
            "time": np.arange(ROWS),
        }
    )
    fields = (Field(name="item"), Field(name="tags", kind="multi", max_values=3), Field(name="price", kind="numeric"))
    return Problem.of(ClickBlocks.by_count(ClickLog.of(frame.lazy(), ClickSpec(fields=fields, time="time")), 3))


def test_all_models_are_compared_with_the_defaults_of_the_library() -> None:
    assert list(SETTINGS) == list(CLICK_MODELS)
    for name, setting in SETTINGS.items():
        assert setting.config == CLICK_MODELS[name].options()


@pytest.mark.parametrize("name", SETTINGS)
def test_every_argument_of_a_model_has_a_name_in_fuxictr_and_hides_no_other(name: str) -> None:
    setting = SETTINGS[name]
    assert set(setting.names) == set(setting.config)
    told = [peer for names in setting.names.values() for peer in names]
    assert len(told) == len(set(told))
    assert not set(told) & (set(setting.switches) | set(COMMON) | {"learning_rate"})
    assert not set(setting.peer_options()) & set(COMMON)
    assert set(setting.peer_options()) == {*told, *setting.switches, "learning_rate"}


def test_fuxictr_is_told_the_settings_of_ours() -> None:
    told = {name: setting.peer_options() for name, setting in SETTINGS.items()}
    assert told["lr"] == {"learning_rate": RECIPE.learning_rate}
    assert told["fm"]["embedding_dim"] == SETTINGS["fm"].config["embedding_dim"]
    assert told["deepfm"]["hidden_units"] == list(SETTINGS["deepfm"].config["hidden_units"])
    both = (told["finalmlp"]["mlp1_hidden_units"], told["finalmlp"]["mlp2_hidden_units"])
    assert both == (list(SETTINGS["finalmlp"].config["hidden_units"]),) * 2
    ours = SETTINGS["wukong"].config
    assert told["wukong"]["fmb_dim"] == ours["products"] * ours["embedding_dim"]
    assert told["wukong"]["compression_dim"] == ours["combinations"] * ours["embedding_dim"]
    assert told["wukong"]["project_dim"] == ours["rank"]
    assert json.loads(json.dumps(told)) == told


def test_nothing_regularises() -> None:
    assert RECIPE.weight_decay == 0
    assert RECIPE.patience is None
    for setting in SETTINGS.values():
        rates = {name: value for name, value in setting.peer_options().items() if "dropout" in name}
        assert set(rates.values()) <= {0.0}
        assert len(rates) == len(setting.names.get("dropout", ()))
        assert not {"batch_norm", "embedding_regularizer", "net_regularizer"} & set(setting.peer_options())
    assert set(DIFFERENCES) <= {"all", *SETTINGS}


def test_the_last_block_is_asked_about_with_the_ids_of_those_before(problem: Problem) -> None:
    assert (len(problem.train), len(problem.test)) == (2000, 1000)
    assert problem.train.ids.shape[1] == problem.test.ids.shape[1] == 5
    assert problem.test.ids[-1, 0] == UNKNOWN
    assert (problem.test.ids[:-1, 0] != UNKNOWN).all()
    assert [one["width"] for one in problem.fields] == [1, 3, 1]
    starts = np.cumsum([0, *(one["width"] for one in problem.fields)])
    for one, start in zip(problem.fields, starts, strict=False):
        columns = slice(start, start + one["width"])
        assert max(problem.train.ids[:, columns].max(), problem.test.ids[:, columns].max()) < one["num_ids"]
    facts = problem.facts()
    assert (facts["train_rows"], facts["fields"], facts["hash"]) == (2000, 3, problem.fingerprint)


class Watched:
    """Rows that remember in which order they were asked for."""

    def __init__(self, problem: Problem) -> None:
        self.block = problem.train
        self.seen: list[np.ndarray] = []

    def __len__(self) -> int:
        return len(self.block)

    def batch(self, rows: np.ndarray) -> ClickBatch:
        self.seen.append(rows)
        return self.block.batch(rows)


def test_fuxictr_is_given_the_batches_of_the_library(problem: Problem) -> None:
    watched, streams = Watched(problem), Streams(7)
    widths = problem.vocabulary.spec.widths
    model = CLICK_MODELS["lr"](problem.vocabulary.num_ids, widths, generator=streams.torch("weights"))
    fit_clicks(model, watched, RECIPE, streams)
    orders = problem.orders(7)
    assert orders.shape == (RECIPE.epochs, len(problem.train))
    batches = [part for order in orders for part in np.split(order, [RECIPE.batch_size])]
    assert [rows.tolist() for rows in watched.seen] == [rows.tolist() for rows in batches]
    assert not np.array_equal(orders, problem.orders(8))


def test_a_run_of_ours_is_scored_after_every_epoch(problem: Problem) -> None:
    found = problem.ours("fm", 0)
    assert set(found["metrics"]) == {f"{name} {epoch}" for name in METRICS for epoch in EPOCHS}
    assert found["metrics"]["log_loss 1"] != found["metrics"]["log_loss 2"]
    assert len(found["losses"]) == len(EPOCHS)
    assert found["fingerprint"] == problem.fingerprint
    assert problem.ours("fm", 0)["metrics"] == found["metrics"]


STUB = """
import torch
from torch import nn

class Stub(nn.Module):
    def __init__(self, feature_map, model_root, learning_rate, **options):
        super().__init__()
        self.options, self.fields, self.labels, self.seen = options, feature_map.features, feature_map.labels, []
        self.weight = nn.Parameter(torch.zeros(1))
        self.output_activation = nn.Sigmoid()
        self.rate = learning_rate

    def regularization_loss(self):
        return self.options.get("regularization", 0)

    def forward(self, inputs):
        shown = [inputs[name].reshape(len(inputs[name]), -1).sum(1) for name in self.fields]
        return {"y_pred": self.output_activation(self.weight + torch.stack(shown, 1).sum(1, keepdim=True))}

    def train_step(self, batch):
        assert self.training and self._max_gradient_norm == float("inf")
        self.seen.append(batch)
        with torch.no_grad():
            self.weight += self.rate
        return batch[self.labels[0]].mean()
"""


def stub_job(problem: Problem, folder: Path, monkeypatch: pytest.MonkeyPatch, **options: float) -> dict[str, Any]:
    """Return a job for a model that adds up the ids of a row, with what FuxiCTR needs beside it."""
    maps, tools = ModuleType("fuxictr.features"), ModuleType("fuxictr.pytorch.torch_utils")

    def feature_map(dataset: str, folder: str) -> SimpleNamespace:
        return SimpleNamespace(features={}, get_num_fields=lambda: 3)

    maps.FeatureMap, tools.seed_everything = feature_map, torch.manual_seed  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, maps.__name__, maps)
    monkeypatch.setitem(sys.modules, tools.__name__, tools)
    (folder / "Stub.py").write_text(STUB, encoding="utf-8")
    np.savez(folder / "data.npz", **problem.arrays)  # type: ignore[arg-type]
    np.save(folder / "orders.npy", problem.orders(0))
    job = {"file": str(folder / "Stub.py"), "data": "data.npz", "orders": "orders.npy", "fields": problem.fields}
    return job | {"batch_size": RECIPE.batch_size, "seed": 0, "options": {"learning_rate": 0.5, **options}}


def test_the_peer_trains_on_the_batches_and_writes_logits(
    problem: Problem, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    peer = fuxictr_peer.Peer(stub_job(problem, tmp_path, monkeypatch), tmp_path)
    assert peer.fingerprint == problem.fingerprint
    logits, losses = peer.train()
    taken = problem.orders(0)[0][: RECIPE.batch_size]
    first = peer.model.seen[0]
    assert first["item"].tolist() == problem.train.ids[taken, 0].tolist()
    assert first["tags"].tolist() == problem.train.ids[taken, 1:4].tolist()
    assert first["price"].tolist() == problem.train.ids[taken, 4].tolist()
    assert first[fuxictr_peer.LABEL].tolist() == problem.train.labels[taken].tolist()
    steps = -(-len(problem.train) // RECIPE.batch_size)
    assert (len(peer.model.seen), len(losses)) == (steps * len(EPOCHS), len(EPOCHS))
    sums = problem.test.ids.sum(1)
    for epoch, found in enumerate(logits, start=1):
        assert found.tolist() == pytest.approx((sums + 0.5 * steps * epoch).tolist())  # a sigmoid would end at 1
    assert isinstance(peer.model.output_activation, nn.Sigmoid)
    scores = problem.metrics([found.numpy() for found in logits])
    assert scores["auc 2"] == click_scores(problem.test.labels, logits[1].numpy()).auc


def test_the_peer_refuses_a_model_that_regularises(
    problem: Problem, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(ValueError, match="regulariser"):
        fuxictr_peer.Peer(stub_job(problem, tmp_path, monkeypatch, regularization=0.1), tmp_path)


def test_several_values_are_averaged_and_single_ones_looked_up(problem: Problem) -> None:
    specs = fuxictr_peer.field_specs(problem.fields)
    assert list(specs) == ["item", "tags", "price"]
    assert [spec["vocab_size"] for spec in specs.values()] == list(problem.vocabulary.num_ids)
    assert [spec["type"] for spec in specs.values()] == ["categorical", "sequence", "categorical"]
    assert (specs["tags"]["max_len"], specs["tags"]["padding_idx"]) == (3, 0)
    assert "padding_idx" not in specs["item"]  # a missing value is learnt, as ours


def test_a_fingerprint_depends_on_values_types_and_shapes() -> None:
    array = np.arange(6, dtype=np.int32)
    others = [array[::-1], array.astype(np.int64), array.reshape(2, 3)]
    assert len({fuxictr_peer.fingerprint(one) for one in (array, *others)}) == 4
    assert fuxictr_peer.fingerprint(array) == fuxictr_peer.fingerprint(array.copy())


def cells_of(ours: list[float], peers: list[float]) -> dict[tuple[str, str], list[dict[str, Any]]]:
    """Return runs of one model, one per seed, with the given AUC after the first epoch and .1 more after the second."""

    def made(auc: float) -> dict[str, Any]:
        metrics = {"auc 1": auc, "auc 2": auc + 0.1, "log_loss 1": 0.6, "log_loss 2": 0.5}
        return {"metrics": metrics, "parameters": 3, "cpu_seconds": 1.0, "losses": [0.6, 0.5]}

    return {("fm", side): [made(auc) for auc in values] for side, values in zip(SIDES, (ours, peers), strict=True)}


def test_rows_are_one_per_side_and_number_of_epochs_and_one_of_differences() -> None:
    rows = rows_of(cells_of([0.7, 0.72], [0.69, 0.73]))
    assert [(row["side"], row["epochs"]) for row in rows] == [(s, e) for e in EPOCHS for s in (*SIDES, "difference")]
    assert [rows[index]["metrics"]["auc"]["mean"] for index in (0, 1, 3)] == pytest.approx([0.71, 0.71, 0.81])
    assert rows[2]["metrics"]["auc"]["values"] == pytest.approx([0.01, -0.01])  # seed by seed
    assert rows[3]["train_loss"] == 0.5


def test_a_difference_is_ours_less_the_peers() -> None:
    (ours,), (peer,) = cells_of([0.7], [0.6]).values()
    assert difference(ours, peer)["metrics"]["auc 1"] == pytest.approx(0.1)


@pytest.mark.parametrize(
    ("ours", "met"), [(0.8, True), (0.7, True), (0.7 - 0.9 * TOLERANCE, True), (0.7 - 1.1 * TOLERANCE, False)]
)
def test_ours_may_be_better_or_worse_by_the_tolerance_but_no_more(ours: float, met: bool) -> None:
    made = targets(rows_of(cells_of([ours] * 3, [0.7] * 3)))
    assert [one["met"] for one in made] == [met] * len(EPOCHS)
    assert made[0]["what"] == "AUC of fm after 1 epoch: ours less FuxiCTR's"


def test_the_peer_needs_nothing_of_the_library() -> None:
    tree = ast.parse(Path(fuxictr_peer.__file__).read_text(encoding="utf-8"))
    imported = {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    imported |= {str(node.module) for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    roots = {name.split(".")[0] for name in imported}
    assert roots - set(sys.stdlib_module_names) == {"numpy", "torch"}


def test_the_published_rows_are_those_of_all_models_under_these_settings() -> None:
    result = json.loads(RESULT.read_text(encoding="utf-8"))
    keys = [(row["model"], row["epochs"], row["side"]) for row in result["rows"]]
    assert keys == [(name, epoch, side) for name in CLICK_MODELS for epoch in EPOCHS for side in (*SIDES, "difference")]
    assert result["settings"] == as_json({name: asdict(setting) for name, setting in SETTINGS.items()})
    assert result["recipe"] == RECIPE.as_dict()
    assert result["differences"] == DIFFERENCES
    assert result["targets"] == targets(result["rows"])
    assert set(result["peer_files"]) == {setting.file for setting in SETTINGS.values()}
    for ours, peers, compared in zip(*(result["rows"][index::3] for index in range(3)), strict=True):
        for name in METRICS:
            gaps = np.subtract(*(row["metrics"][name]["values"] for row in (ours, peers)))
            assert compared["metrics"][name]["values"] == pytest.approx(gaps, abs=2e-5)
