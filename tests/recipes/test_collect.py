"""Results from finished cells: rows, what is missing, comparisons of the same users and seeds."""

from dataclasses import asdict

import numpy as np
import pytest
from tiny_grid import LENGTH, do, fake

from recdistill.evaluation.statistics import compare, holm
from recdistill.rng import Streams
from recdistill.storage import write_json
from recipes import collect
from recipes.cells import full, selector, student
from recipes.datasets import Dataset
from recipes.jobs import Scored
from recipes.places import Place, Prepare
from recipes.record import dataset_facts

SEEDS = (0, 1, 2)


def cells(dataset: Dataset, name: str) -> list[Scored]:
    return [student(Place(dataset, LENGTH, seed), selector(name, (4, LENGTH)), "random", "judging") for seed in SEEDS]


def test_rows_say_how_many_seeds_they_have_and_what_is_missing(dataset: Dataset) -> None:
    random, longest, herding = (cells(dataset, name) for name in ("random", "longest", "herding"))
    for cell in [*random, longest[1]]:
        fake(cell, seconds=1.0 + cell.place.seed)
    every = [*random, *longest, *herding]
    rows = collect.rows_of(every, ("full",))
    assert [(row["method"], row["seeds"], row["seeds_wanted"]) for row in rows] == [
        ("random", 3, 3),
        ("longest", 1, 3),
    ]
    values = [cell.cell()["metrics"]["full"]["NDCG@10"] for cell in random]
    assert rows[0]["metrics"]["NDCG@10"]["values"] == pytest.approx(values, abs=1e-5)
    assert rows[0]["metrics"]["NDCG@10"]["mean"] == pytest.approx(np.mean(values), abs=1e-5)
    assert rows[0]["seconds"] == {"train": 2.0}
    assert rows[0]["peak_mb"] == 102.0
    assert collect.missing(every) == [cell.key for cell in (longest[0], longest[2], *herding)]
    assert {row["ranking"] for row in collect.rows_of(every)} == {"full", "uni100"}


def test_memory_that_was_not_measured_is_left_out(dataset: Dataset) -> None:
    random = cells(dataset, "random")
    for cell in random:
        fake(cell)
    for cell in random[1:]:
        write_json(cell.path, cell.cell() | {"measured": False})
    assert collect.rows_of(random, ("full",))[0]["peak_mb"] == 100.0
    write_json(random[0].path, random[0].cell() | {"measured": False})
    assert collect.rows_of(random, ("full",))[0]["peak_mb"] is None


def test_a_comparison_takes_the_seeds_that_both_have(dataset: Dataset) -> None:
    first, second = cells(dataset, "random"), cells(dataset, "longest")
    assert collect.comparison(first, second) is None
    for cell in (*first, *second[1:]):
        fake(cell)
    found = collect.comparison(first, second[::-1])
    assert found is not None
    values = [collect.per_user(some[1:], "NDCG@10", "full") for some in (first, second)]
    assert values[0].shape == (2, 40)
    expected = compare(values[0], values[1], Streams(0).numpy("comparison"))
    names = {"first": first[0].row, "second": second[0].row, "metric": "NDCG@10", "ranking": "full"}
    assert found == names | collect.rounded(asdict(expected))
    assert found["seeds"] == 2


def test_p_values_are_corrected_for_all_comparisons_that_could_be_made(dataset: Dataset) -> None:
    rows = [cells(dataset, name) for name in ("random", "longest", "herding", "k_center")]
    for cell in (*rows[0], *rows[1], *rows[2]):
        fake(cell)
    found = collect.comparisons([(rows[0], rows[1]), (rows[0], rows[3]), (rows[0], rows[2])])
    assert [entry["second"] for entry in found] == [rows[1][0].row, rows[2][0].row]
    assert [entry["p_holm"] for entry in found] == pytest.approx(holm([entry["p"] for entry in found]), abs=1e-5)


def test_the_body_names_datasets_and_gaps(dataset: Dataset) -> None:
    place = Place(dataset, LENGTH, 0)
    do(Prepare(dataset))
    made: list[Scored] = [full(place, "judging"), *cells(dataset, "random")]
    fake(made[1])
    found = collect.body_of(made, collect.rows_of(made), [], extra=1)
    assert found["dataset"] == dataset_facts(place.prepared())
    assert found["datasets"] == [found["dataset"]]
    assert (found["seeds"], found["cells"], len(found["missing"]), found["extra"]) == ([0], 4, 3, 1)
