"""How long work tells that it goes on.

The library never prints. A function that may take long accepts a :class:`Progress`; the command line passes one that
draws bars, and everybody else gets :data:`SILENT`.
"""

from typing import Protocol, runtime_checkable


@runtime_checkable
class Progress(Protocol):
    """Receives what a long computation has done so far."""

    def __call__(self, stage: str, done: int, total: int, note: str = "") -> None:
        """Report ``done`` of ``total`` units of ``stage``; ``note`` is a short text such as the current loss."""
        ...


def silent(stage: str, done: int, total: int, note: str = "") -> None:
    """Ignore every report."""


SILENT: Progress = silent
