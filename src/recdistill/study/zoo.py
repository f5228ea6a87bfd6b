"""The models that a certificate ranks, unless others are asked for: five families in several sizes.

Ten are too few to claim much from, and four are none at all: with four models even perfect agreement comes about by
chance one time in 24. So the panel has eleven, from a model that only counts to ones that differ by a width.
"""

from typing import Any

from recdistill.study.cells import ModelSpec

_ONE_BLOCK = {"num_blocks": 1, "num_heads": 1, "dropout": 0.2}


def _sasrec(width: int) -> ModelSpec:
    config = {**_ONE_BLOCK, "embedding_dim": width, "inner_dim": 2 * width, "attention_dropout": 0.5}
    return ModelSpec(name=f"sasrec_{width}", model="sasrec", config=config)


def _bert4rec(width: int) -> ModelSpec:
    config = {**_ONE_BLOCK, "embedding_dim": width, "inner_dim": 2 * width, "attention_dropout": 0.2}
    return ModelSpec(name=f"bert4rec_{width}", model="bert4rec", config=config)


def _recurrent(model: str, width: int, **more: Any) -> ModelSpec:
    return ModelSpec(name=f"{model}_{width}", model=model, config={"embedding_dim": width, "hidden_dim": width, **more})


ZOO: tuple[ModelSpec, ...] = (
    _sasrec(32),
    _recurrent("gru4rec", 64, dropout=0.2),
    _bert4rec(32),
    _sasrec(128),
    _recurrent("gru4rec", 32, dropout=0.2),
    _recurrent("narm", 32),
    _bert4rec(64),
    _sasrec(64),
    _recurrent("gru4rec", 128, dropout=0.2),
    _recurrent("narm", 16),
    ModelSpec(name="popularity", model="popularity"),
)
"""By what each adds to those before it, so that a study cut short has seen the families first."""


def zoo_at(width: int) -> tuple[ModelSpec, ...]:
    """Return ten models of four families whose item vectors have one width, so that all can start from one item factor.

    They differ in what stands above the items: depth, and the width of state or feed-forward layer, as their names say.

    Args:
        width: of the item factor, D.
    """
    small, large = {**_ONE_BLOCK, "inner_dim": 2 * width}, {"num_blocks": 2, "num_heads": 1, "inner_dim": 4 * width}
    shapes: tuple[tuple[str, str, dict[str, Any]], ...] = (
        ("sasrec_1x2", "sasrec", {**small, "attention_dropout": 0.5}),
        ("gru4rec_2", "gru4rec", {"hidden_dim": 2 * width, "dropout": 0.2}),
        ("bert4rec_1x2", "bert4rec", {**small, "attention_dropout": 0.2}),
        ("sasrec_2x4", "sasrec", {**large, "dropout": 0.5}),
        ("gru4rec_1", "gru4rec", {"hidden_dim": width, "dropout": 0.2}),
        ("narm_1", "narm", {"hidden_dim": width}),
        ("sasrec_1x4", "sasrec", {**_ONE_BLOCK, "inner_dim": 4 * width}),
        ("gru4rec_4", "gru4rec", {"hidden_dim": 4 * width, "dropout": 0.2}),
        ("bert4rec_2x4", "bert4rec", {**large, "dropout": 0.2, "attention_dropout": 0.2}),
        ("narm_2", "narm", {"hidden_dim": 2 * width}),
    )
    return tuple(
        ModelSpec(name=name, model=model, config={"embedding_dim": width, **more}) for name, model, more in shapes
    )
