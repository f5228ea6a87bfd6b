"""Check a certificate: by its checksum, by what it contradicts, and by training the stated student once more."""

from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from recdistill.certificate.measure import short, student_of
from recdistill.certificate.record import FILE, Certificate, Span, Student
from recdistill.data.distilled import DistilledDataset, Manifest
from recdistill.data.prepared import PreparedDataset
from recdistill.errors import ArtifactError, InputError, RecdistillError, VerificationError
from recdistill.progress import SILENT, Progress
from recdistill.study.cells import Cell, ModelSpec, TrainingSet
from recdistill.study.grid import run_grid
from recdistill.study.local import LocalProcesses
from recdistill.training.fit import TrainingRecipe


@dataclass(frozen=True, kw_only=True)
class Verification:
    """What verifying found.

    Args:
        judge: the stated student.
        metric, protocol: what it is scored by.
        seed: of the training that was repeated.
        stated: mean of the certificate, and the interval for one more training.
        value: what the repeated training scored.
        repeated: whether that is what the certificate states for this seed, digit by digit; ``None`` for another seed.
    """

    judge: str
    metric: str
    protocol: str
    seed: int
    stated: Span
    value: float
    repeated: bool | None


def check_certificate(folder: Path) -> Certificate:
    """Return the certificate of a distilled dataset after comparing it with itself and with the dataset.

    Raises:
        ArtifactError: the dataset or the certificate is missing or damaged.
        VerificationError: the certificate was edited, contradicts itself, or is of another dataset.
    """
    manifest, found = DistilledDataset.load(folder).manifest, Certificate.load(folder)
    where = folder / FILE
    if found.checksum != found.digest():
        raise VerificationError(
            f"{where}: does not have the checksum that it states, so it was changed after it was written; certify again"
        )
    for name, stated, real in _claims(found, manifest):
        if stated != real:
            raise VerificationError(f"{where}: states {name} {stated}, the dataset has {real}; certify again")
    if found.student is not None:
        _check_student(found, found.student, where)
    return found


def _claims(found: Certificate, manifest: Manifest) -> list[tuple[str, object, object]]:
    subject = found.subject
    return [
        ("the content", subject.content, manifest.files["data.safetensors"]),
        ("the split", subject.source.hash, manifest.source.hash),
        ("the method", subject.method, manifest.method),
        ("rows", subject.num_rows, manifest.num_rows),
        ("the seed", subject.seed, manifest.seed),
    ]


def _check_student(found: Certificate, student: Student, where: Path) -> None:
    """Raise when what is stated of the student does not follow from its values, or these are not those of its row."""
    score = found.distilled.score(student.judge)
    if score is None or score.values != student.values or score.seeds != student.seeds:
        raise VerificationError(f"{where}: the scores of {student.judge} differ between its two places; certify again")
    if student != student_of(student.judge, student.seeds, student.values):
        raise VerificationError(
            f"{where}: the interval of {student.judge} does not follow from its scores {list(student.values)}; "
            "certify again"
        )


def verify(distilled: Path, prepared: Path, *, seed: int | None = None, progress: Progress = SILENT) -> Verification:
    """Train the stated student once more, from the rows as they are, and compare its score with what is stated.

    Args:
        distilled: folder of a distilled dataset with a certificate.
        prepared: the prepared dataset that it was made from.
        seed: of the training; the first that the certificate states when ``None``. The same seed gives the same digits
            on the same machine; any other one is a new draw, which a true interval misses one time in 20.
        progress: told while it trains.

    Raises:
        ArtifactError: a folder is missing or damaged, or the two do not belong together.
        InputError: the certificate states no training.
        VerificationError: the certificate does not hold.
    """
    found = check_certificate(distilled)
    student = found.student
    if student is None:
        raise InputError(
            f"{distilled / FILE}: states no training that could be repeated, for it has one seed; "
            "certify again with --seeds 2 or more"
        )
    data = PreparedDataset.open(prepared)
    if data.hash != found.subject.source.hash:
        raise ArtifactError(
            f"is another split ({data.hash[:12]}) than that of the certificate ({found.subject.source.hash[:12]})",
            fix="give the prepared dataset that the distilled one was made from",
            path=prepared,
        )
    chosen = student.seeds[0] if seed is None else seed
    value = _train_again(found, student, distilled, prepared, chosen, progress)
    stated = dict(zip(student.seeds, student.values, strict=True))
    result = Verification(
        judge=student.judge,
        metric=found.setting.metric,
        protocol=found.setting.protocol,
        seed=chosen,
        stated=student.interval,
        value=value,
        repeated=value == stated[chosen] if chosen in stated else None,
    )
    slack = 10.0**-4 * abs(student.interval.value)  # trainings without any luck of seeds have no interval to speak of
    if not student.interval.low - slack <= value <= student.interval.high + slack:
        raise VerificationError(_refusal(result, distilled / FILE))
    return result


def _refusal(result: Verification, where: Path) -> str:
    span = result.stated
    return (
        f"{where}: states {result.metric} {span.value:.4f} for {result.judge}, {span.low:.4f} to {span.high:.4f} for "
        f"one training; trained again with seed {result.seed} it scores {result.value:.4f}, which is outside"
    )


def _train_again(
    found: Certificate, student: Student, distilled: Path, prepared: Path, seed: int, progress: Progress
) -> float:
    """Return the score of a fresh training under the conditions of the certificate, in a process of its own."""
    judge = next((judge for judge in found.judges if judge.name == student.judge), None)
    if judge is None:
        raise VerificationError(f"{distilled / FILE}: its student {student.judge} is no model of its panel")
    setting = found.setting
    with TemporaryDirectory(prefix="recdistill-verify-") as folder:
        cell = Cell(
            folder=Path(folder),
            prepared=prepared.absolute(),
            data=TrainingSet.open("distilled", distilled),
            model=ModelSpec(name=judge.name, model=judge.model, config=judge.config),
            items=setting.items,  # type: ignore[arg-type]
            seed=seed,
            recipe=TrainingRecipe(**setting.recipe),
            max_seq_len=setting.max_seq_len,
        )
        outcome = run_grid([cell], LocalProcesses(threads=setting.threads), progress=progress)
        if outcome.failed:
            raise RecdistillError(f"the training of {judge.name} failed: {outcome.failed[cell.key]}")
        return short(float(cell.per_event(setting.metric, setting.protocol).mean()))
