"""The certificate of TD3 30x50 on ML-100k: eleven models, five seeds, controls at equal bytes.

    make results/certificate_td3_ml100k.json

Makes the data, the teacher and the distilled dataset of seed 0 where they are not there yet, trains every model on
everything, and writes the certificate beside the rows, its report into ``runs/``, and the result. What is finished is
kept, so that it can be stopped and started again; ``--collect`` writes what is finished and says what is missing.
"""

import argparse
import sys
from pathlib import Path
from typing import Any

from recdistill.certificate.certify import certify
from recdistill.certificate.headline import headline
from recdistill.certificate.measure import certificate_of
from recdistill.certificate.record import Certificate, Dataset, Score
from recdistill.certificate.trainings import Examination, datasets_of
from recdistill.errors import RecdistillError
from recdistill.report.page import write_report
from recdistill.storage import read_json
from recdistill.study.grid import run_grid
from recdistill.study.local import LocalProcesses
from recipes.datasets import ML_100K
from recipes.jobs import Artifact
from recipes.places import Place, Prepare
from recipes.plans import Method
from recipes.record import write_result

NAME = "certificate_td3_ml100k"
PLACE = Place(ML_100K, ML_100K.main[1], 0)
ARTIFACT = Artifact(PLACE, Method(ML_100K.td3(ML_100K.main)))
SEEDS = 5


def examination() -> Examination:
    """Return what is certified, once the distilled dataset is there."""
    return Examination(
        distilled=ARTIFACT.folder,
        prepared=ML_100K.folder / "prepared",
        folder=ML_100K.folder / "study",
        cache=PLACE.teachers,
        seeds=SEEDS,
        recipe=ML_100K.judging,
    )


def rows_of(certificate: Certificate) -> list[dict[str, Any]]:
    """Return one row per model and dataset, in the shape of all results."""
    return [_row(certificate, dataset, score) for dataset in certificate.datasets for score in dataset.scores]


def _row(certificate: Certificate, dataset: Dataset, score: Score) -> dict[str, Any]:
    setting = certificate.setting
    mean = {"mean": score.mean.value, "low": score.mean.low, "high": score.mean.high, "values": list(score.values)}
    return {
        "method": dataset.method,
        "model": score.model,
        "budget": "full" if dataset.kind == "all" else f"{dataset.num_rows}x{dataset.length}",
        "items": setting.items if dataset.kind != "all" else "random",
        "ranking": setting.protocol,
        "bytes": dataset.bytes,
        "seeds": len(score.seeds),
        "seeds_wanted": len(setting.seeds),
        "metrics": {setting.metric: {name: _rounded(value) for name, value in mean.items()}},
        "seconds": {"train": score.seconds},
        "peak_mb": score.peak_mb,
        "name": f"{dataset.name}/{score.model}",
    }


def _rounded(value: Any) -> Any:
    return [round(entry, 5) for entry in value] if isinstance(value, list) else round(value, 5)


def targets_of(certificate: Certificate) -> list[dict[str, Any]]:
    """Return what was asked of the certificate: its size, and that a control of each kind stands beside it."""
    judges = certificate.judges
    seeds = min(len(score.seeds) for dataset in certificate.datasets for score in dataset.scores)
    asked = (
        ("models, at least", 10, len(judges)),
        ("families of models, at least", 4, len({judge.model for judge in judges})),
        ("seeds of every model on everything, at least", SEEDS, seeds),
        ("controls at equal bytes, at least", 2, sum(one.rule == "equal bytes" for one in certificate.controls)),
    )
    return [
        {"what": what, "published": wanted, "measured": found, "met": found >= wanted} for what, wanted, found in asked
    ]


def write(certificate: Certificate) -> Path:
    """Write the result."""
    facts = read_json(Prepare(ML_100K).path)["data"]
    body = {
        "dataset": facts,
        "seeds": list(certificate.setting.seeds),
        "headline": headline(certificate),
        "missing": list(certificate.missing),
        "cells": len(certificate.missing) + sum(len(s.seeds) for one in certificate.datasets for s in one.scores),
        "rows": rows_of(certificate),
        "targets": targets_of(certificate),
        "certificate": certificate.model_dump(mode="json", exclude={"machine", "versions"}),
    }
    return write_result(NAME, f"make results/{NAME}.json", body)


def line(stage: str, done: int, total: int, note: str = "") -> None:
    """Print the end of a training."""
    print(f"[{stage} {done}/{total}] {note}", flush=True)


def main() -> int:
    """Run what the command line asks for; return 1 where a training failed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workers", type=int, default=2, help="trainings at a time (default: 2)")
    parser.add_argument("--minutes", type=float, help="begin no training after so long")
    parser.add_argument("--collect", action="store_true", help="write the result from what is finished, and stop")
    options = parser.parse_args()
    workers = LocalProcesses(size=options.workers)
    made = run_grid([] if options.collect else [ARTIFACT], workers, progress=line)
    if made.failed:
        raise RecdistillError(f"the distilled dataset was not made: {made.failed}")
    exam, failed = examination(), {}
    if options.collect:
        certificate = certificate_of(exam, datasets_of(exam))
        certificate.save(exam.distilled)
    else:
        found = certify(exam, workers, minutes=options.minutes, progress=line)
        certificate, failed = found.certificate, found.outcome.failed
    page = write_report(ML_100K.folder / f"{NAME}.html", exam.distilled, exam.prepared)
    print(headline(certificate))
    print(page, write(certificate), sep="\n")
    for key, error in failed.items():
        print(f"FAILED {key}\n  {error.strip().splitlines()[-1]}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
