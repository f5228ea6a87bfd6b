"""Soft items as linear maps of the item table, dense and in tiles, against the formula and against each other.

Proved in float64: values and derivatives with and without an axis of learners, that both derivatives add to what is
there, which of the two ways is chosen, and how rows are cut into minibatches. Speed and memory are not tested.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.autograd import gradcheck, gradgradcheck

from recdistill.bilevel.losses import LinearRead
from recdistill.bilevel.optimizer import Layout, Tensors
from recdistill.data.batches import SoftItems
from recdistill.data.rows import TuckerRows
from recdistill.distill.soft_items import DenseRead, SoftReader, TiledRead

B, T, V, R, D = 3, 4, 7, 2, 5
KINDS = ("dense", "tiled")
every_kind = pytest.mark.parametrize("kind", KINDS)
every_first_id = pytest.mark.parametrize("first_id", [1, 0])
every_count = pytest.mark.parametrize("learners", [None, 1, 3])


@pytest.fixture(params=[1, 3, 512], autouse=True)
def items_per_tile(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("recdistill.data.soft_items.tile_for", lambda rows, itemsize: request.param)
    monkeypatch.setattr("recdistill.distill.soft_items.COLUMNS", request.param)


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def close(found: Any, expected: Any) -> None:
    torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-10)


@dataclass(frozen=True)
class Case:
    """A read, its synthetic tensors, and the distributions as a formula of them."""

    read: DenseRead | TiledRead
    synthetic: Tensors
    probabilities: Callable[[Tensors], Tensor]

    def formula(self, synthetic: Tensors, table: Tensor) -> Tensor:
        items = table[..., self.read.first_id :, :]
        return torch.einsum("btv,...vd->...btd", self.probabilities(synthetic), items)


def case(kind: str, first_id: int) -> Case:
    """Return a read beside a tensor that it has nothing to do with; its factors are of no particular scale."""
    columns, other = V + 1 - first_id, {"other": normal(B, T, seed=9)}
    if kind == "dense":
        read = DenseRead("table", "shares", first_id)
        return Case(read, {"shares": normal(B, T, columns), **other}, lambda tensors: tensors["shares"])
    keys = normal(columns, R, seed=1)
    tensors = {"asked": normal(B, T, R), "total": normal(B, T, seed=2), **other}
    return Case(
        TiledRead("table", "asked", "total", first_id, keys),
        tensors,
        lambda tensors: torch.exp(tensors["asked"] @ keys.T - tensors["total"].unsqueeze(-1)),
    )


def tables(learners: int | None, seed: int = 3) -> Tensor:
    """Return an item table, or several, as the engine has it: a view of flat weights."""
    layout = Layout((("before", torch.Size([2])), ("table", torch.Size([V + 1, D])), ("after", torch.Size([3]))))
    axes = () if learners is None else (learners,)
    return layout.view(normal(*axes, layout.bounds[-1], seed=seed), "table")


def bars(learners: int | None, strided: bool = False, seed: int = 4) -> Tensor:
    axes = () if learners is None else (learners,)
    return normal(*axes, D, T, B, seed=seed).transpose(-1, -3) if strided else normal(*axes, B, T, D, seed=seed)


def leaves(tensors: Tensors) -> Tensors:
    return {name: value.clone().requires_grad_() for name, value in tensors.items()}


@every_kind
@every_first_id
@every_count
def test_the_value_and_its_gradients_are_those_of_the_formula(kind: str, first_id: int, learners: int | None) -> None:
    made = case(kind, first_id)
    assert isinstance(made.read, LinearRead)
    results = []
    for apply in (made.read.apply, made.formula):
        synthetic, table = leaves(made.synthetic), tables(learners).clone().requires_grad_()
        value = apply(synthetic, table)
        inputs = [table, *(tensor for name, tensor in synthetic.items() if name != "other")]
        results.append((value.detach(), *torch.autograd.grad((value * bars(learners)).sum(), inputs)))
    assert results[0][0].shape == bars(learners).shape
    close(*results)


@every_kind
@pytest.mark.parametrize("learners", [None, 2])
def test_the_value_can_be_differentiated_twice(kind: str, learners: int | None) -> None:
    made = case(kind, 1)
    names = [name for name in made.synthetic if name != "other"]

    def value(table: Tensor, *tensors: Tensor) -> Tensor:
        return made.read.apply(dict(zip(names, tensors, strict=True)), table)

    inputs = tuple(
        tensor.clone().requires_grad_() for tensor in (tables(learners), *(made.synthetic[name] for name in names))
    )
    assert gradcheck(value, inputs, fast_mode=True)
    assert gradgradcheck(value, inputs, fast_mode=True)


@every_kind
@every_first_id
@every_count
@pytest.mark.parametrize("strided", [False, True])
def test_the_transpose_is_added_to_what_is_there(kind: str, first_id: int, learners: int | None, strided: bool) -> None:
    made, bar = case(kind, first_id), bars(learners, strided)
    table = tables(learners).clone().requires_grad_()
    (expected,) = torch.autograd.grad((made.formula(made.synthetic, table) * bar).sum(), table)
    assert expected.abs().max() > 0.1
    into = tables(learners, seed=7)
    before = into.clone()
    made.read.transpose(made.synthetic, bar, into)
    close(into, before + expected)
    if first_id == 1:
        assert torch.equal(into[..., 0, :], before[..., 0, :])  # padding is no column


@every_kind
@every_first_id
@every_count
@pytest.mark.parametrize("count", [1, 3])
@pytest.mark.parametrize("strided", [False, True])
def test_the_derivative_in_the_synthetic_tensors_is_added_to_what_is_there(
    kind: str, first_id: int, learners: int | None, count: int, strided: bool
) -> None:
    made, synthetic = case(kind, first_id), leaves(case(kind, first_id).synthetic)
    pairs = [(bars(learners, strided, seed=10 + index), tables(learners, seed=20 + index)) for index in range(count)]
    total = torch.stack([(made.formula(synthetic, table) * bar).sum() for bar, table in pairs]).sum()
    names = [name for name in synthetic if name != "other"]
    expected = dict(zip(names, torch.autograd.grad(total, [synthetic[name] for name in names]), strict=True))
    into = {name: normal(*value.shape, seed=30) for name, value in synthetic.items()}
    before = {name: value.clone() for name, value in into.items()}
    made.read.accumulate(made.synthetic, pairs, into)
    assert into.keys() == before.keys()
    assert torch.equal(into.pop("other"), before["other"])
    close(into, {name: before[name] + slope for name, slope in expected.items()})


@every_kind
@every_first_id
@every_count
def test_the_transpose_is_the_adjoint(kind: str, first_id: int, learners: int | None) -> None:
    made, table, bar = case(kind, first_id), tables(learners), bars(learners)
    into = torch.zeros_like(table)
    made.read.transpose(made.synthetic, bar, into)
    product = (made.read.apply(made.synthetic, table) * bar).sum()
    assert product.abs() > 0.1
    close((table * into).sum(), product)


@every_kind
@every_first_id
def test_each_learner_reads_with_its_own_table(kind: str, first_id: int) -> None:
    made, table, bar = case(kind, first_id), tables(3), bars(3)
    into = torch.zeros_like(table)
    made.read.transpose(made.synthetic, bar, into)
    close(made.read.apply(made.synthetic, table), torch.stack([made.read.apply(made.synthetic, one) for one in table]))
    for index in range(3):
        alone = torch.zeros_like(table[index])
        made.read.transpose(made.synthetic, bar[index], alone)
        close(into[index], alone)


def soft(first_id: int = 1, rows: int = 5, dtype: torch.dtype = torch.float64) -> SoftItems:
    return SoftItems(normal(rows, T, R).to(dtype), normal(V + 1 - first_id, R, seed=1).to(dtype), first_id)


def readers(items: SoftItems, batch_size: int = 2) -> dict[str, SoftReader]:
    made = {
        kind: SoftReader.choose(items, "table", batch_size, size) for kind, size in (("dense", 2**20), ("tiled", 0))
    }
    assert {kind: reader.dense for kind, reader in made.items()} == {"dense": True, "tiled": False}
    return made


@every_first_id
@every_count
def test_dense_and_tiled_readers_give_the_same_numbers(first_id: int, learners: int | None) -> None:
    found = []
    for reader in readers(soft(first_id)).values():
        queries = soft(first_id).queries.requires_grad_()
        tensors = reader.read(SoftItems(queries, soft(first_id).keys, first_id))
        synthetic = {name: value.detach() for name, value in tensors.items()}
        into, derivative = torch.zeros_like(tables(learners)), {n: torch.zeros_like(t) for n, t in synthetic.items()}
        values = []
        for index, (read, size) in enumerate(zip(reader.reads, reader.sizes, strict=True)):
            bar = bars(learners, seed=index)[..., :size, :, :]
            values.append(read.apply(synthetic, tables(learners)))
            read.transpose(synthetic, bar, into)
            read.accumulate(synthetic, [(bar, tables(learners)), (2 * bar, tables(learners, seed=8))], derivative)
        torch.autograd.backward(list(tensors.values()), [derivative[name] for name in tensors])
        assert queries.grad is not None
        found.append((torch.cat(values, dim=-3), into, queries.grad))
    assert all(part.abs().max() > 0.1 for part in found[0])
    close(*found)


@every_kind
@every_first_id
@pytest.mark.parametrize(
    ("rows", "batch_size", "sizes"), [(5, 2, (2, 2, 1)), (4, 2, (2, 2)), (3, 7, (3,)), (1, 1, (1,))]
)
def test_rows_are_read_in_minibatches_of_fixed_order(
    kind: str, first_id: int, rows: int, batch_size: int, sizes: tuple[int, ...]
) -> None:
    items = soft(first_id, rows)
    reader = readers(items, batch_size)[kind]
    assert reader.sizes == sizes
    assert len(reader.reads) == len(sizes)
    assert reader.first_id == first_id
    assert {read.weight for read in reader.reads} == {"table"}
    synthetic, table = reader.read(items), tables(None)
    whole = items.dense().probabilities @ table[first_id:]
    for read, part in zip(reader.reads, whole.split(list(sizes)), strict=True):
        close(read.apply(synthetic, table), part)
    assert len(synthetic) == len(sizes) * (1 if kind == "dense" else 2)  # nothing that no minibatch reads


@every_kind
@every_first_id
def test_what_is_read_is_connected_to_the_factors(kind: str, first_id: int) -> None:
    item_factor, shapes = normal(V, R, seed=1), ((2, 2, R), (3, 2), (T, 2))
    reader = None

    def value(*factors: Tensor) -> Tensor:
        items = TuckerRows(*factors, item_factor, pad_column=first_id == 0).items()
        nonlocal reader
        reader = reader or readers(items)[kind]  # chosen once, used for all that follow
        synthetic = reader.read(items)
        return torch.cat([read.apply(synthetic, tables(None)) for read in reader.reads])

    factors = tuple(normal(*shape, seed=seed).requires_grad_() for seed, shape in enumerate(shapes))
    assert gradcheck(value, factors, fast_mode=True)


@pytest.mark.parametrize(("dtype", "itemsize"), [(torch.float32, 4), (torch.float64, 8)])
@every_first_id
def test_distributions_are_written_out_while_they_fit(dtype: torch.dtype, itemsize: int, first_id: int) -> None:
    items = soft(first_id, dtype=dtype)
    size = 5 * T * (V + 1 - first_id) * itemsize
    assert items.dense().probabilities.nbytes == size
    fits, does_not = (SoftReader.choose(items, "table", 2, limit) for limit in (size, size - 1))
    assert fits.dense
    assert all(isinstance(read, DenseRead) for read in fits.reads)
    assert not does_not.dense
    assert all(isinstance(read, TiledRead) for read in does_not.reads)


@every_kind
def test_reads_of_the_same_tensors_are_equal(kind: str) -> None:
    """Learners that are trained together must read the same, and no table of keys is compared for it."""
    one, other = (readers(soft())[kind].reads for _ in range(2))
    assert one == other
    assert len(set(one)) == 3
    assert {hash(read) for read in one} == {hash(read) for read in other}
