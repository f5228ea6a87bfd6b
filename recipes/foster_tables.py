"""Tables of FOSTER's results."""

from collections.abc import Callable
from typing import Any

from recipes.foster_published import shares
from recipes.grid_tables import Row, interval, markdown, of, seeds

METRICS = ("HR@10", "NDCG@10", "HR@20", "NDCG@20")
HEADS = ("R@10", "N@10", "R@20", "N@20")


def figure(value: Row, digits: int = 2) -> str:
    """Return a mean in percent, with its interval where there are several seeds."""
    mean, low, high = (f"{100 * value[name]:.{digits}f}" for name in ("mean", "low", "high"))
    return mean if len(value["values"]) == 1 else f"{mean} [{low}, {high}]"


def what(row: Row) -> str:
    """Return what a row is called: the bi-level gradient has a name of its own."""
    return str(row["label"] or row["method"])


def size(row: Row) -> str:
    """Return the bytes of rows alone; what every artifact holds besides is the same."""
    return f"{row['bytes']:,}" if row["method"] == "full" else f"{row['bytes_without_item_factor']:,}"


def main_table(found: Row) -> str:
    """Return every row of table 2, each also as a share of full data, beside the share that is published."""
    ratios = {entry["first"]: entry for entry in found["of_full"]}
    lines = []
    for row in found["rows"]:
        whole = row["method"] == "full"
        dataset = row["dataset"].removesuffix("-text")
        same = not whole and row["kind"] == "budget" and row["budget"] == row["published_budget"]
        told = shares(dataset, "HR@10").get(what(row)) if same else None
        entry = ratios.get(row["name"])
        ratio = interval(entry["ratio"] if entry else None)
        names = [dataset, f"`{what(row)}`", "all" if whole else row["budget"], size(row), seeds(row)]
        scores = [figure(row["metrics"][metric]) for metric in METRICS]
        lines.append([*names, *scores, ratio, "-" if told is None else f"{told:.2f}"])
    names = ["dataset", "trained on", "sequences", "bytes", "seeds", *HEADS]
    return markdown([*names, "R@10 of full data", "published"], lines)


def comparisons(found: Row) -> str:
    """Return FOSTER beside each other row."""
    lines = []
    for entry in found["comparisons"]:
        dataset, _, first = entry["first"].split("/")
        second = entry["second"].split("/")[2]
        names = [text.removesuffix("-text-random-judging") for text in (first, second)]
        figures = [interval(entry["difference"], 100), interval(entry["ratio"]), f"{entry['p_holm']:.3f}"]
        lines.append([dataset.removesuffix("-text"), *(f"`{name}`" for name in names), str(entry["seeds"]), *figures])
    return markdown(["dataset", "rows", "beside", "seeds", "difference, points", "ratio", "p (Holm)"], lines)


def cold(found: Row) -> str:
    """Return recall for items that no training event has."""
    lines = []
    for entry in found["cold_items"]:
        dataset, _, name = entry["name"].split("/")
        score = figure(entry)
        said = name.removesuffix("-text-random-judging").replace("full-text-random-windows", "full")
        lines.append([dataset.removesuffix("-text"), f"`{said}`", f"{entry['events']:,}", str(len(entry["values"])), score])
    return markdown(["dataset", "trained on", "events", "seeds", "R@10"], lines)


def targets(found: Row) -> str:
    """Return what was aimed at and what was reached."""
    lines = [
        [entry["what"], f"{entry['published']:g}", f"{entry['measured']:.3g}", "yes" if entry["met"] else "**missed**"]
        for entry in found["targets"]
    ]
    return markdown(["what", "target", "measured", "met"], lines)


TABLES: dict[str, Callable[[], str]] = {
    "foster": of("foster", main_table),
    "foster_comparisons": of("foster", comparisons),
    "foster_cold": of("foster", cold),
    "foster_targets": of("foster", targets),
}
