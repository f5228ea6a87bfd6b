"""Elements of HTML and SVG as text. What comes from data is escaped by construction: only elements are taken as is."""

import html
import re
from collections.abc import Iterable
from typing import Any

VOID = frozenset({"meta", "link", "br", "hr", "img"})
"""Elements without content, which HTML does not close."""

DISTURBING = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff\u202a-\u202e\u2066-\u2069]")
"""Signs that cannot be written, and those that turn the direction of what follows them."""


class Markup(str):
    """Text that is markup already."""

    __slots__ = ()


Part = str | int | None | Iterable[Any]
"""What an element may hold: markup, text, a whole number, nothing, or several of these."""


def escape(text: str) -> str:
    """Return text in which nothing is read as markup, inside attributes neither; a number keeps its percent sign."""
    return html.escape(DISTURBING.sub("", text).replace(" %", "\u00a0%"))


def join(*parts: Part) -> Markup:
    """Return parts one after another; text is escaped."""
    found = []
    for part in parts:
        if isinstance(part, Markup):
            found.append(str(part))
        elif isinstance(part, str):
            found.append(escape(part))
        elif isinstance(part, int):
            found.append(str(part))
        elif part is not None:
            found.append(join(*part))
    return Markup("".join(found))


def element(name: str, /, *parts: Part, **attributes: str | float | bool | None) -> Markup:
    """Return an element.

    Args:
        name: of the element.
        parts: its content.
        attributes: ``class_`` is written ``class``, ``view_box`` as ``viewBox``, ``stroke_width`` as ``stroke-width``;
            ``None`` and ``False`` are left out, ``True`` is an attribute without a value.
    """
    written = "".join(_attribute(key, value) for key, value in attributes.items())
    if name in VOID:
        return Markup(f"<{name}{written}>")
    return Markup(f"<{name}{written}>{join(*parts)}</{name}>")


def _attribute(key: str, value: str | float | bool | None) -> str:
    if value is None or value is False:
        return ""
    name = "viewBox" if key == "view_box" else key.rstrip("_").replace("_", "-")
    if value is True:
        return f" {name}"
    text = number(value) if isinstance(value, int | float) else escape(value)
    return f' {name}="{text}"'


def number(value: float) -> str:
    """Return a coordinate with as many decimals as can be seen.

    Raises:
        ValueError: it is NaN or infinite.
    """
    if not abs(value) < float("inf"):
        raise ValueError(f"{value} is no coordinate")
    return f"{value:.2f}".rstrip("0").rstrip(".") or "0"
