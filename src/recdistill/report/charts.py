"""The kinds of figures of the report: scatter, curves, points with intervals, bars. Each returns one picture."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from recdistill.report.labels import Box, place_labels
from recdistill.report.markup import Markup, Part, element, join
from recdistill.report.scales import Scale, around, around_log, tick_text
from recdistill.report.svg import (
    DASHES,
    SHAPES,
    TEXT,
    Entry,
    Frame,
    axes,
    bar,
    figure,
    legend,
    line,
    marker,
    polyline,
    series,
    shortened,
    text,
    whiskers,
    width_of,
)

Triple = tuple[float, float, float]
"""A value and the two ends of its interval."""
Numbers = Callable[[float], str]

LONGEST_NAME = 24


@dataclass(frozen=True, kw_only=True)
class Caption:
    """What a picture is called, for those who see it and for those who hear it.

    Args:
        ident: unique within the page.
        title: what it is.
        description: what can be seen, numbers included.
    """

    ident: str
    title: str
    description: str


@dataclass(frozen=True, kw_only=True)
class Dot:
    """A point of a scatter.

    Args:
        name: what it stands for.
        x, y: value and interval on both axes.
        colour: index of its series.
        shape: of its marker.
        hollow: whether the marker is only an outline.
        ring: whether a ring is drawn around it.
        about: what a pointer is told.
    """

    name: str
    x: Triple
    y: Triple
    colour: int
    shape: str
    hollow: bool = False
    ring: bool = False
    about: str = ""


@dataclass(frozen=True, kw_only=True)
class Axis:
    """What stands along an axis.

    Args:
        title: what is measured.
        bounds: values at its ends.
        log: whether equal ratios take equal room.
        words: how a tick is written.
    """

    title: str
    bounds: tuple[float, float]
    log: bool = False
    words: Numbers | None = None


def scatter(
    caption: Caption,
    dots: Sequence[Dot],
    x: Axis,
    y: Axis,
    *,
    size: tuple[float, float] = (440, 440),
    names: bool = True,
    diagonal: bool = False,
    level: float | None = None,
    told: str = "",
    entries: Sequence[Entry] = (),
    about: int = 5,
) -> Markup:
    """Return points with intervals as thin crosses.

    Args:
        caption: title and description.
        dots: the points.
        x, y: the axes.
        size: width, and height without the legend.
        names: whether the points carry their names, where there is room.
        diagonal: whether the line of equal values is drawn.
        level: height of a line that everything is compared with.
        told: what is written in the upper left corner of the plot.
        entries: of the legend.
        about: how many ticks an axis has.
    """
    width, height = size
    frame = _frame(x, y, left=50, right=width - 20, top=32, bottom=height - 42)
    keys, room = legend(entries, 8, height + 4, width - 16)
    marks: list[Part] = [_diagonal(frame) if diagonal else None]
    if level is not None:
        marks.append(line(frame.x.start, frame.y.at(level), frame.x.stop, frame.y.at(level), "level"))
    marks += [series(dot.colour, whiskers(frame, dot.x, dot.y)) for dot in dots]
    marks += [series(dot.colour, _dot(frame, dot), about=dot.about or None) for dot in dots]
    drawn = axes(frame, x.title, y.title, x_text=x.words, y_text=y.words, about=about)
    labels = _names(frame, dots, width) if names else None
    corner = text(frame.x.start + 6, frame.y.stop + 14, told, class_="label") if told else None
    return figure(
        caption.ident, caption.title, caption.description, width, height + room + 8, drawn, marks, corner, labels, keys
    )


def _frame(x: Axis, y: Axis, *, left: float, right: float, top: float, bottom: float) -> Frame:
    return Frame(
        x=Scale(low=x.bounds[0], high=x.bounds[1], start=left, stop=right, log=x.log),
        y=Scale(low=y.bounds[0], high=y.bounds[1], start=bottom, stop=top, log=y.log),
    )


def _diagonal(frame: Frame) -> Markup:
    """Return the line of equal values, as far as both axes reach."""
    low, high = max(frame.x.low, frame.y.low), min(frame.x.high, frame.y.high)
    if low >= high:
        return Markup("")
    (x1, y1), (x2, y2) = frame.at(low, low), frame.at(high, high)
    return line(x1, y1, x2, y2, "level")


def _dot(frame: Frame, dot: Dot) -> Markup:
    x, y = frame.at(dot.x[0], dot.y[0])
    ring = element("circle", cx=x, cy=y, r=8, class_="ring") if dot.ring else None
    return join(ring, marker(dot.shape, x, y, hollow=dot.hollow))


def _names(frame: Frame, dots: Sequence[Dot], width: float) -> Markup:
    """Return the names of points that have room."""
    bounds = Box(frame.x.start + 2, frame.y.stop + 1, width - 2, frame.y.start - 2)
    names = [shortened(dot.name, LONGEST_NAME) for dot in dots]
    points = [frame.at(dot.x[0], dot.y[0]) for dot in dots]
    rims = 9.0 if any(dot.ring for dot in dots) else 6.0
    parts: list[Part] = []
    for label in place_labels(points, names, bounds, size=TEXT - 1, rim=rims):
        box, (x, y) = label.box, points[label.index]
        if label.lead is not None:
            parts.append(line(x, y, *label.lead, "lead"))
        anchor, place = ("start", box.left) if box.left >= x else ("end", box.right)
        if box.left < x < box.right:
            anchor, place = "middle", (box.left + box.right) / 2
        parts.append(text(place, (box.top + box.bottom) / 2 + 4, names[label.index], anchor=anchor, class_="label"))
    return join(parts)


@dataclass(frozen=True, kw_only=True)
class Curve:
    """A line of a figure.

    Args:
        name: what it stands for.
        points: from left to right.
        index: of its series: colour, dash and marker.
    """

    name: str
    points: tuple[tuple[float, float], ...]
    index: int


def curves(
    caption: Caption,
    lines: Sequence[Curve],
    x_title: str,
    y_title: str,
    *,
    size: tuple[float, float] = (310, 230),
    log: bool = False,
    zero: bool = False,
    x_words: Numbers | None = None,
    y_words: Numbers | None = None,
    mark: tuple[float, float, str] | None = None,
    keys: bool = True,
) -> Markup:
    """Return lines, each with its own dash and with its own marker at its end.

    Args:
        caption: title and description.
        lines: what is drawn.
        x_title, y_title: what is measured.
        size: width, and height without the legend.
        log: whether the lying axis is logarithmic.
        zero: whether the upright axis begins at 0.
        x_words, y_words: how ticks are written.
        mark: a point that matters, and what it says.
        keys: whether a legend is drawn.
    """
    width, height = size
    across = [x for line in lines for x, _ in line.points]
    up = [y for line in lines for _, y in line.points]
    x = Axis(title=x_title, bounds=around_log(across, 1.15) if log else around(across, zero=not log), log=log)
    y = Axis(title=y_title, bounds=around(up, zero=zero))
    frame = _frame(x, y, left=52, right=width - 20, top=32, bottom=height - 42)
    entries = [Entry(name=one.name, colour=one.index, shape=_shape(one.index), dash=_dash(one.index)) for one in lines]
    drawn_keys, room = legend(entries if keys else [], 8, height + 2, width - 16)
    parts = [
        series(one.index, polyline(frame, one.points, _dash(one.index)), _end(frame, one), about=one.name)
        for one in lines
        if one.points
    ]
    drawn = axes(frame, x_title, y_title, x_text=x_words, y_text=y_words)
    told = _mark(frame, mark) if mark else None
    return figure(
        caption.ident, caption.title, caption.description, width, height + room + 4, drawn, parts, told, drawn_keys
    )


def _shape(index: int) -> str:
    return SHAPES[index % len(SHAPES)]


def _dash(index: int) -> str:
    return DASHES[index % len(DASHES)]


def _end(frame: Frame, curve: Curve) -> Markup:
    """Return the marker at the end of a line."""
    return marker(_shape(curve.index), *frame.at(*curve.points[-1]), size=4)


def _mark(frame: Frame, mark: tuple[float, float, str]) -> Markup:
    """Return a ring around a point, and its words on the side where there is room."""
    x, y = frame.at(mark[0], mark[1])
    room = frame.x.stop - x > width_of(mark[2]) + 14
    words = text(x + 11 if room else x - 11, y + 18, mark[2], anchor="start" if room else "end", class_="label")
    return join(line(x, y, x, frame.y.start, "level"), element("circle", cx=x, cy=y, r=5, class_="ring"), words)


def key(caption: Caption, names: Sequence[tuple[str, int]], *, width: float = 310) -> Markup:
    """Return a legend that stands by itself, one line for each name and index of a series."""
    parts: list[Part] = [text(4, 14, caption.title, class_="name")]
    top = 24.0
    for name, index in names:
        entry = Entry(name=name, colour=index, shape=_shape(index), dash=_dash(index))
        drawn, room = legend([entry], 4, top, width - 8)
        parts.append(drawn)
        top += room + 2
    return figure(caption.ident, caption.title, caption.description, width, top + 4, parts)


@dataclass(frozen=True, kw_only=True)
class Bars:
    """A series of a grouped bar chart.

    Args:
        name: what it stands for.
        values: one per group; ``None`` where there is none.
        index: of its series: colour and marker.
    """

    name: str
    values: tuple[float | None, ...]
    index: int


def grouped_bars(
    caption: Caption,
    groups: Sequence[str],
    bars: Sequence[Bars],
    y_title: str,
    *,
    size: tuple[float, float] = (440, 260),
    words: Numbers | None = None,
) -> Markup:
    """Return bars side by side in groups, each below the marker of its series.

    Args:
        caption: title and description.
        groups: names, from left to right.
        bars: series, from left to right within each group; values 0 or more.
        y_title: what is measured.
        size: width, and height without the legend.
        words: how ticks are written.
    """
    width, height = size
    known = [value for one in bars for value in one.values if value is not None]
    x = Scale(low=0, high=len(groups), start=50, stop=width - 8)
    frame = Frame(x=x, y=Scale(low=0, high=around(known, zero=True)[1], start=height - 28, stop=34))
    room, base = (x.at(1) - x.at(0)) * 0.82 / max(len(bars), 1), frame.y.start
    parts: list[Part] = []
    for place, group in enumerate(groups):
        begin = x.at(place) + (x.at(1) - x.at(0)) * 0.09
        for order, one in enumerate(bars):
            parts.append(_bar_of(one, place, begin + order * room, room * 0.86, frame))
        parts.append(text((x.at(place) + x.at(place + 1)) / 2, base + 18, group, anchor="middle"))
    ticks = frame.y.ticks()
    grid = [line(x.start, frame.y.at(tick), x.stop, frame.y.at(tick), "grid") for tick in ticks]
    sides = [
        text(
            x.start - 6,
            frame.y.at(tick) + 4,
            words(tick) if words else tick_text(tick, ticks),
            anchor="end",
            class_="tick",
        )
        for tick in ticks
    ]
    entries = [Entry(name=one.name, colour=one.index, shape=_shape(one.index)) for one in bars]
    keys, below = legend(entries, 8, height, width - 16)
    title = text(2, 14, y_title, class_="name")
    axis = line(x.start, base, x.stop, base, "axis")
    drawn = join(grid, sides, title, parts, axis, keys)
    return figure(caption.ident, caption.title, caption.description, width, height + below + 4, drawn)


def _bar_of(one: Bars, place: int, left: float, width: float, frame: Frame) -> Markup | None:
    value = one.values[place]
    if value is None:
        return None
    top = frame.y.at(value)
    sign = marker(_shape(one.index), left + width / 2, top - 8, size=min(4.0, width / 2.4))
    return series(one.index, bar(left, top, width, frame.y.start - top), sign, about=f"{one.name}: {value:.4g}")


def flat_bars(
    caption: Caption, bars: Sequence[tuple[str, float, int]], words: Numbers, *, width: float = 440
) -> Markup:
    """Return bars that lie one below the other, each with its name above and its value at its end.

    Args:
        caption: title and description.
        bars: name, value (0 or more) and index of the series.
        words: how a value is written.
        width: of the picture.
    """
    most = max((value for _, value, _ in bars), default=0.0) or 1.0
    room = width - 16 - max((width_of(words(value)) for _, value, _ in bars), default=0.0)
    parts: list[Part] = []
    for row, (name, value, index) in enumerate(bars):
        top = 38.0 * row
        parts.append(text(4, top + 13, shortened(name, int((width - 8) / (TEXT * 0.6)))))
        parts.append(series(index, bar(4, top + 18, room * value / most, 13), about=f"{name}: {words(value)}"))
        parts.append(text(4 + room * value / most + 6, top + 29, words(value), class_="tick"))
    return figure(caption.ident, caption.title, caption.description, width, 38.0 * len(bars) + 2, parts)
