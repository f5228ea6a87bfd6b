"""The teacher is trained once, cached by content, and continued after a kill."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from recdistill.data.development import Development
from recdistill.distill.teacher import TeacherSpec, make_model, teach
from recdistill.errors import OptionError
from recdistill.rng import Streams
from recdistill.training.fit import TrainingRecipe
from reference.tiny import development, histories_of_lists

CONFIG = {"embedding_dim": 8, "num_blocks": 1, "num_heads": 2, "inner_dim": 8}
SPEC = TeacherSpec(
    config=CONFIG, max_seq_len=6, recipe=TrainingRecipe(epochs=2, steps_per_epoch=2, batch_size=16, patience=2)
)


def test_the_same_teacher_is_trained_once(train: Development, tmp_path: Path) -> None:
    told = []
    one = teach(train, SPEC, 0, tmp_path, progress=lambda *args: told.append(args))
    count = len(told)
    assert count >= 2
    assert teach(train, SPEC, 0, tmp_path, progress=lambda *args: told.append(args)) == one
    assert len(told) == count
    assert one.folder.parent == tmp_path
    assert one.num_epochs == 2


@pytest.mark.parametrize(
    "change",
    [
        {"seed": 1},
        {"train": {"hash": "1" * 64}},
        {"spec": {"max_seq_len": 5}},
        {"spec": {"config": CONFIG | {"inner_dim": 9}}},
        {"spec": {"monitor": "MRR@5"}},
        {"spec": {"recipe": replace(SPEC.recipe, learning_rate=0.002)}},
    ],
)
def test_another_teacher_is_trained_anew(change: dict[str, Any], train: Development, tmp_path: Path) -> None:
    first = teach(train, SPEC, 0, tmp_path)
    other = teach(
        replace(train, **change.get("train", {})),
        replace(SPEC, **change.get("spec", {})),
        change.get("seed", 0),
        tmp_path,
    )
    assert other.folder != first.folder


def test_a_killed_teacher_is_continued(train: Development, tmp_path: Path) -> None:
    whole = teach(train, SPEC, 0, tmp_path / "whole")

    def stop(stage: str, done: int, total: int, note: str = "") -> None:
        if stage == "train" and done == 1:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        teach(train, SPEC, 0, tmp_path / "killed", progress=stop)
    again = teach(train, SPEC, 0, tmp_path / "killed")
    assert again.header["files"] == whole.header["files"]
    assert again.folder.name == whole.folder.name


def test_what_cannot_be_taught_is_refused(train: Development, tmp_path: Path) -> None:
    with pytest.raises(OptionError, match="nothing to train"):
        teach(train, TeacherSpec(model="popularity"), 0, tmp_path)
    with pytest.raises(OptionError, match="'sasrek' is not known"):
        teach(train, TeacherSpec(model="sasrek"), 0, tmp_path)
    without = development(histories_of_lists([[1, 2, 3]], [[]], [[4]]))
    with pytest.raises(OptionError, match="validation part"):
        teach(without, SPEC, 0, tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_an_unknown_monitor_is_refused(train: Development, tmp_path: Path) -> None:
    with pytest.raises(OptionError, match="monitor"):
        teach(train, replace(SPEC, monitor="NDCG@11"), 0, tmp_path)


def test_models_are_made_from_the_stream_and_their_options() -> None:
    one, again = (make_model("sasrec", 9, 5, CONFIG, Streams(3)) for _ in range(2))
    assert torch.equal(one.item_table, again.item_table)
    assert (one.num_items, one.max_seq_len, one.config["dropout"]) == (9, 5, 0.5)
    with pytest.raises(OptionError, match=r"'embedding_dims' is not known \(did you mean 'embedding_dim'\?\)"):
        make_model("sasrec", 9, 5, {"embedding_dims": 4}, Streams(3))
