"""Factors that begin at real users: each step against brute force, and that the rows then resemble these users.

Not proved: that a run ends better for it.
"""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from recdistill.data.development import Development
from recdistill.data.rows import TuckerRows, tucker_queries
from recdistill.distill.coresets.selection import usable_users
from recdistill.distill.synthetic import TuckerSequences
from recdistill.distill.td3 import TD3
from recdistill.distill.user_start import (
    evenly_spaced,
    likeliest_scale,
    right_aligned,
    spike_queries,
    start_from_users,
    tucker_factors,
)
from recdistill.errors import OptionError
from recdistill.rng import Streams
from recdistill.training.trajectory import Trajectory
from reference.td3 import TINY, same, summary, task_of
from reference.tiny import NUM_ITEMS, training_events


def begun(
    train: Development, factor: torch.Tensor, rank: int, rows: int = 5, smoothing: float = 0.1
) -> TuckerSequences:
    made = TuckerSequences(rows, 6, rank, factor, pad_column=False, generator=torch.Generator().manual_seed(0))
    start_from_users(made, train, smoothing=smoothing, rng=Streams(3))
    return made


def drawn_users(train: Development, rows: int = 5) -> list[list[int]]:
    users = Streams(3).numpy("users").choice(usable_users(train), rows, replace=False)
    return [training_events(train.histories, user)[-6:] for user in users]


def one_hot_factor() -> torch.Tensor:
    """An item factor that can say everything."""
    return torch.eye(NUM_ITEMS)


def test_rows_are_moved_to_the_right() -> None:
    rows = torch.tensor([[3, 4, 0], [5, 0, 0], [1, 2, 6]])
    assert right_aligned(rows, 4).tolist() == [[0, 0, 3, 4], [0, 0, 0, 5], [0, 1, 2, 6]]
    assert right_aligned(rows, 3).tolist() == [[0, 3, 4], [0, 0, 5], [1, 2, 6]]


def test_queries_are_least_squares_of_one_hot_logits(generator: torch.Generator) -> None:
    factor = torch.randn(11, 4, generator=generator)
    items = torch.tensor([[0, 3], [11, 1]])
    whitened, roots = spike_queries(items, factor)
    queries = whitened @ roots
    design = torch.cat([factor, torch.ones(11, 1)], dim=1)  # logits count but for a constant
    for place in ((0, 1), (1, 0), (1, 1)):
        wanted = torch.zeros(11)
        wanted[items[place] - 1] = 1
        expected = torch.linalg.lstsq(design, wanted.unsqueeze(1)).solution[:4, 0]
        torch.testing.assert_close(queries[place], expected, rtol=1e-4, atol=1e-5)
    assert queries[0, 0].tolist() == [0] * 4
    logits = (queries @ (factor - factor.mean(0)).T)[[0, 1, 1], [1, 0, 1]]
    torch.testing.assert_close(
        torch.cdist(whitened[[0, 1, 1], [1, 0, 1]], whitened[[0, 1, 1], [1, 0, 1]]),
        torch.cdist(logits, logits),
        rtol=1e-3,
        atol=1e-3,
    )


def test_directions_in_which_items_do_not_differ_are_left_out(generator: torch.Generator) -> None:
    narrow = torch.randn(11, 2, generator=generator) @ torch.randn(2, 4, generator=generator)
    whitened, roots = spike_queries(torch.tensor([[3, 7]]), narrow)
    assert torch.isfinite(whitened @ roots).all()
    assert (whitened @ roots).abs().max() < 100


def test_a_tensor_of_the_rank_is_found_again(generator: torch.Generator) -> None:
    core, user, time = (torch.randn(*shape, generator=generator) for shape in ((2, 3, 4), (7, 2), (6, 3)))
    queries = tucker_queries(core, user, time)
    found_user, found_time = tucker_factors(queries, 2, 3)
    torch.testing.assert_close(found_user.T @ found_user, torch.eye(2), rtol=0, atol=1e-5)
    torch.testing.assert_close(found_time.T @ found_time, torch.eye(3), rtol=0, atol=1e-5)
    small = torch.einsum("abr,ai,bj->ijr", queries, found_user, found_time)
    torch.testing.assert_close(tucker_queries(small, found_user, found_time), queries, rtol=1e-4, atol=1e-4)


def test_no_decomposition_nearby_is_nearer(generator: torch.Generator) -> None:
    queries = torch.randn(8, 6, 4, generator=generator)

    def error(user: torch.Tensor, time: torch.Tensor) -> float:
        small = torch.einsum("abr,ai,bj->ijr", queries, user, time)
        return float((tucker_queries(small, user, time) - queries).norm())

    factors = tucker_factors(queries, 3, 2)
    best = error(*factors)
    assert best < float(queries.norm())
    for _ in range(50):
        moved = [torch.linalg.qr(each + 0.1 * torch.randn(each.shape, generator=generator))[0] for each in factors]
        assert error(*moved) > best


def test_both_factors_are_refined_in_turn(generator: torch.Generator, monkeypatch: pytest.MonkeyPatch) -> None:
    queries, errors = torch.randn(8, 6, 4, generator=generator), []
    for sweeps in (1, 10, 40):
        monkeypatch.setattr("recdistill.distill.user_start.SWEEPS", sweeps)
        user, time = tucker_factors(queries, 3, 2)
        errors.append(float(queries.norm() - torch.einsum("abr,ai,bj->ijr", queries, user, time).norm()))
    monkeypatch.undo()
    user, time = tucker_factors(queries, 3, 2)
    found = float(queries.norm() - torch.einsum("abr,ai,bj->ijr", queries, user, time).norm())
    assert errors[2] <= found < errors[0] - 5e-3  # the larger the core, the smaller the error
    assert found - errors[2] < 0.1 * (errors[0] - errors[2])


def test_ranks_beyond_the_rows_are_cut() -> None:
    user, time = tucker_factors(torch.randn(2, 3, 4, generator=torch.Generator().manual_seed(0)), 5, 6)
    assert (user.shape, time.shape) == ((2, 2), (3, 3))


@pytest.mark.parametrize("smoothing", [0.05, 0.5])
def test_the_scale_is_the_best_of_a_grid(smoothing: float, generator: torch.Generator) -> None:
    logits, items = 0.2 * torch.randn(30, 9, generator=generator), torch.randint(1, 10, (30,), generator=generator)
    logits[torch.arange(30), items - 1] += 0.3

    def loss(scale: float) -> float:
        surprise = -torch.log_softmax(scale * logits.double(), -1)
        hit = surprise.gather(1, items.unsqueeze(1) - 1).mean()
        return float((1 - smoothing) * hit + smoothing * surprise.mean())

    found = likeliest_scale(logits, items, smoothing)
    grid = np.linspace(0, 30, 601)
    assert loss(found) <= min(loss(float(scale)) for scale in grid) + 1e-9
    assert 0.5 < found < 30


def test_logits_that_say_nothing_give_a_finite_scale() -> None:
    assert math.isfinite(likeliest_scale(torch.zeros(3, 4), torch.tensor([1, 2, 3]), 0.1))


def test_places_are_spread_evenly() -> None:
    real = torch.tensor([[False, True, True, True], [True, True, True, False]])
    assert evenly_spaced(real, 100).tolist() == real.tolist()
    assert evenly_spaced(real, 3).flatten().nonzero().flatten().tolist() == [1, 3, 5]
    assert int(evenly_spaced(real, 0).sum()) == 1


def test_rows_that_can_say_everything_are_the_users(train: Development) -> None:
    made = begun(train, one_hot_factor(), rank=6, smoothing=0.1)
    found = made.rows().items().dense().probabilities.detach()
    for row, events in enumerate(drawn_users(train)):
        for place, item in enumerate(reversed(events)):
            assert float(found[row, -1 - place, item - 1]) == pytest.approx(0.9 + 0.1 / NUM_ITEMS, abs=0.02)
        for place in range(6 - len(events)):  # before a short history
            torch.testing.assert_close(found[row, place], torch.full((NUM_ITEMS,), 1 / NUM_ITEMS), rtol=0, atol=1e-3)
    assert any(len(events) < 6 for events in drawn_users(train))


def test_rows_on_the_teachers_factor_resemble_the_users(train: Development, teacher: Trajectory) -> None:
    made = begun(train, teacher.model().item_table[1:].detach(), rank=4)
    found = made.rows().items().dense().probabilities.detach()
    mine = [
        float(found[row, -1 - place, item - 1])
        for row, events in enumerate(drawn_users(train))
        for place, item in enumerate(reversed(events))
    ]
    assert np.mean(mine) > 2 / NUM_ITEMS
    assert np.mean(np.log(mine)) > -math.log(NUM_ITEMS) + 0.2  # a likelier account of them than the uniform one


def test_ranks_that_cannot_be_filled_can_still_learn(train: Development) -> None:
    made = begun(train, one_hot_factor(), rank=8)
    assert made.core[5:].abs().max() == 0  # five users, six positions
    assert made.core[:, 6:].abs().max() == 0
    assert made.user_factor[:, 5:].abs().max() > 0
    made.rows().items().dense().probabilities[..., 0].log().sum().backward()
    assert made.core.grad is not None
    assert made.core.grad[5:, 6:].abs().max() > 0


def test_a_run_begins_at_users_when_told_to(train: Development, teacher: Trajectory) -> None:
    settings = replace(TINY, init="users")
    begin = task_of(settings, train, teacher).synthetic.frozen_rows().items().dense().probabilities
    uniform = task_of(TINY, train, teacher).synthetic.frozen_rows().items().dense().probabilities
    assert (uniform * NUM_ITEMS - 1).abs().max() < 0.05 < (begin * NUM_ITEMS - 1).abs().max()
    one, again = (summary(replace(settings, epochs=1), train, teacher) for _ in range(2))
    assert isinstance(one.rows, TuckerRows)
    assert same(one, again)
    assert not same(one, summary(replace(TINY, epochs=1), train, teacher))


def test_smoothing_flattens_the_rows(train: Development) -> None:
    peaks = [
        float(begun(train, one_hot_factor(), 6, smoothing=smoothing).frozen_rows().items().dense().probabilities.max())
        for smoothing in (0.01, 0.1, 0.5)
    ]
    assert peaks == sorted(peaks, reverse=True)
    assert peaks[0] > peaks[2] + 0.3


@pytest.mark.parametrize(("option", "value"), [("init", "data"), ("init_smoothing", 0.0), ("init_smoothing", 1.0)])
def test_options_out_of_range_are_refused(option: str, value: object) -> None:
    broken = TD3()
    object.__setattr__(broken, option, value)  # past the type checker, which only runs in tests
    with pytest.raises(OptionError, match=option):
        broken.__post_init__()
