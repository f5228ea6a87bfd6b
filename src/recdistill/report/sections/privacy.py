"""What the dataset gives away: nearness to single users, copies, and membership."""

from recdistill.certificate.record import Certificate, Near
from recdistill.certificate.wording import digits, percent, titled
from recdistill.report.markup import Markup
from recdistill.report.material import Material
from recdistill.report.section import Section, paragraph
from recdistill.report.sections.tail import mean_of
from recdistill.report.tables import Cell, number_cell, percent_cell, span_cells, table

NO_CLAIM = (
    "Rows of a few popular items are near to many users without copying one. No claim of anonymity is made. A short "
    "distance or a high AUC shows that something leaks; a long distance or an AUC near 0.5 shows only that these two "
    "simple attacks found nothing."
)


def privacy(material: Material) -> Section:
    """Return distances to the nearest user, copies and the success of guessing membership."""
    certificate = material.certificate
    parts = (
        paragraph(_told(certificate), " ", NO_CLAIM),
        _near_table(certificate),
        _membership(certificate),
    )
    return Section(ident="privacy", title="Privacy and copies", parts=parts)


def _told(certificate: Certificate) -> str:
    near, users = certificate.distilled.near, certificate.near_users
    if near is None:
        return "The dataset holds no rows that could be near to a user."
    told = "No row stands in a real history as it is."
    if near.copied > 0:
        told = f"{percent(near.copied)} of the rows stand in a real history as they are."
    if users is None:
        return told
    compared = "rows are as near to single users as users are to each other"
    if near.median != users.median:
        relation = "nearer to" if near.median < users.median else "further from"
        compared = f"rows are {relation} single users than users are {relation.split()[1]} each other"
    return (
        f"{told} Half of the rows lie within {digits(near.median, 2)} of one real user, half of the real users within "
        f"{digits(users.median, 2)} of another: {compared}."
    )


def _near_table(certificate: Certificate) -> Markup:
    rows = [_near("real users, to each other", certificate.near_users)]
    rows += [_near(titled(dataset), dataset.near) for dataset in certificate.datasets if dataset.kind != "all"]
    caption = (
        "Distance of a row to the nearest user: 1 minus the part of the row that this user has; 0 means that all of it "
        "is theirs. Copied: rows that stand in a real history as they are. Rows of distributions are read by their "
        "likeliest items."
    )
    return table("tab-near", caption, ["rows", "median", "smallest", "copied"], rows)


def _near(name: str, near: Near | None) -> list[Cell | str]:
    values = (None, None) if near is None else (near.median, near.minimum)
    return [name, *(number_cell(value, 2) for value in values), percent_cell(None if near is None else near.copied)]


def _membership(certificate: Certificate) -> Markup:
    datasets = certificate.datasets
    found = [dataset.score(judge.name) for judge in certificate.judges for dataset in datasets]
    cells = span_cells([score.membership if score else None for score in found])
    rows: list[list[Cell | str]] = [
        [judge.name, *cells[len(datasets) * index : len(datasets) * (index + 1)]]
        for index, judge in enumerate(certificate.judges)
    ]
    means = [
        mean_of([score.membership.value if score.membership else None for score in dataset.scores])
        for dataset in datasets
    ]
    rows.append(["mean over models", *(number_cell(value, 3) for value in means)])
    caption = (
        "AUC of telling training events from later ones of the same users by what a trained model says: 0.5 is "
        "guessing, 1 is certain."
    )
    columns = ["model", *(titled(dataset) for dataset in datasets)]
    return table("tab-membership", caption, columns, rows, marked=frozenset({len(rows) - 1}))
