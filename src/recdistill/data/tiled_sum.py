"""A sum over rows and items, taken a tile of items at a time, with exact derivatives of every order.

All derivatives are gradients of scalars of one kind. With a weight ``c_n`` per row and factors ``F^1, F^2, ...``, each
a sum of products ``F^i_nv = sum_t <a^it_n, b^it_v>``, let

    S = sum_nv  c_n  exp(<q_n, k_v> - z_n)  F^1_nv  F^2_nv ...

The expected rows of a table ``b`` are ``dS/da`` with one factor, and the gradient of ``<g, logsumexp(H E^T)>`` is that
of ``S`` with ``c = g`` and no factor. The derivative of ``S`` in a direction is a sum of such scalars again: a
direction in ``q`` or ``k`` adds a factor, one in ``a`` or ``b`` changes one, one in ``z`` or ``c`` changes the weight.
Second derivatives are symmetric, so that the same few lines are the backward pass (the direction is what comes from
above) and the forward-mode pass (the direction is the tangents). Nothing is approximated.

Shapes: ``N`` rows, ``V`` items, ``R`` rank of the factors.

Reference: the sum over tiles with a running maximum is that of Milakov and Gimelshein, Online normalizer calculation
for softmax, arXiv 1805.02867.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.autograd.forward_ad import _set_fwd_grad_enabled, unpack_dual

WEIGHT, NORMALISER, QUERIES, KEYS, FIRST_PAIR = range(5)
"""Places of the arguments of ``S``: ``c, z, q, k``, then ``a, b`` of every product. From ``q`` on, what belongs to rows
has an even place and the items with which it is multiplied the odd place after it."""

NOWHERE = -1
"""The place of a direction: it is no argument, and its gradient is not asked for."""


@dataclass(frozen=True)
class Plan:
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


def differentiable_gradient(plan: Plan, *arguments: Tensor) -> tuple[Tensor, ...]:
    """Return the gradient of ``S`` in the wanted arguments, differentiable any number of times."""
    found: tuple[Tensor, ...] = _call(_Gradient, plan, *arguments)
    return found


def log_sum_exp(tile: int, hidden: Tensor, table: Tensor) -> Tensor:
    """Return ``log sum_v exp(<hidden_n, table_v>)``, differentiable any number of times."""
    found: Tensor = _call(_LogSumExp, tile, hidden, table)
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
    def forward(plan: Plan, *arguments: Tensor) -> tuple[Tensor, ...]:
        return gradient(plan, arguments)

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
        found = dict(zip(wanted, _call(_Gradient, Plan((), wanted, ctx.tile), above, *ctx.saved_tensors), strict=True))
        return None, found.get(QUERIES), found.get(KEYS)

    @staticmethod
    def jvp(ctx: Any, _: None, *tangents: Tensor | None) -> Tensor:
        arguments = _primals(ctx.saved_tensors)
        directions = {place: part for place, part in zip((QUERIES, KEYS), tangents, strict=True) if part is not None}
        with _set_fwd_grad_enabled(True):
            arguments = (torch.ones_like(arguments[0]), *arguments)
            return _gradient_along(Plan((), (), ctx.tile), arguments, directions, (WEIGHT,))[WEIGHT]

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
    plan: Plan, arguments: Sequence[Tensor], directions: dict[int, Tensor], wanted: Sequence[int]
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
        inner = Plan(tuple(len(terms) for terms in factors), asked, plan.tile)
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


def gradient(plan: Plan, arguments: Sequence[Tensor]) -> tuple[Tensor, ...]:
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
