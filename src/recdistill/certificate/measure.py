"""From finished trainings to a certificate."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from statistics import fmean

import numpy as np
from scipy.special import stdtrit

from recdistill.certificate.contents import about_rows, near_users
from recdistill.certificate.record import (
    GROUPS,
    Ceiling,
    Certificate,
    Cost,
    Dataset,
    Fidelity,
    Gain,
    Judge,
    Score,
    Setting,
    Span,
    Student,
    Subject,
)
from recdistill.certificate.trainings import ALL, DISTILLED, Examination, Trained, cells_of, learns
from recdistill.data.distilled import Manifest, current_versions, size_in_bytes
from recdistill.distill.peers import FAMILIES
from recdistill.errors import InputError
from recdistill.evaluation.long_tail import PARTS, ItemParts, item_parts
from recdistill.evaluation.panel import Panel, average, difference, noise, ranking, ratio
from recdistill.evaluation.statistics import Comparison, Interval, holm
from recdistill.machine import machine
from recdistill.study.cells import Cell, ModelSpec, panels
from recdistill.study.plan import break_even

DIGITS = 6
"""Significant digits of figures; what lies below is noise of single precision."""


def was_used(spec: ModelSpec, manifest: Manifest) -> bool:
    """Return whether a model is the teacher of a distilled dataset, or one of the families that its method held."""
    teacher = manifest.teacher
    shape = {name: value for name, value in teacher["config"].items() if name in spec.settings()}
    if spec.model == teacher["model"] and spec.settings() == shape:
        return True
    families = [FAMILIES[name] for name in manifest.parameters.get("families", ()) if name in FAMILIES]
    held = [ModelSpec(name=spec.name, model=family.model, config=family.config) for family in families]
    return any(spec.model == one.model and spec.settings() == one.settings() for one in held)


@dataclass(frozen=True)
class _Finished:
    """The finished trainings of an examination.

    Args:
        exam: what was asked.
        datasets: what models were trained on.
        cells: all trainings.
        scores: the panels, by dataset.
        models: those that are finished in one seed or more on every dataset.
        groups: names of models by group.
    """

    exam: Examination
    datasets: Sequence[Trained]
    cells: Sequence[Cell]
    scores: Mapping[str, Panel]
    models: tuple[ModelSpec, ...]
    groups: Mapping[str, tuple[str, ...]]

    def done(self, dataset: Trained, model: str) -> list[Cell]:
        """Return the finished trainings of a model on a dataset, by seed."""
        return [
            cell
            for cell in self.cells
            if cell.data.name == dataset.name and cell.model.name == model and cell.seed in self.seeds(dataset, model)
        ]

    def seeds(self, dataset: Trained, model: str) -> list[int]:
        """Return the seeds of a model that are finished on a dataset."""
        return sorted(self.scores[dataset.name].scores[model])


def finished(exam: Examination, datasets: Sequence[Trained]) -> _Finished:
    """Return what is finished.

    Raises:
        InputError: fewer than two models are finished on every dataset.
    """
    cells = cells_of(exam, datasets)
    scores = panels(cells, metric=exam.metric, protocol=exam.protocol)
    models = tuple(spec for spec in exam.panel if all(scores[one.name].scores[spec.name] for one in datasets))
    if len(models) < 2:
        raise InputError(
            f"{len(models)} of {len(exam.panel)} models are finished on every dataset; two or more are needed: "
            "let the trainings go on"
        )
    unused = tuple(spec.name for spec in models if not was_used(spec, exam.manifest))
    groups = dict(zip(GROUPS, (tuple(spec.name for spec in models), unused), strict=True))
    return _Finished(exam, datasets, cells, scores, models, groups)


def certificate_of(exam: Examination, datasets: Sequence[Trained]) -> Certificate:
    """Return the certificate that finished trainings give; what is not finished is named in it.

    Raises:
        InputError: fewer than two models are finished on every dataset.
    """
    made = finished(exam, datasets)
    counts = exam.train.histories.train_counts(exam.train.num_items)
    parts = item_parts(counts)
    found = [_dataset(made, dataset, parts, counts) for dataset in datasets]
    return Certificate(
        subject=_subject(exam),
        setting=_setting(made),
        judges=tuple(
            Judge(name=spec.name, model=spec.model, config=spec.settings(), used=spec.name not in made.groups["unused"])
            for spec in made.models
        ),
        datasets=tuple(_with_gains(made, found)),
        ceiling={group: _ceiling(made.scores[ALL], models) for group, models in made.groups.items()},
        parts={"items": parts.items, "interactions": parts.interactions},
        near_users=near_users(exam.train, exam.manifest),
        cost=_cost(made),
        student=_student(made),
        predicted=exam.manifest.predicted,
        missing=tuple(cell.key for cell in made.cells if not cell.done()),
        created=datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        machine=machine(),
        versions=current_versions(),
    ).sealed()


def _subject(exam: Examination) -> Subject:
    manifest, size = exam.manifest, size_in_bytes(exam.distilled)
    return Subject(
        content=manifest.files["data.safetensors"],
        method=manifest.method,
        num_rows=manifest.num_rows,
        length=manifest.length,
        seed=manifest.seed,
        bytes=size["total"],
        item_factor_bytes=size["item_factor"],
        source=manifest.source,
    )


def _setting(made: _Finished) -> Setting:
    exam = made.exam
    first = made.done(made.datasets[1], made.models[0].name)[0].result()
    return Setting(
        metric=exam.metric,
        protocol=exam.protocol,
        events=len(exam.test),
        items=exam.items,
        seeds=tuple(range(exam.seeds)),
        max_seq_len=exam.length,
        recipe=exam.recipe.as_dict(),
        threads=first["threads"],
    )


def _dataset(made: _Finished, dataset: Trained, parts: ItemParts, counts: np.ndarray) -> Dataset:
    exam, name = made.exam, dataset.name
    whole = dataset.kind == "all"
    folder = dataset.by_seed[0].folder
    held, near = about_rows(None if whole else folder, exam.train, parts, counts)
    manifest, control = exam.manifest, dataset.control
    shape = (
        (control.method, control.num_rows, control.length)
        if control
        else (manifest.method, manifest.num_rows, manifest.length)
    )
    method, num_rows, length = ("full", exam.train.histories.num_users, 0) if whole else shape
    return Dataset(
        name=name,
        kind=dataset.kind,
        rule=control.rule if control else "",
        method=method,
        num_rows=num_rows,
        length=length,
        bytes=exam.train.train_bytes if whole else size_in_bytes(folder)["total"],
        scores=tuple(_score(made, dataset, spec.name, parts) for spec in made.models),
        mean_ratio={group: None if whole else _mean_ratio(made, name, models) for group, models in made.groups.items()},
        fidelity={group: None if whole else _fidelity(made, name, models) for group, models in made.groups.items()},
        gain=None,
        items_held=held,
        near=near,
    )


def _score(made: _Finished, dataset: Trained, model: str, parts: ItemParts) -> Score:
    cells, panel = made.done(dataset, model), made.scores[dataset.name]
    results = [cell.result() for cell in cells]
    whole = dataset.kind == "all"
    reached = None if whole else ratio(panel, made.scores[ALL], (model,))
    mean = average(panel, (model,))
    assert mean is not None  # models without a finished seed were left out
    shown = [result["exposure"] for result in results]
    attack = results[0]["membership"]
    names = results[0]["metrics"]
    return Score(
        model=model,
        seeds=tuple(cell.seed for cell in cells),
        values=tuple(short(float(panel.scores[model][cell.seed].mean())) for cell in cells),
        mean=_within(_span(mean), 0.0, 1.0),
        ratio=_span(reached) if reached else None,
        metrics={
            protocol: {
                name: short(fmean(result["metrics"][protocol][name] for result in results)) for name in names[protocol]
            }
            for protocol in names
        },
        parts=_by_part(made.exam, panel.stack((model,), [cell.seed for cell in cells])[0], parts),
        popularity_shift=short(fmean(one["popularity_shift"] for one in shown)),
        coverage=short(fmean(one["coverage"] for one in shown)),
        gini=short(fmean(one["gini"] for one in shown)),
        membership=attack and Span.model_validate(attack["auc"]),
        seconds=round(fmean(result["seconds"] for result in results), 3),
        peak_mb=max(result["peak_mb"] for result in results),
        steps=fmean(result["steps"] for result in results),
        curve=tuple(round(score, 5) for score in results[0]["scores"]),
        curve_steps=results[0]["steps"],
    )


def _by_part(exam: Examination, scores: np.ndarray, parts: ItemParts) -> dict[str, float | None]:
    """Return the mean over seeds and events whose item is of each part; scores of shape (S, U)."""
    part_of = parts.part_of[exam.test.targets(np.arange(len(exam.test))).numpy()]
    found: dict[str, float | None] = {}
    for index, name in enumerate(PARTS):
        some = scores[:, part_of == index]
        found[name] = short(float(some.mean())) if some.size else None
    return found


def _mean_ratio(made: _Finished, name: str, models: Sequence[str]) -> Span | None:
    able = {spec.name for spec in made.models if learns(spec)}
    models = [model for model in models if model in able]
    found = ratio(made.scores[name], made.scores[ALL], models) if models else None
    return _span(found) if found else None


def _fidelity(made: _Finished, name: str, models: Sequence[str]) -> Fidelity | None:
    found = ranking(made.scores[name], made.scores[ALL], models) if len(models) >= 2 else None
    if found is None:
        return None
    return Fidelity(
        models=found.models,
        seeds=found.seeds,
        tau=_span(found.tau_interval) if found.tau_interval else None,
        spearman=_maybe(found.spearman),
        pearson=_maybe(found.pearson),
        top_1=found.top_1,
        regret=_span(found.regret_interval),
        pairwise_accuracy=_maybe(found.pairwise_accuracy),
    )


def _ceiling(whole: Panel, models: Sequence[str]) -> Ceiling | None:
    found = noise(whole, models) if len(models) >= 2 else None
    if found is None:
        return None
    return Ceiling(seeds=found.seeds, tau=_maybe(found.ceiling), pairs_apart=found.pairs_apart, pairs=found.pairs)


def _with_gains(made: _Finished, datasets: Sequence[Dataset]) -> list[Dataset]:
    """Return the datasets with the gain of the distilled one over each, corrected for their number."""
    models, ours = made.groups["all"], made.scores[DISTILLED]
    compared: dict[str, Comparison] = {}
    for dataset in datasets:
        found = difference(ours, made.scores[dataset.name], models) if dataset.name != DISTILLED else None
        if found is not None:
            compared[dataset.name] = found
    corrected = dict(zip(compared, holm([found.p for found in compared.values()]), strict=True))
    gains = {
        name: Gain(difference=_span(found.difference), p=found.p, p_holm=corrected[name], seeds=found.seeds)
        for name, found in compared.items()
    }
    return [dataset.model_copy(update={"gain": gains.get(dataset.name)}) for dataset in datasets]


def _cost(made: _Finished) -> Cost:
    able = [spec.name for spec in made.models if learns(spec)]
    full, distilled = (
        round(fmean([cell.result()["seconds"] for model in able for cell in made.done(dataset, model)] or [0.0]), 3)
        for dataset in made.datasets[:2]
    )
    seconds = made.exam.manifest.seconds
    spent = {name: seconds.get(name, 0.0) for name in ("teacher", "peers", "distill")}
    pays = break_even(spent["teacher"] + spent["peers"], spent["distill"], full, distilled)
    return Cost(**spent, full=full, distilled=distilled, break_even=pays)


def _student(made: _Finished) -> Student | None:
    name = made.exam.stated
    if name not in made.groups["all"]:
        return None
    seeds = made.seeds(made.datasets[1], name)
    values = [float(made.scores[DISTILLED].scores[name][seed].mean()) for seed in seeds]
    return student_of(name, seeds, values) if len(values) > 1 else None


def student_of(judge: str, seeds: Sequence[int], values: Sequence[float]) -> Student:
    """Return what is stated of a training: its scores, and where one more score lies with 95 %.

    The mean plus or minus ``t * s * sqrt(1 + 1 / S)``, with the standard deviation ``s`` of ``S`` scores and the
    quantile ``t`` of ``S - 1`` degrees of freedom: the interval for one further draw of a normal variable. Users are
    the same in every training, so that only the luck of seeds and of rounding counts.

    Args:
        judge: name of the model.
        seeds, values: of its trainings, two or more.

    Reference: Hahn and Meeker, Statistical Intervals, 1991, section 4.7.
    """
    values = [short(value) for value in values]
    reach = float(stdtrit(len(values) - 1, 0.975) * np.std(values, ddof=1) * math.sqrt(1 + 1 / len(values)))
    mean = fmean(values)
    interval = Span(value=short(mean), low=short(max(0.0, mean - reach)), high=short(min(1.0, mean + reach)))
    return Student(judge=judge, seeds=tuple(seeds), values=tuple(values), interval=interval)


def _span(interval: Interval) -> Span:
    return Span(value=short(interval.value), low=short(interval.low), high=short(interval.high))


def _within(span: Span, least: float, most: float) -> Span:
    """Return an interval cut to where the figure can lie."""
    return Span(value=span.value, low=max(span.low, least), high=min(span.high, most))


def _maybe(value: float | None) -> float | None:
    return None if value is None else short(value)


def short(value: float) -> float:
    """Return a figure with :data:`DIGITS` significant digits."""
    return float(f"{value:.{DIGITS}g}")
