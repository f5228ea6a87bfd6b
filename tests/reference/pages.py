"""A strict reader of the pages that the report writes: what is not closed, closed twice or named twice is an error."""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from html.parser import HTMLParser

VOID = {"meta", "link", "br", "hr", "img"}
NUMBERS = {
    "circle": ("cx", "cy"),
    "line": ("x1", "y1", "x2", "y2"),
    "rect": ("x", "y"),
    "text": ("x", "y"),
}
"""Attributes of a shape that are coordinates, x and y in turn."""


@dataclass
class Node:
    """An element.

    Attributes:
        name, attributes: of the element.
        children: elements and text, in order.
    """

    name: str
    attributes: dict[str, str | None]
    children: list["Node | str"] = field(default_factory=list)

    def walk(self) -> Iterator["Node"]:
        """Yield this element and all below it, in order."""
        yield self
        for child in self.children:
            if isinstance(child, Node):
                yield from child.walk()

    def find(self, name: str, **attributes: str) -> list["Node"]:
        """Return the elements of a name below this one, with such attributes."""
        return [
            node
            for node in self.walk()
            if node.name == name and all(node.attributes.get(key.rstrip("_")) == one for key, one in attributes.items())
        ]

    def text(self) -> str:
        """Return all text of this element; white space of every kind is one space."""
        parts = [child if isinstance(child, str) else child.text() for child in self.children]
        return " ".join(" ".join(parts).split())


class _Reader(HTMLParser):
    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.root = Node("document", {})
        self.open = [self.root]

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        names = [name for name, _ in attrs]
        assert len(names) == len(set(names)), f"<{tag}> names an attribute twice: {names}"
        node = Node(tag, dict(attrs))
        self.open[-1].children.append(node)
        if tag not in VOID:
            self.open.append(node)

    def handle_endtag(self, tag: str) -> None:
        node = self.open.pop()
        assert node.name == tag, f"<{node.name}> is closed by </{tag}>"

    def handle_data(self, data: str) -> None:
        self.open[-1].children.append(data)


def read_page(text: str) -> Node:
    """Return the elements of a page; elements must be closed in order, and identifiers stand once."""
    reader = _Reader()
    reader.feed(text)
    reader.close()
    assert [node.name for node in reader.open] == ["document"], f"not closed: {[node.name for node in reader.open]}"
    found = [node.attributes["id"] for node in reader.root.walk() if "id" in node.attributes]
    assert len(found) == len(set(found)), sorted(one for one in found if found.count(one) > 1)
    return reader.root


def coordinates(picture: Node) -> list[tuple[str, float, float]]:
    """Return the places that a picture draws at: the name of the shape, x and y."""
    found = []
    for node in picture.walk():
        values = [float(node.attributes[name] or "") for name in NUMBERS.get(node.name, ()) if name in node.attributes]
        found += [(node.name, *pair) for pair in zip(values[::2], values[1::2], strict=True)]
        if node.name in ("polyline", "polygon"):
            numbers = [float(number) for number in re.findall(r"[^\s,]+", node.attributes["points"] or "")]
            found += [(node.name, *pair) for pair in zip(numbers[::2], numbers[1::2], strict=True)]
        if node.name == "rect":
            x, y, width, height = (float(node.attributes[key] or "") for key in ("x", "y", "width", "height"))
            found.append(("rect", x + width, y + height))
    return found


def view_of(picture: Node) -> tuple[float, float]:
    """Return width and height of a picture's view, which begins at 0."""
    left, top, width, height = map(float, (picture.attributes["viewbox"] or "").split())
    assert left == top == 0
    return width, height
