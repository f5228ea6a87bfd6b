"""Refined labels: where they start, that their gradient is the derivative of what it says, and that learning helps.

The losses are tested in ``test_label_losses.py``, the peers in ``test_peers.py``, the loop round the steps in
``test_outer_loop.py``, what every method promises in ``test_methods.py``. Not proved: accuracy on real data.
"""

import copy
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from recdistill.bilevel.optimizer import Student
from recdistill.bilevel.unroll import MetaResult
from recdistill.data.batches import HardItems
from recdistill.data.development import Development
from recdistill.data.rows import HardRows, LabelledRows, Rows
from recdistill.data.sequences import evaluation_cases
from recdistill.distill import refined
from recdistill.distill.base import Engine, RunContext, Summary
from recdistill.distill.coresets.herding import herd
from recdistill.distill.coresets.random_soft import RandomSoft
from recdistill.distill.coresets.representations import user_vectors
from recdistill.distill.coresets.selection import last_items, usable_users
from recdistill.distill.labels import Labels
from recdistill.distill.mixture import mixture_queries, mixture_weights
from recdistill.distill.peers import Peer, train_peers
from recdistill.distill.refined import Refined, RefineTask
from recdistill.distill.run import distill
from recdistill.errors import OptionError
from recdistill.evaluation.protocols import evaluate
from recdistill.rng import Streams
from recdistill.training.fit import TrainingRecipe, fit
from recdistill.training.trajectory import Trajectory
from reference.td3 import ENGINES, judged, killer, same
from reference.tiny import development, random_histories

TINY = Refined(
    num_rows=5,
    length=6,
    users="random",
    families=("sasrec_32", "gru4rec_64"),
    peer_epochs=3,
    epochs=2,
    steps_per_epoch=4,
    window=3,
    plain_steps=3,
    inner_learning_rates=(0.005, 0.01),
    inner_batch_sizes=(2, 3),
    real_batch_size=6,
    real_positions=3,
    judge_steps=4,
    precision="float32",
)


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where peers are kept, so that each is trained once for all tests."""
    return tmp_path_factory.mktemp("peers")


@pytest.fixture(scope="module")
def peers(train: Development, cache: Path) -> list[Peer]:
    recipe = TrainingRecipe(epochs=TINY.peer_epochs)
    return train_peers(train, TINY.families, 8, recipe, 0, cache, RunContext())


@pytest.fixture(scope="module")
def control(train: Development, teacher: Trajectory) -> LabelledRows:
    """Random rows with soft labels."""
    settings = RandomSoft(num_rows=TINY.num_rows, length=TINY.length, precision="float32")
    rows = distill(train, settings, teacher, seed=0, context=RunContext()).rows
    assert isinstance(rows, LabelledRows)
    return rows


def task_of(
    settings: Refined, train: Development, peers: list[Peer], control: LabelledRows, engine: Engine | None = None
) -> RefineTask:
    """Return a task that starts from the control's labels."""
    labels = Labels(HardRows(control.item_ids, control.lengths), control.target_queries, control.item_factor)
    context = RunContext(engine=engine or Engine())
    return RefineTask(settings, train, labels, peers, Streams(0).child("refined"), context)


def summary(
    settings: Refined, train: Development, teacher: Trajectory, cache: Path | None = None, **context: Any
) -> Summary:
    return settings.distill(train, teacher, None, Streams(0).child("refined"), RunContext(cache=cache, **context))


def spy_on_steps(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, int, Student, Student]]:
    """Return a list that fills with (step, turn, student before, student to carry on from) of every outer step."""
    steps = []

    def spy(self: RefineTask, step: int, turn: int, held: Any) -> MetaResult:
        before = held.student
        result = original(self, step, turn, held)
        steps.append((step, turn, before, result.student))
        return result

    original = RefineTask.outer_step
    monkeypatch.setattr(RefineTask, "outer_step", spy)
    return steps


@pytest.mark.parametrize("seed", [0, 3])
@pytest.mark.parametrize("precision", ["float16", "float32"])
def test_without_learning_it_is_the_control(
    seed: int, precision: Any, train: Development, teacher: Trajectory, tmp_path: Path
) -> None:
    """The same users, labels and bytes, so that both can be compared in pairs; and no peer is trained."""
    budget = {"num_rows": 4, "length": 6, "precision": precision}
    ours, theirs = (
        distill(train, method, teacher, seed=seed, context=RunContext(cache=tmp_path))
        for method in (Refined(**budget, users="random", labels="teacher", epochs=0), RandomSoft(**budget))
    )
    one, other = ours.rows.tensors(), theirs.rows.tensors()
    assert one.keys() == other.keys() == {"item_ids", "lengths", "target_queries"}
    assert all(torch.equal(one[name], other[name]) for name in other)
    assert one["target_queries"].dtype == getattr(torch, precision)
    assert torch.equal(ours.item_factor, theirs.item_factor)
    assert ours.manifest.kind == theirs.manifest.kind
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("chosen", [5, 30], ids=["who fill a row", "all, where too few fill one"])
def test_herded_users(chosen: int, train: Development, teacher: Trajectory) -> None:
    """They are those that ``Herding`` would choose among users with as many items as a row has, or among all."""
    settings = replace(TINY, num_rows=chosen, length=8, users="herding", labels="teacher", epochs=0)
    rows = summary(settings, train, teacher).rows
    assert isinstance(rows, LabelledRows)
    full = np.flatnonzero(train.histories.train_lengths() >= 8)
    assert 5 < len(full) < 30
    pool = full if chosen == 5 else usable_users(train)
    herded = pool[herd(user_vectors(teacher.model(), train, pool), chosen, np.random.default_rng(0))]
    assert torch.equal(rows.item_ids, last_items(train, herded, 8).item_ids)


def test_labels_start_nearest_to_the_likeliest_mixture_of_teacher_and_peers(
    train: Development,
    teacher: Trajectory,
    cache: Path,
    peers: list[Peer],
    control: LabelledRows,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    models, cases = [teacher.model(), *(peer.model for peer in peers)], evaluation_cases(train.histories, "valid")
    rows = summary(replace(TINY, epochs=0), train, teacher, cache).rows
    assert isinstance(rows, LabelledRows)
    assert torch.equal(rows.item_ids, control.item_ids)
    hard, factor, start = HardRows(rows.item_ids, rows.lengths), control.item_factor, control.target_queries
    expected = mixture_queries(models, mixture_weights(models, cases), hard, factor, start)
    assert torch.equal(rows.target_queries, expected)
    weights = torch.tensor([0.2, 0.5, 0.3])  # models of three epochs leave nearly all weight with one
    monkeypatch.setattr(refined, "mixture_weights", lambda models, cases: weights)
    other = summary(replace(TINY, epochs=0), train, teacher, cache).rows
    assert torch.equal(other.tensors()["target_queries"], mixture_queries(models, weights, hard, factor, start))
    assert not torch.equal(other.tensors()["target_queries"], rows.target_queries)


def test_learning_moves_the_labels_of_real_positions_alone(
    train: Development,
    teacher: Trajectory,
    cache: Path,
    control: LabelledRows,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(RefineTask, "judge", lambda self, epoch: float(epoch))  # the last epoch is kept
    found = summary(replace(TINY, labels="teacher"), train, teacher, cache)
    rows = found.rows
    assert isinstance(rows, LabelledRows)
    assert torch.equal(rows.item_ids, control.item_ids)
    assert torch.equal(rows.lengths, control.lengths)
    assert torch.equal(found.item_factor, control.item_factor)
    real = torch.arange(rows.length) < rows.lengths.unsqueeze(1)
    assert not real.all()
    moved = (rows.target_queries - control.target_queries).abs().amax(-1)
    assert (moved[real] > 1e-4).all()
    assert moved[~real].max() == 0
    assert [set(record) for record in found.trace] == [{"outer_loss", "valid_NDCG@10 over that of full data"}] * 2
    assert found.seconds > 0


def double(task: RefineTask) -> RefineTask:
    """Return a task in float64 with labels far from uniform."""
    peers = [replace(peer, model=copy.deepcopy(peer.model).double()) for peer in task.peers]
    made = replace(task, peers=peers, synthetic=copy.deepcopy(task.synthetic).double(), _ways={})
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        made.synthetic.queries += torch.randn(made.synthetic.queries.shape, generator=generator, dtype=torch.float64)
        made.synthetic.item_factor *= 3
    return made


def meta_gradient(task: RefineTask, turn: int) -> tuple[float, torch.Tensor]:
    result = task.outer_step(7, turn, task.fresh(turn, 0))
    assert result.gradient.keys() == {"queries"}
    return float(result.outer_loss), result.gradient["queries"]


turns = pytest.mark.parametrize("turn", [0, 1], ids=TINY.families)


@turns
@pytest.mark.parametrize("dense_bytes", [2**28, 0], ids=["dense", "tiled"])
def test_the_gradient_of_an_outer_step_equals_finite_differences(
    turn: int, dense_bytes: int, train: Development, peers: list[Peer], control: LabelledRows
) -> None:
    settings = replace(TINY, plain_steps=0)
    task = double(task_of(settings, train, peers, control, Engine(dense_bytes=dense_bytes)))
    assert task.fresh(turn, 0).way.reader.dense is (dense_bytes > 0)
    queries = task.synthetic.queries
    before, (_, gradient) = queries.detach().clone(), meta_gradient(task, turn)
    generator = torch.Generator().manual_seed(2)
    direction = torch.randn(before.shape, dtype=torch.float64, generator=generator)

    def outer(step: float) -> float:
        with torch.no_grad():
            queries.copy_(before + step * direction)
        return meta_gradient(task, turn)[0]

    expected = (outer(1e-7) - outer(-1e-7)) / 2e-7
    assert abs(expected) > 1e-3
    assert float((gradient * direction).sum()) == pytest.approx(expected, rel=1e-5)


@turns
@pytest.mark.parametrize("engine", ENGINES.values(), ids=ENGINES)
@pytest.mark.filterwarnings("ignore:.torch.jit.script. is deprecated:DeprecationWarning")  # by torch's forward mode
def test_every_engine_gives_the_same_gradient(
    turn: int, engine: Engine, train: Development, peers: list[Peer], control: LabelledRows
) -> None:
    settings = replace(TINY, plain_steps=2)
    loss, expected = meta_gradient(double(task_of(settings, train, peers, control)), turn)
    found_loss, found = meta_gradient(double(task_of(settings, train, peers, control, engine)), turn)
    assert expected.abs().max() > 1e-5
    assert found_loss == pytest.approx(loss, rel=1e-10)
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-9 * float(expected.norm()))


@turns
@pytest.mark.parametrize("behaviour", [0.0, 0.6, 1.0])
def test_a_student_is_judged_beside_the_peer_of_its_family(
    turn: int, behaviour: float, train: Development, peers: list[Peer], control: LabelledRows
) -> None:
    """On histories and positions that are drawn anew for every step, by the peer's own distributions there."""
    task = task_of(replace(TINY, behaviour=behaviour), train, peers, control)
    judge, peer = task.outer_loss(turn, 4), peers[turn].model
    assert judge.loss.model is peer
    assert judge.loss.behaviour == behaviour
    items, positions = judge.batch.items, judge.batch.positions
    assert isinstance(items, HardItems)
    assert positions is not None
    assert positions.shape == (6, 3)
    assert (positions < judge.batch.lengths.unsqueeze(1)).all()
    known = {tuple(row) for row in _rows(task)}
    for row, places, queries in zip(items.ids, positions.tolist(), judge.queries, strict=True):
        assert tuple(row[row > 0].tolist()) in known
        for place, query in zip(places, queries, strict=True):
            read = peer.represent(HardItems(row[None, : place + 1]), torch.tensor([place + 1]))
            torch.testing.assert_close(query, read[0], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(judge.loss.keys, peer.item_table[1:])
    again, other = task.outer_loss(turn, 4), task.outer_loss(turn, 5)
    assert torch.equal(again.queries, judge.queries)
    assert other.queries.shape != judge.queries.shape or not torch.equal(other.queries, judge.queries)


def _rows(task: RefineTask) -> list[list[int]]:
    histories = task.train.histories
    whole = [histories.items[a:b].tolist() for a, b in zip(histories.offsets[:-1], histories.train_end, strict=True)]
    found = []
    for events in whole:
        while len(events) >= 2:
            found.append(events[-9:])
            events = events[:-8]
    return found


def test_students_are_the_same_for_the_same_epoch_and_others_for_another(
    train: Development, peers: list[Peer], control: LabelledRows
) -> None:
    one, again = (task_of(TINY, train, peers, control) for _ in range(2))
    other = replace(one, rng=Streams(1).child("refined"), _ways={})
    for turn in (0, 1):
        drawn = [one.fresh(turn, epoch) for epoch in range(3)] + [other.fresh(turn, 0)]
        weights = [held.student.weights for held in drawn]
        assert torch.equal(weights[1], again.fresh(turn, 1).student.weights)
        assert drawn[1].way is one.fresh(turn, 1).way
        assert not any(torch.equal(a, b) for index, a in enumerate(weights) for b in weights[:index])
        assert all((held.student.step, held.student.moments) == (0, ()) for held in drawn)
        assert drawn[0].student.params.keys() == dict(peers[turn].model.named_parameters()).keys()
        assert not torch.equal(weights[0], Student.of(dict(peers[turn].model.named_parameters())).weights)


def test_two_students_of_one_family_are_different(train: Development, peers: list[Peer], control: LabelledRows) -> None:
    task = task_of(TINY, train, [peers[0], peers[0]], control)
    assert not torch.equal(task.fresh(0, 0).student.weights, task.fresh(1, 0).student.weights)


def test_recipes_are_drawn_from_those_given(train: Development, peers: list[Peer], control: LabelledRows) -> None:
    settings = replace(TINY, inner_learning_rates=(0.001, 0.002, 0.003), inner_batch_sizes=(2, 5, 100))
    task = task_of(settings, train, peers, control)
    drawn = set()
    for epoch in range(60):
        for turn in (0, 1):
            way = task.fresh(turn, epoch).way
            assert way.loss.model is peers[turn].model
            assert way.loss.sizes == way.reader.sizes
            assert way.estimator.window == TINY.window
            drawn.add((turn, way.estimator.optimizer.learning_rate, way.reader.sizes))
    sizes = ((2, 2, 1), (5,))  # a hundred rows are cut to those there are
    assert drawn == {(turn, rate, size) for turn in (0, 1) for rate in (0.001, 0.002, 0.003) for size in sizes}


def test_families_that_share_a_step_move_labels_by_their_mean_gradient(
    train: Development, peers: list[Peer], control: LabelledRows, monkeypatch: pytest.MonkeyPatch
) -> None:
    task = task_of(replace(TINY, steps_per_epoch=3, families_per_step=2), train, peers, control)
    alone = [task.outer_step(0, turn, task.fresh(turn, 0)) for turn in (0, 1)]
    steps = spy_on_steps(monkeypatch)
    found = list(task.steps(0))
    torch.testing.assert_close(found[0].gradient["queries"], sum(one.gradient["queries"] for one in alone) / 2)
    torch.testing.assert_close(found[0].outer_loss, sum(one.outer_loss for one in alone) / 2)
    assert [(step, turn) for step, turn, _, _ in steps] == [(index // 2, index % 2) for index in range(6)]
    for earlier, later in zip(steps, steps[2:], strict=False):  # each goes on from where it stood
        assert later[2] is earlier[3]


@pytest.mark.parametrize("share", [0, 3])
def test_more_families_in_a_step_than_there_are_are_refused(share: int) -> None:
    with pytest.raises(OptionError, match=r"families_per_step.*from 1 to 2"):
        replace(TINY, families_per_step=share)


def test_families_take_turns_and_students_grow_older_within_an_epoch(
    train: Development, peers: list[Peer], control: LabelledRows, monkeypatch: pytest.MonkeyPatch
) -> None:
    task = task_of(replace(TINY, steps_per_epoch=8), train, peers, control)
    steps = spy_on_steps(monkeypatch)
    for epoch in range(2):
        assert len(list(task.steps(epoch))) == 8
    assert [(step, turn) for step, turn, _, _ in steps] == [(step, step % 2) for step in range(16)]
    aged = []
    for index, (_, turn, before, after) in enumerate(steps):
        if index % 8 < 2:
            assert torch.equal(before.weights, task.fresh(turn, index // 8).student.weights)
            assert before.step == 0
        else:
            assert before is steps[index - 2][3]
        aged.append(after.step - before.step)
        assert torch.equal(after.weights, before.weights) is (aged[-1] == 0)
    assert set(aged) == {0, 1, 2, 3}  # plain steps, uniform from 0


def test_every_outer_step_has_dropout_of_its_own(train: Development, peers: list[Peer], control: LabelledRows) -> None:
    """Seen where two steps train the same student on the same labels for as long."""
    task = task_of(replace(TINY, window=1, plain_steps=1), train, peers, control)
    start = task.fresh(1, 0)
    ends = [task.outer_step(step, 1, start).student for step in range(8)]
    weights = [student.weights for student in ends if student.step == 1]
    assert len(weights) >= 2
    assert not any(torch.equal(one, other) for index, one in enumerate(weights) for other in weights[:index])
    again = task.outer_step(7, 1, start).student
    assert torch.equal(again.weights, ends[7].weights)


def test_a_killed_run_continues_to_the_same_bits(
    train: Development, teacher: Trajectory, cache: Path, tmp_path: Path
) -> None:
    settings = replace(TINY, epochs=3, steps_per_epoch=3)
    whole = summary(settings, train, teacher, cache)
    state = tmp_path / "run" / "state"
    for at in (4, 2, 5):  # after the first epoch, inside the second, after the second and into the third
        with pytest.raises(KeyboardInterrupt):
            summary(settings, train, teacher, cache, state=state, progress=killer(at))
        assert state.exists()
    again = summary(settings, train, teacher, cache, state=state)
    assert same(again, whole)
    assert again.trace == whole.trace
    assert len(whole.trace) == 3
    assert not state.exists()


@pytest.mark.parametrize(("start", "best"), [(0.2, 2), (0.6, 0)])
def test_the_best_epoch_is_returned(
    train: Development,
    teacher: Trajectory,
    cache: Path,
    monkeypatch: pytest.MonkeyPatch,
    start: float,
    best: int,
) -> None:
    scores, kept = {0: start, 1: 0.1, 2: 0.5, 3: 0.3}, {}

    def judge(self: RefineTask, epoch: int) -> float:
        kept[epoch] = self.synthetic.stored("float32").target_queries.clone()
        return scores[epoch]

    monkeypatch.setattr(RefineTask, "judge", judge)
    found = summary(replace(TINY, epochs=3, steps_per_epoch=1), train, teacher, cache)
    assert torch.equal(found.rows.tensors()["target_queries"], kept[best])
    assert not torch.equal(kept[best], kept[3])
    assert [record["valid_NDCG@10 over that of full data"] for record in found.trace] == [0.1, 0.5, 0.3]


def test_the_judge_compares_fresh_students_with_their_peers(
    train: Development, peers: list[Peer], control: LabelledRows
) -> None:
    task = task_of(replace(TINY, judge_steps=30), train, peers, control)
    cases, ratios = evaluation_cases(train.histories, "valid"), []
    recipe = TrainingRecipe(learning_rate=0.003, epochs=30, max_steps=30, patience=None)
    for turn, peer in enumerate(peers):
        rng = Streams(0).child("refined").child(f"judge {turn}")
        student = type(peer.model)(**peer.model.config, generator=rng.torch("init"))
        assert fit(student, control, recipe, rng).steps == 30
        best = max(
            evaluate(peer.trajectory.model(epoch), cases).metrics()["NDCG@10"]
            for epoch in range(1, peer.trajectory.num_epochs + 1)
        )
        ratios.append(evaluate(student, cases).metrics()["NDCG@10"] / best)
    assert task.judge(1) == pytest.approx(sum(ratios) / 2)
    assert task.judge(2) == task.judge(1)  # labels that did not change are judged alike
    with torch.no_grad():
        task.synthetic.queries += 3 * torch.randn(5, 6, 8, generator=torch.Generator().manual_seed(0))
    assert task.judge(2) != pytest.approx(sum(ratios) / 2)


def test_peers_are_trained_once_and_kept_in_the_cache(train: Development, teacher: Trajectory, tmp_path: Path) -> None:
    told: list[str] = []
    settings = replace(TINY, epochs=0, peer_epochs=1)
    one = summary(settings, train, teacher, tmp_path, progress=lambda stage, *rest: told.append(stage))
    assert told.count("train") == 2
    assert len(list(tmp_path.iterdir())) == 2
    again = summary(settings, train, teacher, tmp_path, progress=lambda stage, *rest: told.append(stage))
    assert told.count("train") == 2
    assert same(again, one)


def test_without_a_cache_peers_leave_nothing(
    train: Development, teacher: Trajectory, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    seen = []

    def look(stage: str, *rest: Any) -> None:
        seen.append([path.name for path in tmp_path.iterdir()])

    settings = replace(TINY, epochs=1, steps_per_epoch=2, peer_epochs=1)
    kept = summary(settings, train, teacher, tmp_path / "cache")
    found = summary(settings, train, teacher, progress=look)
    assert same(found, kept)
    assert any(name.startswith("recdistill-peers-") for names in seen for name in names)
    assert [path.name for path in tmp_path.iterdir()] == ["cache"]


def test_a_budget_longer_than_the_teacher_reads_is_refused(
    train: Development, teacher: Trajectory, tmp_path: Path
) -> None:
    with pytest.raises(OptionError, match="longer than the 8 items that the teacher reads"):
        summary(replace(TINY, length=9), train, teacher, tmp_path)
    assert list(tmp_path.iterdir()) == []  # before a peer is trained
    assert summary(replace(TINY, length=8, labels="teacher", epochs=0), train, teacher, tmp_path).rows.length == 8


def test_a_peer_that_ranks_nothing_is_refused(
    train: Development, teacher: Trajectory, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Students are scored by their part of its score."""
    useless = [replace(peer, trajectory=_scored(peer.trajectory, 0.0)) for peer in _kept(train, cache)]
    monkeypatch.setattr(refined, "train_peers", lambda *args: useless)
    with pytest.raises(OptionError, match=r"peer_epochs: 3 leaves sasrec_32 with a validation NDCG@10 of 0"):
        summary(TINY, train, teacher, cache)
    assert len(summary(replace(TINY, epochs=0), train, teacher, cache).rows) == 5  # nothing is scored


def _kept(train: Development, cache: Path) -> list[Peer]:
    return train_peers(train, TINY.families, 8, TrainingRecipe(epochs=3), 0, cache, RunContext())


def _scored(trajectory: Trajectory, score: float) -> Trajectory:
    return replace(trajectory, header=trajectory.header | {"scores": [score] * trajectory.num_epochs})


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("labels", "mean"),
        ("families", ()),
        ("families", ("sasrec_32", "gru4rec")),
        ("peer_epochs", 0),
        ("behaviour", -0.1),
        ("behaviour", 1.1),
        ("behaviour", float("nan")),
        ("epochs", -1),
        ("steps_per_epoch", 0),
        ("outer_learning_rate", 0.0),
        ("clip_norm", 0.0),
        ("window", 0),
        ("plain_steps", -1),
        ("inner_learning_rates", ()),
        ("inner_learning_rates", (0.01, 0.0)),
        ("inner_batch_sizes", ()),
        ("inner_batch_sizes", (3, 0)),
        ("real_batch_size", 0),
        ("real_positions", 0),
        ("judge_steps", 0),
        ("precision", "float15"),
    ],
)
def test_options_out_of_range_are_refused(option: str, value: Any) -> None:
    broken = replace(TINY)
    object.__setattr__(broken, option, value)  # past the type checker, which only runs in tests
    with pytest.raises(OptionError, match=option):
        broken.__post_init__()


def test_rows_may_be_one_item_long(train: Development, teacher: Trajectory, cache: Path) -> None:
    found = summary(replace(TINY, length=1, epochs=1, steps_per_epoch=2), train, teacher, cache)
    assert found.rows.length == 1


@pytest.mark.parametrize(("labels", "families"), [("teacher", ("sasrec_32",)), ("peers", ("gru4rec_64",))])
def test_learning_helps_students_that_it_never_saw(
    labels: Any,
    families: tuple[str, ...],
    train: Development,
    teacher: Trajectory,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """On users that it never saw: fresh students of every family come nearer to their peers than with start labels."""
    monkeypatch.setattr(RefineTask, "judge", lambda self, epoch: float(epoch))  # 30 events cannot tell labels apart
    settings = replace(
        TINY,
        num_rows=6,
        labels=labels,
        families=families,
        peer_epochs=10,
        steps_per_epoch=8 * len(families),
        outer_learning_rate=0.4,
        window=4,
        plain_steps=5,
        inner_learning_rates=(0.01,),
        inner_batch_sizes=(6,),
        real_batch_size=12,
        real_positions=4,
    )
    start, end = (summary(replace(settings, epochs=epochs), train, teacher, tmp_path).rows for epochs in (0, 2))
    peers = train_peers(train, families, 8, TrainingRecipe(epochs=10), 0, tmp_path, RunContext())
    unseen = task_of(replace(settings, real_batch_size=64), development(random_histories(40, seed=77)), peers, start)
    recipe = TrainingRecipe(learning_rate=0.01, epochs=1, max_steps=20, patience=None)

    def loss_after(rows: Rows, turn: int, seed: int) -> float:
        rng, peer = Streams(seed), peers[turn].model
        student = type(peer)(**peer.config, generator=rng.torch("init"))
        fit(student, rows, recipe, rng)
        return float(judged(unseen.outer_loss(turn, 0), dict(student.named_parameters())).detach())

    for turn in range(len(families)):
        gains = [loss_after(start, turn, seed) - loss_after(end, turn, seed) for seed in range(3)]
        assert min(gains) > 0.1
