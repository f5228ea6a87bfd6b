"""Command lines called in this process, a tiny log, and the commands of a straight line over it."""

import contextlib
import io
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from recdistill.cli import run

TEACHER = ("--max-seq-len", "8", "--teacher-recipe", "epochs=1")
for pair in ("embedding_dim=8", "num_blocks=1", "num_heads=1", "inner_dim=8"):
    TEACHER += ("--teacher-option", pair)
TD3 = ("--budget", "3x6")
for pair in ("epochs=3", "max_inner_steps=3", "window=2", "pool=[0,1]", "judge_steps=3", "outer_batch_size=128"):
    TD3 += ("--option", pair)
"""Arguments that make a teacher and a distillation small enough for a second."""


@dataclass(frozen=True)
class Result:
    """What a command line came to."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        """Standard output as the one JSON document that it must be."""
        return json.loads(self.out)

    @property
    def complaint(self) -> str:
        """Standard error as the one line that it must be."""
        assert self.err.endswith("\n"), self.err
        assert self.err.count("\n") == 1, self.err
        assert self.out == ""
        return self.err.removesuffix("\n")


def call(*arguments: object) -> Result:
    """Return what a command line comes to in this process."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = run([str(argument) for argument in arguments])
    return Result(code, out.getvalue(), err.getvalue())


@dataclass(frozen=True)
class Line:
    """The folders of a straight line that was run once, and what each command printed as JSON."""

    folder: Path
    printed: dict[str, Any]

    def __getitem__(self, name: str) -> Path:
        """Return one of the folders."""
        return self.folder / name

    @property
    def teacher(self) -> Path:
        """The folder of the teacher in the cache."""
        return next((self.folder / "cache").iterdir())


COMMANDS: dict[str, Sequence[str]] = {
    "prepared": ("prepare", "log.csv", "prepared"),
    "other": ("prepare", "other.csv", "other"),
    "clockless": ("prepare", "log.csv", "clockless", "--columns", "position=@row"),
    "td3": ("distill", "prepared", "td3", *TD3, *TEACHER),
    "popularity": ("distill", "prepared", "popularity", "--method", "popularity", *TEACHER),
    "untrained": ("distill", "prepared", "untrained", "--method", "untrained", *TEACHER),
    **{
        name: ("distill", "prepared", name, "--method", name, "--budget", "3x6", *TEACHER)
        for name in ("random", "random_soft", "longest", "most_recent")
    },
    "model": ("train", "td3", "model", "--items", "given", "--valid", "prepared", "--recipe", "epochs=2"),
    "counts": ("train", "popularity", "counts", "--model", "popularity"),
}


def entries(folder: Path) -> list[str]:
    """Return the names of everything in a folder, hidden or not."""
    return sorted(entry.name for entry in folder.iterdir())
