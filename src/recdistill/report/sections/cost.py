"""What distilling costs, and after how many trainings it has paid."""

from collections.abc import Mapping
from typing import Any

from recdistill.certificate.record import Certificate, Cost
from recdistill.certificate.wording import counted, digits, seconds_text
from recdistill.report.charts import Caption, Curve, curves, flat_bars
from recdistill.report.markup import Markup
from recdistill.report.material import Material
from recdistill.report.section import Section, paragraph, pictures
from recdistill.report.tables import MISSING, Cell, table

WITHOUT_END = 20
"""Trainings that are shown where distilling never pays."""

UNITS = (("days", 86_400.0), ("h", 3_600.0), ("min", 60.0))


def cost(material: Material) -> Section:
    """Return times, the break-even, and what was foretold."""
    certificate = material.certificate
    caption = (
        "Seconds on the machine of the certificate, one process at a time; training is the mean over models. Then "
        "everything that was spent after so many trainings."
    )
    parts = [
        paragraph(_told(certificate.cost)),
        pictures(_times(certificate.cost), _break_even(certificate.cost), caption=caption, wide=True),
    ]
    foretold = _predicted(certificate)
    if foretold is not None:
        parts.append(foretold)
    return Section(ident="cost", title="Cost and break-even", parts=tuple(parts))


def _before(found: Cost) -> float:
    return found.teacher + found.peers + found.distill


def _told(found: Cost) -> str:
    once = seconds_text(_before(found))
    each = f"training a model takes {seconds_text(found.distilled)} instead of {seconds_text(found.full)}"
    if found.break_even is None:
        return f"Distilling takes {once}, and {each}: it does not pay in time."
    return f"Distilling takes {once} once; then {each}. It has paid after {counted(found.break_even, 'training')}."


def _times(found: Cost) -> Markup:
    bars = [
        ("once: teacher", found.teacher, 2),
        ("once: models of other families", found.peers, 2),
        ("once: distillation", found.distill, 2),
        ("each: training on all data", found.full, 0),
        ("each: training on the distilled data", found.distilled, 1),
    ]
    shown = [entry for entry in bars if entry[1] > 0]
    described = "; ".join(f"{name} {seconds_text(value)}" for name, value, _ in bars)
    return flat_bars(
        Caption(ident="fig-cost", title="Time of each stage", description=f"{described}."),
        shown,
        seconds_text,
        width=310,
    )


def _break_even(found: Cost) -> Markup:
    last = WITHOUT_END if found.break_even is None else max(2 * found.break_even, 4)
    unit, size = _unit(max(last * found.full, _before(found) + last * found.distilled))
    before, full, distilled = _before(found) / size, found.full / size, found.distilled / size
    ends = (0.0, float(last))
    lines = [
        Curve(name="on all data", points=tuple((n, n * full) for n in ends), index=0),
        Curve(name="distill, then train", points=tuple((n, before + n * distilled) for n in ends), index=1),
    ]
    mark = None
    if found.break_even is not None:
        spent = before + found.break_even * distilled
        mark = (float(found.break_even), spent, f"paid after {found.break_even:,}")
    described = (
        f"After {last} trainings {seconds_text(last * found.full)} on all data and "
        f"{seconds_text(_before(found) + last * found.distilled)} with distilling. {_told(found)}"
    )
    return curves(
        Caption(ident="fig-break-even", title="Total time against number of trainings", description=described),
        lines,
        "trainings",
        f"total time ({unit})",
        zero=True,
        x_words=lambda value: f"{value:,.0f}",
        mark=mark,
    )


def _unit(seconds: float) -> tuple[str, float]:
    """Return the unit in which a time is between one and a hundred or so, and its seconds."""
    return next(((name, size) for name, size in UNITS if seconds >= 2 * size), ("s", 1.0))


def _predicted(certificate: Certificate) -> Markup | None:
    stages = (certificate.predicted or {}).get("stages")
    if not isinstance(stages, list):
        return None
    rows = [_stage(stage) for stage in stages if isinstance(stage, Mapping)]
    if not rows:
        return None
    columns = ["stage", "predicted time", "actual time", "actual / predicted", "predicted MB", "actual MB"]
    return table("tab-predicted", "What was foretold, and what came.", columns, rows)


def _stage(stage: Mapping[str, Any]) -> list[Cell | str]:
    predicted, actual = _number(stage, "predicted_s"), _number(stage, "actual_s")
    ratio = actual / predicted if predicted and actual is not None else None
    return [
        str(stage.get("stage", "?")),
        MISSING if predicted is None else Cell(seconds_text(predicted), predicted),
        MISSING if actual is None else Cell(seconds_text(actual), actual),
        MISSING if ratio is None else Cell(digits(ratio, 2), ratio),
        *(
            MISSING if (memory := _number(stage, name)) is None else Cell(f"{memory:,.0f}", memory)
            for name in ("predicted_mb", "actual_mb")
        ),
    ]


def _number(stage: Mapping[str, Any], name: str) -> float | None:
    value = stage.get(name)
    usable = isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < float("inf")
    return float(value) if usable else None  # type: ignore[arg-type]
