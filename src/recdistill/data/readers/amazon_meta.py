"""Item text of the Amazon releases: ``meta_CATEGORY.json.gz`` and its kin, beside ratings or reviews.

2014 writes Python literals, 2018 and 2023 JSON. Kept are title, brand (store in 2023), category and
description. A title that holds markup (a scraping fault of 2018) counts as missing.
"""

import ast
import html
import json
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import polars as pl

from recdistill.data.readers.base import files_in
from recdistill.data.readers.text import stream_lines
from recdistill.errors import DataError

SCHEMA = dict.fromkeys(("item_id", "title", "brand", "category", "description"), pl.String())
_ENDINGS = re.compile(r"(\.(jsonl?|csv|txt|gz))+$", re.IGNORECASE)
_MARKUP = re.compile(r"<\s*/?\s*[a-zA-Z!][^>]*|getTime\(")


def category_of(path: Path) -> str:
    """Return the category in the name of a ratings, reviews or metadata file, in lower case."""
    stem = _ENDINGS.sub("", path.name)
    return re.sub(r"^(reviews|ratings|meta)_|_\d+$", "", stem).lower()


def is_meta(path: Path) -> bool:
    """Return whether a file name is that of a metadata file."""
    return path.name.startswith("meta_") and ".json" in path.name


def meta_files(path: Path) -> list[Path]:
    """Return the metadata file of the same category beside ``path``, if there is one."""
    return files_in(path.parent, lambda f: is_meta(f) and category_of(f) == category_of(path))[:1]


def read_meta(path: Path) -> pl.DataFrame:
    """Return ``item_id, title, brand, category, description`` of a metadata file.

    Raises:
        DataError: a line is neither JSON nor a Python literal, or names no item.
    """
    rows = []
    for number, line in stream_lines(path):
        entry = _parse(line, path, number)
        item = entry.get("parent_asin") or entry.get("asin")
        if not isinstance(item, str) or not item:
            fix = "give every line an 'asin' or 'parent_asin'"
            raise DataError("the line names no item", fix=fix, path=path, line=number, column="asin")
        category = entry.get("category") or entry.get("categories")
        brand = entry.get("brand") or entry.get("store")
        rows.append(
            (
                item,
                _title(entry.get("title")),
                _text(brand),
                _joined(category),
                _text(entry.get("description")),
            )
        )
    return pl.DataFrame(rows, schema=SCHEMA, orient="row")


def _parse(line: bytes, path: Path, number: int) -> dict[str, Any]:
    """Return one line as a dict."""
    text = line.decode().strip()
    entry = None
    try:
        entry = json.loads(text)
    except json.JSONDecodeError as error:
        try:
            entry = ast.literal_eval(text)
        except (ValueError, SyntaxError, MemoryError, RecursionError):
            raise malformed(error, path, number) from None
    if not isinstance(entry, dict):
        fix = "write one JSON object a line"
        raise DataError(f"{text[:40]!r} is not a JSON object", fix=fix, path=path, line=number, column=1)
    return entry


def malformed(error: json.JSONDecodeError, path: Path, number: int) -> DataError:
    """Return the error for a line that is not JSON."""
    near = error.doc[max(error.pos - 10, 0) : error.pos + 20].strip()
    fix = "correct or remove the line"
    return DataError(f"not JSON ({error.msg} near {near!r})", fix=fix, path=path, line=number, column=error.colno)


def _title(value: object) -> str | None:
    """Return a title without entities, or None when it is missing or markup."""
    text = _text(value)
    return None if text is None or _MARKUP.search(text) else html.unescape(text)


def _text(value: object) -> str | None:
    """Return text, or the non-empty texts of a list joined by a blank."""
    parts = value if isinstance(value, list) else [value]
    joined = " ".join(part.strip() for part in parts if isinstance(part, str) and part.strip())
    return joined or None


def _joined(value: object) -> str | None:
    """Return a list of categories, or the first of several lists, joined by ``|``."""
    if isinstance(value, list) and value and isinstance(value[0], list):
        value = value[0]
    parts: Iterable[object] = value if isinstance(value, list) else [value]
    return "|".join(part for part in parts if isinstance(part, str) and part) or None
