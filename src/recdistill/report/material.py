"""What a report is made of: the certificate, the distilled dataset, and what stands beside, checked to fit together."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from recdistill.certificate.record import FILE, Certificate, Dataset
from recdistill.certificate.verify import check_certificate
from recdistill.data.development import histories_of
from recdistill.data.distilled import DistilledDataset
from recdistill.data.prepared import PreparedDataset
from recdistill.data.sequences import Histories
from recdistill.errors import ArtifactError


@dataclass(frozen=True, kw_only=True)
class Neighbour:
    """Another certified dataset of the same split.

    Args:
        name: of its folder.
        certificate: what was measured of it.
        differs: in what it was measured otherwise, in words; empty where figures can be compared.
    """

    name: str
    certificate: Certificate
    differs: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Material:
    """Everything that a report shows.

    Args:
        name: of the folder of the distilled dataset.
        certificate: what was measured.
        made: the distilled dataset.
        histories: real users, where the prepared dataset was given.
        prepared: name of its folder.
        beside: other certified datasets.
    """

    name: str
    certificate: Certificate
    made: DistilledDataset
    histories: Histories | None = None
    prepared: str | None = None
    beside: tuple[Neighbour, ...] = ()


def gather(distilled: Path, prepared: Path | None = None, beside: Sequence[Path] = ()) -> Material:
    """Return what a report is made of.

    Args:
        distilled: a distilled dataset with a certificate.
        prepared: the prepared dataset that it was made from.
        beside: other distilled datasets of the same split, with certificates.

    Raises:
        ArtifactError: something is missing or damaged, or does not belong to the rest.
        VerificationError: a certificate was edited, contradicts itself, or is of another dataset.
    """
    made = DistilledDataset.load(distilled)
    certificate = check_certificate(distilled)
    _check_order(certificate, distilled)
    histories = None
    if prepared is not None:
        opened = PreparedDataset.open(prepared)
        if opened.hash != certificate.subject.source.hash:
            fix = "give the prepared dataset from which the distilled one was made"
            raise ArtifactError("is of another split than the distilled dataset", fix=fix, path=prepared)
        histories = histories_of(opened)
    return Material(
        name=distilled.resolve().name,
        certificate=certificate,
        made=made,
        histories=histories,
        prepared=None if prepared is None else prepared.resolve().name,
        beside=tuple(_neighbour(folder, certificate) for folder in beside),
    )


def _check_order(certificate: Certificate, folder: Path) -> None:
    """Raise where the certificate has not the two datasets that everything is about."""
    kinds = [dataset.kind for dataset in certificate.datasets[:2]]
    if kinds != ["all", "distilled"]:
        fix = "certify again; all data come first, the distilled dataset second"
        raise ArtifactError(f"begins with datasets of the kinds {kinds}", fix=fix, path=folder / FILE)


def _neighbour(folder: Path, certificate: Certificate) -> Neighbour:
    other = check_certificate(folder)
    _check_order(other, folder)
    ours, theirs = certificate.setting, other.setting
    if other.subject.source.hash != certificate.subject.source.hash:
        raise ArtifactError("is of another split", fix="set beside only datasets of one split", path=folder)
    if (ours.metric, ours.protocol) != (theirs.metric, theirs.protocol):
        told = f"was measured by {theirs.metric} ({theirs.protocol}), not by {ours.metric} ({ours.protocol})"
        raise ArtifactError(told, fix="certify it with the same metric and protocol", path=folder)
    pairs = {
        "item table": (ours.items, theirs.items),
        "training recipe": (ours.recipe, theirs.recipe),
        "longest history": (ours.max_seq_len, theirs.max_seq_len),
        "number of seeds": (len(ours.seeds), len(theirs.seeds)),
        "models": (_names(certificate), _names(other)),
    }
    differs = tuple(name for name, (one, two) in pairs.items() if one != two)
    return Neighbour(name=folder.resolve().name, certificate=other, differs=differs)


def _names(certificate: Certificate) -> set[str]:
    return {judge.name for judge in certificate.judges}


def indexed(certificate: Certificate) -> list[tuple[int, Dataset]]:
    """Return the datasets with the index of their series: all data 0, the distilled dataset 1, then controls."""
    return list(enumerate(certificate.datasets))
