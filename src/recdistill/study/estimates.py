"""What measurements say of a whole stage: steps times seconds of a step, and a range."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from recdistill.study.plan import NOT_FORETOLD
from recdistill.study.stopping import Epochs, foreseen
from recdistill.training.fit import TrainingRecipe

FIT_SPREAD = 0.1
"""Part by which the seconds of a few measured steps may be off, in any case."""


@dataclass(frozen=True, kw_only=True)
class Around:
    """What a run meets on its machine that a probe did not.

    Args:
        extra_mb: memory that a process of the run has more than that of a probe.
        slowdown: by other work, 1 for none.
    """

    extra_mb: float
    slowdown: float


def training_stage(
    found: Mapping[str, Any],
    recipe: TrainingRecipe,
    rule: tuple[float, float, float],
    *,
    others: Sequence[int] = (),
    around: Around | None = None,
    stands_in: bool = False,
) -> dict[str, Any]:
    """Return what a probe says of a whole training: fields of a :class:`~recdistill.study.plan.Stage`.

    Args:
        found: what a :class:`~recdistill.study.probes.TrainingProbe` measured.
        recipe: of the training.
        rule: epochs over patience where validation stops it.
        others: epochs of finished trainings that differ by the seed.
        around: what the run meets; nothing, when ``None``.
        stands_in: the rows were not the real ones, so that only the seconds of a step are known from them.
    """
    memory = round(found["peak_mb"] + (around.extra_mb if around else 0.0), 1)
    if not found["steps_per_epoch"]:
        basis = {"rule": "nothing to train", "epochs": [0, 0, 0], "steps": 0}
        return {"predicted_s": 0.0, "low_s": 0.0, "high_s": 0.0, "predicted_mb": memory, "basis": basis}
    step, steps = found["step_s"], found["steps_per_epoch"]
    low, high = (step[name] / step["middle"] for name in ("low", "high"))
    if found["ended"] and not stands_in:
        count = found["epochs"]
        epochs = Epochs(low=count, expected=count, high=count, rule="seen to its end")
        seconds = [
            found["run_s"] * min(low, 1 - FIT_SPREAD),
            found["run_s"],
            found["run_s"] * max(high, 1 + FIT_SPREAD),
        ]
    else:
        scores = () if stands_in else found["scores"]
        epochs = foreseen(found["rows"], recipe, rule, scores=scores, others=others)
        seconds = [
            found["start_s"] + pace * (_steps(count, steps, recipe) * step["middle"] + count * found["epoch_s"])
            for count, pace in (
                (epochs.low, min(low, 1 - FIT_SPREAD)),
                (epochs.expected, 1.0),
                (epochs.high, max(high, 1 + FIT_SPREAD)),
            )
        ]
    basis = {
        "rule": epochs.rule,
        "epochs": [epochs.low, epochs.expected, epochs.high],
        "steps": _steps(epochs.expected, steps, recipe),
        "steps_per_epoch": steps,
        "seconds_per_step": step["middle"],
        "seconds_per_validation": found["epoch_s"],
        "steps_timed": found["steps_timed"],
        "probe_s": found["probe_s"],
    }
    return {**_at_the_pace(seconds, around, basis), "predicted_mb": memory, "basis": basis}


def _steps(epochs: int, steps_per_epoch: int, recipe: TrainingRecipe) -> int:
    steps = epochs * steps_per_epoch
    return steps if recipe.max_steps is None else min(steps, recipe.max_steps)


def distill_stage(
    found: Mapping[str, Any], others: Sequence[Mapping[str, Any]], *, around: Around | None = None
) -> dict[str, Any]:
    """Return what a probe says of a whole distillation: fields of a :class:`~recdistill.study.plan.Stage`.

    Args:
        found: what a :class:`~recdistill.study.rehearsals.DistillProbe` measured.
        others: stages of the models that the method trains for itself.
        around: what the run meets; nothing, when ``None``.
    """
    basis: dict[str, Any] = {name: found[name] for name in ("way", "probe_s")}
    memory = max(
        [found["peak_mb"] + (around.extra_mb if around else 0.0), *(stage["predicted_mb"] or 0.0 for stage in others)]
    )
    own = _own_seconds(found, basis)
    if own is None or any(stage["predicted_s"] is None for stage in others):
        return {"predicted_s": None, "low_s": None, "high_s": None, "predicted_mb": None, "basis": basis}
    if others:
        basis["peers"] = [dict(stage["basis"]) | {"predicted_s": stage["predicted_s"]} for stage in others]
    paced = _at_the_pace(own, around, basis)
    seconds = {name: round(value + sum(stage[name] for stage in others), 3) for name, value in paced.items()}
    return seconds | {"predicted_mb": round(memory, 1), "basis": basis}


def slowdown_of(measured: Iterable[Mapping[str, Any]]) -> float:
    """Return how much longer probes took than they would have, had nothing else run on their processors; at least 1.

    Other work comes and goes within seconds, so that all probes together tell more of a long run than each of its own.
    """
    ran, waited = (sum(name) for name in zip(*((one["ran_s"], one["waited_s"]) for one in measured), strict=True))
    return (ran + waited) / ran if ran else 1.0


def _at_the_pace(seconds: Sequence[float], around: Around | None, basis: dict[str, Any]) -> dict[str, float]:
    """Return low, expected and high seconds beside other work; write into ``basis`` those without any."""
    basis["undisturbed_s"] = round(seconds[1], 3)
    names, pace = ("low_s", "predicted_s", "high_s"), around.slowdown if around else 1.0
    return {name: round(value * pace, 3) for name, value in zip(names, seconds, strict=True)}


def _own_seconds(found: Mapping[str, Any], basis: dict[str, Any]) -> tuple[float, float, float] | None:
    """Return seconds of the method alone, low, expected and high; say in ``basis`` how they are known."""
    if found["way"] == "rehearsed":
        steps = found["outer_steps"] * found["outer_step_s"] + found["inner_steps"] * found["inner_step_s"]
        rest = found["prepare_s"] + found["start_s"] + found["judgements"] * found["judge_s"]
        names = ("outer_steps", "inner_steps", "judgements", "outer_step_s", "inner_step_s", "judge_s", "steps_timed")
        basis |= {name: found[name] for name in names}
        basis["rule"] = f"{found['outer_steps']} outer steps, {found['steps_timed']} tried"
        low, high = min(found["spread"][0], 1 - FIT_SPREAD), max(found["spread"][1], 1 + FIT_SPREAD)
        return rest + low * steps, rest + steps, rest + high * steps
    if found["way"] == "tried":
        basis["rule"] = "done once"
        return found["seconds"] / 2, found["seconds"], 2 * found["seconds"]  # so short that anything disturbs it
    if found["seconds"] is None:
        basis["rule"] = f"{NOT_FORETOLD}: not done in {found['limit_s']:g} s, and it does not tell how far it is"
        return None
    basis["rule"] = f"{found['part']:.0%} done in {found['limit_s']:g} s"
    return found["seconds"] / 2, found["seconds"], 2 * found["seconds"]
