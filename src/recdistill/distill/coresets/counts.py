"""Item counts without sequences: the popularity ranking, as an artifact."""

from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from recdistill.data.development import Development
from recdistill.distill.coresets.selection import Rowless


@dataclass(frozen=True, kw_only=True)
class PopularityCounts(Rowless):
    """How often each item occurs in the training part; made for the model ``popularity``."""

    method: ClassVar[str] = "popularity"

    def counts(self, train: Development) -> Float[Tensor, " V1"]:
        """Return the number of training events of each item."""
        return torch.from_numpy(train.histories.train_counts(train.num_items)).float()
