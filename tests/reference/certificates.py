"""Certificates with invented figures: drawn, but like those of a real dataset in size and in how they hang together."""

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from scipy import stats

from recdistill.certificate.measure import short, student_of
from recdistill.certificate.record import (
    Ceiling,
    Certificate,
    Cost,
    Dataset,
    Fidelity,
    Gain,
    Judge,
    Near,
    Score,
    Setting,
    Span,
    Subject,
)
from recdistill.data.distilled import Source, read_manifest, size_in_bytes

FAMILIES = {"sasrec": 0.105, "gru4rec": 0.098, "bert4rec": 0.09, "narm": 0.1}
"""About what a family scores on all data."""
KEPT = {
    "distilled": 0.78,
    "random_soft_3x50": 0.8,
    "random_109x50": 0.58,
    "random_soft_30x50": 0.93,
    "random_30x50": 0.3,
}
"""Part of its accuracy that a model keeps, by dataset."""
RULES = ("equal bytes", "equal bytes", "equal rows", "equal rows")
TRAIN_BYTES = 402_029


def subject() -> Subject:
    """Return a dataset of 30 rows that does not exist."""
    source = Source(
        name="ml-100k", hash="ab" * 32, users=943, items=1682, train_interactions=98_114, train_bytes=TRAIN_BYTES
    )
    return Subject(
        content="cd" * 32,
        method="td3",
        num_rows=30,
        length=50,
        seed=0,
        bytes=259_678,
        item_factor_bytes=215_296,
        source=source,
    )


def subject_of(folder: Path) -> Subject:
    """Return the distilled dataset in a folder, as a certificate names it."""
    manifest, size = read_manifest(folder), size_in_bytes(folder)
    return Subject(
        content=manifest.files["data.safetensors"],
        method=manifest.method,
        num_rows=manifest.num_rows,
        length=manifest.length,
        seed=manifest.seed,
        bytes=size["total"],
        item_factor_bytes=size["item_factor"],
        source=manifest.source,
    )


def judges(count: int, *, used: int = 1, long_names: bool = False) -> tuple[Judge, ...]:
    """Return so many models of five families; the last one only counts."""
    found = []
    for index in range(count - 1):
        family, size = list(FAMILIES)[index % len(FAMILIES)], 16 * (1 + index // len(FAMILIES))
        name = f"{family}_{size}" + ("_with_a_name_that_never_seems_to_end_and_goes_on" if long_names else "")
        config = {"embedding_dim": size, "dropout": 0.2}
        found.append(Judge(name=name, model=family, config=config, used=index < used))
    return (*found, Judge(name="popularity", model="popularity", config={}, used=False))


def certificate(
    *,
    draw: int = 0,
    models: int = 12,
    seeds: int = 3,
    controls: int = 4,
    used: int = 1,
    tau: bool = True,
    ranked: bool = True,
    gain: float | None = None,
    long_names: bool = False,
    missing: int = 0,
    items: str = "random",
    predicted: bool = True,
    about: Subject | None = None,
) -> Certificate:
    """Return a certificate with its checksum.

    Args:
        draw: seed of all figures.
        models, seeds, controls: how many; at most four controls.
        used: models that the method held.
        tau: whether models can be ranked.
        ranked: whether any seed is complete.
        gain: of the distilled dataset over every control; drawn when ``None``.
        long_names: whether names of models are long.
        missing: trainings that are not finished.
        items: item table of students.
        predicted: whether times were foretold.
        about: the dataset; one that does not exist when ``None``.
    """
    rng = np.random.default_rng(draw)
    about = about or subject()
    panel = judges(models, used=used, long_names=long_names)
    truth = {judge.name: FAMILIES.get(judge.model, 0.043) * float(rng.normal(1, 0.06)) for judge in panel}
    names = ["all", *list(KEPT)[: controls + 1]]
    values = {name: _values(rng, name, panel, truth, seeds) for name in names}
    datasets = [
        _dataset(rng, index, name, about, panel, values, tau=tau, ranked=ranked, gain=gain)
        for index, name in enumerate(names)
    ]
    stated = panel[0].name
    return Certificate(
        subject=about,
        setting=_setting(seeds, items),
        judges=panel,
        datasets=tuple(datasets),
        ceiling={
            group: Ceiling(seeds=seeds, tau=0.83 if tau else None, pairs_apart=31, pairs=66) if seeds > 1 else None
            for group in ("all", "unused")
        },
        parts={
            "items": {"head": 101, "torso": 252, "tail": 1329},
            "interactions": {"head": 32_805, "torso": 32_630, "tail": 32_679},
        },
        near_users=Near(median=0.24, minimum=0.06, copied=0.0),
        cost=_cost(datasets),
        student=student_of(stated, range(seeds), values["distilled"][stated]) if seeds > 1 else None,
        predicted=_predicted() if predicted else None,
        missing=tuple(f"distilled {panel[-1 - index % models].name} seed {index}" for index in range(missing)),
        created="2026-01-31T12:00:00Z",
        machine={"cpu": "Some Processor", "cores": 2, "gpu": None, "system": "Linux"},
        versions={"recdistill": "0.1.0", "python": "3.11.7", "torch": "2.13.0"},
    ).sealed()


def _setting(seeds: int, items: str) -> Setting:
    return Setting(
        metric="NDCG@10",
        protocol="full",
        events=943,
        items=items,
        seeds=tuple(range(seeds)),
        max_seq_len=50,
        recipe={"learning_rate": 0.001, "batch_size": 256, "epochs": 200, "patience": 10, "rows": "windows"},
        threads=1,
    )


def _values(
    rng: np.random.Generator, name: str, panel: Sequence[Judge], truth: dict[str, float], seeds: int
) -> dict[str, list[float]]:
    """Return the score of each model in each seed."""
    kept = KEPT.get(name, 1.0)
    found = {}
    for judge in panel:
        own = 1.0 if name == "all" or judge.model == "popularity" else kept * float(rng.normal(1, 0.07))
        noise = rng.normal(1, 0.015, size=seeds)
        found[judge.name] = [short(truth[judge.name] * own * float(one)) for one in noise]
    return found


def span(value: float, reach: float) -> Span:
    """Return a value with an interval of about so much on either side."""
    return Span(value=short(value), low=short(value - 0.9 * reach), high=short(value + 1.1 * reach))


def _dataset(
    rng: np.random.Generator,
    index: int,
    name: str,
    about: Subject,
    panel: Sequence[Judge],
    values: dict[str, dict[str, list[float]]],
    *,
    tau: bool,
    ranked: bool,
    gain: float | None,
) -> Dataset:
    whole, made = index == 0, index == 1
    scores = tuple(_score(rng, judge, values[name][judge.name], values["all"][judge.name], whole) for judge in panel)
    groups = {"all": list(panel), "unused": [judge for judge in panel if not judge.used]}
    method, shape, size = _kind(name, about)
    return Dataset(
        name=name,
        kind="all" if whole else "distilled" if made else "control",
        rule="" if index < 2 else RULES[index - 2],
        method=method,
        num_rows=shape[0],
        length=shape[1],
        bytes=size,
        scores=scores,
        mean_ratio={group: None if whole else _mean_ratio(scores, members) for group, members in groups.items()},
        fidelity={
            group: None if whole or not ranked else _fidelity(values[name], values["all"], members, tau=tau)
            for group, members in groups.items()
        },
        gain=None if made else _gain(values["distilled"], values[name], gain if index > 1 else None),
        items_held={part: short(float(rng.uniform(0.1, 0.9))) for part in ("head", "torso", "tail")},
        near=None
        if whole
        else Near(median=short(float(rng.uniform(0.1, 0.6))), minimum=0.05, copied=0.0 if made else 1.0),
    )


def _kind(name: str, about: Subject) -> tuple[str, tuple[int, int], int]:
    """Return method, rows and length, and bytes of a dataset."""
    if name == "all":
        return "full", (about.source.users, 0), about.source.train_bytes
    if name == "distilled":
        return about.method, (about.num_rows, about.length), about.bytes
    method, _, shape = name.rpartition("_")
    rows, length = map(int, shape.split("x"))
    return method, (rows, length), about.item_factor_bytes + 30_000 + rows * length * (66 if "soft" in method else 2)


def _score(rng: np.random.Generator, judge: Judge, ours: list[float], all_data: list[float], whole: bool) -> Score:
    mean, ratio = float(np.mean(ours)), float(np.mean(ours) / np.mean(all_data))
    epochs = 0 if judge.model == "popularity" else int(rng.integers(12, 40))
    steps = epochs * (24 if whole else 1)
    rise = 1 - np.exp(-np.arange(1, epochs + 1) / 6)
    return Score(
        model=judge.name,
        seeds=tuple(range(len(ours))),
        values=tuple(ours),
        mean=span(mean, 0.08 * mean),
        ratio=None if whole else span(ratio, 0.05 * ratio),
        metrics={"full": {"NDCG@10": mean, "HR@10": 1.9 * mean}, "uni100": {"NDCG@10": min(1.0, 4 * mean)}},
        parts={"head": short(1.7 * mean), "torso": short(0.9 * mean), "tail": short(0.3 * mean)},
        popularity_shift=short(float(rng.normal(0.4, 0.2))),
        coverage=short(float(rng.uniform(0.2, 0.6))),
        gini=short(float(rng.uniform(0.7, 0.95))),
        membership=None if judge.model == "popularity" else span(0.72 if whole else 0.55, 0.02),
        seconds=round(float(rng.uniform(80, 200) if whole else rng.uniform(4, 12)), 3),
        peak_mb=516.4,
        steps=float(steps),
        curve=tuple(round(float(mean * one), 5) for one in rise),
        curve_steps=steps,
    )


def _mean_ratio(scores: Sequence[Score], members: Sequence[Judge]) -> Span | None:
    names = {judge.name for judge in members if judge.model != "popularity"}
    ratios = [score.ratio.value for score in scores if score.model in names and score.ratio is not None]
    return span(float(np.mean(ratios)), 0.03) if ratios else None


def _fidelity(
    ours: dict[str, list[float]], all_data: dict[str, list[float]], members: Sequence[Judge], *, tau: bool
) -> Fidelity | None:
    if len(members) < 2:
        return None
    first = np.array([np.mean(all_data[judge.name]) for judge in members])
    second = np.array([np.mean(ours[judge.name]) for judge in members])
    found = float(stats.kendalltau(first, second).statistic)
    lost = float(1 - first[second.argmax()] / first.max())
    return Fidelity(
        models=len(members),
        seeds=len(ours[members[0].name]),
        tau=Span(value=short(found), low=short(max(-1, found - 0.2)), high=short(min(1, found + 0.1))) if tau else None,
        spearman=short(float(stats.spearmanr(first, second).statistic)) if tau else None,
        pearson=short(float(stats.pearsonr(first, second).statistic)) if tau else None,
        top_1=lost == 0,
        regret=Span(value=short(lost), low=0.0, high=short(lost + 0.02)),
        pairwise_accuracy=0.871 if tau else None,
    )


def _gain(ours: dict[str, list[float]], theirs: dict[str, list[float]], gain: float | None) -> Gain:
    mean = [float(np.mean([np.mean(values) for values in some.values()])) for some in (ours, theirs)]
    value = mean[0] - mean[1] if gain is None else gain
    p = min(1.0, math.exp(-abs(value) / 0.002))
    return Gain(difference=span(value, 0.003), p=short(p), p_holm=short(min(1.0, 3 * p)), seeds=3)


def _cost(datasets: Sequence[Dataset]) -> Cost:
    full, made = (float(np.mean([score.seconds for score in dataset.scores])) for dataset in datasets[:2])
    spent = (231.5, 0.0, 560.4)
    return Cost(
        teacher=spent[0],
        peers=spent[1],
        distill=spent[2],
        full=round(full, 3),
        distilled=round(made, 3),
        break_even=math.ceil(sum(spent) / (full - made)),
    )


def _predicted() -> dict[str, object]:
    return {
        "stages": [
            {"stage": "teacher", "predicted_s": 210.0, "actual_s": 231.5, "predicted_mb": 500, "actual_mb": 516.4},
            {"stage": "distill", "predicted_s": 500.0, "actual_s": 560.4, "predicted_mb": None, "actual_mb": 829.6},
            {"stage": "train", "actual_s": 8.0},
        ]
    }
