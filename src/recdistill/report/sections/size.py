"""Accuracy against size: what each dataset keeps, and how many bytes it takes."""

from dataclasses import dataclass

from recdistill.certificate.record import Certificate, Dataset, Span
from recdistill.certificate.wording import bytes_text, listed, percent, percent_interval, titled
from recdistill.report.charts import Axis, Caption, Dot, scatter
from recdistill.report.markup import Markup
from recdistill.report.material import Material, Neighbour, indexed
from recdistill.report.scales import around_log
from recdistill.report.section import Section, paragraph, pictures
from recdistill.report.svg import SHAPES
from recdistill.report.tables import Cell, count_cell, percent_span_cell, span_cell, table

HEADROOM = 1.06
"""How far the figure reaches above the highest value and above all data."""


@dataclass(frozen=True, kw_only=True)
class Point:
    """A dataset in the figure.

    Args:
        name: how it is called.
        bytes: how many.
        ratio: what models keep.
        index: of its series.
        hollow: whether it is another certified dataset.
    """

    name: str
    bytes: int
    ratio: Span
    index: int
    hollow: bool = False


def size(material: Material) -> Section:
    """Return the figure, and a table of the datasets set beside."""
    points = _points(material)
    parts = [pictures(_figure(points), caption=_caption(material.certificate))] if len(points) > 1 else []
    if not parts:
        parts.append(paragraph("What part of their accuracy models keep is not known yet."))
    if material.beside:
        parts.append(_beside(material))
    return Section(ident="size", title="Accuracy against size", parts=tuple(parts))


def _points(material: Material) -> list[Point]:
    certificate = material.certificate
    whole = Point(name="all data", bytes=certificate.full.bytes, ratio=Span(value=1, low=1, high=1), index=0)
    found = [whole]
    for index, dataset in indexed(certificate)[1:]:
        ratio = dataset.mean_ratio.get("all")
        if ratio is not None:
            found.append(Point(name=titled(dataset), bytes=dataset.bytes, ratio=ratio, index=index))
    for place, other in enumerate(material.beside, start=len(certificate.datasets)):
        ratio = other.certificate.distilled.mean_ratio.get("all")
        if ratio is not None:
            found.append(
                Point(name=other.name, bytes=other.certificate.distilled.bytes, ratio=ratio, index=place, hollow=True)
            )
    return found


def _figure(points: list[Point]) -> Markup:
    told = listed([f"{p.name}: {bytes_text(p.bytes)}, {percent_interval(p.ratio)}" for p in points[1:]])
    dots = [
        Dot(
            name=point.name,
            x=(max(point.bytes, 1),) * 3,
            y=(point.ratio.value, point.ratio.low, point.ratio.high),
            colour=point.index,
            shape=SHAPES[point.index % len(SHAPES)],
            hollow=point.hollow,
            about=f"{point.name}: {bytes_text(point.bytes)}, {percent_interval(point.ratio)}",
        )
        for point in points
    ]
    highest = max(1.0, *(point.ratio.high for point in points))
    return scatter(
        Caption(
            ident="fig-size",
            title="Accuracy that models keep, against bytes",
            description=f"All data: {bytes_text(points[0].bytes)}, 100 %. {told}.",
        ),
        dots,
        Axis(
            title="bytes (logarithmic)",
            bounds=around_log([max(p.bytes, 1) for p in points], 1.6),
            log=True,
            words=bytes_text,
        ),
        Axis(
            title="accuracy kept, mean over models",
            bounds=(0.0, HEADROOM * highest),
            words=percent,
        ),
        size=(400, 330),
        level=1.0,
        about=6,
    )


def _caption(certificate: Certificate) -> str:
    table_bytes = certificate.subject.item_factor_bytes
    told = "Mean ratio of each model to itself on all data, with its 95 % interval, against bytes on disk."
    if table_bytes:
        told += (
            f" Every distilled dataset and control ships an item table; here it takes {bytes_text(table_bytes)} of "
            f"{bytes_text(certificate.distilled.bytes)}."
        )
    return told


def _beside(material: Material) -> Markup:
    rows = [_line(material.name, material.certificate, "")]
    rows += [_line(other.name, other.certificate, _differs(other)) for other in material.beside]
    columns = ["dataset", "method", "rows", "bytes", "accuracy kept", "tau", "regret", "measured otherwise in"]
    return table("tab-beside", "Certified datasets of the same split.", columns, rows, marked=frozenset({0}))


def _differs(other: Neighbour) -> str:
    return listed(other.differs)


def _line(name: str, certificate: Certificate, differs: str) -> list[Cell | str]:
    made: Dataset = certificate.distilled
    found = made.fidelity.get("all")
    return [
        name,
        made.method,
        count_cell(made.num_rows),
        Cell(bytes_text(made.bytes), made.bytes),
        percent_span_cell(made.mean_ratio.get("all")),
        span_cell(found.tau if found else None),
        percent_span_cell(found.regret if found else None),
        differs or "nothing",
    ]
