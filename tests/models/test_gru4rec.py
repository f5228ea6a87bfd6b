"""GRU4Rec against torch's recurrent layers and a linear map; what every model promises is in ``test_contract.py``."""

import pytest
import torch

from recdistill.data.batches import HardItems
from recdistill.errors import OptionError
from recdistill.models.gru4rec import GRU4Rec
from recdistill.models.layers import MaskPlan, Masks
from reference.examples import EXAMPLES, IDS, LENGTHS, make
from reference.models import torch_gru, weights_of


@torch.no_grad()
@pytest.mark.parametrize("noisy", [False, True])
def test_it_is_a_linear_map_of_recurrent_states_over_item_vectors_with_dropout(noisy: bool) -> None:
    model, embedded = make("gru4rec"), make("gru4rec").embed(HardItems(IDS))
    weights, masks = weights_of(model), [torch.ones_like(embedded)]
    if noisy:
        plan = MaskPlan()
        model.encode(embedded, LENGTHS, None, plan)
        masks = plan.draw(torch.Generator().manual_seed(3))
        assert [mask.shape for mask in masks] == [embedded.shape]
        rate = EXAMPLES["gru4rec"]["dropout"]
        assert masks[0].unique().tolist() == pytest.approx([0, 1 / (1 - rate)])
    states, _ = torch_gru(weights, 2)(embedded * masks[0])
    expected = states @ weights["output.weight"].T + weights["output.bias"]
    found = model.encode(embedded, LENGTHS, None, Masks(masks) if noisy else None)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-12)


def test_weights_are_drawn_within_their_bounds() -> None:
    model = GRU4Rec(400, 5, embedding_dim=40, hidden_dim=60, num_layers=2, generator=torch.Generator().manual_seed(0))
    weights = weights_of(model)
    bounds = {
        "layers.0.input_weight": (6 / (180 + 40)) ** 0.5,
        "layers.0.state_weight": (6 / (180 + 60)) ** 0.5,
        "layers.1.input_weight": (6 / (180 + 60)) ** 0.5,
        "layers.1.state_weight": (6 / (180 + 60)) ** 0.5,
        "output.weight": 60**-0.5,
        "output.bias": 60**-0.5,
    }
    assert weights.keys() - bounds.keys() == {"item_embedding"}
    for name, bound in bounds.items():
        assert 0.9 * bound < float(weights[name].abs().max()) <= bound, name
    assert float(weights["item_embedding"][1:].std()) == pytest.approx((2 / 441) ** 0.5, rel=0.03)


@pytest.mark.parametrize(
    ("option", "value"),
    [("embedding_dim", 0), ("hidden_dim", 0), ("num_layers", 0), ("dropout", 1.0), ("dropout", -0.1)],
)
def test_options_out_of_range_are_refused(option: str, value: float) -> None:
    with pytest.raises(OptionError, match=option):
        GRU4Rec(5, 5, **{option: value}, generator=torch.Generator())
