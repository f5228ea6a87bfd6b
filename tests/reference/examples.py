"""One tiny model of every kind. A new model gets one line in ``EXAMPLES``."""

from typing import Any

import torch

from recdistill.models import MODELS
from recdistill.models.base import Recommender

V, L = 6, 5
EXAMPLES: dict[str, dict[str, Any]] = {
    "sasrec": {
        "embedding_dim": 4,
        "num_blocks": 2,
        "num_heads": 2,
        "inner_dim": 6,
        "dropout": 0.3,
        "attention_dropout": 0.4,
    },
    "gru4rec": {"embedding_dim": 4, "hidden_dim": 5, "num_layers": 2, "dropout": 0.3},
    "narm": {"embedding_dim": 4, "hidden_dim": 5, "dropout": 0.3, "output_dropout": 0.4},
    "bert4rec": {
        "embedding_dim": 4,
        "num_blocks": 2,
        "num_heads": 2,
        "inner_dim": 6,
        "dropout": 0.3,
        "attention_dropout": 0.4,
        "mask_ratio": 0.6,
    },
    "popularity": {},
}
IDS = torch.tensor([[3, 1, 6, 2, 5], [5, 2, 4, 0, 0], [1, 6, 0, 0, 0]])
LENGTHS = torch.tensor([4, 2, 1])


def make(name: str, seed: int = 0) -> Recommender:
    """Return a model in float64 with weights large enough that nothing is near zero by accident."""
    model = MODELS[name](V, L, **EXAMPLES[name], generator=torch.Generator().manual_seed(seed)).double()
    generator = torch.Generator().manual_seed(seed + 1)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.5 * torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
        if model.trainable:
            model.item_table[0] = 0
    return model
