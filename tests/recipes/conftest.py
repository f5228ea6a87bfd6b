"""The generated log as a dataset of the grids."""

from pathlib import Path

import pytest
from tiny_grid import tiny

from recdistill.demo import generate
from recipes.datasets import Dataset


@pytest.fixture(scope="session")
def raw(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The generated log."""
    return generate(tmp_path_factory.mktemp("raw") / "demo", 0)


@pytest.fixture
def dataset(raw: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Dataset:
    """The demo's log as a dataset of the grids; everything that is computed lies in the test's own folder."""
    monkeypatch.setenv("RECDISTILL_DATA", str(raw.parent))
    return tiny(tmp_path / "runs")
