"""recdistill evaluate."""

from pathlib import Path
from typing import Any, Literal

from recdistill.cli.bars import progress_bars
from recdistill.cli.clicks import MODEL, evaluate_clicks
from recdistill.cli.folders import cache_folder, kind_of, require_kind
from recdistill.cli.materials import require_same_data
from recdistill.cli.messages import print_json, print_table
from recdistill.cli.options import Flag, Seed
from recdistill.data.development import histories_of
from recdistill.data.prepared import PreparedDataset
from recdistill.data.sequences import evaluation_cases
from recdistill.data.text import Catalogue
from recdistill.errors import InputError, choose
from recdistill.evaluation.metrics import CUTOFFS, METRICS
from recdistill.evaluation.protocols import PROTOCOLS
from recdistill.evaluation.protocols import evaluate as evaluate_model
from recdistill.training.checkpoint import load_model

PARTS: dict[str, Literal["test", "valid"]] = {"test": "test", "valid": "valid"}
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
    part: str = "test",
    seed: Seed = 0,
    json: Flag = False,
) -> None:
    """Score a model on held-out events: hit rate (HR), NDCG and MRR at 5, 10 and 20; AUC and log loss of clicks.

    Parameters
    ----------
    model
        Folder written by recdistill train.
    prepared
        The prepared dataset that its data was made from; any, for a model that reads texts. For a model of clicks: a
        file with a block of clicks, or a folder of them.
    protocol
        full (all items) or uni100 (100 sampled items; for comparison with papers that use it).
    part
        test or valid.
    seed
        Seed of the sampled items of uni100.
    json
        Print the result as JSON.
    """
    if kind_of(model) == MODEL:
        evaluate_clicks(model, prepared, as_json=json)
        return
    choose("--protocol", protocol, PROTOCOLS)
    where = choose("--part", part, PARTS)
    require_kind("MODEL", model, "model")
    require_kind("PREPARED", prepared, "prepared dataset")
    trained, about = load_model(model)
    dataset = PreparedDataset.open(prepared)
    if trained.reads_text:  # it knows no item by number, and may meet others than those it was trained on
        trained.attach(Catalogue(dataset.items(), cache_folder(None)))
    else:
        require_same_data(prepared, dataset.hash, about.get("data_hash"))
    cases = evaluation_cases(histories_of(dataset), where)
    if len(cases) == 0:
        raise InputError(f"{prepared}: has no {part} events to score; prepare it with another --split")
    with progress_bars() as progress:
        metrics = evaluate_model(trained, cases, protocol=protocol, seed=seed, progress=progress).metrics()
    facts = {"model": trained.name, "trained_on": about.get("trained_on", "unknown data"), "items": about.get("items")}
    if json:
        print_json(facts | {"protocol": protocol, "part": part, "cases": len(cases), "metrics": metrics})
    else:
        show_metrics(metrics, facts, f"{part} part, {len(cases):,} events: {MEANING[protocol]}")


def show_metrics(metrics: dict[str, float], facts: dict[str, Any], how: str) -> None:
    """Print the metrics of a model, one line per metric and one column per cutoff."""
    data = "all data" if facts["trained_on"] == "full" else facts["trained_on"]
    rows = [[name, *(f"{metrics[f'{name}@{k}']:.4f}" for k in CUTOFFS)] for name in METRICS]
    print_table(f"{facts['model']} trained on {data}, {how}", ["metric", *(f"@{k}" for k in CUTOFFS)], rows)
