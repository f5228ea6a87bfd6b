"""The peer of the benchmarks computes what the library computes, so that the two may be timed against each other."""

import json
from pathlib import Path

import pytest
import torch

from benchmarks.problem import Problem, Size
from benchmarks.reference_td3 import ReferenceTD3
from recdistill.data.batches import HardItems
from recdistill.distill.base import Engine
from recdistill.distill.student_losses import InnerSteps

SMALL = Size(items=61, rows=6, length=8, rank=3, minibatch=3, width=8, blocks=2, heads=2, inner=16, real=32)
RESULTS = sorted((Path(__file__).parents[2] / "results" / "benchmarks").glob("*.json"))


def without_dropout(problem: Problem) -> None:
    problem.model.dropout = 0.0
    for block in problem.model.blocks:
        block.attention.dropout = block.attention.attention_dropout = block.feed_forward.dropout = 0.0


@pytest.mark.parametrize("engine", [Engine(), Engine(dense_bytes=1)], ids=["dense", "tiled"])
def test_the_reference_has_the_meta_gradient_of_the_library(engine: Engine) -> None:
    problem, inner_steps = Problem(SMALL, engine, 5, torch.float64), 9
    without_dropout(problem)
    result, expected = problem.meta_gradient(inner_steps)

    factors = {name: value.detach().clone() for name, value in problem.synthetic.named_parameters()}
    config = problem.model.config | {"dropout": 0.0, "attention_dropout": 0.0}
    peer = ReferenceTD3(config, **factors, item_factor=problem.synthetic.item_factor, synthetic_batch_size=3, window=5)
    steps = InnerSteps(problem.loss, plain=inner_steps - 5, middle_seed=1, dropout_seed=2)
    middles = [steps.plan(step, 0).drawn["positions"][:, 1] + 1 for step in range(inner_steps)]
    items = problem.judgement.batch.items
    assert isinstance(items, HardItems)
    lengths = problem.judgement.batch.lengths
    targets = items.ids.gather(1, lengths.unsqueeze(1)).squeeze(1)
    weights = {name: value.detach() for name, value in problem.model.named_parameters()}
    loss, gradient = peer.meta_gradient(
        weights, items.ids[:, :-1], lengths, targets, problem.judgement.features, inner_steps, middles
    )
    assert loss == pytest.approx(float(result.outer_loss), rel=1e-12)
    for found, wanted in zip(gradient, expected.values(), strict=True):
        assert float((found - wanted).norm() / wanted.norm()) < 1e-10


def test_an_outer_step_moves_the_factors_of_both() -> None:
    problem = Problem(SMALL, Engine(), 3)
    before = [value.detach().clone() for value in problem.synthetic.parameters()]
    assert problem.outer_step(4) > 0
    for old, new in zip(before, problem.synthetic.parameters(), strict=True):
        assert not torch.equal(old, new)


@pytest.mark.parametrize("path", RESULTS, ids=lambda path: path.stem)
def test_a_benchmark_states_its_circumstances_and_its_targets(path: Path) -> None:
    result = json.loads(path.read_text(encoding="utf-8"))
    assert result["name"] == f"benchmarks/{path.stem}"
    assert {"command", "commit", "created", "machine", "versions", "threads", "rows", "targets"} <= result.keys()
    assert result["rows"]
    for target in result["targets"]:
        assert {"what", "target", "measured"} <= target.keys()
        assert isinstance(target["met"], bool)
