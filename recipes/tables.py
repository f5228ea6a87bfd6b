"""Write the tables of the README and the docs from ``results/``.

    make tables

A table stands between ``<!-- table: NAME -->`` and ``<!-- end -->``. Nobody edits it by hand; a test compares.
"""

import re
import statistics
from collections.abc import Callable
from pathlib import Path
from typing import Any

from recdistill.storage import read_json, write_text
from recipes import certificate_tables, diet_tables, foster_tables, grid_tables
from recipes.grid_tables import markdown, percent, reached
from recipes.record import RESULTS, ROOT

PAGES = ("README.md", "docs/results.md", "docs/performance.md", "docs/plan.md")
MARK = re.compile(r"(<!-- table: (?P<name>[a-z0-9_]+) -->\n).*?(<!-- end -->)", re.DOTALL)
Row = dict[str, Any]


def td3_rows() -> list[Row]:
    """Return the rows of the ML-100k recipe."""
    rows: list[Row] = read_json(RESULTS / "td3_ml100k.json")["rows"]
    return rows


def pairs(recipe: str) -> list[tuple[Row, Row]]:
    """Return (uni100, full ranking) rows of one training recipe, best first."""
    chosen = [row for row in td3_rows() if row["recipe"] in (recipe, "prefixes" if recipe == "parity" else recipe)]
    key = ("method", "budget", "items", "recipe")
    full = {tuple(row[k] for k in key): row for row in chosen if row["ranking"] == "full"}
    both = [(row, full[tuple(row[k] for k in key)]) for row in chosen if row["ranking"] == "uni100"]
    return sorted(both, key=lambda pair: (_rank(pair[0]), -pair[1]["metrics"]["NDCG@10"]["mean"]))


def _rank(row: Row) -> int:
    order = ["full", "random", "given", "frozen"]
    return 0 if row["method"] == "full" else order.index(row["items"])


def comparison(recipe: str) -> str:
    """Return the table of all methods under one training recipe."""
    header = ["item table", "trained on", "sequences", "bytes", "HR@10 uni100", "NDCG@10 uni100", "HR@10", "NDCG@10"]
    lines = []
    for sampled, full in pairs(recipe):
        lines.append(
            [
                sampled["items"],
                f"`{sampled['method']}`",
                "all" if sampled["budget"] == "full" else sampled["budget"] if sampled["budget"] != "0x0" else "-",
                f"{sampled['bytes']:,}",
                percent(sampled["metrics"]["HR@10"]),
                percent(sampled["metrics"]["NDCG@10"]),
                percent(full["metrics"]["HR@10"]),
                percent(full["metrics"]["NDCG@10"]),
            ]
        )
    return markdown(header, lines)


def targets() -> str:
    """Return what was aimed at and what was reached."""
    return reached(read_json(RESULTS / "td3_ml100k.json")["targets"])


def engine(name: str) -> Row:
    """Return a result of a benchmark."""
    result: Row = read_json(RESULTS / "benchmarks" / f"{name}.json")
    return result


def engine_targets() -> str:
    """Return what was asked of the engine and what was measured."""
    return reached([entry for name in ("meta_gradient", "outer_step") for entry in engine(name)["targets"]])


def meta_gradient() -> str:
    """Return error, memory and time of the meta-gradient, with a tape and without."""
    header = ["items", "window", "precision", "tape MB", "stepwise MB", "of it states", "error", "tape s", "stepwise s"]
    found: dict[tuple[Any, ...], dict[str, Row]] = {}
    for row in engine("meta_gradient")["rows"]:
        found.setdefault((row["items"], row["window"], row["dtype"]), {})[row["mode"]] = row
    lines = []
    for (items, window, dtype), modes in sorted(found.items()):
        mine, tape = modes["stepwise"], modes.get("taped")
        taped = ["not run", "-"] if tape is None else [f"{tape['extra_mb']:,.0f}", f"{tape['seconds']:.2f}"]
        error = f"{mine['error']:.0e}" if "error" in mine else "-"
        size = [f"{items:,}", str(window), dtype]
        memory = [taped[0], f"{mine['extra_mb']:,.0f}", f"{mine['states_mb']:,.0f}"]
        lines.append([*size, *memory, error, taped[1], f"{mine['seconds']:.2f}"])
    return markdown(header, lines)


def rounding() -> str:
    """Return what single precision costs, against the tape in double precision."""
    rows = engine("meta_gradient")["rounding"]
    lines = [[str(row["window"]), *(f"{row[name]:.0e}" for name in ("tape", "ours", "between"))] for row in rows]
    return markdown(["window", "tape", "stepwise", "between these two"], lines)


def saving_states() -> str:
    """Return what is saved by keeping fewer students or none, and what it costs in time and precision."""
    found = {(row["items"], row["window"], row["dtype"], row["mode"]): row for row in engine("meta_gradient")["rows"]}
    lines = []
    for items, window, dtype, mode in found:
        if mode != "reversible":
            continue
        sizes = [found[items, window, dtype, name] for name in ("stepwise", "few states", mode)]
        memory = [text for row in sizes for text in (f"{row['extra_mb']:,.0f}", f"{row['seconds']:.2f}")]
        errors = [sizes[-1]["rebuild_error"], sizes[-1]["error"]]
        lost = ["lost" if error is None else f"{error:.0e}" for error in errors]
        lines.append([f"{items:,}", str(window), dtype, *memory, *lost])
    names = ["stepwise MB", "s", "few states MB", "s", "reversible MB", "s", "rebuild error", "error"]
    return markdown(["items", "window", "precision", *names], lines)


def outer_step() -> str:
    """Return time and memory of a whole outer step, against the reference."""
    rows = [row for row in engine("outer_step")["rows"] if row["method"] != "tiled"]
    peers = {(row["items"], row["window"]): row for row in rows if row["method"] == "reference"}
    lines = []
    for row in rows:
        peer = peers[row["items"], row["window"]]
        size = [f"{row['items']:,}", f"{row['window']} of {row['inner_steps']}", row["method"]]
        if not row["fits"]:
            lines.append([*size, "does not fit", "-", "-"])
            continue
        ratio = f"{peer['seconds'] / row['seconds']:.1f}" if peer["fits"] else "-"
        lines.append([*size, f"{row['seconds']:.2f}", ratio, f"{row['extra_mb']:,.0f}"])
    header = ["items", "window", "implementation", "seconds", "times faster than the reference", "extra MB"]
    return markdown(header, lines)


def engine_curve() -> str:
    """Return the cost of an outer step in tiles, by the size of the catalogue."""
    rows = [row for row in engine("outer_step")["rows"] if row["method"] == "tiled"]
    lines = [
        [
            f"{row['items']:,}",
            f"{row['seconds']:.1f}",
            f"{1e6 * row['seconds'] / row['items']:.0f}",
            f"{row['weights_mb']:,.1f}",
            f"{row['extra_mb']:,.0f}",
            f"{row['peak_mb'] / 1024:.2f}",
        ]
        for row in rows
    ]
    header = ["items", "seconds", "microseconds an item", "student MB", "extra MB", "whole process GB"]
    return markdown(header, lines)


def profile_step() -> str:
    """Return where the time of an outer step goes."""
    plain, compiled = engine("profile_step")["rows"]
    lines = [["all", "", f"{1e3 * plain['seconds']:.0f}", f"{1e3 * compiled['seconds']:.0f}"]]
    for name, part in plain["parts"].items():
        other = compiled["parts"][name]["seconds"]
        lines.append([name, str(part["calls"]), f"{1e3 * part['seconds']:.0f}", f"{1e3 * other:.0f}"])
    return markdown(["part", "calls", "ms", "ms, compiled"], lines)


def products() -> str:
    """Return how long a second-order product takes, by its way and kernel."""
    rows = engine("profile_step")["products"]
    lines = [
        [row["kernels"], *(f"{1e3 * row[name]:.1f}" for name in ("double_backward", "forward_over_reverse"))]
        for row in rows
    ]
    return markdown(["kernels", "`double_backward` ms", "`forward_over_reverse` ms"], lines)


def plan_error() -> str:
    """Return what plans foretold beside what came, medians over runs."""
    found = engine("plan_error")
    lines = []
    for error in found["errors"]:
        mine = [row for row in found["rows"] if (row["case"], row["stage"]) == (error["case"], error["stage"])]
        middle = {
            name: statistics.median(row[name] for row in mine)
            for name in ("predicted_s", "actual_s", "predicted_mb", "actual_mb")
        }
        seconds = [f"{middle['predicted_s']:.3g}", f"{middle['actual_s']:.3g}"]
        wrong = [f"{error[name]:.0%}" for name in ("median_s", "worst_s")]
        memory = [f"{middle['predicted_mb']:.0f}", f"{middle['actual_mb']:.0f}", f"{error['worst_mb']:.0%}"]
        lines.append([error["case"], error["stage"], *seconds, *wrong, *memory])
    names = ["s foretold", "s", "error", "worst", "MB foretold", "MB", "worst"]
    return markdown(["run", "stage", *names], lines)


TABLES: dict[str, Callable[[], str]] = {
    "td3_ml100k_judging": lambda: comparison("judging"),
    "td3_ml100k_parity": lambda: comparison("parity"),
    "td3_ml100k_targets": targets,
    "engine_targets": engine_targets,
    "meta_gradient": meta_gradient,
    "rounding": rounding,
    "saving_states": saving_states,
    "outer_step": outer_step,
    "engine_curve": engine_curve,
    "profile_step": profile_step,
    "products": products,
    "plan_error": plan_error,
    **grid_tables.TABLES,
    **certificate_tables.TABLES,
    **foster_tables.TABLES,
    **diet_tables.TABLES,
}


def rendered(page: Path) -> str:
    """Return the text of a page with every table made anew."""
    return MARK.sub(lambda found: found[1] + TABLES[found["name"]]() + found[3], page.read_text(encoding="utf-8"))


def main() -> None:
    """Rewrite the tables of all pages."""
    for name in PAGES:
        write_text(ROOT / name, rendered(ROOT / name))


if __name__ == "__main__":
    main()
