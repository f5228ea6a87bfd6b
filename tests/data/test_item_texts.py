"""Texts of items: templates against known answers, and one line for every mistake."""

import polars as pl
import pytest

from recdistill.data.text import BLANK, Catalogue, Template, default_template, item_texts
from recdistill.errors import DataError, OptionError

ITEMS = pl.DataFrame(
    {
        "item": [1, 2, 3],
        "item_id": ["a", "b", "c"],
        "title": ["  Anno\n2070 ", None, "Ma|jong"],
        "category": ["Games|PC", "Toys", ""],
        "brand": [None, "Acme", None],
    }
)


def test_the_default_reads_every_attribute_that_is_there() -> None:
    assert default_template(ITEMS) == "[{title}][. Category: {category}][. Brand: {brand}]"
    assert item_texts(ITEMS) == ["Anno 2070. Category: Games, PC", "Category: Toys. Brand: Acme", "Ma, jong"]


def test_an_attribute_that_is_empty_throughout_is_not_read() -> None:
    assert default_template(ITEMS.with_columns(pl.lit(None).alias("brand"))) == "[{title}][. Category: {category}]"


def test_a_template_of_ones_own() -> None:
    assert item_texts(ITEMS, "buy {title}[ by {brand}]!", missing="blank") == [
        "buy Anno 2070!",
        "buy  by Acme!",
        "buy Ma, jong!",
    ]


def test_a_part_is_left_out_where_one_of_its_fields_is_missing() -> None:
    assert item_texts(ITEMS, "[{title} of {brand}]{category}", missing="blank") == ["Games, PC", "Toys", BLANK]


def test_lists_and_numbers_become_text() -> None:
    items = pl.DataFrame({"item_id": ["a"], "title": [["x", "y"]], "year": [1997]})
    assert item_texts(items, "{title} ({year})") == ["x, y (1997)"]


def test_finished_texts_are_read_as_they_are() -> None:
    items = ITEMS.with_columns(pl.Series("text", ["one", "two", "three"]))
    assert Catalogue(items, finished=True).texts("{title}") == ["one", "two", "three"]
    assert Catalogue(items).texts() == ["one", "two", "three"]
    assert Catalogue(items).texts("{category}", "blank") == ["Games, PC", "Toys", BLANK]
    assert len(Catalogue(items)) == 3


def test_an_item_without_a_text_is_named() -> None:
    with pytest.raises(DataError, match=r"column 'title': item 'b' has no text: title empty; name other columns"):
        item_texts(ITEMS, "{title}")
    more = ITEMS.with_columns(pl.lit("").alias("title"))
    with pytest.raises(DataError, match=r"item 'a' and 2 more of 3 items have no text.*category, brand"):
        item_texts(more, "{title}")
    assert item_texts(ITEMS, "{title}", missing="blank")[1] == BLANK


def test_items_without_attributes_have_no_template() -> None:
    with pytest.raises(DataError, match=r"no attribute to make a text of, only item, item_id"):
        item_texts(ITEMS.select("item", "item_id"))


@pytest.mark.parametrize(
    ("template", "told"),
    [
        ("{titel}", r"did you mean 'title'.*item_id, title"),
        ("plain", "names no column"),
        ("{}", "names no column"),
        ("{title", "names no column"),
        ("{title} }", "brace without its partner"),
        ("{title}[. {brand}", "bracket without its partner"),
        ("{title}]", "bracket without its partner"),
        ("[{title}[x]]", "bracket without its partner"),
        ("", "names no column"),
    ],
)
def test_a_broken_template_is_refused(template: str, told: str) -> None:
    with pytest.raises(OptionError, match=told):
        item_texts(ITEMS, template)


def test_an_unknown_rule_for_missing_texts_is_refused() -> None:
    with pytest.raises(OptionError, match=r"missing_text.*choose from error, blank"):
        item_texts(ITEMS, missing="skip")


def test_fields_are_named_once() -> None:
    assert Template("{a} {b}[ {a}]").fields == ("a", "b")
