"""Raw columns to typed ones: identifiers, numbers and times; the first bad value is named."""

import polars as pl

from recdistill.data.origin import Origin
from recdistill.errors import choose

LATEST = 4_102_444_800
"""2100-01-01 in seconds since 1970 UTC; no timestamp may be later."""

PER_SECOND = {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}
"""Units of a numeric timestamp: how many make a second."""

TIME_UNITS = {**dict.fromkeys(PER_SECOND, "number"), "iso": "date-time"}
"""Values of the option ``time_unit``."""

_UNIT_WORDS = {"ms": "milliseconds", "us": "microseconds", "ns": "nanoseconds"}
_MICRO = 10**6


def _first(mask: pl.Series) -> int | None:
    """Return the first row where ``mask`` is true."""
    found = mask.fill_null(value=False).arg_true()
    return int(found[0]) if len(found) else None


def identifiers(column: pl.Series, origin: Origin) -> pl.Series:
    """Return ids as strings.

    Raises:
        DataError: an id is missing or blank.
    """
    if column.dtype.is_float() and bool((column.drop_nulls() % 1 == 0).all()):
        column = column.cast(pl.Int64, strict=False)  # a table that passed through pandas with missing values
    text = column.cast(pl.String)
    row = _first(text.is_null() | (text.str.strip_chars() == ""))
    if row is not None:
        raise origin.error(row, column.name, f"the {column.name} is empty", "give the row an id or remove it")
    return text


def numbers(column: pl.Series, origin: Origin) -> pl.Series:
    """Return finite numbers as Float64.

    Raises:
        DataError: a value is missing, not a number, or not finite.
    """
    values = _stripped(column).cast(pl.Float64, strict=False)
    row = _first(values.is_null() | ~values.is_finite())
    if row is not None:
        raise origin.error(
            row, column.name, f"{_told(column[row])} is not a number", f"correct or remove this {column.name}"
        )
    return values


def whole_numbers(column: pl.Series, origin: Origin) -> pl.Series:
    """Return whole numbers as Int64.

    Raises:
        DataError: a value is missing or not a whole number.
    """
    values = numbers(column, origin)
    row = _first(values % 1 != 0)
    if row is not None:
        raise origin.error(
            row,
            column.name,
            f"{_told(column[row])} is not a whole number",
            f"correct or remove this {column.name}",
        )
    return values.cast(pl.Int64)


def microseconds(column: pl.Series, origin: Origin, unit: str | None) -> pl.Series:
    """Return times as Int64 microseconds since 1970 UTC.

    Args:
        column: numbers, date-times (without a zone: UTC), or text of either.
        origin: where the rows came from.
        unit: ``s``, ``ms``, ``us``, ``ns`` or ``iso``; None takes it from the values: date-times or seconds.

    Raises:
        DataError: a value is not a time, or lies outside 1970-01-01 .. 2100-01-01.
        OptionError: the unit is not known.
    """
    if unit is not None:
        choose("--time-unit", unit, TIME_UNITS)
    if column.dtype == pl.Date or isinstance(column.dtype, pl.Datetime):
        return _in_range(column, _instants(column), origin, "s")
    if unit == "iso" or (unit is None and _looks_like_date(column)):
        return _in_range(column, _dates(column, origin), origin, "s")
    unit = unit or "s"
    return _in_range(column, _clock_numbers(column, origin, PER_SECOND[unit]), origin, unit)


def _instants(column: pl.Series) -> pl.Series:
    """Return microseconds of a column of dates or date-times."""
    if isinstance(column.dtype, pl.Datetime) and column.dtype.time_zone is not None:
        column = column.dt.convert_time_zone("UTC").dt.replace_time_zone(None)
    return column.cast(pl.Datetime("us")).cast(pl.Int64)


def _looks_like_date(column: pl.Series) -> bool:
    """Return whether the first value is the text of a date."""
    first = column.drop_nulls().head(1)
    return column.dtype == pl.String and bool(len(first)) and bool(first.str.contains(r"^\s*\d{4}-\d\d-\d\d")[0])


def _dates(column: pl.Series, origin: Origin) -> pl.Series:
    """Return microseconds of ISO 8601 texts."""
    name = pl.col(column.name)
    text = name.cast(pl.String).str.strip_chars().str.replace("[Tt]", " ").str.replace("[Zz]$| ?UTC$", "+00:00")
    zoned = text.str.to_datetime("%Y-%m-%d %H:%M:%S%.f%#z", strict=False, time_unit="us", time_zone="UTC")
    plain = [
        text.str.to_datetime(form, strict=False, time_unit="us") for form in ("%Y-%m-%d %H:%M:%S%.f", "%Y-%m-%d %H:%M")
    ]
    day = text.str.to_date("%Y-%m-%d", strict=False).cast(pl.Datetime("us"))
    merged = pl.coalesce(zoned.dt.replace_time_zone(None), *plain, day).cast(pl.Int64)
    values = column.to_frame().select(merged).to_series()
    row = _first(values.is_null())
    if row is not None:
        raise origin.error(
            row,
            column.name,
            f"{_told(column[row])} is not a date-time",
            "write times such as 2020-01-31 or 2020-01-31T12:00:00Z",
        )
    return values


def _clock_numbers(column: pl.Series, origin: Origin, per_second: int) -> pl.Series:
    """Return microseconds of numbers counted in ``1 / per_second`` seconds."""
    text = _stripped(column)
    whole = text.cast(pl.Int64, strict=False) if not column.dtype.is_float() else None
    if whole is None or whole.null_count():
        real = text.cast(pl.Float64, strict=False)
        row = _first(real.is_null() | ~real.is_finite())
        if row is not None:
            raise origin.error(
                row,
                column.name,
                f"timestamp {_told(column[row])} is not a number",
                "write seconds since 1970-01-01 UTC, or dates and --time-unit iso",
            )
        return (real * (_MICRO / per_second)).clip(-(2.0**62), 2.0**62).cast(pl.Int64)
    if per_second > _MICRO:
        return whole // (per_second // _MICRO)
    factor = _MICRO // per_second
    limit = 2**62 // factor
    return whole.clip(-limit, limit) * factor


def _in_range(column: pl.Series, micro: pl.Series, origin: Origin, unit: str) -> pl.Series:
    """Return ``micro`` when every time lies in 1970 .. 2100, else name the first that does not."""
    row = _first(micro.is_null() | (micro < 0) | (micro > LATEST * _MICRO))
    if row is None:
        return micro
    problem = f"timestamp {_told(column[row])} is outside 1970-01-01 .. 2100-01-01"
    finer = _finer_unit(micro[row], unit)
    if finer is None:
        raise origin.error(row, column.name, problem, "correct or remove the row")
    hint = f"{problem} when read in {unit}; it looks like {_UNIT_WORDS[finer]}"
    raise origin.error(row, column.name, hint, f"pass --time-unit {finer}")


def _finer_unit(micro: int | None, unit: str) -> str | None:
    """Return the finer unit in which a too large time would be valid."""
    if micro is None or micro < 0:
        return None
    for name in ("ms", "us", "ns"):
        if PER_SECOND[name] > PER_SECOND[unit] and micro // (PER_SECOND[name] // PER_SECOND[unit]) <= LATEST * _MICRO:
            return name
    return None


def _stripped(column: pl.Series) -> pl.Series:
    """Return text without the blanks around it, and anything else unchanged."""
    return column.str.strip_chars() if column.dtype == pl.String else column


def _told(value: object) -> str:
    """Return a value as it is shown in a message, short."""
    text = "an empty value" if value is None or value == "" else repr(value)
    return text if len(text) <= 60 else text[:57] + "..."


def with_types(frame: pl.DataFrame, keep: tuple[str, ...] = ()) -> pl.DataFrame:
    """Return the frame with columns of text that hold only numbers turned into numbers.

    Texts with leading zeros, such as postal codes, stay text.

    Args:
        frame: columns of text.
        keep: names of columns to leave alone.
    """
    return frame.with_columns(
        _typed(column) for column in frame if column.dtype == pl.String and column.name not in keep
    )


def _typed(column: pl.Series) -> pl.Series:
    """Return the column as Int64 or Float64 when every value is one and none would look different."""
    present = column.drop_nulls()
    if not len(present) or present.str.contains(r"^[+-]?0\d").any():
        return column
    for dtype in (pl.Int64, pl.Float64):
        cast = column.cast(dtype, strict=False)
        if cast.null_count() == column.null_count():
            return cast
    return column
