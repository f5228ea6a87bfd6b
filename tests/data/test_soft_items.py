"""Tiled sums over the catalogue against the same formulas written out.

Proved in float64: values, first and second derivatives in every argument, by every order of reverse and forward mode,
alone and as a student composes them; the gradients that are computed without a graph; and that no tensor of ``N V``
numbers is made. Speed is not tested.
"""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.autograd import gradcheck, gradgradcheck
from torch.func import grad, jvp, vmap
from torch.fx.experimental.proxy_tensor import make_fx
from torch.utils._python_dispatch import TorchDispatchMode

from recdistill.data.soft_items import (
    BUFFERS,
    DEFAULT_BUDGET,
    SMALLEST_TILE,
    expected_rows,
    logsumexp_rows,
    row_gradient,
    table_gradient,
    tile_for,
)
from recdistill.errors import OptionError

# the first use of forward mode in a process compiles some of its formulas with a part of torch that torch deprecates
pytestmark = pytest.mark.filterwarnings("ignore:.torch.jit.script. is deprecated:DeprecationWarning")

N, V, R, D = 3, 7, 2, 4
Function = Callable[..., Tensor]


def dense_logsumexp(hidden: Tensor, table: Tensor, tile: int | None = None) -> Tensor:
    return torch.logsumexp(hidden @ table.T, dim=1)


def dense_expected(queries: Tensor, keys: Tensor, table: Tensor, normaliser: Tensor, tile: int | None = None) -> Tensor:
    return torch.exp(queries @ keys.T - normaliser.unsqueeze(1)) @ table


def student(expected: Function, logsumexp: Function, tile: int | None = None) -> Function:
    """Return a loss in which the item table is embedding and output layer, and the normaliser is given."""

    def loss(queries: Tensor, keys: Tensor, table: Tensor, normaliser: Tensor) -> Tensor:
        embedded = expected(queries, keys, table, normaliser, tile)
        hidden = torch.tanh(embedded) + embedded.roll(1, 0)
        return (logsumexp(hidden, table, tile) - (hidden * embedded.roll(1, 1)).sum(1)).square().mean()

    return loss


def whole(expected: Function, logsumexp: Function, tile: int | None = None) -> Function:
    """Return the student's loss with the normaliser computed from the factors."""
    loss = student(expected, logsumexp, tile)
    return lambda queries, keys, table: loss(queries, keys, table, logsumexp(queries, keys, tile))


def scalar(function: Function) -> Function:
    """Return a loss that weighs every number of the result differently."""

    def loss(*arguments: Tensor) -> Tensor:
        result = function(*arguments)
        return (result * torch.linspace(0.5, 2, result.numel(), dtype=result.dtype).view_as(result).cos()).sum().sin()

    return loss


def losses(case: str, tile: int) -> tuple[Function, Function]:
    """Return a loss by tiles and the same loss written out."""
    if case == "logsumexp":
        return scalar(lambda hidden, table: logsumexp_rows(hidden, table, tile)), scalar(dense_logsumexp)
    if case == "expected":
        return scalar(lambda *arguments: expected_rows(*arguments, tile)), scalar(dense_expected)
    build = student if case == "student" else whole
    return build(expected_rows, logsumexp_rows, tile), build(dense_expected, dense_logsumexp)


def arguments(case: str, seed: int = 0, dtype: torch.dtype = torch.float64) -> tuple[Tensor, ...]:
    generator = torch.Generator().manual_seed(seed)
    queries, keys, table, hidden = (
        torch.randn(*shape, generator=generator, dtype=torch.float64).to(dtype)
        for shape in ((N, R), (V, R), (V, D), (N, D))
    )
    if case == "logsumexp":
        return hidden, table
    if case == "whole":
        return queries, keys, table
    # not exactly the logsumexp: the formula holds for any normaliser
    return queries, keys, table, dense_logsumexp(queries, keys) + 0.1 * hidden[:, 0]


def close(found: Any, expected: Any) -> None:
    torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-10)


cases = pytest.mark.parametrize("case", ["logsumexp", "expected", "student", "whole"])
tiles = pytest.mark.parametrize("tile", [1, 3, V - 1, V, 100])


@cases
@tiles
def test_values_and_gradients_are_those_of_the_formula(case: str, tile: int) -> None:
    tiled, dense = losses(case, tile)
    values = arguments(case)
    places = tuple(range(len(values)))
    close(tiled(*values), dense(*values))
    close(grad(tiled, places)(*values), grad(dense, places)(*values))


@pytest.mark.parametrize("tile", [1, 3])
@pytest.mark.parametrize("case", ["logsumexp", "expected", "student"])
def test_derivatives_agree_with_finite_differences(case: str, tile: int) -> None:
    values = tuple(value.requires_grad_() for value in arguments(case))
    tiled, _ = losses(case, tile)
    assert gradcheck(tiled, values, check_forward_ad=True, fast_mode=True)
    assert gradgradcheck(tiled, values, check_fwd_over_rev=True, check_rev_over_rev=True, fast_mode=True)


def reverse_over_reverse(loss: Function, values: tuple[Tensor, ...], along: dict[int, Tensor]) -> tuple[Tensor, ...]:
    leaves = [value.clone().requires_grad_() for value in values]
    slopes = torch.autograd.grad(loss(*leaves), [leaves[place] for place in along], create_graph=True)
    total = torch.stack([(slope * u).sum() for slope, u in zip(slopes, along.values(), strict=True)]).sum()
    return torch.autograd.grad(total, leaves)


def moving(loss: Function, values: tuple[Tensor, ...], places: list[int]) -> Function:
    """Return ``loss`` as a function of some of its arguments only."""
    return lambda *moved: loss(*({**dict(enumerate(values)), **dict(zip(places, moved, strict=True))}.values()))


def slope(loss: Function, values: tuple[Tensor, ...], along: dict[int, Tensor]) -> Tensor:
    """Return the derivative of the loss along directions, by forward mode."""
    places = list(along)
    held = moving(loss, values, places)
    return jvp(held, tuple(values[place] for place in places), tuple(along.values()))[1]


def reverse_over_forward(loss: Function, values: tuple[Tensor, ...], along: dict[int, Tensor]) -> tuple[Tensor, ...]:
    return grad(lambda *moved: slope(loss, moved, along), tuple(range(len(values))))(*values)


def forward_over_reverse(loss: Function, values: tuple[Tensor, ...], along: dict[int, Tensor]) -> tuple[Tensor, ...]:
    gradient = grad(loss, tuple(range(len(values))))
    places = list(along)
    held = moving(gradient, values, places)
    return jvp(held, tuple(values[place] for place in places), tuple(along.values()))[1]


def forward_over_forward(loss: Function, values: tuple[Tensor, ...], along: dict[int, Tensor]) -> tuple[Tensor, ...]:
    everywhere = dict(enumerate(arguments_like(values, seed=9)))
    return (slope(lambda *moved: slope(loss, moved, along), values, everywhere),)


def forward_over_reverse_over_forward(
    loss: Function, values: tuple[Tensor, ...], along: dict[int, Tensor]
) -> tuple[Tensor, ...]:
    return forward_over_reverse(lambda *moved: slope(loss, moved, along), values, along)


def arguments_like(values: tuple[Tensor, ...], seed: int) -> tuple[Tensor, ...]:
    generator = torch.Generator().manual_seed(seed)
    return tuple(torch.randn(value.shape, generator=generator, dtype=value.dtype) for value in values)


ORDERS = (
    reverse_over_reverse,
    reverse_over_forward,
    forward_over_reverse,
    forward_over_forward,
    forward_over_reverse_over_forward,
)


@cases
@pytest.mark.parametrize("order", ORDERS, ids=lambda order: order.__name__)
def test_higher_derivatives_are_those_of_the_formula(case: str, order: Function) -> None:
    tiled, dense = losses(case, 3)
    values = arguments(case)
    directions = dict(enumerate(arguments_like(values, seed=5)))
    for along in (directions, *({place: direction} for place, direction in directions.items())):
        expected = order(dense, values, along)
        assert any(part.abs().max() > 1e-3 for part in expected)
        close(order(tiled, values, along), expected)


@pytest.mark.parametrize("batched", [(2,), (2, 3), (0, 1, 2, 3)])
def test_vmap_is_a_loop(batched: tuple[int, ...]) -> None:
    tiled, dense = losses("student", 3)
    values, others = arguments("student"), arguments("student", seed=1)
    many = tuple(
        torch.stack([value, other], dim=-1) if place in batched else value
        for place, (value, other) in enumerate(zip(values, others, strict=True))
    )
    pairs = zip(values, others, strict=True)
    single = tuple(other if place in batched else value for place, (value, other) in enumerate(pairs))
    dims = tuple(-1 if place in batched else None for place in range(4))
    places = (0, 1, 2, 3)
    close(vmap(tiled, dims)(*many), torch.stack([dense(*values), dense(*single)]))
    gradients = zip(grad(dense, places)(*values), grad(dense, places)(*single), strict=True)
    close(vmap(grad(tiled, places), dims)(*many), tuple(torch.stack(pair) for pair in gradients))

    def total(loss: Function, *arguments: Tensor) -> Tensor:
        return vmap(loss, dims)(*arguments).sum()

    along = {2: arguments_like(many, seed=3)[2]}
    for order in (reverse_over_reverse, reverse_over_forward, forward_over_reverse):
        found = order(lambda *moved: total(tiled, *moved), many, along)
        close(found, order(lambda *moved: total(dense, *moved), many, along))


def bars_and_tables(widths: tuple[int, ...], rows: int = N) -> list[tuple[Tensor, Tensor]]:
    """Return a pair of each width."""
    generator = torch.Generator().manual_seed(6)
    return [
        tuple(torch.randn(size, width, generator=generator, dtype=torch.float64) for size in (rows, V))
        for width in widths
    ]


@tiles
@pytest.mark.parametrize("rows", [N, 1, 0])
def test_the_gradient_in_the_table_is_that_of_the_formula(tile: int, rows: int) -> None:
    queries, keys, _, normaliser = arguments("expected")
    [(bar, table)] = bars_and_tables((D,), rows)
    expected = grad(lambda table: (dense_expected(queries[:rows], keys, table, normaliser[:rows]) * bar).sum())(table)
    found = table_gradient(queries[:rows], keys, normaliser[:rows], bar, tile)
    close(found, expected)
    assert rows == 0 or found.abs().max() > 0.1


@tiles
@pytest.mark.parametrize("rows", [N, 1, 0])
@pytest.mark.parametrize("widths", [(D,), (1,), (D, D), (2, D, 1)])
def test_the_gradient_in_the_rows_is_that_of_the_formula(tile: int, rows: int, widths: tuple[int, ...]) -> None:
    queries, keys, _, normaliser = arguments("expected")
    pairs = bars_and_tables(widths, rows)

    def formula(queries: Tensor, normaliser: Tensor) -> Tensor:
        return torch.stack(
            [(dense_expected(queries, keys, table, normaliser) * bar).sum() for bar, table in pairs]
        ).sum()

    found = row_gradient(queries[:rows], keys, normaliser[:rows], pairs, tile)
    close(found, grad(formula, (0, 1))(queries[:rows], normaliser[:rows]))
    assert rows == 0 or min(float(part.abs().max()) for part in found) > 0.1


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_gradients_without_a_graph_are_those_with_one(dtype: torch.dtype) -> None:
    queries, keys, table, normaliser = (value.requires_grad_() for value in arguments("expected", dtype=dtype))
    bar = arguments("logsumexp", dtype=dtype)[0]
    slopes = torch.autograd.grad(expected_rows(queries, keys, table, normaliser, 3), (queries, normaliser, table), bar)
    with torch.no_grad():
        found = row_gradient(queries, keys, normaliser, [(bar, table)], 3)
        found = (*found, table_gradient(queries, keys, normaliser, bar, 3))
    assert not any(part.requires_grad for part in found)
    torch.testing.assert_close(found, slopes)


def test_normaliser_and_expectation_are_a_softmax() -> None:
    queries, keys, table = arguments("whole")
    found = expected_rows(queries, keys, table, logsumexp_rows(queries, keys, 2), 2)
    close(found, torch.softmax(queries @ keys.T, dim=1) @ table)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_large_logits_do_not_overflow(dtype: torch.dtype) -> None:
    queries, keys, table = (1000 * value for value in arguments("whole", dtype=dtype))
    normaliser = logsumexp_rows(queries, keys, 2)
    torch.testing.assert_close(normaliser, dense_logsumexp(queries, keys))
    negative = (-queries.abs() - 1, keys.abs())
    torch.testing.assert_close(logsumexp_rows(*negative, 2), dense_logsumexp(*negative))
    found = expected_rows(queries, keys, table, normaliser, 2)
    torch.testing.assert_close(found, torch.softmax(queries @ keys.T, dim=1) @ table)


@cases
def test_float32_is_float64_rounded(case: str) -> None:
    tiled, dense = losses(case, 3)
    values = arguments(case, dtype=torch.float32)
    found = grad(tiled, tuple(range(len(values))))(*values)
    assert {part.dtype for part in found} == {torch.float32}
    exact = grad(dense, tuple(range(len(values))))(*(value.double() for value in values))
    for part, right in zip(found, exact, strict=True):
        torch.testing.assert_close(part.double(), right, rtol=1e-4, atol=1e-5)


@cases
def test_strides_change_nothing(case: str) -> None:
    tiled, dense = losses(case, 3)
    values = tuple(value.T.contiguous().T if value.dim() == 2 else value for value in arguments(case))
    assert not values[0].is_contiguous()
    along = dict(enumerate(arguments_like(values, seed=2)))
    close(tiled(*values), dense(*values))
    close(reverse_over_reverse(tiled, values, along), reverse_over_reverse(dense, values, along))


@pytest.mark.parametrize("rows", [0, 1])
@pytest.mark.parametrize("items", [1, 2])
def test_few_rows_and_few_items(rows: int, items: int) -> None:
    queries, keys, table, normaliser = arguments("student")
    values = (queries[:rows], keys[:items], table[:items], normaliser[:rows])
    along = dict(enumerate(arguments_like(values, seed=2)))
    tiled, dense = losses("expected", 1)
    close(reverse_over_reverse(tiled, values, along), reverse_over_reverse(dense, values, along))
    close(expected_rows(*values, 1), dense_expected(*values))
    close(logsumexp_rows(*values[:2], 1), dense_logsumexp(*values[:2]))
    tiled, dense = losses("logsumexp", 1)
    close(grad(tiled, (0, 1))(*values[:2]), grad(dense, (0, 1))(*values[:2]))


class Recorder(TorchDispatchMode):
    """Notes the largest tensor that any operation returns, and how often each operation runs."""

    def __init__(self) -> None:
        super().__init__()
        self.largest = 0
        self.calls: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        self.calls.append(func.overloadpacket.__name__)
        parts = result if isinstance(result, tuple | list) else [result]
        self.largest = max([self.largest, *(part.numel() for part in parts if isinstance(part, Tensor))])
        return result

    @property
    def products(self) -> int:
        """Number of matrix products."""
        return sum(name in ("mm", "addmm", "addmm_") for name in self.calls)


def large_student(tile: int | None) -> tuple[Function, tuple[Tensor, ...]]:
    """Return a student's loss at 64 rows of 5000 items, and its arguments."""
    generator = torch.Generator().manual_seed(0)
    shapes = ((64, 8), (5000, 8), (5000, 8))
    values = tuple(torch.randn(*shape, generator=generator) for shape in shapes)
    return whole(expected_rows, logsumexp_rows, tile), values


ways = pytest.mark.parametrize("way", [reverse_over_reverse, reverse_over_forward, forward_over_reverse])


@ways
def test_no_tensor_of_rows_by_items_is_made(way: Function) -> None:
    loss, values = large_student(tile=128)
    along = dict(enumerate(arguments_like(values, seed=1)))
    with Recorder() as recorder:
        way(loss, values, along)
    assert recorder.products > 9 * 5000 / 128  # the operations inside were seen
    assert recorder.largest < 64 * 5000 / 4
    assert recorder.largest <= max(5000 * 8, 5 * 64 * 128)


def test_nor_is_one_by_the_gradients_without_a_graph() -> None:
    _, (queries, keys, table) = large_student(tile=128)
    normaliser = dense_logsumexp(queries, keys)
    with Recorder() as recorder:
        table_gradient(queries, keys, normaliser, queries, 128)
        row_gradient(queries, keys, normaliser, [(queries, table), (queries, keys)], 128)
    assert recorder.products > 5 * 5000 / 128
    assert recorder.largest <= max(5000 * 8, 5 * 64 * 128)


def test_the_recorder_sees_what_the_formula_makes() -> None:
    loss, values = large_student(tile=5000)
    with Recorder() as recorder:
        reverse_over_reverse(loss, values, {2: values[2]})
    assert recorder.largest == 64 * 5000


def products_per_tile(inputs: tuple[int, ...]) -> float:
    """Return the matrix products per tile in the gradient of the expected rows."""
    values = tuple(value.requires_grad_() for value in arguments("expected"))
    expected = expected_rows(*values, 1).sum()
    with Recorder() as recorder:
        torch.autograd.grad(expected, [values[place] for place in inputs])
    return recorder.products / V


def test_gradients_that_nobody_asks_for_are_not_computed() -> None:
    assert products_per_tile((2,)) == 2  # <q, k>; P^T G
    assert products_per_tile((0,)) == 3  # <q, k>; G E^T; its product with K
    assert products_per_tile((0, 1, 2, 3)) == 5


def test_gradients_of_some_inputs_only() -> None:
    tiled, dense = losses("student", 3)
    for place in range(4):
        found = []
        for loss in (tiled, dense):
            values = arguments("student")
            values[place].requires_grad_()
            (first,) = torch.autograd.grad(loss(*values), values[place], create_graph=True)
            found.append((first.detach(), *torch.autograd.grad(first.square().sum(), values[place])))
        close(*found)


def test_a_tile_that_holds_all_items_can_be_traced() -> None:
    loss, _ = losses("whole", V)
    values = arguments("whole")
    gradient = grad(loss, (0, 1, 2))
    close(make_fx(gradient)(*values)(*arguments("whole", seed=1)), gradient(*arguments("whole", seed=1)))


def test_the_tile_is_chosen_when_it_is_not_given(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("recdistill.data.soft_items.tile_for", lambda rows, itemsize: {(N, 8): 2}[rows, itemsize])
    hidden, table = arguments("logsumexp")
    with Recorder() as recorder:
        close(logsumexp_rows(hidden, table), dense_logsumexp(hidden, table))
    assert recorder.calls.count("mm") == 1 + 4  # of 7 items, two at a time; and the formula
    queries, keys, table, normaliser = arguments("expected")
    with Recorder() as recorder:
        table_gradient(queries, keys, normaliser, hidden)
    assert recorder.products == 2 * 4
    with Recorder() as recorder:
        row_gradient(queries, keys, normaliser, [(hidden, table)])
    assert recorder.products == 3 * 4


@pytest.mark.parametrize("rows", [0, 1, 750, 4096])
@pytest.mark.parametrize("itemsize", [4, 8])
def test_tiles_keep_within_the_budget(rows: int, itemsize: int) -> None:
    tile = tile_for(rows, itemsize)
    assert tile % SMALLEST_TILE == 0
    assert tile == SMALLEST_TILE or BUFFERS * rows * tile * itemsize <= DEFAULT_BUDGET
    assert BUFFERS * max(rows, 1) * (tile + SMALLEST_TILE) * itemsize > DEFAULT_BUDGET
    assert tile_for(rows, itemsize, budget=0) == SMALLEST_TILE


@pytest.mark.parametrize("tile", [0, -3])
def test_a_tile_of_no_items_is_an_error(tile: int) -> None:
    with pytest.raises(OptionError, match="tile"):
        logsumexp_rows(*arguments("logsumexp"), tile)
    with pytest.raises(OptionError, match="tile"):
        expected_rows(*arguments("expected"), tile)
    queries, keys, table, normaliser = arguments("expected")
    bar = arguments("logsumexp")[0]
    with pytest.raises(OptionError, match="tile"):
        table_gradient(queries, keys, normaliser, bar, tile)
    with pytest.raises(OptionError, match="tile"):
        row_gradient(queries, keys, normaliser, [(bar, table)], tile)
