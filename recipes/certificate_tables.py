"""Tables of certificates, and of how often their intervals hold."""

from collections.abc import Callable
from typing import Any

from recipes.grid_tables import interval, markdown, of

Row = dict[str, Any]
NAME = "certificate_td3_ml100k"


def datasets(found: Row) -> str:
    """Return what each dataset is worth, beside all data."""
    certificate = found["certificate"]
    ceiling = [certificate["ceiling"][group] for group in ("all", "unused")]
    taus = ["-" if one is None or one["tau"] is None else f"{one['tau']:.2f}" for one in ceiling]
    lines = []
    for dataset in certificate["datasets"]:
        whole = dataset["kind"] == "all"
        name = "all data, half beside half" if whole else f"`{dataset['name']}`"
        line = [f"{name}, {dataset['rule']}" if dataset["rule"] else name, f"{dataset['bytes']:,}"]
        line += [interval(dataset["mean_ratio"][group]) for group in ("all", "unused")]
        ranked = [dataset["fidelity"][group] for group in ("all", "unused")]
        line += taus if whole else ["-" if one is None else interval(one["tau"]) for one in ranked]
        lines.append(line + _decisions(ranked[0]) + [_gain(dataset["gain"])])
    names = ["trained on", "bytes", "mean ratio", "ratio, unused", "tau", "tau, unused", "pairs right", "best found"]
    return markdown([*names, "regret, %", "gain of TD3, points"], lines)


def _decisions(ranked: Row | None) -> list[str]:
    if ranked is None:
        return ["-", "-", "-"]
    right = ranked["pairwise_accuracy"]
    best = "yes" if ranked["top_1"] else "no"
    return ["-" if right is None else f"{right:.2f}", best, interval(ranked["regret"], 100, 1)]


def _gain(gain: Row | None) -> str:
    return "-" if gain is None else interval(gain["difference"], 100)


def models(found: Row) -> str:
    """Return the score of every model on everything."""
    certificate = found["certificate"]
    named = [dataset["name"] for dataset in certificate["datasets"]]
    lines = []
    for judge in certificate["judges"]:
        scores = [
            next(score for score in dataset["scores"] if score["model"] == judge["name"])
            for dataset in certificate["datasets"]
        ]
        seeds = min(len(score["seeds"]) for score in scores)
        figures = [interval(score["mean"], 100, 1) for score in scores]
        lines.append([f"`{judge['name']}`", "used" if judge["used"] else "", str(seeds), *figures])
    return markdown(["model", "in distillation", "seeds", *(f"`{name}`" for name in named)], lines)


def headline(found: Row) -> str:
    """Return the certificate in words."""
    return f"> {found['headline']}\n"


TABLES: dict[str, Callable[[], str]] = {
    "certificate_headline": of(NAME, headline),
    "certificate_datasets": of(NAME, datasets),
    "certificate_models": of(NAME, models),
}
