"""What a run will cost before it begins: seconds and memory of its stages on this machine, and when it has paid.

    teacher     the model that the distillation learns from
    distill     the distillation, models included that it trains for itself
    full        a student on all data
    distilled   a student on the distilled rows

Each stage is begun for real and stopped (:mod:`recdistill.study.probes`); the rest is arithmetic: steps, which are
known beforehand, times seconds of a step. Where validation stops a training, its epochs are a range
(:mod:`recdistill.study.stopping`). What comes can be written beside what was foretold (:func:`compared`).
"""

import json
import math
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from recdistill.data.distilled import Manifest
from recdistill.distill.base import Distiller
from recdistill.distill.teacher import TeacherSpec
from recdistill.errors import ArtifactError
from recdistill.models import MODELS
from recdistill.storage import read_record, sha256_of, write_json
from recdistill.training.trajectory import Trajectory

FORMAT_VERSION = 1
STAGES = ("teacher", "distill", "full", "distilled")
NOT_FORETOLD = "not foretold"
"""Begins the rule of a stage without a prediction."""


class _Record(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Stage(_Record):
    """A part of the run: what it will take, and later what it took."""

    stage: Literal["teacher", "distill", "full", "distilled"]
    predicted_s: float | None
    """``None`` where nothing can be foretold; ``basis`` says why."""
    low_s: float | None
    """Smallest and largest that is likely, the machine as busy as during the calibration."""
    high_s: float | None
    predicted_mb: float | None
    """Peak of a process that does this and nothing else, in MB (10^6 bytes)."""
    actual_s: float | None = None
    actual_mb: float | None = None
    done: bool = False
    """It is there already; the seconds are those it took."""
    basis: dict[str, Any]
    """How it was computed. ``rule`` is for people; ``undisturbed_s`` are the seconds where nothing else runs, without
    those of models that the method trains for itself."""


class Plan(_Record):
    """A prediction, as it is saved."""

    format: Literal["recdistill-plan"] = "recdistill-plan"
    format_version: int = Field(default=FORMAT_VERSION, ge=1)
    stages: tuple[Stage, ...]
    trainings: int
    """Models to be trained, for which with and without distilling are compared."""
    break_even: int | None
    """Trainings after which teacher and distillation have paid; ``None`` where they never do, or it is not known."""
    break_even_range: tuple[int | None, int | None]
    """The same with everything as favourable and as unfavourable as is likely."""
    settings: dict[str, Any]
    """Of the distillation, by the option that sets them."""
    settings_hash: str
    """SHA-256 of the settings."""
    student: dict[str, Any]
    """Which model is trained in ``full`` and ``distilled``, and how."""
    slowdown: float
    """By other work on the machine during the calibration, 1 for none; the seconds hold it."""
    calibration_s: float
    """What the prediction took."""
    threads: int
    """Of torch."""
    machine: dict[str, Any]
    versions: dict[str, str]
    created: str

    def stage(self, name: str) -> Stage:
        """Return one of the stages."""
        return next(stage for stage in self.stages if stage.stage == name)

    def save(self, path: Path) -> None:
        """Write the plan as JSON in one step."""
        write_json(path, self.model_dump(mode="json"))

    @staticmethod
    def load(path: Path) -> "Plan":
        """Return a saved plan.

        Raises:
            ArtifactError: there is none, it is damaged, or it is newer than this version reads.
        """
        fix = "make one with: recdistill plan"
        plan = read_record(path, Plan, "plan", fix)
        if sha256_of(plan.settings) != plan.settings_hash:
            raise ArtifactError("has other settings than their hash says", fix=fix, path=path)
        return plan

    def require(self, settings: Mapping[str, Any], path: Path) -> None:
        """Raise when the plan is not for a run.

        Args:
            settings: of the run, see :func:`settings_of`.
            path: where the plan lies, for the message.

        Raises:
            ArtifactError: naming the first option that differs.
        """
        fix = "plan again with the settings of this run, or leave --plan out"
        for name in sorted(self.settings.keys() | settings.keys(), key=lambda name: (name != "--method", name)):
            planned, asked = self.settings.get(name), settings.get(name)
            if planned == asked:
                continue
            if name == "PREPARED":
                raise ArtifactError("is for another prepared dataset or split", fix=fix, path=path)
            raise ArtifactError(f"is for {name} {planned!r}, and this run has {asked!r}", fix=fix, path=path)


def settings_of(
    split: str, distiller: Distiller, teacher: Mapping[str, Any], *, seed: int, device: str, compile: bool
) -> dict[str, Any]:
    """Return what a plan of a distillation is for, by the option of the command line that sets it.

    Args:
        split: hash of the split.
        distiller: the method.
        teacher: from :func:`teacher_settings` or :func:`settings_of_teacher`.
        seed, device, compile: of the run.
    """
    parameters = {f"--option {name}": value for name, value in asdict(distiller).items()}  # type: ignore[call-overload]
    rows, length = (parameters.pop(f"--option {name}", 0) for name in ("num_rows", "length"))
    found = {
        "PREPARED": split,
        "--method": distiller.method,
        "--budget": f"{rows}x{length}",
        "--seed": seed,
        "--device": device,
        "--compile": compile,
        **parameters,
        **teacher,
    }
    made: dict[str, Any] = json.loads(json.dumps(found))  # tuples as lists, as they are read again
    return made


def teacher_settings(spec: TeacherSpec, seed: int) -> dict[str, Any]:
    """Return what decides a teacher that is to be trained."""
    config = MODELS[spec.model].options() | dict(spec.config)
    return _teacher(spec.model, config, spec.recipe.as_dict(), spec.max_seq_len, seed)


def settings_of_teacher(teacher: Trajectory) -> dict[str, Any]:
    """Return the same of a teacher that is there."""
    header = teacher.header
    config = {name: header["config"].get(name) for name in MODELS[header["model"]].options()}
    return _teacher(header["model"], config, header["recipe"], header["config"]["max_seq_len"], header["seed"])


def _teacher(
    model: str, config: Mapping[str, Any], recipe: Mapping[str, Any], max_seq_len: int, seed: int
) -> dict[str, Any]:
    options = {f"--teacher-option {name}": value for name, value in config.items()}
    fields = {f"--teacher-recipe {name}": value for name, value in recipe.items()}
    return {"--teacher-model": model, "--max-seq-len": max_seq_len, "--teacher-seed": seed} | options | fields


def break_even(teacher: float, distill: float, full: float, distilled: float) -> int | None:
    """Return after how many trainings distilling has paid: ``ceil((teacher + distill) / (full - distilled))``.

    At least 1; ``None`` where training on the distilled rows saves nothing.

    Args:
        teacher, distill: seconds that are spent once.
        full, distilled: seconds of a training on all data and on the distilled rows.
    """
    saved = full - distilled
    return max(1, math.ceil((teacher + distill) / saved)) if saved > 0 else None


def break_evens(stages: Mapping[str, Stage]) -> tuple[int | None, tuple[int | None, int | None]]:
    """Return when a run has paid, as expected and as favourable and unfavourable as is likely.

    Nothing is known where a stage is not foretold.
    """
    once = [stages[name] for name in STAGES[:2]]
    full, distilled = stages["full"], stages["distilled"]

    def paid(once_by: str, full_by: str, distilled_by: str) -> int | None:
        seconds = [
            *(getattr(stage, once_by) for stage in once),
            getattr(full, full_by),
            getattr(distilled, distilled_by),
        ]
        return None if None in seconds else break_even(*seconds)

    expected = paid("predicted_s", "predicted_s", "predicted_s")
    return expected, (paid("low_s", "high_s", "low_s"), paid("high_s", "low_s", "high_s"))


def compared(plan: Plan, manifest: Manifest, *, teacher_mb: float | None = None) -> dict[str, Any]:
    """Return a plan with what the distillation came to, as it stands in the manifest and in the certificate.

    Args:
        plan: for this distillation.
        manifest: of the distilled dataset.
        teacher_mb: peak of the process when it had trained the teacher; ``None`` where it trained none. The peak of the
            distillation is then known only where it is the larger one.
    """
    seconds = manifest.seconds
    came: dict[str, dict[str, float | None]] = {
        "teacher": {"actual_s": seconds["teacher"], "actual_mb": teacher_mb},
        "distill": {
            "actual_s": round(seconds["distill"] + seconds.get("peers", 0.0), 3),
            "actual_mb": manifest.peak_mb if teacher_mb is None or manifest.peak_mb > teacher_mb else None,
        },
    }
    stages = tuple(stage.model_copy(update=came.get(stage.stage, {})) for stage in plan.stages)
    made: dict[str, Any] = plan.model_copy(update={"stages": stages}).model_dump(mode="json")
    return made
