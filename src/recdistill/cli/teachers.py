"""Options of the teacher, shared by the commands that need one."""

from dataclasses import dataclass
from pathlib import Path

from cyclopts import Parameter

from recdistill.cli.messages import cache_folder, make_record, parse_pairs
from recdistill.data.development import Development
from recdistill.distill.teacher import TeacherSpec, teach
from recdistill.errors import ArtifactError
from recdistill.progress import Progress
from recdistill.training.fit import TrainingRecipe
from recdistill.training.trajectory import Trajectory


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class TeacherOptions:
    """Which teacher a distillation learns from."""

    teacher: Path | None = None
    """Folder of a teacher trained before; otherwise one is trained, and kept in the cache."""
    teacher_model: str = "sasrec"
    """Model of the teacher."""
    teacher_option: tuple[str, ...] = ()
    """Argument of the teacher's model, as NAME=VALUE, such as embedding_dim=32; may be repeated."""
    teacher_recipe: tuple[str, ...] = ()
    """Field of the teacher's training recipe, as NAME=VALUE; may be repeated."""
    max_seq_len: int | None = None
    """Longest history that the teacher reads; 50, or the length in the budget, whichever is larger."""
    teacher_seed: int | None = None
    """Seed of the teacher; the seed of the command when left out."""
    cache: Path | None = None
    """Folder where teachers are kept; $RECDISTILL_CACHE or the user's cache folder when left out."""

    def find(self, train: Development, *, length: int, seed: int, progress: Progress) -> Trajectory:
        """Return the teacher, trained now if need be."""
        if self.teacher is not None:
            found = Trajectory.open(self.teacher)
            if found.header["about"]["hash"] != train.hash:
                raise ArtifactError(
                    f"was trained on other data or another split ({found.header['about']['data']})",
                    fix="give a teacher of this prepared dataset, or leave --teacher out",
                    path=self.teacher,
                )
            return found
        spec = TeacherSpec(
            model=self.teacher_model,
            config=parse_pairs("--teacher-option", self.teacher_option),
            max_seq_len=self.max_seq_len or max(50, length),
            recipe=make_record(
                "--teacher-recipe", TrainingRecipe, parse_pairs("--teacher-recipe", self.teacher_recipe)
            ),
        )
        teacher_seed = seed if self.teacher_seed is None else self.teacher_seed
        return teach(train, spec, teacher_seed, cache_folder(self.cache), progress=progress)
