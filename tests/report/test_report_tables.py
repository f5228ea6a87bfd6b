"""Tables have a caption, named columns and rows, and sort by values that are not what is shown."""

import pytest

from recdistill.certificate.record import Span
from recdistill.report.tables import (
    MISSING,
    Cell,
    count_cell,
    number_cell,
    percent_cell,
    percent_span_cell,
    span_cell,
    span_cells,
    table,
)
from reference.pages import read_page


def test_a_table_names_itself_its_columns_and_its_rows() -> None:
    made = read_page(table("t", "What <it> shows", ["model", "score"], [["a", number_cell(1.5)], ["b", MISSING]]))
    (region,) = made.find("div", class_="scroll")
    assert region.attributes["aria-labelledby"] == made.find("caption")[0].attributes["id"]
    assert made.find("caption")[0].text() == "What <it> shows"
    assert [head.text() for head in made.find("th", scope="col")] == ["model", "score"]
    assert [head.text() for head in made.find("th", scope="row")] == ["a", "b"]
    assert made.find("table")[0].attributes["class"] == "sortable"


def test_cells_carry_the_value_by_which_they_are_sorted() -> None:
    cells = [number_cell(0.5), count_cell(12_345), percent_cell(0.5), Cell("1 MB", 1e6), MISSING, number_cell(None)]
    made = read_page(table("t", "c", ["row", *"abcdef"], [["x", *cells], ["y", *cells]]))
    values = [cell.attributes.get("data-value") for cell in made.find("tr")[1].find("td")]
    assert values == ["0.5", "12345.0", "0.5", "1000000.0", None, None]


def test_numbers_stand_right_and_words_left() -> None:
    made = read_page(table("t", "c", ["row", "n", "word"], [["x", number_cell(2.0), "yes"], ["y", MISSING, "no"]]))
    assert [head.attributes.get("class") for head in made.find("th", scope="col")] == [None, "n", None]
    assert [cell.attributes.get("class") for cell in made.find("td")] == ["n", None, "n", None]


def test_intervals_of_a_table_share_their_decimals() -> None:
    spans = [Span(value=0.1042, low=0.0961, high=0.1131), None, Span(value=0.0438, low=0.0421, high=0.0461)]
    cells = span_cells([*spans, spans[0]])
    assert [cell.shown for cell in cells] == [
        "0.104 [0.096, 0.113]",
        "\u2013",
        "0.044 [0.042, 0.046]",
        "0.104 [0.096, 0.113]",
    ]
    assert [cell.value for cell in cells] == [0.1042, None, 0.0438, 0.1042]


def test_missing_values_are_a_dash() -> None:
    assert span_cell(None) is percent_span_cell(None) is percent_cell(None) is count_cell(None) is MISSING


def test_a_single_row_is_not_sorted() -> None:
    assert "sortable" not in table("t", "c", ["a"], [["x"]])


def test_rows_of_another_width_are_refused() -> None:
    with pytest.raises(ValueError, match="row 1 has 1 cells, the table 2 columns"):
        table("t", "c", ["a", "b"], [["x", "y"], ["z"]])
