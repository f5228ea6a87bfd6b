"""The distributional hypothesis as a loss: items that a teacher takes for alike should be alike in synthetic rows.

Two items are *semantically* near when putting one in the place of the other, after the same history, hardly changes
what a fixed teacher predicts next. They are *conditionally* near when the synthetic rows give them like probabilities
at the same place. The loss draws pairs of items and places at random and brings the second distance to the first.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from recdistill.data.batches import SoftItems
from recdistill.errors import OptionError, choose
from recdistill.models.base import Recommender

FORMS = {
    "align": "squared difference of the distances, each divided by its mean",
    "pull": "conditional distance, weighted by how near the items are semantically",
}


@dataclass(frozen=True)
class Places:
    """Pairs of candidates at places of synthetic rows.

    Args:
        rows, positions: the place of each pair; positions from 1, so that there is a history.
        first, second: columns of the two items among the candidates.
    """

    rows: Int[Tensor, " K"]
    positions: Int[Tensor, " K"]
    first: Int[Tensor, " K"]
    second: Int[Tensor, " K"]

    @staticmethod
    def draw(count: int, num_rows: int, length: int, candidates: int, generator: torch.Generator) -> "Places":
        """Return ``count`` pairs of different candidates, each at a place of its own, all uniform.

        Raises:
            OptionError: fewer than two candidates or positions.
        """
        if candidates < 2:
            raise OptionError("candidates", candidates, fix="must be 2 or more: the regulariser compares two items")
        if length < 2:
            raise OptionError("length", length, fix="must be 2 or more: a pair is compared after a history")

        def below(bound: int) -> Tensor:
            return torch.randint(bound, (count,), generator=generator)

        first, step = below(candidates), below(candidates - 1) + 1
        return Places(below(num_rows), below(length - 1) + 1, first, (first + step) % candidates)


@dataclass(frozen=True, eq=False)
class DistributionalLoss:
    """The regulariser of FOSTER, rebuilt.

    With ``p_i`` the teacher's distribution over the candidates after the synthetic history and then item ``i``, and
    ``P`` the synthetic distribution at the place,

        d_sem  = 1/2 |p_i - p_j|_1                 total variation, in [0, 1], constant
        d_cond = |log P_i - log P_j|               whatever the number of candidates

    the loss is the mean over pairs of ``w (d_cond / mean d_cond - d_sem / mean d_sem)^2`` (``align``), or of
    ``exp(-d_sem / median d_sem) d_cond`` (``pull``), where the median is constant.

    ``align`` says which items differ more than others, and nothing of how much all of them do: multiplying the logits
    of the rows by a number leaves the quotient as it is, so that it can neither flatten the rows nor sharpen them. With
    a constant mean it does flatten them, the more the flatter they are. The constant ``w = m^2 / (1 + m^2)`` of the
    mean ``m`` of ``d_cond`` keeps it from drowning everything else while the rows are almost uniform.

    Args:
        teacher: fixed, with the vectors of all items in its table.
        form: one of :data:`FORMS`.

    Reference: FOSTER, arXiv 2605.30772, equations 8 to 10.

    Departures: the equations are lost in the text that could be had; this is rebuilt from its prose.
    """

    teacher: Recommender
    form: str = "align"

    def __post_init__(self) -> None:
        """Check every field."""
        choose("regulariser", self.form, FORMS)

    def __call__(self, items: SoftItems, places: Places) -> Float[Tensor, ""]:
        """Return the loss of synthetic rows over candidates, differentiable in their queries."""
        return mismatch(self.semantic(items, places), conditional(items, places), self.form)

    @torch.no_grad()
    def semantic(self, items: SoftItems, places: Places) -> Float[Tensor, " K"]:
        """Return ``d_sem`` of each pair."""
        table = self.teacher.item_table
        candidates = items.candidates_of(table)
        histories = items.at(None).embed(table)[places.rows]  # (K, T, D)
        after = [
            self._after(histories, candidates[column], places, candidates) for column in (places.first, places.second)
        ]
        return 0.5 * (after[0] - after[1]).abs().sum(-1)

    def _after(
        self, histories: Float[Tensor, "K T D"], item: Float[Tensor, "K D"], places: Places, candidates: Tensor
    ) -> Float[Tensor, "K C"]:
        """Return the teacher's distribution after each history, cut at its place, and then an item."""
        width, count = int(places.positions.max()) + 1, torch.arange(len(item), device=item.device)
        rows = histories[:, :width].clone()
        rows[count, places.positions] = item
        hidden = self.teacher.encode(rows, places.positions + 1, places.positions.unsqueeze(1)).squeeze(1)
        return torch.softmax(hidden @ candidates.T, -1)


def conditional(items: SoftItems, places: Places) -> Float[Tensor, " K"]:
    """Return ``d_cond`` of each pair, differentiable in the queries: the softmax's normaliser cancels."""
    queries = items.queries[places.rows, places.positions]  # (K, R)
    return (queries * (items.keys[places.first] - items.keys[places.second])).sum(-1).abs()


def mismatch(semantic: Float[Tensor, " K"], conditional: Float[Tensor, " K"], form: str) -> Float[Tensor, ""]:
    """Return the loss of given distances; ``semantic`` is constant."""
    tiny = torch.finfo(conditional.dtype).tiny
    if form == "pull":
        return (torch.exp(-semantic / semantic.median().clamp(min=tiny)) * conditional).mean()
    mean = conditional.mean().clamp(min=tiny)
    apart = conditional / mean - semantic / semantic.mean().clamp(min=tiny)
    level = mean.detach().square()
    return level / (1 + level) * apart.square().mean()
