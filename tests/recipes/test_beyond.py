"""Many models from scratch: what is asked for and in which order, figures against plain means, targets, tables.

Not proved: that the models are good ones; only that every one trains on all data and on a summary.
"""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy import stats
from tiny_grid import LENGTH, do, fake

from recdistill.distill.refined import Refined
from recdistill.evaluation.metrics import ndcg
from recdistill.models import MODELS
from recdistill.storage import read_json, write_json
from recdistill.study.controls import row_bytes
from recipes import beyond, fair, grid_tables
from recipes.beyond import BASIS_BYTES, COMPACT, CONTROL, FULL, HARD, LABEL_RANK, LABELS, OURS, SEEDS, WAVES, Wave
from recipes.cells import full, student
from recipes.collect import find
from recipes.datasets import ML_1M, ML_100K, Dataset
from recipes.jobs import Scored, Student
from recipes.places import Place, Prepare
from recipes.record import as_json
from recipes.zoo import OWN, VARIANTS, ZOO, architecture

UNUSED = ("sasrec_64", "sasrec_128", "gru4rec_32", "gru4rec_128", "narm_128", "bert4rec_64")
SUMMARIES = (OURS, CONTROL, LABELS, COMPACT, HARD)
FORMS = (OURS, COMPACT)
FACTS = {"name": "tiny", "users": 60, "items": 9, "interactions": 99, "train_bytes": 1234, "hash": "0" * 64}


@pytest.fixture
def wave(dataset: Dataset) -> Wave:
    """The recipe on the generated log, said to be prepared."""
    job = Prepare(dataset)
    job.path.parent.mkdir(parents=True)
    write_json(job.path, as_json({"data": FACTS, "settings": job.settings()}))
    return Wave(dataset=dataset, budget=(6, LENGTH), own_ratio=1.0, unused_ratio=0.95)


def ranks(model: str, name: str, seed: int) -> torch.Tensor:
    """Return drawn ranks of 300 users: later models are better on all data, and the control has it the other way."""
    at = list(ZOO).index(model)
    worst = {
        FULL: 40 - 3 * at,
        OURS: 42 - 3 * at,
        CONTROL: 120 + 12 * at,
        LABELS: 45 - 2 * at,
        COMPACT: 43 - 3 * at,
        HARD: 90,
    }[name]
    return torch.from_numpy(np.random.default_rng([seed, at, len(name)]).integers(1, worst, 300))


def put(wave: Wave, seeds: int, *, names: tuple[str, ...] = (FULL, *SUMMARIES), copy: bool = False) -> None:
    """Write cells; with ``copy`` both forms of the own method do exactly what all data do."""
    for seed in range(seeds):
        for name, cells in wave.cells(Place(wave.dataset, LENGTH, seed)).items():
            for model, cell in cells.items():
                if name in names:
                    fake(cell, ranks=ranks(model, FULL if copy and name in FORMS else name, seed))


def result(wave: Wave) -> dict[str, Any]:
    """Return the result as it reads back."""
    made: dict[str, Any] = as_json(beyond.body(beyond.cells(SEEDS, [wave]), [wave]))
    return made


def scores(model: str, name: str, seeds: int) -> np.ndarray:
    """Return NDCG@10 of every seed and user."""
    return np.stack([ndcg(ranks(model, name, seed), 10).numpy() for seed in range(seeds)])


def mean_over(models: tuple[str, ...], name: str, seeds: int) -> np.ndarray:
    return np.array([scores(model, name, seeds).mean() for model in models])


def group(found: dict[str, Any], summary: str, name: str) -> dict[str, Any]:
    entry = find(found["summaries"], summary=summary)
    assert entry is not None
    made: dict[str, Any] = entry["groups"][name]
    return made


def lines(name: str, found: dict[str, Any]) -> list[list[str]]:
    """Return the cells of a table, without header."""
    text = {"models": grid_tables.beyond_models, "summary": grid_tables.beyond_summary}
    text |= {"differences": grid_tables.beyond_differences, "targets": grid_tables.beyond_targets}
    rows = [line.split("|")[1:-1] for line in text[name](found).splitlines()]
    assert len({len(row) for row in rows}) == 1
    return [[cell.strip() for cell in row] for row in rows[2:]]


def test_the_zoo_has_eleven_models_of_five_families() -> None:
    assert len(ZOO) == len(set(ZOO.values())) == 11
    assert {architecture(model) for model in ZOO.values()} == {name for name in MODELS if not MODELS[name].reads_text}
    sizes = set()
    for model in ZOO.values():
        kind = MODELS[architecture(model)]
        made = kind(num_items=20, max_seq_len=8, **ML_100K.config(model), generator=torch.Generator())
        sizes.add((made.name, str(sorted(made.config.items()))))
        if model in ("sasrec_64", "gru4rec_128", "narm_128"):
            assert made.config == kind(num_items=20, max_seq_len=8, generator=torch.Generator()).config
    assert len(sizes) == 11


def test_models_that_the_method_holds_are_told_from_those_it_never_saw() -> None:
    for wave in WAVES:
        groups = wave.groups()
        assert groups["unused"] == UNUSED
        assert set(groups["used"]) == {OWN, "gru4rec_64", "narm_32", "bert4rec_32"} == set(wave.method.families)
        assert groups["all"] == tuple(ZOO)
        assert wave.dataset.config("sasrec") == ML_100K.config("sasrec")


def test_the_waves_are_the_budgets_and_goals_that_were_set() -> None:
    asked = [(wave.dataset.name, wave.budget, wave.own_ratio, wave.unused_ratio) for wave in WAVES]
    assert asked == [("ml-100k", (30, 50), 1.0, 0.95), ("ml-1m", (200, 100), 0.97, 0.93)]


def test_cells_come_seed_by_seed_with_all_data_first_where_noise_is_measured() -> None:
    cells = beyond.cells(SEEDS)
    assert len(cells) == 2 * 5 * 6 * 11
    places = list(dict.fromkeys((cell.place.dataset.name, cell.place.length, cell.place.seed) for cell in cells))
    assert places == [("ml-100k", 50, seed) for seed in SEEDS] + [("ml-1m", 100, seed) for seed in SEEDS]
    for seed in SEEDS:
        mine = [cell for cell in cells if (cell.place.dataset, cell.place.seed) == (ML_100K, seed)]
        whole = [index for index, cell in enumerate(mine) if isinstance(cell, Student) and cell.plan is None]
        assert whole == (list(range(11)) if seed < 2 else list(range(55, 66)))
    assert {cell.items for cell in cells if isinstance(cell, Student)} == {"random"}
    assert {cell.training for cell in cells if isinstance(cell, Student)} == {ML_100K.judging, ML_1M.judging}


def test_the_own_sasrec_shares_its_cells_with_the_fair_grid() -> None:
    others = {cell.key: cell for cell in fair.cells(SEEDS)}
    mine = [cell for cell in beyond.cells(SEEDS) if cell.place.dataset == ML_100K and cell.key in others]
    assert len(mine) == 5 * 5
    assert all(cell.settings() == others[cell.key].settings() for cell in mine)


def test_cells_from_before_variants_still_count_and_names_keep_variants_apart(dataset: Dataset) -> None:
    place = Place(dataset, LENGTH, 0)
    old, other = full(place, "judging"), full(place, "judging", "sasrec_128")
    settings = as_json(old.settings())
    assert settings.pop("architecture") == "sasrec"
    assert settings.keys() == {"data", "model", "training"}
    fake(old)
    write_json(old.path, old.cell() | {"settings": settings})
    assert old.done()
    assert other.settings()["model"] == dict(VARIANTS["sasrec_128"].config)
    assert other.path != old.path
    fake(other)
    assert other.done()
    write_json(other.path, other.cell() | {"settings": as_json(other.settings() | {"architecture": "narm"})})
    assert not other.done()


def test_cells_from_before_an_option_of_a_method_still_count(dataset: Dataset) -> None:
    cell = student(Place(dataset, LENGTH, 0), Refined(num_rows=6, length=LENGTH), "random", "judging")
    fake(cell)
    settings = as_json(cell.settings())
    del settings["data"]["label_rank"]
    write_json(cell.path, cell.cell() | {"settings": settings})
    assert cell.done()
    settings["data"]["revision"] -= 1  # the same options, and another method behind them
    write_json(cell.path, cell.cell() | {"settings": settings})
    assert not cell.done()
    settings["data"]["revision"] += 1
    settings["data"]["window"] += 1
    write_json(cell.path, cell.cell() | {"settings": settings})
    assert not cell.done()


def test_a_variant_predicts_what_its_family_predicts(dataset: Dataset) -> None:
    place = Place(dataset, LENGTH, 0)
    method = dataset.td3((6, LENGTH))
    for model in ("gru4rec_32", "bert4rec_64", "sasrec_128"):
        kind = architecture(model)
        assert full(place, "prefixes", model).training == full(place, "prefixes", kind).training
        made = student(place, method, "random", "parity", model)
        assert made.training == student(place, method, "random", "parity", kind).training


def test_models_train_on_all_data_and_on_each_summary(dataset: Dataset) -> None:
    learns = {"steps_per_epoch": 2, "window": 2, "plain_steps": 1, "judge_steps": 2, "inner_batch_sizes": (6,)}
    few = {"families": ("gru4rec_64",), "peer_epochs": 1, "epochs": 1, **learns}
    wave = Wave(dataset=dataset, budget=(6, LENGTH), own_ratio=1.0, unused_ratio=0.95, options=few)
    assert wave.groups()["used"] == ("gru4rec_64",)
    cells = wave.cells(Place(dataset, LENGTH, 0))
    chosen = [(FULL, "gru4rec_32"), (OURS, "sasrec_128"), (OURS, "popularity"), (LABELS, "narm_32"), (HARD, OWN)]
    do(*(cells[name][model] for name, model in chosen))
    for name, model in chosen:
        cell = cells[name][model].cell()
        assert cell["model"] == ZOO[model]
        assert 0 < cell["metrics"]["full"]["NDCG@10"] < 1
    assert cells[LABELS]["narm_32"].cell()["label"] == LABELS
    found = result(wave)
    assert find(found["models"], model="gru4rec_32") is None  # on all data alone
    assert [target["met"] for target in found["targets"]] == [None] * 10


def test_figures_are_those_of_plain_means(wave: Wave) -> None:
    put(wave, 3)
    found = result(wave)
    for model in ZOO:
        for name in SUMMARIES:
            entry = find(found["models"], model=model, summary=name)
            assert entry is not None
            whole, part = scores(model, FULL, 3).mean(), scores(model, name, 3).mean()
            assert (entry["full"], entry["score"]) == pytest.approx((whole, part), abs=1e-5)
            assert entry["ratio"]["value"] == pytest.approx(part / whole, abs=1e-5)
            assert entry["ratio"]["low"] < part / whole < entry["ratio"]["high"]
            assert (entry["seeds"], entry["used"]) == (3, model not in (*UNUSED, "popularity"))
    for name in SUMMARIES:
        for which, models in (("all", tuple(ZOO)), ("used", wave.groups()["used"]), ("unused", UNUSED)):
            made = group(found, name, which)
            ratios = mean_over(models, name, 3) / mean_over(models, FULL, 3)
            assert made["mean_ratio"]["value"] == pytest.approx(ratios.mean(), abs=1e-5)
            assert (made["models"], made["seeds"]) == (len(models), 3)
            if which != "used":
                tau = stats.kendalltau(mean_over(models, FULL, 3), mean_over(models, name, 3)).statistic
                assert made["ranking"]["tau"] == pytest.approx(tau, abs=1e-5)
                assert made["ranking"]["models"] == len(models)
    assert group(found, OURS, "used")["ranking"] is None


def test_differences_average_models_first_and_pair_users(wave: Wave) -> None:
    put(wave, 2)
    found = result(wave)
    for which, models in ((OWN, (OWN,)), ("unused", UNUSED)):
        entries = [entry for entry in found["differences"] if entry["group"] == which]
        assert [(entry["first"], entry["second"]) for entry in entries] == list(beyond.PAIRS)
        for entry in entries:
            first, second = (mean_over(models, entry[side], 2).mean() for side in ("first", "second"))
            assert entry["difference"]["value"] == pytest.approx(first - second, abs=1e-5)
            assert (entry["seeds"], entry["users"]) == (2, 300)
    gains = np.stack([scores(model, OURS, 2) - scores(model, CONTROL, 2) for model in UNUSED]).mean(axis=(0, 1))
    entry = find(found["differences"], group="unused", first=OURS, second=CONTROL)
    assert entry is not None
    assert entry["effect"] == pytest.approx(gains.mean() / gains.std(ddof=1), abs=1e-4)


def test_a_summary_that_does_what_all_data_do_meets_every_target(wave: Wave) -> None:
    put(wave, 4, copy=True)
    found = result(wave)
    targets = found["targets"]
    assert [target["met"] for target in targets] == [True] * 10
    assert [target["published"] for target in targets] == [1.0, 0.0, 0.95, 0.0, 0.0] * 2
    assert ["refined" in target["what"] for target in targets] == [True] * 5 + [False] * 5
    assert all("compact" in target["what"] for target in targets[5:])
    targets = targets[:5]
    assert [target["measured"] for target in targets[::2]] == [1.0, 1.0, pytest.approx(1 - tau_of_control(4), abs=1e-5)]
    for target, which in ((targets[1], OWN), (targets[3], "unused")):
        entry = find(found["differences"], group=which, first=OURS, second=CONTROL)
        assert entry is not None
        assert target["measured"] == entry["difference"]["low"] > 0
    assert {(target["seeds"], target["seeds_wanted"]) for target in targets} == {(4, 5)}
    assert group(found, OURS, "all")["mean_ratio"] == {"value": 1.0, "low": 1.0, "high": 1.0}
    same = group(found, OURS, "all")["ranking"]
    assert (same["tau"], same["top_1"], same["regret"], same["pairwise_accuracy"]) == (1.0, True, 0.0, 1.0)
    turned = group(found, CONTROL, "all")["ranking"]
    assert turned["tau"] < 0
    assert not turned["top_1"]
    assert turned["regret"] > 0.2
    assert turned["pairwise_accuracy"] < 0.3


def tau_of_control(seeds: int) -> float:
    whole, part = (mean_over(tuple(ZOO), name, seeds) for name in (FULL, CONTROL))
    return float(stats.kendalltau(whole, part).statistic)


def test_targets_that_are_missed_are_said_to_be_missed(wave: Wave) -> None:
    put(wave, 2)
    for seed in range(2):
        cells = wave.cells(Place(wave.dataset, LENGTH, seed))
        for model in ZOO:
            for name in FORMS:
                fake(cells[name][model], ranks=ranks(model, HARD, seed))
            fake(cells[CONTROL][model], ranks=ranks(model, FULL, seed))
    found = result(wave)
    assert [target["met"] for target in found["targets"]] == [False] * 10
    assert [line[-1] for line in lines("targets", found)] == ["**missed**"] * 10


def test_an_equal_summary_gains_nothing_and_ranks_no_worse(wave: Wave) -> None:
    put(wave, 2)
    for cells in (wave.cells(Place(wave.dataset, LENGTH, seed)) for seed in range(2)):
        for model in ZOO:
            for name in (*FORMS, CONTROL):
                fake(cells[name][model], ranks=ranks(model, FULL, cells[name][model].place.seed))
    assert [target["met"] for target in result(wave)["targets"]] == [True, False, True, False, True] * 2


def test_seeds_that_are_not_finished_in_every_model_do_not_count(wave: Wave) -> None:
    put(wave, 3)
    gaps: list[Scored] = [wave.cells(Place(wave.dataset, LENGTH, 2))[OURS]["narm_128"]]
    gaps.append(wave.cells(Place(wave.dataset, LENGTH, 0))[FULL][OWN])
    for cell in gaps:
        cell.path.unlink()
    found = result(wave)
    assert len(found["missing"]) == 2 * 66 + 2
    seeds = {(entry["model"], entry["summary"]): entry["seeds"] for entry in found["models"]}
    assert {key for key, count in seeds.items() if count == 2} == {("narm_128", OURS), *((OWN, s) for s in SUMMARIES)}
    assert [group(found, OURS, name)["seeds"] for name in ("all", "used", "unused")] == [1, 2, 2]
    assert [group(found, HARD, name)["seeds"] for name in ("all", "used", "unused")] == [2, 2, 3]
    noise = find(found["full_data"], dataset="tiny")
    assert noise is not None
    assert (noise["groups"]["all"]["seeds"], noise["groups"]["unused"]["seeds"]) == (2, 3)
    counts = {target["what"].split(": ")[1].split(",")[0]: target["seeds"] for target in found["targets"][:5]}
    assert list(counts.values()) == [2, 2, 1]
    line = next(line for line in lines("models", found) if line[1] == "`narm_128`")
    assert line[3] == "3 of 5"
    assert line[5].endswith("] (2)")
    assert line[6].endswith("]")


def test_one_seed_tells_no_pairs_apart(wave: Wave) -> None:
    put(wave, 1)
    found = result(wave)
    assert find(found["full_data"], dataset="tiny") == {"dataset": "tiny", "groups": {"all": None, "unused": None}}
    ranked = group(found, OURS, "all")["ranking"]
    assert ranked["pairwise_accuracy"] is None
    assert -1 <= ranked["tau"] <= 1
    assert all(target["met"] is not None for target in found["targets"])
    assert lines("summary", found)[0][3:8] == ["-", "-", "-", "-", "-"]


def test_the_noise_of_all_data_is_stated(wave: Wave) -> None:
    put(wave, 2, names=(FULL,))
    found = result(wave)
    noise = find(found["full_data"], dataset="tiny")
    assert noise is not None
    for which, models in (("all", tuple(ZOO)), ("unused", UNUSED)):
        halves = [np.array([scores(model, FULL, 2)[seed].mean() for model in models]) for seed in range(2)]
        assert noise["groups"][which]["ceiling"] == pytest.approx(stats.kendalltau(*halves).statistic, abs=1e-5)
        order = np.sign(halves[0][:, None] - halves[0]) * np.sign(halves[1][:, None] - halves[1])
        assert noise["groups"][which]["pairs_apart"] == int((order > 0).sum()) // 2
        assert noise["groups"][which]["pairs"] == len(models) * (len(models) - 1) // 2
    assert found["models"] == found["differences"] == []
    assert [target["met"] for target in found["targets"]] == [None] * 10
    assert [line[2:] for line in lines("targets", found)] == [["not measured", "0 of 5", "-"]] * 10
    assert all(line[5:] == ["-"] * 5 for line in lines("models", found))


def test_tables_show_the_figures_of_the_result(wave: Wave, tmp_path: Path) -> None:
    put(wave, 2)
    found = result(wave)
    assert len(lines("models", found)) == 11
    line = next(line for line in lines("models", found) if line[1] == "`gru4rec_64`")
    entry = find(found["models"], model="gru4rec_64", summary=OURS)
    assert entry is not None
    assert line[:4] == ["tiny", "`gru4rec_64`", "yes", "2 of 5"]
    assert line[4].startswith(f"{100 * entry['full']:.1f} [")
    assert line[5] == grid_tables.interval(entry["ratio"])
    assert [line[2] for line in lines("models", found)].count("no") == 7
    summary = {line[1]: line for line in lines("summary", found)}
    assert list(summary) == ["all data, half beside half", *(f"`{name}`" for name in SUMMARIES)]
    ours = group(found, OURS, "unused")
    assert summary["`refined`"][5] == grid_tables.interval(ours["mean_ratio"])
    assert summary["`refined`"][7] == f"{ours['ranking']['tau']:.2f}"
    assert summary["`refined`"][2:4] == ["10", "2"]
    assert len(lines("differences", found)) == 10
    assert {row["judge"] for row in found["rows"]} == set(ZOO)
    assert {row["ranking"] for row in found["rows"]} == {"full"}
    stored = tmp_path / "result.json"
    write_json(stored, found)
    assert lines("targets", read_json(stored)) == lines("targets", found)


def test_compact_labels_take_no_more_bytes_and_nearly_as_many() -> None:
    for wave in WAVES:
        sequences, length = wave.compact
        width = int(wave.dataset.sasrec["embedding_dim"])
        whole = wave.budget[0] * row_bytes(length, width)
        used = sequences * row_bytes(length, LABEL_RANK) + BASIS_BYTES * LABEL_RANK * width
        assert length == wave.budget[1]
        assert whole - row_bytes(length, LABEL_RANK) < used <= whole
