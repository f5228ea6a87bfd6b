"""Item counts without sequences: the popularity ranking, as an artifact."""

from dataclasses import dataclass
from typing import ClassVar

import torch

from recdistill.data.development import Development
from recdistill.data.rows import CountRows
from recdistill.distill.base import RunContext, Summary, item_factor_of
from recdistill.rng import Streams
from recdistill.training.trajectory import Trajectory


@dataclass(frozen=True, kw_only=True)
class PopularityCounts:
    """How often each item occurs in the training part; made for the model ``popularity``."""

    method: ClassVar[str] = "popularity"

    num_rows: int = 0
    """Of no effect."""
    length: int = 0
    """Of no effect."""

    def check(self, train: Development) -> None:
        """Accept any data."""

    def distill(
        self,
        train: Development,
        teacher: Trajectory,
        previous: Summary | None,
        rng: Streams,
        context: RunContext,
    ) -> Summary:
        """Return the counts."""
        counts = train.histories.train_counts(train.num_items)
        return Summary(CountRows(torch.from_numpy(counts).float()), item_factor_of(teacher))
