"""The page in a real browser: it loads in silence, fits any width, sorts, and draws what can be seen.

Chromium is driven without a window. Where there is none, these tests are skipped; ``.ci/run`` installs it. How long
the page takes is printed, and bounded only where something must be wrong.
"""

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from time import monotonic

import pytest

from recdistill.report.page import write_report
from reference.browser import Tab, browser, executable

Make = Callable[..., Path]
PROGRAM = executable()
pytestmark = pytest.mark.skipif(PROGRAM is None, reason="no chromium: install it with apt-get install chromium")
WIDTHS = (360, 768, 1280)
SLOW = 5.0

CLIPPED = """[...document.querySelectorAll("svg")].flatMap(svg => {
  const view = svg.getBoundingClientRect();
  return [...svg.querySelectorAll("text")].filter(text => {
    const box = text.getBoundingClientRect();
    return box.width === 0 || box.left < view.left - 1 || box.right > view.right + 1
      || box.top < view.top - 1 || box.bottom > view.bottom + 1;
  }).map(text => svg.querySelector("title").textContent + ": " + text.textContent);
})"""
"""Texts of figures that are cut off."""
COVERED = """[...document.querySelectorAll("svg")].flatMap(svg => {
  const texts = [...svg.querySelectorAll("text")], boxes = texts.map(text => text.getBoundingClientRect());
  const found = [];
  for (let i = 0; i < texts.length; i++) for (let j = i + 1; j < texts.length; j++) {
    const [a, b] = [boxes[i], boxes[j]];
    const wide = Math.min(a.right, b.right) - Math.max(a.left, b.left);
    const high = Math.min(a.bottom, b.bottom) - Math.max(a.top, b.top);
    if (wide > 1 && high > 3) found.push(`${texts[i].textContent} | ${texts[j].textContent}`);
  }
  return found;
})"""
"""Texts of figures that cover each other, by more than the empty edge of a line of text."""
COLUMN = """[...document.querySelectorAll("#TABLE tbody tr")].map(row => row.cells[COLUMN].dataset.value ?? null)"""


@pytest.fixture(scope="module")
def tab() -> Iterator[Tab]:
    assert PROGRAM is not None
    with browser(PROGRAM) as found:
        yield found


@pytest.fixture(scope="module")
def written(certified: Make, prepared: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The page of a usual certificate, with others beside it."""
    others = [certified(name="another-dataset", draw=4), certified("hard", name="hard-rows", seeds=2)]
    out = tmp_path_factory.mktemp("pages") / "usual.html"
    return write_report(out, certified("labelled"), prepared, beside=others)


@pytest.fixture(scope="module")
def crowded(certified: Make, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A page with many models that have long names."""
    out = tmp_path_factory.mktemp("pages") / "crowded.html"
    return write_report(out, certified(models=40, long_names=True, missing=5, seeds=1))


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_page_loads_in_silence_and_asks_for_nothing(tab: Tab, written: Path, scheme: str) -> None:
    start = monotonic()
    tab.open(written, prefers_color_scheme=scheme)
    seconds = monotonic() - start
    print(f"{os.path.getsize(written):,} bytes load in {seconds:.2f} s")
    assert tab.complaints == []
    assert tab.requests == [written.resolve().as_uri()]
    assert seconds < SLOW


def test_the_policy_stops_what_does_not_belong_to_the_page(tab: Tab, written: Path, tmp_path: Path) -> None:
    changed = tmp_path / "changed.html"
    changed.write_text(written.read_text().replace("</main>", "<script>document.title = 'changed'</script></main>"))
    tab.open(changed)
    assert tab.run("document.title") != "changed"
    assert any("Content Security Policy" in complaint for complaint in tab.complaints)


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("page", ["written", "crowded"])
def test_nothing_is_wider_than_the_window(tab: Tab, page: str, width: int, request: pytest.FixtureRequest) -> None:
    tab.open(request.getfixturevalue(page), width=width)
    tab.run("document.querySelectorAll('details').forEach(one => one.open = true)")
    assert tab.run("document.documentElement.scrollWidth") <= width
    beyond = f"""[...document.querySelectorAll("body *")].filter(one => !one.closest(".scroll, svg, .positions")
      && one.getBoundingClientRect().right > {width} + 0.5).map(one => one.outerHTML.slice(0, 80))"""
    assert tab.run(beyond) == []


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("page", ["written", "crowded"])
def test_figures_are_seen_whole(tab: Tab, page: str, width: int, request: pytest.FixtureRequest) -> None:
    tab.open(request.getfixturevalue(page), width=width)
    sizes = tab.run("[...document.querySelectorAll('svg')].map(svg => svg.getBoundingClientRect().toJSON())")
    assert len(sizes) >= 10
    assert all(100 < size["width"] <= width and size["height"] > 50 for size in sizes)
    assert tab.run(CLIPPED) == []
    assert tab.run(COVERED) == []


def test_text_of_figures_can_be_read_on_a_phone(tab: Tab, written: Path) -> None:
    tab.open(written, width=360)
    scales = tab.run("[...document.querySelectorAll('svg')].map(svg => svg.getScreenCTM().a)")
    assert min(scales) * 11 > 8.5


def test_tables_sort_by_their_values_both_ways(tab: Tab, written: Path) -> None:
    tab.open(written)
    assert tab.run("document.querySelectorAll('th button').length") > 30
    # the column of all data in the table of models: the fourth
    find = "document.getElementById('tab-models-caption').closest('table')"
    tab.run(f"{find}.id = 'sorted'")
    values = COLUMN.replace("TABLE", "sorted").replace("COLUMN", "3")
    head = f"{find}.tHead.rows[0].cells[3]"
    before = tab.run(values)
    tab.run(f"{head}.querySelector('button').click()")
    assert tab.run(f"{head}.getAttribute('aria-sort')") == "descending"
    assert tab.run(values) == sorted(before, key=float, reverse=True) != before
    tab.run(f"{head}.querySelector('button').click()")
    assert tab.run(f"{head}.getAttribute('aria-sort')") == "ascending"
    assert tab.run(values) == sorted(before, key=float)
    tab.run(f"{find}.tHead.rows[0].cells[0].querySelector('button').click()")
    assert tab.run(f"{head}.getAttribute('aria-sort')") is None
    names = tab.run(COLUMN.replace("TABLE", "sorted").replace("COLUMN", "0"))
    assert names == sorted(names, key=str.lower)


def test_missing_values_sort_last_both_ways(tab: Tab, written: Path) -> None:
    tab.open(written)
    find = "document.getElementById('tab-membership-caption').closest('table')"
    tab.run(f"{find}.id = 'sorted'")
    for _ in range(2):
        tab.run(f"{find}.tHead.rows[0].cells[1].querySelector('button').click()")
        values = tab.run(COLUMN.replace("TABLE", "sorted").replace("COLUMN", "1"))
        assert values[-1] is None  # the model that only counts
        assert None not in values[:-1]


def test_buttons_can_be_reached_and_pressed_by_keyboard(tab: Tab, written: Path) -> None:
    tab.open(written)
    tab.run("document.querySelector('th button').focus()")
    assert tab.run("document.activeElement.tagName") == "BUTTON"
    for kind in ("keyDown", "keyUp"):
        tab.call("Input.dispatchKeyEvent", type=kind, key="Enter", code="Enter", windowsVirtualKeyCode=13, text="\r")
    assert tab.run("document.querySelector('th[aria-sort]') !== null")


def test_schemes_are_light_and_dark(tab: Tab, written: Path) -> None:
    found = {}
    for scheme in ("light", "dark"):
        tab.open(written, prefers_color_scheme=scheme)
        found[scheme] = tab.run("(s => [s.backgroundColor, s.color])(getComputedStyle(document.body))")
    assert found["light"] == ["rgb(253, 253, 251)", "rgb(28, 29, 31)"]
    assert found["dark"] == ["rgb(22, 23, 26)", "rgb(232, 232, 228)"]


def test_without_script_everything_stands(tab: Tab, written: Path) -> None:
    tab.open(written)
    with_script = tab.run("document.body.innerText.length")
    tab.call("Emulation.setScriptExecutionDisabled", value=True)
    try:
        tab.open(written)
        assert tab.run("document.querySelectorAll('th button').length") == 0
        assert tab.run("document.body.innerText.length") == with_script
    finally:
        tab.call("Emulation.setScriptExecutionDisabled", value=False)


def test_figures_are_named_for_those_who_hear_them(tab: Tab, written: Path) -> None:
    tab.open(written)
    tab.call("Accessibility.enable")
    nodes = tab.call("Accessibility.getFullAXTree")["nodes"]
    pictures = [node["name"]["value"] for node in nodes if node.get("role", {}).get("value") in ("image", "img")]
    assert len(pictures) == tab.run("document.querySelectorAll('svg').length")
    assert all(len(name) > 30 for name in pictures)


def test_it_prints_on_white(tab: Tab, written: Path) -> None:
    tab.open(written, prefers_color_scheme="dark")
    tab.call("Emulation.setEmulatedMedia", media="print")
    assert tab.run("getComputedStyle(document.body).getPropertyValue('--paper').trim()") == "#fff"
    assert tab.run("getComputedStyle(document.querySelector('.scroll')).overflowX") == "visible"
