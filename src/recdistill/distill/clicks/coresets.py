"""Baselines: samples of a log that a rule chooses, in place of distilled ones.

All are asked for a number of rows and see the same: the samples, a reference model that learnt from them, and its
checkpoints on the way. What represents a sample is what the last layer of the reference model reads.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from recdistill.data.clicks.block import ClickBlock
from recdistill.distill.clicks.selection import el2n
from recdistill.distill.coresets.herding import herd
from recdistill.distill.coresets.k_center import greedy_centers
from recdistill.errors import OptionError, choose, require_at_least
from recdistill.evaluation.clicks import predicted
from recdistill.models.clicks.base import ClickModel
from recdistill.rng import Streams


@dataclass(frozen=True)
class ClickMaterial:
    """What a selector may read.

    Args:
        block: all samples.
        model: the reference model, which has learnt them.
        checkpoints: its weights on the way.
    """

    block: ClickBlock
    model: ClickModel
    checkpoints: Sequence[dict[str, Tensor]]

    @cached_property
    def errors(self) -> Float[np.ndarray, " n"]:
        """EL2N of every sample."""
        logits = logits_along(self.model, self.checkpoints, self.block)
        found: np.ndarray = el2n(logits, torch.from_numpy(self.block.labels)).numpy()
        return found

    @cached_property
    @torch.no_grad()
    def vectors(self) -> Float[Tensor, "n W"]:
        """What the last layer reads of every sample."""
        return torch.cat([self.model.hidden(self.model.embed(batch)) for batch in self.block.batches(8192)])


def randomly(material: ClickMaterial, count: int, rng: Streams) -> Int[np.ndarray, " m"]:
    """Return rows drawn uniformly."""
    return rng.numpy("rows").choice(len(material.block), count, replace=False)


def by_label(material: ClickMaterial, count: int, rng: Streams) -> Int[np.ndarray, " m"]:
    """Return rows drawn uniformly within each label, with the log's rate of clicks."""
    clicked = material.block.labels > 0.5
    wanted = round(count * float(clicked.mean()))
    draw = rng.numpy("rows")
    parts = [(np.flatnonzero(clicked), wanted), (np.flatnonzero(~clicked), count - wanted)]
    return np.concatenate([draw.choice(rows, size, replace=False) for rows, size in parts])


def largest_errors(material: ClickMaterial, count: int, rng: Streams) -> Int[np.ndarray, " m"]:
    """Return the rows with the largest EL2N, whatever their label; ties at random.

    Reference: Paul, Ganguli and Dziugaite, Deep Learning on a Data Diet, NeurIPS 2021, arXiv 2107.07075.
    """
    shuffled = rng.numpy("ties").permutation(len(material.block))
    return shuffled[np.argsort(-material.errors[shuffled], kind="stable")[:count]]


def k_center(material: ClickMaterial, count: int, rng: Streams) -> Int[np.ndarray, " m"]:
    """Return rows that leave no other row far away, found greedily.

    Reference: Sener and Savarese, Active Learning for Convolutional Neural Networks, ICLR 2018, arXiv 1708.00489.
    """
    return np.array(greedy_centers(material.vectors, count, rng.numpy("ties")))


def herding(material: ClickMaterial, count: int, rng: Streams) -> Int[np.ndarray, " m"]:
    """Return rows whose mean follows the mean of all rows.

    Reference: Welling, Herding Dynamical Weights to Learn, ICML 2009.
    """
    return np.array(herd(material.vectors, count, rng.numpy("ties")))


def logits_along(
    model: ClickModel, checkpoints: Sequence[dict[str, Tensor]], block: ClickBlock
) -> Float[Tensor, "J n"]:
    """Return what each checkpoint says of a block; the model has its own weights again afterwards."""
    own = {name: value.detach().clone() for name, value in model.state_dict().items()}
    found = []
    for weights in checkpoints:
        model.load_state_dict(weights)
        found.append(torch.from_numpy(predicted(model, block)))
    model.load_state_dict(own)
    return torch.stack(found)


Selector = Callable[[ClickMaterial, int, Streams], np.ndarray]
CLICK_SELECTORS: dict[str, Selector] = {
    "random": randomly,
    "stratified": by_label,
    "el2n": largest_errors,
    "k_center": k_center,
    "herding": herding,
}
"""Selectors by name; NaCS trains models of its own (:mod:`recdistill.distill.clicks.nacs`)."""


def chosen_rows(name: str, material: ClickMaterial, count: int, rng: Streams) -> Int[np.ndarray, " m"]:
    """Return the rows that a selector chooses, ascending.

    Raises:
        OptionError: there is no such selector, or the number of rows is below 1 or larger than the log.
    """
    select = choose("selector", name, CLICK_SELECTORS)
    require_at_least(1, count=count)
    if count > len(material.block):
        raise OptionError("count", count, fix=f"is more than the {len(material.block):,} rows there are")
    return np.sort(select(material, count, rng.child(name)))
