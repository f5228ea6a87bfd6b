"""Which models are compared with RecBole's, under which settings, and what RecBole must be told to train the same."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from recdistill.training.fit import TrainingRecipe

LENGTH = 20
RECIPE = TrainingRecipe(rows="prefixes", objective="last", batch_size=256, learning_rate=2e-3, epochs=10, patience=4)


@dataclass(frozen=True, kw_only=True)
class Setting:
    """One model with the same settings on both sides."""

    peer: str
    """Name of the model in RecBole."""
    config: Mapping[str, float]
    """Every argument of the library's model."""
    names: Mapping[str, str]
    """Our argument -> RecBole's option; two of ours that share a name make a list there."""
    recipe: TrainingRecipe = RECIPE
    """How it is trained."""

    def peer_options(self) -> dict[str, Any]:
        """Return what RecBole must be told so that it trains the same model in the same way."""
        options: dict[str, Any] = {}
        for argument, value in self.config.items():
            options.setdefault(self.names[argument], []).append(value)
        options = {name: values[0] if len(values) == 1 else values for name, values in options.items()}
        assert self.recipe.patience is not None
        return options | {
            "train_batch_size": self.recipe.batch_size,
            "learning_rate": self.recipe.learning_rate,
            "weight_decay": self.recipe.weight_decay,
            "epochs": self.recipe.epochs,
            "eval_step": self.recipe.validate_every,
            "stopping_step": self.recipe.patience - 1,  # RecBole stops after one more than it is told
        }


_ATTENTION = {
    "embedding_dim": "hidden_size",
    "num_blocks": "n_layers",
    "num_heads": "n_heads",
    "inner_dim": "inner_size",
    "dropout": "hidden_dropout_prob",
    "attention_dropout": "attn_dropout_prob",
}
_SMALL = {"embedding_dim": 32, "num_blocks": 1, "num_heads": 1, "inner_dim": 64}
SETTINGS = {
    "sasrec": Setting(
        peer="SASRec",
        config=_SMALL | {"dropout": 0.2, "attention_dropout": 0.2},
        names=_ATTENTION,
    ),
    "gru4rec": Setting(
        peer="GRU4Rec",
        config={"embedding_dim": 32, "hidden_dim": 64, "num_layers": 1, "dropout": 0.2},
        names={
            "embedding_dim": "embedding_size",
            "hidden_dim": "hidden_size",
            "num_layers": "num_layers",
            "dropout": "dropout_prob",
        },
    ),
    "narm": Setting(
        peer="NARM",
        config={"embedding_dim": 32, "hidden_dim": 64, "num_layers": 1, "dropout": 0.2, "output_dropout": 0.2},
        names={
            "embedding_dim": "embedding_size",
            "hidden_dim": "hidden_size",
            "num_layers": "n_layers",
            "dropout": "dropout_probs",
            "output_dropout": "dropout_probs",
        },
    ),
    "bert4rec": Setting(
        peer="BERT4Rec",
        config=_SMALL | {"dropout": 0.1, "attention_dropout": 0.1, "mask_ratio": 0.2, "last_ratio": 0.5},
        names=_ATTENTION | {"mask_ratio": "mask_ratio", "last_ratio": "ft_ratio"},
        recipe=replace(RECIPE, objective="all"),
    ),
}
"""What is compared, by the library's name."""

COMMON = {
    "MAX_ITEM_LIST_LENGTH": LENGTH,
    "loss_type": "CE",
    "train_neg_sample_args": None,
    "normalize_all": False,
    "load_col": {"inter": ["user_id", "item_id", "place"]},
    "TIME_FIELD": "place",
    "eval_args": {"split": {"LS": "valid_and_test"}, "order": "TO", "group_by": "user", "mode": "full"},
    "metrics": ["Hit", "NDCG"],
    "topk": [10],
    "valid_metric": "NDCG@10",
    "metric_decimal_place": 8,
    "use_gpu": False,
    "show_progress": False,
}
"""What RecBole is told for every model."""

DIFFERENCES = {
    "all": "RecBole lets padding take part in the softmax as an item that is never right; we leave it out.",
    "bert4rec": (
        "RecBole hides items of the history only, so that each user's last training event is never predicted; draws "
        "once per batch, not per row, whether only the last item is hidden; gives the first item no loss, but hides "
        "it; and drops the oldest item of every history to make room for the mask when it scores."
    ),
}
"""What still differs between the two sides."""
