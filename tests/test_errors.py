"""Errors say where, what, and what to do, in one line."""

import pytest

from recdistill.errors import (
    ArtifactError,
    DataError,
    InputError,
    NumericalError,
    OptionError,
    RecdistillError,
    choose,
    nearest,
    require_above,
    require_at_least,
    require_rate,
)


@pytest.mark.parametrize("kind", [DataError, ArtifactError, OptionError])
def test_what_the_user_gave_is_an_input_error(kind: type[Exception]) -> None:
    assert issubclass(kind, InputError)
    assert issubclass(kind, RecdistillError)


def test_a_numerical_error_is_not() -> None:
    assert issubclass(NumericalError, RecdistillError)
    assert not issubclass(NumericalError, InputError)


@pytest.mark.parametrize(
    ("place", "prefix"),
    [
        ({}, ""),
        ({"path": "a.csv"}, "a.csv: "),
        ({"path": "a.csv", "line": 3}, "a.csv, line 3: "),
        ({"path": "a.csv", "line": 3, "column": "time"}, "a.csv, line 3, column 'time': "),
        ({"column": 2}, "column 2: "),
    ],
)
def test_data_errors_name_the_place(place: dict, prefix: str) -> None:
    error = DataError("'x' is no number", fix="mend it", **place)
    assert str(error) == f"{prefix}'x' is no number; mend it"
    assert (error.path, error.line, error.column) == tuple(place.get(key) for key in ("path", "line", "column"))


def test_the_other_messages() -> None:
    assert str(ArtifactError("is missing", fix="make it", path="a/b")) == "a/b: is missing; make it"
    assert str(OptionError("--k", 0, fix="must be 1 or more")) == "--k: 0 must be 1 or more"
    error = NumericalError("the loss is nan", stage="training sasrec", step=7, cause="lower the rate")
    assert str(error) == "training sasrec, step 7: the loss is nan; lower the rate"
    assert (error.stage, error.step, error.cause) == ("training sasrec", 7, "lower the rate")


def test_choose_returns_or_names_the_nearest() -> None:
    choices = {"sasrec": 1, "popularity": 2}
    assert choose("--model", "popularity", choices) == 2
    with pytest.raises(OptionError, match=r"--model: 'SASRek' is not known \(did you mean 'sasrec'\?\)") as caught:
        choose("--model", "SASRek", choices)
    assert "choose from sasrec, popularity" in str(caught.value)
    assert (caught.value.option, caught.value.value) == ("--model", "SASRek")


def test_nothing_near_is_not_suggested() -> None:
    assert nearest("zzz", ["sasrec"]) == ""
    assert nearest("SASREC", ["sasrec", "td3"]) == " (did you mean 'sasrec'?)"


@pytest.mark.parametrize(
    ("check", "good", "bad"),
    [
        (lambda value: require_at_least(1, count=value), (1, 2, None), (0, 0.5, float("nan"))),
        (lambda value: require_above(0, count=value), (1e-9, 3), (0, -1, float("nan"))),
        (lambda value: require_rate(count=value), (0, 0.5), (1, -0.1, float("nan"))),
    ],
)
def test_ranges_are_checked_by_name(check, good: tuple, bad: tuple) -> None:
    for value in good:
        check(value)
    for value in bad:
        with pytest.raises(OptionError, match="count: ") as caught:
            check(value)
        assert caught.value.option == "count"
