"""A straight line run once on a tiny generated log: the folders that the other tests read, damage and misuse."""

from pathlib import Path

import pytest
from command_line import COMMANDS, Line, call

from reference.logs import write_ring


@pytest.fixture(scope="session")
def line(tmp_path_factory: pytest.TempPathFactory) -> Line:
    folder = tmp_path_factory.mktemp("line")
    write_ring(folder / "log.csv")
    write_ring(folder / "other.csv", seed=1)
    printed = {}
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setenv("RECDISTILL_CACHE", str(folder / "cache"))
        for name, arguments in COMMANDS.items():
            result = call(*arguments, "--json")
            assert result.code == 0, result.err
            printed[name] = result.json
    return Line(folder, printed)


@pytest.fixture
def here(line: Line, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty current folder from which the folders of the line are reached by name."""
    monkeypatch.setenv("RECDISTILL_CACHE", str(line["cache"]))
    work = tmp_path / "work"
    work.mkdir()
    monkeypatch.chdir(work)
    return work
