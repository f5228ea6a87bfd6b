"""One seed in, independent streams out."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from recdistill.rng import Streams, generator_at

# SHA-256 of "0/init" and of "7/teacher/order", first eight bytes
KNOWN = int.from_bytes(bytes.fromhex("2a29a3e290b9715c"), "little") >> 1
KNOWN_CHILD = int.from_bytes(bytes.fromhex("f3ac2aba8e870abd"), "little") >> 1

names = st.text(min_size=1, max_size=8)


def draw(generator: torch.Generator) -> list[float]:
    return torch.rand(4, generator=generator).tolist()


@given(st.integers(0, 2**63), names)
def test_a_stream_is_a_function_of_seed_and_name(seed: int, name: str) -> None:
    one, other = Streams(seed), Streams(seed)
    assert one.integer(name) == other.integer(name)
    assert 0 <= one.integer(name) < 2**63
    assert draw(one.torch(name)) == draw(other.torch(name))
    assert one.numpy(name).random() == other.numpy(name).random()


def test_streams_differ_by_seed_name_and_stage() -> None:
    paths = [Streams(0), Streams(1), Streams(0).child("a"), Streams(0).child("b"), Streams(0).child("a").child("a")]
    drawn = [tuple(draw(path.torch(name))) for path in paths for name in ("x", "y")]
    assert len(set(drawn)) == len(drawn)
    assert Streams(0).child("a") == Streams(0, ("a",))


def test_a_stream_does_not_move_when_another_is_drawn_from() -> None:
    streams = Streams(3)
    expected = draw(streams.torch("b"))
    draw(streams.torch("a"))
    assert draw(streams.torch("b")) == expected


def test_known_values() -> None:
    """A change here changes every published number."""
    assert Streams(0).integer("init") == KNOWN
    assert Streams(7).child("teacher").integer("order") == KNOWN_CHILD


def test_steps_are_repeatable_and_differ() -> None:
    drawn = [tuple(draw(generator_at(seed, step))) for seed in (0, 1, 2**31 + 5) for step in (0, 1, 2, 10**6)]
    assert len(set(drawn)) == len(drawn)
    assert draw(generator_at(5, 9)) == draw(generator_at(5, 9))


def test_many_steps_of_one_seed_do_not_collide() -> None:
    first = {float(torch.rand(1, dtype=torch.float64, generator=generator_at(123, step))) for step in range(3000)}
    assert len(first) == 3000


def test_neighbouring_steps_are_uncorrelated() -> None:
    drawn = np.array([draw(generator_at(4, step)) for step in range(2000)])
    assert abs(drawn.mean() - 0.5) < 0.02
    assert abs(np.corrcoef(drawn[:-1, 0], drawn[1:, 0])[0, 1]) < 0.08


@pytest.mark.parametrize("kind", ["torch", "numpy"])
def test_no_global_generator_is_touched(kind: str) -> None:
    torch_before, numpy_before = torch.get_rng_state(), np.random.get_state()[1].copy()  # noqa: NPY002
    getattr(Streams(0), kind)("x")
    generator_at(0, 0)
    assert torch.equal(torch.get_rng_state(), torch_before)
    assert (np.random.get_state()[1] == numpy_before).all()  # noqa: NPY002
