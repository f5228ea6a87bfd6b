"""recdistill report."""

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from recdistill.certificate.headline import headline
from recdistill.certificate.record import Certificate
from recdistill.cli.folders import beside as beside_folder
from recdistill.cli.folders import check_writable, require_kind
from recdistill.cli.messages import print_json
from recdistill.cli.options import Flag
from recdistill.errors import InputError
from recdistill.report.page import ENDING, write_report

Folders = Annotated[tuple[Path, ...], Parameter(negative=(), consume_multiple=True, show_default=False)]


def report(
    distilled: Path,
    /,
    *,
    prepared: Path | None = None,
    beside: Folders = (),
    out: Path | None = None,
    overwrite: Flag = False,
    json: Flag = False,
) -> None:
    """Write what a certificate states as one page to read: figures, tables, the synthetic users.

    The page is a single file that needs no network. With --prepared it sets real users beside the rows: leave that out
    to publish the page.

    Parameters
    ----------
    distilled
        Distilled dataset with a certificate, written by recdistill certify.
    prepared
        The prepared dataset that it was made from, to show the real user who is nearest to each row.
    beside
        Other certified datasets of the same split, as points of accuracy against size; may be several.
    out
        File to write; beside DISTILLED, with the ending .report.html, when left out.
    overwrite
        Replace the file.
    json
        Print the result as JSON.
    """
    require_kind("DISTILLED", distilled, "distilled dataset")
    if prepared is not None:
        require_kind("--prepared", prepared, "prepared dataset")
    for folder in beside:
        require_kind("--beside", folder, "distilled dataset")
    path = beside_folder(distilled, ENDING) if out is None else out
    if path.is_file() and not overwrite:
        raise InputError(f"{path}: exists already; choose another name, or pass --overwrite to replace it")
    check_writable(path)
    write_report(path, distilled, prepared, beside=beside)
    told = headline(Certificate.load(distilled))
    if json:
        print_json({"report": str(path), "headline": told})
    else:
        print(told)
        print(f"report: {path}")
