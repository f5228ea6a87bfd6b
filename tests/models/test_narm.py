"""NARM against a loop over positions and states; what every model promises is in ``test_contract.py``."""

import pytest
import torch
from torch import Tensor

from recdistill.data.batches import HardItems
from recdistill.errors import OptionError
from recdistill.models import MODELS
from recdistill.models.layers import MaskPlan, Masks
from recdistill.models.narm import NARM
from reference.examples import EXAMPLES, IDS, LENGTHS, L, V, make
from reference.models import narm, torch_gru, weights_of


def states_of(model: torch.nn.Module, vectors: Tensor) -> Tensor:
    return torch_gru(weights_of(model), len(model.layers))(vectors)[0]


@torch.no_grad()
@pytest.mark.parametrize("positions", [None, [[3, 0], [1, 1], [0, 0]]])
def test_every_position_attends_to_the_states_up_to_it(positions: list[list[int]] | None) -> None:
    model = make("narm")
    embedded = model.embed(HardItems(IDS))
    found = model.encode(embedded, LENGTHS, None if positions is None else torch.tensor(positions))
    for row, read in enumerate(positions or [range(IDS.shape[1])] * 3):
        for index, position in enumerate(read):
            states = states_of(model, embedded[row : row + 1, : position + 1])[0]
            expected = narm(weights_of(model), states)
            torch.testing.assert_close(found[row, index], expected, rtol=0, atol=1e-12)


@torch.no_grad()
def test_dropout_is_on_the_item_vectors_and_on_both_states() -> None:
    model, positions = make("narm"), torch.tensor([[3, 0], [1, 1], [0, 0]])
    embedded, plan = model.embed(HardItems(IDS)), MaskPlan()
    model.encode(embedded, LENGTHS, positions, plan)
    masks = plan.draw(torch.Generator().manual_seed(3))
    found = model.encode(embedded, LENGTHS, positions, Masks(masks))
    rates = [EXAMPLES["narm"][name] for name in ("dropout", "output_dropout")]
    assert [mask.max().item() for mask in masks] == pytest.approx([1 / (1 - rate) for rate in rates])
    states = states_of(model, embedded * masks[0])
    for row, read in enumerate(positions.tolist()):
        for index, position in enumerate(read):
            expected = narm(weights_of(model), states[row, : position + 1], masks[1][row, index])
            torch.testing.assert_close(found[row, index], expected, rtol=0, atol=1e-12)


@torch.no_grad()
def test_recurrent_layers_are_stacked() -> None:
    options = EXAMPLES["narm"] | {"num_layers": 3}
    model = MODELS["narm"](V, L, **options, generator=torch.Generator().manual_seed(0)).double()
    embedded = model.embed(HardItems(IDS[:1]))
    found = model.represent(HardItems(IDS[:1]), torch.tensor([5]))
    expected = narm(weights_of(model), states_of(model, embedded)[0])
    assert len(model.layers) == 3
    torch.testing.assert_close(found[0], expected, rtol=0, atol=1e-12)


def test_weights_are_drawn_by_shape() -> None:
    model = NARM(400, 5, embedding_dim=40, hidden_dim=60, num_layers=2, generator=torch.Generator().manual_seed(0))
    weights = weights_of(model)
    normal = {"item_embedding": 441, "from_last": 120, "from_each": 120, "output": 160}
    for name, total in normal.items():
        assert float(weights[name].std()) == pytest.approx((2 / total) ** 0.5, rel=0.05), name
    assert float(weights["attention"].std()) == pytest.approx((2 / 61) ** 0.5, rel=0.25)
    recurrent = {name: value for name, value in weights.items() if name.startswith("layers")}
    assert len(recurrent) == 4
    assert all(0.99 * 60**-0.5 < float(value.abs().max()) <= 60**-0.5 for value in recurrent.values())
    assert set(weights) == {*normal, "attention", *recurrent}


@pytest.mark.parametrize(
    ("option", "value"),
    [("embedding_dim", 0), ("hidden_dim", 0), ("num_layers", 0), ("dropout", 1.0), ("output_dropout", 1.0)],
)
def test_options_out_of_range_are_refused(option: str, value: float) -> None:
    with pytest.raises(OptionError, match=option):
        NARM(5, 5, **{option: value}, generator=torch.Generator())
