"""DIET: a distilled memory that evolves with a stream of clicks.

What the reference model, the memory and the ids were after one block, and the next block, give the same after it:

1. before anything learns the block: a proxy, begun as the reference model, trains on active units of the memory and is
   judged on samples of the block; the units move along the derivative of that judgement through the training;
2. the reference model learns the block in one pass, with checkpoints on the way;
3. the old units follow its tables; samples of the block become units beside them.

This file says what may be set; :mod:`recdistill.distill.clicks.fold` does it.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, ClassVar

from recdistill.distill.clicks.alignment import ALIGNMENTS
from recdistill.distill.clicks.memory import require_share
from recdistill.errors import OptionError, choose, require_above, require_at_least, require_rate
from recdistill.models.clicks import CLICK_MODELS
from recdistill.models.clicks.base import ClickModel
from recdistill.rng import Streams
from recdistill.training.clicks import ClickRecipe

SELECTIONS = {
    "hardest": "the largest EL2N scores within each label",
    "random": "drawn uniformly",
    "independent": "made up: every field of a unit from another random sample, the label from the reference model",
}


@dataclass(frozen=True, kw_only=True)
class DIET:
    """Streaming dataset distillation for models of clicks.

    When not to use it: where size matters most. Units are vectors in the reference model's tables, which come with
    them; an export of the memory (:mod:`recdistill.distill.clicks.export`) is forty times smaller, and serves models
    with tables of their own.

    Reference: DIET: Learning to Distill Dataset Continually for Recommender Systems; abstract and captions alone could
    be had.

    Departures: everything that these do not state is ours, every rule of the three steps and every default among it.
    """

    method: ClassVar[str] = "diet"

    model: str = "deepfm"
    """Reference model, a key of ``CLICK_MODELS``."""
    model_options: Mapping[str, Any] = field(default_factory=dict)
    """Its arguments beside the fields."""
    training: ClickRecipe = field(default_factory=ClickRecipe)
    """How it learns a block."""
    checkpoints: int = 5
    """Checkpoints in its pass over a block, evenly spaced, at least 1."""
    ratio: float = 0.01
    """Units per sample seen, in (0, 1]."""
    most_units: int | None = None
    """Units that a memory never exceeds; ``None`` for no bound."""
    selection: str = "random"
    """Samples that become units: ``hardest``, ``random`` or ``independent``, which ignores ``softness``."""
    positive_rate: float | None = None
    """Share of clicks among them; that of the block when ``None``."""
    drop: float = 0.05
    """Share of each label's hardest samples that is left out as doubtful, in [0, 1)."""
    softness: float = 1.0
    """Weight of the reference model's chance in a new label, in [0, 1]; 0 for hard labels. The hardest samples are
    those whose labels contradict the model: below 1 they teach the contrary of what the stream says."""
    alignment: str = "lookup"
    """How old units follow the tables: ``lookup``, ``ridge``, ``rotation`` or ``none``."""
    alignment_strength: float = 1e-2
    """How much that map is drawn to the identity, above 0."""
    refresh: float = 0.1
    """Weight of the reference model's chance in an old label, in [0, 1]."""
    epochs: int = 2
    """Epochs of ``steps_per_epoch`` outer steps per block; 0 leaves the units as they are after step 2."""
    steps_per_epoch: int = 20
    """Outer steps in an epoch, at least 1."""
    learning_rate: float = 3e-4
    """Adam step size of vectors, above 0."""
    label_rate: float = 3e-3
    """That of the labels' logits, above 0."""
    window: int = 10
    """Differentiated inner steps, at least 1."""
    max_inner_steps: int = 30
    """Longest inner training; every outer step draws its own length from ``window`` to this."""
    inner_learning_rate: float = 1e-3
    """Adam step size of the proxy, above 0."""
    inner_batch_size: int = 256
    """Active units per inner step, at least 1."""
    active: float = 0.25
    """Share of the memory that a step may move, in (0, 1]."""
    addressing: bool = True
    """Choose targets and active units by their gradients; otherwise both are drawn uniformly."""
    outer_batch_size: int = 1024
    """Real samples that a step is judged on, at least 2."""
    pool: int = 8
    """Samples from which each hard one is chosen, at least 1."""
    uniform: float = 1.0
    """Share of these samples that is drawn uniformly, in [0, 1]; the rest are the hardest of a larger pool. Those
    contradict the model, and units that please them mislead."""
    damping: float = 1e-2
    """Added to the curvature behind influences, above 0."""
    anchor: float = 1e-3
    """Weight of the mean squared distance of vectors from where they began, 0 or more."""
    clip: float = 2.0
    """Largest meta-gradient as a multiple of the running mean of their norms, above 0."""
    held_out: float = 0.1
    """Share of the block, its last samples, on which the units of every epoch are judged by a proxy, and which no outer
    step sees; in (0, 1). Units have room to learn the others by heart."""

    def __post_init__(self) -> None:
        """Check every field."""
        choose("model", self.model, CLICK_MODELS)
        choose("selection", self.selection, SELECTIONS)
        choose("alignment", self.alignment, ALIGNMENTS)
        require_rate(drop=self.drop, held_out=self.held_out)
        require_share(softness=self.softness, refresh=self.refresh, uniform=self.uniform)
        if self.positive_rate is not None:
            require_share(positive_rate=self.positive_rate)
        above = ("alignment_strength", "learning_rate", "label_rate", "inner_learning_rate", "damping", "clip")
        require_above(0, **{name: getattr(self, name) for name in (*above, "ratio", "active", "held_out")})
        for name in ("ratio", "active"):
            if getattr(self, name) > 1:
                raise OptionError(name, getattr(self, name), fix="must lie in (0, 1]")
        counts = ("checkpoints", "steps_per_epoch", "window", "inner_batch_size", "pool", "most_units")
        require_at_least(1, **{name: getattr(self, name) for name in counts})
        require_at_least(2, outer_batch_size=self.outer_batch_size)
        require_at_least(0, epochs=self.epochs, anchor=self.anchor)
        if self.max_inner_steps < self.window:
            raise OptionError("max_inner_steps", self.max_inner_steps, fix=f"must be at least window {self.window}")

    def as_dict(self) -> dict[str, Any]:
        """Return the fields for JSON and for hashes."""
        return asdict(self) | {"model_options": dict(self.model_options)}

    def new_model(self, num_ids: tuple[int, ...], widths: tuple[int, ...], rng: Streams) -> ClickModel:
        """Return the reference model before its first block."""
        return CLICK_MODELS[self.model](num_ids, widths, **self.model_options, generator=rng.torch("reference"))
