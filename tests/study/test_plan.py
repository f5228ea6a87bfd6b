"""Plans: steps are foretold exactly where they are determined, records hold, arithmetic is right, mistakes are named.

The data are the demo's log and models of a few weights. Not proved: that seconds and megabytes are near; that is
measured (``benchmarks/plan_error.py``), because here it would depend on what else the machine does.
"""

import json
import signal
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch

from recdistill.data.development import Development, development_of
from recdistill.data.distilled import DistilledDataset
from recdistill.data.prepared import PreparedDataset, PrepareSpec, prepare
from recdistill.data.sequences import evaluation_cases, training_rows
from recdistill.demo import generate
from recdistill.distill.base import Distiller, RunContext, Summary
from recdistill.distill.coresets.counts import PopularityCounts
from recdistill.distill.coresets.k_center import KCenter
from recdistill.distill.coresets.random import Random
from recdistill.distill.refined import Refined
from recdistill.distill.rehearsal import Rehearsable
from recdistill.distill.run import distill, peak_megabytes
from recdistill.distill.td3 import TD3
from recdistill.distill.teacher import TeacherSpec, teach
from recdistill.errors import ArtifactError, InputError, RecdistillError
from recdistill.progress import SILENT
from recdistill.rng import Streams
from recdistill.storage import read_json, write_json
from recdistill.study.calibration import Asked, plan
from recdistill.study.estimates import Around, distill_stage, slowdown_of, training_stage
from recdistill.study.plan import Plan, Stage, break_even, break_evens, compared, settings_of, settings_of_teacher
from recdistill.study.plan import teacher_settings as settings_of_spec
from recdistill.study.probes import Clock, Enough, Limits, TrainingProbe, block_means, scheduled, undisturbed
from recdistill.study.rehearsals import alarm, line, spread, stand_in, tried
from recdistill.study.stopping import FULL, foreseen
from recdistill.study.students import StudentSpec, train_student
from recdistill.training.fit import TrainingRecipe, steps_in_epoch
from recdistill.training.trajectory import Trajectory

TINY = {"embedding_dim": 8, "num_blocks": 1, "num_heads": 1, "inner_dim": 8}
RECIPE = TrainingRecipe(epochs=2, steps_per_epoch=3, batch_size=256, learning_rate=0.01, patience=2)
TEACHER = TeacherSpec(config=TINY, max_seq_len=8, recipe=RECIPE)
METHOD = TD3(
    num_rows=4,
    length=6,
    rank=2,
    epochs=2,
    outer_batch_size=2048,
    synthetic_batch_size=4,
    max_inner_steps=9,
    window=2,
    pool=(1, 2),
    judge_steps=3,
)
QUICK = Limits(training=0.05, to_the_end=20.0, distilling=0.05, whole=20.0)


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("demo")
    prepare(generate(folder / "raw", 3), folder / "prepared", PrepareSpec(name="demo"))
    return folder / "prepared"


@pytest.fixture(scope="module")
def train(prepared: Path) -> Development:
    return development_of(PreparedDataset.open(prepared))


def asked(prepared: Path, cache: Path, **changes: Any) -> Asked:
    values: dict[str, Any] = {
        "prepared": prepared,
        "distiller": METHOD,
        "teacher": TEACHER,
        "teacher_seed": 5,
        "cache": cache,
        "student": StudentSpec(config=TINY, max_seq_len=8, recipe=RECIPE),
        "seed": 5,
    }
    return Asked(**values | changes)


@pytest.fixture(scope="module")
def made(prepared: Path, tmp_path_factory: pytest.TempPathFactory) -> Plan:
    """A plan from probes in processes of their own."""
    told: list[tuple[str, int, int]] = []
    made = plan(
        asked(prepared, tmp_path_factory.mktemp("cache"), trainings=7),
        limits=QUICK,
        start_mb=peak_megabytes(),
        progress=lambda stage, done, total, note="": told.append((stage, done, total)),
    )
    assert told == [("calibrate", number, 4) for number in (1, 2, 3, 4)]
    return made


@pytest.fixture(scope="module")
def teacher(train: Development, tmp_path_factory: pytest.TempPathFactory) -> Trajectory:
    return teach(train, TEACHER, 5, tmp_path_factory.mktemp("teachers"))


def test_every_stage_is_foretold(made: Plan) -> None:
    assert [stage.stage for stage in made.stages] == ["teacher", "distill", "full", "distilled"]
    for stage in made.stages:
        assert stage.predicted_s is not None
        assert 0 < stage.low_s <= stage.predicted_s <= stage.high_s
        assert stage.predicted_mb > 100
        assert (stage.actual_s, stage.actual_mb, stage.done) == (None, None, False)
        assert stage.basis["rule"]
    assert (made.trainings, made.threads) == (7, torch.get_num_threads())
    assert made.calibration_s > 0
    assert made.slowdown >= 1
    assert {"cpu", "cores"} <= made.machine.keys()
    assert "torch" in made.versions


def test_outer_and_inner_steps_are_those_of_the_run(
    made: Plan, train: Development, teacher: Trajectory, monkeypatch: pytest.MonkeyPatch
) -> None:
    outer: set[int] = set()
    inner: list[int] = []
    plain = TD3.task

    def counting(self: TD3, *given: Any) -> Any:
        task = plain(self, *given)

        def estimate(*args: Any) -> Any:
            inner.append(args[-1])
            return estimator(*args)

        estimator = task.estimator
        task.__dict__["estimator"] = estimate  # a cached property
        return task

    def told(stage: str, done: int, total: int, note: str = "") -> None:
        if stage == "distill":
            outer.add(done)

    monkeypatch.setattr(TD3, "task", counting)
    distill(train, METHOD, teacher, seed=5, context=RunContext(progress=told))
    basis = made.stage("distill").basis
    assert (basis["way"], basis["outer_steps"]) == ("rehearsed", max(outer))
    assert (len(inner), sum(inner)) == (max(outer), basis["inner_steps"])
    assert basis["judgements"] == METHOD.epochs


def test_steps_of_a_training_without_stop_are_those_of_the_run(
    prepared: Path, train: Development, tmp_path: Path
) -> None:
    recipe = replace(RECIPE, patience=None, epochs=40, max_steps=100)
    spec = StudentSpec(config=TINY, max_seq_len=8, recipe=recipe)
    probe = TrainingProbe(
        name="full",
        folder=tmp_path,
        prepared=prepared,
        seed=1,
        limits=replace(QUICK, to_the_end=0.01),
        spec=spec,
        stream="student",
    )
    probe.run(SILENT)
    found = probe.result()
    assert not found["ended"]
    stage = training_stage(found, recipe, FULL)
    rows = training_rows(train.histories, 8, "windows")
    _, result = train_student(
        rows, spec, num_items=train.num_items, seed=1, valid=evaluation_cases(train.histories, "valid")
    )
    assert stage["basis"]["steps"] == result.steps == 100
    assert stage["basis"]["epochs"] == [result.epochs] * 3
    assert stage["basis"]["rule"] == "nothing stops it early"
    expected = found["start_s"] + 100 * found["step_s"]["middle"] + result.epochs * found["epoch_s"]
    assert stage["predicted_s"] == pytest.approx(expected, abs=1e-3)


@pytest.mark.parametrize("stream", ["teacher", "student"])
def test_a_training_that_ends_within_a_probe_is_the_run(
    stream: str, prepared: Path, train: Development, tmp_path: Path
) -> None:
    """The same seed, rows and validation: so the epoch in which validation stops it is the same too."""
    recipe = replace(RECIPE, epochs=30, patience=1, learning_rate=0.05)
    spec = StudentSpec(config=TINY, max_seq_len=8, recipe=recipe)
    shared: dict[str, Any] = {"folder": tmp_path, "prepared": prepared, "seed": 4, "limits": Limits(training=60.0)}
    probe = TrainingProbe(name=stream, spec=spec, stream=stream, keeps=stream == "teacher", **shared)
    probe.run(SILENT)
    if stream == "teacher":
        ran = teach(train, TeacherSpec(config=TINY, max_seq_len=8, recipe=recipe), 4, tmp_path / "cache")
        epochs, scores = ran.num_epochs, ran.header["scores"]
    else:
        rows, cases = training_rows(train.histories, 8, "windows"), evaluation_cases(train.histories, "valid")
        _, result = train_student(rows, spec, num_items=train.num_items, seed=4, valid=cases)
        epochs, scores = result.epochs, result.scores
    found = probe.result()
    assert (found["ended"], found["epochs"], found["scores"]) == (True, epochs, scores)
    assert epochs < 30
    stage = training_stage(found, recipe, FULL)
    assert stage["basis"]["epochs"] == [epochs] * 3
    assert stage["predicted_s"] == pytest.approx(found["run_s"], abs=2e-3)
    other = training_stage(found, recipe, FULL, stands_in=True)  # of other rows it says nothing about the epochs
    assert other["basis"]["epochs"] == [2, 3, 6]


def test_what_is_in_the_cache_is_not_measured_again(prepared: Path, train: Development, tmp_path: Path) -> None:
    there = teach(train, TEACHER, 5, tmp_path)
    told: list[str] = []
    made = plan(
        asked(prepared, tmp_path, distiller=Random(num_rows=4, length=6)),
        limits=QUICK,
        progress=lambda stage, done, total, note="": told.append(note),
    )
    assert told == ["distill", "full", "distilled"]
    stage = made.stage("teacher")
    assert (stage.done, stage.predicted_s, stage.predicted_mb) == (True, round(there.seconds, 3), None)
    assert made.stage("distill").basis["way"] == "tried"
    given = plan(asked(prepared, tmp_path / "no", given=there.folder, distiller=PopularityCounts()), limits=QUICK)
    assert given.stage("teacher").done
    assert given.stage("distilled").basis["rule"] == "nothing to train"


def test_models_that_a_method_trains_are_part_of_it(prepared: Path, train: Development, tmp_path: Path) -> None:
    method = Refined(
        num_rows=4, length=6, families=("gru4rec_64", "narm_32"), peer_epochs=2, epochs=1, steps_per_epoch=3, window=2,
        plain_steps=3, real_batch_size=8, judge_steps=2,
    )  # fmt: skip
    (first, _) = method.others(8)
    there = teach(train, first, 5, tmp_path)
    told: list[str] = []
    made = plan(
        asked(prepared, tmp_path, distiller=method),
        limits=QUICK,
        progress=lambda stage, done, total, note="": told.append(note),
    )
    assert told == ["teacher", "peer-2-narm", "distill", "full", "distilled"]
    stage = made.stage("distill")
    assert stage.basis["outer_steps"] == 3
    assert stage.basis["inner_steps"] >= 3 * method.window
    assert stage.basis["judgements"] == 2  # the labels as they begin compete
    known, measured = (peer["predicted_s"] for peer in stage.basis["peers"])
    assert known == round(there.seconds, 3)
    assert stage.predicted_s > known + measured


@pytest.mark.parametrize("method", [METHOD, KCenter(num_rows=4, length=6)], ids=["td3", "k_center"])
def test_a_stand_in_does_the_work_of_a_teacher(method: Distiller, train: Development, tmp_path: Path) -> None:
    spec = replace(TEACHER, recipe=replace(RECIPE, epochs=12))
    folder = stand_in(train, spec, 5, tmp_path)
    assert teach(train, spec, 5, tmp_path).folder == folder  # it is found as the real one would be
    found = Trajectory.open(folder)
    assert found.num_epochs == 12
    for name, value in found.weights(12).items():
        assert torch.equal(value, found.weights(1)[name])
    made = distill(train, method, found, seed=0, context=RunContext(cache=tmp_path))
    assert len(made.rows) == 4


def test_what_a_method_offers_is_what_it_does(train: Development, teacher: Trajectory) -> None:
    assert isinstance(METHOD, Rehearsable)
    assert not isinstance(Random(num_rows=4, length=6), Rehearsable)
    task = METHOD.task(train, teacher, Streams(5).child("td3"), RunContext())
    assert sorted(task.rehearsals) == list(range(16))
    counts = [task.inner_steps(step) for step in task.rehearsals]
    assert counts[0] < counts[1]
    assert all(METHOD.window <= count <= METHOD.max_inner_steps for count in counts)
    step = next(task.steps(0))
    alone = task.rehearse(0)
    assert {name: value.shape for name, value in alone.gradient.items()} == {
        name: value.shape for name, value in step.gradient.items()
    }
    before = {name: value.clone() for name, value in task.synthetic.state_dict().items()}
    task.rehearse(1)
    assert all(torch.equal(before[name], value) for name, value in task.synthetic.state_dict().items())


@dataclass(frozen=True, kw_only=True)
class Slow:
    """A method that takes long and may tell how far it is."""

    method: ClassVar[str] = "slow"
    tells: bool
    num_rows: int = 4
    length: int = 6

    def check(self, train: Development) -> None:
        return

    def distill(
        self, train: Development, teacher: Trajectory, previous: Any, rng: Streams, context: RunContext
    ) -> Summary:
        if self.tells:
            context.progress("distill", 1, 8)
            context.progress("else", 7, 8)
        time.sleep(60)
        raise AssertionError("it was let go on")


@pytest.mark.parametrize("tells", [True, False])
def test_a_method_that_takes_long_is_stopped(tells: bool, train: Development, teacher: Trajectory) -> None:
    found, summary = tried(Slow(tells=tells), train, teacher, Streams(0), RunContext(), 0.2)
    assert summary is None
    assert signal.getitimer(signal.ITIMER_REAL) == (0.0, 0.0)
    stage = distill_stage(found | {"ran_s": 1.0, "waited_s": 0.0, "probe_s": 0.2, "peak_mb": 300.0}, [])
    if tells:
        assert found["part"] == 1 / 8
        assert 8 * 0.2 <= stage["predicted_s"] < 60
        assert stage["low_s"] < stage["predicted_s"] < stage["high_s"]
    else:
        assert stage["predicted_s"] is None
        assert "not foretold" in stage["basis"]["rule"]


def test_an_alarm_lets_errors_through_and_no_ring_is_no_end() -> None:
    with pytest.raises(ValueError, match="mine"), alarm(60):
        raise ValueError("mine")
    with alarm(60) as rung:
        pass
    assert rung == []


def test_a_failed_probe_says_why(prepared: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"^pool: \(7, 9\) starts after the teacher's last epoch 2"):
        plan(asked(prepared, tmp_path, distiller=replace(METHOD, pool=(7, 9))), limits=QUICK)
    with pytest.raises(RecdistillError, match="measuring the stage teacher failed: NumericalError"):
        plan(
            asked(prepared, tmp_path, teacher=replace(TEACHER, recipe=replace(RECIPE, learning_rate=1e30))),
            limits=QUICK,
        )


def test_a_saved_plan_is_the_same_plan(made: Plan, tmp_path: Path) -> None:
    path = tmp_path / "plan.json"
    made.save(path)
    assert Plan.load(path) == made
    stages = read_json(path)["stages"]
    assert [set(stage) for stage in stages] == [set(Stage.model_fields)] * 4
    assert all(stage["actual_s"] is None for stage in stages)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"format": "other"}, "is not a plan; make one with"),
        ({"format_version": 9}, "format version 9, this recdistill reads up to 1; update"),
        ({"trainings": "many"}, "field 'trainings'"),
        ({"settings": {"--seed": 1}}, "other settings than their hash says"),
    ],
)
def test_a_damaged_plan_is_refused(change: dict[str, Any], told: str, made: Plan, tmp_path: Path) -> None:
    write_json(tmp_path / "plan.json", made.model_dump(mode="json") | change)
    with pytest.raises(ArtifactError, match=told) as error:
        Plan.load(tmp_path / "plan.json")
    assert str(tmp_path / "plan.json") in str(error.value)


def test_a_plan_is_for_its_settings_alone(made: Plan, train: Development, teacher: Trajectory) -> None:
    def settings(method: Distiller = METHOD, spec: TeacherSpec = TEACHER, split: str = train.hash, **how: Any) -> Any:
        return settings_of(
            split, method, settings_of_spec(spec, 5), **{"seed": 5, "device": "cpu", "compile": False} | how
        )

    path = Path("p.json")
    made.require(settings(), path)
    made.require(
        settings_of(train.hash, METHOD, settings_of_teacher(teacher), seed=5, device="cpu", compile=False), path
    )
    others: dict[str, dict[str, Any]] = {
        "--option epochs 2, and this run has 3": settings(replace(METHOD, epochs=3)),
        "--budget '4x6', and this run has '5x6'": settings(replace(METHOD, num_rows=5)),
        "--method 'td3', and this run has 'random'": settings(Random(num_rows=4, length=6)),
        "--teacher-recipe epochs 2, and": settings(spec=replace(TEACHER, recipe=replace(RECIPE, epochs=3))),
        "--teacher-option inner_dim 8, and": settings(spec=replace(TEACHER, config=TINY | {"inner_dim": 9})),
        "--max-seq-len 8, and": settings(spec=replace(TEACHER, max_seq_len=9)),
        "--seed 5, and": settings(seed=6),
        "--compile False, and": settings(compile=True),
        "another prepared dataset or split": settings(split="0" * 64),
    }
    for told, other in others.items():
        with pytest.raises(ArtifactError) as error:
            made.require(other, path)
        message = str(error.value)
        assert message.startswith("p.json: is for ")
        assert told in message
        assert message.endswith("plan again with the settings of this run, or leave --plan out")


@pytest.mark.parametrize(
    ("seconds", "after"),
    [((10, 20, 8, 2), 5), ((10, 21, 8, 2), 6), ((0, 1, 8, 2), 1), ((10, 20, 2, 2), None), ((10, 20, 2, 3), None)],
)
def test_when_distilling_has_paid(seconds: tuple[float, float, float, float], after: int | None) -> None:
    assert break_even(*seconds) == after
    if after is not None:
        once, saved = seconds[0] + seconds[1], seconds[2] - seconds[3]
        assert (after - 1) * saved < once <= after * saved


def test_the_range_of_the_break_even_takes_every_stage_at_its_best_and_at_its_worst() -> None:
    def stage(name: Any, low: float, expected: float, high: float) -> Stage:
        return Stage(stage=name, predicted_s=expected, low_s=low, high_s=high, predicted_mb=1.0, basis={})

    stages = {
        "teacher": stage("teacher", 5, 10, 20),
        "distill": stage("distill", 15, 20, 30),
        "full": stage("full", 6, 8, 12),
        "distilled": stage("distilled", 1, 2, 4),
    }
    assert break_evens(stages) == (5, (2, 25))  # 30 / 6, 20 / 11, 50 / 2
    stages["distilled"] = stage("distilled", 1, 2, 6)
    assert break_evens(stages) == (5, (2, None))
    stages["distill"] = stages["distill"].model_copy(update={"predicted_s": None, "low_s": None, "high_s": None})
    assert break_evens(stages) == (None, (None, None))


def test_what_came_stands_beside_what_was_foretold(
    made: Plan, train: Development, teacher: Trajectory, tmp_path: Path
) -> None:
    dataset = distill(train, METHOD, teacher, seed=5, context=RunContext())
    manifest = dataset.manifest
    found = compared(made, manifest)
    by = {stage["stage"]: stage for stage in found["stages"]}
    assert by["teacher"]["actual_s"] == manifest.seconds["teacher"]
    assert by["teacher"]["actual_mb"] is None
    assert by["distill"]["actual_s"] == manifest.seconds["distill"]
    assert by["distill"]["actual_mb"] == manifest.peak_mb
    assert by["full"]["actual_s"] is by["distilled"]["actual_s"] is None
    assert {**found, "stages": None} == {**made.model_dump(mode="json"), "stages": None}
    for stage in made.stages:
        assert by[stage.stage]["predicted_s"] == stage.predicted_s

    more = manifest.model_copy(update={"seconds": manifest.seconds | {"peers": 4.0}, "peak_mb": 500.0})
    stages = compared(made, more, teacher_mb=500.0)["stages"]
    assert (stages[0]["actual_mb"], stages[1]["actual_mb"]) == (500.0, None)  # the teacher's was the larger one
    assert stages[1]["actual_s"] == pytest.approx(manifest.seconds["distill"] + 4)
    assert compared(made, more, teacher_mb=499.0)["stages"][1]["actual_mb"] == 500.0

    replace(dataset, manifest=manifest.model_copy(update={"predicted": found})).save(tmp_path / "d")
    assert DistilledDataset.load(tmp_path / "d").manifest.predicted == json.loads(json.dumps(found))


def test_epochs_are_foreseen_from_patience_from_other_seeds_and_from_what_was_seen() -> None:
    recipe = TrainingRecipe(patience=10, epochs=60)

    def epochs(recipe: TrainingRecipe = recipe, **known: Any) -> list[int]:
        found = foreseen(100, recipe, (1.5, 3.4, 6.5), **known)
        return [found.low, found.expected, found.high]

    assert epochs() == [15, 34, 60]
    assert epochs(replace(recipe, patience=None)) == [60, 60, 60]
    assert epochs(replace(recipe, epochs=20)) == [15, 20, 20]
    assert epochs(replace(recipe, max_steps=205)) == [11, 11, 11]  # 20 steps an epoch
    assert epochs(others=[21, 22, 50]) == [15, 22, 60]
    assert epochs(others=[12]) == [12, 12, 60]
    assert epochs(scores=[0.1] * 9 + [0.3, 0.2]) == [20, 34, 60]  # the best is the tenth: ten more at least
    assert epochs(scores=[0.1] * 29 + [0.3, 0.2]) == [40, 40, 60]
    assert epochs(replace(recipe, validate_every=2, epochs=99), scores=[0.1, 0.2]) == [30, 68, 99]


def test_a_clock_goes_on_only_where_the_end_is_near() -> None:
    def after(seconds: float, *, epochs: int, epoch_s: float, patience: int | None = 5) -> bool:
        clock = Clock(Limits(training=1, to_the_end=10), 4, 20, patience, started=undisturbed() - seconds)
        clock.step_seconds, clock.epochs, clock.seconds = [0.01] * 20, epochs, epochs * epoch_s
        try:
            clock.batch_asked()
        except Enough:
            return False
        return True

    assert after(0.5, epochs=0, epoch_s=1)
    assert after(1.5, epochs=0, epoch_s=1)  # an epoch is to be seen
    assert not after(2.5, epochs=0, epoch_s=1)
    assert after(1.5, epochs=1, epoch_s=0.5)  # 17 epochs of half a second
    assert not after(1.5, epochs=1, epoch_s=0.6)
    assert not after(1.5, epochs=1, epoch_s=0.51, patience=None)  # 20 epochs
    assert not after(10.5, epochs=3, epoch_s=0.1)


def test_seconds_of_a_step_are_the_middle_of_blocks() -> None:
    assert block_means([1.0] * 10 + [2.0] * 10 + [30.0] * 5) == {"low": 1.0, "middle": 2.0, "high": 30.0}
    assert block_means([3.0]) == {"low": 3.0, "middle": 3.0, "high": 3.0}
    assert block_means([1.0] * 12 + [9.0]) == {"low": 1.0, "middle": 1.0, "high": 1.0}  # less than half a block


def test_other_work_is_taken_out_of_a_probe_and_put_in_as_all_probes_saw_it(tmp_path: Path) -> None:
    assert slowdown_of([{"ran_s": 2.0, "waited_s": 1.0}]) == 1.5
    assert slowdown_of([{"ran_s": 2.0, "waited_s": 1.0}, {"ran_s": 6.0, "waited_s": 0.0}]) == 9 / 8
    assert slowdown_of([{"ran_s": 0.0, "waited_s": 0.0}]) == 1.0
    found = {"way": "tried", "seconds": 2.0, "peak_mb": 300.0, "probe_s": 3.0, "ran_s": 2.0, "waited_s": 1.0}
    alone, paced = distill_stage(found, []), distill_stage(found, [], around=Around(extra_mb=20, slowdown=2.5))
    assert (alone["predicted_s"], alone["predicted_mb"], alone["basis"]["undisturbed_s"]) == (2.0, 300.0, 2.0)
    assert (paced["predicted_s"], paced["predicted_mb"], paced["basis"]["undisturbed_s"]) == (5.0, 320.0, 2.0)
    (tmp_path / "schedstat").write_text("1500000000 250000000 12\n")
    assert scheduled(tmp_path / "schedstat") == (1.5, 0.25)
    before = scheduled(tmp_path / "none")
    sum(range(10**6))
    assert scheduled(tmp_path / "none")[0] > before[0]
    wall, clock = time.perf_counter(), undisturbed()
    sum(range(10**6))
    clock, wall = undisturbed() - clock, time.perf_counter() - wall
    assert 0 < clock <= wall


def test_a_line_through_outer_steps() -> None:
    assert line([(2, 7.0), (4, 11.0), (9, 21.0)]) == pytest.approx((3.0, 2.0))
    assert line([(4, 3.0), (4, 5.0)]) == (4.0, 0.0)
    assert line([(2, 9.0), (4, 1.0)]) == (5.0, 0.0)  # longer unrolls are never quicker
    assert line([(10, 1.0), (20, 4.0)]) == pytest.approx((0.0, 2.5 / 15))
    assert spread([(2, 7.0), (4, 22.0)], 3.0, 2.0) == [1.0, 2.0]


def test_steps_in_an_epoch_are_those_that_fit_takes(train: Development) -> None:
    rows = training_rows(train.histories, 8, "windows")
    for recipe in (RECIPE, replace(RECIPE, batch_size=5000), replace(RECIPE, batch_size=100, steps_per_epoch=30)):
        spec = StudentSpec(config=TINY, max_seq_len=8, recipe=replace(recipe, epochs=1))
        _, result = train_student(rows, spec, num_items=train.num_items, seed=0)
        assert result.steps == steps_in_epoch(len(rows), recipe)
