"""The published figures are whole and consistent, and the rule of matching is the stated one."""

import pytest

from recipes import parity
from recipes.collect import Row
from recipes.datasets import DATASETS
from recipes.published import (
    ABLATION,
    BASELINES,
    COST,
    MAIN,
    METRICS,
    TRANSFER,
    Figure,
    figure,
    matches,
    of_table_2,
    of_table_3,
    table,
)


@pytest.mark.parametrize("text", [MAIN, BASELINES, TRANSFER, COST, ABLATION])
def test_every_row_of_a_table_has_every_column(text: str) -> None:
    header, *lines = text.splitlines()
    assert {line.count(",") for line in lines} == {header.count(",")}
    assert len({tuple(line.split(",")[:3]) for line in lines}) == len(lines)


def test_figures_grow_with_the_cutoff_and_order_as_metrics_do() -> None:
    for row in table(MAIN):
        found = {name: figure(row[name]) for name in METRICS}
        for metric in ("HR", "NDCG", "MRR"):
            values = [made.mean for k in (5, 10, 20) if (made := found[f"{metric}@{k}"]) is not None]
            assert values == sorted(values)
        for k in (5, 10, 20):
            values = [made.mean for metric in ("MRR", "NDCG", "HR") if (made := found[f"{metric}@{k}"]) is not None]
            assert values == sorted(values)


def test_a_figure_is_a_fraction_with_its_spread() -> None:
    assert figure("45.40;.76") == Figure(pytest.approx(0.454), pytest.approx(0.0076))
    assert figure("45.40") == Figure(pytest.approx(0.454), 0.0)
    assert figure("") is None


def test_figures_are_found_by_dataset_method_and_budget() -> None:
    assert of_table_2("ml-100k", "td3", "30x50")["HR@10"].mean == pytest.approx(0.6614)
    assert of_table_2("epinions", "td3", "20x20").keys().isdisjoint({"HR@10", "HR@20"})
    assert of_table_3("ml-100k", "random", "30x50")["HR@10"] == Figure(pytest.approx(0.1085), pytest.approx(0.023))
    assert of_table_3("ml-1m", "farzi", "200x50")["NDCG@20"].mean == pytest.approx(0.2441)
    assert of_table_2("ml-100k", "td3", "31x50") == {}
    assert of_table_3("ml-100k", "td3", "50x50") == {}


def test_every_budget_of_an_experiment_is_published() -> None:
    for dataset in DATASETS.values():
        for budget in dataset.budgets:
            assert of_table_2(dataset.published, "td3", f"{budget[0]}x{budget[1]}"), (dataset.name, budget)
        assert of_table_3(dataset.published, "farzi", f"{dataset.compared[0]}x{dataset.compared[1]}")


@pytest.mark.parametrize(
    ("values", "target", "met"),
    [
        ([0.50, 0.50], Figure(0.51, 0.0), True),  # a point
        ([0.50, 0.50], Figure(0.5101, 0.0), False),
        ([0.50, 0.50], Figure(0.54, 0.02), True),  # two of their deviations
        ([0.50, 0.50], Figure(0.5401, 0.02), False),
        ([0.48, 0.50, 0.52], Figure(0.54, 0.0), True),  # two of ours, which is .02
        ([0.48, 0.50, 0.52], Figure(0.5401, 0.0), False),
        ([0.48, 0.50, 0.52], Figure(0.55, 0.015), True),  # both: .025
        ([0.48, 0.50, 0.52], Figure(0.5501, 0.015), False),
        ([0.50], Figure(0.52, 0.0), False),  # one run has no deviation
    ],
)
def test_a_match_lies_within_two_deviations_or_a_point(values: list[float], target: Figure, met: bool) -> None:
    assert matches(values, target) is met


def row(method: str, budget: str, length: int, value: float, dataset: str = "ml-100k") -> Row:
    metric = {"mean": value, "low": value, "high": value, "values": [value]}
    names = {"dataset": dataset, "method": method, "budget": budget, "length": length, "ranking": "uni100"}
    return names | {"metrics": dict.fromkeys(METRICS, metric)}


def test_rows_stand_beside_the_figures_of_their_own_length() -> None:
    def tables(*rows: Row) -> list[tuple[str, int]]:
        return [(t["method"], t["table"]) for t in parity.targets(list(rows)) if t["metric"] == "HR@10"]

    assert tables(row("td3", "30x50", 50, 0.6)) == [("td3", 2), ("td3", 3)]
    assert tables(row("td3", "50x50", 50, 0.6)) == [("td3", 2)]
    assert tables(row("random", "30x50", 50, 0.6)) == [("random", 3)]
    assert tables(row("full", "full", 50, 0.6)) == [("full", 2), ("full", 3)]
    assert tables(row("full", "full", 150, 0.6)) == []
    assert tables(row("td3", "15x30", 30, 0.6, "beauty")) == []
    assert tables(row("td3", "30x50", 50, 0.6) | {"ranking": "full"}) == []


def test_a_figure_on_either_side_is_said_so() -> None:
    for value, verdict in ((0.6614, "matches"), (0.9, "above"), (0.1, "below")):
        found = next(t for t in parity.targets([row("td3", "30x50", 50, value)]) if t["metric"] == "HR@10")
        assert (found["verdict"], found["met"]) == (verdict, verdict == "matches")
        assert (found["published"], found["measured"]) == (0.6614, value)
