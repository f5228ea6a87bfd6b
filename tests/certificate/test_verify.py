"""A certificate holds when nothing was touched, and fails however it was edited: carelessly, or so that all its own
checks are content and only the training itself contradicts it.

Not proved: that other machines, whose sums round otherwise, stay inside the interval.
"""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from examined import Made, prepared_ring

from recdistill.certificate.certify import certify
from recdistill.certificate.measure import student_of
from recdistill.certificate.record import FILE, Certificate
from recdistill.certificate.trainings import Examination
from recdistill.certificate.verify import check_certificate, verify
from recdistill.errors import ArtifactError, InputError, RecdistillError, VerificationError
from recdistill.study.cells import Cell
from reference.jobs import Here


def edit(folder: Path, change: Callable[[dict[str, Any]], None], *, seal: bool = False) -> None:
    """Change the certificate as a person would; with ``seal``, mend its checksum as well."""
    path = folder / FILE
    value = json.loads(path.read_text())
    change(value)
    path.write_text(json.dumps(value))
    if seal:
        Certificate.load(folder).save(folder)


def forge(value: dict[str, Any], factor: float) -> None:
    """Multiply what is stated of the student, everywhere and consistently."""
    stated = value["student"]
    values = [float(f"{factor * one:.6g}") for one in stated["values"]]
    value["student"] = student_of(stated["judge"], stated["seeds"], values).model_dump(mode="json")
    score = next(one for one in value["datasets"][1]["scores"] if one["model"] == stated["judge"])
    score["values"] = values


def test_a_genuine_certificate_holds_digit_by_digit(made: Made) -> None:
    found = verify(made.exam.distilled, made.exam.prepared)
    assert found.repeated
    assert found.value == made.certificate.student.values[0]
    assert (found.judge, found.seed, found.metric, found.protocol) == ("small", 0, "NDCG@10", "full")
    assert found.stated == made.certificate.student.interval


def test_another_stated_seed_repeats_its_own_score(made: Made) -> None:
    found = verify(made.exam.distilled, made.exam.prepared, seed=2)
    assert found.repeated
    assert found.value == made.certificate.student.values[2]


def test_a_new_seed_is_a_new_draw(made: Made) -> None:
    found = verify(made.exam.distilled, made.exam.prepared, seed=7)
    assert found.repeated is None
    assert found.value not in made.certificate.student.values


@pytest.mark.parametrize(
    "change",
    [
        lambda value: value["student"]["interval"].update(value=0.5),
        lambda value: value["datasets"][1]["fidelity"]["all"]["tau"].update(value=0.123),
        lambda value: value["datasets"][2].update(bytes=1),
        lambda value: value["cost"].update(break_even=1),
        lambda value: value.update(checksum="0" * 64),
    ],
    ids=["student", "tau", "bytes of a control", "break-even", "checksum"],
)
def test_any_edit_is_seen(copied: Path, made: Made, change: Callable[[dict[str, Any]], None]) -> None:
    edit(copied, change)
    with pytest.raises(VerificationError, match=r"certificate\.json: .*checksum.* was changed .*; certify again"):
        verify(copied, made.exam.prepared)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda value: value["student"]["interval"].update(low=0.0, high=1.0), "interval of small does not follow"),
        (lambda value: value["student"]["values"].__setitem__(0, 0.9), "scores of small differ between"),
        (lambda value: value["subject"].update(content="0" * 64), "states the content 000"),
        (lambda value: value["subject"].update(method="td3"), "states the method td3, the dataset has random_soft"),
        (lambda value: value["subject"].update(num_rows=1), "states rows 1, the dataset has 5"),
    ],
)
def test_contradictions_are_seen_though_the_checksum_is_right(
    copied: Path, made: Made, change: Callable[[dict[str, Any]], None], message: str
) -> None:
    edit(copied, change, seal=True)
    with pytest.raises(VerificationError, match=message):
        check_certificate(copied)


@pytest.mark.parametrize("factor", [3.0, 0.2])
def test_a_careful_forgery_is_seen_by_the_training(copied: Path, made: Made, factor: float) -> None:
    edit(copied, lambda value: forge(value, factor), seal=True)
    assert check_certificate(copied).student.values != made.certificate.student.values
    with pytest.raises(VerificationError, match=r"trained again with seed 0 it scores 0\.\d+, which is outside"):
        verify(copied, made.exam.prepared)


def test_the_certificate_of_another_dataset_is_seen(made: Made, another: Callable[..., Examination]) -> None:
    other = another().distilled
    exam = made.exam
    control = next(one for one in made.datasets if one.name.startswith("random_"))
    shutil.rmtree(other)
    shutil.copytree(control.by_seed[0].folder, other)
    shutil.copy(exam.distilled / FILE, other / FILE)
    with pytest.raises(VerificationError, match="states the content"):
        verify(other, exam.prepared)


def test_changed_rows_are_seen_first(copied: Path, made: Made) -> None:
    path = copied / "data.safetensors"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    with pytest.raises(ArtifactError, match=r"data\.safetensors: has another SHA-256"):
        verify(copied, made.exam.prepared)


def test_the_right_prepared_dataset_is_needed(made: Made, tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match=r"is another split .* than that of the certificate"):
        verify(made.exam.distilled, prepared_ring(tmp_path, 1))


def test_without_a_certificate_there_is_nothing_to_verify(copied: Path, made: Made) -> None:
    (copied / FILE).unlink()
    with pytest.raises(ArtifactError, match=r"has no certificate\.json; write one with: recdistill certify"):
        verify(copied, made.exam.prepared)


def test_one_seed_states_nothing_that_could_be_repeated(made: Made, another: Callable[..., Examination]) -> None:
    exam = another(seeds=1)
    certify(exam, Here())
    with pytest.raises(InputError, match=r"states no training .* certify again with --seeds 2 or more"):
        verify(exam.distilled, exam.prepared)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "is not JSON"),
        ("[]", "is not a certificate"),
        (
            '{"format": "recdistill-certificate", "format_version": 99}',
            "format version 99, this recdistill reads up to 1",
        ),
        ('{"format": "recdistill-certificate", "format_version": 1}', "field 'subject': Field required"),
    ],
)
def test_damaged_certificates_are_refused(copied: Path, text: str, message: str) -> None:
    (copied / FILE).write_text(text)
    with pytest.raises(ArtifactError, match=message):
        Certificate.load(copied)


def test_certifying_again_trains_nothing_and_states_the_same(
    made: Made, another: Callable[..., Examination], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Cell, "run", lambda *_: pytest.fail("a finished training was done again"))
    found = certify(another(), Here()).certificate
    changing = {"created", "checksum"}
    assert found.model_dump(exclude=changing) == made.certificate.model_dump(exclude=changing)


def test_a_failed_training_costs_only_what_rests_on_it(
    another: Callable[..., Examination], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = Cell.run

    def fails(cell: Cell, progress: object) -> None:
        if cell.model.name == "gru":
            raise ValueError("no luck")
        run(cell, progress)  # type: ignore[arg-type]

    monkeypatch.setattr(Cell, "run", fails)
    exam = another(seeds=1, folder=tmp_path / "fresh")
    found = certify(exam, Here())
    assert set(found.outcome.failed) == set(found.certificate.missing)
    assert {key.split("/")[1] for key in found.outcome.failed} == {"gru"}
    assert [judge.name for judge in found.certificate.judges] == ["small", "wide", "counts"]
    assert Certificate.load(exam.distilled) == found.certificate


def test_when_every_training_fails_nothing_is_written(
    another: Callable[..., Examination], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(cell: Cell, progress: object) -> None:
        raise ValueError("no luck")

    monkeypatch.setattr(Cell, "run", fails)
    exam = another(folder=tmp_path / "fresh")
    with pytest.raises(RecdistillError, match=r"every training failed; the first was all/small/random/seed-0.*no luck"):
        certify(exam, Here())
    assert not (exam.distilled / FILE).exists()
