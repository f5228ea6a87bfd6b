"""The parts of the page: sections, paragraphs, figures with captions, and lists of facts."""

from collections.abc import Sequence
from dataclasses import dataclass

from recdistill.report.markup import Markup, Part, element


@dataclass(frozen=True, kw_only=True)
class Section:
    """A numbered part of the page.

    Args:
        ident: of its heading; unique within the page.
        title: of its heading.
        parts: what it holds.
    """

    ident: str
    title: str
    parts: tuple[Part, ...]

    def written(self, index: int) -> Markup:
        """Return the section with its number."""
        heading = element("h2", element("span", f"{index}", class_="count"), " ", self.title, id=self.ident)
        return element("section", heading, *self.parts, aria_labelledby=self.ident)


def paragraph(*parts: Part, class_: str | None = None) -> Markup:
    """Return a paragraph."""
    return element("p", *parts, class_=class_)


def pictures(*parts: Part, caption: Part = None, wide: bool = False) -> Markup:
    """Return one figure of one or several pictures, side by side where there is room, with a caption below."""
    held = element("div", *parts, class_="panels" if wide else "panel")
    return element("figure", held, element("figcaption", caption) if caption else None)


def facts(pairs: Sequence[tuple[str, Part]]) -> Markup:
    """Return names and what they are."""
    return element("dl", [(element("dt", name), element("dd", value)) for name, value in pairs])


def bullets(items: Sequence[Part]) -> Markup:
    """Return a list."""
    return element("ul", [element("li", item) for item in items])
