"""The reference outer step of TD3, against the library's model and losses differentiated in the plainest way.

Proved, in double precision and without dropout: the meta-gradient through plain and taped steps, the inner loss up to
the entropy of its targets, and the step of the factors. Not proved: anything about dropout, or about speed. Nothing of
``recdistill.bilevel`` takes part.
"""

import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call

from benchmarks.reference_td3 import ReferenceTD3
from recdistill.data.batches import DenseItems, HardItems, SequenceBatch
from recdistill.models.sasrec import SASRec

ITEMS, ROWS, LENGTH, RANK, WIDTH = 23, 4, 8, 2, 8
WINDOW, INNER_STEPS, MINIBATCH, REAL = 3, 5, 2, 12
RATE, DECAY = 0.005, 5e-5
FACTORS = ("core", "user_factor", "time_factor")

Weights = dict[str, Tensor]


class Setting:
    """A small outer step: the student, the factors, the real batch and the middle targets."""

    def __init__(self) -> None:
        draw = torch.Generator().manual_seed(3)

        def normal(*shape: int) -> Tensor:
            return torch.randn(*shape, generator=draw, dtype=torch.float64)

        self.model = SASRec(
            ITEMS,
            LENGTH,
            embedding_dim=WIDTH,
            num_blocks=2,
            num_heads=2,
            inner_dim=16,
            dropout=0.0,
            attention_dropout=0.0,
            generator=draw,
        ).double()
        with torch.no_grad():  # away from the start, where biases are 0 and every score is alike
            for value in self.model.parameters():
                value += 0.3 * normal(*value.shape)
            self.model.item_embedding[0] = 0.0  # never read nor moved: its second moment stays exactly 0
        self.weights = {name: value.detach().clone() for name, value in self.model.named_parameters()}
        shapes = ((RANK, RANK, WIDTH), (ROWS, RANK), (LENGTH, RANK))
        self.factors = {name: normal(*shape) for name, shape in zip(FACTORS, shapes, strict=True)}
        self.item_factor = normal(ITEMS, WIDTH)

        self.lengths = torch.randint(1, LENGTH, (REAL,), generator=draw)
        self.targets = torch.randint(1, ITEMS + 1, (REAL,), generator=draw)
        self.items = torch.randint(1, ITEMS + 1, (REAL, LENGTH - 1), generator=draw)
        self.items[torch.arange(LENGTH - 1) >= self.lengths.unsqueeze(1)] = 0
        self.features = normal(REAL, WIDTH)
        self.middles = [torch.randint(4, LENGTH - 1, (MINIBATCH,), generator=draw) for _ in range(INNER_STEPS)]

    def peer(self) -> ReferenceTD3:
        factors = {name: value.clone() for name, value in self.factors.items()}
        return ReferenceTD3(
            self.model.config, **factors, item_factor=self.item_factor, synthetic_batch_size=MINIBATCH, window=WINDOW
        )

    @property
    def arguments(self) -> tuple[Weights, Tensor, Tensor, Tensor, Tensor, int, list[Tensor]]:
        return self.weights, self.items, self.lengths, self.targets, self.features, INNER_STEPS, self.middles

    def inner_loss(self, params: Weights, probabilities: Tensor, middle: Tensor) -> Tensor:
        last = torch.full_like(middle, LENGTH - 2)
        positions = torch.stack([last, middle - 1], dim=1)
        batch = SequenceBatch(
            items=DenseItems(probabilities),
            lengths=last + 1,
            weights=torch.ones(positions.shape, dtype=torch.float64),
            positions=positions,
        )
        return functional_call(self.model, params, (batch,))[0]

    def outer_loss(self, params: Weights) -> Tensor:
        ids = F.pad(self.items, (0, 1)).scatter(1, self.lengths.unsqueeze(1), self.targets.unsqueeze(1))
        batch = SequenceBatch(
            items=HardItems(ids),
            lengths=self.lengths,
            weights=torch.ones(REAL, 1, dtype=torch.float64),
            positions=(self.lengths - 1).unsqueeze(1),
        )
        loss, hidden = functional_call(self.model, params, (batch,))
        return loss + (hidden.squeeze(1) - self.features).square().mean()

    def expected(self) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the outer loss and its gradient in the factors, by one tape over the window."""
        factors = {name: value.clone().requires_grad_() for name, value in self.factors.items()}
        logits = torch.einsum("ijk,ai,bj,ck->abc", *factors.values(), self.item_factor)
        turns = torch.softmax(logits, -1).split(MINIBATCH)
        params = {name: value.clone().requires_grad_() for name, value in self.weights.items()}
        state = {name: (torch.zeros_like(value), torch.zeros_like(value)) for name, value in params.items()}
        plain = INNER_STEPS - WINDOW
        for step, middle in enumerate(self.middles):
            if step == plain:  # all that happened before is a constant
                params = {name: value.detach().requires_grad_() for name, value in params.items()}
                state = {name: (first.detach(), second.detach()) for name, (first, second) in state.items()}
            turn = step if step < plain else step - plain
            loss = self.inner_loss(params, turns[turn % len(turns)], middle)
            slopes = torch.autograd.grad(
                loss, list(params.values()), create_graph=True, allow_unused=True, materialize_grads=True
            )
            params, state = adam(params, state, slopes, step + 1)
        loss = self.outer_loss(params)
        return loss.detach(), dict(zip(factors, torch.autograd.grad(loss, list(factors.values())), strict=True))


def adam(
    params: Weights, state: dict[str, tuple[Tensor, Tensor]], slopes: tuple[Tensor, ...], step: int
) -> tuple[Weights, dict[str, tuple[Tensor, Tensor]]]:
    moved, moments = {}, {}
    for (name, value), raw in zip(params.items(), slopes, strict=True):
        slope = raw + DECAY * value
        first, second = state[name]
        first, second = first + 0.1 * (slope - first), second + 0.001 * (slope**2 - second)
        root = (second / (1 - 0.999**step)).clamp(min=1e-300).sqrt()  # no slope below the bound
        moved[name] = value - RATE * (first / (1 - 0.9**step)) / (root + 1e-8)
        moments[name] = (first, second)
    return moved, moments


def test_the_meta_gradient_is_that_of_a_tape_through_the_library() -> None:
    setting = Setting()
    wanted_loss, wanted = setting.expected()
    loss, found = setting.peer().meta_gradient(*setting.arguments)
    assert loss == pytest.approx(float(wanted_loss), rel=1e-12)
    for name, slope in zip(FACTORS, found, strict=True):
        assert float(wanted[name].norm()) > 1e-6, f"{name} has no gradient to speak of"
        assert float((slope - wanted[name]).norm() / wanted[name].norm()) <= 1e-10, name


def test_the_divergence_is_the_cross_entropy_less_the_entropy_of_the_targets() -> None:
    setting = Setting()
    draw = torch.Generator().manual_seed(5)
    logits = torch.randn(MINIBATCH, LENGTH, ITEMS, generator=draw, dtype=torch.float64).requires_grad_()
    probabilities = logits.softmax(-1)
    params = {name: value.clone().requires_grad_() for name, value in setting.weights.items()}
    middle = setting.middles[0]
    divergence = setting.peer().inner_loss(params, probabilities, middle)
    entropy = torch.special.entr(probabilities).sum(-1)
    rows = torch.arange(MINIBATCH)
    entropy = torch.stack([entropy[:, -1], entropy[rows, middle]]).mean()
    cross_entropy = setting.inner_loss(params, probabilities, middle)
    torch.testing.assert_close(divergence + entropy, cross_entropy, rtol=1e-12, atol=0.0)

    def slopes(loss: Tensor, *leaves: Tensor) -> list[Tensor]:
        return list(torch.autograd.grad(loss, leaves, retain_graph=True, allow_unused=True, materialize_grads=True))

    torch.testing.assert_close(
        slopes(divergence, *params.values()), slopes(cross_entropy, *params.values()), rtol=1e-10, atol=1e-14
    )
    # in the logits, for the library's cross-entropy takes for granted that a distribution sums to 1
    direct = slopes(divergence, logits)[0] - slopes(cross_entropy, logits)[0]
    torch.testing.assert_close(direct, slopes(-entropy, logits)[0], rtol=1e-10, atol=1e-14)
    assert float(direct.norm()) > 0.01, "the entropy depends on the summary itself; no step of a student sees that"


@pytest.mark.parametrize("clip_norm", [1.0, 1e-3])
def test_an_outer_step_moves_the_factors_along_the_clipped_gradient_and_nothing_else(clip_norm: float) -> None:
    setting, peer = Setting(), Setting().peer()
    peer.clip_norm = clip_norm
    weights = {name: value.clone() for name, value in setting.weights.items()}
    others = [value.clone() for value in setting.arguments[1:5]]
    frozen = setting.item_factor.clone()
    wanted_loss, gradient = setting.expected()

    factors = [nn.Parameter(value.clone()) for value in setting.factors.values()]
    for factor, slope in zip(factors, gradient.values(), strict=True):
        factor.grad = slope
    nn.utils.clip_grad_norm_(factors, clip_norm)
    torch.optim.Adam(factors, lr=0.03, weight_decay=1e-4).step()

    loss = peer.outer_step(*setting.arguments)
    assert math.isfinite(loss)
    assert loss == pytest.approx(float(wanted_loss), rel=1e-12)
    for old, moved, wanted in zip(setting.factors.values(), peer.factors, factors, strict=True):
        assert not torch.equal(old, moved)
        torch.testing.assert_close(moved, wanted, rtol=1e-8, atol=1e-8)
    assert all(torch.equal(value, setting.weights[name]) for name, value in weights.items())
    assert all(torch.equal(old, new) for old, new in zip(others, setting.arguments[1:5], strict=True))
    assert torch.equal(frozen, setting.item_factor)
    assert torch.equal(frozen, peer.item_factor)


def test_middle_targets_are_drawn_when_none_are_given() -> None:
    setting, peer = Setting(), Setting().peer()
    with torch.random.fork_rng():
        torch.manual_seed(0)
        first = peer.outer_step(*setting.arguments[:-1])
        second = peer.outer_step(*setting.arguments[:-1])
    assert math.isfinite(first)
    assert math.isfinite(second)
    assert first != second
