"""What may be concluded from a certificate: rules over its numbers, each with an answer in one word and the reason.

``yes`` and ``no`` are said only where an interval lies wholly on one side; everything else is ``open``.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from recdistill.certificate.headline import FEW_SEEDS, seeds_of
from recdistill.certificate.record import Certificate, Dataset, Fidelity, Span
from recdistill.certificate.wording import (
    called,
    chance,
    counted,
    digits,
    interval,
    percent,
    percent_interval,
    ruled,
)

FEW_MODELS = 10
"""Below so many, agreement of rankings comes about by chance too easily to claim much from it."""
FEWEST_MODELS = 5
"""Below so many, even the right order has a chance above one in twenty, both ways counted."""
NEAR = 0.95
"""Part of the accuracy from which a dataset counts as near to all data."""
HARMLESS = 0.01
"""Regret up to which shipping the winner counts as harmless."""
LEVEL = 0.05
"""Of corrected p-values."""
HIGH_RATIO, LOW_TAU, LOW_PART = 0.85, 0.5, 0.7
"""Models are called alike where they keep the first of the accuracy, and tau is below the second, or below the third of
its ceiling."""


Answer = Literal["yes", "no", "open"]


@dataclass(frozen=True, kw_only=True)
class Finding:
    """An answer.

    Args:
        answer: in one word.
        reason: with the numbers behind it.
        about: what it is about, where a question has several answers.
    """

    answer: Answer
    reason: str
    about: str = ""


@dataclass(frozen=True, kw_only=True)
class Conclusion:
    """A question and what was found.

    Args:
        question: what one wants to know.
        findings: one or more answers.
    """

    question: str
    findings: tuple[Finding, ...]


def conclusions(certificate: Certificate) -> list[Conclusion]:
    """Return what may be concluded, the most important first; questions that nothing was measured for are left out."""
    controls, metric = certificate.controls, certificate.setting.metric
    asked: list[tuple[str, list[Finding | None]]] = [
        ("Does it rank models better than chance?", [_ranks(certificate)]),
        ("Does it rank them better than controls do?", [_ranks_better(certificate.distilled, one) for one in controls]),
        ("Are models more accurate than on controls?", [_more_accurate(one, metric) for one in controls]),
        ("Are they nearly as accurate as on all data?", [_near(certificate)]),
        ("Is the model that wins on it a good choice?", [_winner(certificate)]),
        ("Does that hold for models that the method never held while it learnt?", [_unused(certificate)]),
        ("Does distilling pay?", [_pays(certificate)]),
    ]
    found = [(question, tuple(one for one in answers if one is not None)) for question, answers in asked]
    return [Conclusion(question=question, findings=answers) for question, answers in found if answers]


def warnings_of(certificate: Certificate) -> list[str]:
    """Return what a reader must know before any conclusion."""
    return list(_warnings(certificate))


def _fidelity(dataset: Dataset, group: str = "all") -> Fidelity | None:
    return dataset.fidelity.get(group)


def _ranks(certificate: Certificate) -> Finding:
    found = _fidelity(certificate.distilled)
    if found is None:
        return Finding(answer="open", reason="No seed is complete.")
    if found.tau is None:
        return Finding(answer="no", reason="All models tie on one side, so there is no order to compare.")
    reason = f"Tau is {interval(found.tau)}"
    ceiling = certificate.ceiling.get("all")
    if ceiling is not None and ceiling.tau is not None:
        reason += f"; all data agree with themselves to {digits(ceiling.tau, 2)}"
    if found.models < FEWEST_MODELS:
        told = f"{reason}. Of {counted(found.models, 'model')} any order comes about by chance."
        return Finding(answer="open", reason=told)
    if found.tau.low > 0:
        return Finding(answer="yes", reason=f"{reason}. Better than chance.")
    if found.tau.high <= 0:
        return Finding(answer="no", reason=f"{reason}. No better than chance.")
    return Finding(answer="open", reason=f"{reason}. The interval holds 0, which is chance.")


def _ranks_better(distilled: Dataset, control: Dataset) -> Finding | None:
    ours, theirs = _fidelity(distilled), _fidelity(control)
    if ours is None or theirs is None or ours.tau is None or theirs.tau is None:
        return None
    about, reason = _described(control), f"tau {interval(ours.tau)} against {interval(theirs.tau)}"
    if ours.tau.low > theirs.tau.high:
        return Finding(answer="yes", about=about, reason=f"{reason}, wholly above")
    if ours.tau.high < theirs.tau.low:
        return Finding(answer="no", about=about, reason=f"{reason}: the control ranks better")
    return Finding(answer="open", about=about, reason=f"{reason}: the intervals overlap")


def _described(control: Dataset) -> str:
    return f"{called(control)} ({ruled(control)})"


def _more_accurate(control: Dataset, metric: str) -> Finding | None:
    gain = control.gain
    if gain is None:
        return None
    about = _described(control)
    reason = f"{metric} differs by {interval(gain.difference)}, corrected p {chance(gain.p_holm)}"
    apart = gain.p_holm < LEVEL
    if gain.difference.low > 0 and apart:
        return Finding(answer="yes", about=about, reason=reason)
    if gain.difference.high < 0 and apart:
        return Finding(answer="no", about=about, reason=f"{reason}: the control is better")
    return Finding(answer="open", about=about, reason=f"{reason}: chance alone could do that")


def _near(certificate: Certificate) -> Finding | None:
    ratio = certificate.distilled.mean_ratio.get("all")
    if ratio is None:
        return None
    answer: Answer = "yes" if ratio.low >= NEAR else "no" if ratio.high < NEAR else "open"
    return Finding(answer=answer, reason=f"They keep {percent_interval(ratio)}; near means {percent(NEAR)} or more.")


def _winner(certificate: Certificate) -> Finding | None:
    found = _fidelity(certificate.distilled)
    if found is None:
        return None
    best = "It is the best model of all data." if found.top_1 else "It is not the best model of all data."
    lost: Span = found.regret
    answer: Answer = "yes" if lost.high <= HARMLESS else "no" if lost.low > HARMLESS else "open"
    return Finding(answer=answer, reason=f"Shipping it loses {percent_interval(lost)} of the best score. {best}")


def _unused(certificate: Certificate) -> Finding:
    used = [judge.name for judge in certificate.judges if judge.used]
    if not used:
        return Finding(answer="yes", reason="It held none of the models measured here.")
    all_of, unused = (certificate.distilled.mean_ratio.get(group) for group in ("all", "unused"))
    if all_of is None or unused is None:
        return Finding(answer="open", reason="Too little is measured of them.")
    taus = [_fidelity(certificate.distilled, group) for group in ("all", "unused")]
    known = [interval(found.tau) if found is not None and found.tau is not None else "unknown" for found in taus]
    kept = f"They keep {percent_interval(unused)}, all models {percent_interval(all_of)}"
    reason = f"{kept}; tau {known[1]}, of all {known[0]}."
    if unused.high < all_of.low:
        return Finding(answer="no", reason=f"{reason} Models that it held do better.")
    if unused.value < all_of.low:
        return Finding(answer="open", reason=f"{reason} They may do worse.")
    return Finding(answer="yes", reason=reason)


def _pays(certificate: Certificate) -> Finding:
    count = certificate.cost.break_even
    if count is None:
        return Finding(answer="no", reason="Training on it is not quicker than on all data.")
    return Finding(
        answer="yes", reason=f"After {counted(count, 'training')}, in time on the machine of the certificate."
    )


def _warnings(certificate: Certificate) -> Iterator[str]:
    setting, models = certificate.setting, len(certificate.judges)
    if models < FEW_MODELS:
        yield (
            f"Only {counted(models, 'model')}: an order of so few agrees with another by chance easily; "
            f"claim nothing from fewer than {FEW_MODELS}."
        )
    seeds = seeds_of(certificate)
    if 0 < seeds < FEW_SEEDS:
        yield f"Only {counted(seeds, 'seed')}: the luck of a training is hardly in the intervals."
    if certificate.missing:
        count = counted(len(certificate.missing), "training")
        yield f"Not finished: {count}. Every figure is of what is there, and may move."
    if _alike(certificate):
        yield (
            "Models keep much of their accuracy, but their order is not that of all data. Soft labels do that: they "
            "teach every model the same teacher, and flatten the differences between models."
        )
    if setting.items in ("given", "frozen"):
        yield (
            f"Students got an item table that was learnt on all data ({setting.items}); part of their accuracy comes "
            "from that table, with any rows."
        )
    if setting.protocol == "uni100":
        yield "Ranking against 100 sampled items flatters every model; full ranking is the honest question."


def _alike(certificate: Certificate) -> bool:
    """Return whether models are accurate, yet ranked badly."""
    ratio, found = certificate.distilled.mean_ratio.get("all"), _fidelity(certificate.distilled)
    if ratio is None or found is None or ratio.value < HIGH_RATIO:
        return False
    if found.tau is None or found.tau.value < LOW_TAU:
        return True
    ceiling = certificate.ceiling.get("all")
    return ceiling is not None and ceiling.tau is not None and found.tau.value < LOW_PART * ceiling.tau
