"""What every method promises, on a log of thirty users with a teacher of three epochs."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from recdistill.data.batches import HardItems
from recdistill.data.development import Development
from recdistill.data.distilled import DistilledDataset
from recdistill.data.rows import CountRows, HardRows, LabelledRows, Rows
from recdistill.distill import DISTILLERS
from recdistill.distill.base import Distiller, RunContext, Summary, check_budget
from recdistill.distill.coresets.counts import PopularityCounts
from recdistill.distill.coresets.longest import Longest
from recdistill.distill.coresets.most_recent import MostRecent
from recdistill.distill.coresets.random import Random
from recdistill.distill.coresets.random_soft import RandomSoft
from recdistill.distill.coresets.untrained import Untrained
from recdistill.distill.run import distill
from recdistill.distill.teacher import TeacherSpec, teach
from recdistill.errors import OptionError
from recdistill.rng import Streams
from recdistill.training.fit import TrainingRecipe, fit
from recdistill.training.trajectory import Trajectory
from reference.tiny import HELD_OUT, NUM_ITEMS, development, histories_of_lists, sasrec, training_events

TINY_BILEVEL: dict[str, Any] = {
    "epochs": 1,
    "outer_batch_size": 128,
    "synthetic_batch_size": 2,
    "max_inner_steps": 3,
    "window": 2,
    "pool": (1, 3),
    "judge_steps": 2,
}
EXAMPLES: dict[str, dict[str, Any]] = {
    "td3": TINY_BILEVEL | {"num_rows": 4, "length": 6, "rank": 2},
    "farzi": TINY_BILEVEL | {"num_rows": 4, "length": 6, "latent_dim": 3},
    "foster": {
        "num_rows": 4,
        "length": 6,
        "rank": 2,
        "epochs": 1,
        "steps_per_epoch": 2,
        "outer_batch_size": 8,
        "num_candidates": 7,
        "inner_steps": 2,
        "judge_steps": 5,
    },
    "refined": {
        "num_rows": 4,
        "length": 6,
        "families": ("gru4rec_64",),
        "peer_epochs": 1,
        "epochs": 1,
        "steps_per_epoch": 2,
        "window": 2,
        "plain_steps": 2,
        "inner_batch_sizes": (2, 3),
        "real_batch_size": 6,
        "real_positions": 3,
        "judge_steps": 2,
    },
    "random": {"num_rows": 4, "length": 6},
    "random_soft": {"num_rows": 4, "length": 6},
    "longest": {"num_rows": 4, "length": 6},
    "most_recent": {"num_rows": 4, "length": 6},
    "k_center": {"num_rows": 4, "length": 6},
    "herding": {"num_rows": 4, "length": 6},
    "el2n": {"num_rows": 4, "length": 6, "epochs": (1, 2)},
    "dealrec": {"num_rows": 4, "length": 6, "depth": 20},
    "goracs": {"num_rows": 4, "length": 6, "iterations": 3},
    "popularity": {},
    "untrained": {},
}
SOFT = ("td3", "farzi", "foster")
LEARNT = (*SOFT, "refined")
NOTHING_TO_CHOOSE = {"refined": {"labels": "teacher"}}
"""Options without which a method of one epoch chooses on validation events: here the weights of a mixture of models."""
DRAWN = (*LEARNT, "random", "random_soft", "dealrec")

every = pytest.mark.parametrize("method", sorted(DISTILLERS))
# the first use of forward mode in a process compiles some of its formulas with a part of torch that torch deprecates
pytestmark = pytest.mark.filterwarnings("ignore:.torch.jit.script. is deprecated:DeprecationWarning")
with_rows = pytest.mark.parametrize("method", sorted(name for name in DISTILLERS if EXAMPLES[name]))


def make(method: str, **changes: Any) -> Distiller:
    return DISTILLERS[method](**EXAMPLES[method] | changes)


def summary(distiller: Distiller, train: Development, teacher: Trajectory, seed: int = 0) -> Summary:
    return distiller.distill(train, teacher, None, Streams(seed), RunContext())


def equal(one: Rows, other: Rows) -> bool:
    ours, theirs = one.tensors(), other.tensors()
    return ours.keys() == theirs.keys() and all(
        ours[name].shape == theirs[name].shape and torch.equal(ours[name], theirs[name]) for name in ours
    )


def sequences(rows: Rows) -> list[list[int]]:
    assert isinstance(rows, HardRows)
    return [row[:length] for row, length in zip(rows.item_ids.tolist(), rows.lengths.tolist(), strict=True)]


def test_every_method_has_an_example() -> None:
    assert set(EXAMPLES) == set(DISTILLERS)
    assert all(DISTILLERS[name].method == name for name in DISTILLERS)


@every
def test_the_budget_is_kept(method: str, train: Development, teacher: Trajectory) -> None:
    made = summary(make(method), train, teacher)
    assert len(made.rows) == EXAMPLES[method].get("num_rows", 0)
    assert made.rows.length <= EXAMPLES[method].get("length", 0)
    assert made.item_factor.shape == (NUM_ITEMS, 8)
    assert torch.equal(made.item_factor, teacher.model().item_table[1:])


@every
def test_the_seed_decides(method: str, train: Development, teacher: Trajectory) -> None:
    one, again, other = (summary(make(method), train, teacher, seed).rows for seed in (1, 1, 2))
    assert equal(one, again)
    if method in DRAWN:
        assert not equal(one, other)


@every
def test_the_global_generators_are_left_alone(method: str, train: Development, teacher: Trajectory) -> None:
    torch_before, numpy_before = torch.get_rng_state(), np.random.get_state()[1].copy()  # noqa: NPY002
    summary(make(method), train, teacher)
    assert torch.equal(torch.get_rng_state(), torch_before)
    assert (np.random.get_state()[1] == numpy_before).all()  # noqa: NPY002


@every
def test_held_out_events_leave_no_trace(method: str, train: Development, teacher: Trajectory) -> None:
    made = summary(make(method), train, teacher).rows
    if method in LEARNT:
        histories, fixed = train.histories, make(method, **NOTHING_TO_CHOOSE.get(method, {}))
        items = np.where(histories.items == HELD_OUT[0], 7, histories.items)
        moved = replace(train, histories=replace(histories, items=items))
        assert equal(summary(fixed, moved, teacher).rows, summary(fixed, train, teacher).rows)
    if method in SOFT:  # soft rows hold every item
        return
    assert made.item_counts(NUM_ITEMS)[list(HELD_OUT)].tolist() == [0, 0]
    if not isinstance(made, CountRows):
        known = [training_events(train.histories, user) for user in range(train.histories.num_users)]
        assert all(any(row == events[-len(row) :] for events in known) for row in sequences(made))


@with_rows
@pytest.mark.parametrize("budget", [{"num_rows": 31}, {"num_rows": 30, "length": 20}])
def test_a_budget_larger_than_the_data_is_refused(
    method: str, budget: dict[str, int], train: Development, teacher: Trajectory
) -> None:
    with pytest.raises(OptionError, match=r"--budget.*tiny"):
        summary(make(method, **budget), train, teacher)


@with_rows
@pytest.mark.parametrize("budget", [{"num_rows": 0}, {"num_rows": -1}, {"length": 0}])
def test_a_budget_without_rows_is_refused(method: str, budget: dict[str, int]) -> None:
    with pytest.raises(OptionError, match="--budget"):
        make(method, **budget)


def test_check_budget_names_the_shortest() -> None:
    check_budget(1, 4, shortest=4)
    with pytest.raises(OptionError, match="'3x3' needs sequences of at least 4 items"):
        check_budget(3, 3, shortest=4)


@with_rows
def test_a_model_trains_on_the_rows(method: str, train: Development, teacher: Trajectory) -> None:
    rows = summary(make(method), train, teacher).rows
    model = sasrec(max_seq_len=8)
    losses = fit(model, rows, TrainingRecipe(epochs=3, learning_rate=0.02), Streams(0)).losses
    assert all(0 < loss < 4 for loss in losses)
    assert losses[-1] < losses[0] or method in SOFT  # uniform targets have nothing to learn


@every
def test_the_artifact_tells_how_it_was_made(
    method: str, train: Development, teacher: Trajectory, tmp_path: Path
) -> None:
    made = distill(train, make(method), teacher, seed=5, context=RunContext())
    made.save(tmp_path / "made")
    loaded = DistilledDataset.load(tmp_path / "made")
    assert equal(loaded.rows, made.rows)
    manifest = loaded.manifest
    assert (manifest.method, manifest.kind, manifest.seed) == (method, made.rows.kind, 5)
    assert (manifest.num_rows, manifest.length) == (len(made.rows), made.rows.length)
    assert (
        manifest.parameters.items()
        >= {
            name: list(value) if isinstance(value, tuple) else value for name, value in EXAMPLES[method].items()
        }.items()
    )
    assert manifest.source.name == "tiny"
    assert manifest.teacher["best_epoch"] == teacher.best_epoch
    assert manifest.seconds["distill"] >= 0
    assert manifest.peak_mb > 10
    expected = Streams(5).child(method)
    assert equal(made.rows, make(method).distill(train, teacher, None, expected, RunContext()).rows)


def test_the_longest_users_are_chosen_and_cut(teacher: Trajectory) -> None:
    sizes = [3, 9, 1, 5, 8, 2]
    sequences_of = [[(user + step) % 18 + 1 for step in range(size)] for user, size in enumerate(sizes)]
    train = development(histories_of_lists(sequences_of, [[19]] * 6, [[20]] * 6))
    rows = summary(Longest(num_rows=3, length=4), train, teacher).rows
    assert sequences(rows) == [sequences_of[user][-4:] for user in (1, 4, 3)]
    assert sequences(summary(Longest(num_rows=2, length=9), train, teacher).rows) == [sequences_of[1], sequences_of[4]]


@pytest.mark.parametrize("method", [Longest(num_rows=2, length=3), MostRecent(num_rows=2, length=3)])
def test_ties_are_broken_at_random(method: Distiller, teacher: Trajectory) -> None:
    train = development(
        histories_of_lists([[user + 1] * 3 for user in range(12)], [[19]] * 12, [[20]] * 12),
        last_train_time=np.zeros(12, dtype=np.int64),
    )
    chosen = {tuple(row[0] for row in sequences(summary(method, train, teacher, seed).rows)) for seed in range(8)}
    assert len(chosen) > 4


def test_the_most_recent_users_are_chosen(train: Development, teacher: Trajectory) -> None:
    times = np.random.default_rng(0).permutation(30).astype(np.int64) * 1000
    rows = summary(MostRecent(num_rows=5, length=3), replace(train, last_train_time=times), teacher).rows
    latest = np.argsort(-times)[:5]
    assert sequences(rows) == [training_events(train.histories, user)[-3:] for user in latest]


def test_users_with_one_training_event_are_never_chosen(teacher: Trajectory) -> None:
    train = development(
        histories_of_lists([[1], [2, 3], [4], [5, 6]], [[19]] * 4, [[20]] * 4),
        last_train_time=np.array([9, 1, 8, 2]),
    )
    for method in (Random(num_rows=2, length=2), MostRecent(num_rows=2, length=2), Longest(num_rows=2, length=2)):
        assert sorted(sequences(summary(method, train, teacher).rows)) == [[2, 3], [5, 6]]


def test_most_recent_needs_a_clock(train: Development, teacher: Trajectory) -> None:
    with pytest.raises(OptionError, match="needs timestamps, and tiny has only an order"):
        summary(MostRecent(num_rows=2, length=3), replace(train, last_train_time=None), teacher)


def test_random_draws_every_user_alike(teacher: Trajectory) -> None:
    train = development(histories_of_lists([[user + 1] * 2 for user in range(10)], [[19]] * 10, [[20]] * 10))
    counts = np.zeros(10)
    for seed in range(100):
        first = [row[0] - 1 for row in sequences(summary(Random(num_rows=4, length=2), train, teacher, seed).rows)]
        assert len(set(first)) == 4
        counts[first] += 1
    assert counts.min() > 20
    assert counts.max() < 60


@pytest.mark.parametrize(("precision", "tolerance"), [("float32", 1e-6), ("float16", 2e-3)])
@torch.no_grad()
def test_soft_labels_are_the_teachers_distributions(
    precision: str, tolerance: float, train: Development, teacher: Trajectory
) -> None:
    rows = summary(make("random_soft", precision=precision), train, teacher).rows
    assert isinstance(rows, LabelledRows)
    assert rows.target_queries.dtype == getattr(torch, precision)
    model = teacher.model()
    targets = rows.batch(torch.arange(4)).targets
    assert targets is not None
    found = targets.dense().probabilities
    for row, items in enumerate(sequences(rows)):
        for position in range(len(items)):
            shown = torch.tensor([items[: position + 1]])
            scores = model.score(model.represent(HardItems(shown), torch.tensor([position + 1])))
            torch.testing.assert_close(found[row, position], torch.softmax(scores[0], -1), rtol=0, atol=tolerance)


def test_soft_rows_are_the_random_rows(train: Development, teacher: Trajectory) -> None:
    soft, hard = (summary(make(name), train, teacher, 3).rows for name in ("random_soft", "random"))
    assert sequences(soft) == sequences(hard)


def test_soft_labels_need_a_teacher_that_reads_as_much(train: Development, teacher: Trajectory) -> None:
    assert summary(make("random_soft", length=8), train, teacher).rows.length == 8
    with pytest.raises(OptionError, match="longer than the 8 items that the teacher reads"):
        summary(make("random_soft", length=9), train, teacher)


@pytest.mark.parametrize("method", ["random_soft", "refined"])
def test_soft_labels_need_a_teacher_without_a_bias_of_items(method: str, train: Development, tmp_path: Path) -> None:
    config = {"embedding_dim": 8, "num_blocks": 1, "inner_dim": 8}
    spec = TeacherSpec(model="bert4rec", config=config, max_seq_len=8, recipe=TrainingRecipe(epochs=1))
    teacher = teach(train, spec, 0, tmp_path)
    with pytest.raises(OptionError, match="--teacher-model: 'bert4rec' gives each item a bias"):
        summary(make(method), train, teacher)
    assert summary(make("random"), train, teacher).item_factor.shape == (NUM_ITEMS, 8)


def test_an_unknown_precision_is_refused() -> None:
    broken = RandomSoft()
    object.__setattr__(broken, "precision", "float15")  # past the type checker, which only runs in tests
    with pytest.raises(OptionError, match="precision"):
        broken.__post_init__()


def test_popularity_counts_training_events(train: Development, teacher: Trajectory) -> None:
    found = summary(PopularityCounts(), train, teacher).rows.item_counts(NUM_ITEMS)
    expected = torch.zeros(NUM_ITEMS + 1)
    for user in range(30):
        for item in training_events(train.histories, user):
            expected[item] += 1
    assert found.tolist() == expected.tolist()


def test_untrained_counts_nothing(train: Development, teacher: Trajectory) -> None:
    assert summary(Untrained(), train, teacher).rows.item_counts(NUM_ITEMS).tolist() == [0] * (NUM_ITEMS + 1)
