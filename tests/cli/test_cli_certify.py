"""Certify and verify through the command line: what they print, write, keep and refuse, and their exit codes.

What a certificate states is tested in tests/certificate, the report in tests/report.
Not proved: trainings on a Ray cluster, see tests/study/test_cluster.py.
"""

import json
import shutil
from pathlib import Path

import pytest
from command_line import Line, Result, call, entries

from recdistill.certificate.record import FILE, Certificate

TINY = {"embedding_dim": 8, "num_blocks": 1, "num_heads": 1, "inner_dim": 8}
PANEL = [
    {"name": "small", "model": "sasrec", "config": TINY},
    {"name": "counts", "model": "popularity"},
]
QUICK = ("--seeds", "2", "--recipe", "epochs=1", "--workers", "1", "--controls", "random")


def copy(line: Line, name: str, here: Path) -> Path:
    return shutil.copytree(line[name], here / name)


def certify(line: Line, here: Path, *more: object, models: list[dict] = PANEL) -> Result:
    (here / "panel.json").write_text(json.dumps(models))
    given = ("--study", here / "study", "--models", here / "panel.json", *QUICK)
    return call("certify", here / "td3", line["prepared"], *given, *more)


@pytest.fixture(scope="module")
def certified(line: Line, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which the distilled dataset has a certificate and a report."""
    folder = tmp_path_factory.mktemp("certified")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RECDISTILL_CACHE", str(line["cache"]))
        copy(line, "td3", folder)
        result = certify(line, folder)
        assert result.code == 0, result.err
    (folder / "printed.txt").write_text(result.out)
    return folder


def test_certify_writes_the_certificate_into_the_dataset_and_a_report_beside_it(certified: Path) -> None:
    found = Certificate.load(certified / "td3")
    assert [judge.name for judge in found.judges] == ["small", "counts"]
    assert found.setting.seeds == (0, 1)
    assert found.setting.recipe["epochs"] == 1
    assert entries(certified) == ["panel.json", "printed.txt", "study", "td3", "td3.report.html"]
    printed = " ".join((certified / "printed.txt").read_text().split())
    assert "ranks 2 models with tau" in printed
    assert "distilled" in printed
    assert "(equal bytes)" in printed
    assert str(certified / "td3.report.html") in printed.replace(" ", "")


def test_certify_again_is_refused_until_told_and_then_trains_nothing(line: Line, certified: Path, here: Path) -> None:
    shutil.copytree(certified, here, dirs_exist_ok=True)
    refused = certify(line, here)
    assert refused.code == 2
    assert "certificate.json: exists already; pass --overwrite to replace it" in refused.complaint
    before = {path: path.stat().st_mtime_ns for path in here.glob("study/cells/*.json")}
    again = certify(line, here, "--overwrite", "--json")
    assert again.code == 0, again.err
    assert {path: path.stat().st_mtime_ns for path in here.glob("study/cells/*.json")} == before
    assert again.json["subject"] == Certificate.load(certified / "td3").subject.model_dump(mode="json")


def test_a_new_option_trains_only_what_is_new(line: Line, certified: Path, here: Path) -> None:
    shutil.copytree(certified, here, dirs_exist_ok=True)
    before = set(here.glob("study/cells/*.json"))
    assert certify(line, here, "--overwrite", "--items", "given").code == 0
    after = set(here.glob("study/cells/*.json"))
    assert len(after - before) == 4  # one model that learns, on the distilled rows and on one control, two seeds
    assert Certificate.load(here / "td3").setting.items == "given"


def test_verify_holds_and_says_so(line: Line, certified: Path) -> None:
    result = call("verify", certified / "td3", line["prepared"])
    assert result.code == 0, result.err
    assert result.out.startswith("holds: small trained again with seed 0 scores NDCG@10 ")
    assert "digit by digit" in result.out
    found = call("verify", certified / "td3", line["prepared"], "--json").json
    assert found["repeated"] is True
    assert found["stated"]["low"] <= found["value"] <= found["stated"]["high"]


def test_verify_fails_with_three_when_the_certificate_was_edited(line: Line, certified: Path, here: Path) -> None:
    shutil.copytree(certified / "td3", here / "td3")
    path = here / "td3" / FILE
    value = json.loads(path.read_text())
    value["student"]["interval"]["value"] = 0.9
    path.write_text(json.dumps(value))
    result = call("verify", here / "td3", line["prepared"])
    assert result.code == 3
    assert result.complaint.startswith(f"recdistill: does not hold: {path}: ")
    assert result.complaint.endswith("certify again")


@pytest.mark.parametrize(
    ("more", "parts"),
    [
        (("--seeds", "0"), ("--seeds: '0'", "1 or more")),
        (("--items", "borrowed"), ("--items: 'borrowed' is not known", "random, given, frozen")),
        (("--metric", "NDCG"), ("--metric: 'NDCG' is not known", "NDCG@10")),
        (("--protocol", "half"), ("--protocol: 'half' is not known", "full, uni100")),
        (("--controls", "radnom"), ("--controls: 'radnom' is not known", "did you mean 'random'")),
        (("--student", "counts"), ("--student: 'counts' is not known", "sasrec_32")),
        (("--models", "sasrec_32,sasrec_33"), ("--models: 'sasrec_33' is not known", "did you mean 'sasrec_32'")),
        (("--models", "sasrec_32"), ("--models: 'sasrec_32' is one model", "give two or more")),
        (("--models", "none.json"), ("none.json: is missing",)),
        (("--models", "bad.json"), ("bad.json: entry 0 model: Field required", 'give a list of {"name"')),
        (("--models", "wrong.json"), ("wrong.json: argument of a: 'hiden' is not known", "'hidden_dim'")),
        (("--recipe", "epoch=3"), ("--recipe: 'epoch' is not known", "did you mean 'epochs'")),
        (("--report", "td3/page.html"), ("lies in the distilled dataset", "choose another place")),
        (("--minutes", "soon"), ("--minutes",)),
        (("--workers", "0"), ("--workers: '0'", "1 or more")),
    ],
    ids=lambda value: " ".join(value) if value[0].startswith("--") else "",
)
def test_mistakes_are_named_before_anything_is_trained(line: Line, here: Path, more, parts) -> None:
    copy(line, "td3", here)
    (here / "bad.json").write_text('[{"name": "a"}]')
    (here / "wrong.json").write_text(
        '[{"name": "a", "model": "gru4rec", "config": {"hiden": 3}}, {"name": "b", "model": "gru4rec"}]'
    )
    before = entries(here)
    result = call("certify", "td3", line["prepared"], "--study", "study", *more)
    assert result.code == 2
    for part in parts:
        assert part in result.complaint
    assert entries(here) == before
    assert not (here / "td3" / FILE).exists()


def test_the_two_folders_must_belong_together(line: Line, here: Path) -> None:
    copy(line, "td3", here)
    result = call("certify", "td3", line["other"])
    assert result.code == 2
    assert "is another split" in result.complaint
    assert "give the prepared dataset that it was made from" in result.complaint
    swapped = call("certify", line["prepared"], "td3")
    assert swapped.code == 2
    assert "is a prepared dataset; DISTILLED must be a distilled dataset" in swapped.complaint
    none = call("verify", "td3", line["prepared"])
    assert none.code == 2
    assert "has no certificate.json; write one with: recdistill certify" in none.complaint
