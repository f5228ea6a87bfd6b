"""recdistill evaluate."""

from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter

from recdistill.cli.messages import print_json, print_table, progress_bars
from recdistill.cli.train import require_same_data
from recdistill.data.development import histories_of
from recdistill.data.prepared import PreparedDataset
from recdistill.data.sequences import evaluation_cases
from recdistill.errors import InputError, choose
from recdistill.evaluation.metrics import CUTOFFS, METRICS
from recdistill.evaluation.protocols import PROTOCOLS
from recdistill.evaluation.protocols import evaluate as evaluate_model
from recdistill.training.checkpoint import load_model

MEANING = {
    "full": "full ranking over all items, items seen before the event excluded",
    "uni100": "ranking against 100 uniform items that the user never touched; flatters every model",
}


def evaluate(
    model: Path,
    prepared: Path,
    /,
    *,
    protocol: str = "full",
    part: Literal["test", "valid"] = "test",
    seed: int = 0,
    json: Annotated[bool, Parameter(negative=())] = False,
) -> None:
    """Score a model on held-out events.

    Parameters
    ----------
    model
        Folder written by recdistill train.
    prepared
        The prepared dataset that its data was made from.
    protocol
        full (all items) or uni100 (100 sampled items).
    part
        test or valid.
    seed
        Seed of the sampled items of uni100.
    json
        Print the result as JSON.
    """
    choose("--protocol", protocol, PROTOCOLS)
    trained, about = load_model(model)
    dataset = PreparedDataset.open(prepared)
    require_same_data(prepared, dataset.hash, about["data_hash"])
    cases = evaluation_cases(histories_of(dataset), part)
    if len(cases) == 0:
        raise InputError(f"{prepared}: has no {part} events to score; prepare it with another --split")
    with progress_bars() as progress:
        metrics = evaluate_model(trained, cases, protocol=protocol, seed=seed, progress=progress).metrics()
    if json:
        facts = {"model": trained.name, "trained_on": about["trained_on"], "protocol": protocol, "part": part}
        print_json(facts | {"cases": len(cases), "metrics": metrics})
        return
    title = f"{trained.name} trained on {about['trained_on']}, {part} part, {len(cases)} events: {MEANING[protocol]}"
    rows = [[name, *(f"{metrics[f'{name}@{k}']:.4f}" for k in CUTOFFS)] for name in METRICS]
    print_table(title, ["metric", *(f"@{k}" for k in CUTOFFS)], rows)
