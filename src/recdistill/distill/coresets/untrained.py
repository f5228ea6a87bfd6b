"""The item table alone: what a student scores before it has seen a single row."""

from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from recdistill.data.development import Development
from recdistill.distill.coresets.selection import Rowless


@dataclass(frozen=True, kw_only=True)
class Untrained(Rowless):
    """No rows and no counts, only the teacher's item table. Shows how much of an accuracy the table itself carries."""

    method: ClassVar[str] = "untrained"

    def counts(self, train: Development) -> Float[Tensor, " V1"]:
        """Return zeros."""
        return torch.zeros(train.num_items + 1)
