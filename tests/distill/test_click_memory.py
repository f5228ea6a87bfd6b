"""The memory: samples become units, units follow the tables; each rule on cases that can be worked out."""

from typing import Any

import numpy as np
import pytest
import torch

from recdistill.data.clicks.block import ClickBlock
from recdistill.distill.clicks.memory import (
    LARGEST_LOGIT,
    ClickMemory,
    carried_over,
    kept,
    lifted,
    logit_of,
    units_in,
)
from recdistill.errors import OptionError
from recdistill.models.clicks import CLICK_MODELS
from recdistill.models.clicks.base import ClickModel


def block_of(rows: int = 12) -> ClickBlock:
    generator = np.random.default_rng(0)
    ids = generator.integers(1, 5, (rows, 4)).astype(np.int32)
    return ClickBlock(ids, generator.integers(0, 2, rows).astype(np.float32), (1, 2, 1))


def model_of(seed: int = 0) -> ClickModel:
    model = CLICK_MODELS["deepfm"]((5, 5, 5), (1, 2, 1), 4, generator=torch.Generator().manual_seed(seed))
    with torch.no_grad():
        model.tables.rows.mul_(100)
    return model


def test_units_are_samples_behind_the_look_up() -> None:
    model, block = model_of(), block_of()
    memory = lifted(model, block, 0.5, number=3)
    batch = block.batch(slice(None))
    assert torch.equal(memory.vectors, model.embed(batch))
    chance = torch.sigmoid(model.logits(model.embed(batch)))
    torch.testing.assert_close(torch.sigmoid(memory.logits), 0.5 * batch.labels + 0.5 * chance)
    assert memory.blocks.tolist() == [3] * 12
    found = memory.batch(np.array([4, 1]))
    assert torch.equal(found.vectors, memory.vectors[[4, 1]])
    assert torch.equal(memory.ids, batch.ids)
    assert memory.num_bytes == 12 * (3 * 4 * 4 + 4 + 8 + 4 * 4)


def test_hard_labels_stay_finite() -> None:
    memory = lifted(model_of(), block_of(), 0.0, number=1)
    assert set(memory.logits.tolist()) == {-LARGEST_LOGIT, LARGEST_LOGIT}
    torch.testing.assert_close(torch.sigmoid(memory.logits), block_of().batch(slice(None)).labels, atol=2e-4, rtol=0)


@pytest.mark.parametrize("alignment", ["ridge", "rotation", "none"])
def test_units_stay_where_the_tables_did(alignment: str) -> None:
    model, block = model_of(), block_of()
    memory = lifted(model, block, 0.5, number=1)
    found, moved = carried_over(memory, model.tables, model, block, alignment=alignment, refresh=0.0)
    torch.testing.assert_close(found.vectors, memory.vectors)
    assert torch.equal(found.logits, memory.logits)
    assert moved.abs().max() < 1e-5


def test_units_follow_tables_that_were_turned() -> None:
    model, later, block = model_of(), model_of(), block_of(200)
    turn = torch.linalg.qr(torch.randn(4, 4, generator=torch.Generator().manual_seed(1))).Q
    with torch.no_grad():
        later.tables.of(1).copy_(model.tables.of(1) @ turn.T)
    later.grow((5, 8, 5), torch.Generator().manual_seed(2))  # ids that the old tables have not
    memory = lifted(model, block_of(), 0.5, number=1)
    found, moved = carried_over(memory, model.tables, later, block, strength=1e-9, refresh=0.0)
    torch.testing.assert_close(found.vectors, lifted(later, block_of(), 0.5, 1).vectors, atol=1e-3, rtol=1e-3)
    torch.testing.assert_close(
        moved, torch.tensor([0.0, float((turn - torch.eye(4)).norm() / 2), 0.0]), atol=1e-3, rtol=0
    )
    untouched, _ = carried_over(memory, model.tables, later, block, alignment="none", refresh=0.0)
    assert torch.equal(untouched.vectors, memory.vectors)


def test_old_labels_move_towards_the_model() -> None:
    model, block = model_of(), block_of()
    memory = lifted(model_of(1), block, 0.5, number=1)
    found, _ = carried_over(memory, model.tables, model, block, alignment="none", refresh=0.25)
    chance = torch.sigmoid(model.logits(memory.vectors))
    expected = 0.75 * torch.sigmoid(memory.logits) + 0.25 * chance
    torch.testing.assert_close(torch.sigmoid(found.logits), expected)


def test_an_empty_memory_is_carried_over() -> None:
    model = model_of()
    found, moved = carried_over(ClickMemory.empty((1, 1, 2), 4), model.tables, model, block_of())
    assert len(found) == 0
    assert len(moved) == 3
    assert len(found.joined(lifted(model, block_of(), 0.5, 2))) == 12


def test_a_bounded_memory_keeps_what_matters() -> None:
    memory = lifted(model_of(), block_of(), 0.5, number=1)
    found = kept(memory, torch.tensor([5.0, 1, 9, *[0.0] * 9]), 3)
    assert torch.equal(found.vectors, memory.vectors[:3])
    assert kept(memory, torch.zeros(12), 12) is memory
    with pytest.raises(OptionError, match="most"):
        kept(memory, torch.zeros(12), 0)


@pytest.mark.parametrize(("ratio", "seen", "count"), [(0.01, 12_345, 123), (0.5, 3, 2), (0.01, 1, 1), (1.0, 7, 7)])
def test_a_memory_grows_with_what_was_seen(ratio: float, seen: int, count: int) -> None:
    assert units_in(ratio, seen) == count


@pytest.mark.parametrize("ratio", [0.0, 1.5])
def test_ratios_that_cannot_be_are_refused(ratio: float) -> None:
    with pytest.raises(OptionError, match="ratio"):
        units_in(ratio, 10)


@pytest.mark.parametrize(
    ("options", "told"),
    [({"alignment": "mlp"}, "alignment.*choose from"), ({"strength": 0.0}, "strength"), ({"refresh": 1.1}, "refresh")],
)
def test_options_that_cannot_be_are_refused(options: dict[str, Any], told: str) -> None:
    model = model_of()
    with pytest.raises(OptionError, match=told):
        carried_over(ClickMemory.empty((1, 1, 2), 4), model.tables, model, block_of(), **options)
    with pytest.raises(OptionError, match="softness"):
        lifted(model, block_of(), 1.5, 1)


def test_logits_of_chances_are_bounded() -> None:
    assert logit_of(torch.tensor([0.0, 0.5, 1.0])).tolist() == [-LARGEST_LOGIT, 0.0, LARGEST_LOGIT]
