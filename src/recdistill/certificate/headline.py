"""What a certificate says in one breath: for the head of a report, the command line and the dataset card."""

from recdistill.certificate.record import Certificate, Dataset, Fidelity
from recdistill.certificate.wording import called, counted, digits, interval, percent, percent_interval

FEW_SEEDS = 3


def headline(certificate: Certificate) -> str:
    """Return, in plain text, how much smaller, how faithful and how accurate, and what takes from it.

    The last sentences say what limits the first: few seeds, trainings that are missing, and how controls of equal
    bytes do.
    """
    return " ".join(sentences(certificate))


def sentences(certificate: Certificate) -> list[str]:
    """Return the sentences of the headline; the first two are always there."""
    return [
        _ranking(certificate),
        _accuracy(certificate),
        *_few_seeds(certificate),
        *_missing(certificate),
        *_controls(certificate),
    ]


def seeds_of(certificate: Certificate) -> int:
    """Return over how many seeds the distilled dataset ranks models; of its scores, where it ranks none."""
    found = certificate.distilled.fidelity.get("all")
    if found is not None:
        return found.seeds
    return max((len(score.seeds) for score in certificate.distilled.scores), default=0)


def size(certificate: Certificate) -> str:
    """Return the bytes as a share of those of all data, and without the item table within."""
    ours, all_data = certificate.distilled.bytes, certificate.full.bytes
    if all_data <= 0:
        return f"With {ours:,} bytes"
    text = f"At {percent(ours / all_data)} of the bytes"
    table = certificate.subject.item_factor_bytes
    if 0 < table < ours:
        text += f" ({percent((ours - table) / all_data)} without the item table that it ships)"
    return text


def _ranking(certificate: Certificate) -> str:
    fidelity = certificate.distilled.fidelity.get("all")
    if fidelity is None:
        return f"{size(certificate)}; no seed is complete, so that models cannot be ranked yet."
    lost = f"regret {percent_interval(fidelity.regret)}"
    return f"{size(certificate)}, it {_agreement(fidelity)}{_ceiling(certificate)}; {lost}."


def _agreement(fidelity: Fidelity) -> str:
    models = counted(fidelity.models, "model")
    if fidelity.tau is None:
        return f"has no tau for {models}, because all tie on one side"
    return f"ranks {models} with tau {interval(fidelity.tau)}"


def _ceiling(certificate: Certificate) -> str:
    ceiling = certificate.ceiling.get("all")
    if ceiling is None or ceiling.tau is None:
        return ", ceiling unknown"
    return f", ceiling {digits(ceiling.tau, 2)}"


def _accuracy(certificate: Certificate) -> str:
    ratio = certificate.distilled.mean_ratio.get("all")
    if ratio is None:
        return "What part of the accuracy models keep is not known yet."
    return f"Models keep {percent_interval(ratio)} of the accuracy that all data give."


def _few_seeds(certificate: Certificate) -> list[str]:
    count = seeds_of(certificate)
    if count >= FEW_SEEDS or count == 0:
        return []
    if count == 1:
        return ["One seed: intervals hold users alone, not the luck of a training."]
    return [f"{count} seeds: intervals are rough."]


def _missing(certificate: Certificate) -> list[str]:
    count = len(certificate.missing)
    if not count:
        return []
    return [f"{counted(count, 'training')} {'is' if count == 1 else 'are'} missing; every figure is of what is there."]


def _controls(certificate: Certificate) -> list[str]:
    equal = [control for control in certificate.controls if control.rule == "equal bytes" and control.gain is not None]
    if not equal:
        return ["No control of equal bytes was trained to compare with."]
    return [_control(control, certificate.setting.metric) for control in equal]


def _control(control: Dataset, metric: str) -> str:
    gain = control.gain
    assert gain is not None
    found = "no different as far as one can tell"
    if gain.difference.low > 0:
        found = "worse"
    elif gain.difference.high < 0:
        found = "better"
    told = f"{metric} of the distilled dataset minus theirs {interval(gain.difference)}"
    return f"At equal bytes, {called(control)} do {found}: {told}."
