"""Controls of a distilled dataset: rows that nobody learnt, in the same bytes or as many.

Every seed of a study draws its own rows, so that the interval of a control holds the luck of the draw. All ship the
teacher's item table, as the distilled dataset does, and the bytes of that table are counted on neither side.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from recdistill.data.development import Development
from recdistill.data.distilled import DistilledDataset, Manifest
from recdistill.distill.base import Distiller, RunContext
from recdistill.distill.coresets.random import Random
from recdistill.distill.coresets.random_soft import RandomSoft
from recdistill.distill.coresets.selection import usable_users
from recdistill.distill.run import distill
from recdistill.distill.teacher import TeacherSpec, teach
from recdistill.errors import InputError, choose
from recdistill.models import MODELS
from recdistill.progress import SILENT, Progress
from recdistill.storage import sha256_of
from recdistill.training.fit import TrainingRecipe
from recdistill.training.trajectory import Trajectory

METHODS: dict[str, type[Random] | type[RandomSoft]] = {"random": Random, "random_soft": RandomSoft}
"""Controls by name: real users, with what they chose next or with a teacher's labels as targets."""


@dataclass(frozen=True, kw_only=True)
class Control:
    """Rows of real users that stand beside a distilled dataset.

    Args:
        method: key of :data:`METHODS`.
        num_rows: users.
        length: items of a user.
        rule: what makes it comparable: ``equal bytes`` or ``equal rows``.
    """

    method: str
    num_rows: int
    length: int
    rule: str

    @property
    def name(self) -> str:
        """How tables call it."""
        return f"{self.method}_{self.num_rows}x{self.length}"

    def distiller(self) -> Distiller:
        """Return what draws the rows."""
        return choose("control", self.method, METHODS)(num_rows=self.num_rows, length=self.length)


def row_bytes(length: int, numbers: int, id_bytes: int = 2) -> int:
    """Return the bytes of a sequence with a label of so many half-precision numbers after each item."""
    return length * (id_bytes + 2 * numbers) + 2


def equal_bytes(method: str, made: DistilledDataset, train: Development) -> Control:
    """Return a control with as many rows as fit into the bytes of the tensors of a distilled dataset's rows.

    At least one, and at most all users: where the dataset is larger than all of them, so many.

    Args:
        method: key of :data:`METHODS`.
        made: the distilled dataset.
        train: what it was made from.
    """
    length = _length(made.manifest)
    size = sum(tensor.numel() * tensor.element_size() for tensor in made.rows.tensors().values())
    numbers = made.item_factor.shape[1] if method == "random_soft" else 0
    id_bytes = 2 if train.num_items < 1 << 15 else 4
    count = size // row_bytes(length, numbers, id_bytes)
    return Control(method=method, num_rows=max(1, min(count, _most(train, length))), length=length, rule="equal bytes")


def equal_rows(method: str, manifest: Manifest, train: Development) -> Control:
    """Return a control with as many rows as a distilled dataset has; its bytes are what they are."""
    length = _length(manifest)
    return Control(
        method=method, num_rows=max(1, min(manifest.num_rows, _most(train, length))), length=length, rule="equal rows"
    )


def _length(manifest: Manifest) -> int:
    """Return the items of a row; those that the teacher reads where the dataset has no rows."""
    return manifest.length or int(manifest.teacher["config"]["max_seq_len"])


def _most(train: Development, length: int) -> int:
    return min(len(usable_users(train)), train.train_interactions // length)


def teacher_spec(teacher: Mapping[str, Any]) -> TeacherSpec:
    """Return how the teacher of a distilled dataset was trained, from what its manifest states.

    Raises:
        InputError: the manifest states something that this version does not know.
    """
    known = choose("teacher of the distilled dataset", teacher["model"], MODELS).options()
    config = {name: value for name, value in teacher["config"].items() if name in known}
    try:
        recipe = TrainingRecipe(**teacher["recipe"])
    except TypeError as error:
        raise InputError(f"the training recipe of the teacher is not one of this version ({error})") from None
    max_seq_len = int(teacher["config"]["max_seq_len"])
    return TeacherSpec(model=teacher["model"], config=config, max_seq_len=max_seq_len, recipe=recipe)


def teacher_of(manifest: Manifest, train: Development, cache: Path, *, progress: Progress = SILENT) -> Trajectory:
    """Return the teacher of a distilled dataset: from the cache, or trained once more as its manifest says.

    Raises:
        InputError: the manifest states a teacher that this version does not know.
        NumericalError: training diverged.
    """
    return teach(train, teacher_spec(manifest.teacher), int(manifest.teacher["seed"]), cache, progress=progress)


def draw_control(control: Control, train: Development, teacher: Trajectory, seed: int, folder: Path) -> Path:
    """Return where the rows of a control for one seed lie; they are drawn unless they are there.

    Args:
        control: which.
        train, teacher: what and whose labels and item table the rows take.
        seed: of the draw.
        folder: below which every control has a folder named by its content.
    """
    about = sha256_of(train.hash, control.method, control.num_rows, control.length, teacher.header["files"], seed)
    path = folder / f"{control.name}-seed-{seed}-{about[:12]}"
    if not path.exists():
        distill(train, control.distiller(), teacher, seed=seed, context=RunContext()).save(path)
    return path
