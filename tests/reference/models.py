"""NARM and BERT4Rec one row and one position at a time, with the weights of a model and plain operations."""

import math
from collections.abc import Iterable, Iterator
from itertools import repeat

import torch
import torch.nn.functional as F
from torch import Tensor, nn

Weights = dict[str, Tensor]
Drawn = Iterator[Tensor] | Iterable[float]


def weights_of(model: nn.Module) -> Weights:
    return {name: value.detach() for name, value in model.named_parameters()}


def torch_gru(weights: Weights, num_layers: int) -> nn.GRU:
    """Return torch's own recurrent layers with the weights of ``layers.*``, in float64."""
    width, inputs = weights["layers.0.state_weight"].shape[1], weights["layers.0.input_weight"].shape[1]
    made = nn.GRU(inputs, width, num_layers, bias=False, batch_first=True, dtype=torch.float64)
    with torch.no_grad():
        for layer in range(num_layers):
            getattr(made, f"weight_ih_l{layer}").copy_(weights[f"layers.{layer}.input_weight"])
            getattr(made, f"weight_hh_l{layer}").copy_(weights[f"layers.{layer}.state_weight"])
    return made


def narm(weights: Weights, states: Tensor, keep: Tensor | float = 1.0) -> Tensor:
    """Return the user vector after the last of ``states`` (t, H); ``keep`` is the mask of the last dropout.

    ``alpha_j = v . sigmoid(A1 h_t + A2 h_j)``, ``c = [sum_j alpha_j h_j ; h_t]``, ``B c``.
    """
    last, mixed = states[-1], torch.zeros_like(states[-1])
    for state in states:
        gate = torch.sigmoid(weights["from_last"] @ last + weights["from_each"] @ state)
        mixed = mixed + (weights["attention"][0] @ gate) * state
    return weights["output"] @ (torch.cat([mixed, last]) * keep)


def bert4rec(
    weights: Weights, num_blocks: int, num_heads: int, row: list[int | None], slots: list[int], masks: Drawn = ()
) -> Tensor:
    """Return the output of the encoder, before the bias, at some slots of a row of item ids; ``None`` is the mask.

    Args:
        weights: of the model.
        num_blocks: in the model.
        num_heads: in the model.
        row: everything that is read; no padding.
        slots: where the output is read.
        masks: of dropout, for this row alone: of the embedding, then of weights, projection and feed-forward of every
            block; all ones when empty.
    """
    drawn: Iterator[Tensor | float] = iter(masks) if masks else repeat(1.0)
    items = [weights["mask_embedding"][0] if item is None else weights["item_embedding"][item, :-1] for item in row]
    state = torch.stack(items) + weights["position_embedding"][: len(row)]
    state = _norm(weights, "norm", state) * next(drawn)
    for block in range(num_blocks):
        asking = slots if block == num_blocks - 1 else list(range(len(row)))
        state = _block(weights, f"blocks.{block}", num_heads, state, asking, drawn)
    return _norm(weights, "output_norm", F.gelu(_linear(weights, "output", state)))


def _block(
    weights: Weights, name: str, num_heads: int, state: Tensor, asking: list[int], drawn: Iterator[Tensor | float]
) -> Tensor:
    query, key, value = (_linear(weights, f"{name}.attention.{part}", state) for part in ("query", "key", "value"))
    kept, width = next(drawn), state.shape[1] // num_heads
    rows = []
    for index, slot in enumerate(asking):
        heads = []
        for head in range(num_heads):
            part = slice(head * width, (head + 1) * width)
            scores = torch.stack([query[slot, part] @ other / math.sqrt(width) for other in key[:, part]])
            share = scores.exp() / scores.exp().sum()
            if isinstance(kept, Tensor):
                share = share * kept[head, index]
            heads.append(sum((s * v for s, v in zip(share, value[:, part], strict=True)), torch.zeros(())))
        rows.append(torch.cat(heads))
    mixed = _linear(weights, f"{name}.attention.output", torch.stack(rows)) * next(drawn)
    state = _norm(weights, f"{name}.attention.norm", state[asking] + mixed)
    inner = F.gelu(_linear(weights, f"{name}.feed_forward.first", state))
    changed = _linear(weights, f"{name}.feed_forward.second", inner) * next(drawn)
    return _norm(weights, f"{name}.feed_forward.norm", state + changed)


def _linear(weights: Weights, name: str, values: Tensor) -> Tensor:
    return values @ weights[f"{name}.weight"].T + weights[f"{name}.bias"]


def _norm(weights: Weights, name: str, values: Tensor) -> Tensor:
    centred = values - values.mean(-1, keepdim=True)
    scale = (centred.square().mean(-1, keepdim=True) + 1e-12).sqrt()
    return centred / scale * weights[f"{name}.weight"] + weights[f"{name}.bias"]
