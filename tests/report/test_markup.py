"""Markup is escaped by construction: whatever text an element holds, a strict reader gets it back, and nothing more."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from recdistill.report.markup import Markup, element, escape, join, number
from reference.pages import read_page

TEXT = st.text(st.characters(exclude_categories=("Cs", "Cc", "Cf"), exclude_characters="\u00a0"))


@given(TEXT, TEXT)
def test_text_comes_back_as_it_was(inside: str, attribute: str) -> None:
    root = read_page(element("p", inside, title=attribute))
    assert [child.name for child in root.children if not isinstance(child, str)] == ["p"]
    found = root.find("p")[0]
    assert "".join(map(str, found.children)).replace("\u00a0%", " %") == inside
    assert (found.attributes["title"] or "").replace("\u00a0%", " %") == attribute


def test_a_script_in_a_title_is_text() -> None:
    title = "<script>alert(\"1\")</script><img src=x onerror='alert(2)'>"
    root = read_page(element("td", title, title=title))
    assert not root.find("script")
    assert not root.find("img")
    assert root.text() == title


def test_control_signs_and_turns_of_direction_are_left_out() -> None:
    assert escape("a\x00b\u202ec\ud800d\x1be\u2066f") == "abcdef"
    assert escape("a\u3000b\u200dc\n") == "a\u3000b\u200dc\n"  # spaces and joiners of other scripts stay


def test_a_number_keeps_its_percent_sign() -> None:
    assert escape("71 % [68, 74]") == "71\u00a0% [68, 74]"


def test_parts_are_joined_at_any_depth() -> None:
    parts = ["a", None, [element("b", 1), (x for x in ("<", None))]]
    assert join(*parts) == "a<b>1</b>&lt;"
    assert isinstance(join(*parts), Markup)


def test_attributes_are_named_as_html_names_them() -> None:
    made = element("line", class_="x", data_value="1", view_box="0 0 1 1", hidden=True, open=False, id=None, x1=0.5)
    assert made == '<line class="x" data-value="1" viewBox="0 0 1 1" hidden x1="0.5"></line>'
    assert element("br") == "<br>"


@pytest.mark.parametrize(
    ("value", "text"), [(1.0, "1"), (0.125, "0.12"), (-0.001, "-0"), (300, "300"), (1e7, "10000000")]
)
def test_coordinates_have_two_decimals(value: float, text: str) -> None:
    assert float(number(value)) == float(text)
    assert "e" not in number(value)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_what_is_no_coordinate_is_refused(value: float) -> None:
    with pytest.raises(ValueError, match="is no coordinate"):
        number(value)
