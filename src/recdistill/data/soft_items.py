"""Softmax over a large catalogue, read without ever being written out.

``N`` positions, each a distribution ``softmax(q_n K^T)`` over ``V`` items, would be ``N V`` numbers. What a model needs
of them is less: the expected row of its item table (``N D`` numbers) and the normaliser of its own softmax (``N``).
Both are sums over items, taken here a *tile* of items at a time, and so are their derivatives of every order.

All derivatives are gradients of scalars of one kind. With a weight ``c_n`` per row and factors ``F^1, F^2, ...``, each
a sum of products ``F^i_nv = sum_t <a^it_n, b^it_v>``, let

    S = sum_nv  c_n  exp(<q_n, k_v> - z_n)  F^1_nv  F^2_nv ...

The expected rows of a table ``b`` are ``dS/da`` with one factor, and the gradient of ``<g, logsumexp(H E^T)>`` is that
of ``S`` with ``c = g`` and no factor. The derivative of ``S`` in a direction is a sum of such scalars again: a
direction in ``q`` or ``k`` adds a factor, one in ``a`` or ``b`` changes one, one in ``z`` or ``c`` changes the weight.
Second derivatives are symmetric, so that the same few lines are the backward pass (the direction is what comes from
above) and the forward-mode pass (the direction is the tangents). Nothing is approximated.

Shapes: ``N`` rows, ``V`` items, ``R`` rank of the factors, ``D`` embedding.

Reference: the sum over tiles with a running maximum is that of Milakov and Gimelshein, Online normalizer calculation
for softmax, arXiv 1805.02867.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.autograd.forward_ad import _set_fwd_grad_enabled, unpack_dual

from recdistill.errors import require_at_least

BUFFERS = 4
"""Tensors of ``N`` by tile numbers alive at once in a second derivative: the exponential, two factors, a product."""

DEFAULT_BUDGET = 2**22
"""Bytes for these buffers, which then stay in a cache.

Forward and backward in the table of ``expected_rows``, V = 100,000, D = R = 32, float32, one thread of an AMD EPYC with
1 MiB of L2: for N = 750 and tiles of 64, 128, 256, 320, 512, 1024 items 421, 382, 368, 365, 378, 389 ms; for N = 4096
and tiles of 64, 128, 256 1.99, 1.90, 1.94 s. The forward pass alone with 4096 items: 177 instead of 170 ms (N = 750),
1.23 instead of 0.93 s (N = 4096).
"""

SMALLEST_TILE = 64
"""Tiles are multiples of this; narrower ones spend their time on starting operations."""

WEIGHT, NORMALISER, QUERIES, KEYS, FIRST_PAIR = range(5)
"""Places of the arguments of ``S``: ``c, z, q, k``, then ``a, b`` of every product. From ``q`` on, what belongs to rows
has an even place and the items with which it is multiplied the odd place after it."""

NOWHERE = -1
"""The place of a direction: it is no argument, and its gradient is not asked for."""


def logsumexp_rows(
    hidden: Float[Tensor, "N D"], table: Float[Tensor, "V D"], tile: int | None = None
) -> Float[Tensor, " N"]:
    """Return ``log sum_v exp(<hidden_n, table_v>)``, differentiable any number of times.

    Args:
        hidden: one vector per row.
        table: one vector per item.
        tile: items at a time, at least 1; ``None`` for :func:`tile_for`. All at once, with plain operations that can be
            traced, when it is ``V`` or more.

    Returns:
        Shape (N,).

    Raises:
        OptionError: the tile is smaller than 1.
    """
    tile = _checked(tile, hidden)
    if tile >= len(table):
        return torch.logsumexp(hidden @ table.T, dim=-1)
    result: Tensor = _call(_LogSumExp, tile, hidden, table)
    return result


def expected_rows(
    queries: Float[Tensor, "N R"],
    keys: Float[Tensor, "V R"],
    table: Float[Tensor, "V D"],
    normaliser: Float[Tensor, " N"],
    tile: int | None = None,
) -> Float[Tensor, "N D"]:
    """Return ``sum_v exp(<q_n, k_v> - normaliser_n) table_v``, differentiable any number of times.

    With ``normaliser = logsumexp_rows(queries, keys)`` this is ``softmax(queries keys^T) table``. The normaliser is an
    argument because it can be computed once for constant factors and used with many tables.

    Args:
        queries: one vector per row.
        keys: one vector per item.
        table: what is averaged, one row per item.
        normaliser: log of the sum by which the exponentials are divided.
        tile: as for :func:`logsumexp_rows`.

    Returns:
        Shape (N, D).

    Raises:
        OptionError: the tile is smaller than 1.
    """
    tile = _checked(tile, queries)
    if tile >= len(table):
        return (queries @ keys.T - normaliser.unsqueeze(1)).exp() @ table
    result: Tensor
    unused = table.new_zeros(()).expand(len(queries), table.shape[1])
    (result,) = _call(
        _Gradient,
        _Plan((1,), (FIRST_PAIR,), tile),
        *(torch.ones_like(normaliser), normaliser, queries, keys, unused, table),
    )
    return result


def table_gradient(
    queries: Float[Tensor, "N R"],
    keys: Float[Tensor, "V R"],
    normaliser: Float[Tensor, " N"],
    bar: Float[Tensor, "N D"],
    tile: int | None = None,
) -> Float[Tensor, "V D"]:
    """Return the gradient of ``<bar, expected_rows(queries, keys, table, normaliser)>`` in the table, no graph."""
    plan = _Plan((1,), (FIRST_PAIR + 1,), _checked(tile, queries))
    unused = bar.new_zeros(()).expand(len(keys), bar.shape[1])
    return _gradient(plan, (torch.ones_like(normaliser), normaliser, queries, keys, bar, unused))[0]


def row_gradient(
    queries: Float[Tensor, "N R"],
    keys: Float[Tensor, "V R"],
    normaliser: Float[Tensor, " N"],
    pairs: Sequence[tuple[Float[Tensor, "N _"], Float[Tensor, "V _"]]],
    tile: int | None = None,
) -> tuple[Float[Tensor, "N R"], Float[Tensor, " N"]]:
    """Return the gradient of a sum of ``<bar, expected_rows(..., table, ...)>`` in queries and normaliser.

    Args:
        queries, keys, normaliser: as for :func:`expected_rows`.
        pairs: a bar and a table for each term of the sum.
        tile: as for :func:`logsumexp_rows`.

    Returns:
        Both without a graph.
    """
    plan = _Plan((len(pairs),), (QUERIES, NORMALISER), _checked(tile, queries))
    arguments = (torch.ones_like(normaliser), normaliser, queries, keys, *(part for pair in pairs for part in pair))
    in_queries, in_normaliser = _gradient(plan, arguments)
    return in_queries, in_normaliser


def tile_for(num_rows: int, itemsize: int, budget: int = DEFAULT_BUDGET) -> int:
    """Return how many items to take at a time: a multiple of :data:`SMALLEST_TILE` within the budget, or one of them.

    Args:
        num_rows: ``N``.
        itemsize: bytes per number.
        budget: bytes for :data:`BUFFERS` tensors of ``num_rows`` by tile numbers.
    """
    affordable = budget // (BUFFERS * max(num_rows, 1) * itemsize)
    return max(SMALLEST_TILE, affordable - affordable % SMALLEST_TILE)


def _checked(tile: int | None, rows: Tensor) -> int:
    require_at_least(1, tile=tile)
    return tile_for(len(rows), rows.element_size()) if tile is None else tile


@dataclass(frozen=True)
class _Plan:
    """Which gradient of which ``S``.

    Args:
        terms: number of products that are added up in each factor.
        wanted: places of the arguments in which to differentiate.
        tile: items at a time.
    """

    terms: tuple[int, ...]
    wanted: tuple[int, ...]
    tile: int

    def factors(self) -> list[tuple[int, ...]]:
        """Return the places of the ``a`` of every factor."""
        starts = [FIRST_PAIR + 2 * sum(self.terms[:index]) for index in range(len(self.terms))]
        return [tuple(range(start, start + 2 * count, 2)) for start, count in zip(starts, self.terms, strict=True)]

    def products(self) -> list[tuple[list[tuple[int, ...]], list[int]]]:
        """Return which factors are multiplied with the exponential, and for which gradients.

        They are all factors but the one to which the argument belongs; for arguments outside the factors, all.
        """
        factors = self.factors()
        found = []
        for own in [*factors, tuple(range(0, FIRST_PAIR, 2))]:
            wanted = [place for place in self.wanted if place - place % 2 in own]
            if wanted:
                found.append(([factor for factor in factors if factor != own], wanted))
        return found


def _call(function: type[torch.autograd.Function], setting: Any, *arguments: Tensor) -> Any:
    """Return what ``function`` returns; no argument is a leaf of the graph, as :func:`_needed` requires."""
    return function.apply(setting, *(argument.view_as(argument) for argument in arguments))


def _needed(ctx: Any) -> list[bool]:
    """Return of which arguments the running backward pass will use the gradients.

    ``ctx.needs_input_grad`` says only which arguments have a graph: a student's gradient in its weights would pay for
    the one in the queries as well.
    """
    return [edge is not None and torch._C._will_engine_execute_node(edge) for edge, _ in ctx.next_functions]


class _Gradient(torch.autograd.Function):
    """The gradient of ``S`` in the wanted arguments."""

    @staticmethod
    def forward(plan: _Plan, *arguments: Tensor) -> tuple[Tensor, ...]:
        return _gradient(plan, arguments)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
        ctx.plan, *arguments = inputs
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(*arguments)
        ctx.save_for_forward(*arguments)

    @staticmethod
    def backward(ctx: Any, *above: Tensor | None) -> tuple[Tensor | None, ...]:
        directions = {place: part for place, part in zip(ctx.plan.wanted, above, strict=True) if part is not None}
        wanted = [place for place, needed in enumerate(_needed(ctx)) if needed]
        found = _gradient_along(ctx.plan, ctx.saved_tensors, directions, wanted)
        return None, *(found.get(place) for place in range(len(ctx.saved_tensors)))

    @staticmethod
    def jvp(ctx: Any, _: None, *tangents: Tensor | None) -> tuple[Tensor, ...]:
        arguments, wanted = _primals(ctx.saved_tensors), ctx.plan.wanted
        directions = {place: part for place, part in enumerate(tangents) if part is not None}
        with _set_fwd_grad_enabled(True):
            found = _gradient_along(ctx.plan, arguments, directions, wanted)
        return tuple(found[place] if place in found else torch.zeros_like(arguments[place]) for place in wanted)

    @staticmethod
    def vmap(info: Any, in_dims: tuple[Any, ...], *inputs: Any) -> tuple[tuple[Tensor, ...], tuple[int, ...]]:
        results = [_Gradient.apply(*_slice(inputs, in_dims, index)) for index in range(info.batch_size)]
        stacked = tuple(torch.stack(parts) for parts in zip(*results, strict=True))
        return stacked, (0,) * len(stacked)


class _LogSumExp(torch.autograd.Function):
    """The normaliser; its own output is the ``z`` of its derivatives, and is differentiated there like any other."""

    @staticmethod
    def forward(tile: int, hidden: Tensor, table: Tensor) -> Tensor:
        return _log_sum_exp(tile, hidden, table)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        ctx.tile, hidden, table = inputs
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(output, hidden, table)
        ctx.save_for_forward(output, hidden, table)

    @staticmethod
    def backward(ctx: Any, above: Tensor | None) -> tuple[Tensor | None, ...]:
        needed = dict(zip((QUERIES, KEYS), _needed(ctx), strict=True))
        wanted = tuple(place for place in needed if needed[place])
        if above is None or not wanted:
            return None, None, None
        found = dict(zip(wanted, _call(_Gradient, _Plan((), wanted, ctx.tile), above, *ctx.saved_tensors), strict=True))
        return None, found.get(QUERIES), found.get(KEYS)

    @staticmethod
    def jvp(ctx: Any, _: None, *tangents: Tensor | None) -> Tensor:
        arguments = _primals(ctx.saved_tensors)
        directions = {place: part for place, part in zip((QUERIES, KEYS), tangents, strict=True) if part is not None}
        with _set_fwd_grad_enabled(True):
            arguments = (torch.ones_like(arguments[0]), *arguments)
            return _gradient_along(_Plan((), (), ctx.tile), arguments, directions, (WEIGHT,))[WEIGHT]

    @staticmethod
    def vmap(info: Any, in_dims: tuple[Any, ...], *inputs: Any) -> tuple[Tensor, int]:
        return torch.stack([_LogSumExp.apply(*_slice(inputs, in_dims, index)) for index in range(info.batch_size)]), 0


def _primals(values: Sequence[Tensor]) -> tuple[Tensor, ...]:
    """Return ``values`` without the tangents of the level at which a ``jvp`` is being computed.

    PyTorch turns forward mode off inside a ``jvp``, for all levels, so that a ``jvp`` of a ``jvp`` would silently be
    zero (pytorch/pytorch#197867). Ours turn it on again; at their own level there is then nothing left to follow.
    """
    with _set_fwd_grad_enabled(True):
        return tuple(unpack_dual(value).primal for value in values)


def _slice(inputs: Sequence[Any], in_dims: Sequence[int | None], index: int) -> list[Any]:
    pairs = zip(inputs, in_dims, strict=True)
    return [value.select(dim, index) if isinstance(dim, int) else value for value, dim in pairs]


@dataclass(frozen=True)
class _Placed:
    """A tensor, the argument to whose gradient its own is added, and by what it is multiplied before."""

    value: Tensor
    place: int = NOWHERE
    scale: Tensor | None = None


_Factor = list[tuple[_Placed, _Placed]]


def _gradient_along(
    plan: _Plan, arguments: Sequence[Tensor], directions: dict[int, Tensor], wanted: Sequence[int]
) -> dict[int, Tensor]:
    """Return the gradient in ``wanted`` of the derivative of ``S`` along ``directions``, by place; zeros left out."""
    here = [_Placed(value, place) for place, value in enumerate(arguments)]
    factors = [[(here[place], here[place + 1]) for place in places] for places in plan.factors()]
    found: dict[int, Tensor] = {}

    def add(weight: _Placed, factors: list[_Factor]) -> None:
        """Add the gradient of one scalar in all its parts that are wanted arguments."""
        parts = (part for terms in factors for pair in terms for part in pair)
        entries = [weight, *here[NORMALISER:FIRST_PAIR], *parts]
        asked = tuple(index for index, entry in enumerate(entries) if entry.place in wanted)
        if not asked:
            return
        inner = _Plan(tuple(len(terms) for terms in factors), asked, plan.tile)
        for index, value in zip(asked, _call(_Gradient, inner, *(entry.value for entry in entries)), strict=True):
            place, scale = entries[index].place, entries[index].scale
            value = value if scale is None else scale * value
            found[place] = found[place] + value if place in found else value

    exponent = _product_rule([(here[QUERIES], here[KEYS])], directions)
    if exponent:
        add(here[WEIGHT], [*factors, exponent])
    for index, factor in enumerate(factors):
        changed = _product_rule(factor, directions)
        if changed:
            add(here[WEIGHT], [*factors[:index], changed, *factors[index + 1 :]])
    if NORMALISER in directions:
        scale = -directions[NORMALISER]
        change = scale * arguments[WEIGHT]
        add(_Placed(change + directions[WEIGHT] if WEIGHT in directions else change, WEIGHT, scale), factors)
    elif WEIGHT in directions:
        add(_Placed(directions[WEIGHT]), factors)
    return found


def _product_rule(factor: _Factor, directions: dict[int, Tensor]) -> _Factor:
    """Return the derivative of ``sum_t <a^t, b^t>``, again as a sum of products; empty where it is zero."""
    left = [(_Placed(directions[a.place]), b) for a, b in factor if a.place in directions]
    return left + [(a, _Placed(directions[b.place])) for a, b in factor if b.place in directions]


def _gradient(plan: _Plan, arguments: Sequence[Tensor]) -> tuple[Tensor, ...]:
    """Return the gradient of ``S`` in the wanted arguments, one tile after the other."""
    weight, offset = arguments[WEIGHT].unsqueeze(1), -arguments[NORMALISER].unsqueeze(1)
    weighted = {place: weight * arguments[place - 1] for place in plan.wanted if _of_items(place)}
    found = {place: arguments[place].new_zeros(arguments[place].shape) for place in plan.wanted}
    *products, last = plan.products()
    needed = [factor for factor in plan.factors() if any(factor in others for others, _ in (*products, last))]
    buffers = weight.new_empty(len(needed) + 2, len(weight) * plan.tile)
    for start in range(0, len(arguments[KEYS]), plan.tile):
        tile = slice(start, start + plan.tile)
        part = [value[tile] if _of_items(place) else value for place, value in enumerate(arguments)]
        shape = (len(weight), len(part[KEYS]))
        exponential, spare, *rest = (buffer[: shape[0] * shape[1]].view(shape) for buffer in buffers)
        torch.addmm(offset, part[QUERIES], part[KEYS].T, out=exponential).exp_()
        values = {factor: _multiply_out(factor, part, out) for factor, out in zip(needed, rest, strict=True)}
        for others, wanted in (*products, last):
            product, out = exponential, exponential if wanted is last[1] else spare
            for factor in others:
                product = torch.mul(product, values[factor], out=out)
            for place in wanted:
                if place < QUERIES:
                    found[place] += product.sum(1)
                elif _of_items(place):
                    torch.mm(product.T, weighted[place], out=found[place][tile])
                else:
                    found[place].addmm_(product, part[place + 1])
    for place in plan.wanted:
        if place == NORMALISER:
            found[place] *= -arguments[WEIGHT]
        elif place >= QUERIES and not _of_items(place):
            found[place] *= weight
    return tuple(found[place] for place in plan.wanted)


def _of_items(place: int) -> bool:
    return place >= QUERIES and place % 2 == 1


def _multiply_out(factor: tuple[int, ...], arguments: Sequence[Tensor], out: Tensor) -> Tensor:
    """Return ``sum_t <a^t_n, b^t_v>``, shape (N, tile)."""
    for place in factor:
        torch.addmm(out, arguments[place], arguments[place + 1].T, beta=place != factor[0], out=out)
    return out


def _log_sum_exp(tile: int, hidden: Tensor, table: Tensor) -> Tensor:
    """Return the logarithm of a sum that is kept relative to the largest term so far."""
    largest = hidden.new_full((len(hidden), 1), -torch.inf)
    total = torch.zeros_like(largest)
    buffer = hidden.new_empty(len(hidden) * tile)
    for part in table.split(tile):
        logits = buffer[: len(hidden) * len(part)].view(len(hidden), len(part))
        torch.mm(hidden, part.T, out=logits)
        larger = torch.maximum(largest, logits.amax(1, keepdim=True))
        total = total * (largest - larger).exp_() + logits.sub_(larger).exp_().sum(1, keepdim=True)
        largest = larger
    return (largest + total.log_()).squeeze(1)
