"""The tables in the pages are those that the results give, and the results have the house's shape."""

import json
import math

import pytest

from recipes.record import RESULTS, ROOT
from recipes.tables import MARK, PAGES, TABLES, rendered


@pytest.mark.parametrize("page", PAGES)
def test_page_agrees_with_results(page: str) -> None:
    text = (ROOT / page).read_text(encoding="utf-8")
    assert rendered(ROOT / page) == text, "run: make tables"


def test_every_table_stands_somewhere() -> None:
    found = {match["name"] for page in PAGES for match in MARK.finditer((ROOT / page).read_text(encoding="utf-8"))}
    assert found == set(TABLES)


@pytest.mark.parametrize("path", sorted(RESULTS.glob("*.json")), ids=lambda path: path.stem)
def test_result_has_the_shape_of_the_protocol(path) -> None:
    result = json.loads(path.read_text(encoding="utf-8"))
    assert result["name"] == path.stem
    assert {"command", "commit", "created", "machine", "versions", "dataset", "rows", "targets"} <= result.keys()
    assert {"cpu", "cores", "gpu"} <= result["machine"].keys()
    assert {"users", "items", "interactions", "train_bytes", "hash"} <= result["dataset"].keys()
    for row in result["rows"]:
        assert {"method", "model", "budget", "items", "ranking", "bytes", "metrics", "seconds", "peak_mb"} <= row.keys()
        for name, value in row["metrics"].items():
            most = math.inf if name == "log_loss" else 1
            assert 0 <= value["low"] <= value["mean"] <= value["high"] <= most
            assert value["mean"] == pytest.approx(sum(value["values"]) / len(value["values"]), abs=2e-5)
    for target in result["targets"]:
        assert (target["met"] is None) == (target["measured"] is None)
        assert target["met"] in (True, False, None)
        assert {"what", "published", "measured"} <= target.keys()
