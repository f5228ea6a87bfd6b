"""The datasets of the experiments, and the settings that belong to each.

Settings of teacher, student and TD3 are those of the author's scripts (embedding width 32, unlike the paper's table).
``beauty`` stands in for Epinions, whose public crawl is not the one of the paper, and takes its settings and budgets.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from recdistill.data.prepared import PrepareSpec
from recdistill.distill.base import Engine
from recdistill.distill.td3 import TD3
from recdistill.training.fit import TrainingRecipe
from recipes.record import RUNS
from recipes.zoo import TEXT_VARIANTS, VARIANTS, architecture

Budget = tuple[int, int]
"""Sequences, and items in each."""

SMALL: dict[str, Any] = {
    "embedding_dim": 32,
    "num_blocks": 1,
    "num_heads": 1,
    "inner_dim": 64,
    "dropout": 0.2,
    "attention_dropout": 0.5,
}
"""SASRec and BERT4Rec."""
PREFIXES = TrainingRecipe(rows="prefixes", objective="last", batch_size=2048, epochs=100)
JUDGING = TrainingRecipe()
COMPILED = Engine(compile=True)
OTHERS: dict[str, dict[str, Any]] = {
    "gru4rec": {"embedding_dim": 32, "hidden_dim": 64, "dropout": 0.2},
    "narm": {"embedding_dim": 32, "hidden_dim": 128, "dropout": 0.25, "output_dropout": 0.5},
    "bert4rec": SMALL | {"mask_ratio": 0.6},
    "popularity": {},
}
"""Students of other families, as the author's scripts have them, but all as wide as the teacher: only so can they start
from its item table, and differences between them are not of width."""
OBJECTIVES = {"gru4rec": "last", "narm": "last", "bert4rec": "all"}
"""What other students predict where SASRec predicts the last item of a prefix; for BERT4Rec ``all`` is its Cloze."""


@dataclass(frozen=True, kw_only=True)
class Dataset:
    """A dataset, and how models and bi-level methods are set on it."""

    name: str
    """Folder below ``runs/``."""
    source: str
    """Raw file or folder below $RECDISTILL_DATA."""
    spec: PrepareSpec
    """How it is filtered and split."""
    clock: bool
    """Whether events have times; without, there are no most recent users."""
    published: str
    """Name in the tables of the paper."""
    budgets: tuple[Budget, ...]
    """Of the paper's Table 2."""
    compared: Budget
    """Of the paper's Table 3, where selectors and Farzi stand beside TD3."""
    main: Budget
    """Of the author's script and of the comparison in full ranking."""
    sasrec: Mapping[str, Any] = field(default_factory=lambda: SMALL)
    """Arguments of SASRec, teacher and student."""
    teacher_model: str = "sasrec"
    """Key of ``MODELS``."""
    text: Mapping[str, Any] = field(default_factory=dict)
    """Arguments of the text model, where there is one."""
    valid_cases: int | None = None
    """Most validation events that stop a student's training; all, when ``None``."""
    rank: int = 8
    """Of TD3."""
    bilevel: Mapping[str, Any] = field(default_factory=dict)
    """Options that TD3 and Farzi share; their defaults are those of ML-100k."""
    teacher: TrainingRecipe = PREFIXES
    """How the teacher is trained, and other models on all data beside it."""
    judging: TrainingRecipe = JUDGING
    """The library's recipe, the same for every row of a fair comparison."""
    engine: Engine = COMPILED
    """How meta-gradients are computed."""
    runs: Path = RUNS
    """Everything that is computed lies below."""

    @property
    def folder(self) -> Path:
        """Where everything about this dataset lies."""
        return self.runs / self.name

    def config(self, model: str) -> dict[str, Any]:
        """Return the arguments of a student: the dataset's own SASRec, a variant, or another family beside it."""
        if model == "sasrec":
            return dict(self.sasrec)
        if architecture(model) == "text":
            return {**self.text, **TEXT_VARIANTS.get(model, {})}
        return dict(VARIANTS[model].config) if model in VARIANTS else OTHERS[model]

    def td3(self, budget: Budget, **options: Any) -> TD3:
        """Return TD3 with the settings of this dataset."""
        return TD3(**{"num_rows": budget[0], "length": budget[1], "rank": self.rank, **self.bilevel, **options})

    def full_recipe(self, model: str) -> TrainingRecipe:
        """Return how a model is trained on all data beside published figures: on prefixes, as the teacher is."""
        return replace(self.teacher, objective=OBJECTIVES.get(architecture(model), self.teacher.objective))


MAGAZINE = Dataset(
    name="magazine",
    source="raw/amazon-magazine-2018/Magazine_Subscriptions.csv",
    spec=PrepareSpec(name="magazine", duplicates="drop", min_rating=4, repeats="drop", min_item=3, min_user=5),
    clock=True,
    published="magazine",
    budgets=((10, 10), (15, 15), (25, 20), (30, 20)),
    compared=(30, 20),
    main=(30, 20),
    bilevel={"outer_learning_rate": 0.01, "outer_batch_size": 1024},
)
"""TD3's own filter (items below 3 rows, then users below 5, once) on ratings of 4 and more, first meetings only. It is
near the published counts, not equal: see ``results/magazine_filters.json``."""
ML_100K = Dataset(
    name="ml-100k",
    source="raw/ml-100k",
    spec=PrepareSpec(name="ml-100k"),
    clock=True,
    published="ml-100k",
    budgets=((30, 50), (50, 50), (25, 150)),
    compared=(30, 50),
    main=(30, 50),
)
ML_1M = Dataset(
    name="ml-1m",
    source="ml-1m/interactions.parquet",
    spec=PrepareSpec(name="ml-1m"),
    clock=False,
    published="ml-1m",
    budgets=((50, 50), (100, 50), (200, 100)),
    compared=(200, 50),
    main=(50, 50),
    rank=16,
    bilevel={"inner_learning_rate": 0.01, "outer_batch_size": 32768, "synthetic_batch_size": 25},
)
BEAUTY = Dataset(
    name="beauty",
    source="amazon-beauty-2014",
    spec=PrepareSpec(name="beauty"),
    clock=False,
    published="epinions",
    budgets=((15, 30), (20, 20), (10, 50)),
    compared=(15, 30),
    main=(15, 30),
    sasrec=SMALL | {"num_blocks": 2, "inner_dim": 32},
    bilevel={"inner_learning_rate": 0.003, "outer_learning_rate": 0.01, "outer_batch_size": 2048},
)
DATASETS = {dataset.name: dataset for dataset in (ML_100K, MAGAZINE, ML_1M, BEAUTY)}
"""The most telling first, and the quickest of the others next."""
