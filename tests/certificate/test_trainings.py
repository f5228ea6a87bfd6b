"""Which trainings a certificate asks for, and what it refuses before any of them.

Not proved: that the panel of the library is a good one.
"""

import re
from dataclasses import replace
from pathlib import Path

import pytest
from examined import MODELS, Made, prepared_ring

from recdistill.certificate.trainings import Examination, cells_of, controls_of, datasets_of
from recdistill.errors import ArtifactError, OptionError
from recdistill.models import MODELS as FAMILIES
from recdistill.study.cells import ModelSpec
from recdistill.study.zoo import ZOO, zoo_at


def test_every_model_is_trained_on_everything_from_every_seed(made: Made) -> None:
    cells = cells_of(made.exam, made.datasets)
    assert len(cells) == len({cell.key for cell in cells}) == 3 * 4 * len(made.datasets)
    assert len({cell.path for cell in cells}) == len(cells)
    assert [cell.seed for cell in cells] == sorted(cell.seed for cell in cells)
    assert {cell.max_seq_len for cell in cells} == {8}  # of the teacher


def test_controls_draw_other_rows_for_every_seed_and_all_else_stays(made: Made) -> None:
    for dataset in made.datasets:
        assert len({one.content for one in dataset.by_seed.values()}) == (3 if dataset.kind == "control" else 1)


def test_a_teacher_that_is_not_in_the_cache_is_trained_again_and_called_so(made: Made, tmp_path: Path) -> None:
    stages = set[str]()
    again = replace(made.exam, cache=tmp_path / "empty")
    datasets_of(again, lambda stage, done, total, note="": stages.add(stage))
    assert stages == {"teacher"}
    datasets_of(again, lambda stage, done, total, note="": pytest.fail("the teacher is in the cache now"))


def test_no_control_is_the_dataset_itself(made: Made) -> None:
    assert made.exam.manifest.method == "random_soft"  # the dataset is a draw as the control's, in as many bytes
    ours, *controls = made.datasets[1:]
    assert any(one.control.num_rows == made.exam.manifest.num_rows for one in controls)
    assert ours.by_seed[0].content not in {one.content for control in controls for one in control.by_seed.values()}


def test_controls_are_drawn_once(made: Made) -> None:
    before = {path: path.stat().st_mtime_ns for path in made.exam.folder.glob("controls/*/data.safetensors")}
    again = datasets_of(made.exam)
    assert [one.by_seed for one in again] == [one.by_seed for one in made.datasets]
    assert {path: path.stat().st_mtime_ns for path in before} == before


def test_only_rows_that_ship_an_item_table_use_it(made: Made) -> None:
    cells = cells_of(replace(made.exam, items="frozen"), made.datasets)
    found = {(cell.data.name == "all", cell.model.name == "counts"): set() for cell in cells}
    for cell in cells:
        found[cell.data.name == "all", cell.model.name == "counts"].add(cell.items)
    assert found[False, False] == {"frozen"}
    assert found[True, False] == found[True, True] == found[False, True] == {"random"}


def test_the_panel_follows_from_the_item_table(made: Made) -> None:
    assert replace(made.exam, models=()).panel == ZOO
    fitting = replace(made.exam, models=(), items="given").panel
    assert fitting == zoo_at(8)
    assert {spec.settings()["embedding_dim"] for spec in fitting} == {8}


@pytest.mark.parametrize("panel", [ZOO, zoo_at(32)], ids=["mixed", "one width"])
def test_panels_of_the_library_are_large_enough_and_can_be_built(panel: tuple[ModelSpec, ...]) -> None:
    assert len(panel) >= 10
    assert len({spec.model for spec in panel}) >= 4
    assert len({spec.name for spec in panel}) == len(panel)
    assert len({(spec.model, repr(sorted(spec.settings().items()))) for spec in panel}) == len(panel)
    assert {spec.model for spec in panel} <= set(FAMILIES)


def test_controls_have_equal_bytes_and_as_many_rows_where_those_are_more(made: Made) -> None:
    found = {(control.method, control.rule): control for control in controls_of(made.exam)}
    ours = made.certificate.subject.bytes - made.certificate.subject.item_factor_bytes
    for control in made.certificate.controls:
        if control.rule == "equal bytes":
            theirs = control.bytes - made.certificate.subject.item_factor_bytes
            assert abs(theirs - ours) < 0.2 * ours
    assert found["random", "equal bytes"].num_rows > made.exam.manifest.num_rows


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"seeds": 0}, "seeds: 0 must be 1 or more"),
        ({"metric": "NDCG@7"}, "metric: 'NDCG@7' is not known"),
        ({"protocol": "half"}, "protocol: 'half' is not known"),
        ({"controls": ("randomm",)}, "controls: 'randomm' is not known (did you mean 'random'?)"),
        ({"models": MODELS[:1]}, "models: 'small' is one model, and one cannot be ranked; give two or more"),
        ({"models": (MODELS[0], MODELS[0])}, "models: 'small' names two models"),
        ({"student": "counts"}, "student: 'counts' is not known; choose from small, gru, wide"),
        ({"models": (*MODELS, ModelSpec(name="new", model="sasreq"))}, "model of new: 'sasreq' is not known"),
        (
            {"models": (*MODELS, ModelSpec(name="new", model="gru4rec", config={"hiden_dim": 8}))},
            "argument of new: 'hiden_dim' is not known (did you mean 'hidden_dim'?)",
        ),
        (
            {"models": (*MODELS, ModelSpec(name="big", model="gru4rec")), "items": "given"},
            "models: 'big' has item vectors of 64 numbers, the item factor 8; leave it out, or use items random",
        ),
    ],
)
def test_wrong_options_are_refused(made: Made, changes: dict, message: str) -> None:
    with pytest.raises(OptionError, match=re.escape(message)):
        replace(made.exam, **changes)


def test_another_split_is_refused(made: Made, tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match=r"is another split .* give the prepared dataset that it was made from"):
        replace(made.exam, prepared=prepared_ring(tmp_path, 1))


def test_an_examination_needs_a_distilled_and_a_prepared_dataset(made: Made, tmp_path: Path) -> None:
    for changes in ({"distilled": tmp_path}, {"prepared": tmp_path}, {"distilled": made.exam.prepared}):
        with pytest.raises(ArtifactError):
            replace(made.exam, **changes)
    assert isinstance(made.exam, Examination)
