"""Options of the teacher, shared by the commands that need one."""

from dataclasses import dataclass
from pathlib import Path

from cyclopts import Parameter

from recdistill.cli.bars import called
from recdistill.cli.folders import cache_folder, require_kind
from recdistill.cli.options import Count, Pairs, Seed, make_record, model_arguments, parse_pairs, under
from recdistill.data.development import Development
from recdistill.data.text import Catalogue
from recdistill.distill.teacher import TeacherSpec, teach, teacher_folder
from recdistill.errors import ArtifactError, OptionError, choose
from recdistill.models import MODELS
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
    teacher_option: Pairs = ()
    """Argument of the teacher's model, such as embedding_dim=32; may be repeated."""
    teacher_recipe: Pairs = ()
    """Field of the teacher's training recipe, such as epochs=50; may be repeated."""
    max_seq_len: Count | None = None
    """Longest history that the teacher reads; 50, or the length in the budget, whichever is larger."""
    teacher_seed: Seed | None = None
    """Seed of the teacher; the seed of the command when left out."""
    cache: Path | None = None
    """Folder where teachers are kept; $RECDISTILL_CACHE or the user's cache folder when left out."""

    def spec(self, *, length: int) -> TeacherSpec:
        """Return how a teacher is to be trained.

        Raises:
            OptionError: an option of the teacher is wrong.
            ArtifactError: the given teacher is none.
        """
        if self.teacher is not None:
            require_kind("--teacher", self.teacher, "teacher")
        model = choose("--teacher-model", self.teacher_model, MODELS)
        if not model.trainable:
            raise OptionError("--teacher-model", self.teacher_model, fix="has nothing to train; choose sasrec")
        arguments = parse_pairs("--teacher-option", self.teacher_option)
        recipe = parse_pairs("--teacher-recipe", self.teacher_recipe)
        return TeacherSpec(
            model=self.teacher_model,
            config=model_arguments("--teacher-option", self.teacher_model, arguments),
            max_seq_len=self.max_seq_len or max(50, length),
            recipe=make_record("--teacher-recipe", TrainingRecipe, recipe),
        )

    def folder(self, train: Development, spec: TeacherSpec, *, seed: int) -> Path:
        """Return where the given teacher lies, or the one of ``spec`` once it is trained.

        Raises:
            OptionError: an argument of the model is wrong.
        """
        if self.teacher is not None:
            return self.teacher
        with under("--teacher-option", MODELS[spec.model].options()):
            return teacher_folder(train, spec, self.seed(seed), cache_folder(self.cache))

    def seed(self, seed: int) -> int:
        """Return the seed of the teacher in a run of ``seed``."""
        return seed if self.teacher_seed is None else self.teacher_seed

    def find(self, train: Development, spec: TeacherSpec, *, seed: int, progress: Progress) -> Trajectory:
        """Return the given teacher, or the one of ``spec``, trained now if need be."""
        if self.teacher is not None:
            return given_teacher(self.teacher, train, cache_folder(self.cache))
        with under("--teacher-option", MODELS[spec.model].options()):
            return teach(
                train,
                spec,
                self.seed(seed),
                cache_folder(self.cache),
                progress=called("teacher", progress),
            )


def given_teacher(folder: Path, train: Development, cache: Path) -> Trajectory:
    """Return the teacher in ``folder``; what it reads of the items' texts is kept in ``cache``.

    Raises:
        ArtifactError: there is none, or it was trained on other data.
    """
    found = Trajectory.open(folder, Catalogue(train.items, cache))
    about = found.header["about"]
    if about.get("hash") != train.hash:
        raise ArtifactError(
            f"was trained on other data or another split ({about.get('data', 'unknown')})",
            fix="give a teacher of this prepared dataset, or leave --teacher out",
            path=folder,
        )
    return found
