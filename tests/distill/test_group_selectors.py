"""DEALRec and GORACS against loops, brute force and single gradients.

Proved: gradients of single users are those of autograd, one user at a time; influence is the product with them; the
strata rule; GORACS's greedy stage is facility location, its exchanges end where no exchange of one row helps, its
promises are the paper's formula. Not proved: that either makes a good summary.
"""

import itertools
import math

import numpy as np
import pytest
import torch
from scipy.optimize import linprog
from torch import Tensor

from recdistill.data.batches import HardItems
from recdistill.data.development import Development
from recdistill.distill.coresets import gradients as gradients_file
from recdistill.distill.coresets.dealrec import DEALRec, by_strata, in_unit
from recdistill.distill.coresets.goracs import GORACS, costs_of, exchanged, greedy_group, promised, transport
from recdistill.distill.coresets.gradients import UserGradients, probed_weight
from recdistill.distill.coresets.selection import last_items, usable_users
from recdistill.errors import InputError, NumericalError, OptionError
from recdistill.models import MODELS
from recdistill.rng import Streams
from recdistill.training.trajectory import Trajectory
from reference.tiny import development, histories_of_lists, training_events

# the first use of forward mode in a process compiles some of its formulas with a part of torch that torch deprecates
pytestmark = pytest.mark.filterwarnings("ignore:.torch.jit.script. is deprecated:DeprecationWarning")
FAMILIES = {
    "sasrec": {"embedding_dim": 8, "num_blocks": 2, "inner_dim": 6},
    "gru4rec": {"embedding_dim": 8},
    "narm": {},
}


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def gradients_of(train: Development, family: str = "sasrec") -> UserGradients:
    generator = torch.Generator().manual_seed(0)
    return UserGradients(MODELS[family](20, 8, **FAMILIES[family], generator=generator).double(), train, 6)


def loss_alone(found: UserGradients, user: int) -> Tensor:
    """Return a user's loss as a loop over his positions."""
    items = training_events(found.train.histories, user)[-found.length :]
    total = torch.zeros((), dtype=torch.float64)
    for position in range(1, len(items)):
        shown = torch.tensor([items[:position]])
        vector = found.model.represent(HardItems(shown), torch.tensor([position]))
        logits = vector @ found.model.item_table[1:].T
        total = total - torch.log_softmax(logits, -1)[0, items[position] - 1]
    return total / (len(items) - 1)


def gradient_alone(found: UserGradients, user: int) -> Tensor:
    weight = dict(found.model.named_parameters())[found.name]
    (gradient,) = torch.autograd.grad(loss_alone(found, user), weight)
    return gradient


@pytest.mark.parametrize(
    ("family", "name"),
    [("sasrec", "blocks.1.attention.output.weight"), ("gru4rec", "output.weight"), ("narm", "output")],
)
def test_one_matrix_stands_for_all(family: str, name: str, train: Development) -> None:
    assert probed_weight(gradients_of(train, family).model) == name


@pytest.mark.parametrize("family", FAMILIES)
def test_gradients_are_those_of_single_users(family: str, train: Development, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gradients_file, "USERS_AT_ONCE", 4)
    found, users = gradients_of(train, family), usable_users(train)[:9]
    alone = [gradient_alone(found, int(user)) for user in users]
    assert found.norms(users).tolist() == pytest.approx([float(one.norm()) for one in alone], rel=1e-5)
    torch.testing.assert_close(found.mean(users), torch.stack(alone).mean(0))
    direction = torch.randn(alone[0].shape, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    expected = [float((direction * one).sum()) for one in alone]
    assert found.along(users, direction).tolist() == pytest.approx(expected, rel=1e-5, abs=1e-7)


def test_the_curvature_is_that_of_finite_differences(train: Development) -> None:
    found, users = gradients_of(train), usable_users(train)[:5]
    direction = torch.randn(found.weight.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    rows, step = last_items(train, users, 6), 1e-5

    def slope(weight: Tensor) -> Tensor:
        weight = weight.clone().requires_grad_()
        (gradient,) = torch.autograd.grad(found.losses(weight, rows.item_ids, rows.lengths).mean(), weight)
        return gradient

    ahead, behind = slope(found.weight + step * direction), slope(found.weight - step * direction)
    torch.testing.assert_close(found.curved(rows, direction), (ahead - behind) / (2 * step), rtol=1e-5, atol=1e-8)


# DEALRec


@torch.no_grad()
def test_lissa_finds_the_inverse_product(train: Development, teacher: Trajectory) -> None:
    """With all users in every step the recursion solves (H / scale + damping) s = v."""
    found, users = gradients_of(train), usable_users(train)
    selector = DEALRec(num_rows=4, length=6, depth=300, damping=0.2, scale=5.0, lissa_users=1000)
    solved = selector.inverse_product(found, users, Streams(0))
    product = found.curved(last_items(train, users, 6), solved) / 5.0 + 0.2 * solved
    torch.testing.assert_close(product, found.mean(users), rtol=1e-6, atol=1e-9)


def test_a_recursion_that_diverges_is_told(train: Development, teacher: Trajectory) -> None:
    selector = DEALRec(num_rows=4, length=6, scale=1e-6)
    with pytest.raises(NumericalError, match=r"selecting users, step \d+: the influence is not finite; a larger scale"):
        selector.choose_users(train, teacher, Streams(0))


def test_the_hardest_users_are_dropped(train: Development, teacher: Trajectory) -> None:
    scores = rng(0).permutation(20).astype(float)
    kept = DEALRec(num_rows=4, length=6, hard_prune=0.25).pruned(scores)
    assert sorted(scores[kept]) == list(range(15))
    assert len(DEALRec(num_rows=18, length=6, hard_prune=0.25).pruned(scores)) == 18


def strata_slow(scores: list[float], count: int, strata: int) -> list[int]:
    """Return how many are taken from each stratum that is not empty, smallest first, as the paper's code has it."""
    low, high = min(scores), max(scores)
    width = (high - low) / strata
    groups: dict[int, int] = {}
    for score in scores:
        place = min(int((score - low) / width), strata - 1) if width else 0
        groups[place] = groups.get(place, 0) + 1
    taken, wanted = [], count
    sizes = sorted(groups.values())
    for index, size in enumerate(sizes):
        share = min(size, wanted // (len(sizes) - index))
        taken.append(share)
        wanted -= share
    return taken


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize(("count", "strata"), [(20, 50), (20, 5), (3, 1), (40, 7)])
def test_every_stratum_gives_its_share(seed: int, count: int, strata: int) -> None:
    scores = rng(seed).exponential(size=60)
    chosen = by_strata(scores, count, strata, rng(1))
    assert len(set(chosen.tolist())) == count == sum(strata_slow(scores.tolist(), count, strata))
    edges = np.linspace(scores.min(), scores.max(), strata + 1)
    place = np.clip(np.digitize(scores, edges) - 1, 0, strata - 1)
    found = sorted(np.unique(place[chosen], return_counts=True)[1].tolist())
    assert found == sorted(share for share in strata_slow(scores.tolist(), count, strata) if share)


def test_equal_scores_are_one_stratum() -> None:
    assert len(set(by_strata(np.ones(9), 4, 50, rng()).tolist())) == 4
    assert in_unit(torch.ones(3)).tolist() == [0, 0, 0]
    assert in_unit(torch.tensor([1.0, 3.0, 2.0])).tolist() == [0, 1, 0.5]


def test_the_effort_decides_where_it_weighs_all(train: Development, teacher: Trajectory) -> None:
    selector = DEALRec(num_rows=4, length=6, effort_weight=1e9, hard_prune=0.5, strata=1)
    users, model = usable_users(train), teacher.best()
    norms = UserGradients(model, train, 6).norms(users).detach().numpy()
    easier = set(users[np.argsort(norms)[: len(users) - len(users) // 2]].tolist())
    assert set(selector.choose_users(train, teacher, Streams(0)).tolist()) <= easier


# GORACS


def facility(costs: np.ndarray, chosen: list[int]) -> float:
    """Return what it costs to serve every column from the nearest chosen row."""
    return math.fsum(min(costs[row, column] for row in chosen) for column in range(costs.shape[1]))


@pytest.mark.parametrize("seed", range(8))
def test_the_greedy_stage_is_facility_location(seed: int) -> None:
    costs = rng(seed).random((9, 12))
    expected: list[int] = []
    while len(expected) < 3:
        others = [row for row in range(9) if row not in expected]
        expected.append(min(others, key=lambda row: facility(costs, [*expected, row])))
    found = greedy_group(costs, 3).tolist()
    if all(any(costs[row, column] == costs[expected, column].min() for column in range(12)) for row in expected):
        assert found == expected
    assert len(set(found)) == 3


def test_rows_that_serve_nobody_are_replaced() -> None:
    costs = np.array([[0.4, 0.4, 0.4, 0.4], [0.0, 0.0, 1.0, 1.0], [1.0, 1.0, 0.0, 0.0], [0.5, 0.5, 0.5, 0.5]])
    assert greedy_group(costs, 2).tolist() == [0, 1]
    assert greedy_group(costs, 3).tolist() == [1, 2, 0]  # row 0 serves nobody once 1 and 2 are there, nor does row 3
    assert sorted(greedy_group(costs, 4).tolist()) == [0, 1, 2, 3]


@pytest.mark.parametrize(("rows", "columns"), [(3, 7), (4, 4), (5, 2), (1, 6)])
def test_the_transport_is_that_of_a_linear_program(rows: int, columns: int) -> None:
    costs = rng(rows).random((rows, columns))
    left = np.kron(np.eye(rows), np.ones(columns))
    right = np.kron(np.ones(rows), np.eye(columns))
    given = np.concatenate([np.full(rows, 1 / rows), np.full(columns, 1 / columns)])
    expected = linprog(costs.ravel(), A_eq=np.vstack([left, right]), b_eq=given)
    value, potentials = transport(costs)
    assert value == pytest.approx(expected.fun)
    dual = potentials.mean() + (costs - potentials[:, None]).min(0).mean()
    assert dual == pytest.approx(value)


def promise_slow(costs: np.ndarray, chosen: list[int], potentials: np.ndarray, row: int) -> float:
    columns, count = costs.shape[1], len(chosen)
    gains, floors = [], []
    for column in range(columns):
        others = [costs[one, column] - x for one, x in zip(chosen, potentials, strict=True) if one != row]
        floors.append(min(others))
        gains.append(costs[row, column] - floors[-1])
    level = sorted(gains, reverse=True)[math.ceil(columns / count) - 1]
    return math.fsum(min(gain - level, 0) for gain in gains) / columns + level / count


@pytest.mark.parametrize("seed", range(4))
def test_the_promises_are_the_papers(seed: int) -> None:
    costs = rng(seed).random((8, 11))
    chosen = np.array([1, 4, 6])
    _, potentials = transport(costs[chosen])
    expected = [promise_slow(costs, chosen.tolist(), potentials, row) for row in range(8)]
    assert promised(costs, chosen, potentials).tolist() == pytest.approx(expected)


@pytest.mark.parametrize("seed", range(4))
def test_exchanges_end_where_none_helps(seed: int) -> None:
    costs = rng(seed).random((9, 8))
    start = greedy_group(costs, 3)
    found = exchanged(costs, start, 100, 30)
    value = transport(costs[found])[0]
    assert value <= transport(costs[start])[0]
    for gone, come in itertools.product(found, set(range(9)) - set(found.tolist())):
        assert transport(costs[np.where(found == gone, come, found)])[0] >= value - 1e-9
    best = min(transport(costs[list(group)])[0] for group in itertools.combinations(range(9), 3))
    assert value <= best * 1.25
    assert exchanged(costs, start, 0, 30).tolist() == start.tolist()


def test_costs_lie_between_0_and_1_and_hard_users_are_cheap() -> None:
    distances = torch.rand(5, 4, generator=torch.Generator().manual_seed(0))
    norms = torch.tensor([1.0, 5.0, 1.0, 1.0, 1.0])
    plain, found = costs_of(distances, norms, 0.0), costs_of(distances, norms, 10.0)
    assert (found.min(), found.max()) == (0, 1)
    assert plain == pytest.approx(
        ((distances - distances.min()) / (distances.max() - distances.min())).numpy(), abs=1e-6
    )
    assert (found[1] < np.delete(found, 1, 0).min()).all()


def test_the_chosen_users_lie_near_the_validation_users(train: Development, teacher: Trajectory) -> None:
    chosen = GORACS(num_rows=4, length=6, iterations=20).choose_users(train, teacher, Streams(0))
    assert len(set(chosen.tolist())) == 4
    few = GORACS(num_rows=4, length=6, most_events=5).choose_users(train, teacher, Streams(0))
    assert len(set(few.tolist())) == 4


def test_goracs_needs_validation_events(teacher: Trajectory) -> None:
    train = development(histories_of_lists([[1, 2, 3]] * 6, [[]] * 6, [[20]] * 6))
    with pytest.raises(OptionError, match="'goracs' needs validation events; prepare with another --split"):
        GORACS(num_rows=2, length=3).check(train)


def test_a_missing_package_is_told(train: Development, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "ot", None)
    with pytest.raises(InputError, match=r"needs the package POT .*pip install 'recdistill\[ot\]'"):
        GORACS(num_rows=2, length=3).check(train)


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        (DEALRec, {"effort_weight": -1.0}),
        (DEALRec, {"hard_prune": 1.0}),
        (DEALRec, {"strata": 0}),
        (DEALRec, {"scale": 0.0}),
        (GORACS, {"gradient_weight": -1.0}),
        (GORACS, {"cut": 0}),
    ],
)
def test_options_out_of_range_are_refused(kind: type, options: dict[str, float]) -> None:
    with pytest.raises(OptionError, match=next(iter(options))):
        kind(num_rows=2, length=3, **options)
