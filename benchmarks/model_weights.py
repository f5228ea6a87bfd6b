"""RecBole's weights in the library's models: with the same weights both must give the same scores.

Training is noisy and two runs are compared within that noise; this comparison is not. It covers everything between a
history and its scores, and leaves only training itself: how weights are drawn, dropout, and the loss.
"""

from collections.abc import Callable, Mapping

import numpy as np
import torch
from torch import Tensor

from benchmarks.model_settings import LENGTH, SETTINGS
from recdistill.data.batches import HardItems
from recdistill.models import MODELS

Weights = dict[str, Tensor]

_BLOCK = {
    "multi_head_attention.query": "attention.query",
    "multi_head_attention.key": "attention.key",
    "multi_head_attention.value": "attention.value",
    "multi_head_attention.dense": "attention.output",
    "multi_head_attention.LayerNorm": "attention.norm",
    "feed_forward.dense_1": "feed_forward.first",
    "feed_forward.dense_2": "feed_forward.second",
    "feed_forward.LayerNorm": "feed_forward.norm",
}


def _renamed(weights: Weights, names: Mapping[str, str]) -> Weights:
    return {ours: weights[theirs] for theirs, ours in names.items()}


def _transformer(weights: Weights) -> Weights:
    blocks = sum(name.endswith("multi_head_attention.query.weight") for name in weights)
    names = {"item_embedding.weight": "item_embedding", "position_embedding.weight": "position_embedding"}
    for kind in ("weight", "bias"):
        names[f"LayerNorm.{kind}"] = f"norm.{kind}"
        for block in range(blocks):
            stems = (f"trm_encoder.layer.{block}", f"blocks.{block}")
            names |= {f"{stems[0]}.{theirs}.{kind}": f"{stems[1]}.{ours}.{kind}" for theirs, ours in _BLOCK.items()}
    return _renamed(weights, names)


def _gru4rec(weights: Weights) -> Weights:
    names = {
        "item_embedding.weight": "item_embedding",
        "gru_layers.weight_ih_l0": "layers.0.input_weight",
        "gru_layers.weight_hh_l0": "layers.0.state_weight",
        "dense.weight": "output.weight",
        "dense.bias": "output.bias",
    }
    return _renamed(weights, names)


def _narm(weights: Weights) -> Weights:
    names = {
        "item_embedding.weight": "item_embedding",
        "gru.weight_ih_l0": "layers.0.input_weight",
        "gru.weight_hh_l0": "layers.0.state_weight",
        "a_1.weight": "from_each",
        "a_2.weight": "from_last",
        "v_t.weight": "attention",
        "b.weight": "output",
    }
    return _renamed(weights, names)


def _bert4rec(weights: Weights) -> Weights:
    """RecBole keeps the mask as the last item, the output bias by itself, and has one position less."""
    found = _transformer(weights)
    items, positions = found["item_embedding"], found["position_embedding"]
    for kind in ("weight", "bias"):
        found |= _renamed(weights, {f"output_ffn.{kind}": f"output.{kind}", f"output_ln.{kind}": f"output_norm.{kind}"})
    return found | {
        "item_embedding": torch.cat([items[:-1], weights["output_bias"].unsqueeze(1)], dim=1),
        "mask_embedding": items[-1:],
        "position_embedding": torch.cat([positions, torch.zeros_like(positions[:1])]),
    }


TRANSLATE: dict[str, Callable[[Weights], Weights]] = {
    "sasrec": _transformer,
    "gru4rec": _gru4rec,
    "narm": _narm,
    "bert4rec": _bert4rec,
}
"""RecBole's weights by our names, by the library's name of the model."""


@torch.no_grad()
def largest_difference(model: str, snapshot: Mapping[str, np.ndarray]) -> float:
    """Return the largest difference of a score, in standard deviations of the scores, under RecBole's weights.

    Args:
        model: the library's name.
        snapshot: ``weights.NAME``, ``histories`` (B, T), ``lengths`` (B,) and RecBole's ``scores`` (B, V + 1).
    """
    arrays = {name: torch.from_numpy(np.asarray(value)) for name, value in snapshot.items()}
    weights = {name.removeprefix("weights."): value for name, value in arrays.items() if name.startswith("weights.")}
    histories, lengths, scores = arrays["histories"], arrays["lengths"], arrays["scores"][:, 1:]
    ours = MODELS[model](scores.shape[1], LENGTH, **SETTINGS[model].config, generator=torch.Generator())
    ours.load_state_dict(TRANSLATE[model](weights))
    if model == "bert4rec":  # RecBole drops the oldest item to make room for the mask
        histories, lengths = histories.roll(-1, dims=1), lengths - 1
    found = ours.score(ours.represent(HardItems(histories), lengths))
    return float((found - scores).abs().max() / scores.std())
