"""Baselines of clicks: each chooses what its rule says, as many rows as asked for, the same ones for a seed."""

import numpy as np
import pytest
import torch

from recdistill.data.clicks.block import ClickBlock
from recdistill.distill.clicks.coresets import CLICK_SELECTORS, ClickMaterial, chosen_rows
from recdistill.distill.clicks.matching import GradientMatching, distance, gradient
from recdistill.distill.clicks.memory import lifted
from recdistill.distill.clicks.nacs import NaCS, corrected_gradient, facility_location
from recdistill.errors import NumericalError, OptionError
from recdistill.models.clicks import CLICK_MODELS
from recdistill.models.clicks.base import ClickModel
from recdistill.rng import Streams

NUM_IDS, WIDTHS = (8, 8, 5), (1, 1, 1)


def block_of(rows: int = 300, rate: float = 0.3) -> ClickBlock:
    draw = np.random.default_rng(0)
    ids = np.stack([draw.integers(2, n, rows) for n in NUM_IDS], axis=1).astype(np.int32)
    return ClickBlock(ids, (draw.random(rows) < rate).astype(np.float32), WIDTHS)


def model_of(seed: int = 0) -> ClickModel:
    made = CLICK_MODELS["deepfm"](NUM_IDS, WIDTHS, 4, hidden_units=(6,), generator=torch.Generator().manual_seed(seed))
    with torch.no_grad():
        made.tables.rows.mul_(100)
    return made


@pytest.fixture
def material() -> ClickMaterial:
    checkpoints = [dict(model_of(seed).state_dict()) for seed in range(3)]
    return ClickMaterial(block_of(), model_of(), checkpoints)


@pytest.mark.parametrize("name", CLICK_SELECTORS)
def test_every_selector_gives_different_rows_the_same_for_a_seed(name: str, material: ClickMaterial) -> None:
    first, again, other = (chosen_rows(name, material, 40, Streams(seed)) for seed in (0, 0, 1))
    assert len(set(first.tolist())) == 40
    assert (np.diff(first) > 0).all()
    assert (first == again).all()
    assert name not in ("random", "stratified") or (first != other).any()
    everything = chosen_rows(name, material, len(material.block), Streams(0))
    assert (everything == np.arange(len(material.block))).all()


def test_strata_keep_the_rate_of_clicks(material: ClickMaterial) -> None:
    rows = chosen_rows("stratified", material, 50, Streams(0))
    assert material.block.labels[rows].sum() == round(50 * float(material.block.labels.mean()))


def test_the_largest_errors_are_taken(material: ClickMaterial) -> None:
    rows = chosen_rows("el2n", material, 25, Streams(0))
    logits = []
    for weights in material.checkpoints:
        model = model_of()
        model.load_state_dict(weights)
        logits.append(model.logits(model.embed(material.block.batch(slice(None)))).detach())
    errors = (torch.sigmoid(torch.stack(logits)) - torch.from_numpy(material.block.labels)).abs().mean(0).numpy()
    left = np.setdiff1d(np.arange(len(errors)), rows)
    assert errors[rows].min() >= errors[left].max() - 1e-6


def test_too_many_rows_are_refused(material: ClickMaterial) -> None:
    with pytest.raises(OptionError, match="rows there are"):
        chosen_rows("random", material, 301, Streams(0))
    with pytest.raises(OptionError, match="selector"):
        chosen_rows("nothing", material, 3, Streams(0))


def test_facility_location_covers_a_line() -> None:
    values = np.repeat([0.0, 5.0, 9.0], 20) + np.linspace(0, 0.01, 60)
    chosen = facility_location(values, 3, 1e-3, np.random.default_rng(0))
    assert sorted(np.round(values[chosen]).tolist()) == [0, 5, 9]
    assert sorted(facility_location(values, 60, 0.5, np.random.default_rng(0)).tolist()) == list(range(60))
    assert len(facility_location(values, 0, 0.5, np.random.default_rng(0))) == 0


def test_a_corrected_gradient_leans_to_a_sure_model_late() -> None:
    chance, labels = np.array([0.99, 0.5]), np.array([0.0, 0.0])
    early, late = (corrected_gradient(chance, labels, progress) for progress in (0.0, 1.0))
    plain = (chance - labels) / (chance * (1 - chance))
    np.testing.assert_allclose(early, plain, rtol=1e-2)
    assert abs(late[0]) < 0.2 * abs(plain[0])  # a sure model is believed, its label is doubted
    np.testing.assert_allclose(late[1], plain[1], rtol=1e-6)  # an unsure one is not


@pytest.mark.parametrize("rate", [0.3, 0.02])
def test_nacs_balances_labels_where_it_can(rate: float) -> None:
    block = block_of(rate=rate)
    method = NaCS(part=50, rounds=2, passes=3)
    rows = method.choose(block, NUM_IDS, 60, Streams(0))
    assert len(set(rows.tolist())) == 60
    assert (rows == method.choose(block, NUM_IDS, 60, Streams(0))).all()
    clicked = int(block.labels[rows].sum())
    assert 24 <= clicked <= 36 if rate == 0.3 else clicked <= int(block.labels.sum())


@pytest.mark.parametrize("options", [{"rounds": 0}, {"epsilon": 1.0}, {"drop": 1.0}, {"passes": 1}, {"dropout": 0.0}])
def test_settings_of_nacs_are_checked(options: dict[str, float]) -> None:
    with pytest.raises(OptionError, match=next(iter(options))):
        NaCS(**options)  # type: ignore[arg-type]


def test_matching_brings_gradients_nearer() -> None:
    block, model = block_of(), model_of()
    rows = np.flatnonzero(block.labels > 0.5)[:6]
    rows = np.concatenate([rows, np.flatnonzero(block.labels < 0.5)[:6]])

    def apart(vectors: torch.Tensor) -> float:
        total = 0.0
        for seed in range(20):
            network = model_of(100 + seed)
            for label in (0, 1):
                theirs = model.embed(block.some(np.flatnonzero(block.labels == label)).batch(slice(None))).detach()
                mine = vectors[6:] if label == 0 else vectors[:6]
                pair = [gradient(network, each, label, create_graph=False) for each in (mine, theirs)]
                total += float(distance(*pair))
        return total

    options = {"steps": 60, "batch_size": 150, "learning_rate": 0.05}
    begun = lifted(model, block.some(rows), 0.0, 1)
    made = GradientMatching(**options).distill(block, rows, model, Streams(0))  # type: ignore[arg-type]
    assert torch.equal(made.ids, begun.ids)
    assert torch.equal(made.logits, begun.logits)
    assert apart(made.vectors) < 0.8 * apart(begun.vectors)
    broken = model_of()
    with torch.no_grad():
        broken.tables.rows.fill_(torch.nan)
    with pytest.raises(NumericalError, match="learning rate"):
        GradientMatching(steps=2).distill(block, rows, broken, Streams(0))
