"""The datasets of the text experiments: near relatives of FOSTER's, whose own are not public in its counts.

Encoder: MiniLM-L6, kept as it is, with a linear map of its vectors to width 64 that is trained; the paper trains a
TinyBERT whole. That is what fits two cores. Splits: that of the publication for games, leave-one-out for the others,
which have an order and no clock; the paper divides by time.
"""

from dataclasses import replace
from typing import Any

from recdistill.data.prepared import PrepareSpec
from recdistill.distill.base import Engine
from recdistill.distill.foster import FOSTER
from recdistill.training.fit import TrainingRecipe
from recipes.datasets import Budget, Dataset
from recipes.encoders import minilm

LENGTH = 20
BODY: dict[str, Any] = {"num_blocks": 2, "num_heads": 2, "inner_dim": 128, "dropout": 0.2, "attention_dropout": 0.2}
TEACHER = TrainingRecipe(
    optimizer="adamw", learning_rate=2e-4, weight_decay=1e-4, batch_size=256, epochs=30, patience=3
)
"""How all data are trained on: with the paper's optimiser and step size."""
JUDGING = TrainingRecipe(
    optimizer="adamw", learning_rate=1e-3, weight_decay=1e-4, batch_size=64, steps_per_epoch=20, epochs=100, patience=10
)
"""How every student of rows is trained: soon validated, because a few rows are learnt soon."""
VALID_CASES = 5000


def text_config(**changes: Any) -> dict[str, Any]:
    """Return the arguments of the text model."""
    settings = {"encoder": minilm(), "layers": 0, "max_tokens": 32, "embedding_dim": 64, "body_options": BODY}
    return settings | changes


def text_dataset(source: str, name: str, split: str, budgets: tuple[Budget, ...]) -> Dataset:
    """Return a dataset whose teacher reads texts; the first of its budgets is that of the paper."""
    return Dataset(
        name=f"{name}-text",
        source=source,
        spec=PrepareSpec(name=name, split=split),
        clock=False,
        published=name,
        budgets=budgets,
        compared=budgets[0],
        main=budgets[0],
        teacher_model="text",
        text=text_config(),
        valid_cases=VALID_CASES,
        teacher=TEACHER,
        judging=JUDGING,
        engine=Engine(),
    )


def with_softmax(dataset: Dataset) -> Dataset:
    """Return a dataset whose models learn real rows by a softmax over all items, in place of one sampled negative."""
    teacher = replace(TEACHER, learning_rate=1e-3)
    text = {**dataset.text, "negatives": 0}
    return replace(dataset, name=f"{dataset.name}-softmax", text=text, teacher=teacher, budgets=dataset.budgets[:1])


def with_layers(name: str) -> Dataset:
    """Return the users and items of Games with ten events each, with so much of the encoder trained.

    Only there an encoder can be trained on two cores; ``none`` has the same few epochs.
    """
    return replace(
        GAMES,
        name=f"games-dense-{name}",
        spec=PrepareSpec(name="games-dense", split="leave-one-out", min_user=10, min_item=10),
        text=text_config(layers=LAYERS[name], max_tokens=16, candidates=64),
        teacher=replace(TEACHER, epochs=3, batch_size=64),
        judging=replace(JUDGING, patience=4, epochs=20),
    )


GAMES = text_dataset("dealrec-games", "games", "given", ((20, LENGTH), (60, LENGTH)))
BEAUTY = text_dataset("amazon-beauty-2014", "beauty", "leave-one-out", ((20, LENGTH), (60, LENGTH)))
YELP = text_dataset("yelp-s3rec", "yelp", "leave-one-out", ((60, LENGTH), (20, LENGTH)))
BINARY = (GAMES, BEAUTY, YELP)
SOFTMAX = (with_softmax(BEAUTY), with_softmax(GAMES))
LAYERS: dict[str, int | str] = {"none": 0, "last": 1, "all": "all"}
"""Layers of the encoder that are trained on the dense part of Games, by what they are called."""
DENSE = tuple(with_layers(name) for name in LAYERS)
TEXT_DATASETS = (*BINARY, *SOFTMAX, *DENSE)


def foster(budget: Budget, **options: Any) -> FOSTER:
    """Return FOSTER as the experiments run it: the paper's step sizes, half as many outer steps as by default."""
    settings: dict[str, Any] = {"judge_learning_rate": JUDGING.learning_rate, "epochs": 5, "judge_steps": 200}
    return FOSTER(**{"num_rows": budget[0], "length": budget[1], **settings, **options})
