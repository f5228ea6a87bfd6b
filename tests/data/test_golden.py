"""Artifacts of every format version load for ever: tiny ones lie in ``tests/golden``, invented numbers throughout."""

from pathlib import Path

import pytest
import torch

from recdistill.data.distilled import FORMAT_VERSION, DistilledDataset
from recdistill.data.rows import KINDS
from reference.rows import make

GOLDEN = Path(__file__).parents[1] / "golden"


@pytest.mark.parametrize("kind", sorted(KINDS))
def test_version_1_loads(kind: str) -> None:
    loaded = DistilledDataset.load(GOLDEN / "distilled-v1" / kind)
    assert loaded.manifest.format_version == 1
    expected = make(kind).tensors()
    assert loaded.rows.tensors().keys() == expected.keys()
    for name, tensor in loaded.rows.tensors().items():
        assert torch.equal(tensor, expected[name]), name


def test_every_version_has_a_golden_artifact() -> None:
    assert {f"distilled-v{version}" for version in range(1, FORMAT_VERSION + 1)} == {p.name for p in GOLDEN.iterdir()}
