"""Cells: named by content, the same scores wherever they run, and no data of another split.

Not proved: that other machines give the same digits.
"""

from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from recdistill.data.development import Development, development_of, histories_of
from recdistill.data.prepared import PreparedDataset, PrepareSpec, prepare
from recdistill.data.sequences import evaluation_cases, training_rows
from recdistill.demo import generate
from recdistill.distill.base import RunContext
from recdistill.distill.coresets.random import Random
from recdistill.distill.run import distill
from recdistill.distill.teacher import TeacherSpec, teach
from recdistill.errors import ArtifactError, OptionError
from recdistill.evaluation.long_tail import exposure, recommend
from recdistill.evaluation.metrics import per_case
from recdistill.evaluation.privacy import membership_attack
from recdistill.evaluation.protocols import evaluate
from recdistill.progress import SILENT
from recdistill.rng import Streams
from recdistill.study.cells import Cell, ModelSpec, TrainingSet, membership_of, panels
from recdistill.study.grid import in_order, run_grid
from recdistill.study.local import LocalProcesses
from recdistill.study.students import StudentSpec, train_student
from recdistill.training.fit import TrainingRecipe
from reference.tiny import sasrec

SMALL = {"embedding_dim": 8, "num_blocks": 1, "num_heads": 1, "inner_dim": 8}
SASREC = ModelSpec(name="small", model="sasrec", config=SMALL)
RECIPE = TrainingRecipe(epochs=2, steps_per_epoch=4, batch_size=32, patience=2)


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("study")
    prepare(generate(folder / "raw", 0), folder / "prepared", PrepareSpec(name="tiny"))
    return folder / "prepared"


@pytest.fixture(scope="module")
def distilled(prepared: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    train = development_of(PreparedDataset.open(prepared))
    spec = TeacherSpec(config=SMALL, max_seq_len=10, recipe=replace(RECIPE, rows="windows"))
    teacher = teach(train, spec, 0, tmp_path_factory.mktemp("cache"))
    folder = tmp_path_factory.mktemp("distilled") / "random"
    distill(train, Random(num_rows=6, length=10), teacher, seed=0, context=RunContext()).save(folder)
    return folder


def cell(folder: Path, prepared: Path, data: Path, **changes: Any) -> Cell:
    values = {"model": SASREC, "seed": 0, "recipe": RECIPE, "max_seq_len": 10}
    made = TrainingSet.open("full" if data == prepared else data.name, data)
    return Cell(folder=folder, prepared=prepared, data=made, **values | changes)  # type: ignore[arg-type]


def run(*cells: Cell) -> None:
    for one in cells:
        one.path.parent.mkdir(parents=True, exist_ok=True)
        one.run(SILENT)


@pytest.mark.parametrize("items", ["random", "given", "frozen"])
def test_scores_are_those_of_the_plain_line(items: Any, prepared: Path, distilled: Path, tmp_path: Path) -> None:
    mine = cell(tmp_path, prepared, distilled, items=items)
    run(mine)
    data = PreparedDataset.open(prepared)
    rows, factor = mine.data.rows(10, "windows")
    spec = StudentSpec(config=SMALL, max_seq_len=10, items=items, recipe=RECIPE)
    valid = evaluation_cases(development_of(data).histories, "valid")
    model, _ = train_student(rows, spec, num_items=data.num_items, seed=0, item_factor=factor, valid=valid)
    expected = evaluate(model, evaluation_cases(histories_of(data), "test"))
    assert torch.equal(mine.ranks("full"), expected.ranks)
    assert mine.result()["metrics"]["full"] == expected.metrics()
    assert mine.per_event().tolist() == per_case(expected.ranks)["NDCG@10"].tolist()
    assert mine.result()["metrics"]["uni100"]["NDCG@10"] > 0


def test_a_cell_keeps_what_its_model_did_and_would_show(prepared: Path, distilled: Path, tmp_path: Path) -> None:
    mine = cell(tmp_path, prepared, distilled)
    run(mine)
    found, data = mine.result(), PreparedDataset.open(prepared)
    spec = StudentSpec(config=SMALL, max_seq_len=10, recipe=RECIPE)
    valid = evaluation_cases(development_of(data).histories, "valid")
    rows, _ = mine.data.rows(10, "windows")
    model, result = train_student(rows, spec, num_items=data.num_items, seed=0, valid=valid)
    assert (found["losses"], found["scores"]) == (result.losses, result.scores)
    assert (found["steps"], found["epochs"], found["best_epoch"]) == (result.steps, result.epochs, result.best_epoch)
    cases, histories = evaluation_cases(histories_of(data), "test"), histories_of(data)
    expected = exposure(
        recommend(model, cases), cases.targets(np.arange(len(cases))), cases.users, histories.train_counts(300)
    )
    assert found["exposure"] == asdict(expected)
    attack = membership_attack(model, histories.development(), Streams(0).numpy("membership"))
    assert found["membership"] == asdict(attack)


def test_without_validation_events_no_membership_is_asked(train: Development) -> None:
    model = sasrec()
    nobody = replace(train.histories, valid_end=train.histories.train_end)
    assert membership_of(model, nobody) is None
    assert membership_of(model, train.histories) is not None


def test_arguments_of_a_model_include_its_defaults_and_are_checked() -> None:
    settings = SASREC.settings()
    assert settings["dropout"] == 0.5
    assert settings | SMALL == settings
    with pytest.raises(OptionError, match=r"argument of small: 'embeding_dim' is not known .*'embedding_dim'"):
        replace(SASREC, config={"embeding_dim": 8}).settings()
    with pytest.raises(OptionError, match=r"model of small: 'sasreq' is not known .*'sasrec'"):
        replace(SASREC, model="sasreq").settings()


def test_full_data_are_the_training_part_cut_as_the_recipe_says(prepared: Path, tmp_path: Path) -> None:
    histories = development_of(PreparedDataset.open(prepared)).histories
    for cut in ("windows", "prefixes"):
        rows, factor = cell(tmp_path, prepared, prepared).data.rows(10, cut)
        assert factor is None
        assert len(rows) == len(training_rows(histories, 10, cut))


def test_processes_give_the_same_cells_and_what_is_done_is_kept(
    prepared: Path, distilled: Path, tmp_path: Path
) -> None:
    made = {
        name: [cell(tmp_path / name, prepared, data, seed=seed) for data in (prepared, distilled) for seed in range(2)]
        for name in ("here", "processes")
    }
    run(*made["here"])
    assert run_grid(made["processes"], LocalProcesses(size=2)).failed == {}
    for one, other in zip(*made.values(), strict=True):
        assert torch.equal(one.ranks("full"), other.ranks("full"))
        assert one.result()["metrics"] == other.result()["metrics"]
        assert not list(other.path.parent.glob("*.state"))
    before = [one.path.stat().st_mtime_ns for one in made["processes"]]
    again = [replace(one, data=replace(one.data, name=f"new {one.data.name}")) for one in made["processes"]]
    run_grid(again, LocalProcesses())
    assert [one.path.stat().st_mtime_ns for one in again] == before


def test_everything_that_decides_the_scores_names_them(prepared: Path, distilled: Path, tmp_path: Path) -> None:
    first = cell(tmp_path, prepared, distilled)
    others = [
        cell(tmp_path, prepared, prepared),
        replace(first, seed=1),
        replace(first, items="frozen"),
        replace(first, max_seq_len=8),
        replace(first, recipe=replace(RECIPE, epochs=3)),
        replace(first, model=replace(SASREC, config=SMALL | {"dropout": 0.1})),
        replace(first, model=ModelSpec(name="small", model="gru4rec", config={})),
        replace(first, data=replace(first.data, content="0" * 64)),
    ]
    assert len({one.path for one in (first, *others)}) == len(others) + 1
    assert replace(first, model=replace(SASREC, name="other")).path == first.path


def test_two_datasets_of_one_name_are_refused(prepared: Path, distilled: Path, tmp_path: Path) -> None:
    first = cell(tmp_path, prepared, distilled)
    with pytest.raises(ValueError, match="two jobs are called random/small/random/seed-0"):
        in_order([first, replace(first, data=replace(first.data, content="0" * 64))])


def test_another_split_is_refused(prepared: Path, distilled: Path, tmp_path: Path) -> None:
    prepare(generate(tmp_path / "raw", 1), tmp_path / "prepared", PrepareSpec(name="tiny"))
    wrong = cell(tmp_path, tmp_path / "prepared", distilled)
    with pytest.raises(ArtifactError, match="is another split"):
        run(wrong)
    assert not wrong.done()


def test_panels_hold_what_is_finished(prepared: Path, distilled: Path, tmp_path: Path) -> None:
    gru = ModelSpec(name="gru", model="gru4rec", config={"embedding_dim": 8, "hidden_dim": 8})
    cells = [
        cell(tmp_path, prepared, data, model=model, seed=seed)
        for data in (prepared, distilled)
        for model in (SASREC, gru)
        for seed in range(2)
    ]
    run(*cells[:-1])
    found = panels(cells)
    assert list(found) == ["full", "random"]
    assert found["full"].seeds(("small", "gru")) == {0, 1}
    assert found["random"].seeds(("small", "gru")) == {0}
    assert np.array_equal(found["full"].scores["gru"][1], cells[3].per_event())


def test_a_folder_that_is_no_dataset_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError):
        TrainingSet.open("nothing", tmp_path)
