"""Training curves: how models learn from each dataset, and how the dataset itself was learnt."""

from collections.abc import Mapping, Sequence

from recdistill.certificate.record import Certificate, Score
from recdistill.certificate.wording import digits, listed, titled
from recdistill.report.charts import Caption, Curve, curves, key
from recdistill.report.markup import Markup
from recdistill.report.material import Material, indexed
from recdistill.report.section import Section, paragraph, pictures

MOST_MODELS = 5
MOST_TRACES = 4
FAR_APART = 6
"""From this ratio of optimiser steps on, the axis is logarithmic."""
COUNTERS = ("epoch", "step", "outer_step")
"""Names under which a trace counts."""


def training(material: Material) -> Section:
    """Return validation curves of some models, one of each family first, and the trace of the distillation."""
    certificate = material.certificate
    drawn = [picture for name in _models(certificate) if (picture := _model(certificate, name)) is not None]
    parts = []
    if drawn:
        caption = (
            "Validation NDCG@10 after each epoch of the first seed. A curve ends where early stopping ended the "
            "training; the weights of its best epoch are kept."
        )
        parts.append(pictures(_key(certificate), *drawn, caption=caption, wide=True))
    else:
        parts.append(paragraph("The certificate holds no training curves."))
    traces = [trace_picture(name, values) for name, values in traces_of(material.made.manifest.trace).items()]
    if traces:
        caption = "The distillation itself, as the method recorded it."
        parts.append(pictures(*traces[:MOST_TRACES], caption=caption, wide=True))
    else:
        parts.append(paragraph("The method recorded no course of its own.", class_="note"))
    return Section(ident="training", title="Training", parts=tuple(parts))


def _models(certificate: Certificate) -> list[str]:
    """Return which models are drawn: the stated student, then one of each family, then others."""
    first = [certificate.student.judge] if certificate.student else []
    families: dict[str, str] = {}
    for judge in certificate.judges:
        families.setdefault(judge.model, judge.name)
    wanted = dict.fromkeys([*first, *families.values(), *(judge.name for judge in certificate.judges)])
    return [name for name in wanted if any(curve_points(dataset.score(name)) for dataset in certificate.datasets)][
        :MOST_MODELS
    ]


def curve_points(score: Score | None) -> tuple[tuple[float, float], ...]:
    """Return optimiser steps and validation score after each epoch."""
    if score is None or not score.curve:
        return ()
    each = max(score.curve_steps, 1) / len(score.curve)
    return tuple(((epoch + 1) * each, value) for epoch, value in enumerate(score.curve))


def _model(certificate: Certificate, name: str) -> Markup | None:
    lines = [
        Curve(name=titled(dataset), points=points, index=index)
        for index, dataset in indexed(certificate)
        if (points := curve_points(dataset.score(name)))
    ]
    if not lines:
        return None
    ends = [line.points[-1][0] for line in lines]
    log = max(ends) >= FAR_APART * min(ends)
    best = [f"{line.name} {digits(max(y for _, y in line.points))} after {len(line.points)} epochs" for line in lines]
    stated = certificate.student is not None and certificate.student.judge == name
    return curves(
        Caption(
            ident=f"fig-curve-{name_id(name, certificate)}",
            title=f"Validation NDCG@10 of {name} while it is trained",
            description=f"Best values: {listed(best)}.",
        ),
        lines,
        "optimiser steps" + (" (logarithmic)" if log else ""),
        name + (" (the stated student)" if stated else ""),
        log=log,
        zero=True,
        keys=False,
        x_words=lambda value: f"{value:,.0f}",
    )


def _key(certificate: Certificate) -> Markup:
    names = [(titled(dataset), index) for index, dataset in indexed(certificate)]
    told = f"Lines of the figures beside: {listed([name for name, _ in names])}."
    return key(Caption(ident="fig-curve-key", title="trained on", description=told), names)


def name_id(name: str, certificate: Certificate) -> str:
    """Return what stands for a model in identifiers, whatever letters its name has."""
    return str([judge.name for judge in certificate.judges].index(name))


def traces_of(trace: Sequence[Mapping[str, float]]) -> dict[str, tuple[tuple[float, float], ...]]:
    """Return what a distillation recorded, by name: its own counter, or the number of the entry, and the value."""
    found: dict[str, list[tuple[float, float]]] = {}
    for index, entry in enumerate(trace, start=1):
        counter = next((entry[name] for name in COUNTERS if name in entry), float(index))
        for name, value in entry.items():
            if name not in COUNTERS and abs(value) < float("inf"):
                found.setdefault(name, []).append((counter, value))
    return {name: tuple(points) for name, points in found.items() if len(points) > 1}


def trace_picture(name: str, points: tuple[tuple[float, float], ...]) -> Markup:
    """Return one quantity over the course of the distillation."""
    values = [value for _, value in points]
    described = (
        f"{len(points)} entries, from {digits(values[0])} to {digits(values[-1])}; smallest {digits(min(values))}, "
        f"largest {digits(max(values))}."
    )
    ident = "".join(letter if letter.isalnum() else "-" for letter in name)
    return curves(
        Caption(ident=f"fig-trace-{ident}", title=f"{name} while distilling", description=described),
        [Curve(name=name, points=points, index=1)],
        "outer epochs",
        name,
        keys=False,
        x_words=lambda value: f"{value:,.0f}",
    )
