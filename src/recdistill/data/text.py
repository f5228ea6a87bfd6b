"""What an item says of itself: one text per item, made of its attributes by a template.

A template is plain text with fields in braces. A part in brackets is left out where one of its fields is missing or
empty, so that ``{title}[. Brand: {brand}]`` serves items with and without a brand.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import polars as pl

from recdistill.errors import DataError, OptionError, choose

FIELDS: dict[str, str] = {
    "title": "{title}",
    "category": "Category: {category}",
    "categories": "Category: {categories}",
    "genres": "Genres: {genres}",
    "brand": "Brand: {brand}",
    "description": "{description}",
}
"""The attributes of the default template, in order; those that a table has and that are not wholly empty are used."""

TEXT = "text"
"""Column of finished texts: what a distilled dataset carries."""

MISSING = {"error": "stop", "blank": "take BLANK in its place"}
BLANK = "no text"

_PART = re.compile(r"\[(?P<optional>[^\[\]]*)\]|(?P<always>[^\[\]]+)")
_FIELD = re.compile(r"\{(\w*)\}")


@dataclass(frozen=True)
class Catalogue:
    """The items that a model may rank, with what is known of them.

    Args:
        items: columns ``item`` (1 to V), ``item_id``, and attributes; row ``i`` is item ``i + 1``.
        cache: folder for what is computed from the texts once; ``None`` keeps it in memory.
        finished: a column ``text`` holds the texts; no template is needed.
    """

    items: pl.DataFrame
    cache: Path | None = None
    finished: bool = False

    def __len__(self) -> int:
        """Return the number of items, V."""
        return self.items.height

    def texts(self, template: str | None = None, missing: str = "error") -> list[str]:
        """Return one text per item, see :func:`item_texts`."""
        return item_texts(self.items, f"{{{TEXT}}}" if self.finished else template, missing)


def default_template(items: pl.DataFrame) -> str:
    """Return the template that reads every known attribute of a table.

    Raises:
        DataError: there is none.
    """
    if TEXT in items.columns:
        return f"{{{TEXT}}}"
    used = [name for name in FIELDS if name in items.columns and items[name].drop_nulls().len()]
    if not used:
        raise DataError(
            f"the items have no attribute to make a text of, only {', '.join(items.columns)}",
            fix=f"give items with a column {', '.join(FIELDS)}, or a template that names another column",
        )
    first, *others = (FIELDS[name] for name in used)
    return f"[{first}]" + "".join(f"[. {part}]" for part in others)


def item_texts(items: pl.DataFrame, template: str | None = None, missing: str = "error") -> list[str]:
    """Return one text per item.

    Values of several parts, joined by ``|`` in the source, are told as ``a, b``; runs of white space become one blank.

    Args:
        items: column ``item_id`` and attributes.
        template: see the module; ``None`` for :func:`default_template`.
        missing: what to do with an item that has no text: ``error`` stops, ``blank`` takes :data:`BLANK`.

    Returns:
        One text per row, none of them empty.

    Raises:
        OptionError: the template is no template or names a column that is not there.
        DataError: an item has no text and ``missing`` is ``error``.
    """
    choose("missing_text", missing, MISSING)
    parsed = Template(default_template(items) if template is None else template)
    parsed.check(items.columns)
    columns = {name: _cleaned(items[name]) for name in parsed.fields}
    texts = [parsed.fill(row) for row in pl.DataFrame(columns).iter_rows(named=True)]
    empty = [row for row, text in enumerate(texts) if not text]
    if empty and missing == "error":
        told = "has" if len(empty) == 1 else f"and {len(empty) - 1:,} more of {len(texts):,} items have"
        raise DataError(
            f"item {items['item_id'][empty[0]]!r} {told} no text: {' and '.join(parsed.fields)} empty",
            fix=f"name other columns in the template (there are {', '.join(_others(items))}), leave such items out, "
            f"or set missing_text to blank, which reads them as {BLANK!r}",
            column=parsed.fields[0],
        )
    return [text or BLANK for text in texts]


@dataclass(frozen=True)
class Template:
    """A template, parsed.

    Raises:
        OptionError: brackets or braces do not match, or there is no field.
    """

    text: str

    def __post_init__(self) -> None:
        """Check that it can be read."""
        if "".join(part[0] for part in _PART.finditer(self.text)) != self.text:
            raise OptionError("template", self.text, fix="has a bracket without its partner; write [. Brand: {brand}]")
        if not self.fields or any(not name for name in self.fields):
            raise OptionError("template", self.text, fix="names no column; write one in braces, such as {title}")
        if re.search(r"[{}]", _FIELD.sub("", self.text)):
            raise OptionError("template", self.text, fix="has a brace without its partner; write {title}")

    @cached_property
    def fields(self) -> tuple[str, ...]:
        """The columns that it names, each once."""
        return tuple(dict.fromkeys(_FIELD.findall(self.text)))

    def check(self, columns: Sequence[str]) -> None:
        """Raise when it names a column that is not there.

        Raises:
            OptionError: naming the column, and the nearest one.
        """
        for name in self.fields:
            choose(f"template {self.text!r}", name, dict.fromkeys(columns))

    def fill(self, values: dict[str, str]) -> str:
        """Return the text for the values of its fields; empty where no field has one."""
        if not any(values[name] for name in self.fields):
            return ""
        parts = []
        for part in _PART.finditer(self.text):
            optional, always = part["optional"], part["always"]
            if always is not None:
                parts.append(_FIELD.sub(lambda found: values[found[1]], always))
            elif all(values[name] for name in _FIELD.findall(optional)):
                parts.append(_FIELD.sub(lambda found: values[found[1]], optional))
        return "".join(parts).lstrip(" .,;:").rstrip()


def _cleaned(column: pl.Series) -> pl.Series:
    """Return a column as text without nulls, several values told one after another."""
    text = column.cast(pl.List(pl.String)).list.join("|") if column.dtype == pl.List else column.cast(pl.String)
    return text.fill_null("").str.replace_all(r"\s*\|\s*", ", ").str.replace_all(r"\s+", " ").str.strip_chars()


def _others(items: pl.DataFrame) -> list[str]:
    return [name for name in items.columns if name not in ("item", "item_id")]
