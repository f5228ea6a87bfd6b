"""Names beside points, so that none covers another name or a point."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from recdistill.report.svg import TEXT, width_of

ANGLES = (0, 180, -90, 90, -35, 35, -145, 145, -65, 65, -115, 115)
"""In degrees, those that read best first."""
REACH = (9.0, 15.0, 24.0, 36.0, 50.0)
"""How far from its point a name may stand; further than the second with a line that leads to it."""


@dataclass(frozen=True)
class Box:
    """A rectangle: left, top, right, bottom."""

    left: float
    top: float
    right: float
    bottom: float

    def overlaps(self, other: "Box") -> bool:
        """Return whether the two share an area."""
        return (
            self.left < other.right and other.left < self.right and self.top < other.bottom and other.top < self.bottom
        )

    def inside(self, other: "Box") -> bool:
        """Return whether this lies within the other."""
        return (
            self.left >= other.left
            and self.top >= other.top
            and self.right <= other.right
            and self.bottom <= other.bottom
        )


@dataclass(frozen=True, kw_only=True)
class Label:
    """A name that found its place.

    Args:
        index: of the point.
        box: the room that it takes.
        lead: where a line to the point ends; ``None`` where the name stands close by.
    """

    index: int
    box: Box
    lead: tuple[float, float] | None


def place_labels(
    points: Sequence[tuple[float, float]], names: Sequence[str], bounds: Box, *, size: float = TEXT, rim: float = 5.0
) -> list[Label]:
    """Return the names that have room; a name without room is left out.

    Greedy: points in crowded places choose first, and each takes the nearest free place in the direction that reads
    best.

    Args:
        points: places of the points.
        names: one per point.
        bounds: what no name may leave.
        size: of the letters.
        rim: of the markers, which no name covers.
    """
    taken = [Box(x - rim, y - rim, x + rim, y + rim) for x, y in points]
    found: list[Label] = []
    for index in sorted(range(len(points)), key=lambda index: _crowd(points, index)):
        place = _free_place(points[index], width_of(names[index], size), size, bounds, taken)
        if place is not None:
            box, lead = place
            taken.append(box)
            found.append(Label(index=index, box=box, lead=lead))
    return sorted(found, key=lambda label: label.index)


def _crowd(points: Sequence[tuple[float, float]], index: int) -> tuple[float, int]:
    """Return the distance to the next point: the smaller, the earlier a name is placed."""
    others = (math.dist(points[index], other) for place, other in enumerate(points) if place != index)
    return min(others, default=math.inf), index


def _free_place(
    point: tuple[float, float], width: float, size: float, bounds: Box, taken: Sequence[Box]
) -> tuple[Box, tuple[float, float] | None] | None:
    for reach in REACH:
        for angle in ANGLES:
            x = point[0] + reach * math.cos(math.radians(angle))
            y = point[1] + reach * math.sin(math.radians(angle))
            box = _box_at(x, y, width, size, math.cos(math.radians(angle)))
            if box.inside(bounds) and not any(box.overlaps(other) for other in taken):
                return box, (x, y) if reach > REACH[1] else None
    return None


def _box_at(x: float, y: float, width: float, size: float, across: float) -> Box:
    """Return the room of a name that begins, ends or is centred at a place, by the direction it is seen in."""
    left = x if across > 0.3 else x - width if across < -0.3 else x - width / 2
    return Box(left, y - size * 0.6, left + width, y + size * 0.6)
