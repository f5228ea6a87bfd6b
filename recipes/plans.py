"""What an artifact is made of: a method, a control as large as another artifact, or the first rows of another."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Protocol

from recdistill.data.development import Development
from recdistill.data.distilled import DistilledDataset, size_in_bytes
from recdistill.data.rows import KINDS
from recdistill.distill.base import Distiller, RunContext
from recdistill.distill.coresets.selection import usable_users
from recdistill.distill.run import distill
from recdistill.errors import InputError, choose
from recdistill.study.controls import METHODS, row_bytes
from recdistill.training.trajectory import Trajectory

REVISIONS = {"refined": 2, "foster": 2}
"""Counts up when a method comes to give something else with the same options, so that what it gave before is not taken
for it; 1 for methods that are not named."""


class Plan(Protocol):
    """How an artifact is made."""

    @property
    def name(self) -> str:
        """Folder of the artifact."""
        ...

    @property
    def needs(self) -> Sequence["Plan"]:
        """Artifacts that are read to make this one."""
        ...

    def settings(self) -> dict[str, Any]:
        """Return what decides the rows."""
        ...

    def make(
        self, train: Development, teacher: Trajectory, others: Sequence[Path], seed: int, context: RunContext
    ) -> DistilledDataset:
        """Return the artifact; ``others`` are the folders of what it needs."""
        ...


@dataclass(frozen=True)
class Method:
    """A distiller, selector or control with its budget.

    Args:
        distiller: the method.
        label: tells apart settings of one method at one budget.
    """

    distiller: Distiller
    label: str = ""

    @property
    def name(self) -> str:
        """Method, budget and label."""
        name = f"{self.distiller.method}-{self.distiller.num_rows}x{self.distiller.length}"
        return f"{name}-{self.label}" if self.label else name

    @property
    def needs(self) -> tuple[Plan, ...]:
        """Nothing."""
        return ()

    def settings(self) -> dict[str, Any]:
        """Return the method and its options."""
        method = self.distiller.method
        return {"method": method, "revision": REVISIONS.get(method, 1), **asdict(self.distiller)}  # type: ignore[call-overload]

    def make(
        self, train: Development, teacher: Trajectory, others: Sequence[Path], seed: int, context: RunContext
    ) -> DistilledDataset:
        """Return what the method makes."""
        self.distiller.check(train)
        return distill(train, self.distiller, teacher, seed=seed, context=context)


@dataclass(frozen=True)
class EqualBytes:
    """As many rows of a control as fit into the bytes that another artifact adds to the item factor.

    At most all users that can be a row: where the other artifact is larger than that, so many.

    Args:
        control: key of :data:`~recdistill.study.controls.METHODS`.
        like: the other artifact.
        length: items of a row.
    """

    control: str
    like: Plan
    length: int

    @property
    def name(self) -> str:
        """Control and the artifact it is as large as."""
        return f"{self.control}-as-{self.like.name}"

    @property
    def needs(self) -> tuple[Plan, ...]:
        """The other artifact."""
        return (self.like,)

    def settings(self) -> dict[str, Any]:
        """Return the control, and the settings of the other artifact."""
        return {"method": self.control, "length": self.length, "like": self.like.settings()}

    def make(
        self, train: Development, teacher: Trajectory, others: Sequence[Path], seed: int, context: RunContext
    ) -> DistilledDataset:
        """Return the rows of the control."""
        size = size_in_bytes(others[0])
        method = choose("control", self.control, METHODS)
        count = (size["data"] - size["item_factor"]) // self.row_bytes(train, teacher)
        most = min(len(usable_users(train)), train.train_interactions // self.length)
        made = method(num_rows=max(1, min(count, most)), length=self.length)
        return distill(train, made, teacher, seed=seed, context=context)

    def row_bytes(self, train: Development, teacher: Trajectory) -> int:
        """Return the bytes of one row: ids and length, and half-precision hidden states where there are soft labels."""
        id_bytes = 2 if train.num_items < 1 << 15 else 4
        numbers = teacher.model().item_width if self.control == "random_soft" else 0
        return row_bytes(self.length, numbers, id_bytes)


@dataclass(frozen=True)
class Prefix:
    """The first rows of another artifact.

    Args:
        of: the other artifact.
        num_rows: how many.
    """

    of: Plan
    num_rows: int

    @property
    def name(self) -> str:
        """Number of rows and the other artifact."""
        return f"first-{self.num_rows}-of-{self.of.name}"

    @property
    def needs(self) -> tuple[Plan, ...]:
        """The other artifact."""
        return (self.of,)

    def settings(self) -> dict[str, Any]:
        """Return the number of rows, and the settings of the other artifact."""
        return {"num_rows": self.num_rows, "of": self.of.settings()}

    def make(
        self, train: Development, teacher: Trajectory, others: Sequence[Path], seed: int, context: RunContext
    ) -> DistilledDataset:
        """Return the first rows."""
        return first_rows(DistilledDataset.load(others[0]), self.num_rows)


def first_rows(dataset: DistilledDataset, count: int) -> DistilledDataset:
    """Return an artifact with only the first ``count`` rows of another.

    Raises:
        InputError: it has not so many.
    """
    rows = dataset.rows
    if not 1 <= count <= len(rows):
        raise InputError(f"cannot take the first {count} of {len(rows)} rows")
    shapes = rows.shapes()
    cut = {name: value[:count] if shapes[name].split()[0] == "N" else value for name, value in rows.tensors().items()}
    kept = KINDS[rows.kind].from_tensors(cut, dataset.item_factor)
    return replace(dataset, rows=kept, manifest=dataset.manifest.model_copy(update={"num_rows": count}))
