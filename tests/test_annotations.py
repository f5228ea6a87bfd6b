"""Every module imports under the type checker, and wrong shapes are errors in every test run."""

import importlib
from pathlib import Path

import pytest
import torch
from jaxtyping import TypeCheckError

import recdistill
from recdistill.data.batches import SequenceBatch
from recdistill.evaluation.metrics import hit_rate

BASE = Path(recdistill.__file__).parent


@pytest.mark.parametrize("file", sorted(BASE.rglob("*.py")), ids=lambda file: file.relative_to(BASE).as_posix())
def test_every_annotation_can_be_checked(file: Path) -> None:
    name = ".".join(file.relative_to(BASE.parent).with_suffix("").parts).removesuffix(".__init__")
    assert importlib.import_module(name).__name__ == name


def test_a_wrong_shape_is_an_error() -> None:
    with pytest.raises(TypeCheckError):
        hit_rate(torch.ones(2, 2, dtype=torch.long), 5)


def test_a_record_of_the_wrong_kind_is_an_error() -> None:
    with pytest.raises(TypeCheckError):
        SequenceBatch(torch.ones(2, 3), torch.tensor([2, 2]), torch.ones(2, 2))
