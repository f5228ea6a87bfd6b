"""What may be concluded follows from the numbers by the stated rules, and from nothing else."""

from typing import Any

import pytest

from recdistill.certificate.record import Ceiling, Certificate, Fidelity, Gain, Span
from recdistill.report.conclusions import Finding, conclusions, warnings_of
from reference.certificates import certificate


def answer(found: Certificate, words: str) -> tuple[Finding, ...]:
    """Return the answers to the question that holds some words."""
    (conclusion,) = [one for one in conclusions(found) if words in one.question]
    return conclusion.findings


def changed(index: int, group: str = "all", **fields: Any) -> Certificate:
    """Return a certificate in which a dataset has other figures; ``tau``, ``regret`` and ``top_1`` are of a group."""
    found = certificate()
    dataset = found.datasets[index]
    fidelity = dataset.fidelity[group]
    assert isinstance(fidelity, Fidelity)
    of_fidelity = {name: value for name, value in fields.items() if name in Fidelity.model_fields}
    update: dict[str, Any] = {"fidelity": dataset.fidelity | {group: fidelity.model_copy(update=of_fidelity)}}
    if "ratio" in fields:
        update["mean_ratio"] = dataset.mean_ratio | {group: fields["ratio"]}
    if "gain" in fields:
        update["gain"] = fields["gain"]
    datasets = [*found.datasets[:index], dataset.model_copy(update=update), *found.datasets[index + 1 :]]
    return found.model_copy(update={"datasets": tuple(datasets)})


def span(low: float, value: float, high: float) -> Span:
    return Span(value=value, low=low, high=high)


@pytest.mark.parametrize(
    ("tau", "word"),
    [(span(0.1, 0.4, 0.6), "yes"), (span(-0.1, 0.4, 0.6), "open"), (span(-0.6, -0.4, -0.1), "no"), (None, "no")],
)
def test_a_ranking_must_be_better_than_chance(tau: Span | None, word: str) -> None:
    assert [one.answer for one in answer(changed(1, tau=tau), "rank models better than chance")] == [word]


@pytest.mark.parametrize(("models", "word"), [(4, "open"), (5, "yes")])
def test_four_models_prove_nothing(models: int, word: str) -> None:
    found = changed(1, tau=span(0.5, 0.9, 1.0), models=models)
    assert [one.answer for one in answer(found, "rank models better than chance")] == [word]


@pytest.mark.parametrize(
    ("tau", "word"),
    [(span(-0.9, -0.8, -0.7), "yes"), (span(0.95, 0.97, 1.0), "no"), (span(0.0, 0.6, 0.9), "open")],
)
def test_it_ranks_better_than_a_control_only_where_intervals_lie_apart(tau: Span, word: str) -> None:
    findings = answer(changed(2, tau=tau), "better than controls")
    assert findings[0].answer == word
    assert "random_soft_3x50, equal bytes" in findings[0].about
    assert len(findings) == 4


@pytest.mark.parametrize(
    ("difference", "p", "word"),
    [
        (span(0.001, 0.002, 0.003), 0.01, "yes"),
        (span(0.001, 0.002, 0.003), 0.2, "open"),
        (span(-0.003, -0.002, -0.001), 0.01, "no"),
        (span(-0.001, 0.002, 0.003), 0.01, "open"),
    ],
)
def test_accuracy_is_compared_by_interval_and_corrected_chance(difference: Span, p: float, word: str) -> None:
    gain = Gain(difference=difference, p=p / 10, p_holm=p, seeds=3)
    assert answer(changed(3, gain=gain), "more accurate than on controls")[1].answer == word


@pytest.mark.parametrize(
    ("ratio", "word"), [(span(0.96, 0.97, 0.98), "yes"), (span(0.7, 0.8, 0.9), "no"), (span(0.9, 0.95, 1.0), "open")]
)
def test_near_means_ninety_five_percent(ratio: Span, word: str) -> None:
    assert answer(changed(1, ratio=ratio), "nearly as accurate")[0].answer == word


@pytest.mark.parametrize(
    ("regret", "word"), [(span(0, 0, 0.01), "yes"), (span(0, 0.005, 0.03), "open"), (span(0.02, 0.03, 0.05), "no")]
)
def test_the_winner_is_a_good_choice_where_little_is_lost(regret: Span, word: str) -> None:
    (found,) = answer(changed(1, regret=regret, top_1=False), "good choice")
    assert found.answer == word
    assert "not the best" in found.reason


@pytest.mark.parametrize(
    ("unused", "word"), [(span(0.5, 0.55, 0.6), "no"), (span(0.7, 0.745, 0.8), "open"), (span(0.75, 0.79, 0.83), "yes")]
)
def test_models_that_were_held_are_told_from_others(unused: Span, word: str) -> None:
    found = changed(1, ratio=span(0.75, 0.79, 0.82))
    distilled = found.distilled.model_copy(update={"mean_ratio": found.distilled.mean_ratio | {"unused": unused}})
    found = found.model_copy(update={"datasets": (found.full, distilled, *found.controls)})
    assert answer(found, "never held")[0].answer == word


def test_where_no_model_was_held_all_are_unused() -> None:
    assert "none of the models" in answer(certificate(used=0), "never held")[0].reason


def test_distilling_pays_or_does_not() -> None:
    found = certificate()
    assert answer(found, "pay")[0].reason.startswith(f"After {found.cost.break_even} trainings")
    never = found.model_copy(update={"cost": found.cost.model_copy(update={"break_even": None})})
    assert answer(never, "pay")[0].answer == "no"


def test_questions_without_figures_are_left_out() -> None:
    questions = " ".join(one.question for one in conclusions(certificate(controls=0, ranked=False)))
    assert "controls" not in questions
    assert "good choice" not in questions
    assert "Does it rank models better than chance?" in questions


def test_a_sound_certificate_has_no_warnings() -> None:
    assert warnings_of(certificate(models=12, seeds=3)) == []


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"models": 9}, "Only 9 models"),
        ({"seeds": 2}, "Only 2 seeds"),
        ({"seeds": 1}, "Only 1 seed:"),
        ({"missing": 3}, "Not finished: 3 trainings"),
        ({"items": "frozen"}, "learnt on all data (frozen)"),
    ],
)
def test_what_limits_all_conclusions_is_told_first(options: dict[str, Any], words: str) -> None:
    told = warnings_of(certificate(**options))
    assert len(told) == 1
    assert words in told[0]


@pytest.mark.parametrize(
    ("ratio", "tau", "alike"),
    [(0.95, 0.3, True), (0.95, None, True), (0.95, 0.55, True), (0.95, 0.7, False), (0.8, 0.3, False)],
)
def test_accurate_models_in_another_order_are_a_warning(ratio: float, tau: float | None, alike: bool) -> None:
    known = None if tau is None else span(tau - 0.1, tau, tau + 0.1)
    found = changed(1, ratio=span(ratio - 0.01, ratio, ratio + 0.01), tau=known)
    ceiling = Ceiling(seeds=3, tau=0.83, pairs_apart=31, pairs=66)
    told = warnings_of(found.model_copy(update={"ceiling": {"all": ceiling, "unused": None}}))
    assert any("flatten" in one for one in told) is alike
