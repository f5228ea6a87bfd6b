"""Tables of FOSTER's results."""

from collections.abc import Callable

from recipes.grid_tables import Row, interval, markdown, of, percent, reached, result, seeds

METRICS = ("HR@10", "NDCG@10", "HR@20", "NDCG@20")
HEADS = ("R@10", "N@10", "R@20", "N@20")


def figure(value: Row) -> str:
    """Return a mean in percent, as precisely as scores of some percent are told apart."""
    return percent(value, 2)


def dataset(row: Row) -> str:
    """Return a dataset without what all of them are called."""
    return str(row["dataset"]).replace("-text", "")


def what(row: Row) -> str:
    """Return what a row is trained on: the rows at the start and those of the bi-level gradient by their own names."""
    return str(row.get("label") or row["method"])


def sequences(row: Row) -> str:
    """Return how many sequences a row has, and how long they are."""
    return {"full": "all", "0x0": "-"}.get(row["budget"], str(row["budget"]))


def size(row: Row) -> str:
    """Return the bytes of rows alone; the item factor is the same in every artifact."""
    return f"{row['bytes' if row['method'] == 'full' else 'bytes_without_item_factor']:,}"


def called(name: str) -> str:
    """Return the artifact that a cell's student was trained on."""
    student = name.split("/")[2]
    return f"`{student.replace('full-text-random-windows', 'full').removesuffix('-text-random-judging')}`"


def main_table(found: Row) -> str:
    """Return every row of table 2, each also as a share of full data, beside the share that is published."""
    shares = {entry["name"]: entry for entry in found["shares"]}
    order = list(dict.fromkeys(row["dataset"] for row in found["rows"]))
    lines = []
    for row in sorted(found["rows"], key=lambda row: order.index(row["dataset"])):
        names = [dataset(row), f"`{what(row)}`", sequences(row), size(row), seeds(row)]
        entry = shares.get(row["name"], {"ratio": None, "published": None})
        told = "-" if entry["published"] is None else f"{entry['published']:.2f}"
        scores = [figure(row["metrics"][metric]) for metric in METRICS]
        lines.append([*names, *scores, interval(entry["ratio"]), told])
    names = ["dataset", "trained on", "sequences", "bytes", "seeds", *HEADS]
    return markdown([*names, "R@10 of full data", "published"], lines)


def comparisons(found: Row) -> str:
    """Return FOSTER beside each other row."""
    lines = []
    for entry in found["comparisons"]:
        names = [called(entry["first"]), called(entry["second"])]
        figures = [interval(entry["difference"], 100), interval(entry["ratio"]), f"{entry['p_holm']:.3f}"]
        where = entry["first"].split("/")[0].replace("-text", "")
        lines.append([where, *names, str(entry["seeds"]), *figures])
    return markdown(["dataset", "rows", "beside", "seeds", "difference, points", "ratio", "p (Holm)"], lines)


def cold(found: Row) -> str:
    """Return recall for items that no training event has."""
    lines = []
    for entry in found["cold_items"]:
        where = entry["name"].split("/")[0].replace("-text", "")
        sizes = [f"{entry['events']:,}", str(len(entry["values"]))]
        lines.append([where, called(entry["name"]), *sizes, figure(entry)])
    return markdown(["dataset", "trained on", "events", "seeds", "R@10"], lines)


def targets(found: Row) -> str:
    """Return what was aimed at and what was reached."""
    return reached(found["targets"])


def ablation(found: Row) -> str:
    """Return every variant of FOSTER on Games, and the layers on its dense part."""
    options = [row for row in found["rows"] if row["variant"]]
    lines = []
    for row in options:
        scores = [figure(row["metrics"][metric]) for metric in METRICS]
        lines.append([row["variant"].replace("_", " "), sequences(row), seeds(row), *scores, cost(row)])
    return markdown(["FOSTER with", "sequences", "seeds", *HEADS, "distil s"], lines)


def layers(found: Row) -> str:
    """Return full data, the start and FOSTER by how much of the encoder is trained."""
    lines = []
    for row in found["rows"]:
        if not row["variant"]:
            scores = [figure(row["metrics"][metric]) for metric in METRICS]
            trained = row["dataset"].removeprefix("games-dense-")
            lines.append([trained, f"`{what(row)}`", seeds(row), *scores, cost(row)])
    return markdown(["layers trained", "trained on", "seeds", *HEADS, "distil s"], lines)


def transfer(found: Row) -> str:
    """Return students of other architectures, each beside its own score on all data."""
    shares = {entry["first"]: entry["ratio"] for entry in found["ratios"]}
    lines = []
    for row in found["rows"]:
        scores = [figure(row["metrics"][metric]) for metric in METRICS]
        names = [dataset(row), row["model"], f"`{what(row)}`", seeds(row)]
        lines.append([*names, *scores, interval(shares.get(row["name"]))])
    return markdown(["dataset", "student", "trained on", "seeds", *HEADS, "R@10 of its full data"], lines)


def cost(row: Row) -> str:
    """Return the seconds of a distillation."""
    seconds = row["seconds"].get("distill")
    return "-" if seconds is None else f"{seconds:,.0f}"


def numbers(found: Row) -> str:
    """Return FOSTER, TD3 and controls on item numbers."""
    lines = []
    for row in found["rows"]:
        scores = [figure(row["metrics"][metric]) for metric in ("HR@10", "NDCG@10")]
        lines.append([row["variant"], row["items"], seeds(row), *scores, cost(row)])
    return markdown(["trained on", "item table", "seeds", "HR@10", "NDCG@10", "distil s"], lines)


def steps() -> str:
    """Return time and memory of an outer step by its gradient, and the paper's epochs."""
    found = result("benchmarks/foster_step")
    if found is None:
        return "Not run yet: `python -m benchmarks.foster_step --json`.\n"
    lines = []
    for row in found["rows"]:
        names = [row["way"], row["items"], row["layers"]]
        mine = [f"{row['seconds']:.2f}", f"{row['extra_mb']:,.0f}"] if row["fits"] else ["does not fit", "-"]
        told = [row["published_minutes"], row["published_mb"]]
        lines.append([*names, *mine, *("-" if value is None else f"{value:,}" for value in told)])
    names = ["seconds", "extra MB", "published minutes an epoch", "published MB"]
    return markdown(["gradient", "items", "layers", *names], lines)


def step_targets() -> str:
    """Return what was asked of the step and what was measured."""
    found = result("benchmarks/foster_step")
    return reached([] if found is None else found["targets"])


TABLES: dict[str, Callable[[], str]] = {
    "foster": of("foster", main_table),
    "foster_comparisons": of("foster", comparisons),
    "foster_cold": of("foster", cold),
    "foster_targets": of("foster", targets),
    "foster_ablation": of("foster_ablation", ablation),
    "foster_layers": of("foster_ablation", layers),
    "foster_ids": of("foster_ids", numbers),
    "foster_transfer": of("foster_transfer", transfer),
    "foster_step": steps,
    "foster_step_targets": step_targets,
}
