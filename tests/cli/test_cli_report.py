"""``recdistill report`` writes a page where it is told, says the headline, and refuses what does not belong together.

What stands on the page is tested in ``tests/report``; the figures here are invented.
"""

import shutil
from pathlib import Path
from typing import Any

import pytest
from command_line import Line, call, entries

from recdistill.certificate.headline import headline
from recdistill.certificate.record import FILE
from recdistill.storage import read_json, write_json
from reference.certificates import certificate, subject_of


@pytest.fixture
def made(line: Line, here: Path) -> Path:
    """A certified copy of a distilled dataset of the line, in the current folder."""
    return certified(line, "td3", here / "made")


def certified(line: Line, name: str, folder: Path, **options: Any) -> Path:
    """Return a copy of a distilled dataset of the line with an invented certificate."""
    shutil.copytree(line[name], folder)
    certificate(about=subject_of(folder), **options).save(folder)
    return folder


def test_the_page_lies_beside_the_folder_and_the_headline_is_printed(made: Path, here: Path) -> None:
    before = entries(made)
    result = call("report", "made")
    assert result.code == 0, result.err
    assert result.out.splitlines() == [
        headline(certificate(about=subject_of(made))),
        "report: made.report.html",
    ]
    assert (here / "made.report.html").read_text().startswith("<!DOCTYPE html>")
    assert entries(made) == before
    assert entries(here) == ["made", "made.report.html"]


def test_the_current_folder_has_its_page_beside_it(made: Path, here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(made)
    assert call("report", ".").code == 0
    assert entries(here) == ["made", "made.report.html"]


def test_everything_that_can_be_asked_is_on_the_page(line: Line, made: Path, here: Path) -> None:
    certified(line, "random", here / "one", draw=1)
    certified(line, "random_soft", here / "two", draw=2)
    asked = ("--prepared", line["prepared"], "--beside", "one", "two", "--out", "pages/all.html", "--json")
    result = call("report", "made", *asked)
    assert result.code == 0, result.err
    assert result.json == {
        "report": "pages/all.html",
        "headline": headline(certificate(about=subject_of(made))),
    }
    text = (here / "pages" / "all.html").read_text()
    assert "The nearest real user has" in text
    assert all(f'<th scope="row" data-value="{name}">{name}</th>' in text for name in ("made", "one", "two"))


def test_a_page_is_replaced_only_when_asked(made: Path, here: Path) -> None:
    (here / "page.html").write_text("mine")
    result = call("report", "made", "--out", "page.html")
    assert result.code == 2
    assert "page.html: exists already" in result.complaint
    assert "--overwrite" in result.complaint
    assert (here / "page.html").read_text() == "mine"
    assert call("report", "made", "--out", "page.html", "--overwrite").code == 0
    assert (here / "page.html").read_text() != "mine"


def test_a_certificate_that_was_edited_does_not_hold(made: Path, here: Path) -> None:
    edited = read_json(made / FILE)
    edited["datasets"][1]["mean_ratio"]["all"]["value"] = 1.0
    write_json(made / FILE, edited)
    result = call("report", "made")
    assert result.code == 3
    assert "checksum" in result.complaint
    assert entries(here) == ["made"]


@pytest.mark.parametrize(
    ("arguments", "pieces"),
    [
        (("report", "@td3"), ("has no certificate.json", "recdistill certify")),
        (("report", "@prepared"), ("is a prepared dataset", "DISTILLED must be a distilled dataset")),
        (("report", "nothing"), ("nothing: does not exist", "DISTILLED")),
        (("report", "made", "--prepared", "@other"), ("is of another split", "from which the distilled one was made")),
        (("report", "made", "--prepared", "made"), ("is a distilled dataset", "--prepared must be a prepared dataset")),
        (("report", "made", "--beside", "@td3"), ("has no certificate.json",)),
        (("report", "made", "--beside", "@prepared"), ("--beside must be a distilled dataset",)),
        (("report", "made", "--out", "made"), ("made: is a folder", "choose another name")),
        (("report",), ("report: DISTILLED is missing", "recdistill report --help")),
    ],
)
def test_mistakes_end_with_one_line_and_no_page(
    arguments: tuple[str, ...], pieces: tuple[str, ...], line: Line, made: Path, here: Path
) -> None:
    result = call(*(str(line[word[1:]]) if word.startswith("@") else word for word in arguments))
    assert result.code == 2
    assert all(piece in result.complaint for piece in pieces), result.complaint
    assert entries(here) == ["made"]
