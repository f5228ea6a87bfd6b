"""Which real samples a step is judged on, and which units of the memory it moves: by gradients of the last layer.

The gradient of a sample's loss in the last layer is ``g = (p - y) [a; 1]``, with ``a`` what the layer reads. It needs
no backward pass, and for a whole memory it is one matrix.
"""

import torch
from jaxtyping import Float, Int
from torch import Tensor

from recdistill.errors import OptionError, require_at_least


def last_gradients(
    hidden: Float[Tensor, "n W"], logits: Float[Tensor, " n"], labels: Float[Tensor, " n"]
) -> Float[Tensor, "n W1"]:
    """Return the gradient of each sample's loss in weight and bias of the last layer."""
    residual = torch.sigmoid(logits) - labels
    return residual.unsqueeze(1) * with_one(hidden)


def with_one(hidden: Float[Tensor, "n W"]) -> Float[Tensor, "n W1"]:
    """Return hidden vectors with a 1 behind each, for the bias."""
    return torch.cat([hidden, torch.ones_like(hidden[:, :1])], dim=1)


def hard_targets(
    norms: Float[Tensor, " n"],
    labels: Float[Tensor, " n"],
    count: int,
    *,
    uniform: float,
    generator: torch.Generator,
) -> Int[Tensor, " m"]:
    """Return rows of a pool: those with the largest gradients within each label, and uniform draws from the others.

    The uniform part keeps the judgement near that on all samples; hard ones alone would say nothing of calibration.

    Args:
        norms: of the samples' gradients.
        labels: 0 or 1; the hard ones have them in the pool's proportion.
        count: rows to take, at most those of the pool.
        uniform: share of the uniform draws, in [0, 1].
        generator: of these draws.

    Raises:
        OptionError: ``count`` is larger than the pool, or the share is out of its range.

    Reference: DIET's hard real targets; the stratification and the uniform share are ours.
    """
    if count > len(norms):
        raise OptionError("count", count, fix=f"is more than the pool of {len(norms)}; give a larger pool")
    if not 0 <= uniform <= 1:
        raise OptionError("uniform", uniform, fix="must lie in [0, 1]")
    hard = round((1 - uniform) * count)
    clicked = labels > 0.5
    positives = round(hard * float(clicked.double().mean()))
    chosen = torch.cat([_largest(norms, clicked, positives), _largest(norms, ~clicked, hard - positives)])
    left = torch.ones(len(norms), dtype=torch.bool, device=norms.device)
    left[chosen] = False
    others = left.nonzero().squeeze(1)
    drawn = torch.randperm(len(others), generator=generator)[: count - len(chosen)].to(others.device)
    return torch.cat([chosen, others[drawn]])


def _largest(norms: Tensor, among: Tensor, count: int) -> Tensor:
    rows = among.nonzero().squeeze(1)
    return rows[torch.argsort(norms[rows], descending=True, stable=True)[:count]]


def influences(
    units: Float[Tensor, "m W1"],
    target: Float[Tensor, " W1"],
    hidden: Float[Tensor, "n W"],
    logits: Float[Tensor, " n"],
    damping: float,
) -> Float[Tensor, " m"]:
    """Return how much a step of the last layer along each unit's gradient lowers the loss of the targets.

    ``<g_m, (H + damping I)^-1 g_target>`` with the Gauss-Newton matrix ``H = mean p (1 - p) [a; 1][a; 1]^T``; the loss
    of the targets changes by minus the step size times it, to first order.

    Args:
        units: gradients of the memory's units.
        target: mean gradient of the targets.
        hidden: what the last layer reads of the samples that ``H`` is of.
        logits: of these.
        damping: above 0.

    Reference: Koh and Liang, Understanding Black-box Predictions via Influence Functions, ICML 2017, arXiv 1703.04730;
    in the last layer alone, as our reconstruction of DIET's influence-guided addressing.
    """
    features = with_one(hidden)
    chance = torch.sigmoid(logits)
    curvature = features.T @ ((chance * (1 - chance)).unsqueeze(1) * features) / len(features)
    curvature = curvature + damping * torch.eye(len(target), dtype=target.dtype, device=target.device)
    return units @ torch.linalg.solve(curvature, target)


def active_units(influence: Float[Tensor, " n"], count: int, generator: torch.Generator) -> Int[Tensor, " m"]:
    """Return units drawn without replacement with chances in proportion to their influence, whatever its sign.

    Units without any influence come last; so every unit may be drawn, and the largest most often are.

    Raises:
        OptionError: ``count`` is below 1 or larger than the number of units.
    """
    require_at_least(1, count=count)
    if count > len(influence):
        raise OptionError("count", count, fix=f"is more than the {len(influence)} units there are")
    uniform = torch.rand(len(influence), generator=generator, dtype=torch.float64).clamp(min=1e-300)
    keys = influence.abs().double().cpu().clamp(min=1e-300).log() - (-uniform.log()).log()  # Gumbel's top count
    return torch.argsort(keys, descending=True)[:count].sort().values
