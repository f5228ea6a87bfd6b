"""From values to places on paper: linear and logarithmic scales, and ticks at round numbers."""

import math
from collections.abc import Iterable
from dataclasses import dataclass

from recdistill.errors import OptionError

NARROW = 6
"""Below this ratio of its ends a logarithmic scale has ticks at equal steps."""


@dataclass(frozen=True, kw_only=True)
class Scale:
    """A map of values to coordinates.

    Args:
        low, high: values at the two ends; ``low < high``, and above 0 where the scale is logarithmic.
        start, stop: coordinates of the two ends.
        log: whether equal ratios take equal room.
    """

    low: float
    high: float
    start: float
    stop: float
    log: bool = False

    def __post_init__(self) -> None:
        if not (math.isfinite(self.low) and math.isfinite(self.high) and self.low < self.high):
            raise OptionError("scale", (self.low, self.high), fix="must be finite, the first below the second")
        if self.log and self.low <= 0:
            raise OptionError("scale", self.low, fix="must be above 0 where the scale is logarithmic")

    def at(self, value: float) -> float:
        """Return the coordinate of a value; a value outside lies at the nearer end."""
        inside = min(max(value, self.low), self.high)
        low, high, here = (math.log(v) if self.log else v for v in (self.low, self.high, inside))
        return self.start + (self.stop - self.start) * (here - low) / (high - low)

    def ticks(self, about: int = 5) -> list[float]:
        """Return round values on the scale, about so many."""
        found = log_ticks(self.low, self.high, about) if self.log else round_ticks(self.low, self.high, about)
        room = 1e-9 * (self.high - self.low)
        return [tick for tick in found if self.low - room <= tick <= self.high + room]


def round_step(width: float, about: int) -> float:
    """Return 1, 2 or 5 times a power of ten: the smallest that cuts ``width`` into at most ``about`` parts."""
    power = 10.0 ** math.floor(math.log10(width / about))
    return next(factor * power for factor in (1, 2, 5, 10, 20) if width / (factor * power) <= about * (1 + 1e-9))


def round_ticks(low: float, high: float, about: int = 5) -> list[float]:
    """Return the multiples of a round step from ``low`` to ``high``."""
    step = round_step(high - low, about)
    places = max(0, -math.floor(math.log10(step)))
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [round(index * step, places) + 0.0 for index in range(first, last + 1)]


def log_ticks(low: float, high: float, about: int = 5) -> list[float]:
    """Return powers of ten from ``low`` to ``high``; with 2 and 5 between them where there is room."""
    if high / low < NARROW:
        return round_ticks(low, high, about)
    first, last = math.floor(math.log10(low)), math.ceil(math.log10(high))
    for factors in ((1, 2, 5), (1, 3), (1,)):
        ticks = [factor * 10.0**power for power in range(first, last + 1) for factor in factors]
        inside = [tick for tick in ticks if low * (1 - 1e-9) <= tick <= high * (1 + 1e-9)]
        if len(inside) <= about + 1:
            break
    else:
        inside = inside[:: math.ceil(len(inside) / (about + 1))]
    return inside


def around(values: Iterable[float], *, zero: bool = False, about: int = 5) -> tuple[float, float]:
    """Return round bounds that hold all values, with a little room; from 0 where ``zero`` is asked."""
    known = [*values, *([0.0] if zero else [])]
    low, high = (min(known), max(known)) if known else (0.0, 1.0)
    if high - low <= 1e-12 * max(abs(low), abs(high), 1e-300):
        room = abs(high) / 2 or 1.0
        low, high = low - (0 if zero and low == 0 else room), high + room
    step = round_step(high - low, about) / 2
    return math.floor(low / step + 1e-9) * step, math.ceil(high / step - 1e-9) * step


def around_log(values: Iterable[float], room: float = 1.3) -> tuple[float, float]:
    """Return bounds a factor ``room`` beyond all values; values that are not above 0 do not count."""
    known = [value for value in values if value > 0]
    return (min(known) / room, max(known) * room) if known else (1.0, 10.0)


def tick_text(value: float, ticks: list[float]) -> str:
    """Return a tick with the decimals that the ticks need, each alike."""
    if not ticks:
        return f"{value:g}"
    places = max(_decimals(tick) for tick in ticks)
    return f"{value:,.{places}f}"


def _decimals(value: float) -> int:
    text = f"{abs(value):.10f}".rstrip("0")
    return len(text.partition(".")[2])
