"""One tiny model of every kind. A new model gets one line in ``EXAMPLES``."""

from typing import Any

import torch

from recdistill.data.text import Catalogue
from recdistill.models import MODELS
from recdistill.models.base import Recommender
from reference.encoders import described, tiny_encoder

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
    "text": {
        "encoder": tiny_encoder(),
        "layers": 1,
        "max_tokens": 16,
        "embedding_dim": 4,
        "body_options": {"num_blocks": 2, "inner_dim": 6, "dropout": 0.3, "attention_dropout": 0.4},
    },
    "popularity": {},
}
TABLED = sorted(name for name, model in MODELS.items() if model.trainable and not model.reads_text)
"""Models that learn an item table."""
IDS = torch.tensor([[3, 1, 6, 2, 5], [5, 2, 4, 0, 0], [1, 6, 0, 0, 0]])
LENGTHS = torch.tensor([4, 2, 1])


def new(name: str, seed: int = 0) -> Recommender:
    """Return a model as it is drawn, with items whose texts it may read."""
    generator = torch.Generator().manual_seed(seed)
    return MODELS[name](V, L, **EXAMPLES[name], generator=generator).attach(Catalogue(described(V)))


def make(name: str, seed: int = 0) -> Recommender:
    """Return a model in float64 with weights large enough that nothing is near zero by accident."""
    model = new(name, seed).double()
    generator = torch.Generator().manual_seed(seed + 1)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.5 * torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
        if model.trainable:
            model.item_table[0] = 0
    return model
