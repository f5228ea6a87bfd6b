"""Mixtures of models: their weights are the likeliest, and the labels are the nearest to what the mixture says.

The nearest labels are compared with an optimiser that knows nothing of ours (L-BFGS in float64), on targets that are
read from the models' scores one prefix at a time; the weights with all weights of a grid. Not proved: that students
learn more from them.
"""

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from recdistill.data.batches import HardItems
from recdistill.data.rows import HardRows
from recdistill.data.sequences import EvaluationCases, evaluation_cases
from recdistill.distill.coresets.random_soft import hidden_states
from recdistill.distill.mixture import event_log_likelihoods, mixture_queries, mixture_weights
from recdistill.models import MODELS
from recdistill.models.base import Recommender
from reference.examples import EXAMPLES
from reference.tiny import NUM_ITEMS, histories_of_lists, random_histories

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


def equal_weights(models: list[Recommender]) -> Tensor:
    return torch.full((len(models),), 1 / len(models))


def fitted(
    models: list[Recommender], start: Tensor | None = None, weights: Tensor | None = None
) -> tuple[Tensor, Tensor, Tensor]:
    """Return the queries found with the first model's items as keys, the keys, and where the search began."""
    keys = models[0].item_table.detach()[1:]
    start = hidden_states(models[0], ROWS) if start is None else start
    weights = equal_weights(models) if weights is None else weights
    return mixture_queries(models, weights, ROWS, keys, start), keys, start


@torch.no_grad()
def mean_of(models: list[Recommender], weights: Tensor | None = None) -> Tensor:
    """Return the weighted mean distribution after each real prefix, read alone, (9, V), in float64."""
    found, weights = [], equal_weights(models) if weights is None else weights
    for row, length in zip(ROWS.item_ids, ROWS.lengths.tolist(), strict=True):
        for stop in range(1, length + 1):
            shown = HardItems(row[None, :stop]), torch.tensor([stop])
            each = [torch.softmax(model.score(model.represent(*shown))[0].double(), -1) for model in models]
            found.append(torch.einsum("m,mv->v", weights.double(), torch.stack(each)))
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


@pytest.mark.parametrize("first", [None, 0.1], ids=["equal weights", "unequal weights"])
@pytest.mark.parametrize("names", PEERS.values(), ids=PEERS)
def test_the_labels_are_the_nearest_to_the_mixture(names: list[str], first: float | None) -> None:
    models = [model_of("sasrec", 0), *(model_of(name, 9 + seed) for seed, name in enumerate(names))]
    rest = torch.full((len(names),), (1 - (first or 0)) / len(names))
    weights = None if first is None else torch.cat([torch.tensor([first]), rest])
    found, keys, start = fitted(models, weights=weights)
    mean = mean_of(models, weights)
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
    monkeypatch.setattr("recdistill.distill.mixture.LOGITS_BYTES", 4 * NUM_ITEMS * positions + 3)
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


CASES = evaluation_cases(random_histories(40, seed=3), "valid")


@torch.no_grad()
def likelihoods(models: list[Recommender], cases: EvaluationCases = CASES) -> Tensor:
    """Return the probability of each held-out event under each model, (M, E), event by event."""
    found = []
    for model in models:
        each = []
        for index in range(len(cases)):
            items, lengths = cases.histories(np.array([index]), model.max_seq_len)
            chances = torch.softmax(model.score(model.represent(items, lengths))[0].double(), -1)
            each.append(chances[int(cases.targets(np.array([index]))) - 1])
        found.append(torch.stack(each))
    return torch.stack(found)


def test_the_probability_of_an_event_is_the_models_own(monkeypatch: pytest.MonkeyPatch) -> None:
    models = [model_of("sasrec", 0), model_of("bert4rec", 3)]
    monkeypatch.setattr("recdistill.distill.mixture.CASES_PER_BLOCK", 7)
    for model, expected in zip(models, likelihoods(models), strict=True):
        torch.testing.assert_close(event_log_likelihoods(model, CASES), expected.log(), rtol=1e-5, atol=1e-5)


def some_cases(chosen: np.ndarray) -> EvaluationCases:
    parts = (CASES.begin, CASES.position, CASES.end, CASES.users)
    return EvaluationCases(CASES.items, *(part[chosen] for part in parts))


@pytest.mark.parametrize("names", [["gru4rec"], ["gru4rec", "bert4rec"]])
def test_no_other_weights_make_the_events_likelier(names: list[str]) -> None:
    models = [model_of("sasrec", 0), *(model_of(name, 9 + seed) for seed, name in enumerate(names))]
    likeliest = likelihoods(models).argmax(0)
    fewest = int(likeliest.bincount(minlength=len(models)).min())
    assert fewest >= 1
    each = [(likeliest == index).nonzero().flatten()[:fewest] for index in range(len(models))]
    cases = some_cases(torch.cat(each).numpy())  # as many events for every model, so that none is best alone
    weights, chances = mixture_weights(models, cases).double(), likelihoods(models, cases)
    assert weights.sum() == pytest.approx(1, abs=1e-6)
    assert (weights > 0.02).sum() >= 2

    def likelihood(some: Tensor) -> float:
        return float((some @ chances).log().mean())

    steps = torch.arange(0, 1.001, 0.05).double()
    grid = torch.cartesian_prod(*[steps] * len(names)).reshape(-1, len(names))
    grid = grid[grid.sum(1) <= 1]
    others = torch.cat([1 - grid.sum(1, keepdim=True), grid], dim=1)
    assert likelihood(weights) >= max(likelihood(some) for some in others)


def test_a_model_that_never_knows_better_gets_no_weight() -> None:
    """Where every event is likelier under the other; averaged equally, it would halve what the mixture says."""
    models = [model_of("sasrec", 0), model_of("gru4rec", 3)]
    chances = likelihoods(models)
    worse = np.flatnonzero((chances[1] < chances[0]).numpy())
    assert 5 < len(worse) < len(CASES)
    cases = EvaluationCases(
        CASES.items, *(part[worse] for part in (CASES.begin, CASES.position, CASES.end, CASES.users))
    )
    assert mixture_weights(models, cases)[1] < 0.01


def test_weights_of_one_model_or_of_no_events_are_equal() -> None:
    models = [model_of("sasrec", 0), model_of("gru4rec", 3)]
    assert mixture_weights(models[:1], CASES).tolist() == [1.0]
    empty = evaluation_cases(histories_of_lists([[1, 2]], [[]], [[3]]), "valid")
    assert len(empty) == 0
    assert mixture_weights(models, empty).tolist() == [0.5, 0.5]
