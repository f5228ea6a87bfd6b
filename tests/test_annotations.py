"""Every module imports under the type checker, and every annotation is checked."""

import importlib
from pathlib import Path

import pytest
from jaxtyping import TypeCheckError

import recdistill
from reference.typecheck import UNREADABLE

BASE = Path(recdistill.__file__).parent


def test_every_annotation_can_be_checked() -> None:
    for file in sorted(BASE.rglob("*.py")):
        name = ".".join(file.relative_to(BASE.parent).with_suffix("").parts)
        importlib.import_module(name.removesuffix(".__init__"))
    assert not UNREADABLE


def test_a_wrong_shape_is_an_error() -> None:
    import torch

    from recdistill.evaluation.metrics import hit_rate

    with pytest.raises(TypeCheckError):
        hit_rate(torch.ones(2, 2, dtype=torch.long), 5)
