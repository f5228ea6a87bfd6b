"""The item table alone: what a student scores before it has seen a single row."""

from dataclasses import dataclass
from typing import ClassVar

import torch

from recdistill.data.development import Development
from recdistill.data.rows import CountRows
from recdistill.distill.base import RunContext, Summary, item_factor_of
from recdistill.rng import Streams
from recdistill.training.trajectory import Trajectory


@dataclass(frozen=True, kw_only=True)
class Untrained:
    """No rows and no counts, only the teacher's item table. Shows how much of an accuracy the table itself carries."""

    method: ClassVar[str] = "untrained"

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
        """Return the item table."""
        return Summary(CountRows(torch.zeros(train.num_items + 1)), item_factor_of(teacher))
