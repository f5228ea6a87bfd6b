"""Farzi: low-rank synthetic sequences with a decoder of their own, learnt by bi-level optimisation.

The rows are ``softmax(D M^T / tau)`` over items. Latent vectors ``D`` and decoder ``M`` are both learnt, where TD3
learns small factors on top of the teacher's item table.
"""

from dataclasses import dataclass
from typing import Any, ClassVar

from jaxtyping import Float
from torch import Tensor

from recdistill.data.development import Development
from recdistill.distill.bilevel_sequences import BilevelSequences
from recdistill.distill.synthetic import LowRankSequences
from recdistill.errors import require_above, require_at_least
from recdistill.rng import Streams

TD3_OBJECTIVE: dict[str, Any] = {"inner_objective": "last_and_middle", "feature_weight": 1.0}
"""The losses of TD3: augmented learner training and feature space alignment."""


@dataclass(frozen=True, kw_only=True)
class Farzi(BilevelSequences):
    """Distillation of sequences into a latent summary and a decoder.

    The defaults are the baseline of TD3's comparison: TD3's trainer, its augmented learner training and feature
    alignment off. :meth:`with_td3_objective` switches both on, so that only the parametrisation differs from TD3.

    The student reads the rows as distributions written out, ``num_rows length V`` numbers, because tiles hold the
    items' side of the softmax fixed; where that is more than the engine's ``dense_bytes`` it is an error.

    Reference: Sachdeva et al., Farzi Data: Autoregressive Data Distillation, 2023, arXiv 2310.09983; as run in TD3's
    comparison, arXiv 2502.02854, section 4.

    Departures: the gradient goes back through a random truncated window (RaT-BPTT) and the exact adjoint of Adam.
    ``adjoint="folded"`` is the published approximation. The students start from the trajectory of one teacher, not of
    several. The decoder's bound of initialisation has the number of items for its fan-in, as in TD3's comparison.
    """

    method: ClassVar[str] = "farzi"

    latent_dim: int = 32
    """Width of the latent vectors and of the decoder, at least 1."""
    temperature: float = 1.0
    """Divides the logits (tau), above 0; the start, where it is learnt."""
    learn_temperature: bool = False
    """Learn the logarithm of the temperature too."""
    inner_objective: str = "last"
    """Targets of the student: ``last``, ``last_and_middle`` (augmented learner training) or ``all``."""
    feature_weight: float = 0.0
    """Weight of feature space alignment (w_F); 0 switches it off."""

    def __post_init__(self) -> None:
        """Check every field."""
        super().__post_init__()
        require_at_least(1, latent_dim=self.latent_dim)
        require_above(0, temperature=self.temperature)

    @staticmethod
    def with_td3_objective(**options: Any) -> "Farzi":
        """Return Farzi's parametrisation under the losses of TD3: the fair test of the parametrisation alone.

        Args:
            options: other fields of this class.
        """
        return Farzi(**TD3_OBJECTIVE | options)

    def synthetic(self, train: Development, item_factor: Float[Tensor, "V R"], rng: Streams) -> LowRankSequences:
        """Return nearly uniform rows; the item factor has no part in them."""
        return LowRankSequences(
            self.num_rows,
            self.length,
            self.latent_dim,
            len(item_factor),
            temperature=self.temperature,
            learn_temperature=self.learn_temperature,
            generator=rng.torch("factors"),
        )
