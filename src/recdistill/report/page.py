"""The page: one file without anything from outside, made of sections, a style sheet and a few lines of script."""

import hashlib
from base64 import b64encode
from collections.abc import Callable, Sequence
from importlib.resources import files
from pathlib import Path

from recdistill.certificate.headline import sentences
from recdistill.certificate.wording import PROTOCOLS
from recdistill.errors import InputError
from recdistill.report.markup import Markup, element, join
from recdistill.report.material import Material, gather
from recdistill.report.section import Section, paragraph
from recdistill.report.sections.cost import cost
from recdistill.report.sections.fidelity import fidelity
from recdistill.report.sections.method import method
from recdistill.report.sections.privacy import privacy
from recdistill.report.sections.scores import scores
from recdistill.report.sections.size import size
from recdistill.report.sections.tail import tail
from recdistill.report.sections.training import training
from recdistill.report.sections.users import users
from recdistill.report.sections.verdict import verdict
from recdistill.storage import write_text

SECTIONS: tuple[Callable[[Material], Section], ...] = (
    verdict,
    fidelity,
    size,
    training,
    cost,
    scores,
    tail,
    users,
    privacy,
    method,
)
ENDING = ".report.html"
"""Of the name of a report beside its dataset, when nothing else is asked for."""
LEADING = 2
"""Sentences of the headline that stand large."""


def write_report(out: Path, distilled: Path, prepared: Path | None = None, *, beside: Sequence[Path] = ()) -> Path:
    """Write the report of a certified dataset as one page, in one step; return its path.

    The page needs no network and no other file. With a prepared dataset it shows parts of real histories.

    Args:
        out: file to write; a file that is there is replaced.
        distilled: a distilled dataset with a certificate.
        prepared: the prepared dataset that it was made from, to set real users beside the rows.
        beside: other certified datasets of the same split, which stand beside it in size and accuracy.

    Raises:
        InputError: ``out`` is a folder.
        ArtifactError: something is missing or damaged, or does not belong to the rest.
        VerificationError: a certificate was edited, contradicts itself, or is of another dataset.
    """
    if out.is_dir():
        raise InputError(f"{out}: is a folder, and a file is to be written there; choose another name")
    text = page(gather(distilled, prepared, beside))
    out.parent.mkdir(parents=True, exist_ok=True)
    write_text(out, text)
    return out


def page(material: Material) -> str:
    """Return the whole page as text."""
    made = [section(material) for section in SECTIONS]
    style, script = _resource("style.css"), _resource("sort.js")
    head = element(
        "head",
        element("meta", charset="utf-8"),
        element("meta", http_equiv="Content-Security-Policy", content=_policy(style, script)),
        element("meta", name="viewport", content="width=device-width, initial-scale=1"),
        element("meta", name="color-scheme", content="light dark"),
        element("meta", name="referrer", content="no-referrer"),
        element("link", rel="icon", href="data:,"),
        element("title", f"{_title(material)}: report"),
        element("style", style),
    )
    body = element(
        "body",
        element("header", _heading(material), _contents(made)),
        element("main", [section.written(index) for index, section in enumerate(made, start=1)]),
        element("footer", paragraph(_footer(material))),
        element("script", script),
    )
    return f"<!DOCTYPE html>\n{element('html', head, body, lang='en')}\n"


def _resource(name: str) -> Markup:
    """Return a style sheet or script of the package; neither holds anything from data."""
    return Markup((files("recdistill.report") / name).read_text(encoding="utf-8"))


def _policy(style: str, script: str) -> str:
    """Return the rule that lets a browser load nothing, and apply and run only what stands here."""
    allowed = {"style-src": _digest(style), "script-src": _digest(script), "img-src": "data:"}
    rules = [f"{name} {value}" for name, value in allowed.items()]
    return "; ".join(["default-src 'none'", *rules, "base-uri 'none'", "form-action 'none'"])


def _digest(text: str) -> str:
    return f"'sha256-{b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


def _title(material: Material) -> str:
    subject = material.certificate.subject
    rows = f"{subject.num_rows:,} rows of {subject.length}" if subject.num_rows else "no rows"
    return f"{subject.method}, {rows}, from {subject.source.name}"


def _heading(material: Material) -> Markup:
    setting = material.certificate.setting
    told = sentences(material.certificate)
    measured = (
        f"{setting.metric}, {PROTOCOLS.get(setting.protocol, setting.protocol)}, {setting.events:,} test events; "
        f"item table of students: {setting.items}. Brackets hold 95 % intervals."
    )
    return join(
        paragraph("Report of a distilled dataset", class_="kind"),
        element("h1", _title(material)),
        paragraph(" ".join(told[:LEADING]), class_="headline"),
        [paragraph(sentence) for sentence in told[LEADING:]],
        paragraph(measured, class_="note"),
    )


def _contents(made: Sequence[Section]) -> Markup:
    links = [element("li", element("a", section.title, href=f"#{section.ident}")) for section in made]
    return element("nav", element("ol", links), aria_label="Contents")


def _footer(material: Material) -> str:
    version = material.certificate.versions.get("recdistill", "")
    return (
        f"Made by recdistill {version} from the certificate of {material.name}, written {material.certificate.created}."
    )
