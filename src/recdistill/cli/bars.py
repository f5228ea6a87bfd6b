"""Progress on standard error: bars on a terminal, a line now and then elsewhere."""

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.progress import Progress as Bars

from recdistill.cli.messages import say
from recdistill.progress import Progress

SECONDS = 15
"""Time between two lines where there is no terminal."""


@contextmanager
def progress_bars() -> Iterator[Progress]:
    """Yield a progress that draws bars on a terminal, and writes a line every 15 seconds elsewhere."""
    if not sys.stderr.isatty():
        yield _Lines()
        return
    columns = (
        TextColumn("{task.description:18}"),
        BarColumn(bar_width=30),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[note]}"),
    )
    with Bars(*columns, console=Console(stderr=True), transient=False) as bars:
        tasks: dict[str, Any] = {}

        def report(stage: str, done: int, total: int, note: str = "") -> None:
            if stage not in tasks:
                tasks[stage] = bars.add_task(stage, total=total, note=note)
            bars.update(tasks[stage], completed=done, total=total, note=note)

        yield report


def called(name: str, progress: Progress) -> Progress:
    """Return ``progress`` under which training is called ``name``."""

    def report(stage: str, done: int, total: int, note: str = "") -> None:
        progress(name if stage == "train" else stage, done, total, note)

    return report


class _Lines:
    """Progress for logs: the first report of a stage after 15 seconds, then one every 15 seconds."""

    def __init__(self) -> None:
        self.last = time.monotonic()

    def __call__(self, stage: str, done: int, total: int, note: str = "") -> None:
        """Write a line when the last one is old enough."""
        if time.monotonic() - self.last >= SECONDS:
            self.last = time.monotonic()
            say(f"{stage} {done}/{total} {note}".rstrip())
