"""Train, measure, and write the certificate into the folder of the distilled dataset."""

from dataclasses import dataclass

from recdistill.certificate.measure import certificate_of
from recdistill.certificate.record import Certificate
from recdistill.certificate.trainings import Examination, cells_of, datasets_of
from recdistill.errors import RecdistillError
from recdistill.progress import SILENT, Progress
from recdistill.study.grid import Outcome, Workers, run_grid


@dataclass(frozen=True)
class Certified:
    """What certifying came to.

    Args:
        certificate: as it was written.
        outcome: what became of the trainings.
    """

    certificate: Certificate
    outcome: Outcome


def certify(
    exam: Examination, workers: Workers, *, minutes: float | None = None, progress: Progress = SILENT
) -> Certified:
    """Train what is not trained yet, and write ``certificate.json`` beside the rows.

    The same call goes on where an earlier one stopped: finished trainings are kept. A certificate that was there is
    replaced in one step, after everything is measured.

    Args:
        exam: what is asked.
        workers: where the trainings run.
        minutes: begin no training after so long; the certificate then says what is missing.
        progress: told after every training.

    Raises:
        InputError: fewer than two models are finished on every dataset.
        RecdistillError: nothing is finished, because every training failed.
    """
    datasets = datasets_of(exam, progress)
    outcome = run_grid(cells_of(exam, datasets), workers, minutes=minutes, progress=progress)
    if outcome.failed and not outcome.done:
        key, error = next(iter(outcome.failed.items()))
        raise RecdistillError(f"every training failed; the first was {key}: {error.strip().splitlines()[-1]}")
    certificate = certificate_of(exam, datasets)
    certificate.save(exam.distilled)
    return Certified(certificate, outcome)
