"""The parts that figures are drawn of: a frame with axes, markers, error bars, lines, bars and a legend.

Colours stand in the style sheet as classes ``s0``, ``s1`` and so on, so that a figure follows the reader's light or
dark scheme. No part tells anything by colour alone: markers and dashes differ too. Coordinates are of the viewBox.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from recdistill.report.markup import Markup, Part, element, join, number
from recdistill.report.scales import Scale, tick_text

COLOURS = 8
"""Classes ``s0`` to ``s7``; further series repeat them with another marker."""
SHAPES = ("square", "circle", "triangle", "diamond", "under", "cross", "plus", "hexagon", "star")
DASHES = ("", "", "6 3", "2 3", "9 3 2 3", "4 2", "12 4", "1 2", "8 2 2 2 2 2")
TEXT = 12.0
"""Size of text."""
LETTER = 0.6
"""Width of a letter as a part of its height; on the wide side, so that nothing that is planned with it overlaps."""


@dataclass(frozen=True, kw_only=True)
class Frame:
    """Where a figure draws.

    Args:
        x, y: scales whose coordinates bound the plot; ``y`` runs upwards, from ``start`` below to ``stop`` above.
    """

    x: Scale
    y: Scale

    def at(self, x: float, y: float) -> tuple[float, float]:
        """Return the place of a pair of values."""
        return self.x.at(x), self.y.at(y)


def width_of(text: str, size: float = TEXT) -> float:
    """Return the room that a text takes."""
    return len(text) * size * LETTER


def shortened(text: str, longest: int) -> str:
    """Return a text cut to so many letters."""
    return text if len(text) <= longest else text[: longest - 1].rstrip() + "\u2026"


def figure(ident: str, title: str, description: str, width: float, height: float, *parts: Part) -> Markup:
    """Return a picture that says in words what it shows.

    Args:
        ident: unique within the page.
        title: what it is.
        description: what can be seen, numbers included.
        width, height: of the viewBox, and of the picture where there is room.
        parts: what is drawn.
    """
    return element(
        "svg",
        element("title", title, id=f"{ident}-title"),
        element("desc", description, id=f"{ident}-desc"),
        *parts,
        xmlns="http://www.w3.org/2000/svg",
        role="img",
        aria_labelledby=f"{ident}-title {ident}-desc",
        view_box=f"0 0 {number(width)} {number(height)}",
        width=width,
        height=height,
    )


def text(x: float, y: float, words: str, *, anchor: str = "start", class_: str | None = None) -> Markup:
    """Return a line of text whose baseline begins, is centred or ends at a place."""
    return element("text", words, x=x, y=y, text_anchor=None if anchor == "start" else anchor, class_=class_)


def line(x1: float, y1: float, x2: float, y2: float, class_: str) -> Markup:
    """Return a straight line."""
    return element("line", x1=x1, y1=y1, x2=x2, y2=y2, class_=class_)


def axes(
    frame: Frame,
    x_title: str,
    y_title: str,
    *,
    x_text: Callable[[float], str] | None = None,
    y_text: Callable[[float], str] | None = None,
    about: int = 5,
) -> Markup:
    """Return grid, ticks and titles of both axes; the title of the upright one stands above it, to be read as it is."""
    left, right = sorted((frame.x.start, frame.x.stop))
    top, bottom = sorted((frame.y.start, frame.y.stop))
    across, up = frame.x.ticks(about), frame.y.ticks(about)
    parts = [line(left, frame.y.at(tick), right, frame.y.at(tick), "grid") for tick in up]
    parts += [line(frame.x.at(tick), top, frame.x.at(tick), bottom, "grid") for tick in across]
    parts.append(line(left, bottom, right, bottom, "axis"))
    parts += _x_ticks(frame, across, bottom, x_text)
    for tick in up:
        words = y_text(tick) if y_text else tick_text(tick, up)
        parts.append(text(left - 6, frame.y.at(tick) + 4, words, anchor="end", class_="tick"))
    begin = max(left - 40, 2)
    longest = int((right - begin) / (TEXT * LETTER))
    parts.append(text(right, bottom + 34, shortened(x_title, longest), anchor="end", class_="name"))
    parts.append(text(begin, top - 10, shortened(y_title, longest), class_="name"))
    return join(parts)


def _x_ticks(
    frame: Frame, ticks: Sequence[float], bottom: float, words_of: Callable[[float], str] | None
) -> list[Markup]:
    """Return the texts below the plot, those left out that would touch the one before."""
    found, free = [], -math.inf
    for tick in ticks:
        words = words_of(tick) if words_of else tick_text(tick, list(ticks))
        place, half = frame.x.at(tick), width_of(words, TEXT - 1) / 2
        if place - half >= free:
            found.append(text(place, bottom + 16, words, anchor="middle", class_="tick"))
            free = place + half + 4
    return found


def marker(shape: str, x: float, y: float, size: float = 4.5, *, hollow: bool = False) -> Markup:
    """Return a marker in the colour of its group.

    Args:
        shape: one of :data:`SHAPES`.
        x, y: its middle.
        size: from the middle to the rim, about.
        hollow: only its outline.
    """
    class_ = "mark hollow" if hollow else "mark"
    if shape == "circle":
        return element("circle", cx=x, cy=y, r=size, class_=class_)
    if shape in ("cross", "plus"):
        turn = math.pi / 4 if shape == "cross" else 0.0
        arms = [(size * 1.15 * math.cos(turn + a), size * 1.15 * math.sin(turn + a)) for a in (0, math.pi / 2)]
        parts = [line(x - dx, y - dy, x + dx, y + dy, "mark stroke") for dx, dy in arms]
        return element("g", parts)
    corners = _corners(shape, size)
    places = " ".join(f"{number(x + dx)},{number(y + dy)}" for dx, dy in corners)
    return element("polygon", points=places, class_=class_)


def _corners(shape: str, size: float) -> list[tuple[float, float]]:
    """Return the corners of a shape around nothing, of about the area of a circle."""
    sides, first, radius = {
        "square": (4, 45, 1.25),
        "diamond": (4, 0, 1.3),
        "triangle": (3, -90, 1.4),
        "under": (3, 90, 1.4),
        "hexagon": (6, 0, 1.1),
        "star": (10, -90, 1.5),
    }[shape]
    found = []
    for index in range(sides):
        angle = math.radians(first + 360 * index / sides)
        far = radius * size * (0.5 if shape == "star" and index % 2 else 1)
        found.append((far * math.cos(angle), far * math.sin(angle)))
    return found


def whiskers(frame: Frame, x: tuple[float, float, float], y: tuple[float, float, float]) -> Markup:
    """Return the intervals of a point as a thin cross; each side is (value, low, high)."""
    here, there = frame.at(x[0], y[0])
    return join(
        line(frame.x.at(x[1]), there, frame.x.at(x[2]), there, "whisker") if x[2] > x[1] else None,
        line(here, frame.y.at(y[1]), here, frame.y.at(y[2]), "whisker") if y[2] > y[1] else None,
    )


def polyline(frame: Frame, points: Sequence[tuple[float, float]], dash: str = "") -> Markup:
    """Return a line through values."""
    places = " ".join(f"{number(a)},{number(b)}" for a, b in (frame.at(x, y) for x, y in points))
    return element("polyline", points=places, class_="curve", stroke_dasharray=dash or None)


def bar(x: float, y: float, width: float, height: float) -> Markup:
    """Return a bar in the colour of its group."""
    return element("rect", x=x, y=y, width=max(width, 0.0), height=max(height, 0.0), class_="bar")


def series(index: int, *parts: Part, about: str | None = None) -> Markup:
    """Return parts in the colour of a series; ``about`` is shown to a pointer that rests on them."""
    return element("g", element("title", about) if about else None, *parts, class_=f"s{index % COLOURS}")


@dataclass(frozen=True, kw_only=True)
class Entry:
    """A line of a legend.

    Args:
        name: what stands there.
        colour: index of the series.
        shape: of the marker; none for a line without one.
        dash: of the line; ``None`` for no line.
        hollow: whether the marker is only an outline.
        ring: whether a ring is drawn around the marker.
    """

    name: str
    colour: int
    shape: str | None = None
    dash: str | None = None
    hollow: bool = False
    ring: bool = False


def legend(entries: Sequence[Entry], x: float, y: float, width: float) -> tuple[Markup, float]:
    """Return entries in lines of at most ``width``, and the height that they take."""
    parts, left, row = [], x, 0
    for entry in entries:
        sample = 26.0 if entry.dash is not None else 14.0
        name = shortened(entry.name, int((width - sample - 6) / (TEXT * LETTER)))
        needed = sample + 6 + width_of(name)
        if left > x and left + needed > x + width:
            left, row = x, row + 1
        parts.append(_entry(entry, name, left, y + 18 * row + 9, sample))
        left += needed + 14
    return join(parts), 18.0 * (row + 1) if entries else 0.0


def _entry(entry: Entry, name: str, x: float, y: float, sample: float) -> Markup:
    drawn: list[Part] = []
    if entry.dash is not None:
        ends = f"{number(x)},{number(y)} {number(x + sample)},{number(y)}"
        drawn.append(element("polyline", points=ends, class_="curve", stroke_dasharray=entry.dash or None))
    if entry.shape is not None:
        drawn.append(marker(entry.shape, x + sample / 2, y, hollow=entry.hollow))
    if entry.ring:
        drawn.append(element("circle", cx=x + sample / 2, cy=y, r=7.5, class_="ring"))
    return join(series(entry.colour, drawn), text(x + sample + 6, y + 4, name))
