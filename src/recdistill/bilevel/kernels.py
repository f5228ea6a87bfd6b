"""First and second derivatives of a loss: what every estimator is made of.

``gradient`` is the plain one. ``pull`` is the derivative of the gradient along a direction ``u`` in the weights: it
returns ``H u`` and adds the mixed products ``d2L / dS dw u`` to the synthetic tensors' gradient, both in one go by
symmetry. There are two exact ways to it and one approximate (:data:`PRODUCTS`), with different costs.

With ``record=True`` a planned loss is recorded once per set of shapes as a straight list of tensor operations, without
autograd, and replayed from then on. With ``compile=True`` the recording is compiled as well. Nothing is approximated;
what goes is the cost of building and walking graphs, which for small models is most of the time.
"""

import copy
import re
import statistics
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor
from torch.fx import GraphModule
from torch.utils._pytree import tree_flatten, tree_map, tree_unflatten

from recdistill.bilevel.losses import PureLoss, StepLoss, is_pure
from recdistill.bilevel.optimizer import Layout, Tensors, zeros
from recdistill.errors import KernelError, RecdistillWarning, choose


@dataclass(frozen=True)
class Gradient:
    """The gradient of a step.

    Args:
        loss: a scalar.
        weights: its derivative in the weights, flat.
        linear: the value of each linear input.
    """

    loss: Tensor
    weights: Tensor
    linear: Tensors


Product = tuple[Tensor, Tensors, Tensors]
"""Derivative along a direction of the gradient in weights (flat) and inputs; gradient in the linear inputs."""


@dataclass(frozen=True)
class _Function:
    """A loss as a function of flat weights and of the synthetic inputs."""

    loss: PureLoss
    layout: Layout

    def gradient(
        self, flat: Tensor, wanted: Tensors, others: Tensors, drawn: Tensors
    ) -> tuple[Tensor, Tensor, Tensors]:
        """Return the loss and its gradient in the flat weights and in the ``wanted`` inputs."""
        with torch.enable_grad():
            params, leaves = _leaves(self.layout.views(flat.detach())), _leaves(wanted)
            loss = self.loss(params, leaves | others, drawn)
            found = _gradients(loss, [*params.values(), *leaves.values()])
        return loss.detach(), *_split(found, flat, leaves)

    def double_backward(
        self, flat: Tensor, inputs: Tensors, drawn: Tensors, direction: Tensor, along: Tensors
    ) -> Product:
        """Return the derivative of the joint gradient along a direction, by differentiating it backwards."""
        with torch.enable_grad():
            params, leaves = _leaves(self.layout.views(flat.detach())), _leaves(inputs)
            tensors = [*params.values(), *leaves.values()]
            moved = [*params.values(), *(leaves[name] for name in along)]
            slopes = _gradients(self.loss(params, leaves, drawn), moved, create_graph=True)
            linear = {name: slope.detach() for name, slope in zip(along, slopes[len(params) :], strict=True)}
            directions = [*self.layout.views(direction).values(), *along.values()]
            pairs = [pair for pair in zip(slopes, directions, strict=True) if pair[0].requires_grad]
            found = [torch.zeros_like(value) for value in tensors]
            if pairs:
                curved, weighted = zip(*pairs, strict=True)
                found = list(torch.autograd.grad(curved, tensors, weighted, allow_unused=True, materialize_grads=True))
        return *_split(found, flat, leaves), linear

    def forward_over_reverse(
        self, flat: Tensor, inputs: Tensors, drawn: Tensors, direction: Tensor, along: Tensors
    ) -> Product:
        """Return the derivative of the joint gradient along a direction, by forward differentiation."""

        def joint(params: Tensors, moved: Tensors) -> tuple[Tensors, Tensors]:
            found: tuple[Tensors, Tensors] = torch.func.grad(self.loss, argnums=(0, 1))(params, inputs | moved, drawn)
            return found

        point = (self.layout.views(flat), {name: inputs[name] for name in along})
        primal, tangent = torch.func.jvp(joint, point, (self.layout.views(direction), along))[:2]
        params, parts = tangent
        linear = {name: primal[1][name] for name in along}
        return *_split([*params.values(), *(parts[name] for name in inputs)], flat, inputs), linear


PRODUCTS: dict[str, Callable[..., Any]] = {
    "double_backward": _Function.double_backward,
    "forward_over_reverse": _Function.forward_over_reverse,
    "central_difference": _Function.gradient,
}
"""Ways to the derivative of a gradient along a direction.

``double_backward`` and ``forward_over_reverse`` are exact; for SASRec the first is faster as it is and the second when
compiled, and :func:`time_products` measures it for any model. ``central_difference`` takes two plain gradients, with
a relative error of about the dtype's precision to the power 2/3; it works with every operation that has a gradient.
These two take the gradient's derivative for symmetric, which it is where the gradient is that of the loss; with a
``detach``, or a padding row of an embedding that is read and not trained, ``double_backward`` alone is right.
Reverse over forward would be the fastest of all, but torch's forward formula for layer norm is not differentiable, and
says nothing.
"""


@dataclass(frozen=True, kw_only=True)
class Kernels:
    """Computes gradients, and their derivatives along a direction.

    Args:
        product: one of :data:`PRODUCTS`.
        record: record planned losses and replay them. Needs losses whose control flow depends on shapes alone; a
            warning says why where one cannot be recorded.
        compile: compile the recordings, half a minute each time, where a compiler is there and the result is right;
            a warning says why where it is not.

    Raises:
        OptionError: the product is not known.
    """

    product: str = "double_backward"
    record: bool = False
    compile: bool = False
    _recordings: dict[Any, Callable[..., Any]] = field(default_factory=dict, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        """Check the name of the product."""
        choose("product", self.product, PRODUCTS)

    def gradient(self, layout: Layout, flat: Tensor, synthetic: Tensors, step: StepLoss) -> Gradient:
        """Return the gradient of a step in the flat weights, without a graph."""
        linear = _apply(step, synthetic, layout, flat)
        function = _Function(step.loss, layout)
        loss, found, bars = self._call(function, "gradient", flat, linear, step.inputs(synthetic), step.drawn)
        _transpose(step, synthetic, layout, bars, found)
        return Gradient(loss, found, linear)

    def joint_gradient(
        self, layout: Layout, flat: Tensor, synthetic: Tensors, step: StepLoss, into: Tensors, scale: float = 1.0
    ) -> Gradient:
        """Return the gradient in the weights; add ``scale`` times that in the synthetic tensors to ``into``."""
        linear = _apply(step, synthetic, layout, flat)
        function = _Function(step.loss, layout)
        loss, found, bars = self._call(function, "gradient", flat, linear | step.inputs(synthetic), {}, step.drawn)
        for name, source in step.reads.items():
            into[source].add_(bars[name], alpha=scale)
        for name, read in step.linear.items():
            read.accumulate(synthetic, [(bars[name] * scale, layout.view(flat, read.weight))], into)
        _transpose(step, synthetic, layout, bars, found)
        return Gradient(loss, found, linear)

    def pull(
        self,
        layout: Layout,
        flat: Tensor,
        synthetic: Tensors,
        step: StepLoss,
        gradient: Gradient,
        direction: Tensor,
        into: Tensors,
    ) -> Tensor:
        """Return ``H u`` (flat) for a direction ``u``; add the mixed products to ``into``.

        Args:
            layout: of the weights.
            flat: the weights.
            synthetic: the synthetic tensors.
            step: the loss.
            gradient: what :meth:`gradient` returned at these weights.
            direction: flat like the weights.
            into: one tensor per synthetic tensor, changed in place.
        """
        if self.product == "central_difference":
            return self._difference(layout, flat, synthetic, step, direction, into)
        along = _apply(step, synthetic, layout, direction)
        function, inputs = _Function(step.loss, layout), step.inputs(synthetic) | gradient.linear
        curved, bars, slopes = self._call(function, self.product, flat, inputs, step.drawn, direction, along)
        for name, source in step.reads.items():
            into[source].add_(bars[name])
        for name, read in step.linear.items():
            sides = bars[name], slopes[name]
            tables = layout.view(flat, read.weight), layout.view(direction, read.weight)
            read.accumulate(synthetic, list(zip(sides, tables, strict=True)), into)
        _transpose(step, synthetic, layout, bars, curved)
        return curved

    def _difference(
        self, layout: Layout, flat: Tensor, synthetic: Tensors, step: StepLoss, direction: Tensor, into: Tensors
    ) -> Tensor:
        size = torch.linalg.vector_norm(direction)
        if size == 0:
            return torch.zeros_like(flat)
        reach = float(torch.finfo(flat.dtype).eps ** (1 / 3) / size)
        above, below = torch.add(flat, direction, alpha=reach), torch.sub(flat, direction, alpha=reach)
        high = self.joint_gradient(layout, above, synthetic, step, into, 0.5 / reach)
        low = self.joint_gradient(layout, below, synthetic, step, into, -0.5 / reach)
        return (high.weights - low.weights).mul_(0.5 / reach)

    def _call(self, function: _Function, name: str, *arguments: Any) -> Any:
        call = getattr(function, name)
        if not self.record or not is_pure(function.loss):
            return call(*arguments)
        leaves, structure = tree_flatten(arguments)
        shapes = tuple((leaf.shape, leaf.dtype, leaf.device) for leaf in leaves)
        key = (function, name, structure, shapes)
        if key not in self._recordings:
            self._recordings[key] = _record(call, arguments, compiled=self.compile)
        return self._recordings[key](leaves)


def time_products(
    layout: Layout, flat: Tensor, synthetic: Tensors, step: StepLoss, kernels: Kernels, repeats: int = 9
) -> dict[str, float]:
    """Return the median seconds of :meth:`Kernels.pull` by each exact product, to choose one for a model.

    The choice is left to the caller, and made once: the two differ in their last digits, so that a run whose choice
    hung on the clock could not be repeated.

    Args:
        layout: of the weights.
        flat: the weights; also the direction.
        synthetic: the synthetic tensors.
        step: the loss of one inner step.
        kernels: recorded, compiled or neither; its own product does not matter.
        repeats: calls of each, after one that is not timed.
    """
    medians = {}
    for product in ("double_backward", "forward_over_reverse"):
        timed, seconds = replace(kernels, product=product), []
        gradient, into = timed.gradient(layout, flat, synthetic, step), zeros(synthetic)
        for _ in range(repeats + 1):
            start = time.perf_counter()
            timed.pull(layout, flat, synthetic, step, gradient, flat, into)
            if flat.is_cuda:
                torch.cuda.synchronize(flat.device)
            seconds.append(time.perf_counter() - start)
        medians[product] = statistics.median(seconds[1:])
    return medians


def _record(call: Callable[..., Any], arguments: tuple[Any, ...], *, compiled: bool) -> Callable[..., Any]:
    """Return ``call`` as a straight list of tensor operations on the leaves of its arguments, for these shapes.

    Where it cannot be recorded, return ``call`` itself.
    """
    from torch.fx.experimental.proxy_tensor import make_fx  # seconds to load, and few runs record

    leaves, structure = tree_flatten(tree_map(lambda value: value.detach(), arguments))
    outside: list[Any] = []

    def flat(*inputs: Tensor) -> list[Tensor]:
        results, found = tree_flatten(call(*tree_unflatten(list(inputs), structure)))
        outside[:] = [found]
        return results

    try:
        module = make_fx(flat)(*leaves)
        module.graph.eliminate_dead_code()
        module.recompile()
        expected = module(*leaves)
    except Exception as problem:
        call(*arguments)  # where the loss itself is at fault, it says so now
        _warn("unrecorded", f"the loss cannot be recorded: {_first_line(problem)}")
        return lambda inputs: call(*tree_unflatten(inputs, structure))
    replay = _compile(module, leaves, expected) if compiled else module
    return lambda inputs: tree_unflatten(replay(*inputs), outside[0])


def _compile(module: GraphModule, leaves: list[Tensor], expected: list[Tensor]) -> Callable[..., list[Tensor]]:
    """Return a compiled module, or the module itself where the compiler fails or computes other than ``expected``."""
    import torch._inductor  # seconds to load, and few runs compile

    try:
        compiled = torch._inductor.compile(copy.deepcopy(module), list(leaves))
        errors = [_distance(*pair) for pair in zip(compiled(*leaves), expected, strict=True)]
    except Exception as problem:
        failure = _first_line(problem)
    else:
        wrong = [error for error in errors if not error <= _precision(expected)]  # NaN is wrong too
        if not wrong:
            return compiled
        failure = f"its numbers are off by {max(wrong):.1e}, relative"
    _warn("uncompiled", f"the compiler failed: {failure}")
    return module


def _warn(how: str, reason: str) -> None:
    message = f"the inner loop runs {how}, right but slower; {reason}"
    warnings.warn(message, RecdistillWarning, stacklevel=3)


def _first_line(problem: Exception) -> str:
    return f"{type(problem).__name__}: {str(problem).strip()}".splitlines()[0].removesuffix(": ")


def _distance(found: Tensor, expected: Tensor) -> float:
    size = float(torch.linalg.vector_norm(expected.double()))
    return float(torch.linalg.vector_norm((found - expected).double())) / size if size else float(found.abs().sum())


def _precision(values: list[Tensor]) -> float:
    """Return the largest relative difference that another order of rounding explains."""
    return max((float(torch.finfo(value.dtype).eps) for value in values), default=0.0) ** 0.5


REPLACEMENTS = (
    (
        "scaled_dot_product",
        "fused attention; write softmax(QK^T)V out, or run it under "
        "torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH)",
    ),
    ("transformer_encoder_layer", "the fused encoder layer; build the block from linear layers and softmax(QK^T)V"),
    ("native_multi_head_attention", "fused attention; write softmax(QK^T)V out"),
    (
        "cudnn_rnn",
        "a cuDNN RNN; run it under torch.backends.cudnn.flags(enabled=False), or write the cell out as a loop",
    ),
    (
        "mkldnn_rnn",
        "a oneDNN RNN; run it under torch.backends.mkldnn.flags(enabled=False), or write the cell out",
    ),
    ("miopen_rnn", "a MIOpen RNN; write the cell out as a loop"),
    ("thnn_fused", "a fused RNN cell; write the cell out"),
    ("embedding_bag", "EmbeddingBag; use torch.nn.functional.embedding(...) and .sum(1) or .mean(1), as its mode is"),
    ("ctc_loss", "the fused CTC loss; use another loss"),
)
"""Operations without the derivatives that a meta-gradient needs, and what to use in their place."""

MISSING = re.compile(
    r"derivative for '?(?:aten::)?(\w+)|derivative of '?(?:aten::)?(\w+)|forward AD with (\w+)|"
    r"formula for '?(?:aten::)?(\w+)"
)


@contextmanager
def explained_errors(product: str) -> Iterator[None]:
    """Turn torch's errors about missing derivatives into ones that name the operation and what to use in its place.

    Raises:
        KernelError: in place of such an error.
    """
    try:
        yield
    except RuntimeError as error:
        found = MISSING.search(str(error))
        if found is None:
            raise
        operation = next(name for name in found.groups() if name)
        known = next((fix for part, fix in REPLACEMENTS if part in operation.lower()), None)
        what = f"it is part of {known}" if known else "use other operations"
        raise KernelError(
            f"{operation} has no derivative of the kind that {product} needs; {what}; "
            "or choose product='central_difference' (with a mode other than 'taped'), which is approximate and works "
            "with every kernel"
        ) from error


def _apply(step: StepLoss, synthetic: Tensors, layout: Layout, flat: Tensor) -> Tensors:
    """Return the linear inputs of a step at flat weights."""
    return {name: read.apply(synthetic, layout.view(flat, read.weight)) for name, read in step.linear.items()}


def _transpose(step: StepLoss, synthetic: Tensors, layout: Layout, bars: Tensors, found: Tensor) -> None:
    """Add what the linear inputs contribute to a derivative in the flat weights."""
    for name, read in step.linear.items():
        read.transpose(synthetic, bars[name], layout.view(found, read.weight))


def _leaves(tensors: Tensors) -> Tensors:
    return {name: value.detach().requires_grad_() for name, value in tensors.items()}


def _gradients(loss: Tensor, leaves: list[Tensor], *, create_graph: bool = False) -> list[Tensor]:
    return list(torch.autograd.grad(loss, leaves, create_graph=create_graph, allow_unused=True, materialize_grads=True))


def _split(found: list[Tensor], flat: Tensor, inputs: Tensors) -> tuple[Tensor, Tensors]:
    """Return the first of ``found`` as one flat tensor, and the last by name."""
    cut = len(found) - len(inputs)
    return Layout.join(found[:cut], like=flat), dict(zip(inputs, found[cut:], strict=True))
