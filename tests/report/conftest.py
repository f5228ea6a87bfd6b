"""Certified datasets on disk, small ones: invented rows and figures, a real split of a made-up log."""

from collections.abc import Callable
from pathlib import Path

import polars as pl
import pytest
import torch

from recdistill.certificate.record import Certificate
from recdistill.data.distilled import DistilledDataset, Manifest, Source, current_versions
from recdistill.data.prepared import PreparedDataset, PrepareSpec, prepare
from recdistill.data.rows import Rows
from reference.certificates import certificate, subject_of
from reference.rows import R, V, make

Make = Callable[..., Path]
TITLE = "<script>alert('x')</script> & \"friends\""
"""The title of the first item."""


def write_log(path: Path) -> Path:
    """Return a CSV file of seven users who walk round nine items; three of them hold the first rows as they are."""
    walks = [
        [3, 1, 9, 2, 5, 6],
        [5, 9, 1, 2, 3],
        [4, 4, 4, 1, 8],
        *([(u + s) % V + 1 for s in range(6)] for u in range(4)),
    ]
    rows = ["user_id,item_id,timestamp"]
    for user, walk in enumerate(walks):
        rows += [f"u{user},{item},{1000 * user + 10 * place}" for place, item in enumerate(walk)]
    path.write_text("\n".join(rows) + "\n")
    return path


@pytest.fixture(scope="session")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A prepared dataset of nine items."""
    folder = tmp_path_factory.mktemp("prepared")
    prepare(write_log(folder / "log.csv"), folder / "log", PrepareSpec(repeats="keep", duplicates="keep"))
    return folder / "log"


@pytest.fixture(scope="session")
def certified(prepared: Path, tmp_path_factory: pytest.TempPathFactory) -> Make:
    """Return a function that writes a distilled dataset of a kind anew, with a certificate of given options."""

    def write(kind: str = "tucker", name: str = "made", rows: Rows | None = None, **options: object) -> Path:
        data = PreparedDataset.open(prepared)
        rows = rows or make(kind)
        source = Source(
            name=data.name,
            hash=data.hash,
            users=data.num_users,
            items=data.num_items,
            train_interactions=int(data.manifest["train_interactions"]),
            train_bytes=data.train_bytes,
        )
        manifest = Manifest(
            kind=kind,
            method="td3",
            parameters={"epochs": 3, "pool": [0, 1]},
            num_rows=len(rows),
            length=rows.length,
            source=source,
            teacher={"model": "sasrec", "config": {"max_seq_len": 8}},
            seed=0,
            seconds={"teacher": 1.0, "distill": 2.0},
            peak_mb=100.0,
            versions=current_versions(),
            trace=[{"outer_loss": 2.0 - step / 5, "valid_MRR@10": 0.1 * step} for step in range(4)],
        )
        titles = [TITLE, *(f"Item {item}" for item in range(2, V + 1))]
        ids = list(range(1, V + 1))
        items = pl.DataFrame({"item": ids, "item_id": [f"i{one}" for one in ids], "title": titles})
        folder = tmp_path_factory.mktemp("certified") / name
        DistilledDataset(rows, torch.randn(V, R, generator=torch.Generator().manual_seed(5)), items, manifest).save(
            folder
        )
        made: Certificate = certificate(about=subject_of(folder), **options)  # type: ignore[arg-type]
        made.save(folder)
        return folder

    return write
