"""What figures are made of: places of markers, whiskers, labels and bars against known answers.

That a picture is beautiful is not proved, only that its parts stand where the numbers say and inside its view.
"""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from recdistill.report.charts import (
    Axis,
    Bars,
    Caption,
    Curve,
    Dot,
    curves,
    flat_bars,
    grouped_bars,
    key,
    scatter,
)
from recdistill.report.labels import Box, place_labels
from recdistill.report.markup import Markup
from recdistill.report.scales import Scale
from recdistill.report.svg import DASHES, SHAPES, Entry, Frame, legend, marker, shortened, whiskers, width_of
from reference.pages import Node, coordinates, read_page, view_of

CAPTION = Caption(ident="x", title="Title & more", description="All of it.")
FRACTION = st.floats(0, 1)


def picture(markup: Markup) -> Node:
    """Return a picture after checking what every picture must have."""
    found = read_page(markup).find("svg")
    assert len(found) == 1
    width, height = view_of(found[0])
    for shape, x, y in coordinates(found[0]):
        assert -1e-6 <= x <= width + 1e-6, (shape, x, width)
        assert -1e-6 <= y <= height + 1e-6, (shape, y, height)
    return found[0]


def frame() -> Frame:
    """Return a plot of 100 by 100 whose values reach from 0 to 10."""
    return Frame(x=Scale(low=0, high=10, start=0, stop=100), y=Scale(low=0, high=10, start=100, stop=0))


@pytest.mark.parametrize("shape", SHAPES)
def test_a_marker_lies_around_its_place(shape: str) -> None:
    places = coordinates(read_page(marker(shape, 50, 40)))
    assert places
    assert sum(x for _, x, _ in places) / len(places) == pytest.approx(50, abs=0.1)
    assert sum(y for _, _, y in places) / len(places) == pytest.approx(40, abs=0.1)
    assert all(math.dist((x, y), (50, 40)) < 8 for _, x, y in places)


def test_markers_and_dashes_of_series_differ() -> None:
    drawn = [marker(shape, 0, 0) for shape in SHAPES]
    assert len(set(drawn)) == len(SHAPES) == len(DASHES)
    assert len(set(DASHES[1:])) == len(DASHES) - 1  # all data and the distilled data differ by marker


def test_whiskers_reach_as_far_as_the_intervals() -> None:
    root = read_page(whiskers(frame(), (5, 4, 7), (2, 1, 2.5)))
    lines = [
        tuple(float(line.attributes[name] or "") for name in ("x1", "y1", "x2", "y2")) for line in root.find("line")
    ]
    assert lines == [(40, 80, 70, 80), (50, 90, 50, 75)]


def test_an_interval_without_width_has_no_whisker() -> None:
    assert whiskers(frame(), (5, 5, 5), (2, 2, 2)) == ""


def test_a_scatter_puts_each_point_where_its_values_are() -> None:
    axis = Axis(title="score", bounds=(0.0, 0.1))
    dots = [Dot(name="a", x=(0.05,) * 3, y=(0.025,) * 3, colour=1, shape="circle", ring=True)]
    made = picture(scatter(CAPTION, dots, axis, axis, diagonal=True, told="tau 1"))
    (ring,), (mark,) = made.find("circle", class_="ring"), made.find("circle", class_="mark")
    left, right, top, bottom = 50, 420, 32, 398
    expected = ((left + right) / 2, bottom - (bottom - top) / 4)
    assert (float(mark.attributes["cx"] or ""), float(mark.attributes["cy"] or "")) == pytest.approx(expected)
    assert (ring.attributes["cx"], ring.attributes["cy"]) == (mark.attributes["cx"], mark.attributes["cy"])
    assert "tau 1" in made.text()
    (level,) = made.find("line", class_="level")
    ends = [float(level.attributes[name] or "") for name in ("x1", "y1", "x2", "y2")]
    assert ends == [left, bottom, right, top]


def test_curves_run_through_their_values_and_end_with_a_marker() -> None:
    lines = [
        Curve(name="all", points=((1, 0.0), (10, 0.5), (100, 1.0)), index=0),
        Curve(name="none", points=(), index=1),
    ]
    made = picture(curves(CAPTION, lines, "steps", "score", log=True, mark=(10, 0.5, "here")))
    (curve, *_samples) = made.find("polyline")
    xs = [float(pair.split(",")[0]) for pair in (curve.attributes["points"] or "").split()]
    assert xs[1] - xs[0] == pytest.approx(xs[2] - xs[1], abs=0.02)  # equal ratios take equal room
    assert "here" in made.text()


def test_bars_are_as_high_as_their_values() -> None:
    bars = [Bars(name="one", values=(0.2, None), index=0), Bars(name="two", values=(0.1, 0.05), index=1)]
    made = picture(grouped_bars(CAPTION, ("head", "tail"), bars, "score"))
    heights = [float(bar.attributes["height"] or "") for bar in made.find("rect")]
    assert len(heights) == 3
    assert heights[0] == pytest.approx(2 * heights[1], abs=0.03)
    assert heights[1] == pytest.approx(2 * heights[2], abs=0.03)


def test_flat_bars_are_as_long_as_their_values() -> None:
    made = picture(flat_bars(CAPTION, [("a", 10.0, 0), ("b", 2.5, 1), ("c", 0.0, 2)], lambda value: f"{value} s"))
    widths = [float(bar.attributes["width"] or "") for bar in made.find("rect")]
    assert widths[0] == pytest.approx(4 * widths[1], abs=0.05)
    assert widths[2] == 0
    assert all(word in made.text() for word in ("10.0 s", "2.5 s", "0.0 s"))


def test_every_picture_says_in_words_what_it_shows() -> None:
    made = picture(key(CAPTION, [("all data", 0), ("distilled", 1)]))
    assert made.attributes["role"] == "img"
    assert made.attributes["aria-labelledby"] == "x-title x-desc"
    assert (made.find("title")[0].text(), made.find("desc")[0].text()) == ("Title & more", "All of it.")


@given(st.lists(st.tuples(FRACTION, FRACTION), max_size=40), st.integers(1, 24))
def test_no_name_covers_another_or_a_point_or_leaves_the_plot(places: list[tuple[float, float]], letters: int) -> None:
    bounds = Box(0, 0, 400, 400)
    points = [(400 * x, 400 * y) for x, y in places]
    names = ["n" * letters] * len(points)
    found = place_labels(points, names, bounds, rim=5)
    markers = [Box(x - 5, y - 5, x + 5, y + 5) for x, y in points]
    for index, label in enumerate(found):
        assert label.box.inside(bounds)
        assert label.box.right - label.box.left == pytest.approx(width_of("n" * letters))
        assert not any(label.box.overlaps(other) for other in markers)
        assert not any(label.box.overlaps(other.box) for other in found[:index])
    assert [label.index for label in found] == sorted({label.index for label in found})


def test_every_name_has_its_place_where_there_is_room() -> None:
    points = [(50.0 + 100 * (index % 3), 50.0 + 60 * (index // 3)) for index in range(9)]
    found = place_labels(points, ["name"] * 9, Box(0, 0, 400, 400))
    assert [label.index for label in found] == list(range(9))
    assert all(label.lead is None and label.box.left > points[label.index][0] for label in found)


@given(st.lists(st.text("abcdefgh_ 0123456789", max_size=60), max_size=12), st.floats(120, 600))
def test_a_legend_stays_within_its_width_and_height(names: list[str], width: float) -> None:
    entries = [Entry(name=name, colour=i, shape=SHAPES[i % len(SHAPES)], dash="") for i, name in enumerate(names)]
    drawn, height = legend(entries, 10, 20, width)
    root = read_page(drawn)
    assert all(10 - 1e-6 <= x <= 10 + width and 20 <= y <= 20 + height for _, x, y in coordinates(root))
    ends = [float(text.attributes["x"] or "") + width_of(text.text()) for text in root.find("text")]
    assert all(end <= 10 + width + 1e-6 for end in ends)


def test_texts_are_cut_where_they_are_too_long() -> None:
    assert shortened("abcdef", 6) == "abcdef"
    assert shortened("abc defg", 5) == "abc\u2026"
    assert len(shortened("a" * 100, 24)) == 24


def test_names_in_a_scatter_cover_no_point() -> None:
    axis = Axis(title="score", bounds=(0.0, 1.0))
    places = [(0.5 + 0.03 * (index % 4), 0.5 + 0.04 * (index // 4)) for index in range(12)]
    dots = [Dot(name=f"m{i}", x=(x,) * 3, y=(y,) * 3, colour=1, shape="circle") for i, (x, y) in enumerate(places)]
    made = picture(scatter(CAPTION, dots, axis, axis))
    points = [tuple(float(mark.attributes[name] or "") for name in ("cx", "cy")) for mark in made.find("circle")]
    labels = made.find("text", class_="label")
    assert len(labels) >= 8
    for label in labels:
        x, y = (float(label.attributes[name] or "") for name in ("x", "y"))
        shift = {"end": 1.0, "middle": 0.5}.get(label.attributes.get("text-anchor") or "", 0.0)
        left = x - shift * width_of(label.text(), 11)
        box = Box(left, y - 10, left + width_of(label.text(), 11), y + 2)
        assert not any(box.overlaps(Box(a - 4, b - 4, a + 4, b + 4)) for a, b in points), label.text()
