"""The type checker of the import hook: beartype, with a list of what it could not read.

An annotation that beartype cannot read would stop the import of the whole package. It is left unchecked and noted here
instead, and ``test_annotations.py`` fails while the list is not empty.
"""

from collections.abc import Callable
from typing import Any

from beartype import BeartypeConf, beartype
from beartype.roar import BeartypeDecorHintException

UNREADABLE: list[str] = []
NUMBERS = BeartypeConf(is_pep484_tower=True)
"""An int may stand where a float is asked for, as PEP 484 has it."""


def checked(subject: Callable[..., Any]) -> Callable[..., Any]:
    """Return ``subject`` with its arguments and result checked."""
    try:
        return beartype(conf=NUMBERS)(subject)
    except BeartypeDecorHintException as error:
        UNREADABLE.append(f"{subject.__module__}.{subject.__qualname__}: {error}")
        return subject
