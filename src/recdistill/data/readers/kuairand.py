"""KuaiRand logs: impressions of videos with the label ``is_click``.

A folder is read with all its ``log_standard_*.csv`` (in the folder or in ``data/`` below);
``log_random_*.csv`` has another exposure policy and is read only when its path is given. All columns are
kept. Rows are ordered by ``time_ms``. Reference: C. Gao et al., KuaiRand: An Unbiased Sequential
Recommendation Dataset with Randomly Exposed Videos, CIKM 2022.
"""

from pathlib import Path

import polars as pl

from recdistill.data.log import InteractionLog, log_name, make_log
from recdistill.data.origin import Origin
from recdistill.data.readers.base import Reader, ReadOptions, files_in
from recdistill.data.readers.text import Layout, head, need_columns, read_attributes, read_text
from recdistill.errors import DataError

NEEDS = "file log_standard_*.csv with columns user_id,video_id,time_ms,is_click"
NAMES = {"user_id": "user_id", "item_id": "video_id", "timestamp": "time_ms", "label": "is_click"}
_CSV = Layout(separator=",", quoted=True)


def _is_log(file: Path) -> bool:
    return file.suffix == ".csv" and file.name.startswith("log_standard")


def _logs(path: Path) -> list[Path]:
    """Return the standard logs of a folder or of ``data/`` below it."""
    return files_in(path, _is_log) or files_in(path / "data", _is_log)


def sniff(path: Path) -> bool:
    """Return whether this is a KuaiRand log, by name or header, or a folder with one."""
    if path.is_dir():
        return bool(_logs(path))
    header = set(next(iter(head(path, 1)), "").split(","))
    return path.suffix == ".csv" and (_is_log(path) or {"video_id", "time_ms"} <= header)


def inputs(path: Path) -> list[Path]:
    """Return the logs, then the feature tables beside them."""
    logs = [path] if path.is_file() else _logs(path)
    if not logs:
        raise DataError(f"holds no {NEEDS}", fix="check the folder, or pass another --format", path=path)
    return [
        *logs,
        *_features(logs[0].parent, "video_features_basic"),
        *_features(logs[0].parent, "user_features"),
    ]


def _features(folder: Path, start: str) -> list[Path]:
    """Return the feature tables whose names begin with ``start``."""
    return files_in(folder, lambda f: f.suffix == ".csv" and f.name.startswith(start))


def read(path: Path, options: ReadOptions) -> InteractionLog:
    """Return the log of KuaiRand."""
    files = inputs(path)
    logs = [f for f in files if not f.name.startswith(("video_features", "user_features"))]
    tables = [read_text(file, _CSV) for file in logs]
    for file, (frame, _) in zip(logs, tables, strict=True):
        need_columns(
            file,
            frame.columns,
            tuple(NAMES.values()),
            "restore the header of KuaiRand, or use --format table",
        )
    whole = pl.concat([frame for frame, _ in tables], how="diagonal")
    whole = whole.rename({"video_id": "item_id"}).with_columns(
        pl.col("time_ms").alias("timestamp"), pl.col("is_click").alias("label")
    )
    return make_log(
        whole,
        name=log_name(path),
        items=_table(files, "video_features", "video_id", "item_id"),
        users=_table(files, "user_features", "user_id", "user_id"),
        origin=Origin(parts=tuple(part for _, part in tables), names=dict(NAMES)),
        time_unit=options.time_unit or "ms",
        duplicates=options.duplicates,
    )


def _table(files: list[Path], start: str, source: str, key: str) -> pl.DataFrame | None:
    """Return the feature table whose file begins with ``start``, ids under our names."""
    found = next((file for file in files if file.name.startswith(start)), None)
    return read_attributes(found, _CSV, source, key) if found else None


READER = Reader(name="kuairand", needs=NEEDS, sniff=sniff, inputs=inputs, read=read)
