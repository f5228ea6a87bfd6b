"""The datasets of the text experiments: near relatives of FOSTER's, whose own are not public in its counts.

Encoder: MiniLM-L6, kept as it is, with a linear map of its vectors to width 64 that is trained; the paper trains a
TinyBERT whole. That is what fits two cores. Splits: that of the publication for games, leave-one-out for the others,
which have an order and no clock; the paper divides by time.
"""

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
    optimizer="adamw", learning_rate=1e-3, weight_decay=1e-4, batch_size=256, epochs=30, patience=3
)
"""How all data are trained on: the paper's optimiser, with a step size for a small model in place of its 2e-4."""
JUDGING = TrainingRecipe(
    optimizer="adamw", learning_rate=1e-3, weight_decay=1e-4, batch_size=64, steps_per_epoch=50, epochs=100, patience=10
)
"""How every student of rows is trained."""
VALID_CASES = 5000


def text_config(**changes: Any) -> dict[str, Any]:
    """Return the arguments of the text model."""
    settings = {"encoder": minilm(), "layers": 0, "max_tokens": 32, "embedding_dim": 64, "body_options": BODY}
    return settings | changes


def text_dataset(name: str, source: str, split: str, budgets: tuple[Budget, ...], **changes: Any) -> Dataset:
    """Return a dataset whose teacher reads texts."""
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
        text=text_config(**changes),
        valid_cases=VALID_CASES,
        teacher=TEACHER,
        judging=JUDGING,
        engine=Engine(),
    )


GAMES = text_dataset("games", "dealrec-games", "given", ((20, LENGTH), (60, LENGTH)))
BEAUTY = text_dataset("beauty", "amazon-beauty-2014", "leave-one-out", ((20, LENGTH), (60, LENGTH)))
YELP = text_dataset("yelp", "yelp-s3rec", "leave-one-out", ((60, LENGTH), (20, LENGTH)))
TEXT_DATASETS = (GAMES, BEAUTY, YELP)


def foster(budget: Budget, **options: Any) -> FOSTER:
    """Return FOSTER as the experiments run it: step sizes of students are those of the recipes above."""
    settings: dict[str, Any] = {"inner_learning_rate": 1e-3, "judge_learning_rate": 1e-3, "epochs": 10}
    return FOSTER(**{"num_rows": budget[0], "length": budget[1], **settings, **options})
