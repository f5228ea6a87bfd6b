"""Farzi: where it starts, that its gradient is the derivative of what it says, and that it learns.

What it shares with TD3 (losses, pool, judge, resume) is tested there and in ``test_methods.py``. Not proved: accuracy
on real data.
"""

import math
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
import torch

from recdistill.bilevel.folded_adam import FoldedAdam
from recdistill.bilevel.optimizer import Adam, Student, Tensors
from recdistill.data.development import Development
from recdistill.data.rows import LowRankRows
from recdistill.distill.base import Engine, RunContext
from recdistill.distill.bilevel_sequences import SequenceTask
from recdistill.distill.farzi import Farzi
from recdistill.distill.synthetic import LowRankSequences
from recdistill.distill.td3 import TD3
from recdistill.errors import OptionError
from recdistill.training.trajectory import Trajectory
from reference.td3 import TINY as TINY_TD3
from reference.td3 import killer, same, start_of, stepped, summary, task_of
from reference.tiny import NUM_ITEMS

# the first use of forward mode in a process compiles some of its formulas with a part of torch that torch deprecates
pytestmark = pytest.mark.filterwarnings("ignore:.torch.jit.script. is deprecated:DeprecationWarning")

SHARED = {
    name: getattr(TINY_TD3, name)
    for name in asdict(Farzi())
    if name in asdict(TINY_TD3) and name not in ("inner_objective", "feature_weight")
}
TINY = Farzi(**SHARED | {"latent_dim": 3})


def made(generator: torch.Generator, **changes: Any) -> LowRankSequences:
    options = {"temperature": 1.0, "learn_temperature": False} | changes
    return LowRankSequences(40, 6, 5, 300, **options, generator=generator)


def test_the_first_rows_are_nearly_uniform(generator: torch.Generator) -> None:
    synthetic = made(generator)
    probabilities = synthetic.rows().items().dense().probabilities
    assert probabilities.shape == (40, 6, 300)
    assert (probabilities * 300 - 1).abs().max() < 0.5
    assert {name: tuple(value.shape) for name, value in synthetic.named_parameters()} == {
        "latent": (40, 6, 5),
        "decoder": (300, 5),
    }


def test_both_are_uniform_within_their_fan_in(generator: torch.Generator) -> None:
    synthetic = made(generator)
    for value, fan_in in ((synthetic.latent, 6 * 5), (synthetic.decoder, 300)):
        bound = math.sqrt(6 / fan_in)
        assert float(value.detach().abs().max()) == pytest.approx(bound, rel=0.02)
        assert float(value.detach().std()) == pytest.approx(bound / math.sqrt(3), rel=0.05)
        assert abs(float(value.detach().mean())) < 0.1 * bound


def test_the_fan_in_is_that_of_torch(generator: torch.Generator) -> None:
    """As for tensors of the shapes (N, T, L) and (L, V)."""
    for shape, value in (((40, 6, 5), made(generator).latent), ((5, 300), made(generator).decoder)):
        theirs = torch.nn.init.kaiming_uniform_(torch.empty(shape), generator=generator)
        assert float(value.detach().abs().max()) == pytest.approx(float(theirs.abs().max()), rel=0.02)


@pytest.mark.parametrize("learn", [False, True])
def test_the_temperature_divides_the_logits_and_may_be_learnt(learn: bool, generator: torch.Generator) -> None:
    synthetic = made(generator, temperature=0.25, learn_temperature=learn)
    found = synthetic.rows().items().dense().probabilities
    logits = synthetic.latent @ synthetic.decoder.T
    torch.testing.assert_close(found, torch.softmax(4 * logits, -1))
    assert ("log_temperature" in dict(synthetic.named_parameters())) is learn
    assert float(synthetic.frozen_rows().tensors()["temperature"]) == pytest.approx(0.25)
    assert ("log_temperature" in synthetic.state_dict()) is learn


def test_frozen_rows_are_a_copy(generator: torch.Generator) -> None:
    synthetic = made(generator)
    frozen = synthetic.frozen_rows()
    assert isinstance(frozen, LowRankRows)
    before = frozen.decoder.clone()
    with torch.no_grad():
        synthetic.decoder += 1
    assert torch.equal(frozen.decoder, before)
    assert not frozen.decoder.requires_grad
    assert synthetic.rows().decoder is synthetic.decoder


def test_the_baseline_is_td3_without_its_objective() -> None:
    ours, theirs = asdict(Farzi()), asdict(TD3())
    differing = {name for name in ours.keys() & theirs.keys() if ours[name] != theirs[name]}
    assert differing == {"inner_objective", "feature_weight"}
    assert (Farzi().inner_objective, Farzi().feature_weight) == ("last", 0.0)
    assert (Farzi().latent_dim, Farzi().temperature) == (32, 1.0)


def test_with_the_objective_of_td3_only_the_parametrisation_differs() -> None:
    fair = Farzi.with_td3_objective(num_rows=7, temperature=2.0)
    assert isinstance(fair, Farzi)
    assert (fair.num_rows, fair.temperature) == (7, 2.0)
    ours, theirs = asdict(fair), asdict(TD3(num_rows=7))
    assert all(ours[name] == theirs[name] for name in ours.keys() & theirs.keys())
    assert Farzi.with_td3_objective(feature_weight=0.5).feature_weight == 0.5


def double(settings: Farzi, engine: Engine, train: Development, teacher: Trajectory) -> tuple[SequenceTask, Student]:
    """Return a task in float64 with rows far from uniform, and a student to start from."""
    task = task_of(settings, train, teacher, RunContext(engine=engine))
    task.synthetic.double()
    task.model.double()
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for value in task.synthetic.parameters():
            value.copy_(torch.randn(value.shape, dtype=torch.float64, generator=generator) * 0.7)
    student = Student.of({name: value.double() for name, value in teacher.weights(2).items()})
    features = None if task.features is None else task.features.double()
    return replace(task, features=features), student


def meta_gradient(task: SequenceTask, student: Student) -> tuple[float, Tensors]:
    result = task.outer_step(0, student, torch.arange(0, 60, 3))
    return float(result.outer_loss), result.gradient


CHANGES: dict[str, dict[str, Any]] = {
    "baseline": {},
    "objective of td3": {"inner_objective": "last_and_middle", "feature_weight": 1.0},
    "cold": {"temperature": 0.5},
    "learnt temperature": {"temperature": 2.0, "learn_temperature": True},
}


@pytest.mark.parametrize("changes", CHANGES.values(), ids=CHANGES)
def test_the_gradient_of_an_outer_step_equals_finite_differences(
    changes: dict[str, Any], train: Development, teacher: Trajectory
) -> None:
    settings = replace(TINY, max_inner_steps=3, window=3, **changes)
    task, student = double(settings, Engine(), train, teacher)
    before = {name: value.detach().clone() for name, value in task.synthetic.named_parameters()}

    def outer(moved: Tensors) -> float:
        task.synthetic.load_state_dict(before | moved)
        return meta_gradient(task, student)[0]

    _, gradient = meta_gradient(task, student)
    assert gradient.keys() == before.keys()
    assert ("log_temperature" in gradient) is settings.learn_temperature
    generator = torch.Generator().manual_seed(2)
    for name, slope in gradient.items():
        direction = torch.randn(slope.shape, dtype=torch.float64, generator=generator)
        sides = [outer({name: before[name] + sign * 1e-6 * direction}) for sign in (1, -1)]
        expected = (sides[0] - sides[1]) / 2e-6
        assert abs(expected) > 1e-6
        assert float((slope * direction).sum()) == pytest.approx(expected, rel=2e-4, abs=1e-7)


ENGINES = {
    "taped": Engine(mode="taped"),
    "reversible": Engine(mode="reversible"),
    "forward over reverse": Engine(product="forward_over_reverse"),
}


@pytest.mark.parametrize("engine", ENGINES.values(), ids=ENGINES)
def test_every_engine_gives_the_same_gradient(engine: Engine, train: Development, teacher: Trajectory) -> None:
    settings = replace(TINY, max_inner_steps=5, window=3)
    loss, expected = meta_gradient(*double(settings, Engine(), train, teacher))
    found_loss, found = meta_gradient(*double(settings, engine, train, teacher))
    assert found_loss == pytest.approx(loss, rel=1e-10)
    for name, slope in expected.items():
        torch.testing.assert_close(found[name], slope, rtol=1e-7, atol=1e-9 * float(slope.norm()))


def test_distributions_that_do_not_fit_are_an_error(train: Development, teacher: Trajectory) -> None:
    needed = 4 * 6 * NUM_ITEMS * 4
    assert task_of(TINY, train, teacher, RunContext(engine=Engine(dense_bytes=needed))).reader.dense
    with pytest.raises(OptionError, match=r"dense_bytes: \d+ .*4x6 over 20 items.*farzi cannot read them in tiles"):
        summary(TINY, train, teacher, RunContext(engine=Engine(dense_bytes=needed - 1)))


@pytest.mark.parametrize("settings", [TINY, replace(TINY_TD3, rank=3)], ids=["farzi", "td3"])
def test_the_folded_adjoint_changes_long_windows_only(
    settings: Farzi | TD3, train: Development, teacher: Trajectory
) -> None:
    def slopes(window: int, adjoint: str) -> torch.Tensor:
        changed = replace(settings, window=window, max_inner_steps=window, adjoint=adjoint)
        result = task_of(changed, train, teacher).outer_step(0, Student.of(teacher.weights(2)), torch.arange(60))
        return torch.cat([slope.flatten() for slope in result.gradient.values()])

    exact, folded = slopes(1, "exact"), slopes(1, "folded")
    torch.testing.assert_close(folded, exact, rtol=1e-4, atol=1e-5 * float(exact.norm()))
    exact, folded = slopes(8, "exact"), slopes(8, "folded")
    assert (folded - exact).norm() > 0.01 * exact.norm()


def test_the_folded_adjoint_is_chosen_by_name(train: Development, teacher: Trajectory) -> None:
    assert type(task_of(TINY, train, teacher).estimator.optimizer) is Adam
    folded = task_of(replace(TINY, adjoint="folded"), train, teacher).estimator.optimizer
    assert folded == FoldedAdam(learning_rate=0.005, weight_decay=5e-5)
    with pytest.raises(OptionError, match="adjoint: 'folded' has no effect on a taped window"):
        summary(replace(TINY, adjoint="folded"), train, teacher, RunContext(engine=Engine(mode="taped")))


def test_the_outer_loss_falls_and_the_decoder_moves(train: Development, teacher: Trajectory) -> None:
    settings = replace(
        TINY,
        num_rows=8,
        latent_dim=4,
        epochs=12,
        outer_batch_size=1000,
        outer_learning_rate=0.2,
        synthetic_batch_size=8,
        max_inner_steps=8,
        window=8,
        pool=(0, 0),
        inner_learning_rate=0.03,
        inner_objective="all",
    )
    before = task_of(settings, train, teacher).synthetic.frozen_rows().tensors()["decoder"]
    found = summary(settings, train, teacher)
    losses = [record["outer_loss"] for record in found.trace]
    assert losses[-1] < losses[0] - 0.2
    assert isinstance(found.rows, LowRankRows)
    assert (found.rows.decoder - before).norm() > 0.1 * before.norm()
    assert found.rows.items().dense().probabilities.max() > 0.08  # no longer uniform


@pytest.mark.parametrize("learn", [False, True])
def test_a_learnt_temperature_moves_and_another_does_not(learn: bool, train: Development, teacher: Trajectory) -> None:
    task = task_of(replace(TINY, learn_temperature=learn, temperature=0.5), train, teacher)
    stepped(task, start_of(task), task.start(0), torch.arange(50))
    found = float(task.synthetic.frozen_rows().tensors()["temperature"])
    assert (found != pytest.approx(0.5, abs=1e-6)) is learn
    assert found > 0


def test_a_killed_run_continues_to_the_same_bits(train: Development, teacher: Trajectory, tmp_path: Path) -> None:
    settings = replace(TINY, learn_temperature=True)
    whole = summary(settings, train, teacher)
    state = tmp_path / "state"
    with pytest.raises(KeyboardInterrupt):
        summary(settings, train, teacher, RunContext(state=state, progress=killer(6)))
    assert state.exists()
    again = summary(settings, train, teacher, RunContext(state=state))
    assert same(again, whole)
    assert again.trace == whole.trace


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("latent_dim", 0),
        ("temperature", 0.0),
        ("temperature", -1.0),
        ("window", 0),
        ("adjoint", "fold"),
        ("start", "warm"),
    ],
)
def test_options_out_of_range_are_refused(option: str, value: Any) -> None:
    broken = replace(TINY)
    object.__setattr__(broken, option, value)  # past the type checker, which only runs in tests
    with pytest.raises(OptionError, match=option):
        broken.__post_init__()
