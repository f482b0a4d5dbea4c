"""Values between JSON and a database. Pure.

What JSON cannot hold exactly becomes a string: integers beyond 64 bits, decimals that no double stands for, NaN and
infinities. Dates and times are ISO 8601, intervals ISO 8601 durations, bytes base64, UUIDs and network addresses
their usual text.
"""

from __future__ import annotations

import base64
import json
import math
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping


def to_json(value: Any) -> Any:
    """Turn a value from a database into one that JSON and the engine can hold."""
    match value:
        case None | bool() | str():
            return value
        case int():
            return value if -(2**63) <= value < 2**63 else str(value)
        case float():
            return value if math.isfinite(value) else str(value)
        case Decimal():
            return _number(value)
        case datetime() | date() | time():
            return value.isoformat()
        case timedelta():
            return format_interval(value)
        case bytes() | bytearray() | memoryview():
            return base64.b64encode(bytes(value)).decode("ascii")
        case dict():
            return {str(key): to_json(item) for key, item in value.items()}
        case list() | tuple():
            return [to_json(item) for item in value]
        case _:  # UUID, IPv4Network, ranges: what their text says
            return str(value)


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


def to_parameter(value: Any) -> Any:
    """Turn an input's value into a parameter: lists and objects travel as JSON text."""
    if isinstance(value, dict | list):
        return json.dumps(value, ensure_ascii=False)
    return value


def hide_values(message: str, parameters: Mapping[str, Any]) -> str:
    """Replace parameter values that a database quotes in its message."""
    texts = {str(value): name for name, value in parameters.items() if value is not None and value != ""}
    for text in sorted(texts, key=len, reverse=True):
        for quote in ('"', "'"):
            message = message.replace(f"{quote}{text}{quote}", f"<{texts[text]}>")
        if len(text) >= _TELLING:
            message = message.replace(text, f"<{texts[text]}>")
    return message


_TELLING = 4
"""Shortest value, in characters, that is hidden where it stands without quotes; shorter ones are part of words."""
