"""Numbers and names as people read them: in headlines, cards and reports."""

import math
from collections.abc import Sequence

from recdistill.certificate.record import Dataset, Span

METHODS = {"random": "random users", "random_soft": "random users with a teacher's labels"}
PROTOCOLS = {"full": "full ranking", "uni100": "ranking against 100 sampled items"}
MOST_DIGITS = 6


def digits(value: float, significant: int = 3) -> str:
    """Return a number with so many significant digits, never in powers of ten above 0.0001."""
    if value == 0 or not math.isfinite(value):
        return "0" if value == 0 else str(value)
    if abs(value) < 1e-4:
        return f"{value:.{significant}g}"
    rounded = abs(float(f"{value:.{significant - 1}e}"))  # 0.9996 has its first digit before the point
    places = significant - 1 - math.floor(math.log10(rounded))
    return f"{value:,.{max(places, 0)}f}"


def decimals_for(width: float, value: float) -> int:
    """Return how many decimals show an interval of this width with two digits of what it leaves open."""
    scale = width if width > 0 else abs(value) / 10
    if scale <= 0:
        return 0
    return min(MOST_DIGITS, max(0, math.ceil(-math.log10(scale)) + 1))


def decimals_of(span: Span) -> int:
    """Return how many decimals :func:`interval` shows of its own accord."""
    return decimals_for(span.high - span.low, span.value)


def interval(span: Span, places: int | None = None) -> str:
    """Return a value and its interval, such as ``0.87 [0.71, 0.95]``, with so many decimals."""
    places = decimals_of(span) if places is None else places
    value, low, high = (plain(number, places) for number in (span.value, span.low, span.high))
    return f"{value} [{low}, {high}]"


def plain(value: float, places: int) -> str:
    """Return a number with so many decimals, and no minus before a zero."""
    text = f"{value:,.{places}f}"
    return text.removeprefix("-") if not text.strip("-0.,") else text


def percent(value: float) -> str:
    """Return a fraction in percent: ``0.4 %``, ``71 %``, ``98.6 %``."""
    points = 100 * value
    if points == 0:
        return "0 %"
    if abs(points) < 0.1:
        return f"{digits(points, 2)} %"
    fine = (abs(points) < 10 or 95 <= points <= 105) and abs(points - round(points)) > 1e-9
    return f"{plain(points, 1 if fine else 0)} %"


def percent_interval(span: Span) -> str:
    """Return a fraction and its interval in percent: ``71 % [68, 74]``."""
    value, low, high = (100 * number for number in (span.value, span.low, span.high))
    places = min(2, max(0, decimals_for(high - low, value) - 1))
    return f"{plain(value, places)} % [{plain(low, places)}, {plain(high, places)}]"


def bytes_text(count: float) -> str:
    """Return bytes in units of a thousand: ``260 kB``."""
    for unit, size in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if count >= 0.9995 * size:
            return f"{digits(count / size)} {unit}"
    return f"{digits(count)} B" if count % 1 else f"{int(count)} B"


def seconds_text(seconds: float) -> str:
    """Return a time in the largest unit of which it is two or more."""
    for unit, size in (("days", 86_400), ("h", 3_600), ("min", 60)):
        if seconds >= 2 * size:
            return f"{digits(seconds / size)} {unit}"
    return f"{digits(seconds)} s"


def chance(p: float) -> str:
    """Return a p-value; below a ten-thousandth only that it is."""
    return "below 0.0001" if p < 1e-4 else digits(p, 2) if p < 0.995 else "1"


def counted(number: int, noun: str) -> str:
    """Return a number and its noun: ``1 seed``, ``12 models``."""
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"


def listed(words: Sequence[str]) -> str:
    """Return words with commas and an ``and``."""
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}" if words else ""


def called(dataset: Dataset) -> str:
    """Return how text speaks of a dataset."""
    if dataset.kind == "all":
        return "all data"
    return METHODS.get(dataset.method, dataset.method) if dataset.kind == "control" else "the distilled dataset"


def titled(dataset: Dataset) -> str:
    """Return how figures and tables name a dataset."""
    return "all data" if dataset.kind == "all" else dataset.name


def ruled(dataset: Dataset) -> str:
    """Return the name of a dataset, and for a control what makes it comparable."""
    return f"{titled(dataset)}, {dataset.rule}" if dataset.rule else titled(dataset)
