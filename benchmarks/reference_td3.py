"""TD3's outer step written straightforwardly, in the style of published research code: the peer of the benchmarks.

Nothing is slow on purpose. It is what one writes from the paper without a second thought about cost: the summary is a
probability tensor over the catalogue, the student is computed at all positions, augmented learner training is a second
pass of the encoder over the cut sequence, the divergence is torch's, and the window is a tape through a functional Adam
that loops over the parameters. It uses torch and nothing of recdistill, but the names and shapes of the weights are
those of the library's SASRec, so that both can start from the same ones.

Reference: TD3, arXiv 2502.02854, sections 3.2 to 3.4.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

Weights = dict[str, Tensor]


class SASRec:
    """SASRec as a function of named weights."""

    def __init__(self, config: dict[str, Any]) -> None:
        self.config = config

    def __call__(self, weights: Weights, inputs: Tensor, padding: Tensor, train: bool) -> Tensor:
        """Return hidden vectors at all positions, (B, T, D), of item vectors (B, T, D); ``padding`` marks (B, T)."""
        rate = self.config["dropout"] if train else 0.0
        width = inputs.shape[1]
        hidden = self._norm(weights, "norm", inputs + weights["position_embedding"][:width])
        hidden = F.dropout(hidden, rate, train)
        causal = torch.ones(width, width, dtype=torch.bool, device=inputs.device).tril()
        visible = causal.unsqueeze(0) & ~padding.unsqueeze(1)
        visible = visible | torch.eye(width, dtype=torch.bool, device=inputs.device)  # a padded row must see something
        for block in range(self.config["num_blocks"]):
            hidden = self._block(weights, f"blocks.{block}", hidden, visible, rate, train)
        return hidden

    def _block(self, weights: Weights, name: str, hidden: Tensor, visible: Tensor, rate: float, train: bool) -> Tensor:
        attention, heads = f"{name}.attention", self.config["num_heads"]
        query, key, value = (
            self._linear(weights, f"{attention}.{part}", hidden).unflatten(-1, (heads, -1)).transpose(1, 2)
            for part in ("query", "key", "value")
        )
        scores = query @ key.transpose(-1, -2) / query.shape[-1] ** 0.5
        scores = scores.masked_fill(~visible.unsqueeze(1), float("-inf")).softmax(-1)
        scores = F.dropout(scores, self.config["attention_dropout"] if train else 0.0, train)
        context = self._linear(weights, f"{attention}.output", (scores @ value).transpose(1, 2).flatten(2))
        hidden = self._norm(weights, f"{attention}.norm", hidden + F.dropout(context, rate, train))
        forward = f"{name}.feed_forward"
        changed = F.gelu(self._linear(weights, f"{forward}.first", hidden))
        changed = F.dropout(self._linear(weights, f"{forward}.second", changed), rate, train)
        return self._norm(weights, f"{forward}.norm", hidden + changed)

    @staticmethod
    def _linear(weights: Weights, name: str, values: Tensor) -> Tensor:
        return F.linear(values, weights[f"{name}.weight"], weights[f"{name}.bias"])

    @staticmethod
    def _norm(weights: Weights, name: str, values: Tensor) -> Tensor:
        return F.layer_norm(values, values.shape[-1:], weights[f"{name}.weight"], weights[f"{name}.bias"], 1e-12)


class ReferenceTD3:
    """The factors of a summary, and the step that moves them.

    Args:
        config: sizes and dropout rates of the student.
        core, user_factor, time_factor: what is learned.
        item_factor: frozen, one row per real item.
        synthetic_batch_size, window, inner_learning_rate, inner_weight_decay: of the inner loop.
        outer_learning_rate, outer_weight_decay, clip_norm, feature_weight: of the outer one.
    """

    def __init__(
        self,
        config: dict[str, Any],
        core: Tensor,
        user_factor: Tensor,
        time_factor: Tensor,
        item_factor: Tensor,
        *,
        synthetic_batch_size: int = 15,
        window: int = 40,
        inner_learning_rate: float = 0.005,
        inner_weight_decay: float = 5e-5,
        outer_learning_rate: float = 0.03,
        outer_weight_decay: float = 1e-4,
        clip_norm: float = 1.0,
        feature_weight: float = 1.0,
    ) -> None:
        self.student = SASRec(config)
        self.factors = [nn.Parameter(value) for value in (core, user_factor, time_factor)]
        self.item_factor = item_factor
        self.batch_size, self.window, self.clip_norm = synthetic_batch_size, window, clip_norm
        self.rate, self.decay, self.feature_weight = inner_learning_rate, inner_weight_decay, feature_weight
        self.optimizer = torch.optim.Adam(self.factors, lr=outer_learning_rate, weight_decay=outer_weight_decay)

    def outer_step(
        self,
        weights: Weights,
        items: Tensor,
        lengths: Tensor,
        targets: Tensor,
        features: Tensor,
        inner_steps: int,
        middles: list[Tensor] | None = None,
    ) -> float:
        """Move the factors once; return the outer loss. Arguments as for :meth:`meta_gradient`."""
        loss, gradient = self.meta_gradient(weights, items, lengths, targets, features, inner_steps, middles)
        for factor, slope in zip(self.factors, gradient, strict=True):
            factor.grad = slope
        nn.utils.clip_grad_norm_(self.factors, self.clip_norm)
        self.optimizer.step()
        return loss

    def meta_gradient(
        self,
        weights: Weights,
        items: Tensor,
        lengths: Tensor,
        targets: Tensor,
        features: Tensor,
        inner_steps: int,
        middles: list[Tensor] | None = None,
    ) -> tuple[float, list[Tensor]]:
        """Return the outer loss and its gradient in core, user factor and time factor.

        Args:
            weights: where the student starts.
            items: real prefixes, (B, T), padded with 0 on the right.
            lengths: real items per prefix, (B,).
            targets: what follows each prefix, (B,).
            features: the teacher's, (B, D).
            inner_steps: training steps, of which the last ``window`` are differentiated.
            middles: item index of the middle target of every synthetic row of the minibatch, for each inner step; drawn
                when left out.
        """
        core, users, times = self.factors
        summary = torch.einsum("ijk,ai,bj,ck->abc", core, users, times, self.item_factor).softmax(-1)
        params = {name: value.detach().clone().requires_grad_() for name, value in weights.items()}
        first = {name: torch.zeros_like(value) for name, value in params.items()}
        second = {name: torch.zeros_like(value) for name, value in params.items()}
        plain = inner_steps - self.window
        for step in range(inner_steps):
            taped = step >= plain
            turn = step - plain if taped else step
            low = turn * self.batch_size % len(summary)
            batch = summary[low : low + self.batch_size]
            if not taped:
                batch = batch.detach()
            middle = None if middles is None else middles[step]
            loss = self.inner_loss(params, batch, middle)
            slopes = torch.autograd.grad(loss, list(params.values()), create_graph=taped)
            params, first, second = self._adam(params, first, second, slopes, step + 1)
            if not taped:
                params = {name: value.detach().requires_grad_() for name, value in params.items()}
                first = {name: value.detach() for name, value in first.items()}
                second = {name: value.detach() for name, value in second.items()}
        loss = self.outer_loss(params, items, lengths, targets, features)
        return float(loss.detach()), list(torch.autograd.grad(loss, self.factors))

    def inner_loss(self, params: Weights, batch: Tensor, middle: Tensor | None) -> Tensor:
        """Return the mean of the divergences at the last and at a middle position."""
        rows, length, _ = batch.shape
        table = params["item_embedding"][1:]
        inputs = batch[:, :-1] @ table
        everything = torch.arange(rows)
        if middle is None:
            middle = torch.randint(min(5, length // 2), length - 1, (rows,))
        nothing = torch.zeros(rows, length - 1, dtype=torch.bool)
        last = self.student(params, inputs, nothing, True)[:, -1]
        cut = torch.arange(length - 1) >= middle.unsqueeze(1)
        inside = self.student(params, inputs, cut, True)[everything, middle - 1]
        losses = [
            F.kl_div(F.log_softmax(hidden @ table.T, -1), target, reduction="batchmean")
            for hidden, target in ((last, batch[:, -1]), (inside, batch[everything, middle]))
        ]
        return (losses[0] + losses[1]) / 2

    def outer_loss(self, params: Weights, items: Tensor, lengths: Tensor, targets: Tensor, features: Tensor) -> Tensor:
        """Return the next-item loss of real prefixes and the distance of their features to the teacher's."""
        table = params["item_embedding"]
        padding = torch.arange(items.shape[1]) >= lengths.unsqueeze(1)
        hidden = self.student(params, F.embedding(items, table), padding, False)
        hidden = hidden[torch.arange(len(items)), lengths - 1]
        loss = F.cross_entropy(hidden @ table[1:].T, targets - 1)
        return loss + self.feature_weight * F.mse_loss(hidden, features)

    def _adam(
        self, params: Weights, first: Weights, second: Weights, slopes: tuple[Tensor, ...], step: int
    ) -> tuple[Weights, Weights, Weights]:
        new_params, new_first, new_second = {}, {}, {}
        for (name, value), slope in zip(params.items(), slopes, strict=True):
            slope = slope + self.decay * value
            new_first[name] = 0.9 * first[name] + 0.1 * slope
            new_second[name] = 0.999 * second[name] + 0.001 * slope * slope
            touched = new_second[name] > 0
            root = torch.where(touched, torch.where(touched, new_second[name], 1.0).sqrt(), 0.0)
            update = new_first[name] / (1 - 0.9**step) / (root / (1 - 0.999**step) ** 0.5 + 1e-8)
            new_params[name] = value - self.rate * update
        return new_params, new_first, new_second
