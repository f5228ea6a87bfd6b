"""The page: whole, self-contained, escaped, and drawn from the certificate's own numbers, whatever is missing.

Proved with a strict reader of HTML on certificates of every shape. How a browser shows it is tested in
``test_report_browser.py``.
"""

import hashlib
import re
from base64 import b64encode
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from recdistill.certificate.headline import sentences
from recdistill.certificate.record import FILE, Certificate
from recdistill.certificate.wording import digits, interval
from recdistill.data.distilled import DistilledDataset
from recdistill.data.prepared import PrepareSpec, prepare
from recdistill.data.rows import KINDS, HardRows, LowRankRows
from recdistill.errors import ArtifactError, InputError, VerificationError
from recdistill.report.material import Material
from recdistill.report.page import SECTIONS, page, write_report
from recdistill.report.sections.cost import cost
from recdistill.storage import read_json, write_json
from reference.certificates import certificate
from reference.pages import Node, coordinates, read_page, view_of

Make = Callable[..., Path]
SHAPES: dict[str, dict[str, Any]] = {
    "usual": {},
    "one seed": {"seeds": 1},
    "no tau": {"tau": False},
    "not ranked": {"ranked": False},
    "many models": {"models": 40, "long_names": True, "used": 5},
    "two models": {"models": 2},
    "no controls": {"controls": 0, "predicted": False},
    "one control": {"controls": 1, "items": "given"},
    "missing": {"missing": 9, "used": 0},
    "a control wins": {"gain": -0.02},
}


@pytest.fixture
def made(certified: Make) -> DistilledDataset:
    """A distilled dataset of distributions."""
    return DistilledDataset.load(certified())


def checked(text: str) -> Node:
    """Return the elements of a page after checking what every page must keep."""
    root = read_page(text)
    assert text.startswith("<!DOCTYPE html>\n<html lang=")
    shown = re.sub(r"<style>.*?</style>|<script>.*?</script>", "", text, flags=re.DOTALL)
    assert not re.search(r"\b(nan|NaN|None|inf|Infinity|undefined)\b", shown)
    assert set(re.findall(r"https?:[^\s\"'<]*", text)) <= {"http://www.w3.org/2000/svg"}
    assert not any(re.match(r"on|style$|src$", name) for node in root.walk() for name in node.attributes)
    assert all(
        (link.attributes["href"] or "").startswith(("#", "data:")) for link in [*root.find("a"), *root.find("link")]
    )
    for picture in root.find("svg"):
        _check_picture(picture)
    headings = {node.attributes["id"] for node in root.walk() if "id" in node.attributes}
    for node in root.walk():
        for name in ("aria-labelledby", "href"):
            for part in (node.attributes.get(name) or "").removeprefix("data:,").replace("#", "").split():
                assert part in headings
    return root


def _check_picture(picture: Node) -> None:
    title, desc = picture.find("title")[0], picture.find("desc")[0]
    assert picture.attributes["role"] == "img"
    assert title.text()
    assert len(desc.text()) > len("All data.")
    width, height = view_of(picture)
    for shape, x, y in coordinates(picture):
        assert -0.01 <= x <= width + 0.01, (title.text(), shape, x, width)
        assert -0.01 <= y <= height + 0.01, (title.text(), shape, y, height)


@pytest.mark.parametrize("shape", SHAPES)
def test_every_shape_of_certificate_gives_a_whole_page(shape: str, made: DistilledDataset) -> None:
    found = certificate(**SHAPES[shape])
    root = checked(page(Material(name="made", certificate=found, made=made)))
    assert [head.text().split(" ", 1)[0] for head in root.find("h2")] == [str(i + 1) for i in range(len(SECTIONS))]
    told = root.text()
    for sentence in sentences(found):
        assert sentence in told
    (large,) = root.find("p", class_="headline")
    assert large.text() == " ".join(sentences(found)[:2])
    assert len(root.find("svg")) >= 6


@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.integers(0, 10_000),
    st.integers(2, 24),
    st.integers(1, 6),
    st.integers(0, 4),
    st.booleans(),
)
def test_any_figures_are_drawn_inside_their_pictures(
    made: DistilledDataset, draw: int, models: int, seeds: int, controls: int, long_names: bool
) -> None:
    found = certificate(draw=draw, models=models, seeds=seeds, controls=controls, long_names=long_names)
    checked(page(Material(name="made", certificate=found, made=made)))


@pytest.mark.parametrize("kind", sorted(KINDS))
@pytest.mark.parametrize("with_users", [False, True])
def test_every_kind_of_rows_is_shown(
    kind: str, with_users: bool, certified: Make, prepared: Path, tmp_path: Path
) -> None:
    out = write_report(tmp_path / "out" / "r.html", certified(kind), prepared if with_users else None)
    root = checked(out.read_text())
    told = root.text()
    if kind == "counts":
        assert "holds no rows that could be shown" in told
    else:
        assert len(root.find("ol", class_="positions")) == 3 * (2 if with_users else 1)
        assert ("The nearest real user has" in told) == with_users
        assert ("made with --prepared" in told) != with_users
        assert ("leave out --prepared to publish" in told) == with_users


def test_titles_from_data_are_text(certified: Make, prepared: Path, tmp_path: Path) -> None:
    text = write_report(tmp_path / "r.html", certified("hard"), prepared).read_text()
    root = checked(text)
    assert len(root.find("script")) == 1
    assert "&lt;script&gt;alert(&#x27;x&#x27;)&lt;/script&gt; &amp; &quot;friends&quot;" in text
    assert "alert" not in root.find("script")[0].text()


def test_hostile_names_in_the_certificate_are_text(made: DistilledDataset) -> None:
    found = certificate()
    judges = [judge.model_copy(update={"name": f"<b>{judge.name}"}) for judge in found.judges]
    datasets = [
        one.model_copy(
            update={
                "name": f"{one.name}<script>",
                "scores": tuple(score.model_copy(update={"model": f"<b>{score.model}"}) for score in one.scores),
            }
        )
        for one in found.datasets
    ]
    hostile = found.model_copy(update={"judges": tuple(judges), "datasets": tuple(datasets), "student": None})
    root = checked(page(Material(name='"><i>', certificate=hostile, made=made, prepared="</code>")))
    assert len(root.find("script")) == 1
    assert not root.find("i")
    assert "<b>sasrec_16" in root.text()


def test_rows_show_their_items_and_what_the_nearest_user_shares(
    certified: Make, prepared: Path, tmp_path: Path
) -> None:
    root = checked(write_report(tmp_path / "r.html", certified("hard"), prepared).read_text())
    first, second, third = (item for item in root.find("details") if item.text().startswith("Row"))
    assert [entry.text() for entry in first.find("ol")[0].find("li")] == [
        "Item 3 \u2713",
        "<script>alert('x')</script> & \"friends\" \u2713",
        "Item 9 \u2713",
        "Item 2 \u2713",
    ]
    assert "100 % of its likeliest items" in first.text()
    assert "The row stands in a real history as it is." in first.text()
    assert [entry.text() for entry in third.find("ol")[0].find("li")] == ["Item 4 \u2713"] * 3
    assert "3 events of 3" in third.text()
    assert len(second.find("ol")[0].find("li")) == 2


def test_only_what_is_shared_is_marked(certified: Make, prepared: Path, tmp_path: Path) -> None:
    folder = certified("hard", rows=HardRows(torch.tensor([[3, 2, 7]]), torch.tensor([3])))
    alone = checked(write_report(tmp_path / "alone.html", folder).read_text())
    assert "\u2713" not in alone.text()
    root = checked(write_report(tmp_path / "r.html", folder, prepared).read_text())
    row, history = ([entry.text() for entry in shown.find("li")] for shown in root.find("ol", class_="positions"))
    assert row == ["Item 3 \u2713", "Item 2 \u2713", "Item 7"]
    assert history == ["<script>alert('x')</script> & \"friends\"", "Item 9", "Item 2 \u2713"]
    assert "has 67 % of its likeliest items, among 4 training events" in root.text()
    assert "2 events of 4" in root.text()


def test_labels_stand_beside_the_items_they_follow(certified: Make, tmp_path: Path) -> None:
    root = checked(write_report(tmp_path / "r.html", certified("labelled")).read_text())
    (row, *_) = root.find("ol", class_="positions")
    assert all("\u2192" in entry.text() and "%" in entry.text() for entry in row.find("li"))


def test_long_rows_are_cut_and_folded(certified: Make, tmp_path: Path) -> None:
    generator = torch.Generator().manual_seed(0)
    rows = HardRows(torch.randint(1, 10, (40, 500), generator=generator), torch.full((40,), 500))
    root = checked(write_report(tmp_path / "r.html", certified("hard", rows=rows)).read_text())
    shown = root.find("ol", class_="positions")
    assert len(shown) == 12
    assert all(len(row.find("li")) == 100 for row in shown)
    assert shown[0].find("li")[-1].attributes["value"] == "500"
    assert "The first 12 of 40 rows" in root.text()
    assert "The first 400 positions are left out" in root.text()


def test_a_large_catalogue_and_many_rows_stay_small_on_paper(certified: Make, prepared: Path, tmp_path: Path) -> None:
    generator = torch.Generator().manual_seed(0)
    rows = LowRankRows(torch.randn(60, 200, 3, generator=generator), torch.randn(9, 3), torch.tensor([1.0]))
    folder = certified("low_rank", rows=rows, models=40, long_names=True, missing=200)
    assert write_report(tmp_path / "r.html", folder, prepared).stat().st_size < 2_000_000


def test_the_usual_page_is_small(certified: Make, prepared: Path, tmp_path: Path) -> None:
    assert write_report(tmp_path / "r.html", certified(), prepared).stat().st_size < 400_000


def test_the_policy_lets_in_what_stands_in_the_page_alone(certified: Make, tmp_path: Path) -> None:
    root = checked(write_report(tmp_path / "r.html", certified()).read_text())
    (policy,) = root.find("meta", **{"http-equiv": "Content-Security-Policy"})
    rules = dict(rule.strip().split(" ", 1) for rule in (policy.attributes["content"] or "").split(";"))
    assert rules["default-src"] == rules["base-uri"] == rules["form-action"] == "'none'"
    for name, rule in (("style", "style-src"), ("script", "script-src")):
        (node,) = root.find(name)
        digest = hashlib.sha256("".join(map(str, node.children)).encode()).digest()
        assert rules[rule] == f"'sha256-{b64encode(digest).decode()}'"


def test_tables_hold_the_numbers_of_the_certificate(made: DistilledDataset) -> None:
    found = certificate(draw=3)
    root = checked(page(Material(name="made", certificate=found, made=made)))
    datasets, models = (root.find("caption", id=f"tab-{name}-caption") for name in ("datasets", "models"))
    assert len(datasets) == len(models) == 1
    told = root.text()
    for dataset in found.datasets[1:]:
        fidelity = dataset.fidelity["all"]
        assert fidelity is not None
        assert fidelity.tau is not None
        assert interval(fidelity.tau) in told
        if dataset.gain is not None:
            assert interval(dataset.gain.difference) in told
    for judge in found.judges:
        assert judge.name in told
    assert found.checksum in told
    assert found.subject.source.hash in told
    assert "recdistill verify made PREPARED" in told


def test_the_scatter_says_and_shows_every_model(made: DistilledDataset) -> None:
    found = certificate()
    root = checked(page(Material(name="made", certificate=found, made=made)))
    (picture,) = root.find("svg", **{"aria-labelledby": "fig-fidelity-1-title fig-fidelity-1-desc"})
    desc = picture.find("desc")[0].text()
    shown = {node.text() for node in picture.find("text", class_="label")}
    for judge in found.judges:
        score = found.distilled.score(judge.name)
        assert score is not None
        assert f"{judge.name} " in desc
        assert digits(score.mean.value) in desc
        assert judge.name in shown
    assert len(picture.find("circle", class_="ring")) == 1 + sum(judge.used for judge in found.judges)  # and the legend


def test_curves_are_drawn_for_the_stated_student_first(made: DistilledDataset) -> None:
    found = certificate()
    root = checked(page(Material(name="made", certificate=found, made=made)))
    titles = [picture.find("title")[0].text() for picture in root.find("svg")]
    drawn = [title for title in titles if title.startswith("Validation NDCG@10")]
    assert found.student is not None
    assert drawn[0] == f"Validation NDCG@10 of {found.student.judge} while it is trained"
    assert len(drawn) == 5
    assert {"outer_loss while distilling", "valid_MRR@10 while distilling"} <= set(titles)


def test_what_was_foretold_is_set_beside_what_came(made: DistilledDataset) -> None:
    odd = {
        "stages": [{"stage": "teacher", "predicted_s": 60.0, "actual_s": 90.0}, {"stage": "x"}, "no stage"],
        "more": 1,
    }
    found = certificate().model_copy(update={"predicted": odd})
    told = checked(page(Material(name="made", certificate=found, made=made))).text()
    assert "teacher 60.0 s 90.0 s 1.5" in told
    for nothing in ({}, {"stages": None}, {"stages": []}, None):
        without = found.model_copy(update={"predicted": nothing})
        assert "foretold" not in cost(Material(name="made", certificate=without, made=made)).written(5)


def test_missing_trainings_are_named(made: DistilledDataset) -> None:
    found = certificate(missing=3)
    root = checked(page(Material(name="made", certificate=found, made=made)))
    assert [item.text() for item in root.find("li") if "seed 0" in item.text()] == [found.missing[0]]


def test_a_model_that_is_missing_on_a_dataset_is_a_dash(made: DistilledDataset) -> None:
    found = certificate()
    bare = found.distilled.model_copy(update={"scores": found.distilled.scores[2:]})
    half = found.model_copy(update={"datasets": (found.full, bare, *found.controls), "student": None})
    checked(page(Material(name="made", certificate=half, made=made)))
    none = bare.model_copy(
        update={"scores": (), "mean_ratio": {"all": None}, "fidelity": {"all": None}, "near": None, "items_held": {}}
    )
    empty = found.model_copy(update={"datasets": (found.full, none), "ceiling": {}, "near_users": None, "parts": {}})
    told = checked(page(Material(name="made", certificate=empty, made=made))).text()
    assert "there is nothing to compare yet" in told


def test_others_stand_beside(certified: Make, prepared: Path, tmp_path: Path) -> None:
    others = [certified(name="small", draw=4), certified("hard", name="few-seeds", seeds=2, items="given")]
    out = write_report(tmp_path / "r.html", certified(), prepared, beside=others)
    root = checked(out.read_text())
    (picture,) = root.find("svg", **{"aria-labelledby": "fig-size-title fig-size-desc"})
    assert {"small", "few-seeds", "distilled"} <= {node.text() for node in picture.find("text")}
    rows = [row.text() for row in root.find("tr") if row.text().startswith(("small td3", "few-seeds"))]
    assert rows[0].endswith("nothing")
    assert rows[1].endswith("item table and number of seeds")


def test_the_page_is_replaced_whole_or_not_at_all(certified: Make, tmp_path: Path) -> None:
    out, folder = tmp_path / "r.html", certified()
    out.write_text("old")
    before = sorted(tmp_path.iterdir())
    write_report(out, folder)
    assert out.read_text() != "old"
    assert sorted(tmp_path.iterdir()) == before
    written = out.read_text()
    (folder / FILE).unlink()
    with pytest.raises(ArtifactError, match=r"has no certificate\.json"):
        write_report(out, folder)
    assert out.read_text() == written


def test_a_report_is_the_same_each_time(certified: Make, prepared: Path, tmp_path: Path) -> None:
    folder = certified()
    first, second = (write_report(tmp_path / name, folder, prepared).read_text() for name in ("a.html", "b.html"))
    assert first == second


def test_what_does_not_belong_together_is_refused(certified: Make, prepared: Path, tmp_path: Path) -> None:
    folder, out = certified(), tmp_path / "r.html"
    with pytest.raises(InputError, match="is a folder"):
        write_report(tmp_path, folder)
    edited = read_json(folder / FILE)
    edited["cost"]["break_even"] = 1
    write_json(folder / FILE, edited)
    with pytest.raises(VerificationError, match="does not have the checksum"):
        write_report(out, folder)
    other = certified(name="other")
    read = Certificate.load(other)
    moved = read.subject.source.model_copy(update={"hash": "0" * 64})
    read.model_copy(update={"subject": read.subject.model_copy(update={"source": moved})}).save(other)
    with pytest.raises(VerificationError, match="the split"):
        write_report(out, other)
    assert not out.exists()


def test_only_what_was_measured_alike_stands_beside(certified: Make, tmp_path: Path) -> None:
    folder, other = certified(), certified(name="other")
    read = Certificate.load(other)
    read.model_copy(update={"setting": read.setting.model_copy(update={"metric": "HR@10"})}).save(other)
    with pytest.raises(ArtifactError, match=r"was measured by HR@10 \(full\), not by NDCG@10 \(full\)"):
        write_report(tmp_path / "r.html", folder, beside=[other])


def test_the_prepared_dataset_must_be_that_of_the_rows(certified: Make, tmp_path: Path) -> None:
    rows = [f"u{user},{item},{10 * user + item}" for user in range(5) for item in range(1, 7)]
    (tmp_path / "other.csv").write_text("\n".join(["user_id,item_id,timestamp", *rows]) + "\n")
    prepare(tmp_path / "other.csv", tmp_path / "other", PrepareSpec())
    with pytest.raises(ArtifactError, match="is of another split than the distilled dataset"):
        write_report(tmp_path / "r.html", certified(), tmp_path / "other")


def test_a_certificate_that_begins_otherwise_is_refused(certified: Make, tmp_path: Path) -> None:
    folder = certified()
    read = Certificate.load(folder)
    read.model_copy(update={"datasets": read.datasets[:1] + read.datasets[2:], "student": None}).save(folder)
    with pytest.raises(ArtifactError, match="begins with datasets of the kinds"):
        write_report(tmp_path / "r.html", folder)
