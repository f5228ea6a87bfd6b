"""How everything was measured, and how to check it."""

from collections.abc import Mapping
from typing import Any

from recdistill.certificate.record import Certificate, Student
from recdistill.certificate.wording import PROTOCOLS, bytes_text, counted, interval, listed
from recdistill.report.markup import Markup, Part, element
from recdistill.report.material import Material
from recdistill.report.section import Section, facts, paragraph


def method(material: Material) -> Section:
    """Return setting, sources, versions, machine, what is missing and the command that checks all of it."""
    certificate = material.certificate
    command = f"recdistill verify {material.name} {material.prepared or 'PREPARED'}"
    check = paragraph("Check it again, by training the stated student once more:")
    parts: list[Part] = [
        check,
        paragraph(element("code", command)),
        facts([*_subject(material), *_setting(certificate), *_surroundings(certificate)]),
    ]
    if certificate.missing:
        told = f"Not finished: {counted(len(certificate.missing), 'training')}"
        parts.append(folded(told, [element("li", name) for name in certificate.missing]))
    hyper = [(name, shown(value)) for name, value in sorted(material.made.manifest.parameters.items())]
    if hyper:
        parts.append(element("details", element("summary", "Parameters of the method"), facts(hyper)))
    return Section(ident="method", title="How it was measured", parts=tuple(parts))


def folded(summary: str, items: Part) -> Markup:
    """Return a list that opens when asked."""
    return element("details", element("summary", summary), element("ul", items))


def _subject(material: Material) -> list[tuple[str, Part]]:
    subject = material.certificate.subject
    source = subject.source
    return [
        ("distilled dataset", f"{subject.method}, {subject.num_rows:,} rows of {subject.length}, seed {subject.seed}"),
        ("bytes", f"{subject.bytes:,}, of these the item table {subject.item_factor_bytes:,}"),
        (
            "made from",
            f"{source.name}: {source.users:,} users, {source.items:,} items, {source.train_interactions:,} training "
            f"events, {bytes_text(source.train_bytes)} as Parquet",
        ),
        ("split", element("code", source.hash)),
        ("content", element("code", subject.content)),
    ]


def _setting(certificate: Certificate) -> list[tuple[str, Part]]:
    setting = certificate.setting
    return [
        ("metric", f"{setting.metric}, {PROTOCOLS.get(setting.protocol, setting.protocol)}, {setting.events:,} events"),
        ("item table of students", _items(setting.items)),
        ("seeds", ", ".join(map(str, setting.seeds))),
        ("longest history", f"{setting.max_seq_len} items"),
        ("training recipe", shown(setting.recipe)),
        ("threads", str(setting.threads)),
        ("models", ", ".join(judge.name for judge in certificate.judges)),
        ("held by the method", listed([j.name for j in certificate.judges if j.used]) or "none"),
        ("stated student", _student(certificate.student)),
    ]


def _items(items: str) -> str:
    told = {
        "random": "learnt from the rows alone",
        "given": "starts from the table that the dataset ships",
        "frozen": "the table that the dataset ships, not trained",
    }
    return f"{items}: {told[items]}" if items in told else items


def _student(student: Student | None) -> str:
    if student is None:
        return "none: fewer than two seeds give no interval"
    return f"{student.judge}: one more training must score {interval(student.interval)}"


def _surroundings(certificate: Certificate) -> list[tuple[str, Part]]:
    return [
        ("machine", shown(certificate.machine) or "unknown"),
        ("versions", shown(certificate.versions) or "unknown"),
        ("written", certificate.created),
        ("missing", counted(len(certificate.missing), "training") if certificate.missing else "nothing"),
        ("checksum", element("code", certificate.checksum)),
    ]


def shown(value: Any) -> str:
    """Return a setting as a person reads it."""
    if isinstance(value, Mapping):
        return ", ".join(f"{name} {shown(entry)}" for name, entry in value.items())
    if isinstance(value, list | tuple):
        return ", ".join(shown(entry) for entry in value)
    if isinstance(value, bool) or value is None:
        return {True: "yes", False: "no", None: "none"}[value]
    return f"{value:g}" if isinstance(value, float) else str(value)
