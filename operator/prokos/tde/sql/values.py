"""Values of a database as JSON. Pure.

What JSON cannot hold exactly becomes text: integers beyond 64 bits, decimals that no double stands for, NaN and
infinities. Dates and times are ISO 8601, intervals ISO 8601 durations, bytes base64, UUIDs and network addresses
their usual text.
"""

from __future__ import annotations

import base64
import json
import math
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from functools import partial
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from prokos.resources.sql_settings import ColumnType

Decimals = Literal["number", "text"]


class JsonText(str):
    """A text that a driver has read out of a JSON column already."""

    __slots__ = ()


def parse_json(text: str | bytes) -> Any:
    """Read a JSON text without loss.

    Raises:
        ValueError: It is not JSON.
    """
    value = json.loads(text, parse_float=Decimal, parse_constant=_refuse)
    return JsonText(value) if isinstance(value, str) else value


def _refuse(name: str) -> Any:
    raise ValueError(f"{name} is not JSON")


def to_json(value: Any, decimals: Decimals = "number") -> Any:
    """Turn a value from a database into one that JSON and the engine can hold."""
    match value:
        case None | bool() | str():
            return value
        case int():
            return value if -(2**63) <= value < 2**63 else str(value)
        case float():
            return value if math.isfinite(value) else str(value)
        case Decimal():
            return str(value) if decimals == "text" else _number(value)
        case datetime() | date() | time():
            return value.isoformat()
        case timedelta():
            return format_interval(value)
        case bytes() | bytearray() | memoryview():
            return base64.b64encode(bytes(value)).decode("ascii")
        case dict():
            return {str(key): to_json(item, decimals) for key, item in value.items()}
        case list() | tuple():
            return [to_json(item, decimals) for item in value]
        case _:  # UUID, IPv4Network, ranges: what their text says
            return str(value)


def converters(
    columns: Iterable[str], types: Mapping[str, ColumnType], decimals: Decimals
) -> list[Callable[[Any], Any]]:
    """What turns the values of each column into JSON."""
    readers: dict[str, Callable[[Any], Any]] = {
        "text": partial(_as_text, decimals),
        "json": partial(_as_json, decimals),
        "boolean": _as_boolean,
    }
    usual = partial(to_json, decimals=decimals)
    return [readers[types[column]] if column in types else usual for column in columns]


def _as_text(decimals: Decimals, value: Any) -> str | None:
    converted = to_json(value, "text")
    if converted is None or isinstance(converted, str):
        return converted
    return json.dumps(to_json(value, decimals), ensure_ascii=False)


def _as_json(decimals: Decimals, value: Any) -> Any:
    if isinstance(value, bytes | bytearray | memoryview):
        value = bytes(value).decode()
    is_text = isinstance(value, str) and not isinstance(value, JsonText)
    return to_json(parse_json(value) if is_text else value, decimals)


def _as_boolean(value: Any) -> bool | None:
    if value is None or isinstance(value, bool):
        return value
    if value in (0, 1):
        return bool(value)
    raise ValueError("it is neither 0 nor 1")


def _number(value: Decimal) -> int | float | str:
    if value == value.to_integral_value() and value.is_finite() and abs(value) < 2**63:
        return int(value)
    number = float(value)
    # A double is written with as many digits as tell it from its neighbours; if those are the decimal's, nothing
    # is lost.
    return number if math.isfinite(number) and Decimal(repr(number)) == value else str(value)


def format_interval(value: timedelta) -> str:
    """Write a length of time as an ISO 8601 duration, which FEEL's `duration()` reads."""
    sign = "-" if value < timedelta(0) else ""
    value = abs(value)
    seconds = value.seconds + value.microseconds / 1_000_000
    days = f"{value.days}D" if value.days else ""
    clock = f"T{seconds:.6f}".rstrip("0").rstrip(".") + "S" if seconds or not days else ""
    return f"{sign}P{days}{clock}"


def raw_size(value: Any) -> int:
    """Bytes or characters of a value that may be large, before anything is made of it."""
    return value.nbytes if isinstance(value, memoryview) else len(value) if isinstance(value, str | bytes) else 0
