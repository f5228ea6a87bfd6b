"""recdistill demo."""

from dataclasses import asdict
from pathlib import Path

import torch

from recdistill.cli.bars import progress_bars
from recdistill.cli.folders import check_out, check_writable
from recdistill.cli.messages import print_json, print_table
from recdistill.cli.options import Flag, Seed
from recdistill.cli.workers import cores
from recdistill.demo import RAW_FILES, DemoResult, methods, run_demo
from recdistill.errors import InputError
from recdistill.storage import refuse_existing
from recdistill.study.local import LocalProcesses


def demo(
    *,
    out: Path = Path("demo-out"),
    seed: Seed = 0,
    overwrite: Flag = False,
    json: Flag = False,
) -> None:
    """Run the whole line on a generated dataset, up to a report on what distilling it is worth. About two minutes.

    Parameters
    ----------
    out
        Folder for everything that is made.
    seed
        Seed of everything random.
    overwrite
        Replace an earlier demo in OUT.
    json
        Print the result as JSON.
    """
    check_place(out, overwrite=overwrite)
    torch.set_num_threads(1)  # on tensors this small a second thread costs more than it brings
    with progress_bars() as progress:
        result = run_demo(out, LocalProcesses(size=cores()), seed=seed, progress=progress)
    if json:
        print_json(asdict(result) | {"folder": str(out), "report": str(result.report)})
    else:
        show(result, out)


def check_place(out: Path, *, overwrite: bool) -> None:
    """Raise when the demo would destroy something that it has not made.

    Raises:
        InputError: ``out`` may not be replaced, or cannot be written.
    """
    refuse_existing(out, replace=overwrite)
    check_writable(out)
    names = {method.method for method in methods()}
    written = {"raw", "prepared", "cache", "study", "report.html"} | names
    for folder, known in ((out, written), (out / "raw", set(RAW_FILES))):
        entries = sorted(entry.name for entry in folder.iterdir()) if folder.is_dir() else []
        strange = next((name for name in entries if name not in known and not name.startswith(".")), None)
        if strange is not None:
            raise InputError(f"{folder}: holds {strange!r}, which no demo wrote; give another folder with --out")
    for name in names:
        check_out(out / name, "distilled dataset", overwrite=True)


def show(result: DemoResult, out: Path) -> None:
    """Print the table of the demo, and how to read it."""
    rows = [
        [row.trained_on, row.items, f"{row.hr:.3f}", f"{row.ndcg:.3f}", f"{row.bytes or 0:,}", f"{row.seconds:.1f}"]
        for row in result.rows
    ]
    columns = ["trained on", "item table", "HR@10", "NDCG@10", "bytes", "training s"]
    print_table("SASRec on held-out events, ranked against all items (seen ones excluded)", columns, rows)
    print(
        "random: the item table is learnt from those rows alone. given, frozen: it comes from the model trained on\n"
        "all data, so that much of the accuracy is the table's (see untrained): why the controls stand beside TD3."
    )
    print(f"The model trained on all data beats popularity by {result.margin:.2f} HR@10, as it must on this log.")
    print(f"TD3, by its certificate: {result.headline}")
    print(f"Done in {result.seconds:.0f} s. Everything lies in {out}; the report, for a browser: {result.report}")
