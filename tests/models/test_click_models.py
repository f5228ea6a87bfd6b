"""Click models: what all of them owe, and each against loops over single samples and pairs of fields.

Not proved here: that they are as accurate as other libraries' versions; that needs data.
"""

import itertools
from typing import Any

import pytest
import torch
from torch import Tensor

from recdistill.data.clicks.block import ClickBatch
from recdistill.errors import OptionError
from recdistill.models.clicks import CLICK_MODELS
from recdistill.models.clicks.base import ClickModel, FieldTables
from recdistill.models.clicks.dcnv2 import DCNv2
from recdistill.models.clicks.finalmlp import FinalMLP
from recdistill.models.clicks.fm import FactorizationMachine
from recdistill.models.clicks.wukong import WuKong
from recdistill.models.clicks.xdeepfm import XDeepFM

NUM_IDS, WIDTHS, DIM = (5, 7, 4), (1, 3, 1), 4
SMALL: dict[str, dict[str, Any]] = {
    "lr": {},
    "fm": {},
    "deepfm": {"hidden_units": (6, 5), "dropout": 0.3},
    "dcnv2": {"num_crosses": 2, "hidden_units": (6, 5), "dropout": 0.3},
    "autoint": {"attention_dim": 6, "hidden_units": (5,), "dropout": 0.3},
    "xdeepfm": {"cross_units": (3, 2), "hidden_units": (6,), "dropout": 0.3},
    "finalmlp": {"hidden_units": (6, 4), "num_heads": 2, "gate_units": (3,), "dropout": 0.3},
    "wukong": {
        "products": 3,
        "combinations": 2,
        "rank": 2,
        "product_units": (5,),
        "hidden_units": (6,),
        "dropout": 0.3,
    },
}


def model_of(name: str, seed: int = 0, **options: Any) -> ClickModel:
    """Return a model in float64 whose weights are large enough for every part to count."""
    generator = torch.Generator().manual_seed(seed)
    model = CLICK_MODELS[name](NUM_IDS, WIDTHS, DIM, **{**SMALL[name], **options}, generator=generator).double()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn(parameter.shape, dtype=torch.float64, generator=generator) * 0.5)
    return model


def batch_of(size: int = 6) -> ClickBatch:
    generator = torch.Generator().manual_seed(1)
    ids = torch.stack([torch.randint(0, n, (size,), generator=generator) for n in (5, 7, 7, 7, 4)], dim=1)
    ids[0, 1:4] = 0
    ids[1, 2:4] = 0
    return ClickBatch(torch.rand(size, dtype=torch.float64, generator=generator), ids)


def vectors_of(model: ClickModel) -> Tensor:
    return model.embed(batch_of()).detach()


@pytest.fixture(params=CLICK_MODELS)
def model(request: pytest.FixtureRequest) -> ClickModel:
    return model_of(request.param)


def test_every_model_is_tried_small() -> None:
    assert SMALL.keys() == CLICK_MODELS.keys()


def test_vectors_are_looked_up_and_those_of_several_values_averaged(model: ClickModel) -> None:
    batch = batch_of()
    assert batch.ids is not None
    found = model.embed(batch)
    for row, ids in enumerate(batch.ids.tolist()):
        tags = [i for i in ids[1:4] if i] or [0]
        if ids[1] == 0 and any(ids[1:4]):
            continue  # padding stands behind values, never before them
        slow = [model.tables.of(0)[ids[0]], model.tables.of(1)[tags].mean(0), model.tables.of(2)[ids[4]]]
        torch.testing.assert_close(found[row], torch.stack(slow))


def test_samples_may_enter_as_vectors(model: ClickModel) -> None:
    batch = batch_of()
    looked_up = ClickBatch(batch.labels, vectors=model.embed(batch))
    torch.testing.assert_close(model(looked_up), model(batch), rtol=0, atol=0)


def test_the_loss_is_the_cross_entropy_of_soft_labels(model: ClickModel) -> None:
    batch = batch_of()
    chance = torch.sigmoid(model.logits(model.embed(batch)))
    slow = -(batch.labels * chance.log() + (1 - batch.labels) * (1 - chance).log()).mean()
    torch.testing.assert_close(model(batch), slow)


def test_the_last_layer_s_gradient_needs_no_backward(model: ClickModel) -> None:
    batch = batch_of()
    hidden = model.hidden(model.embed(batch))
    residual = torch.sigmoid(model.logits(model.embed(batch))) - batch.labels
    weight, bias = torch.autograd.grad(model(batch), [model.last.weight, model.last.bias])
    torch.testing.assert_close(weight[0], (residual.unsqueeze(1) * hidden).mean(0))
    torch.testing.assert_close(bias[0], residual.mean())


def test_a_loss_can_be_differentiated_twice(model: ClickModel) -> None:
    vectors, labels = vectors_of(model)[:2].requires_grad_(), batch_of().labels[:2].requires_grad_()
    parameters = [parameter for name, parameter in model.named_parameters() if name != "tables.rows"]

    def gradients(some: Tensor, wanted: Tensor) -> tuple[Tensor, ...]:
        return torch.autograd.grad(model(ClickBatch(wanted, vectors=some)), parameters, create_graph=True)

    assert torch.autograd.gradcheck(gradients, (vectors, labels), atol=1e-5)


def test_dropout_is_on_with_a_generator_alone(model: ClickModel) -> None:
    batch = batch_of()
    calm = [model(batch) for _ in range(2)]
    stirred = [model(batch, torch.Generator().manual_seed(seed)) for seed in (3, 3, 4)]
    assert calm[0] == calm[1]
    assert stirred[0] == stirred[1]
    assert (stirred[0] != stirred[2]) == ("dropout" in model.config)


def test_the_configuration_rebuilds_a_model(model: ClickModel) -> None:
    again = type(model)(**model.config, generator=torch.Generator().manual_seed(9)).double()
    again.load_state_dict(model.state_dict())
    torch.testing.assert_close(again(batch_of()), model(batch_of()), rtol=0, atol=0)
    assert set(type(model).options()) | {"num_ids", "widths"} == set(model.config)


def test_a_seed_gives_the_weights(model: ClickModel) -> None:
    drawn = [type(model)(**model.config, generator=torch.Generator().manual_seed(5)) for _ in range(2)]
    first, second = (dict(each.named_parameters()) for each in drawn)
    for name, value in first.items():
        assert torch.equal(value, second[name])
        assert value.dim() < 2 or value.std() > 0


def test_new_ids_get_rows_and_change_nothing(model: ClickModel) -> None:
    before = model(batch_of())
    model.grow((6, 7, 9), torch.Generator().manual_seed(2))
    torch.testing.assert_close(model(batch_of()), before, rtol=0, atol=0)
    assert model.tables.num_ids == model.config["num_ids"] == (6, 7, 9)
    assert model.tables.of(2)[4:].abs().max() < 0.1
    with pytest.raises(OptionError, match="never taken back"):
        model.grow((5, 7, 9), torch.Generator())


def test_a_table_for_every_field() -> None:
    with pytest.raises(OptionError, match="2 tables for 1 fields"):
        FieldTables((3, 4), (1,), 2, torch.Generator())


def test_a_factorisation_machine_sums_all_pairs() -> None:
    model = model_of("fm")
    assert isinstance(model, FactorizationMachine)
    vectors = vectors_of(model)
    pairs = sum((vectors[:, i] * vectors[:, j]).sum(1) for i, j in itertools.combinations(range(3), 2))
    linear = vectors.flatten(1) @ model.last.weight[0] + model.last.bias
    torch.testing.assert_close(model.logits(vectors), linear + pairs)


def test_deepfm_is_its_two_halves() -> None:
    model, machine = model_of("deepfm"), model_of("fm")
    vectors = vectors_of(model)
    with torch.no_grad():
        machine.last.weight.copy_(model.first_order.weight.flatten().unsqueeze(0))
        machine.last.bias.zero_()
    deep = model.last(model.deep(vectors.flatten(1))).squeeze(1)
    torch.testing.assert_close(model.logits(vectors), machine.logits(vectors) + deep)


def test_crosses_of_dcn_multiply_by_the_first_input() -> None:
    model = model_of("dcnv2")
    assert isinstance(model, DCNv2)
    first = vectors_of(model).flatten(1)[0]
    crossed = first
    for layer in model.crosses:
        crossed = torch.stack([first[i] * (layer.weight[i] @ crossed + layer.bias[i]) + crossed[i] for i in range(12)])
    torch.testing.assert_close(model.hidden(vectors_of(model))[0, :12], crossed)


def test_the_interaction_network_takes_all_products() -> None:
    model = model_of("xdeepfm")
    assert isinstance(model, XDeepFM)
    fields = vectors_of(model)[2]
    crossed, parts = fields, []
    for layer in model.crosses:
        made = []
        for unit in range(len(layer.weight)):
            weights = layer.weight[unit].unflatten(0, (len(fields), len(crossed)))
            pairs = itertools.product(range(len(fields)), range(len(crossed)))
            made.append(sum(weights[i, j] * fields[i] * crossed[j] for i, j in pairs) + layer.bias[unit])
        crossed = torch.stack(made)
        parts.append(crossed.sum(1))
    torch.testing.assert_close(model.hidden(vectors_of(model))[2, :5], torch.cat(parts))


def test_finalmlp_fuses_both_networks_by_heads() -> None:
    model = model_of("finalmlp")
    assert isinstance(model, FinalMLP)
    vectors = vectors_of(model)
    left, right = (net(gate(vectors.flatten(1))) for gate, net in zip(model.gates, model.networks, strict=True))
    heads = [
        left[0, 2 * head : 2 * head + 2] @ model.products[head] @ right[0, 2 * head : 2 * head + 2] for head in range(2)
    ]
    torch.testing.assert_close(model.hidden(vectors)[0], torch.cat([left[0], right[0], torch.stack(heads)]))
    gate = model.gates[0](torch.ones(1, 12, dtype=torch.float64))
    assert gate.min() > 0
    assert gate.max() < 2


def test_a_layer_of_wukong_crosses_and_combines() -> None:
    model = model_of("wukong")
    assert isinstance(model, WuKong)
    layer, sample = model.stack[0], vectors_of(model)[3]
    gram = torch.stack([torch.stack([a @ b for b in sample]) for a in sample])
    made = layer.to_vectors(layer.network(layer.products_norm((gram @ layer.compress).flatten()[None])))[0]
    crossed = made.unflatten(0, (3, DIM))
    combined = torch.stack(
        [sum(weight * vector for weight, vector in zip(row, sample, strict=True)) for row in layer.combine]
    )
    slow = layer.norm(torch.cat([crossed, combined]) + layer.residual @ sample)
    torch.testing.assert_close(layer(vectors_of(model), None)[3], slow)
    assert model.stack[1].residual is None  # five vectors in, five out


@pytest.mark.parametrize(
    ("name", "options", "told"),
    [
        ("deepfm", {"dropout": 1.0}, "dropout"),
        ("dcnv2", {"num_crosses": 0}, "num_crosses: 0"),
        ("autoint", {"attention_dim": 5}, "attention_dim: 5 must be a multiple of num_heads 2"),
        ("xdeepfm", {"cross_units": ()}, "cross_layers: 0"),
        ("finalmlp", {"num_heads": 3}, "num_heads: 3 must divide"),
        ("wukong", {"rank": 0}, "rank: 0"),
        ("lr", {"embedding_dim": 0}, "embedding_dim: 0"),
    ],
)
def test_options_that_cannot_be_are_refused(name: str, options: dict[str, Any], told: str) -> None:
    arguments = {"num_ids": NUM_IDS, "widths": WIDTHS, **SMALL[name], **options}
    with pytest.raises(OptionError, match=told):
        CLICK_MODELS[name](**arguments, generator=torch.Generator())
