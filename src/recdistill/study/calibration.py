"""From short measurements to a plan: which probes a run needs, and what follows from what they found."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch

from recdistill.data.development import Development, development_of
from recdistill.data.distilled import current_versions
from recdistill.data.prepared import PreparedDataset
from recdistill.data.sequences import evaluation_cases
from recdistill.distill.base import Distiller, Engine
from recdistill.distill.rehearsal import TrainsOthers
from recdistill.distill.teacher import TeacherSpec, teacher_folder
from recdistill.errors import ArtifactError, InputError, OptionError, RecdistillError
from recdistill.machine import machine
from recdistill.progress import SILENT, Progress
from recdistill.storage import sha256_of
from recdistill.study.estimates import Around, distill_stage, slowdown_of, training_stage
from recdistill.study.grid import STAGE as JOBS
from recdistill.study.grid import run_grid
from recdistill.study.local import LocalProcesses
from recdistill.study.plan import Plan, Stage, break_evens, settings_of, settings_of_teacher
from recdistill.study.plan import teacher_settings as settings_of_spec
from recdistill.study.probes import Limits, Probe, TrainingProbe
from recdistill.study.rehearsals import DistillProbe
from recdistill.study.stopping import DISTILLED, FULL
from recdistill.study.students import StudentSpec
from recdistill.training.trajectory import Trajectory


@dataclass(frozen=True, kw_only=True)
class Asked:
    """A run whose cost is to be foretold."""

    prepared: Path
    """Prepared dataset."""
    distiller: Distiller
    """The method, with its hyper-parameters."""
    teacher: TeacherSpec
    """How the teacher is trained; not read where one is given."""
    teacher_seed: int
    """Of that training."""
    given: Path | None = None
    """A teacher that is there."""
    cache: Path
    """Where teachers and other models are kept."""
    student: StudentSpec
    """The model that is trained on all data and on the distilled rows, on the latter with its item table."""
    seed: int
    """Of the run."""
    device: str = "cpu"
    """Where the distillation happens."""
    engine: Engine = field(default_factory=Engine)
    """How meta-gradients are computed."""
    trainings: int = 1
    """Models to be trained."""

    def settings(self, train: Development) -> dict[str, Any]:
        """Return what decides the distillation."""
        if self.given is None:
            teacher = settings_of_spec(self.teacher, self.teacher_seed)
        else:
            teacher = settings_of_teacher(Trajectory.open(self.given))
        return settings_of(
            train.hash,
            self.distiller,
            teacher,
            seed=self.seed,
            device=self.device,
            compile=self.engine.compile,
        )


@dataclass(frozen=True)
class _Model:
    """A model that the run trains on all data."""

    name: str
    spec: TeacherSpec
    seed: int
    folder: Path
    """Where it lies when it is trained."""

    @property
    def there(self) -> Trajectory | None:
        """The finished training, where there is one."""
        return Trajectory.open(self.folder) if (self.folder / "trajectory.json").exists() else None


def plan(
    asked: Asked, *, limits: Limits | None = None, start_mb: float | None = None, progress: Progress = SILENT
) -> Plan:
    """Return what a run will cost on this machine, from some seconds of its stages.

    Args:
        asked: the run.
        limits: how long each measurement may take.
        start_mb: memory of a process of the command line before it works. Probes are forked and begin with less; about
            half of the difference they come to hold too, when they touch the code that they share. Where it is
            ``None``, what is foretold is of processes like the probes.
        progress: told after each measurement.

    Raises:
        InputError: the run cannot be made as it is asked for.
        RecdistillError: a measurement failed.
    """
    started = time.perf_counter()
    train = development_of(PreparedDataset.open(asked.prepared))
    asked.distiller.check(train)
    if asked.given is None and len(evaluation_cases(train.histories, "valid")) == 0:
        raise OptionError("validation part", 0, fix="events: a teacher needs some; prepare with another --split")
    models = _models(asked, train)
    with TemporaryDirectory(prefix="recdistill-plan-") as folder:
        probes = _probes(asked, models, Path(folder), limits or Limits())
        measured = _measure(probes, progress)
    extra = 0.0 if start_mb is None else max(0.0, (start_mb - measured["full"]["start_mb"]) / 2)
    around = Around(extra_mb=extra, slowdown=slowdown_of(measured.values()))
    found = _stages(asked, train, models, measured, around)
    stages: dict[str, Stage] = {stage.stage: stage for stage in found}
    settings, (even, even_range) = asked.settings(train), break_evens(stages)
    return Plan(
        stages=tuple(stages.values()),
        trainings=asked.trainings,
        break_even=even,
        break_even_range=even_range,
        settings=settings,
        settings_hash=sha256_of(settings),
        student=_described(asked.student),
        slowdown=round(around.slowdown, 3),
        calibration_s=round(time.perf_counter() - started, 1),
        threads=torch.get_num_threads(),
        machine=machine(),
        versions=current_versions(),
        created=datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
    )


def _models(asked: Asked, train: Development) -> list[_Model]:
    """Return the teacher, and the models that the method trains beside it."""
    place = asked.given or teacher_folder(train, asked.teacher, asked.teacher_seed, asked.cache)
    teacher = _Model("teacher", asked.teacher, asked.teacher_seed, place)
    if not isinstance(asked.distiller, TrainsOthers):
        return [teacher]
    width = asked.teacher.max_seq_len if teacher.there is None else teacher.there.header["config"]["max_seq_len"]
    others = asked.distiller.others(int(width))
    return [
        teacher,
        *(
            _Model(
                f"peer-{number}-{spec.model}", spec, asked.seed, teacher_folder(train, spec, asked.seed, asked.cache)
            )
            for number, spec in enumerate(others, 1)
        ),
    ]


def _probes(asked: Asked, models: Sequence[_Model], folder: Path, limits: Limits) -> list[Probe]:
    """Return what must be measured."""
    shared: dict[str, Any] = {"folder": folder, "prepared": asked.prepared, "limits": limits}
    probes: list[Probe] = [
        TrainingProbe(
            name=model.name,
            seed=model.seed,
            spec=_as_student(model.spec),
            stream="teacher",
            keeps=True,
            **shared,
        )
        for model in models
        if model.there is None
    ]
    distill = DistillProbe(
        name="distill",
        seed=asked.seed,
        distiller=asked.distiller,
        teacher=asked.teacher,
        teacher_seed=asked.teacher_seed,
        given=models[0].folder if models[0].there else None,
        engine=asked.engine,
        device=asked.device,
        **shared,
    )
    student: dict[str, Any] = {"seed": asked.seed, "spec": asked.student, "stream": "student"} | shared
    full, distilled = TrainingProbe(name="full", **student), TrainingProbe(name="distilled", after=distill, **student)
    return [*probes, distill, full, distilled]


def _as_student(spec: TeacherSpec) -> StudentSpec:
    return StudentSpec(model=spec.model, config=spec.config, max_seq_len=spec.max_seq_len, recipe=spec.recipe)


def _measure(probes: Sequence[Probe], progress: Progress) -> dict[str, dict[str, Any]]:
    """Return what the probes found, one after another, with the threads of this process.

    Raises:
        InputError: the run cannot be made as it is asked for.
        RecdistillError: a probe failed.
    """

    def told(stage: str, done: int, total: int, note: str = "") -> None:
        progress("calibrate" if stage == JOBS else stage, done, total, note.split(":")[0])

    workers = LocalProcesses(size=1, threads=torch.get_num_threads(), preload=(DistillProbe.__module__,))
    outcome = run_grid(probes, workers, progress=told)
    for key, trace in outcome.failed.items():
        kind, _, reason = trace.strip().splitlines()[-1].partition(": ")
        if kind.rsplit(".", 1)[-1] in ("InputError", "DataError", "ArtifactError", "OptionError"):
            raise InputError(reason)
        raise RecdistillError(f"measuring the stage {key} failed: {kind.rsplit('.', 1)[-1]}: {reason}")
    return {probe.name: probe.result() for probe in probes}


def _stages(
    asked: Asked,
    train: Development,
    models: Sequence[_Model],
    measured: Mapping[str, dict[str, Any]],
    around: Around,
) -> list[Stage]:
    """Return the four stages."""
    trained = [
        _kept(model.there)
        if model.there is not None
        else training_stage(
            measured[model.name],
            model.spec.recipe,
            FULL,
            others=_finished(asked.cache, train, model.spec),
            around=around,
        )
        for model in models
    ]
    student = asked.student
    seen = _finished(asked.cache, train, _as_teacher(student)) if student.items == "random" else []
    full = training_stage(measured["full"], student.recipe, FULL, others=seen, around=around)
    distilled = training_stage(measured["distilled"], student.recipe, DISTILLED, stands_in=True, around=around)
    return [
        Stage(stage="teacher", **trained[0]),
        Stage(stage="distill", **distill_stage(measured["distill"], trained[1:], around=around)),
        Stage(stage="full", **full),
        Stage(stage="distilled", **distilled),
    ]


def _as_teacher(spec: StudentSpec) -> TeacherSpec:
    return TeacherSpec(model=spec.model, config=spec.config, max_seq_len=spec.max_seq_len, recipe=spec.recipe)


def _kept(found: Trajectory) -> dict[str, Any]:
    """Return the stage of a model that is trained already."""
    seconds = round(found.seconds, 3)
    basis = {"rule": "trained before", "epochs": [found.num_epochs] * 3}
    known = {"predicted_s": seconds, "low_s": seconds, "high_s": seconds}
    return {**known, "predicted_mb": None, "done": True, "basis": basis}


def _finished(cache: Path, train: Development, spec: TeacherSpec) -> list[int]:
    """Return the epochs of the trainings in the cache that differ from one of ``spec`` by nothing but the seed."""
    wanted = settings_of_spec(spec, 0)
    found = []
    for path in sorted(cache.glob("teacher-*/trajectory.json")):
        try:
            trajectory = Trajectory.open(path.parent)
        except ArtifactError:
            continue  # not for us to judge; whoever wants it will be told
        same = settings_of_teacher(trajectory) | {"--teacher-seed": 0} == wanted
        if same and trajectory.header["about"].get("hash") == train.hash:
            found.append(trajectory.num_epochs)
    return found


def _described(spec: StudentSpec) -> dict[str, Any]:
    return {
        "model": spec.model,
        "config": dict(spec.config),
        "max_seq_len": spec.max_seq_len,
        "items": spec.items,
        "recipe": vars(spec.recipe),
    }
