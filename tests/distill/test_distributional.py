"""The distributional regulariser against loops, known cases and finite differences."""

import math

import pytest
import torch
from torch import Tensor

from recdistill.data.batches import SoftItems
from recdistill.distill.distributional import DistributionalLoss, Places, conditional, mismatch
from recdistill.errors import OptionError
from recdistill.models.sasrec import SASRec
from reference.tiny import sasrec

CHOSEN = torch.tensor([3, 17, 5, 8, 12])


def at(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def teacher_of() -> SASRec:
    return sasrec(max_seq_len=8).double()


def rows(seed: int = 1) -> SoftItems:
    queries = torch.randn(3, 6, 4, dtype=torch.float64, generator=at(seed))
    return SoftItems(queries, torch.randn(20, 4, dtype=torch.float64, generator=at(2)))


def test_places_are_pairs_of_different_items_after_a_history() -> None:
    places = Places.draw(500, 3, 6, 5, at())
    assert (places.first != places.second).all()
    assert set(places.positions.tolist()) == {1, 2, 3, 4, 5}
    assert set(places.rows.tolist()) == {0, 1, 2}
    pairs = {(a, b) for a, b in zip(places.first.tolist(), places.second.tolist(), strict=True)}
    assert len(pairs) == 20


@torch.no_grad()
def test_the_semantic_distance_is_that_of_the_loop() -> None:
    teacher, items = teacher_of(), rows().subset(CHOSEN)
    places = Places.draw(20, 3, 6, 5, at())
    found = DistributionalLoss(teacher).semantic(items, places)
    probabilities, table = torch.softmax(items.queries @ items.keys.T, -1), teacher.item_table[CHOSEN]
    for index in range(20):
        row, position = int(places.rows[index]), int(places.positions[index])
        after = []
        for item in (places.first[index], places.second[index]):
            history = torch.cat([probabilities[row, :position] @ table, table[item : item + 1]]).unsqueeze(0)
            hidden = teacher.encode(history, torch.tensor([position + 1]))[0, -1]
            after.append(torch.softmax(table @ hidden, 0))
        expected = 0.5 * sum(abs(float(a - b)) for a, b in zip(*after, strict=True))
        assert float(found[index]) == pytest.approx(expected, abs=1e-12)
        assert 0 < expected < 1


def test_the_conditional_distance_is_that_of_log_probabilities() -> None:
    items = rows().subset(CHOSEN)
    places = Places.draw(20, 3, 6, 5, at())
    logs = torch.log_softmax(items.queries @ items.keys.T, -1)
    expected = [
        abs(float(logs[row, position, first] - logs[row, position, second]))
        for row, position, first, second in zip(places.rows, places.positions, places.first, places.second, strict=True)
    ]
    assert conditional(items, places).tolist() == pytest.approx(expected)


def test_uniform_rows_have_no_conditional_distance() -> None:
    items = SoftItems(torch.zeros(3, 6, 4), torch.randn(20, 4))
    assert conditional(items, Places.draw(9, 3, 6, 20, at())).tolist() == [0.0] * 9


@pytest.mark.parametrize(
    ("form", "expected"),
    [
        ("align", 0.9 * ((2 / 3 - 0.4) ** 2 + (1 / 3 - 0.6) ** 2 + (2 - 2.0) ** 2) / 3),  # 0.9 = 3^2 / (1 + 3^2)
        ("pull", (2 * math.exp(-0.2 / 0.3) + math.exp(-1) + 6 * math.exp(-1 / 0.3)) / 3),
    ],
)
def test_the_forms_on_known_distances(form: str, expected: float) -> None:
    semantic, apart = torch.tensor([0.2, 0.3, 1.0]).double(), torch.tensor([2.0, 1.0, 6.0]).double()
    assert float(mismatch(semantic, apart, form)) == pytest.approx(expected)


def test_distances_in_proportion_are_aligned() -> None:
    semantic = torch.rand(30, generator=at()).double()
    assert float(mismatch(semantic, 7 * semantic, "align")) == pytest.approx(0, abs=1e-12)


@pytest.mark.parametrize("scale", [1e-4, 1.0, 100.0])
def test_alignment_neither_flattens_nor_sharpens(scale: float) -> None:
    semantic = torch.rand(30, generator=at()).double()
    apart = (scale * torch.rand(30, generator=at(1)).double()).requires_grad_()
    (slope,) = torch.autograd.grad(mismatch(semantic, apart, "align"), apart)
    assert float(slope.norm()) > 0
    assert float(slope.norm()) < 1  # rows that are almost uniform are not drowned in it
    assert float(slope @ apart.detach()) == pytest.approx(0, abs=1e-9 * float(slope.norm() * apart.detach().norm()))


@pytest.mark.parametrize("form", ["align", "pull"])
def test_only_the_conditional_distance_moves_the_rows(form: str) -> None:
    teacher, items = teacher_of(), rows().subset(CHOSEN)
    places = Places.draw(20, 3, 6, 5, at())
    loss = DistributionalLoss(teacher, form)
    queries = items.queries.clone().requires_grad_()

    def moved(values: Tensor) -> Tensor:
        return loss(SoftItems(values, items.keys, candidates=CHOSEN), places)

    (found,) = torch.autograd.grad(moved(queries), queries)
    with torch.no_grad():
        semantic, mean = loss.semantic(items, places), conditional(items, places).mean()

    def constant(values: Tensor) -> Tensor:
        """The same with all that is held fixed written down as numbers."""
        apart = conditional(SoftItems(values, items.keys, candidates=CHOSEN), places)
        if form == "pull":
            return (torch.exp(-semantic / semantic.median()) * apart).mean()
        return mean**2 / (1 + mean**2) * (apart / apart.mean() - semantic / semantic.mean()).square().mean()

    step = 1e-6
    direction = torch.randn(queries.shape, dtype=torch.float64, generator=at(5))
    slope = (constant(items.queries + step * direction) - constant(items.queries - step * direction)) / (2 * step)
    assert float((found * direction).sum()) == pytest.approx(float(slope), rel=1e-5)
    assert not any(value.grad is not None for value in teacher.parameters())


@pytest.mark.parametrize("form", ["align", "pull"])
def test_equal_items_give_a_finite_loss(form: str) -> None:
    zeros = torch.zeros(5, requires_grad=True)
    loss = mismatch(torch.zeros(5), zeros, form)
    loss.backward()
    assert torch.isfinite(loss)
    assert zeros.grad is not None
    assert torch.isfinite(zeros.grad).all()


def test_what_makes_no_sense_is_refused() -> None:
    with pytest.raises(OptionError, match="candidates: 1 must be 2 or more"):
        Places.draw(5, 3, 6, 1, at())
    with pytest.raises(OptionError, match="length: 1 must be 2 or more"):
        Places.draw(5, 3, 1, 5, at())
    with pytest.raises(OptionError, match="regulariser"):
        DistributionalLoss(teacher_of(), "push")
