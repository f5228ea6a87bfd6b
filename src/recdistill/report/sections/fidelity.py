"""Does the dataset rank models as all data do: scores against scores, and ranks beside."""

from recdistill.certificate.record import Certificate, Dataset, Fidelity, Judge, Score, Span
from recdistill.certificate.wording import digits, interval, listed, percent_interval, titled
from recdistill.report.charts import Axis, Caption, Dot, Triple, scatter
from recdistill.report.markup import Markup, element
from recdistill.report.material import Material, indexed
from recdistill.report.scales import around
from recdistill.report.section import Section, paragraph, pictures
from recdistill.report.svg import Entry
from recdistill.report.tables import MISSING, Cell, table

FAMILY_SHAPES = ("circle", "square", "triangle", "diamond", "under", "plus", "cross", "hexagon", "star")
SMALL = (226, 236)
LARGE = (400, 400)
MOST_NAMES = 16
"""Models up to which names stand in the figure; more are told by their rank."""
LONGEST_NAME = 20
"""Letters of the longest name for which that holds."""


def fidelity(material: Material) -> Section:
    """Return the scatter of scores, one small one for each control, and the ranks."""
    certificate = material.certificate
    title, axis = "Does it rank models as all data do?", _shared_bounds(certificate)
    if axis is None:
        told = "No model has been trained both on all data and on the distilled data; there is nothing to compare yet."
        return Section(ident="fidelity", title=title, parts=(paragraph(told),))
    main = _panel(certificate, 1, certificate.distilled, axis, large=True)
    small = [
        _panel(certificate, index, dataset, axis, large=False) for index, dataset in indexed(certificate) if index > 1
    ]
    parts = [element("div", pictures(main, caption=_caption(certificate)), ranks(certificate), class_="beside")]
    if small:
        rules = listed([f"{titled(one)} at {one.rule}" if one.rule else titled(one) for one in certificate.controls])
        parts.append(pictures(*small, caption=f"The controls on the same axes: {rules}.", wide=True))
    return Section(ident="fidelity", title=title, parts=tuple(parts))


def _caption(certificate: Certificate) -> str:
    held = " Ringed models were held by the method while it learnt." if any(j.used for j in certificate.judges) else ""
    numbers = "" if _named(certificate) else " Numbers are ranks on all data, as in the table."
    return (
        f"{certificate.setting.metric} of each model after training on all data and on the distilled data. Crosses are "
        f"95 % intervals over seeds and users; on the dashed line both are equal.{held}{numbers} What found no room in "
        "the figure stands in the table."
    )


def _named(certificate: Certificate) -> bool:
    """Return whether the figure has room for names."""
    names = [judge.name for judge in certificate.judges]
    return len(names) <= MOST_NAMES and max(map(len, names)) <= LONGEST_NAME


def families(certificate: Certificate) -> dict[str, str]:
    """Return the marker of each family of models."""
    names = dict.fromkeys(judge.model for judge in certificate.judges)
    return {name: FAMILY_SHAPES[index % len(FAMILY_SHAPES)] for index, name in enumerate(names)}


def triple(span: Span) -> Triple:
    """Return value, low and high."""
    return span.value, span.low, span.high


def _pairs(certificate: Certificate, dataset: Dataset) -> list[tuple[Judge, Score, Score]]:
    """Return the models that have scores on both, with their score on all data and on the dataset."""
    found = []
    for judge in certificate.judges:
        ours, theirs = certificate.full.score(judge.name), dataset.score(judge.name)
        if ours is not None and theirs is not None:
            found.append((judge, ours, theirs))
    return found


def _shared_bounds(certificate: Certificate) -> tuple[float, float] | None:
    """Return bounds that hold every score and interval of the figures, or ``None`` where there is none."""
    if not _pairs(certificate, certificate.distilled):
        return None
    spans = [
        span
        for dataset in certificate.datasets[1:]
        for _, ours, theirs in _pairs(certificate, dataset)
        for span in (ours.mean, theirs.mean)
    ]
    return around([bound for span in spans for bound in (span.value, span.low, span.high)])


def _panel(
    certificate: Certificate, index: int, dataset: Dataset, bounds: tuple[float, float], *, large: bool
) -> Markup:
    """Return the scatter of a dataset against all data."""
    metric, shapes = certificate.setting.metric, families(certificate)
    places = {} if _named(certificate) else _places(certificate.full)
    dots = [
        Dot(
            name=str(places.get(judge.name, judge.name)),
            x=triple(ours.mean),
            y=triple(theirs.mean),
            colour=index,
            shape=shapes[judge.model],
            ring=judge.used,
            about=f"{judge.name}: {interval(ours.mean)} on all data, {interval(theirs.mean)} here",
        )
        for judge, ours, theirs in _pairs(certificate, dataset)
    ]
    name = "the distilled data" if large else titled(dataset)
    found = dataset.fidelity.get("all")
    entries = [Entry(name=family, colour=index, shape=shape) for family, shape in shapes.items()] if large else []
    if large and any(judge.used for judge in certificate.judges):
        entries.append(Entry(name="held by the method", colour=index, shape="circle", ring=True))
    return scatter(
        Caption(
            ident=f"fig-fidelity-{index}",
            title=f"{metric} on {name} against {metric} on all data",
            description=_told(certificate, dataset, name),
        ),
        dots,
        Axis(title=f"{metric} on all data", bounds=bounds),
        Axis(title=f"on {name}", bounds=bounds),
        size=LARGE if large else SMALL,
        names=large,
        diagonal=True,
        told=f"tau {interval(found.tau)}" if found is not None and found.tau is not None else "no tau",
        entries=entries,
        about=5 if large else 4,
    )


def _told(certificate: Certificate, dataset: Dataset, name: str) -> str:
    pairs = _pairs(certificate, dataset)
    scores = listed(
        [f"{judge.name} {digits(ours.mean.value)} and {digits(theirs.mean.value)}" for judge, ours, theirs in pairs]
    )
    return f"{len(pairs)} models; score on all data and on {name}: {scores or 'none'}. {_fidelity_told(dataset)}"


def _fidelity_told(dataset: Dataset) -> str:
    found: Fidelity | None = dataset.fidelity.get("all")
    if found is None:
        return "Not ranked: no seed is complete."
    tau = "none" if found.tau is None else interval(found.tau)
    return f"Kendall's tau {tau}, regret {percent_interval(found.regret)}."


def ranks(certificate: Certificate) -> Markup:
    """Return the rank of each model on all data and on the distilled data, the best on all data first."""
    whole, made = _places(certificate.full), _places(certificate.distilled)
    judges = sorted(certificate.judges, key=lambda judge: (whole.get(judge.name, len(certificate.judges)), judge.name))
    rows: list[list[Cell | str]] = [
        [judge.name, judge.model, _rank(whole.get(judge.name)), _rank(made.get(judge.name))] for judge in judges
    ]
    caption = f"Ranks by {certificate.setting.metric}; 1 is best, equal scores share a rank."
    return table("tab-ranks", caption, ["model", "family", "all data", "distilled"], rows)


def _places(dataset: Dataset) -> dict[str, int]:
    """Return the rank of each model that has a score; equal scores share the better rank."""
    values = {score.model: score.mean.value for score in dataset.scores}
    return {name: 1 + sum(other > value for other in values.values()) for name, value in values.items()}


def _rank(place: int | None) -> Cell:
    return MISSING if place is None else Cell(str(place), place)
