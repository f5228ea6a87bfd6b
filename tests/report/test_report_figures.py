"""What sections compute for themselves, ranks, means, crossings and relations, against known answers."""

from pathlib import Path

import pytest

from recdistill.certificate.record import Certificate, Near, Span
from recdistill.certificate.wording import percent_interval
from recdistill.data.distilled import DistilledDataset
from recdistill.report.material import Material, Neighbour
from recdistill.report.section import Section
from recdistill.report.sections.cost import cost
from recdistill.report.sections.fidelity import fidelity
from recdistill.report.sections.privacy import privacy
from recdistill.report.sections.scores import scores
from recdistill.report.sections.size import size
from recdistill.report.sections.tail import part_mean
from reference.certificates import certificate
from reference.pages import Node, read_page

GOLDEN = Path(__file__).parents[1] / "golden" / "distilled-v1" / "hard"


def material(found: Certificate) -> Material:
    return Material(name="made", certificate=found, made=DistilledDataset.load(GOLDEN))


def read(section: Section) -> Node:
    return read_page(section.written(1))


def cells(root: Node, ident: str) -> dict[str, list[str]]:
    """Return the rows of a table by their names."""
    (region,) = root.find("div", **{"aria-labelledby": f"{ident}-caption"})
    rows = [row for row in region.find("tr") if row.find("td")]
    return {row.find("th")[0].text(): [cell.text() for cell in row.find("td")] for row in rows}


def test_the_best_model_has_rank_one_and_equal_models_share() -> None:
    found = certificate(models=4)
    values = dict(zip((judge.name for judge in found.judges), (0.1, 0.3, 0.3, 0.2), strict=True))
    tied = [
        score.model_copy(update={"mean": Span(value=values[score.model], low=0.0, high=1.0)})
        for score in found.full.scores
    ]
    whole = found.full.model_copy(update={"scores": tuple(tied)})
    rows = cells(
        read(fidelity(material(found.model_copy(update={"datasets": (whole, *found.datasets[1:])})))), "tab-ranks"
    )
    assert [rows[judge.name][1] for judge in found.judges] == ["4", "1", "1", "3"]


def test_the_crossing_is_marked_where_the_lines_meet() -> None:
    found = certificate()
    assert found.cost.break_even is not None
    root = read(cost(material(found)))
    (picture,) = root.find("svg", **{"aria-labelledby": "fig-break-even-title fig-break-even-desc"})
    (ring,) = picture.find("circle", class_="ring")
    line = picture.find("g", class_="s1")[0].find("polyline")[0].attributes["points"] or ""
    (x1, y1), (x2, y2) = (tuple(map(float, pair.split(","))) for pair in line.split())
    x, y = float(ring.attributes["cx"] or ""), float(ring.attributes["cy"] or "")
    assert x == pytest.approx((x1 + x2) / 2, abs=0.02)  # the axis reaches to twice the break-even
    assert y == pytest.approx((y1 + y2) / 2, abs=0.02)


def test_parts_are_means_over_the_models_that_have_them() -> None:
    scores_of = certificate(models=3).full.scores
    values: list[dict[str, float | None]] = [{"head": 0.1}, {"head": 0.3}, {"head": None}]
    changed = [one.model_copy(update={"parts": parts}) for one, parts in zip(scores_of, values, strict=True)]
    dataset = certificate(models=3).full.model_copy(update={"scores": tuple(changed)})
    assert part_mean(dataset, "head") == pytest.approx(0.2)
    assert part_mean(dataset, "tail") is None


@pytest.mark.parametrize(
    ("median", "words"),
    [(0.1, "nearer to single users"), (0.5, "further from single users"), (0.24, "as near to single")],
)
def test_nearness_is_compared_with_that_of_real_users(median: float, words: str) -> None:
    found = certificate()
    near = Near(median=median, minimum=0.0, copied=0.25)
    distilled = found.distilled.model_copy(update={"near": near})
    datasets = (found.full, distilled, *found.controls)
    told = read(privacy(material(found.model_copy(update={"datasets": datasets})))).text()
    assert f"rows are {words}" in told
    assert "25 % of the rows stand in a real history" in told
    assert "No claim of anonymity" in told


def test_each_dataset_and_model_stands_with_its_own_figures() -> None:
    found = certificate(draw=9)
    root = read(scores(material(found)))
    datasets, models = cells(root, "tab-datasets"), cells(root, "tab-models")
    for dataset in found.datasets[1:]:
        fidelity_of = [dataset.fidelity[group] for group in ("all", "unused")]
        taus = [one.tau for one in fidelity_of if one is not None and one.tau is not None]
        shown = [float(text.split()[0]) for text in datasets[dataset.name][5:7]]
        assert shown == pytest.approx([tau.value for tau in taus], abs=0.006)
    for judge in found.judges:
        values = [float(text.split()[0]) for text in models[judge.name][2 : 2 + len(found.datasets)]]
        means = [score.mean.value for one in found.datasets if (score := one.score(judge.name)) is not None]
        assert values == pytest.approx(means, abs=0.0006)


def test_a_neighbour_stands_at_its_own_ratio() -> None:
    other = certificate(draw=8)
    ratio = Span(value=0.431, low=0.411, high=0.451)
    made = other.distilled.model_copy(update={"mean_ratio": {"all": ratio}})
    other = other.model_copy(update={"datasets": (other.full, made, *other.controls)})
    beside = (Neighbour(name="next", certificate=other, differs=()),)
    root = read(
        size(Material(name="made", certificate=certificate(), made=DistilledDataset.load(GOLDEN), beside=beside))
    )
    assert f"next: 260 kB, {percent_interval(ratio)}" in root.find("desc")[0].text()
