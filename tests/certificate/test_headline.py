"""The headline states the numbers of the certificate, and everything that takes from them.

Proved on invented certificates, sentence by sentence. That the sentences are good English is not.
"""

import pytest

from recdistill.certificate.headline import headline, seeds_of, sentences
from recdistill.certificate.record import Certificate, Gain, Span
from recdistill.certificate.wording import digits, interval, percent, percent_interval
from reference.certificates import certificate


def with_gain(low: float, value: float, high: float) -> Certificate:
    """Return a certificate in which the distilled dataset differs so much from every control."""
    found = certificate()
    gain = Gain(difference=Span(value=value, low=low, high=high), p=0.01, p_holm=0.02, seeds=3)
    datasets = [one if one.kind != "control" else one.model_copy(update={"gain": gain}) for one in found.datasets]
    return found.model_copy(update={"datasets": tuple(datasets)})


def test_the_first_sentences_hold_size_order_and_accuracy() -> None:
    found = certificate()
    fidelity, ratio, ceiling = found.distilled.fidelity["all"], found.distilled.mean_ratio["all"], found.ceiling["all"]
    assert fidelity is not None
    assert fidelity.tau is not None
    assert ratio is not None
    assert ceiling is not None
    assert ceiling.tau is not None
    first, second = sentences(found)[:2]
    assert first.startswith(f"At {percent(259_678 / 402_029)} of the bytes (11 % without the item table")
    assert f"ranks 12 models with tau {interval(fidelity.tau)}, ceiling {digits(ceiling.tau, 2)};" in first
    assert f"regret {percent_interval(fidelity.regret)}." in first
    assert second == f"Models keep {percent_interval(ratio)} of the accuracy that all data give."


def test_a_ranking_without_tau_is_said_to_be_none() -> None:
    told = sentences(certificate(tau=False))[0]
    assert "no tau for 12 models, because all tie on one side, ceiling unknown" in told


def test_without_a_complete_seed_nothing_is_claimed_about_ranks() -> None:
    found = certificate(ranked=False)
    assert "no seed is complete" in sentences(found)[0]
    assert "tau" not in headline(found)
    assert seeds_of(found) == 3


@pytest.mark.parametrize(
    ("seeds", "told"), [(1, "One seed: intervals hold users alone"), (2, "2 seeds: intervals are rough."), (3, None)]
)
def test_few_seeds_are_told(seeds: int, told: str | None) -> None:
    words = headline(certificate(seeds=seeds))
    assert (told in words) if told else ("seed" not in words)


@pytest.mark.parametrize(("missing", "told"), [(0, None), (1, "1 training is missing"), (7, "7 trainings are missing")])
def test_missing_trainings_are_counted(missing: int, told: str | None) -> None:
    words = headline(certificate(missing=missing))
    assert (told in words) if told else ("missing" not in words)


@pytest.mark.parametrize(
    ("gain", "word"),
    [
        ((0.001, 0.002, 0.003), "do worse"),
        ((-0.003, -0.002, -0.001), "do better"),
        ((-0.001, 0.001, 0.002), "no different"),
    ],
)
def test_controls_of_equal_bytes_are_told_whichever_side_wins(gain: tuple[float, float, float], word: str) -> None:
    told = sentences(with_gain(*gain))[2:]
    assert len(told) == 2  # those of equal rows are left out
    assert told[0].startswith(f"At equal bytes, random users with a teacher's labels {word}" if "do" in word else "At")
    assert all(word in sentence and "NDCG@10 of the distilled dataset minus theirs" in sentence for sentence in told)
    assert told[1].startswith("At equal bytes, random users do")


def test_without_controls_the_headline_says_so() -> None:
    assert "No control of equal bytes was trained" in headline(certificate(controls=0))


def test_the_headline_is_one_line_of_plain_text() -> None:
    words = headline(certificate(seeds=1, missing=2, long_names=True))
    assert words.isascii()
    assert words.isprintable()
    assert words.endswith(".")
