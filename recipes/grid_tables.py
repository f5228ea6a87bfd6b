"""Tables of the grids' results; where a result is not there yet, or not whole, a line says so."""

import re
from collections.abc import Callable
from typing import Any

from recdistill.storage import read_json
from recipes.record import RESULTS

BUDGET = re.compile(r"\d+x\d+")
Row = dict[str, Any]
Lines = list[list[str]]


def result(name: str) -> Row | None:
    """Return a result, or ``None`` where it has not been made."""
    path = RESULTS / f"{name}.json"
    found: Row | None = read_json(path) if path.exists() else None
    return found


def percent(value: dict[str, Any], digits: int = 1) -> str:
    """Return a mean in percent, with its interval where there are several seeds."""
    mean, low, high = (f"{100 * value[name]:.{digits}f}" for name in ("mean", "low", "high"))
    return mean if len(value["values"]) == 1 else f"{mean} [{low}, {high}]"


def interval(value: Row | None, scale: float = 1.0, digits: int = 2) -> str:
    """Return a value with its interval."""
    if value is None:
        return "-"
    middle, low, high = (f"{scale * value[name]:.{digits}f}" for name in ("value", "low", "high"))
    return f"{middle} [{low}, {high}]"


def seeds(row: Row) -> str:
    """Return how many seeds a row has, and how many it should have."""
    return str(row["seeds"]) if row["seeds"] == row["seeds_wanted"] else f"{row['seeds']} of {row['seeds_wanted']}"


def markdown(header: list[str], lines: Lines) -> str:
    """Return a Markdown table; the first column stands left, the others right."""
    rows = [header, ["---", *["---:"] * (len(header) - 1)], *lines]
    return "".join(f"| {' | '.join(row)} |\n" for row in rows)


def reached(entries: list[Row]) -> str:
    """Return what was aimed at, in results or in benchmarks, and what was reached."""
    lines = []
    for entry in entries:
        aim, digits = (entry["target"], 3) if "target" in entry else (f"{entry['published']:g}", 4)
        lines.append([entry["what"], aim, f"{entry['measured']:.{digits}g}", "yes" if entry["met"] else "**missed**"])
    return markdown(["what", "target", "measured", "met"], lines)


def of(name: str, make: Callable[[Row], str]) -> Callable[[], str]:
    """Return a function that makes a table of a result, or says that it is missing or not whole."""

    def table() -> str:
        found = result(name)
        if found is None:
            return f"Not run yet: `make results/{name}.json`.\n"
        lacks = len(found.get("missing", []))
        note = f"\nNot complete: {lacks} of {found['cells']} cells are missing.\n" if lacks else ""
        return make(found) + note

    return table


def parity(found: Row) -> str:
    """Return TD3's figures beside ours."""
    printed = {
        (t["dataset"], t["length"], t["method"], t["budget"], t["metric"], t["table"]): t for t in found["targets"]
    }
    lines = []
    for row in found["rows"]:
        if row["ranking"] != "uni100":
            continue
        line = [row["dataset"], f"`{row['method']}`", row["budget"], str(row["length"]), row["items"], seeds(row)]
        for metric in ("HR@10", "NDCG@10"):
            keys = [(*(row[k] for k in ("dataset", "length", "method", "budget")), metric, table) for table in (2, 3)]
            entries = [printed[key] for key in keys if key in printed]
            theirs = [
                f"{100 * e['published']:.1f} ({'yes' if e['met'] else '**' + e['verdict'] + '**'})" for e in entries
            ]
            line += [percent(row["metrics"][metric]), ", ".join(theirs) or "-"]
        lines.append(line)
    names = ["dataset", "trained on", "sequences", "length", "item table", "seeds"]
    return markdown([*names, "HR@10", "published (matches)", "NDCG@10", "published (matches)"], lines)


def parity_summary(found: Row) -> str:
    """Return how many published figures are matched, by dataset and method."""
    groups: dict[tuple[str, str], list[Row]] = {}
    for target in found["targets"]:
        groups.setdefault((target["dataset"], target["method"]), []).append(target)
    lines = []
    for (dataset, method), group in groups.items():
        counts = [str(sum(t["verdict"] == side for t in group)) for side in ("matches", "above", "below")]
        lines.append([dataset, f"`{method}`", str(len(group)), *counts])
    return markdown(["dataset", "trained on", "figures", "match", "ours above", "ours below"], lines)


def transfer(found: Row) -> str:
    """Return the scores of other students, relative to their own on all data."""
    entries = {
        (*(e[k] for k in ("dataset", "recipe", "model", "items", "ranking")), e["metric"]): e for e in found["ratios"]
    }
    lines = []
    for key in dict.fromkeys(key[:4] for key in entries):
        sampled, full = (entries.get((*key, ranking, "NDCG@10")) for ranking in ("uni100", "full"))
        if sampled is None or full is None:
            continue
        told = sampled["published_ratio"]
        ratios = [interval(sampled["ratio"]), "-" if told is None else f"{told:.2f}", interval(full["ratio"])]
        lines.append([key[0], key[1], f"`{key[2]}`", key[3], str(sampled["seeds"]), *ratios])
    names = ["dataset", "recipe", "student", "item table", "seeds"]
    return markdown([*names, "of full data, NDCG@10 uni100", "published", "of full data, NDCG@10"], lines)


def ablation(found: Row) -> str:
    """Return every variant of TD3."""
    printed = {(t["variant"], t["metric"]): t for t in found["targets"]}
    full = {row["variant"]: row for row in found["rows"] if row["ranking"] == "full"}
    lines = []
    for row in found["rows"]:
        if row["ranking"] != "uni100":
            continue
        target = printed.get((row["variant"], "NDCG@10"))
        told = (
            "-"
            if target is None
            else f"{100 * target['published']:.1f} ({'yes' if target['met'] else target['verdict']})"
        )
        scores = [percent(row["metrics"]["NDCG@10"]), told, percent(full[row["variant"]]["metrics"]["NDCG@10"])]
        lines.append([row["variant"], row["budget"], seeds(row), *scores])
    return markdown(["TD3 with", "sequences", "seeds", "NDCG@10 uni100", "published (matches)", "NDCG@10"], lines)


def cost(found: Row) -> str:
    """Return seconds, megabytes and break-even."""
    lines = []
    for row in found["costs"]:
        seconds = [f"{row[name]:,.1f}" for name in ("distill_s", "train_full_s", "train_synthetic_s")]
        memory = [f"{row[name]:,.0f}" for name in ("distill_mb", "train_full_mb", "train_synthetic_mb")]
        told = row.get("published")
        breaks = ["never" if row["break_even"] is None else f"{row['break_even']:.1f}"]
        breaks.append("-" if told is None else f"{told['break_even']:.1f}")
        lines.append(
            [row["dataset"], f"`{row['method']}`", row["budget"], str(row["seeds"]), *seconds, *memory, *breaks]
        )
    names = ["distil s", "full s", "summary s", "distil MB", "full MB", "summary MB", "pays after", "published"]
    return markdown(["dataset", "method", "sequences", "seeds", *names], lines)


def fair(found: Row) -> str:
    """Return every method and control, by item table, best first."""
    order = ["random", "given", "frozen"]

    def place(row: Row) -> tuple[Any, ...]:
        first = -1 if row["method"] == "full" else order.index(row["items"])
        return (row["dataset"], first, -row["metrics"]["NDCG@10"]["mean"])

    lines = []
    for row in sorted(found["rows"], key=place):
        budget = {"full": "all", "0x0": "-"}.get(row["budget"], row["budget"])
        scores = [percent(row["metrics"][name]) for name in ("HR@10", "NDCG@10")]
        name = f"`{_trained_on(row)}`"
        line = [row["dataset"], row["items"], name, budget, f"{row['bytes']:,}", seeds(row), *scores]
        lines.append(line)
    names = ["dataset", "item table", "trained on", "sequences", "bytes", "seeds"]
    return markdown([*names, "HR@10", "NDCG@10"], lines)


def _trained_on(row: Row) -> str:
    """Return the artifact of a row without its budget, which tells apart what one method makes in several ways."""
    artifact = row["name"].split("/")[2].removesuffix(f"-{row['model']}-{row['items']}-{row['recipe']}")
    return "-".join(part for part in artifact.split("-") if not BUDGET.fullmatch(part))


def fair_comparisons(found: Row) -> str:
    """Return what the learned rows add to each control."""
    lines = []
    for entry in found["comparisons"]:
        dataset, _, first = entry["first"].split("/")
        second = entry["second"].split("/")[2]
        names = [text.replace("-sasrec-", " ").replace("-judging", "") for text in (first, second)]
        effect = "-" if entry["effect"] is None else f"{entry['effect']:.2f}"
        figures = [interval(entry["difference"], 100), interval(entry["ratio"]), effect, f"{entry['p_holm']:.3f}"]
        lines.append([dataset, *(f"`{name}`" for name in names), str(entry["seeds"]), *figures])
    names = ["dataset", "rows", "beside", "seeds", "difference, points", "ratio", "effect", "p (Holm)"]
    return markdown(names, lines)


def size_curve(found: Row) -> str:
    """Return NDCG@10 in full ranking by number of sequences."""
    groups: dict[tuple[str, str], dict[str, str]] = {}
    for row in found["rows"]:
        if row["method"] != "full":
            score = percent(row["metrics"]["NDCG@10"])
            groups.setdefault((row["items"], row["method"]), {})[row["budget"]] = score
    budgets = sorted(
        {budget for scores in groups.values() for budget in scores}, key=lambda text: int(text.split("x")[0])
    )
    lines = [
        [items, f"`{method}`", *(scores.get(budget, "-") for budget in budgets)]
        for (items, method), scores in groups.items()
    ]
    return markdown(["item table", "trained on", *budgets], lines)


def beyond_models(found: Row) -> str:
    """Return each model over itself on all data, by what it was trained on."""
    ratios = {(e["dataset"], e["model"], e["summary"]): e for e in found["models"]}
    summaries = list(dict.fromkeys(entry["summary"] for entry in found["summaries"]))
    lines = []
    for row in found["rows"]:
        if row["method"] == "full":
            mine = [ratios.get((row["dataset"], row["judge"], name)) for name in summaries]
            used = "yes" if row["used"] else "no"
            names = [row["dataset"], f"`{row['judge']}`", used, seeds(row), percent(row["metrics"]["NDCG@10"])]
            lines.append([*names, *(_ratio(entry, row["seeds"]) for entry in mine)])
    names = ["dataset", "model", "in distillation", "seeds", "all data, NDCG@10"]
    return markdown([*names, *(f"`{name}`" for name in summaries)], lines)


def _ratio(entry: Row | None, wanted: int) -> str:
    """Return a ratio, and its seeds where they are fewer."""
    if entry is None:
        return "-"
    few = "" if entry["seeds"] == wanted else f" ({entry['seeds']})"
    return interval(entry["ratio"]) + few


def beyond_summary(found: Row) -> str:
    """Return mean ratios of used and unused models, and how each summary ranks them; all data beside themselves."""
    lines = []
    for entry in found["full_data"]:
        measured = [one for one in found["summaries"] if one["dataset"] == entry["dataset"] and _has_seeds(one)]
        noise = [entry["groups"][group] for group in ("all", "unused")]
        if not measured and noise == [None, None]:
            continue
        count = "-" if noise[0] is None else str(noise[0]["seeds"])
        taus = ["-" if one is None else _figure(one["ceiling"]) for one in noise]
        lines.append([entry["dataset"], "all data, half beside half", "-", count, "-", "-", *taus, "-", "-", "-"])
        for summary in measured:
            groups = summary["groups"]
            size = "-" if summary["bytes"] is None else f"{summary['bytes']:,}"
            line = [entry["dataset"], f"`{summary['summary']}`", size, str(groups["all"]["seeds"])]
            line += [interval(groups[group]["mean_ratio"]) for group in ("used", "unused")]
            ranked = [groups[group]["ranking"] for group in ("all", "unused")]
            line += ["-" if one is None else _figure(one["tau"]) for one in ranked]
            lines.append(line + _decisions(ranked[0]))
    names = ["dataset", "trained on", "bytes", "seeds", "ratio, used", "ratio, not used", "tau", "tau, not used"]
    return markdown([*names, "pairs right", "best found", "regret, %"], lines)


def _has_seeds(summary: Row) -> bool:
    return any(group["seeds"] for group in summary["groups"].values())


def _decisions(ranked: Row | None) -> list[str]:
    if ranked is None:
        return ["-", "-", "-"]
    best = "yes" if ranked["top_1"] else "no"
    return [_figure(ranked["pairwise_accuracy"]), best, f"{100 * ranked['regret']:.1f}"]


def _figure(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}"


def beyond_differences(found: Row) -> str:
    """Return what one summary gives beside another."""
    lines = []
    for entry in found["differences"]:
        names = [entry["dataset"], "not used, mean" if entry["group"] == "unused" else f"`{entry['group']}`"]
        sides = [f"`{entry[side]}`" for side in ("first", "second")]
        figures = [interval(entry["difference"], 100), interval(entry["ratio"])]
        lines.append([*names, *sides, str(entry["seeds"]), *figures])
    return markdown(["dataset", "models", "rows", "beside", "seeds", "difference, points", "ratio"], lines)


def beyond_targets(found: Row) -> str:
    """Return what was aimed at and what was reached."""
    said = {True: "yes", False: "**missed**", None: "-"}
    lines = []
    for entry in found["targets"]:
        measured = "not measured" if entry["measured"] is None else f"{entry['measured']:.4g}"
        lines.append([entry["what"], f"{entry['published']:g}", measured, seeds(entry), said[entry["met"]]])
    return markdown(["what", "target", "measured", "seeds", "met"], lines)


def magazine_filters(found: Row) -> str:
    """Return the nearest filters, and the one that is used."""
    published = found["published"]
    lines = [["published", *(f"{published[name]:,}" for name in ("users", "items", "interactions")), "-"]]
    for entry in [found["used"], *found["filters"][:5], *found["filters_with_dates"][:3]]:
        words = [f"{name} {value}" for name, value in entry["filter"].items()]
        words += [] if entry["before"] is None else [f"before {entry['before']}"]
        said = ", ".join(words).replace("_", " ")
        counts = [f"{entry[name]:,}" for name in ("users", "items", "interactions")]
        lines.append([f"**used:** {said}" if entry is found["used"] else said, *counts, f"{entry['distance']:.3f}"])
    return markdown(["filter", "users", "items", "interactions", "distance"], lines)


TABLES: dict[str, Callable[[], str]] = {
    "parity": of("parity", parity),
    "parity_summary": of("parity", parity_summary),
    "transfer": of("transfer", transfer),
    "ablation": of("ablation", ablation),
    "cost": of("cost", cost),
    "fair": of("fair", fair),
    "fair_comparisons": of("fair", fair_comparisons),
    "beyond_targets": of("beyond", beyond_targets),
    "beyond_models": of("beyond", beyond_models),
    "beyond_summary": of("beyond", beyond_summary),
    "beyond_differences": of("beyond", beyond_differences),
    "size_curve": of("size_curve", size_curve),
    "magazine_filters": of("magazine_filters", magazine_filters),
}
