"""Options of the form NAME=VALUE, budgets, devices, and the types that several commands share."""

import dataclasses
import inspect
import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Annotated, Any, TypeVar

import torch
from cyclopts import Parameter, Token
from pydantic import TypeAdapter, ValidationError

from recdistill.errors import OptionError, choose
from recdistill.models import MODELS

T = TypeVar("T")

Flag = Annotated[bool, Parameter(negative=(), show_default=False)]
Pairs = Annotated[tuple[str, ...], Parameter(negative=(), show_default=False, metavar="NAME=VALUE")]


def whole(kind: object, tokens: Sequence[Token], *, least: int) -> int:
    """Return the whole number of a token; a fraction is refused, not rounded.

    Raises:
        OptionError: it is no whole number, or below ``least``.
    """
    text = tokens[0].value
    if not re.fullmatch(r"[+-]?[0-9]+", text) or int(text) < least:
        raise OptionError(tokens[0].keyword or "", text, fix=f"must be a whole number, {least} or more")
    return int(text)


Seed = Annotated[int, Parameter(converter=partial(whole, least=0), allow_leading_hyphen=True)]
Count = Annotated[int, Parameter(converter=partial(whole, least=1), allow_leading_hyphen=True)]


def parse_pairs(option: str, pairs: Sequence[str]) -> dict[str, Any]:
    """Return ``NAME=VALUE`` texts as a dict; values are JSON where they parse, else text.

    Raises:
        OptionError: a text has no ``=``, or a name is given twice.
    """
    values: dict[str, Any] = {}
    for pair in pairs:
        name, equals, text = pair.partition("=")
        name = name.strip().replace("-", "_")
        if not equals or not name:
            raise OptionError(option, pair, fix=f"is not of the form NAME=VALUE; write {option} {name or 'NAME'}=VALUE")
        if name in values:
            raise OptionError(option, pair, fix=f"gives {name} a second time; give it once")
        try:
            values[name] = json.loads(text)
        except json.JSONDecodeError:
            values[name] = text
    return values


def make_record(option: str, record: type[T], values: Mapping[str, Any]) -> T:
    """Return a frozen dataclass made from named values.

    Raises:
        OptionError: a name is not a field (the nearest one is named), or a value has the wrong type or range.
    """
    defaults = defaults_of(record)
    for name in values:
        choose(option, name, defaults)
    try:
        with under(option, defaults):
            return TypeAdapter(record).validate_python(dict(values))
    except ValidationError as error:
        name = str(error.errors()[0]["loc"][0])
        raise refused(f"{option} {name}", values[name], error, defaults[name]) from None


def model_arguments(option: str, model: str, values: Mapping[str, Any]) -> dict[str, Any]:
    """Return arguments of a model with the types that it declares.

    Raises:
        OptionError: the model does not take an argument, or takes it in another type.
    """
    defaults = MODELS[model].options()
    declared = inspect.signature(MODELS[model]).parameters
    made = {}
    for name, value in values.items():
        choose(option, name, defaults)
        try:
            made[name] = TypeAdapter(declared[name].annotation).validate_python(value)
        except ValidationError as error:
            raise refused(f"{option} {name}", value, error, defaults[name]) from None
    return made


def refused(option: str, value: object, error: ValidationError, default: object) -> OptionError:
    """Return the error of a value of the wrong type, with the default as an example of a right one."""
    reason = error.errors()[0]["msg"].removeprefix("Input ")
    return OptionError(option, value, fix=f"is refused: it {reason}; the default is {as_text(default)}")


@contextmanager
def under(option: str, names: Iterable[str]) -> Iterator[None]:
    """Let errors about one of ``names`` say under which option of the command line it was given."""
    try:
        yield
    except OptionError as error:
        if error.option not in names:
            raise
        raise OptionError(f"{option} {error.option}", error.value, fix=error.fix) from None


@contextmanager
def dashed(*names: str) -> Iterator[None]:
    """Let errors about one of ``names`` call it as the option of the command line that it is."""
    try:
        yield
    except OptionError as error:
        if error.option not in names:
            raise
        raise OptionError(f"--{error.option.replace('_', '-')}", error.value, fix=error.fix) from None


def defaults_of(record: type) -> dict[str, Any]:
    """Return the fields of a dataclass and their defaults."""
    return {field.name: field.default for field in dataclasses.fields(record)}


def listed(title: str, values: Mapping[str, Any]) -> str:
    """Return a title and ``NAME=VALUE`` of every value, as the help shows them."""
    return f"{title}: " + " ".join(f"{name}={as_text(value)}" for name, value in values.items())


def as_text(value: object) -> str:
    """Return a value as it is written after ``=``."""
    return value if isinstance(value, str) else json.dumps(value, separators=(",", ":"), default=str)


def parse_budget(text: str) -> tuple[int, int]:
    """Return the two numbers of a budget such as ``30x50``.

    Raises:
        OptionError: it is not two whole numbers with an x between them.
    """
    rows, cross, length = text.lower().partition("x")
    if not cross or not all(number.isascii() and number.isdigit() for number in (rows, length)):
        raise OptionError("--budget", text, fix="is not ROWSxITEMS; write two whole numbers, such as 30x50")
    return int(rows), int(length)


def choose_device(name: str) -> torch.device:
    """Return a torch device that is there.

    Raises:
        OptionError: the name is not a device, or this machine has none such.
    """
    there = {"cpu": torch.device("cpu")}
    if torch.cuda.is_available():
        there["cuda"] = torch.device("cuda")
        there |= {f"cuda:{index}": torch.device("cuda", index) for index in range(torch.cuda.device_count())}
    if name not in there and name.partition(":")[0] == "cuda":
        raise OptionError("--device", name, fix=f"is not on this machine, which has {', '.join(there)}; choose one")
    return choose("--device", name, there)
