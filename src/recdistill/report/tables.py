"""Tables: a caption, named columns, a header for each row, and values by which a script can sort them."""

from collections.abc import Sequence
from dataclasses import dataclass

from recdistill.certificate.record import Span
from recdistill.certificate.wording import decimals_of, digits, interval, percent, percent_interval
from recdistill.report.markup import Markup, Part, element


@dataclass(frozen=True)
class Cell:
    """What stands in a cell.

    Args:
        shown: what is read.
        value: by which it is sorted; numbers stand right. ``None`` sorts last.
    """

    shown: Part
    value: float | str | None = None


MISSING = Cell("\u2013")


def number_cell(value: float | None, significant: int = 3) -> Cell:
    """Return a number, or a dash."""
    return MISSING if value is None else Cell(digits(value, significant), value)


def count_cell(value: int | None) -> Cell:
    """Return a whole number, or a dash."""
    return MISSING if value is None else Cell(f"{value:,}", value)


def percent_cell(value: float | None) -> Cell:
    """Return a fraction in percent, or a dash."""
    return MISSING if value is None else Cell(percent(value), value)


def span_cell(span: Span | None) -> Cell:
    """Return a value with its interval, or a dash."""
    return MISSING if span is None else Cell(interval(span), span.value)


def span_cells(spans: Sequence[Span | None]) -> list[Cell]:
    """Return values with their intervals, all with as many decimals as most need."""
    known = sorted(decimals_of(span) for span in spans if span is not None)
    places = known[(len(known) - 1) // 2] if known else 0
    return [MISSING if span is None else Cell(interval(span, places), span.value) for span in spans]


def percent_span_cell(span: Span | None) -> Cell:
    """Return a fraction with its interval in percent, or a dash."""
    return MISSING if span is None else Cell(percent_interval(span), span.value)


def table(
    ident: str,
    caption: Part,
    columns: Sequence[str],
    rows: Sequence[Sequence[Cell | str]],
    *,
    marked: frozenset[int] = frozenset(),
) -> Markup:
    """Return a table that scrolls sideways where it is wider than the page; its first column names the rows.

    Args:
        ident: unique within the page.
        caption: what it shows.
        columns: names.
        rows: as many cells as columns each.
        marked: rows that stand out.

    Raises:
        ValueError: a row has another number of cells.
    """
    body = [_row(index, row, len(columns), index in marked) for index, row in enumerate(rows)]
    numeric = [_numeric(rows, column) for column in range(len(columns))]
    head = [
        element("th", name, scope="col", class_="n" if number else None)
        for name, number in zip(columns, numeric, strict=True)
    ]
    whole = element(
        "table",
        element("caption", caption, id=f"{ident}-caption"),
        element("thead", element("tr", head)),
        element("tbody", body),
        class_="sortable" if len(rows) > 1 else None,
    )
    return element("div", whole, class_="scroll", role="region", aria_labelledby=f"{ident}-caption", tabindex="0")


def _row(index: int, row: Sequence[Cell | str], columns: int, marked: bool) -> Markup:
    if len(row) != columns:
        raise ValueError(f"row {index} has {len(row)} cells, the table {columns} columns")
    cells = [cell if isinstance(cell, Cell) else Cell(cell, cell) for cell in row]
    parts = [element("th", cells[0].shown, scope="row", data_value=_key(cells[0]))]
    parts += [
        element("td", cell.shown, data_value=_key(cell), class_="n" if _is_number(cell) or cell is MISSING else None)
        for cell in cells[1:]
    ]
    return element("tr", parts, class_="marked" if marked else None)


def _key(cell: Cell) -> str | None:
    return None if cell.value is None else repr(float(cell.value)) if _is_number(cell) else str(cell.value)


def _is_number(cell: Cell) -> bool:
    return isinstance(cell.value, int | float)


def _numeric(rows: Sequence[Sequence[Cell | str]], column: int) -> bool:
    """Return whether a column holds numbers alone, and some."""
    cells = [row[column] for row in rows]
    known = [cell for cell in cells if not (isinstance(cell, Cell) and cell.value is None)]
    return bool(known) and all(isinstance(cell, Cell) and _is_number(cell) for cell in known)
