"""Whom the dataset serves: accuracy for popular and rare items, and what models recommend after training on it."""

import math
from collections.abc import Sequence
from statistics import fmean

from recdistill.certificate.record import Certificate, Dataset
from recdistill.certificate.wording import digits, listed, percent, titled
from recdistill.report.charts import Bars, Caption, grouped_bars
from recdistill.report.markup import Markup
from recdistill.report.material import Material, indexed
from recdistill.report.section import Section, paragraph, pictures
from recdistill.report.tables import Cell, number_cell, percent_cell, table

PARTS = ("head", "torso", "tail")


def tail(material: Material) -> Section:
    """Return accuracy by part of the catalogue, and how popular, many and even the recommended items are."""
    certificate = material.certificate
    parts = [paragraph(_catalogue(certificate))]
    bars = [
        Bars(name=titled(dataset), values=tuple(part_mean(dataset, part) for part in PARTS), index=index)
        for index, dataset in indexed(certificate)
        if dataset.scores
    ]
    if any(value is not None for one in bars for value in one.values):
        caption = f"{certificate.setting.metric} for events whose item is of each part, mean over models."
        parts.append(pictures(_figure(certificate, bars), caption=caption))
    return Section(ident="tail", title="Popular and rare items", parts=(*parts, _table(certificate)))


def part_mean(dataset: Dataset, part: str) -> float | None:
    """Return the mean over models of the metric for a part; ``None`` where no model has it."""
    return mean_of([score.parts.get(part) for score in dataset.scores])


def mean_of(values: Sequence[float | None]) -> float | None:
    """Return the mean of what is known."""
    known = [value for value in values if value is not None]
    return fmean(known) if known else None


def _catalogue(certificate: Certificate) -> str:
    """Return what the three parts are."""
    items, events = certificate.parts.get("items", {}), certificate.parts.get("interactions", {})
    told = [
        f"{part} {items.get(part, 0):,} items with {events.get(part, 0):,} training events"
        for part in PARTS
        if part in items
    ]
    what = "Items are divided by popularity into parts of a third of the training events each"
    return f"{what}: {listed(told)}." if told else f"{what}."


def _figure(certificate: Certificate, bars: Sequence[Bars]) -> Markup:
    told = [
        f"{one.name}: "
        + ", ".join(
            f"{part} {'none' if value is None else digits(value)}"
            for part, value in zip(PARTS, one.values, strict=True)
        )
        for one in bars
    ]
    metric = certificate.setting.metric
    caption = Caption(
        ident="fig-tail", title=f"{metric} for head, torso and tail items", description=f"{'; '.join(told)}."
    )
    return grouped_bars(caption, PARTS, bars, metric, size=(400, 260))


def _table(certificate: Certificate) -> Markup:
    columns = ["dataset", "popularity shift", "coverage", "Gini", *(f"{part} items held" for part in PARTS)]
    rows: list[list[Cell | str]] = [
        [
            titled(dataset),
            number_cell(mean_of([score.popularity_shift for score in dataset.scores]), 2),
            percent_cell(mean_of([score.coverage for score in dataset.scores])),
            number_cell(mean_of([score.gini for score in dataset.scores]), 2),
            *(percent_cell(dataset.items_held.get(part)) for part in PARTS),
        ]
        for dataset in certificate.datasets
    ]
    shift = mean_of([score.popularity_shift for score in certificate.distilled.scores])
    told = "" if shift is None else f" The models of the distilled data: {_times(shift)}."
    caption = (
        "Means over models: log-popularity of what is recommended minus that of what users chose (0.7 is about twice "
        "as popular), part of the catalogue that anyone is recommended, inequality of how often items are recommended "
        f"(0 is even). Then the part of the items that the rows hold.{told}"
    )
    return table("tab-tail", caption, columns, rows, marked=frozenset({1}))


def _times(shift: float) -> str:
    """Return a difference of logarithms as a ratio, in words."""
    ratio = math.exp(shift)
    return f"{digits(ratio, 2)} times as popular as what users chose" if ratio >= 1 else f"{percent(ratio)} as popular"
