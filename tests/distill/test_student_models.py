"""Every trainable model as the student of bi-level distillation, and as the teacher of TD3.

Proved in float64 on tiny models: a window of training on soft rows, judged on real prefixes with features, has one
gradient however it is computed, and it is that of finite differences. Not proved: accuracy.
"""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from recdistill.bilevel.kernels import Kernels
from recdistill.bilevel.optimizer import Adam, Student
from recdistill.bilevel.unroll import MetaResult, Unroll
from recdistill.data.batches import SoftItems, mask_of, supervise
from recdistill.data.development import Development
from recdistill.data.rows import TuckerRows
from recdistill.data.sequences import hard_batch
from recdistill.distill.base import RunContext
from recdistill.distill.soft_items import SoftReader
from recdistill.distill.student_losses import InnerSteps, RealBatch, RealLoss, SyntheticLoss
from recdistill.distill.teacher import TeacherSpec, teach
from recdistill.models import MODELS
from recdistill.models.base import Recommender
from recdistill.rng import Streams
from recdistill.training.fit import TrainingRecipe, fit
from reference.examples import EXAMPLES, TABLED, L, V, make
from reference.td3 import TINY

# the first use of forward mode in a process compiles some of its formulas with a part of torch that torch deprecates
pytestmark = pytest.mark.filterwarnings("ignore:.torch.jit.script. is deprecated:DeprecationWarning")

LENGTH, ROWS, BATCH = L + 1, 5, 3
STEPS, WINDOW = 5, 3
ADAM = Adam(learning_rate=0.01, weight_decay=1e-3)

every = pytest.mark.parametrize("name", TABLED)
every_objective = pytest.mark.parametrize("objective", ["all", "last_and_middle"])


def soft_rows() -> SoftItems:
    generator = torch.Generator().manual_seed(2)
    queries = torch.randn(ROWS, LENGTH, 3, generator=generator, dtype=torch.float64)
    return SoftItems(queries, torch.randn(V, 3, generator=generator, dtype=torch.float64))


def judge(model: Recommender) -> RealBatch:
    """Return the judgement on four real prefixes, aligned with random features."""
    generator = torch.Generator().manual_seed(3)
    ids, lengths = torch.randint(1, V + 1, (4, LENGTH), generator=generator), torch.tensor([5, 1, 3, 4])
    batch = supervise(hard_batch(ids * mask_of(lengths + 1, LENGTH), lengths), "last")
    features = torch.randn(4, model.item_table.shape[1], generator=generator, dtype=torch.float64)
    return RealBatch(RealLoss(model, 0.7, "mean"), batch, features, part=3)


def meta_gradient(
    name: str,
    objective: str,
    estimator: Unroll,
    items: SoftItems,
    *,
    learners: int | None = None,
    dense_bytes: int = 2**20,
) -> tuple[MetaResult, Tensor]:
    """Return what the estimator found, and the derivative in the queries."""
    model, queries = make(name), items.queries.detach().requires_grad_()
    reader = SoftReader.choose(items, model.item_table_name, BATCH, dense_bytes)
    loss = SyntheticLoss(model, LENGTH, objective, 1, reader.reads, reader.sizes)
    read = reader.read(replace(items, queries=queries))
    starts = [Student.of(dict(make(name, seed).named_parameters())) for seed in range(learners or 1)]
    student = starts[0] if learners is None else Student.stack(starts)
    result = estimator(InnerSteps(loss, STEPS - WINDOW, 11, 23), judge(model), student, read, STEPS)
    (slope,) = torch.autograd.grad(list(read.values()), queries, [result.gradient[key] for key in read])
    return result, slope


FORWARD = "forward_over_reverse"


def unroll(mode: str = "stepwise", product: str = "double_backward", *, record: bool = False) -> Unroll:
    return Unroll(optimizer=ADAM, window=WINDOW, mode=mode, kernels=Kernels(product=product, record=record))


def same(found: tuple[MetaResult, Tensor], expected: tuple[MetaResult, Tensor]) -> None:
    assert expected[1].abs().max() > 1e-5
    torch.testing.assert_close(found[0].outer_loss, expected[0].outer_loss, rtol=1e-10, atol=0)
    torch.testing.assert_close(found[0].student.weights, expected[0].student.weights, rtol=1e-9, atol=1e-11)
    torch.testing.assert_close(found[1], expected[1], rtol=1e-6, atol=1e-9 * float(expected[1].norm()))


OTHERS: dict[str, Unroll] = {"reversible": unroll("reversible"), "forward over reverse": unroll(product=FORWARD)}


@every
@every_objective
@pytest.mark.parametrize("dense_bytes", [2**20, 0], ids=["dense", "tiled"])
def test_the_gradient_of_a_window_is_that_of_its_tape(name: str, objective: str, dense_bytes: int) -> None:
    expected = meta_gradient(name, objective, unroll("taped"), soft_rows())
    same(meta_gradient(name, objective, unroll(), soft_rows(), dense_bytes=dense_bytes), expected)


@every
@every_objective
@pytest.mark.parametrize("estimator", OTHERS.values(), ids=OTHERS)
def test_every_way_gives_the_gradient(name: str, objective: str, estimator: Unroll) -> None:
    expected = meta_gradient(name, objective, unroll(), soft_rows())
    same(meta_gradient(name, objective, estimator, soft_rows()), expected)


@every
@every_objective
def test_two_learners_at_once_give_the_gradient_of_their_tape(name: str, objective: str) -> None:
    expected = meta_gradient(name, objective, unroll("taped"), soft_rows(), learners=2)
    same(meta_gradient(name, objective, unroll(), soft_rows(), learners=2), expected)


@pytest.mark.slow
@pytest.mark.parametrize(("name", "objective"), [("bert4rec", "all"), ("narm", "last_and_middle")])
def test_losses_that_are_recorded_give_the_gradient(name: str, objective: str) -> None:
    expected = meta_gradient(name, objective, unroll(), soft_rows(), learners=2)
    same(meta_gradient(name, objective, unroll(record=True), soft_rows(), learners=2), expected)


@every
@every_objective
def test_the_gradient_of_a_window_equals_finite_differences(name: str, objective: str) -> None:
    items, whole = soft_rows(), Unroll(optimizer=ADAM, window=STEPS)
    _, gradient = meta_gradient(name, objective, whole, items)
    direction = torch.randn(gradient.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(5))

    def outer(step: float) -> float:
        moved = replace(items, queries=items.queries + step * direction)
        return float(meta_gradient(name, objective, whole, moved)[0].outer_loss)

    expected = (outer(1e-5) - outer(-1e-5)) / 2e-5
    assert abs(expected) > 1e-5
    assert float((gradient * direction).sum()) == pytest.approx(expected, rel=1e-3)


@every
def test_the_meta_gradient_reaches_every_row(name: str) -> None:
    _, slope = meta_gradient(name, "all", unroll(), soft_rows())
    assert (slope.abs().amax((1, 2)) > 1e-8).all()


@every
def test_td3_distils_with_any_model(name: str, train: Development, tmp_path: Path) -> None:
    """From the teacher's training to rows that another student is trained on."""
    recipe = TrainingRecipe(epochs=3, steps_per_epoch=5, batch_size=16, learning_rate=0.01, patience=3)
    spec = TeacherSpec(model=name, config=EXAMPLES[name], max_seq_len=8, recipe=recipe)
    teacher, streams = teach(train, spec, 0, tmp_path), Streams(0)
    unroll_settings = {"pool": (3, 3), "max_inner_steps": 5, "window": 5, "inner_learning_rate": 0.03}
    settings = replace(TINY, outer_batch_size=40, outer_learning_rate=0.1, **unroll_settings)
    summary = settings.distill(train, teacher, None, streams, RunContext())
    assert isinstance(summary.rows, TuckerRows)
    outer = [record["outer_loss"] for record in summary.trace]
    assert len(outer) == 3
    assert outer[-1] < outer[0] - 5e-3
    assert summary.item_factor.shape == (train.num_items, EXAMPLES[name]["embedding_dim"])
    probabilities = summary.rows.items().dense().probabilities
    assert (probabilities - 1 / train.num_items).abs().max() > 1e-3  # they have moved from where they start
    student = MODELS[name](train.num_items, 8, **EXAMPLES[name], generator=torch.Generator().manual_seed(1))
    student.load_item_table(summary.item_factor, freeze=False)
    whole = summary.rows.batch(torch.arange(4))
    before = student.loss(whole).item()
    fit(student, summary.rows, TrainingRecipe(epochs=5, learning_rate=0.01), streams)
    assert student.loss(whole).item() < before
