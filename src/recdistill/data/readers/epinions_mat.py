"""Epinions as published by Tang: a MATLAB matrix of ratings.

Its columns are user, product, category, rating, helpfulness and time bucket.

Time is one of eleven buckets, so there is no clock: rows are ordered by bucket, and within one by row. The
bucket is kept as ``time_bucket``. Reference: J. Tang, H. Gao, H. Liu, mTrust, WSDM 2012.
"""

from pathlib import Path

import numpy as np
import polars as pl
from scipy.io import loadmat, whosmat

from recdistill.data.log import InteractionLog, log_name, make_log
from recdistill.data.origin import Origin, Part
from recdistill.data.readers.base import Reader, ReadOptions, files_in, one_file
from recdistill.data.readers.text import read_bytes
from recdistill.errors import DataError

NEEDS = ".mat file with a matrix 'rating' of six columns"
FIELDS = ("user_id", "item_id", "category", "rating", "helpfulness", "time_bucket")


def _is_matrix(file: Path) -> bool:
    return file.suffix == ".mat"


def sniff(path: Path) -> bool:
    """Return whether this is a .mat file, or a folder with one."""
    return _is_matrix(path) if path.is_file() else bool(files_in(path, _is_matrix))


def inputs(path: Path) -> list[Path]:
    """Return the .mat file."""
    return [one_file(path, _is_matrix, NEEDS)]


def read(path: Path, options: ReadOptions) -> InteractionLog:
    """Return the log of an Epinions matrix."""
    file = inputs(path)[0]
    frame = pl.DataFrame(_matrix(file), schema=list(FIELDS), orient="row")
    frame = frame.with_columns(pl.col("time_bucket").alias("position"))
    names: dict[str, str | int] = {name: number for number, name in enumerate(FIELDS, 1)}
    origin = Origin(parts=(Part(path=file, rows=frame.height),), names={**names, "position": 6})
    return make_log(frame, name=log_name(file), origin=origin, duplicates=options.duplicates)


def _matrix(file: Path) -> np.ndarray:
    """Return the matrix called ``rating``."""
    read_bytes(file)
    try:
        shapes = {name: shape for name, shape, _ in whosmat(file)}
        matrix = loadmat(file, variable_names=["rating"]).get("rating")
    except Exception as error:  # scipy raises many kinds for a file that is not MATLAB's
        raise DataError(
            f"is not a readable MATLAB file ({error})", fix="download or copy it again", path=file
        ) from None
    if matrix is None or matrix.ndim != 2 or matrix.shape[1] != len(FIELDS):
        told = ", ".join(f"{name} {shape}" for name, shape in shapes.items()) or "nothing"
        raise DataError(f"holds {told}", fix=f"give a {NEEDS}: {', '.join(FIELDS)}", path=file, column="rating")
    return np.asarray(matrix)


READER = Reader(name="epinions-mat", needs=NEEDS, sniff=sniff, inputs=inputs, read=read, has_clock=False)
