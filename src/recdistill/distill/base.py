"""What every distiller, selector and control is: a frozen record of hyper-parameters with one method."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar, Protocol, runtime_checkable

import torch
from torch import Tensor

from recdistill.bilevel.kernels import PRODUCTS, Kernels
from recdistill.bilevel.optimizer import InnerOptimizer
from recdistill.bilevel.unroll import MODES, Unroll
from recdistill.data.development import Development
from recdistill.data.rows import Rows
from recdistill.errors import OptionError, choose, require_at_least
from recdistill.models import MODELS
from recdistill.models.base import Recommender
from recdistill.progress import SILENT, Progress
from recdistill.rng import Streams
from recdistill.training.trajectory import Trajectory

CPU = torch.device("cpu")


@dataclass(frozen=True)
class Summary:
    """What a distiller returns.

    Args:
        rows: the distilled rows.
        item_factor: the teacher's item table without padding, (V, D), shipped with the rows.
        trace: one record per outer epoch, for the reader of the artifact; empty for selectors.
        seconds: wall time over all resumed parts; 0 where a run cannot be resumed.
        peer_seconds: what training further models on the full data took, now or when they were put into the cache.
    """

    rows: Rows
    item_factor: Tensor
    trace: tuple[dict[str, float], ...] = ()
    seconds: float = 0.0
    peer_seconds: float = 0.0


@dataclass(frozen=True, kw_only=True)
class Engine:
    """How meta-gradients are computed: a matter of time and memory, not of results.

    Args:
        mode: how the window is differentiated, see :class:`~recdistill.bilevel.unroll.Unroll`.
        compile: compile the inner loop; pays after some minutes of distilling.
        product: way to second-order products, one of :data:`~recdistill.bilevel.kernels.PRODUCTS`; ``None`` for the one
            that is faster with SASRec.
        dense_bytes: memory for distributions written out; larger ones are read in tiles, which is slower.
        state_bytes: memory for the students of the window; where it is too little, some are trained again.

    Raises:
        OptionError: a value is unknown or out of its range.
    """

    mode: str = "stepwise"
    compile: bool = False
    product: str | None = None
    dense_bytes: int = 2**28
    state_bytes: int = 2**31

    def __post_init__(self) -> None:
        """Check every field, before a teacher is trained."""
        choose("mode", self.mode, MODES)
        if self.product is not None:
            choose("product", self.product, PRODUCTS)
        require_at_least(0, dense_bytes=self.dense_bytes)
        require_at_least(1, state_bytes=self.state_bytes)

    def unroll(self, optimizer: InnerOptimizer, window: int) -> Unroll:
        """Return an estimator; keep it, because recordings live in it."""
        product = self.product or ("forward_over_reverse" if self.compile else "double_backward")
        kernels = Kernels(product=product, record=self.compile, compile=self.compile)
        return Unroll(optimizer=optimizer, window=window, mode=self.mode, kernels=kernels, state_bytes=self.state_bytes)


@dataclass(frozen=True, kw_only=True)
class RunContext:
    """Where a run happens.

    Args:
        state: file for the state of an unfinished run, or ``None`` to keep none.
        cache: folder of models trained on the full data, for methods that train some; ``None`` to keep none.
        progress: told about every step.
        device: where tensors live.
        engine: how meta-gradients are computed.
    """

    state: Path | None = None
    cache: Path | None = None
    progress: Progress = SILENT
    device: torch.device = CPU
    engine: Engine = field(default_factory=Engine)


@runtime_checkable
class Distiller(Protocol):
    """A way to make a small dataset from a large one.

    Implementations are frozen dataclasses, with the budget among their fields.
    """

    method: ClassVar[str]

    @property
    def num_rows(self) -> int:
        """Sequences to make; 0 where that has no meaning."""
        ...

    @property
    def length(self) -> int:
        """Items per sequence; 0 where that has no meaning."""
        ...

    def check(self, train: Development) -> None:
        """Raise when the data cannot give what is asked for; called before a teacher is trained.

        Raises:
            OptionError: the budget is larger than the data, or the data lack what the method needs.
        """
        ...

    def distill(
        self,
        train: Development,
        teacher: Trajectory,
        previous: Summary | None,
        rng: Streams,
        context: RunContext,
    ) -> Summary:
        """Return a summary of ``train``.

        Args:
            train: training and validation events.
            teacher: a model trained on ``train``, with the weights of every epoch.
            previous: a summary to continue from; methods that do not stream ignore it.
            rng: named random streams.
            context: where to keep state and report progress.
        """
        ...


def check_budget(num_rows: int, length: int, *, shortest: int) -> None:
    """Raise when a budget of ``num_rows`` sequences of ``length`` items makes no sense.

    Raises:
        OptionError: fewer than one row, or rows shorter than ``shortest``.
    """
    if num_rows < 1:
        raise OptionError("--budget", f"{num_rows}x{length}", fix="needs at least 1 sequence")
    if length < shortest:
        raise OptionError("--budget", f"{num_rows}x{length}", fix=f"needs sequences of at least {shortest} items")


def check_room(num_rows: int, length: int, train: Development) -> None:
    """Raise when a budget is larger than the training data.

    Raises:
        OptionError: more rows than users with two training events, or more items than training events.
    """
    usable = int((train.histories.train_lengths() >= 2).sum())
    if num_rows > usable:
        raise OptionError(
            "--budget",
            f"{num_rows}x{length}",
            fix=f"asks for {num_rows} sequences, and {train.name} has {usable} users with two training events; "
            f"ask for at most {usable}",
        )
    if num_rows * length > train.train_interactions:
        raise OptionError(
            "--budget",
            f"{num_rows}x{length}",
            fix=f"is {num_rows * length} items, more than the {train.train_interactions} training events of "
            f"{train.name}; ask for less",
        )


def check_reads(num_rows: int, length: int, inputs: int, teacher: Trajectory) -> None:
    """Raise when a teacher cannot read whole rows of a budget.

    Args:
        num_rows, length: the budget.
        inputs: items of a row that a model reads: all, or all but the last.
        teacher: of which model.

    Raises:
        OptionError: the teacher reads fewer.
    """
    width = int(teacher.header["config"]["max_seq_len"])
    if inputs > width:
        raise OptionError(
            "--budget",
            f"{num_rows}x{length}",
            fix=f"is longer than the {width} items that the teacher reads; give the teacher a larger --max-seq-len",
        )


def check_item_table(teacher: Trajectory) -> None:
    """Raise when a teacher has no item table, for methods that differentiate in one.

    Raises:
        OptionError: it makes item vectors of texts.
    """
    name = teacher.header["model"]
    if MODELS[name].reads_text:
        raise OptionError(
            "--teacher-model",
            name,
            fix="has no item table to differentiate in; use --method foster, with --option gradient=unroll for a "
            "gradient through training",
        )


def item_factor_of(teacher: Trajectory) -> Tensor:
    """Return the best teacher's item vectors without the row of padding, (V, D)."""
    return item_vectors(teacher.best())


def item_vectors(model: Recommender) -> Tensor:
    """Return a copy of the item vectors of a model with an item table, without the row of padding, (V, D)."""
    return model.item_table.detach()[1:, : model.item_width].clone()
