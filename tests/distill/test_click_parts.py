"""What DIET is made of, each piece against brute force or an exact answer.

Not proved here: that the pieces together make a good memory.
"""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st

from recdistill.distill.clicks.addressing import active_units, hard_targets, influences, last_gradients, with_one
from recdistill.distill.clicks.alignment import ALIGNMENTS, aligned, ridge_map, rotation
from recdistill.distill.clicks.selection import el2n, hardest_by_label
from recdistill.errors import OptionError


@pytest.fixture
def draw() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def normal(*shape: int, generator: torch.Generator) -> torch.Tensor:
    return torch.randn(*shape, generator=generator, dtype=torch.float64)


def test_el2n_is_the_distance_from_the_one_hot_label(draw: torch.Generator) -> None:
    logits, labels = normal(3, 5, generator=draw), torch.tensor([0.0, 1, 1, 0, 1], dtype=torch.float64)
    chance = torch.softmax(torch.stack([torch.zeros_like(logits), logits], -1), -1)
    slow = (chance - F.one_hot(labels.long(), 2)).norm(dim=-1).mean(0)
    torch.testing.assert_close(el2n(logits, labels), slow)


samples = st.lists(st.tuples(st.floats(0, 1), st.booleans()), min_size=1, max_size=40)


@given(samples, st.floats(0, 1), st.one_of(st.none(), st.floats(0, 1)), st.floats(0, 0.9))
def test_selected_samples_keep_the_rate_and_are_the_hardest(
    some: list[tuple[float, bool]], share: float, rate: float | None, drop: float
) -> None:
    scores, labels = np.array([score for score, _ in some]), np.array([float(label) for _, label in some])
    count = round(share * len(some))
    found = hardest_by_label(scores, labels, count, positive_rate=rate, drop=drop)
    assert len(set(found.tolist())) == count
    wanted = round((labels.mean() if rate is None else rate) * count)
    there = int(labels.sum())
    assert labels[found].sum() == min(max(wanted, count - (len(some) - there)), there)
    for label in (0.0, 1.0):
        mine, chosen = np.sort(scores[labels == label])[::-1], np.sort(scores[found][labels[found] == label])[::-1]
        dropped = min(int(drop * len(mine)), len(mine) - len(chosen))
        assert chosen.tolist() == mine[dropped : dropped + len(chosen)].tolist()


def test_samples_that_are_not_there_cannot_be_selected() -> None:
    with pytest.raises(OptionError, match="count: 3 is more than the 2 rows"):
        hardest_by_label(np.zeros(2), np.zeros(2), 3)
    with pytest.raises(OptionError, match="positive_rate"):
        hardest_by_label(np.zeros(2), np.zeros(2), 1, positive_rate=1.5)


@pytest.mark.parametrize("name", ALIGNMENTS)
def test_nothing_moves_where_the_tables_did_not(name: str, draw: torch.Generator) -> None:
    table = normal(20, 4, generator=draw)
    found = ALIGNMENTS[name](table, table, torch.arange(20.0), 1e-3)
    torch.testing.assert_close(found, torch.eye(4, dtype=torch.float64))


def test_the_ridge_map_is_the_minimum(draw: torch.Generator) -> None:
    before, after = normal(9, 3, generator=draw), normal(9, 3, generator=draw)
    weights, strength = torch.rand(9, generator=draw, dtype=torch.float64), 0.1

    def loss(some: torch.Tensor) -> torch.Tensor:
        apart = (before @ some.T - after).square().sum(1)
        return (weights / weights.sum() * apart).sum() + strength * (some - torch.eye(3)).square().sum()

    best = ridge_map(before, after, weights, strength)
    gradient = torch.autograd.functional.jacobian(loss, best)
    assert gradient.abs().max() < 1e-10
    torch.testing.assert_close(ridge_map(before, after, 7 * weights, strength), best)


def test_a_rotation_is_found_back(draw: torch.Generator) -> None:
    turn = torch.linalg.qr(normal(4, 4, generator=draw)).Q
    before = normal(30, 4, generator=draw)
    found = rotation(before, before @ turn.T, torch.ones(30), 1e-12)
    torch.testing.assert_close(found, turn)
    torch.testing.assert_close(ridge_map(before, before @ turn.T, torch.ones(30), 1e-12), turn)


def test_ids_that_never_occur_move_nothing(draw: torch.Generator) -> None:
    before, after = normal(5, 2, generator=draw), normal(5, 2, generator=draw)
    found = ridge_map(before, after, torch.zeros(5), 1e-3)
    torch.testing.assert_close(found, torch.eye(2, dtype=torch.float64))


def test_every_field_has_its_own_map(draw: torch.Generator) -> None:
    vectors, maps = normal(6, 3, 4, generator=draw), normal(3, 4, 4, generator=draw)
    slow = torch.stack([torch.stack([maps[f] @ row[f] for f in range(3)]) for row in vectors])
    torch.testing.assert_close(aligned(vectors, maps), slow)


def test_gradients_of_the_last_layer_are_those_of_autograd(draw: torch.Generator) -> None:
    hidden, labels = normal(6, 3, generator=draw), torch.rand(6, generator=draw, dtype=torch.float64)
    layer = normal(4, generator=draw).requires_grad_()
    found = last_gradients(hidden, (with_one(hidden) @ layer).detach(), labels)
    for row in range(6):
        loss = F.binary_cross_entropy_with_logits(with_one(hidden)[row] @ layer, labels[row])
        torch.testing.assert_close(found[row], torch.autograd.grad(loss, layer)[0])


def test_influence_is_what_a_newton_step_of_the_unit_does(draw: torch.Generator) -> None:
    hidden, units = normal(50, 3, generator=draw), normal(5, 3, generator=draw)
    labels = (torch.rand(50, generator=draw) < 0.4).double()
    layer = 0.1 * normal(4, generator=draw)
    logits, damping, step = with_one(hidden) @ layer, 0.05, 1e-6
    target = last_gradients(hidden, logits, labels).mean(0)
    unit_gradients = last_gradients(units, with_one(units) @ layer, torch.ones(5, dtype=torch.float64))
    found = influences(unit_gradients, target, hidden, logits, damping)
    chance = torch.sigmoid(logits)
    curvature = torch.zeros(4, 4, dtype=torch.float64)
    for row in range(50):
        feature = with_one(hidden)[row]
        curvature += chance[row] * (1 - chance[row]) * torch.outer(feature, feature) / 50
    inverse = torch.linalg.inv(curvature + damping * torch.eye(4))

    def loss(some: torch.Tensor) -> torch.Tensor:
        return F.binary_cross_entropy_with_logits(with_one(hidden) @ some, labels)

    for unit in range(5):
        moved = layer - step * inverse @ unit_gradients[unit]
        torch.testing.assert_close((loss(layer) - loss(moved)) / step, found[unit], rtol=1e-4, atol=1e-6)


def test_hard_targets_are_hard_within_their_label_and_the_rest_is_drawn(draw: torch.Generator) -> None:
    norms = torch.arange(20.0)
    labels = (torch.arange(20) % 4 == 0).double()  # 0, 4, 8, 12, 16
    found = hard_targets(norms, labels, 12, uniform=1 / 3, generator=draw)
    assert found[:8].tolist() == [16, 12, 19, 18, 17, 15, 14, 13]
    assert len(set(found.tolist())) == 12
    other = hard_targets(norms, labels, 12, uniform=1 / 3, generator=torch.Generator().manual_seed(5))
    assert other[8:].tolist() != found[8:].tolist()
    assert hard_targets(norms, labels, 20, uniform=0.5, generator=draw).sort().values.tolist() == list(range(20))
    with pytest.raises(OptionError, match="pool of 20"):
        hard_targets(norms, labels, 21, uniform=0.5, generator=draw)
    with pytest.raises(OptionError, match="uniform"):
        hard_targets(norms, labels, 2, uniform=1.5, generator=draw)


def test_units_are_drawn_in_proportion_to_their_influence(draw: torch.Generator) -> None:
    influence = torch.tensor([1.0, -2.0, 0.0, 5.0])
    counts = torch.zeros(4)
    for _ in range(4000):
        counts[active_units(influence, 1, draw)] += 1
    torch.testing.assert_close(counts / 4000, influence.abs() / 8, atol=0.03, rtol=0)
    assert active_units(influence, 4, draw).tolist() == [0, 1, 2, 3]
    assert 2 not in active_units(influence, 3, draw)
    with pytest.raises(OptionError, match="4 units"):
        active_units(influence, 5, draw)
