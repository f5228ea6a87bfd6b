"""recdistill demo."""

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from recdistill.cli.messages import print_json, print_table, progress_bars
from recdistill.demo import run_demo
from recdistill.storage import refuse_existing


def demo(
    *,
    out: Path = Path("demo-out"),
    seed: int = 0,
    overwrite: Annotated[bool, Parameter(negative=())] = False,
    json: Annotated[bool, Parameter(negative=())] = False,
) -> None:
    """Run the whole line on a generated dataset: prepare, distill, train, evaluate, compare. About a minute.

    Parameters
    ----------
    out
        Folder for everything that is made.
    seed
        Seed of everything random.
    overwrite
        Use OUT although it is not empty.
    json
        Print the result as JSON.
    """
    refuse_existing(out, replace=overwrite)
    with progress_bars() as progress:
        result = run_demo(out, seed, progress)
    if json:
        print_json(asdict(result) | {"folder": str(out), "rows": [asdict(row) for row in result.rows]})
        return
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
    print(
        f"Done in {result.seconds:.0f} s. Everything lies in {out}; look at it with: recdistill inspect {out / 'td3'}"
    )
