"""The exceptions of recdistill.

    RecdistillError                 every error raised on purpose
    +-- InputError                  what the user gave is wrong (command line: exit 2)
    |   +-- DataError               a raw file, table, split or budget; carries file, line, column
    |   +-- ArtifactError           a prepared dataset, model, trajectory or distilled dataset on disk
    |   +-- OptionError             an option or a name; carries the nearest right one
    +-- NumericalError              a loss or score became NaN or infinite; carries stage and step
    +-- KernelError                 a model uses an operation that cannot be differentiated as asked
    +-- VerificationError           a certificate does not hold (command line: exit 3)

What is worth knowing and no reason to stop is a RecdistillWarning.

Messages are one line: where, what was found, what to do. Everything else that escapes is a defect (exit 1).
"""

import difflib
from collections.abc import Iterable
from pathlib import Path
from typing import TypeVar

T = TypeVar("T")


class RecdistillError(Exception):
    """Every error that recdistill raises on purpose."""


class InputError(RecdistillError):
    """Something the user gave is wrong; nothing was written."""


class DataError(InputError):
    """A raw file or table does not hold what it must.

    Args:
        problem: what was found, with the offending value.
        fix: what to do about it.
        path: the file or folder.
        line: 1-based line of the file, where there is one.
        column: name or 1-based number of the column.
    """

    def __init__(
        self,
        problem: str,
        *,
        fix: str,
        path: Path | str | None = None,
        line: int | None = None,
        column: str | int | None = None,
    ) -> None:
        self.problem, self.fix = problem, fix
        self.path, self.line, self.column = path, line, column
        where = [str(path)] if path is not None else []
        if line is not None:
            where.append(f"line {line}")
        if column is not None:
            where.append(f"column {column!r}")
        prefix = ", ".join(where) + ": " if where else ""
        super().__init__(f"{prefix}{problem}; {fix}")


class ArtifactError(InputError):
    """A folder written by recdistill is damaged, incomplete, or not what was asked for."""

    def __init__(self, problem: str, *, fix: str, path: Path | str) -> None:
        self.problem, self.fix, self.path = problem, fix, path
        super().__init__(f"{path}: {problem}; {fix}")


class OptionError(InputError):
    """An option has a value that it cannot take."""

    def __init__(self, option: str, value: object, *, fix: str) -> None:
        self.option, self.value, self.fix = option, value, fix
        super().__init__(f"{option}: {value!r} {fix}")


class NumericalError(RecdistillError):
    """A number that must be finite is not."""

    def __init__(self, what: str, *, stage: str, step: int, cause: str) -> None:
        self.stage, self.step, self.cause = stage, step, cause
        super().__init__(f"{stage}, step {step}: {what}; {cause}")


class KernelError(RecdistillError):
    """A model uses an operation that cannot be differentiated as asked; names it and its replacement."""


class VerificationError(RecdistillError):
    """A certificate does not state what is found: it was edited, is of other data, or its training comes out other."""


class RecdistillWarning(UserWarning):
    """Something went another way than was asked for, and the result is as good."""


def choose(option: str, name: str, choices: dict[str, T]) -> T:
    """Return ``choices[name]``, or say which names there are and which is nearest.

    Raises:
        OptionError: when ``name`` is not a key.
    """
    if name in choices:
        return choices[name]
    raise OptionError(option, name, fix=f"is not known{nearest(name, choices)}; choose from {', '.join(choices)}")


def require_at_least(smallest: float, **options: float | None) -> None:
    """Raise when an option is smaller than ``smallest`` or NaN; ``None`` stands for an option that is not set.

    Raises:
        OptionError: naming the option and its value.
    """
    for name, value in options.items():
        if value is not None and not value >= smallest:
            raise OptionError(name, value, fix=f"must be {smallest:g} or more")


def require_above(bound: float, **options: float | None) -> None:
    """Raise when an option is not larger than ``bound`` or NaN; ``None`` stands for an option that is not set.

    Raises:
        OptionError: naming the option and its value.
    """
    for name, value in options.items():
        if value is not None and not value > bound:
            raise OptionError(name, value, fix=f"must be above {bound:g}")


def require_rate(**options: float) -> None:
    """Raise when an option does not lie in [0, 1).

    Raises:
        OptionError: naming the option and its value.
    """
    for name, value in options.items():
        if not 0 <= value < 1:
            raise OptionError(name, value, fix="must lie in [0, 1)")


def nearest(name: str, choices: Iterable[str]) -> str:
    """Return ``" (did you mean 'x'?)"`` for the closest of ``choices``, or an empty string."""
    close = difflib.get_close_matches(name.lower(), list(choices), n=1, cutoff=0.5)
    return f" (did you mean {close[0]!r}?)" if close else ""
