"""Tables of DIET's results."""

from collections.abc import Callable

from recipes.click_students import FROZEN
from recipes.grid_tables import Row, markdown, of, reached

NAME = "diet_kuairand"


def score(value: Row | None) -> str:
    """Return the mean of a metric to four places."""
    return "-" if value is None else f"{value['mean']:.4f}".lstrip("0")


def signed(value: Row | None, digits: int = 4) -> str:
    """Return a difference with its interval."""
    if value is None:
        return "-"
    text = f"{value['value']:+.{digits}f}"
    return text if value["low"] is None else f"{text} [{value['low']:+.{digits}f}, {value['high']:+.{digits}f}]"


def source(row: Row) -> str:
    """Return what a row is trained on, without its ratio."""
    return "`" + str(row["source"]).split("-like-")[0].rsplit("-0", 1)[0] + "`"


def ratio(row: Row) -> str:
    """Return the share of the samples that a row has, in percent."""
    if "-like-" in row["source"]:
        return f"bytes of {100 * float(str(row['source']).rsplit('-', 2)[1]):g} %"
    found = str(row["source"]).rsplit("-0", 1)
    return f"{100 * float('0' + found[1]):g} %" if len(found) == 2 else "all"


def number(value: int | None) -> str:
    """Return a count."""
    return "-" if value is None else f"{value:,}"


def tested(found: Row) -> list[Row]:
    """Return what was trained on, scored on the test block, with the metrics of every candidate."""
    rows: dict[str, Row] = {}
    for each in found["rows"]:
        if each["tested_on"] == found["dataset"]["blocks"]:
            shared = {"source": each["method"], "tables": each["items"], "units": each["budget"]}
            row = rows.setdefault(each["name"], each | shared | {"models": {}})
            row["models"][each["model"]] = each["metrics"]
    return list(rows.values())


def mean_of(row: Row, metric: str) -> float:
    """Return the mean of a metric over candidates."""
    values = [scores[metric]["mean"] for scores in row["models"].values()]
    return float(sum(values) / len(values))


def main_table(found: Row) -> str:
    """Return every row with all candidates: mean scores, distance from full data, and how candidates are ranked."""
    ranked = {entry["name"]: entry for entry in found["fidelity"]}
    lines = []
    for row in tested(found):
        if len(row["models"]) < len(found["models"]):
            continue
        entry = ranked.get(row["name"], {})
        rank = [entry.get(name) for name in ("spearman", "tau", "pearson")]
        shown = ["-" if value is None else f"{value:.2f}" for value in rank]
        lost = "-" if "regret_auc" not in entry else f"{entry['regret_auc']:.4f}"
        tables = "own" if row["name"].startswith("full") else row["tables"]
        means = [f"{mean_of(row, metric):.4f}".lstrip("0") for metric in ("auc", "log_loss")]
        log = found["dataset"] if row["name"].startswith("full") else {}
        size = [
            number(log.get("interactions", row["units"])),
            number(log.get("train_bytes", row["bytes"])),
            str(row["seeds"]),
        ]
        lines.append([tables, source(row), ratio(row), *size, *means, signed(entry.get("gap")), *shown, lost])
    names = ["tables", "trained on", "samples", "rows", "bytes", "seeds", "AUC", "log loss", "AUC less full data"]
    return markdown([*names, "Spearman", "tau", "Pearson", "regret"], sorted(lines, key=lambda line: _place(line[0])))


def _place(tables: str) -> int:
    return ("own", FROZEN, "scratch").index(tables)


def candidates(found: Row) -> str:
    """Return the AUC of every candidate on full data and on the main rows."""
    wanted = ["full-scratch", *(f"{name}-0.01-{FROZEN}" for name in ("diet", "random_soft", "random"))]
    inside = next((row["name"] for row in tested(found) if "-like-export-diet-0.01-" in row["name"]), "")
    wanted += ["diet-0.01-scratch", inside, "random_soft-0.01-scratch"]
    rows = {row["name"]: row for row in tested(found)}
    shown = [rows[name] for name in wanted if name in rows]
    heads = [source(row) + (", equal bytes" if "-like-" in row["source"] else "") for row in shown]
    names = [
        f"{head} {'' if row['name'].startswith('full') else row['tables']}".strip()
        for head, row in zip(heads, shown, strict=True)
    ]
    lines = [
        [f"`{model}`", *(score(row["models"].get(model, {}).get("auc")) for row in shown)] for model in found["models"]
    ]
    return markdown(["AUC", *names], lines)


def comparisons(found: Row) -> str:
    """Return DIET beside its controls."""
    lines = []
    for entry in found["comparisons"]:
        tables = entry["first"].rsplit("-", 1)[1]
        share = f"{100 * float(entry['first'].split('-')[1]):g} %"
        lines.append([tables, share, entry["how"], str(entry["seeds"]), signed(entry["difference"])])
    return markdown(["tables", "samples", "random rows with soft labels at", "seeds", "AUC of DIET less theirs"], lines)


def sweep(found: Row) -> str:
    """Return WuKong at every ratio."""
    rows = {row["name"]: row for row in tested(found)}
    full = score(rows.get("full-scratch", {"models": {}})["models"].get("wukong", {}).get("auc"))
    lines = []
    for name, row in rows.items():
        if name.startswith("diet-") and row["tables"] == FROZEN:
            other = rows.get(name.replace("diet-", "random_soft-", 1), {"models": {}})
            both = [score(each["models"].get("wukong", {}).get("auc")) for each in (row, other)]
            lines.append((float(name.split("-")[1]), [ratio(row), number(row["units"]), *both, full]))
    heads = ["samples", "units", "`diet`", "`random_soft`", "`full`"]
    return markdown(heads, [line for _, line in sorted(lines)])


def first_of(scores: Row | None) -> str:
    """Return the AUC of the first seed."""
    return "-" if scores is None else f"{scores['auc']['values'][0]:.4f}".lstrip("0")


def ablation(found: Row) -> str:
    """Return DIET but for one setting, first seed: some candidates on the test, and DeepFM on the block to come."""
    rows = {row["name"]: row for row in tested(found)}
    first: dict[str, Row] = {}
    for entry in found["streams"]:
        if entry["ratio"] == 0.01 and entry["on_memory"]:
            first.setdefault(entry["label"], entry)
    lines = []
    for label, entry in first.items():
        row = rows.get(f"{label}-0.01-{FROZEN}")
        shown = ["-"] * 3 if row is None else [first_of(row["models"].get(model)) for model in PART]
        later = [entry["on_memory"][key] for key in entry["on_memory"]]
        lines.append([f"`{label}`", *shown, f"{sum(later) / len(later):.4f}".lstrip("0"), f"{entry['seconds']:.0f}"])
    return markdown(["", *(f"`{model}`" for model in PART), "`deepfm`, next block", "seconds"], lines)


PART = ("deepfm", "dcnv2", "wukong")


def blocks(found: Row) -> str:
    """Return, block by block, what a model foresees that was trained on all blocks so far, and on the memory."""
    chosen: dict[str, Row] = {}
    for entry in found["streams"]:
        if entry["ratio"] == 0.01 and entry["on_memory"]:
            chosen.setdefault(entry["label"], entry)
    if not chosen:
        return markdown(["block"], [])
    any_one = next(iter(chosen.values()))
    lines = []
    for number_, value in enumerate(any_one["foreseen"], start=1):
        if value is None:
            continue
        own = [entry["on_memory"].get(str(number_ - 1)) for entry in chosen.values()]
        shown = ["-" if each is None else f"{each:.4f}".lstrip("0") for each in own]
        lines.append([str(number_), f"{value:.4f}".lstrip("0"), *shown])
    return markdown(["block", "all blocks before", *(f"`{label}`" for label in chosen)], lines)


def targets(found: Row) -> str:
    """Return what was aimed at and what was reached."""
    return reached(found["targets"])


def cost(found: Row) -> str:
    """Return what a round of candidates costs on the log and on the memory, with and without folding."""
    lines = []
    for row in found["rows"]:
        for tables in ("frozen", "scratch"):
            seconds = [f"{row[name]:,.0f}" for name in ("full_s", f"{tables}_s", "folding_s")]
            times = [f"{row[f'{tables}_{name}']:.1f}" for name in ("times", "times_with_folding", "rounds_to_pay")]
            lines.append([tables, str(row["outer_epochs"]), f"{row['units']:,}", *seconds, *times])
    names = [
        "tables",
        "outer epochs a block",
        "units",
        "on the log, s",
        "on the memory, s",
        "folding, s",
        "times cheaper",
    ]
    return markdown([*names, "with folding", "rounds until it pays"], lines)


def accuracy(found: Row) -> str:
    """Return our models beside FuxiCTR's."""
    sides: dict[tuple[str, int], dict[str, Row]] = {}
    for row in found["rows"]:
        sides.setdefault((row["model"], row["epochs"]), {})[row["side"]] = row["metrics"]
    lines = []
    for (model, epochs), both in sides.items():
        shown = [score(both[side][name]) for name in ("auc", "log_loss") for side in ("recdistill", "fuxictr")]
        lines.append([f"`{model}`", str(epochs), *shown, f"{both['difference']['auc']['mean']:+.4f}"])
    names = ["", "passes", "AUC, ours", "FuxiCTR's", "log loss, ours", "FuxiCTR's", "AUC, ours less theirs"]
    return markdown(names, lines)


def long_stream(found: Row) -> str:
    """Return some blocks of the stream of twenty million rows."""
    lines = []
    last = {row["variant"]: row["block"] for row in found["rows"]}
    for row in [each for each in found["rows"] if each["block"] in (1, 2, 5, 10, 15, last[each["variant"]])]:
        rate = f"{row['rows'] / row['processor_seconds']:,.0f}"
        auc = "-" if row["foreseen_auc"] is None else f"{row['foreseen_auc']:.3f}".lstrip("0")
        sizes = [f"{row['ids']:,}", f"{row['tables_mb']:.0f}", f"{row['peak_mb']:,.0f}"]
        lines.append([row["variant"], str(row["block"]), f"{row['rows_per_second']:,.0f}", rate, *sizes, auc])
    names = ["ids", "block", "rows a second", "a processor second", "number of ids", "tables MB", "peak MB"]
    return markdown([*names, "AUC foreseen"], lines)


TABLES: dict[str, Callable[[], str]] = {
    "diet_main": of(NAME, main_table),
    "diet_candidates": of(NAME, candidates),
    "diet_comparisons": of(NAME, comparisons),
    "diet_sweep": of(NAME, sweep),
    "diet_ablation": of(NAME, ablation),
    "diet_blocks": of(NAME, blocks),
    "diet_targets": of(NAME, targets),
    "diet_cost": of("benchmarks/diet_cost", cost),
    "click_accuracy": of("benchmarks/click_accuracy", accuracy),
    "click_stream": of("benchmarks/click_stream", long_stream),
}
"""Tables by name."""
