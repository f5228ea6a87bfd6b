"""Dropout with a generator, attention against a loop, the recurrent layer against torch's, how weights are drawn."""

import math

import pytest
import torch
from torch import nn

from recdistill.errors import OptionError
from recdistill.models.layers import (
    GRU,
    SelfAttention,
    TransformerBlock,
    draw_normal,
    draw_uniform,
    draw_xavier_normal,
    dropout,
    linear,
)
from recdistill.models.sasrec import SASRec


def test_dropout_keeps_the_mean_and_drops_the_rate(generator: torch.Generator) -> None:
    values = dropout(torch.ones(20_000), 0.3, generator)
    assert float((values == 0).float().mean()) == pytest.approx(0.3, abs=0.015)
    assert float(values.mean()) == pytest.approx(1, abs=0.02)
    assert float(values.max()) == pytest.approx(1 / 0.7)


def test_dropout_is_off_without_a_generator_or_a_rate(generator: torch.Generator) -> None:
    values = torch.randn(5)
    assert dropout(values, 0.9, None) is values
    before = generator.get_state()
    assert dropout(values, 0.0, generator) is values
    assert torch.equal(generator.get_state(), before)


def test_weights_are_drawn_by_shape(generator: torch.Generator) -> None:
    module = nn.Sequential(linear(200, 100), nn.Module())
    module[1].norm = nn.LayerNorm(4)
    draw_normal(module, 0.02, generator)
    assert module[0].weight.std().item() == pytest.approx(0.02, rel=0.03)
    assert module[0].weight.mean().item() == pytest.approx(0, abs=0.001)
    assert module[0].bias.abs().max() == 0
    assert module[1].norm.weight.tolist() == [1] * 4
    assert module[1].norm.bias.tolist() == [0] * 4


def test_matrices_are_drawn_as_torch_draws_them(generator: torch.Generator) -> None:
    """By spread and bounds; the draws themselves are those of the given generator."""
    normal, expected = torch.zeros(300, 500), nn.init.xavier_normal_(torch.zeros(300, 500), generator=generator)
    draw_xavier_normal(normal, generator)
    assert float(normal.std()) == pytest.approx(float(expected.std()), rel=0.01)
    assert float(normal.mean()) == pytest.approx(0, abs=0.001)
    uniform = torch.zeros(300, 500)
    draw_uniform(uniform, 0.25, generator)
    assert float(uniform.max()) == pytest.approx(0.25, rel=1e-3)
    assert float(uniform.min()) == pytest.approx(-0.25, rel=1e-3)
    assert float(uniform.std()) == pytest.approx(0.5 / math.sqrt(12), rel=0.01)


@pytest.mark.parametrize("length", [1, 6])
def test_the_recurrent_layer_is_torchs(length: int, generator: torch.Generator) -> None:
    ours, theirs = GRU(3, 4).double(), nn.GRU(3, 4, bias=False, batch_first=True, dtype=torch.float64)
    pairs = ((ours.input_weight, theirs.weight_ih_l0), (ours.state_weight, theirs.weight_hh_l0))
    with torch.no_grad():
        for parameter, copy in pairs:
            parameter.normal_(generator=generator)
            copy.copy_(parameter)
    values = torch.randn(2, length, 3, dtype=torch.float64, generator=generator).requires_grad_()
    found, expected = ours(values), theirs(values)[0]
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-12)
    direction = torch.randn(found.shape, dtype=torch.float64, generator=generator)
    slopes = (
        torch.autograd.grad((states * direction).sum(), [values, *weights])
        for states, weights in ((found, [pair[0] for pair in pairs]), (expected, [pair[1] for pair in pairs]))
    )
    for mine, other in zip(*slopes, strict=True):
        assert length == 1 or other.abs().max() > 1e-3
        torch.testing.assert_close(mine, other, rtol=0, atol=1e-12)


@pytest.fixture
def attention(generator: torch.Generator) -> SelfAttention:
    made = SelfAttention(4, 2, dropout=0.0, attention_dropout=0.0, norm_eps=1e-12)
    draw_normal(made, 0.7, generator)
    return made.double()


@pytest.mark.parametrize("reads", [slice(0, 3), slice(1, 3)])
@torch.no_grad()
def test_attention_by_loop(attention: SelfAttention, reads: slice) -> None:
    hidden = torch.randn(1, 3, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    allowed = torch.zeros(1, 3, 3, dtype=torch.bool)
    allowed[:, :, reads] = True
    found = attention(hidden, hidden, allowed, None)
    queries, keys, values = (layer(hidden[0]) for layer in (attention.query, attention.key, attention.value))
    for position in range(3):
        heads = []
        for head in (slice(0, 2), slice(2, 4)):
            weights = [math.exp(float(queries[position, head] @ key) / math.sqrt(2)) for key in keys[reads, head]]
            heads.append(sum(w / sum(weights) * v for w, v in zip(weights, values[reads, head], strict=True)))
        mixed = hidden[0, position] + attention.output(torch.cat(heads))
        expected = (mixed - mixed.mean()) / mixed.std(correction=0)
        torch.testing.assert_close(found[0, position], expected, rtol=0, atol=1e-9)


def test_a_mask_per_row_equals_one_mask_for_all(generator: torch.Generator) -> None:
    block = TransformerBlock(4, 2, 6, dropout=0.0, attention_dropout=0.0, norm_eps=1e-12)
    draw_normal(block, 0.7, generator)
    hidden, causal = torch.randn(3, 5, 4, generator=generator), torch.ones(1, 5, 5, dtype=torch.bool).tril()
    positions = torch.tensor([[4, 1], [0, 0], [3, 2]])
    for chosen in (None, positions):
        one = block(hidden, causal, None, chosen)
        each = block(hidden, causal.expand(3, -1, -1), None, chosen)
        torch.testing.assert_close(one, each)


def test_heads_must_divide_the_width() -> None:
    with pytest.raises(OptionError, match="num_heads: 3 does not divide embedding_dim 8"):
        SASRec(5, 5, embedding_dim=8, num_heads=3, generator=torch.Generator())


@pytest.mark.parametrize(
    ("option", "value"),
    [("dropout", 1.0), ("dropout", -0.1), ("attention_dropout", 1.5), ("num_blocks", 0), ("num_heads", 0)],
)
def test_options_out_of_range_are_refused(option: str, value: float) -> None:
    with pytest.raises(OptionError, match=option):
        SASRec(5, 5, **{option: value}, generator=torch.Generator())
