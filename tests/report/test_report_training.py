"""Curves stand at the steps after which they were measured, and a trace counts as its method does: known answers."""

from recdistill.certificate.record import Score
from recdistill.report.sections.training import curve_points, traces_of
from reference.certificates import certificate


def score(**changes: object) -> Score:
    return certificate().full.scores[0].model_copy(update=changes)


def test_an_epoch_is_measured_after_its_steps() -> None:
    found = curve_points(score(curve=(0.1, 0.3, 0.2, 0.25), curve_steps=40))
    assert found == ((10.0, 0.1), (20.0, 0.3), (30.0, 0.2), (40.0, 0.25))


def test_a_model_without_epochs_has_no_curve() -> None:
    assert curve_points(score(curve=(), curve_steps=0)) == ()
    assert curve_points(None) == ()


def test_a_trace_is_numbered_where_it_does_not_count_itself() -> None:
    assert traces_of([{"loss": 3.0}, {"loss": 2.0, "valid": 0.1}, {"valid": 0.2}]) == {
        "loss": ((1.0, 3.0), (2.0, 2.0)),
        "valid": ((2.0, 0.1), (3.0, 0.2)),
    }
    counted = [{"step": 20.0, "loss": 3.0}, {"step": 40.0, "loss": 2.0}]
    assert traces_of(counted) == {"loss": ((20.0, 3.0), (40.0, 2.0))}


def test_what_was_recorded_once_or_is_no_number_is_left_out() -> None:
    entries = [{"once": 1.0, "odd": float("nan"), "loss": 1.0}, {"odd": float("inf"), "loss": 2.0}]
    assert traces_of(entries) == {"loss": ((1.0, 1.0), (2.0, 2.0))}
