"""K-Center, herding and EL2N against loops, on known cases, and where histories are short, long or equal.

Proved: what is chosen is what the slow references choose; the bound of K-Center; that no user is chosen twice; that
blocks and batches change nothing and keep to their sizes. Not proved: that any of them makes a good summary.
"""

import itertools
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from recdistill.data.development import Development
from recdistill.distill.base import RunContext
from recdistill.distill.coresets import el2n, representations
from recdistill.distill.coresets.el2n import EL2N, prediction_errors, user_errors
from recdistill.distill.coresets.herding import POINTS_PER_BLOCK, Herding, herd, products, sum_of
from recdistill.distill.coresets.k_center import KCenter, distances, greedy_centers
from recdistill.distill.coresets.representations import draw_largest, user_batches, user_vectors
from recdistill.distill.coresets.selection import UserSelector, usable_users
from recdistill.errors import NumericalError, OptionError
from recdistill.rng import Streams
from recdistill.training.trajectory import Trajectory
from reference import selectors as slow
from reference.tiny import development, histories_of_lists, random_histories, sasrec, training_events

BUDGET: dict[str, Any] = {"num_rows": 2, "length": 2}
SELECTORS = [KCenter(**BUDGET), Herding(**BUDGET), EL2N(**BUDGET)]
every = pytest.mark.parametrize("selector", SELECTORS, ids=lambda selector: selector.method)


def chosen_by(selector: UserSelector, train: Development, teacher: Trajectory, seed: int = 0) -> list[int]:
    return selector.choose_users(train, teacher, Streams(seed)).tolist()


def ties(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


@pytest.fixture
def small_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a teacher read 7 users at once, or fewer."""
    monkeypatch.setattr(representations, "USERS_PER_BATCH", 7)
    monkeypatch.setattr(representations, "PAIRS_PER_BATCH", 300)


# What is chosen


@pytest.mark.parametrize("seed", range(5))
def test_k_center_chooses_what_the_loop_chooses(seed: int, generator: torch.Generator) -> None:
    points = torch.randn(40, 3, generator=generator.manual_seed(seed), dtype=torch.float64)
    assert greedy_centers(points, 40, ties()) == slow.k_center(points.tolist(), 40)


def test_k_center_on_a_line() -> None:
    points = torch.tensor([[0.0], [4.0], [5.0], [6.0], [20.0]])  # the mean is 7
    assert greedy_centers(points, 5, ties()) == [3, 4, 0, 1, 2]


@pytest.mark.parametrize("seed", range(5))
def test_k_center_covers_at_most_twice_as_widely_as_the_best_choice(seed: int, generator: torch.Generator) -> None:
    points = torch.randn(12, 2, generator=generator.manual_seed(seed)).double()
    listed = points.tolist()
    for count in (1, 2, 3, 4):
        found = slow.radius(listed, [listed[index] for index in greedy_centers(points, count, ties())])
        best = min(slow.radius(listed, centers) for centers in itertools.combinations(listed, count))
        assert best <= found <= 2 * best


def test_distances_of_copies_are_exactly_zero(generator: torch.Generator) -> None:
    points = 1000 + 1e-3 * torch.randn(300, 16, generator=generator)  # squares and products would cancel here
    points[100:] = points[:1]
    found = distances(points, points[0])
    assert found[100:].tolist() == [0.0] * 200
    torch.testing.assert_close(found, (points - points[0]).double().norm(dim=1).float(), rtol=1e-5, atol=0)


@pytest.mark.parametrize("seed", range(5))
def test_herding_chooses_what_the_loop_chooses(seed: int, generator: torch.Generator) -> None:
    points = torch.randn(40, 3, generator=generator.manual_seed(seed), dtype=torch.float64) + 0.5
    assert herd(points, 40, ties()) == slow.herding(points.tolist(), 40)


def test_herding_takes_no_point_twice() -> None:
    points = torch.tensor([[10.0, 0.0], [1.0, 0.0], [0.0, 1.0]])  # third, w = (1, 0): the first would come again
    assert herd(points, 3, ties()) == [0, 2, 1]


def test_the_mean_of_a_herd_is_the_mean_of_all(generator: torch.Generator) -> None:
    directions = torch.randn(400, 4, generator=generator)
    points = directions / directions.norm(dim=1, keepdim=True) + 0.2
    mean = points.mean(0)
    drawn = [points[torch.randperm(400, generator=generator)[:40]].mean(0) for _ in range(50)]
    nearest = min((other - mean).norm() for other in drawn)
    assert (points[herd(points, 40, ties())].mean(0) - mean).norm() < nearest


def test_sums_over_blocks_are_those_of_double_precision(generator: torch.Generator) -> None:
    points = torch.randn(2 * POINTS_PER_BLOCK + 5, 64, generator=generator)
    points[POINTS_PER_BLOCK:] = points[:1]
    weight = torch.randn(64, generator=generator, dtype=torch.float64)
    found = products(points, weight)
    torch.testing.assert_close(found, (points.double() * weight).sum(1).float(), rtol=1.2e-7, atol=0)
    assert (found[POINTS_PER_BLOCK:] == found[0]).all()
    torch.testing.assert_close(sum_of(points), points.double().sum(0), rtol=1e-12, atol=1e-9)


@pytest.mark.usefixtures("small_batches")
def test_k_center_and_herding_read_the_best_teacher(train: Development, teacher: Trajectory) -> None:
    vectors = [slow.vector(teacher.model(), training_events(train.histories, user)) for user in range(30)]
    assert chosen_by(KCenter(num_rows=12, length=2), train, teacher) == slow.k_center(vectors, 12)
    assert chosen_by(Herding(num_rows=12, length=2), train, teacher) == slow.herding(vectors, 12)


@pytest.mark.usefixtures("small_batches")
@pytest.mark.parametrize(("length", "epochs"), [(2, (1, 2)), (6, (0, 1)), (9, (3, 3)), (20, (2, 50))])
def test_el2n_chooses_the_largest_errors(
    length: int, epochs: tuple[int, int], train: Development, teacher: Trajectory
) -> None:
    models = [teacher.model(epoch) for epoch in range(epochs[0], min(epochs[1], 3) + 1)]
    scores = np.array([slow.el2n(models, training_events(train.histories, user), length) for user in range(30)])
    order = chosen_by(EL2N(num_rows=30, length=length, epochs=epochs), train, teacher)
    assert sorted(order) == list(range(30))
    assert np.diff(scores[order]).max() < 1e-6
    assert chosen_by(EL2N(num_rows=5, length=length, epochs=epochs), train, teacher) == order[:5]


@pytest.mark.usefixtures("small_batches")
@pytest.mark.parametrize("length", [2, 6, 9, 20])
def test_errors_of_users_are_those_of_single_rows(length: int, train: Development, teacher: Trajectory) -> None:
    model, users = teacher.model(2), np.array([29, 3, 4, 17, 0, 8, 9, 10, 11])
    expected = [slow.el2n([model], training_events(train.histories, user), length) for user in users]
    torch.testing.assert_close(
        user_errors(model, train, users, length), torch.tensor(expected, dtype=torch.float64), rtol=0, atol=1e-6
    )


# Histories that are short, long or equal


@every
def test_users_with_one_training_event_are_never_chosen(selector: UserSelector, teacher: Trajectory) -> None:
    train = development(histories_of_lists([[1], [2, 3], [4], [], [5, 6]], [[19]] * 5, [[20]] * 5))
    assert sorted(chosen_by(selector, train, teacher)) == [1, 4]


@every
def test_what_the_teacher_cannot_read_changes_nothing(selector: UserSelector, teacher: Trajectory) -> None:
    recent = [[(3 * user + step) % 18 + 1 for step in range(9)] for user in range(8)]
    long = [[user % 5 + 1] * 30 + row for user, row in enumerate(recent)]
    changed = type(selector)(num_rows=8, length=39)
    short, longer = (development(histories_of_lists(rows, [[19]] * 8, [[20]] * 8)) for rows in (recent, long))
    assert chosen_by(changed, longer, teacher) == chosen_by(changed, short, teacher)  # 8 read, a ninth predicted
    rows = changed.distill(longer, teacher, None, Streams(0), RunContext()).rows
    assert rows.length == 39  # kept all the same


@pytest.mark.parametrize("choose", [greedy_centers, herd])
def test_copies_are_drawn_at_random_and_once(choose: Any) -> None:
    points = torch.ones(12, 3)
    assert sorted(choose(points, 12, ties())) == list(range(12))
    assert len({tuple(choose(points, 3, ties(seed))) for seed in range(8)}) > 4


def test_k_center_leaves_copies_to_the_end() -> None:
    points = torch.tensor([[0.0, 1.0]] * 5 + [[3.0, 0.0]] * 5 + [[9.0, 9.0]])
    chosen = greedy_centers(points, 11, ties())
    assert {points[index, 0].item() for index in chosen[:3]} == {0.0, 3.0, 9.0}
    assert sorted(chosen) == list(range(11))


def test_the_largest_value_is_drawn_evenly(rng: np.random.Generator) -> None:
    drawn = np.bincount([draw_largest(torch.tensor([1.0, 4.0, 4.0, -2.0]), rng) for _ in range(400)], minlength=4)
    assert drawn[[0, 3]].tolist() == [0, 0]
    assert drawn[1:3].min() > 150


# Batches and blocks


@pytest.mark.parametrize("length", [1, 3, 50])
def test_batches_hold_every_user_once_and_keep_to_their_size(length: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(representations, "USERS_PER_BATCH", 16)
    monkeypatch.setattr(representations, "PAIRS_PER_BATCH", 120)
    train = development(random_histories(50, seed=1))
    users = np.random.default_rng(0).permutation(50)[:45]
    seen: list[int] = []
    for places, rows in user_batches(train, users, length):
        seen += places.tolist()
        assert len(rows) == len(places)
        assert len(rows) == min(16, max(1, 120 // rows.length**2)) or len(seen) == 45  # the last may be smaller
        for place, ids, size in zip(places, rows.item_ids.tolist(), rows.lengths.tolist(), strict=True):
            assert ids[:size] == training_events(train.histories, users[place])[-length:]
    assert sorted(seen) == list(range(45))


@pytest.mark.usefixtures("small_batches")
@pytest.mark.parametrize("max_seq_len", [3, 8, 50])
def test_vectors_are_those_of_single_histories(max_seq_len: int, train: Development) -> None:
    model, users = sasrec(max_seq_len=max_seq_len), np.array([4, 29, 0, 11, 17, 2, 3, 5, 6])
    expected = [slow.vector(model, training_events(train.histories, user)) for user in users]
    torch.testing.assert_close(user_vectors(model, train, users), torch.tensor(expected), rtol=0, atol=1e-5)


def predictions(generator: torch.Generator, items: int = 50) -> tuple[Tensor, Tensor, Tensor]:
    hidden, table = torch.randn(20, 4, generator=generator), torch.randn(items, 4, generator=generator)
    return hidden, table, torch.randint(items, (20,), generator=generator)


@pytest.mark.parametrize("block_bytes", [1, 700, 2**24])
def test_errors_are_those_of_the_formula(
    block_bytes: int, generator: torch.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(el2n, "BLOCK_BYTES", block_bytes)
    hidden, table, targets = predictions(generator)
    p = torch.softmax(hidden.double() @ table.double().T, 1)
    expected = (p.square().sum(1) - 2 * p[torch.arange(20), targets] + 1).sqrt()
    torch.testing.assert_close(prediction_errors(hidden, table, targets), expected, rtol=0, atol=1e-6)


def test_errors_of_the_certain_are_known() -> None:
    table = torch.tensor([[200.0, 0.0], [0.0, 0.0], [0.0, 200.0]])
    hidden = torch.tensor([[1.0, 0.0], [1.0, 0.0], [0.0, 0.0], [1.0, 1.0]])
    expected = [0.0, 2**0.5, (2 / 3) ** 0.5, 0.5**0.5]
    found = prediction_errors(hidden, table, torch.tensor([0, 1, 2, 2]))
    torch.testing.assert_close(found, torch.tensor(expected, dtype=torch.float64), rtol=0, atol=1e-7)


def test_small_errors_and_large_catalogues_do_not_cancel(generator: torch.Generator) -> None:
    nearly = torch.tensor([[1.0]]), torch.tensor([[12.0], [0.0]]), torch.tensor([0])
    p = torch.softmax(torch.tensor([12.0, 0.0]).double(), 0)
    assert prediction_errors(*nearly).item() == pytest.approx(2**0.5 * p[1].item(), rel=0.05)
    hidden, table, targets = predictions(generator, items=100_000)
    hidden = hidden * 1e-3  # every item has a probability of nearly 1e-5, which single precision hides beside 1
    p = torch.softmax(hidden.double() @ table.double().T, 1)
    expected = (p.square().sum(1) - 2 * p[torch.arange(20), targets] + 1).sqrt()
    torch.testing.assert_close(prediction_errors(hidden, table, targets), expected, rtol=0, atol=1e-9)


class Largest(TorchDispatchMode):
    """Notes the number of elements of the largest tensor that any operation returns."""

    def __init__(self) -> None:
        super().__init__()
        self.numel = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        parts = result if isinstance(result, tuple | list) else [result]
        self.numel = max([self.numel, *(part.numel() for part in parts if isinstance(part, Tensor))])
        return result


def test_positions_by_items_are_written_out_in_blocks_only(
    generator: torch.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    hidden, table, targets = predictions(generator, items=1000)
    monkeypatch.setattr(el2n, "BLOCK_BYTES", 3 * 1000 * 4)
    with Largest() as noted:
        prediction_errors(hidden, table, targets)
    assert noted.numel == max(3 * 1000, table.numel())


@pytest.mark.parametrize("choose", [greedy_centers, herd])
def test_memory_is_that_of_the_points(choose: Any, generator: torch.Generator) -> None:
    points = torch.randn(9 * POINTS_PER_BLOCK, 8, generator=generator)
    with Largest() as noted:
        choose(points, 4, ties())
    assert noted.numel <= points.numel()


# What is refused


@pytest.mark.parametrize("epochs", [(-1, 3), (3, 2)])
def test_epochs_without_an_order_are_refused(epochs: tuple[int, int]) -> None:
    with pytest.raises(OptionError, match=r"epochs: .* must be two epochs"):
        EL2N(epochs=epochs)


def test_el2n_needs_a_teacher_that_has_its_first_epoch(train: Development, teacher: Trajectory) -> None:
    assert len(chosen_by(EL2N(**BUDGET, epochs=(3, 9)), train, teacher)) == 2
    with pytest.raises(OptionError, match=r"epochs: \(4, 9\) start after the teacher's last epoch 3"):
        chosen_by(EL2N(**BUDGET, epochs=(4, 9)), train, teacher)


@pytest.mark.parametrize("selector", SELECTORS, ids=lambda selector: selector.method)
def test_a_budget_is_checked_as_for_every_selector(selector: UserSelector) -> None:
    with pytest.raises(OptionError, match="--budget: '2x1' needs sequences of at least 2 items"):
        type(selector)(num_rows=2, length=1)


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_a_damaged_teacher_is_an_error(bad: float, train: Development) -> None:
    model, users = sasrec(), usable_users(train)
    with torch.no_grad():
        model.item_table[5, 2] = bad
    with pytest.raises(NumericalError, match="a user vector is NaN or infinite"):
        user_vectors(model, train, users)
    with pytest.raises(NumericalError, match="a prediction error is NaN or infinite"):
        user_errors(model, train, users, 6)
