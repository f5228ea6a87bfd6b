"""Tiny real jobs for grids."""

import os
import signal
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from recdistill.progress import SILENT, Progress
from recdistill.study.grid import Job, Workers, work


@dataclass(frozen=True)
class Tiny:
    """A job that writes one line: its process, and the time."""

    key: str
    folder: Path
    needs: Sequence[Job] = ()
    does: str = "write"
    option: int = 0

    @property
    def path(self) -> Path:
        return self.folder / f"{self.key}.txt"

    def settings(self) -> dict[str, object]:
        return {"option": self.option}

    def done(self) -> bool:
        return self.path.exists()

    def run(self, progress: Progress) -> None:
        progress("tiny", 1, 1)
        if self.does == "fail":
            raise ValueError(f"{self.key} cannot be done")
        if self.does == "be killed":
            with (self.folder / "killed.txt").open("a") as stream:
                stream.write(f"{self.key}\n")
            os.kill(os.getpid(), signal.SIGKILL)
        if self.does == "sleep":
            time.sleep(1)
        if self.does != "write nothing":
            with (self.folder / "order.txt").open("a") as stream:
                stream.write(f"{self.key}\n")
            self.path.write_text(f"{os.getpid()} {os.environ.get('RECDISTILL_TEST', '')}")


@dataclass(frozen=True)
class Elsewhere(Tiny):
    """A job whose folder means another place in other processes than in the one that made it."""

    there: str = "there"
    owner: int = field(default_factory=os.getpid)

    @property
    def path(self) -> Path:
        return self.folder / ("here" if os.getpid() == self.owner else self.there) / f"{self.key}.txt"


def order(folder: Path) -> list[str]:
    """Return the keys of the jobs that were done, in the order of their ends."""
    return (folder / "order.txt").read_text().split()


@dataclass
class Here(Workers):
    """Workers of a grid that do every job in this process, at once."""

    size: int = 1
    ended: list[tuple[Job, str | None]] = field(default_factory=list)

    def submit(self, job: Job) -> None:
        try:
            work(job, SILENT)
        except Exception as error:  # told to the grid, as processes do
            self.ended.append((job, f"{type(error).__name__}: {error}"))
        else:
            self.ended.append((job, None))

    def wait(self) -> list[tuple[Job, str | None]]:
        ended, self.ended = self.ended, []
        return ended

    def __enter__(self) -> "Here":
        return self

    def __exit__(self, *_: object) -> None:
        pass
