"""What may be concluded, in plain words."""

from recdistill.report.conclusions import Conclusion, Finding, conclusions, warnings_of
from recdistill.report.markup import Markup, element, join
from recdistill.report.material import Material
from recdistill.report.section import Section, bullets, paragraph


def verdict(material: Material) -> Section:
    """Return questions with answers, after what a reader must know first."""
    warnings = warnings_of(material.certificate)
    told = [paragraph("Before anything else:"), bullets(warnings)] if warnings else []
    rule = (
        "An answer is yes or no only where its interval lies wholly on one side; open means that these figures do not "
        "decide it. Intervals are of 95 %."
    )
    rows = [_answer(conclusion) for conclusion in conclusions(material.certificate)]
    listed = element("dl", rows, class_="verdict")
    return Section(
        ident="verdict", title="What may be concluded", parts=(*told, listed, paragraph(rule, class_="note"))
    )


def _answer(conclusion: Conclusion) -> Markup:
    found = [element("dd", _finding(finding)) for finding in conclusion.findings]
    return element("div", element("dt", conclusion.question), found, class_="answered")


def _finding(finding: Finding) -> Markup:
    answer = element("b", finding.answer, class_=f"answer {finding.answer}")
    reason = f"{finding.about}: {finding.reason}" if finding.about else finding.reason
    return join(answer, " ", element("span", reason))
