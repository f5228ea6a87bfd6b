"""RecBole and the library are given the same task, and their answers are counted alike.

Proved here, without RecBole: every argument of a model is handed over under a name, the stopping rules agree, the log
that is written for RecBole says what the library trains on, ranks are counted by the library's rule, and runs on other
data are refused. Not proved here: that RecBole reads its options as we think, and that the models compute the same; the
benchmark itself checks the second, with RecBole's weights.
"""

import ast
import sys
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from benchmarks import recbole_peer
from benchmarks.model_accuracy import (
    METRICS,
    Problem,
    difference,
    ranks_of,
    rows_of,
    seed_noise,
    targets,
    with_metrics,
)
from benchmarks.model_settings import COMMON, LENGTH, SETTINGS
from benchmarks.model_weights import TRANSLATE, largest_difference
from recdistill.data.batches import HardItems
from recdistill.data.prepared import PrepareSpec, prepare
from recdistill.data.sequences import evaluation_cases, training_rows
from recdistill.errors import InputError
from recdistill.evaluation.metrics import hit_rate, ndcg
from recdistill.models import MODELS
from recdistill.training.resume import RunState
from reference.metrics import full_rank
from reference.tiny import random_histories, sasrec


@pytest.fixture(scope="module")
def problem(tmp_path_factory: pytest.TempPathFactory) -> Problem:
    """Nine users with 3 to 40 events each, in an order of the file that is not the order of time."""
    rng = np.random.default_rng(0)
    lines = []
    for user in range(9):
        items = rng.permutation(60)[: rng.integers(3, 41)] + 100
        lines += [f"u{user}\t{item}\t4\t{880_000_000 + step // 2}" for step, item in enumerate(items)]
    folder = tmp_path_factory.mktemp("raw")
    text = "\n".join(["user_id:token\titem_id:token\trating:float\ttimestamp:float", *rng.permutation(lines), ""])
    (folder / "toy.inter").write_text(text, encoding="utf-8")
    return Problem(prepare(folder, tmp_path_factory.mktemp("data") / "prepared", PrepareSpec(name="toy")))


@pytest.mark.parametrize("name", SETTINGS)
def test_every_argument_of_a_model_is_set_and_has_a_name_in_recbole(name: str) -> None:
    setting = SETTINGS[name]
    assert set(setting.config) == set(MODELS[name].options())
    assert set(setting.names) == set(setting.config)
    assert setting.recipe.rows == "prefixes"


def test_recbole_is_told_the_settings_of_ours() -> None:
    sasrec, narm = SETTINGS["sasrec"], SETTINGS["narm"]
    told = sasrec.peer_options()
    assert told["hidden_size"] == sasrec.config["embedding_dim"]
    assert told["inner_size"] == sasrec.config["inner_dim"]
    assert told["attn_dropout_prob"] == sasrec.config["attention_dropout"]
    assert (told["train_batch_size"], told["epochs"]) == (sasrec.recipe.batch_size, sasrec.recipe.epochs)
    assert told["learning_rate"] == sasrec.recipe.learning_rate
    assert narm.peer_options()["dropout_probs"] == [narm.config["dropout"], narm.config["output_dropout"]]
    assert narm.peer_options()["hidden_size"] == narm.config["hidden_dim"]
    assert SETTINGS["bert4rec"].peer_options()["ft_ratio"] == SETTINGS["bert4rec"].config["last_ratio"]


def test_no_option_of_a_model_hides_a_common_one() -> None:
    for setting in SETTINGS.values():
        assert not set(setting.peer_options()) & set(COMMON)


def ours_stops(scores: list[float], patience: int | None) -> int:
    """Return the epoch after which the library stops."""
    run = RunState.start(nn.Linear(1, 1), 1e-3, 0.0)
    for epoch, score in enumerate(scores, 1):
        run.take_score(score, patience)
        if run.stopped:
            return epoch
    return len(scores)


def recbole_stops(scores: list[float], stopping_step: int) -> int:
    """Return the epoch after which RecBole stops: more than ``stopping_step`` scores in a row below the best."""
    best, waited = scores[0], 0
    for epoch, score in enumerate(scores, 1):
        best, waited = (score, 0) if score >= best else (best, waited + 1)
        if waited > stopping_step:
            return epoch
    return len(scores)


def test_both_sides_stop_after_the_same_epoch(rng: np.random.Generator) -> None:
    recipe, told = SETTINGS["sasrec"].recipe, SETTINGS["sasrec"].peer_options()
    drawn = rng.random((50, 200)).tolist()
    stops = [ours_stops(scores, recipe.patience) for scores in drawn]
    assert stops == [recbole_stops(scores, told["stopping_step"]) for scores in drawn]
    assert len(set(stops)) > 5


def test_the_written_log_holds_the_rows_and_questions_of_ours(problem: Problem, tmp_path: Path) -> None:
    path = tmp_path / problem.write_log(tmp_path) / "prepared.inter"
    header, *lines = path.read_text(encoding="utf-8").splitlines()
    fields = [field.split(":")[0] for field in header.split("\t")]
    assert fields == COMMON["load_col"]["inter"]
    events: dict[str, list[tuple[int, str]]] = defaultdict(list)
    for line in lines:
        user, item, place = line.split("\t")
        events[user].append((int(place), item))
    found: dict[str, list[tuple[str, list[str], str]]] = {"train": [], "valid": [], "test": []}
    for user, rows in events.items():
        assert sorted(place for place, _ in rows) == list(range(len(rows)))  # single precision holds them exactly
        items = [item for _, item in sorted(rows)]
        for at in range(1, len(items)):
            part = {len(items) - 1: "test", len(items) - 2: "valid"}.get(at, "train")
            found[part].append((user, items[max(0, at - LENGTH) : at], items[at]))
    for part, rows in found.items():
        assert recbole_peer.fingerprint(*map(list, zip(*rows, strict=True))) == problem.fingerprints[part]
    assert len(found["train"]) == len(training_rows(problem.histories, LENGTH, "prefixes"))
    assert max(len(history) for _, history, _ in found["train"]) == LENGTH


def test_a_fingerprint_depends_on_everything_but_the_order_of_rows() -> None:
    rows = (["a", "b"], [["1", "2"], ["3"]], ["4", "5"])
    expected = recbole_peer.fingerprint(*rows)
    assert recbole_peer.fingerprint(*(list(reversed(column)) for column in rows)) == expected
    for column, changed in ((0, ["a", "c"]), (1, [["2", "1"], ["3"]]), (2, ["4", "6"])):
        other = list(rows)
        other[column] = changed
        assert recbole_peer.fingerprint(*other) != expected


def test_the_peer_counts_ranks_as_the_library_does(rng: np.random.Generator) -> None:
    scores = torch.from_numpy(rng.integers(0, 6, (40, 13))).float()  # many ties
    scores[:, 0] = 99.0  # padding, however high, takes no part
    targets, excluded = torch.from_numpy(rng.integers(1, 13, 40)), torch.from_numpy(rng.random((40, 13)) < 0.3)
    ranks = recbole_peer.rank_targets(scores, targets, excluded)
    for row, target in enumerate(targets.tolist()):
        seen = set(excluded[row].nonzero().flatten().tolist()) - {target}
        assert ranks[row] == full_rank(scores[row, 1:].tolist(), target, seen)
    assert recbole_peer.ndcg_at_10(ranks) == pytest.approx(float(ndcg(ranks, 10).mean()), rel=1e-12)


def test_the_peer_refuses_the_score_of_a_diverged_model() -> None:
    scores = torch.tensor([[0.0, float("nan"), 1.0]])
    with pytest.raises(ValueError, match="not finite"):
        recbole_peer.rank_targets(scores, torch.tensor([1]), torch.zeros(1, 3, dtype=torch.bool))


def test_ours_are_ranked_by_both_rules() -> None:
    histories, model = random_histories(12, seed=5), sasrec()
    cases = evaluation_cases(histories, "test")
    ranks = ranks_of(model, cases)
    rows = np.arange(len(cases))
    items, lengths = cases.histories(rows, model.max_seq_len)
    scores = model.score(model.represent(items, lengths)).tolist()
    for row, target in enumerate(cases.targets(rows).tolist()):
        seen = set(histories.items[cases.begin[row] : cases.position[row]].tolist()) - {target}
        assert ranks["all"][row] == full_rank(scores[row], target, set())
        assert ranks["unseen"][row] == full_rank(scores[row], target, seen)
    assert (ranks["all"] > ranks["unseen"]).any()


def run(problem: Problem, ranks: list[int], **changes: Any) -> dict[str, Any]:
    """Return a run whose ranks are the same by both rules."""
    values = {"best_epoch": 1, "parameters": 10, "seconds": {"cpu": 1.0}, "fingerprints": problem.fingerprints}
    return values | {"ranks": {"unseen": ranks, "all": ranks}} | changes


def test_a_run_gets_the_metrics_of_its_ranks(problem: Problem) -> None:
    ranks = [1, 2, 3, 10, 11, 40, 1, 5, 60]
    metrics = with_metrics(run(problem, ranks), problem)["metrics"]
    assert metrics["HR@10 unseen"] == pytest.approx(float(hit_rate(torch.tensor(ranks), 10).mean()))
    assert metrics["NDCG@10 all"] == pytest.approx(float(ndcg(torch.tensor(ranks), 10).mean()))


@pytest.mark.parametrize("part", ["train", "valid", "test"])
def test_a_run_on_other_data_is_refused(problem: Problem, part: str) -> None:
    other = run(problem, [1] * 9, fingerprints=problem.fingerprints | {part: "0"})
    with pytest.raises(InputError, match=f"the {part} rows of a run are not those of"):
        with_metrics(other, problem)


def test_a_peer_that_counts_in_another_way_is_refused(problem: Problem) -> None:
    users = sorted(problem.tokens[0])
    own = {"ndcg@10": 1.0, "hit@10": 1.0}
    assert with_metrics(run(problem, [1] * 9, own_evaluation=own, users=users), problem)["metrics"]["HR@10 all"] == 1
    with pytest.raises(InputError, match=r"RecBole finds HR@10 0\.9 where its ranks give 1"):
        with_metrics(run(problem, [1] * 9, own_evaluation=own | {"hit@10": 0.9}, users=users), problem)
    with pytest.raises(InputError, match="other users"):
        with_metrics(run(problem, [1] * 9, own_evaluation=own, users=[*users[:-1], "x"]), problem)


def test_the_interval_is_paired_over_users_and_not_over_seeds(rng: np.random.Generator) -> None:
    users = 10 * rng.random(300)
    shifted = difference(np.stack([users + 0.1] * 2), np.stack([users] * 2), rng, 200)
    assert list(shifted.values()) == pytest.approx([0.1, 0.1, 0.1])
    seeds = np.array([[-1.0], [1.0]])
    spread = difference(users + seeds, users + seeds, rng, 400)
    assert spread["difference"] == pytest.approx(0)
    assert (spread["low"], spread["high"]) == pytest.approx((-2, 2))


def test_the_interval_counts_the_users_who_were_asked_as_a_draw(rng: np.random.Generator) -> None:
    users = rng.normal(size=400)
    found = difference(users[None], np.zeros((1, 400)), rng, 2000)
    assert found["high"] - found["low"] == pytest.approx(2 * 1.96 * users.std() / 20, rel=0.1)


def test_the_noise_of_seeds_is_pooled_within_groups() -> None:
    assert seed_noise([[1.0, 3.0], [10.0, 10.0]]) == pytest.approx(1.0)  # squares 1 + 1 + 0 + 0, two degrees of freedom


def compared(problem: Problem, ours: list[list[int]], peers: list[list[int]]) -> list[dict[str, Any]]:
    """Return the targets of one model with the given ranks, one list per seed."""
    cells = {
        ("sasrec", side): [with_metrics(run(problem, ranks), problem) for ranks in runs]
        for side, runs in (("recdistill", ours), ("recbole", peers))
    }
    same = [{"model": "sasrec", "largest_score_difference": 1e-6}]
    rows = rows_of(cells)
    assert len(rows) == 6
    return targets(rows, same)


def test_ours_may_be_better_or_lose_by_noise_but_no_more(problem: Problem) -> None:
    good, fair, bad = [1] * 9, [1] * 7 + [50] * 2, [50] * 8 + [1]
    for ours, peers, met in (
        ([good, good], [bad, bad], True),
        ([bad, bad], [good, good], False),
        ([fair, good], [good, good], True),  # one seed lost to noise: half of it is what two errors allow
        ([fair, fair], [good, good], False),  # the same seeds again and again: no noise that could explain it
    ):
        made = compared(problem, ours, peers)
        assert [one["met"] for one in made] == [True, *[met] * len(METRICS)]


def peers_weights(name: str) -> dict[str, np.ndarray]:
    """Return random weights under RecBole's names, for 30 items."""
    config, rng = SETTINGS[name].config, np.random.default_rng(1)
    width, hidden = int(config["embedding_dim"]), int(config.get("hidden_dim", 0))
    inner, items = int(config.get("inner_dim", 0)), 31 + (name == "bert4rec")
    shapes: dict[str, tuple[int, ...]] = {"item_embedding.weight": (items, width)}
    if name in ("sasrec", "bert4rec"):
        shapes |= {
            "position_embedding.weight": (LENGTH, width),
            "LayerNorm.weight": (width,),
            "LayerNorm.bias": (width,),
        }
        block = dict.fromkeys(("query", "key", "value", "dense"), (width, width))
        linear = {f"multi_head_attention.{part}": shape for part, shape in block.items()}
        linear |= {"feed_forward.dense_1": (inner, width), "feed_forward.dense_2": (width, inner)}
        for part, shape in linear.items():
            shapes |= {f"trm_encoder.layer.0.{part}.weight": shape, f"trm_encoder.layer.0.{part}.bias": shape[:1]}
        for part in ("multi_head_attention", "feed_forward"):
            shapes |= {f"trm_encoder.layer.0.{part}.LayerNorm.{kind}": (width,) for kind in ("weight", "bias")}
    if name == "bert4rec":
        shapes |= {"output_bias": (31,), "output_ffn.weight": (width, width)}
        shapes |= dict.fromkeys(("output_ffn.bias", "output_ln.weight", "output_ln.bias"), (width,))
    if name == "gru4rec":
        shapes |= {"gru_layers.weight_ih_l0": (3 * hidden, width), "gru_layers.weight_hh_l0": (3 * hidden, hidden)}
        shapes |= {"dense.weight": (width, hidden), "dense.bias": (width,)}
    if name == "narm":
        shapes |= {"gru.weight_ih_l0": (3 * hidden, width), "gru.weight_hh_l0": (3 * hidden, hidden)}
        shapes |= {"a_1.weight": (hidden, hidden), "a_2.weight": (hidden, hidden), "v_t.weight": (1, hidden)}
        shapes |= {"b.weight": (width, 2 * hidden)}
    return {key: rng.normal(size=shape).astype(np.float32) for key, shape in shapes.items()}


@pytest.mark.parametrize("name", SETTINGS)
def test_scores_are_compared_under_the_weights_of_the_other_side(name: str, rng: np.random.Generator) -> None:
    weights = peers_weights(name)
    model = MODELS[name](30, LENGTH, **SETTINGS[name].config, generator=torch.Generator())
    model.load_state_dict(TRANSLATE[name]({key: torch.from_numpy(value) for key, value in weights.items()}))
    lengths = torch.tensor([20, 7, 3, 12])
    histories = torch.from_numpy(rng.integers(1, 31, (4, LENGTH))) * (torch.arange(LENGTH) < lengths.unsqueeze(1))
    read, few = (histories.roll(-1, 1), lengths - 1) if name == "bert4rec" else (histories, lengths)
    with torch.no_grad():
        scores = model.score(model.represent(HardItems(read), few))
    snapshot = {f"weights.{key}": value for key, value in weights.items()}
    snapshot |= {"histories": histories.numpy(), "lengths": lengths.numpy()}
    padded = torch.cat([torch.full((4, 1), 9.0), scores], dim=1)
    assert largest_difference(name, snapshot | {"scores": padded.numpy()}) == 0
    padded[2, 5] += 0.5 * scores.std()
    assert largest_difference(name, snapshot | {"scores": padded.numpy()}) == pytest.approx(0.5, rel=0.05)


def test_the_mask_and_the_output_bias_of_bert4rec_are_found() -> None:
    weights = {key: torch.from_numpy(value) for key, value in peers_weights("bert4rec").items()}
    ours = TRANSLATE["bert4rec"](weights)
    assert torch.equal(ours["mask_embedding"], weights["item_embedding.weight"][31:])
    assert torch.equal(ours["item_embedding"][:, -1], weights["output_bias"])


def test_the_peer_needs_nothing_of_the_library() -> None:
    tree = ast.parse(Path(recbole_peer.__file__).read_text(encoding="utf-8"))
    imported = {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    imported |= {str(node.module) for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    roots = {name.split(".")[0] for name in imported}
    assert roots - set(sys.stdlib_module_names) == {"numpy", "torch"}
