"""Peers: each family is trained once and kept, and the mean of several models' labels is the nearest there is.

The nearest labels are compared with an optimiser that knows nothing of ours (L-BFGS in float64), on targets that are
read from the models' scores one prefix at a time. Not proved: that peers are good models.
"""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from recdistill.data.batches import HardItems
from recdistill.data.development import Development
from recdistill.data.rows import HardRows
from recdistill.data.sequences import evaluation_cases
from recdistill.distill.base import RunContext
from recdistill.distill.coresets.random_soft import hidden_states
from recdistill.distill.peers import FAMILIES, Peer, mean_label_queries, peer_cache, train_peers
from recdistill.distill.teacher import TeacherSpec, make_model, teach
from recdistill.errors import OptionError
from recdistill.evaluation.protocols import evaluate
from recdistill.models import MODELS
from recdistill.models.base import Recommender
from recdistill.rng import Streams
from recdistill.training.fit import TrainingRecipe
from reference.examples import EXAMPLES
from reference.tiny import NUM_ITEMS

RECIPE = TrainingRecipe(epochs=3, steps_per_epoch=2, batch_size=16, learning_rate=0.01)
TWO = ("gru4rec_64", "sasrec_32")


def trained(train: Development, cache: Path, families: tuple[str, ...] = TWO, **context: Any) -> list[Peer]:
    return train_peers(train, families, 6, RECIPE, 4, cache, RunContext(**context))


def test_a_peer_is_the_best_model_of_its_training(train: Development, tmp_path: Path) -> None:
    cases = evaluation_cases(train.histories, "valid")
    peers = trained(train, tmp_path)
    assert [(peer.family, peer.model.name, peer.model.max_seq_len) for peer in peers] == [
        ("gru4rec_64", "gru4rec", 6),
        ("sasrec_32", "sasrec", 6),
    ]
    for peer in peers:
        assert peer.model.config.items() >= FAMILIES[peer.family].config.items()
        assert peer.score == pytest.approx(evaluate(peer.model, cases).metrics()["NDCG@10"])
        scores = [evaluate(peer.trajectory.model(epoch), cases).metrics()["NDCG@10"] for epoch in (1, 2, 3)]
        assert peer.score == pytest.approx(max(scores))


def test_peers_in_the_cache_are_not_trained_again(train: Development, tmp_path: Path) -> None:
    told: list[tuple[Any, ...]] = []
    one = trained(train, tmp_path, progress=lambda *args: told.append(args))
    count = len(told)
    assert count >= 6
    again = trained(train, tmp_path, TWO[::-1], progress=lambda *args: told.append(args))
    assert len(told) == count
    assert [peer.trajectory.folder for peer in again] == [peer.trajectory.folder for peer in one[::-1]]
    assert len(list(tmp_path.iterdir())) == 2


def test_a_peer_is_the_teacher_of_the_same_settings(train: Development, tmp_path: Path) -> None:
    """So that a teacher in the cache serves as the peer of its family."""
    (peer,) = trained(train, tmp_path, TWO[:1])
    family = FAMILIES["gru4rec_64"]
    spec = TeacherSpec(model=family.model, config=family.config, max_seq_len=6, recipe=RECIPE)
    assert teach(train, spec, 4, tmp_path) == peer.trajectory


def test_an_unknown_family_is_refused_by_name(train: Development, tmp_path: Path) -> None:
    with pytest.raises(OptionError, match=r"families: 'gru4rec' is not known \(did you mean 'gru4rec_64'\?\)"):
        trained(train, tmp_path, ("gru4rec",))


@pytest.mark.parametrize("name", FAMILIES)
def test_a_family_has_the_model_and_the_width_of_its_name(name: str) -> None:
    kind, width = name.rsplit("_", 1)
    model = make_model(FAMILIES[name].model, NUM_ITEMS, 6, FAMILIES[name].config, Streams(0))
    assert (model.name, model.item_width) == (kind, int(width))


def test_peers_are_kept_where_the_run_keeps_models(tmp_path: Path) -> None:
    with peer_cache(RunContext(cache=tmp_path / "cache")) as folder:
        assert folder == tmp_path / "cache"
        folder.mkdir()
    assert folder.exists()


@pytest.mark.parametrize("fails", [False, True])
def test_without_a_cache_no_folder_stays(fails: bool) -> None:
    folder = Path()
    try:
        with peer_cache(RunContext()) as folder:
            (folder / "peer").mkdir()
            if fails:
                raise KeyboardInterrupt
    except KeyboardInterrupt:
        assert fails
    assert folder.name.startswith("recdistill-peers-")
    assert not folder.exists()


ROWS = HardRows(torch.tensor([[3, 1, 6, 20, 5], [5, 2, 4, 0, 0], [19, 0, 0, 0, 0]]), torch.tensor([5, 3, 1]))
REAL = torch.arange(5) < ROWS.lengths.unsqueeze(1)


def model_of(name: str, seed: int, **changes: Any) -> Recommender:
    """Return a model with weights large enough that its distributions are far from uniform."""
    options = EXAMPLES[name] | {"embedding_dim": 8} | changes
    model = MODELS[name](NUM_ITEMS, 6, **options, generator=torch.Generator().manual_seed(seed))
    generator = torch.Generator().manual_seed(seed + 1)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.4 * torch.randn(parameter.shape, generator=generator)
    return model


def fitted(models: list[Recommender], start: Tensor | None = None) -> tuple[Tensor, Tensor, Tensor]:
    """Return the queries found with the first model's items as keys, the keys, and where the search began."""
    keys = models[0].item_table.detach()[1:]
    start = hidden_states(models[0], ROWS) if start is None else start
    return mean_label_queries(models, ROWS, keys, start), keys, start


@torch.no_grad()
def mean_of(models: list[Recommender]) -> Tensor:
    """Return the mean distribution after each real prefix, read alone, (9, V), in float64."""
    found = []
    for row, length in zip(ROWS.item_ids, ROWS.lengths.tolist(), strict=True):
        for stop in range(1, length + 1):
            shown = HardItems(row[None, :stop]), torch.tensor([stop])
            each = [torch.softmax(model.score(model.represent(*shown))[0].double(), -1) for model in models]
            found.append(torch.stack(each).mean(0))
    return torch.stack(found)


def divergence(mean: Tensor, queries: Tensor, keys: Tensor) -> Tensor:
    """Return KL(mean || softmax(q K^T)) of each row, in nats."""
    return (mean * (mean.log() - torch.log_softmax(queries.double() @ keys.double().T, -1))).sum(-1)


@pytest.mark.parametrize("copies", [1, 3])
def test_the_teacher_alone_keeps_its_labels(copies: int) -> None:
    found, keys, start = fitted([model_of("sasrec", 0)] * copies)
    logs, expected = (torch.log_softmax(queries[REAL] @ keys.T, -1) for queries in (found, start))
    assert expected.std() > 0.5
    torch.testing.assert_close(logs, expected, rtol=0, atol=1e-3)


PEERS = {"gru4rec": ["gru4rec"], "bias": ["bert4rec"], "three": ["gru4rec", "narm", "bert4rec"]}


@pytest.mark.parametrize("names", PEERS.values(), ids=PEERS)
def test_the_labels_are_the_nearest_to_the_mean(names: list[str]) -> None:
    models = [model_of("sasrec", 0), *(model_of(name, 9 + seed) for seed, name in enumerate(names))]
    found, keys, start = fitted(models)
    mean = mean_of(models)
    before, after = (divergence(mean, queries[REAL], keys) for queries in (start, found))
    assert (after < 0.9 * before).all()
    assert before.mean() > 0.1
    queries, wide = found[REAL].double(), keys.double()
    gradient = torch.softmax(queries @ wide.T, -1) @ wide - mean @ wide
    at_start = torch.softmax(start[REAL].double() @ wide.T, -1) @ wide - mean @ wide
    assert (gradient.norm(dim=-1) < 0.05 * at_start.norm(dim=-1)).all()
    best = start[REAL].double().requires_grad_()
    search = torch.optim.LBFGS([best], max_iter=500, tolerance_grad=1e-10, line_search_fn="strong_wolfe")

    def closure() -> Tensor:
        search.zero_grad()
        loss = divergence(mean, best, keys).sum()
        loss.backward()  # type: ignore[no-untyped-call]
        return loss

    search.step(closure)
    nearest = divergence(mean, best.detach(), keys)
    assert nearest.mean() > 0.01  # eight numbers cannot say it all
    assert (after - nearest < 0.01 * (before - nearest)).all()


def test_where_keys_can_say_it_the_labels_are_the_mean() -> None:
    models = [model_of("sasrec", 0, embedding_dim=20), model_of("gru4rec", 3)]
    found, keys, _ = fitted(models)
    expected = mean_of(models)
    torch.testing.assert_close(torch.softmax(found[REAL] @ keys.T, -1).double(), expected, rtol=0, atol=0.02)
    assert ((expected - mean_of(models[:1])).abs().amax(-1) > 0.05).all()


@torch.no_grad()
def test_the_bias_of_an_item_takes_part() -> None:
    models = [model_of("sasrec", 0), model_of("bert4rec", 3)]
    before, keys, _ = fitted(models)
    models[1].item_table[7, -1] += 6
    after, _, _ = fitted(models)
    one, other = (torch.softmax(queries[REAL] @ keys.T, -1)[:, 6] for queries in (before, after))
    assert (other > one + 0.1).all()


def test_padding_keeps_its_query() -> None:
    models = [model_of("sasrec", 0), model_of("gru4rec", 3)]
    start = torch.randn(3, 5, 8, generator=torch.Generator().manual_seed(2))
    before = start.clone()
    found, _, _ = fitted(models, start)
    assert torch.equal(found[~REAL], start[~REAL])
    assert not (found[REAL] == start[REAL]).any()
    assert torch.equal(start, before)


@pytest.mark.parametrize("positions", [1, 4])
def test_blocks_give_what_one_block_gives(positions: int, monkeypatch: pytest.MonkeyPatch) -> None:
    models = [model_of("sasrec", 0), model_of("gru4rec", 3)]
    whole, keys, _ = fitted(models)
    monkeypatch.setattr("recdistill.distill.peers.LOGITS_BYTES", 4 * NUM_ITEMS * positions + 3)
    logs, expected = (torch.log_softmax(queries @ keys.T, -1) for queries in (fitted(models)[0], whole))
    torch.testing.assert_close(logs, expected, rtol=0, atol=1e-3)


def test_the_search_leaves_the_models_alone() -> None:
    models = [model_of("sasrec", 0), model_of("gru4rec", 3)]
    before = [value.detach().clone() for model in models for value in model.parameters()]
    found, _, _ = fitted(models)
    after = [value for model in models for value in model.parameters()]
    assert all(torch.equal(*pair) for pair in zip(before, after, strict=True))
    assert all(value.grad is None for value in after)
    assert not found.requires_grad
