"""All figures as tables: one line per dataset, one line per model."""

from collections.abc import Sequence

from recdistill.certificate.record import Certificate, Dataset, Fidelity, Judge
from recdistill.certificate.wording import bytes_text, chance, titled
from recdistill.report.markup import Markup
from recdistill.report.material import Material
from recdistill.report.section import Section, paragraph
from recdistill.report.tables import (
    MISSING,
    Cell,
    count_cell,
    number_cell,
    percent_cell,
    percent_span_cell,
    span_cell,
    span_cells,
    table,
)


def scores(material: Material) -> Section:
    """Return the table of datasets and that of models."""
    certificate = material.certificate
    note = (
        "Unused models are those that the method held neither as teacher nor as student. Gain is the distilled dataset "
        "minus the other one, averaged over models, paired by seed and user; its p is corrected for the number of "
        "comparisons (Holm). Pairs are those that all data tell apart."
    )
    parts = (_datasets(certificate), paragraph(note, class_="note"), _models(certificate))
    return Section(ident="scores", title="All scores", parts=parts)


def _datasets(certificate: Certificate) -> Markup:
    columns = [
        "dataset", "compared at", "rows", "bytes", "accuracy kept", "unused models", "tau", "tau, unused", "Spearman",
        "regret", "best model", "pairs", "gain of distilled", "corrected p",
    ]  # fmt: skip
    rows = [_dataset(dataset) for dataset in certificate.datasets]
    caption = f"Datasets, by {certificate.setting.metric}, with 95 % intervals."
    return table("tab-datasets", caption, columns, rows, marked=frozenset({1}))


def _dataset(dataset: Dataset) -> list[Cell | str]:
    found, unused = dataset.fidelity.get("all"), dataset.fidelity.get("unused")
    return [
        titled(dataset),
        dataset.rule or "\u2013",
        count_cell(dataset.num_rows),
        Cell(bytes_text(dataset.bytes), dataset.bytes),
        percent_span_cell(dataset.mean_ratio.get("all")),
        percent_span_cell(dataset.mean_ratio.get("unused")),
        span_cell(found.tau if found else None),
        span_cell(unused.tau if unused else None),
        *_ranking(found),
        span_cell(dataset.gain.difference if dataset.gain else None),
        Cell(chance(dataset.gain.p_holm), dataset.gain.p_holm) if dataset.gain else MISSING,
    ]


def _ranking(found: Fidelity | None) -> list[Cell]:
    if found is None:
        return [MISSING] * 4
    return [
        number_cell(found.spearman, 2),
        percent_span_cell(found.regret),
        Cell("found" if found.top_1 else "missed", int(found.top_1)),
        percent_cell(found.pairwise_accuracy),
    ]


def _models(certificate: Certificate) -> Markup:
    columns = [
        "model", "family", "held", *(titled(dataset) for dataset in certificate.datasets), "accuracy kept",
        "training, all data", "training, distilled",
    ]  # fmt: skip
    datasets = certificate.datasets
    found = [dataset.score(judge.name) for judge in certificate.judges for dataset in datasets]
    cells = span_cells([score.mean if score else None for score in found])
    rows = [
        _model(certificate, judge, cells[len(datasets) * index : len(datasets) * (index + 1)])
        for index, judge in enumerate(certificate.judges)
    ]
    caption = (
        f"{certificate.setting.metric} of each model after training on each dataset. Held: whether the method held the "
        "model, as teacher or as student, while it learnt."
    )
    return table("tab-models", caption, columns, rows)


def _model(certificate: Certificate, judge: Judge, cells: Sequence[Cell]) -> list[Cell | str]:
    whole, ours = (dataset.score(judge.name) for dataset in certificate.datasets[:2])
    return [
        judge.name,
        judge.model,
        "held" if judge.used else "no",
        *cells,
        percent_span_cell(ours.ratio if ours else None),
        *(_time(score.seconds if score else None) for score in (whole, ours)),
    ]


def _time(seconds: float | None) -> Cell:
    return MISSING if seconds is None else Cell(f"{seconds:,.1f} s", seconds)
