"""TD3: Tucker-decomposed synthetic sequences, learnt by bi-level optimisation.

Each outer step starts a student from an early checkpoint of the teacher, trains it for a random number of steps on the
synthetic rows, judges it on a batch of real prefixes and moves the factors along the meta-gradient of that judgement.
"""

from dataclasses import dataclass
from typing import ClassVar, Literal

from jaxtyping import Float
from torch import Tensor

from recdistill.data.development import Development
from recdistill.distill.bilevel_sequences import BilevelSequences
from recdistill.distill.synthetic import TuckerSequences
from recdistill.distill.user_start import start_from_users
from recdistill.errors import OptionError, choose, require_at_least
from recdistill.rng import Streams


@dataclass(frozen=True, kw_only=True)
class TD3(BilevelSequences):
    """Tucker decomposition based dataset distillation for sequential recommendation.

    The defaults are the paper's algorithm with the author's settings for ML-100k. The fields ``pad_column``,
    ``carry_over``, ``pool_draw``, ``outer_dropout``, ``shuffle`` and ``teacher_dropout`` switch the habits of the
    published code on.

    Reference: TD3: Tucker Decomposition Based Dataset Distillation Method for Sequential Recommendation, WWW 2025,
    arXiv 2502.02854, section 3.

    Departures: padding is masked out of the softmax. The random middle target starts at ``min(5, length // 2)``, not
    always at 5. One encoder pass serves both inner targets, which is exact for causal students apart from dropout. The
    cross-entropy stands for the divergence: they differ by a constant of the inner loop. Feature alignment is a mean
    over batch and width, as in the code; the paper's sum would swamp the test loss at these batch sizes. Teacher
    features are recorded without dropout, the real batches are shuffled.
    """

    method: ClassVar[str] = "td3"

    rank: int = 8
    """Rank of the user and of the time factor (d1 = d2), at least 1."""
    pad_column: bool = False
    """Let padding be an ordinary column of the softmax (code)."""
    init: Literal["random", "users"] = "random"
    """Begin at nearly uniform rows (paper), or at random users (ours)."""
    init_smoothing: float = 0.1
    """Probability spread over all items when beginning at users, in (0, 1)."""

    def __post_init__(self) -> None:
        """Check every field."""
        super().__post_init__()
        require_at_least(1, rank=self.rank)
        choose("init", self.init, dict.fromkeys(("random", "users")))
        if not 0 < self.init_smoothing < 1:
            raise OptionError("init_smoothing", self.init_smoothing, fix="must lie in (0, 1)")

    def synthetic(self, train: Development, item_factor: Float[Tensor, "V R"], rng: Streams) -> TuckerSequences:
        """Return rows on the frozen item factor, nearly uniform or near to random users."""
        made = TuckerSequences(
            self.num_rows,
            self.length,
            self.rank,
            item_factor,
            pad_column=self.pad_column,
            generator=rng.torch("factors"),
        )
        if self.init == "users":
            start_from_users(made, train, smoothing=self.init_smoothing, rng=rng.child("init"))
        return made
