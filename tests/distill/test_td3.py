"""TD3: where it starts, that it learns, that a kill changes nothing, and the switches to the published code.

Not proved: accuracy on real data.
"""

import math
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
import torch

from recdistill.bilevel.kernels import Kernels
from recdistill.bilevel.optimizer import Adam
from recdistill.data.development import Development
from recdistill.data.rows import TuckerRows
from recdistill.distill.base import Engine, RunContext
from recdistill.distill.bilevel_sequences import SequenceTask
from recdistill.distill.synthetic import TuckerSequences
from recdistill.distill.td3 import TD3
from recdistill.errors import OptionError
from recdistill.training.trajectory import Trajectory
from reference.td3 import TINY, epoch_of, from_teacher, killer, same, spy_on_steps, start_of, summary, task_of
from reference.tiny import NUM_ITEMS


def test_the_first_rows_are_nearly_uniform(generator: torch.Generator) -> None:
    factor = torch.randn(NUM_ITEMS, 8, generator=generator)
    made = TuckerSequences(4, 6, 3, factor, pad_column=False, generator=generator)
    probabilities = made.rows().items().dense().probabilities
    assert probabilities.shape == (4, 6, NUM_ITEMS)
    assert (probabilities * NUM_ITEMS - 1).abs().max() < 0.02
    assert {name: tuple(value.shape) for name, value in made.named_parameters()} == {
        "core": (3, 3, 8),
        "user_factor": (4, 3),
        "time_factor": (6, 3),
    }


def test_the_factors_are_drawn_with_their_spread(generator: torch.Generator) -> None:
    made = TuckerSequences(500, 400, 12, torch.ones(3, 20), pad_column=False, generator=generator)
    assert made.user_factor.std().item() == pytest.approx(0.02, rel=0.05)
    assert made.time_factor.std().item() == pytest.approx(0.02, rel=0.05)
    assert made.core.std().item() == pytest.approx(math.sqrt(2 / (12 * 20)), rel=0.05)


def test_frozen_rows_are_a_copy(generator: torch.Generator) -> None:
    made = TuckerSequences(2, 4, 2, torch.ones(3, 2), pad_column=True, generator=generator)
    frozen = made.frozen_rows()
    before = frozen.core.clone()
    with torch.no_grad():
        made.core += 1
    assert torch.equal(frozen.core, before)
    assert frozen.pad_column
    assert not frozen.core.requires_grad
    assert made.rows().core is made.core


def test_a_padding_column_takes_part_in_the_softmax(train: Development, teacher: Trajectory) -> None:
    rows = summary(replace(TINY, epochs=1, pad_column=True), train, teacher).rows
    assert isinstance(rows, TuckerRows)
    assert rows.pad_column
    assert rows.items().dense().probabilities.shape == (4, 6, NUM_ITEMS + 1)
    assert rows.items().dense().probabilities[..., 0].min() > 0.01


@pytest.mark.parametrize("learners", [1, 2])
@pytest.mark.parametrize("carry_over", [False, True])
def test_carry_over_goes_on_from_the_plain_steps(
    carry_over: bool, learners: int, train: Development, teacher: Trajectory, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = replace(TINY, carry_over=carry_over, max_inner_steps=6, outer_batch_size=60, learners=learners)
    task = task_of(settings, train, teacher)
    steps = spy_on_steps(monkeypatch)
    run = start_of(task)
    epoch_of(task, run)
    epoch = len(steps)
    epoch_of(task, run)
    assert epoch == task.steps_per_epoch >= 3
    for index, (start, _, _) in enumerate(steps):
        assert (start.moments, start.step) == ((), 0)
        assert start.learners == (None if learners == 1 else learners)
        if index in (0, epoch) or not carry_over:
            assert set(from_teacher(start, teacher)) <= {1, 2, 3}
        else:
            assert torch.equal(start.weights, steps[index - 1][1].weights)
    assert not carry_over or not torch.equal(steps[0][0].weights, steps[epoch - 1][0].weights)


@pytest.mark.parametrize("pool_draw", ["step", "epoch"])
def test_the_start_is_drawn_by_step_or_by_epoch(
    pool_draw: str, train: Development, teacher: Trajectory, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = replace(TINY, pool_draw=pool_draw, outer_batch_size=30, window=1, max_inner_steps=1)
    task = task_of(settings, train, teacher)
    steps = spy_on_steps(monkeypatch)
    run = start_of(task)
    drawn = []
    for _ in range(4):
        steps.clear()
        epoch_of(task, run)
        drawn.append({from_teacher(start, teacher)[0] for start, _, _ in steps})
    assert len(steps) > 5
    if pool_draw == "epoch":
        assert all(len(one) == 1 for one in drawn)
        assert len(set.union(*drawn)) > 1
    else:
        assert all(len(one) > 1 for one in drawn)


def test_the_pool_is_cut_to_the_recorded_epochs(train: Development, teacher: Trajectory) -> None:
    task = task_of(replace(TINY, pool=(2, 30)), train, teacher)
    assert {from_teacher(task.start(step), teacher)[0] for step in range(20)} == {2, 3}


def test_every_learner_has_an_epoch_of_its_own(train: Development, teacher: Trajectory) -> None:
    task = task_of(replace(TINY, learners=2), train, teacher)
    drawn = [tuple(from_teacher(task.start(step), teacher)) for step in range(60)]
    assert set(drawn) == {(first, second) for first in (1, 2, 3) for second in (1, 2, 3)}
    assert drawn[:5] == [tuple(from_teacher(task.start(step), teacher)) for step in range(5)]


@pytest.mark.parametrize("shuffle", [False, True])
def test_every_prefix_is_judged_once_an_epoch(
    shuffle: bool, train: Development, teacher: Trajectory, monkeypatch: pytest.MonkeyPatch
) -> None:
    task = task_of(replace(TINY, shuffle=shuffle), train, teacher)
    steps = spy_on_steps(monkeypatch)
    run, orders = start_of(task), []
    for _ in range(2):
        steps.clear()
        epoch_of(task, run)
        orders.append(torch.cat([rows for *_, rows in steps]).tolist())
    everything = list(range(len(task.real)))
    assert [sorted(order) for order in orders] == [everything, everything]
    assert (orders[0] == everything) is not shuffle
    assert (orders[0] == orders[1]) is not shuffle


def test_the_outer_loss_falls(train: Development, teacher: Trajectory) -> None:
    settings = replace(
        TINY,
        num_rows=8,
        rank=4,
        epochs=12,
        outer_batch_size=1000,
        outer_learning_rate=0.2,
        synthetic_batch_size=8,
        max_inner_steps=8,
        window=8,
        pool=(0, 0),
        inner_learning_rate=0.03,
        inner_objective="all",
        feature_weight=0.0,
    )
    made = summary(settings, train, teacher)
    losses = [record["outer_loss"] for record in made.trace]
    assert len(losses) == 12
    assert losses[-1] < losses[0] - 0.2
    probabilities = made.rows.items().dense().probabilities
    assert probabilities.max() > 0.08  # no longer uniform


def test_a_killed_run_continues_to_the_same_bits(train: Development, teacher: Trajectory, tmp_path: Path) -> None:
    settings = replace(TINY, learners=2, outer_dropout=True)
    whole = summary(settings, train, teacher)
    per_epoch = task_of(settings, train, teacher).steps_per_epoch + 1  # one report a step and one an epoch
    assert per_epoch >= 3
    state = tmp_path / "run" / "state"
    for at in (per_epoch, 2, per_epoch + 1):  # after the first epoch, inside the second, after the second and into it
        with pytest.raises(KeyboardInterrupt):
            summary(settings, train, teacher, RunContext(state=state, progress=killer(at)))
        assert state.exists()
    again = summary(settings, train, teacher, RunContext(state=state))
    assert same(again, whole)
    assert again.trace == whole.trace
    assert len(whole.trace) == 3
    assert not state.exists()


def test_the_best_epoch_is_returned(train: Development, teacher: Trajectory, monkeypatch: pytest.MonkeyPatch) -> None:
    scores = {1: 0.1, 2: 0.5, 3: 0.3}
    kept = {}

    def judge(self: SequenceTask, epoch: int) -> float:
        kept[epoch] = self.synthetic.frozen_rows()
        return scores[epoch]

    monkeypatch.setattr(SequenceTask, "judge", judge)
    made = summary(TINY, train, teacher)
    assert all(torch.equal(made.rows.tensors()[n], value) for n, value in kept[2].tensors().items())
    assert not torch.equal(kept[2].core, kept[3].core)
    assert [record["valid_MRR@10"] for record in made.trace] == [0.1, 0.5, 0.3]


@pytest.mark.parametrize("items", ["given", "random"])
def test_the_judge_trains_a_fresh_student(
    items: str, train: Development, teacher: Trajectory, monkeypatch: pytest.MonkeyPatch
) -> None:
    task = task_of(replace(TINY, judge_items=items), train, teacher)
    seen = []

    def spy(model: Any, rows: Any, recipe: Any, rng: Any) -> None:
        seen.append((model.item_table.detach().clone(), recipe))

    monkeypatch.setattr("recdistill.distill.bilevel_sequences.fit", spy)
    score = task.judge(1)
    assert score == task.judge(1)
    table, recipe = seen[0]
    assert torch.equal(table[1:], task.item_factor) is (items == "given")
    assert (recipe.max_steps, recipe.batch_size, recipe.learning_rate, recipe.weight_decay) == (3, 3, 0.005, 5e-5)


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("rank", 0),
        ("epochs", 0),
        ("outer_batch_size", 0),
        ("synthetic_batch_size", 0),
        ("window", 0),
        ("judge_steps", 0),
        ("learners", 0),
        ("max_inner_steps", 1),
        ("pool", (3, 1)),
        ("pool", (-1, 1)),
        ("inner_objective", "middle"),
        ("select_protocol", "uni10"),
        ("select_metric", "MRR@11"),
        ("feature_scale", "sum"),
        ("pool_draw", "run"),
        ("judge_items", "teacher"),
        ("adjoint", "approximate"),
        ("start", "teacher"),
        ("outer_learning_rate", 0.0),
        ("inner_learning_rate", -1.0),
        ("inner_weight_decay", -1.0),
        ("outer_weight_decay", -1.0),
        ("clip_norm", 0.0),
        ("feature_weight", -1.0),
    ],
)
def test_options_out_of_range_are_refused(option: str, value: Any) -> None:
    broken = replace(TINY)
    object.__setattr__(broken, option, value)  # past the type checker, which only runs in tests
    with pytest.raises(OptionError, match=option):
        broken.__post_init__()


@pytest.mark.parametrize(
    ("option", "value"), [("mode", "tapped"), ("product", "backwards"), ("dense_bytes", -1), ("state_bytes", 0)]
)
def test_engines_out_of_range_are_refused(option: str, value: Any) -> None:
    with pytest.raises(OptionError, match=option):
        Engine(**{option: value})


def test_an_engine_is_what_it_was_asked_to_be() -> None:
    optimizer = Adam(learning_rate=0.1)
    made = Engine(mode="reversible", product="central_difference", state_bytes=5).unroll(optimizer, 3)
    assert (made.optimizer, made.window, made.mode, made.state_bytes) == (optimizer, 3, "reversible", 5)
    assert made.kernels == Kernels(product="central_difference")
    assert Engine().unroll(optimizer, 3).kernels == Kernels(product="double_backward")
    compiled = Kernels(product="forward_over_reverse", record=True, compile=True)
    assert Engine(compile=True).unroll(optimizer, 3).kernels == compiled
    assert Engine(compile=True, product="double_backward").unroll(optimizer, 3).kernels.product == "double_backward"


DEFAULTS: dict[str, Any] = {
    "num_rows": 30,
    "length": 50,
    "rank": 8,
    "epochs": 30,
    "outer_learning_rate": 0.03,
    "outer_weight_decay": 1e-4,
    "outer_batch_size": 4096,
    "clip_norm": 1.0,
    "inner_learning_rate": 0.005,
    "inner_weight_decay": 5e-5,
    "synthetic_batch_size": 15,
    "max_inner_steps": 200,
    "window": 40,
    "inner_objective": "last_and_middle",
    "feature_weight": 1.0,
    "feature_scale": "mean",
    "pool": (5, 30),
    "learners": 1,
    "pool_draw": "step",
    "carry_over": False,
    "pad_column": False,
    "outer_dropout": False,
    "teacher_dropout": False,
    "shuffle": True,
    "judge_steps": 200,
    "judge_items": "given",
    "select_protocol": "uni100",
    "select_metric": "MRR@10",
}
LATER = {"adjoint": "exact", "start": "pool", "init": "random", "init_smoothing": 0.1}


def test_the_parameters_keep_their_names_and_defaults() -> None:
    """Artifacts of the first versions state exactly these; what came later leaves their algorithm as it was."""
    assert asdict(TD3()) == DEFAULTS | LATER


def test_rows_are_at_least_four_items_long() -> None:
    with pytest.raises(OptionError, match="at least 4 items"):
        replace(TINY, length=3)


def test_the_teacher_must_reach_the_pool_and_the_length(train: Development, teacher: Trajectory) -> None:
    with pytest.raises(OptionError, match="teacher's last epoch 3"):
        summary(replace(TINY, pool=(4, 9)), train, teacher)
    with pytest.raises(OptionError, match="longer than the 8 items that the teacher reads"):
        summary(replace(TINY, length=10), train, teacher)
    assert summary(replace(TINY, length=9, epochs=1), train, teacher).rows.length == 9
