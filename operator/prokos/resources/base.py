"""What all custom resources share: strictness, names, durations, metadata."""

from __future__ import annotations

import re
from datetime import timedelta
from typing import Annotated, Any, Final

import durationpy
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, PlainSerializer, StringConstraints
from pydantic.alias_generators import to_camel

API_VERSION: Final = "prokos.io/v1alpha1"
"""API group and version of every ProkOS resource."""

NAME_PATTERN = r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$"
NAME_MAX_LENGTH = 47
"""Longest resource name in characters: a Kubernetes name has 63, and the longest suffix we append has 16."""

DURATION_PATTERN: Final = "^(0|([0-9]+([.][0-9]+)?(ns|us|\u00b5s|\u03bcs|ms|s|m|h))+)$"
"""A Go duration without a sign; `µ` is two characters of Unicode. Days are left out as in Go: not all have 24 hours."""

LONGEST_DURATION: Final = timedelta(hours=2_562_047)
"""292 years: Go, and with it the API server, counts nanoseconds in 64 bits."""

LINE_MAX_LENGTH: Final = 2048
"""Longest address or other short text, in characters, that the API server's rules look into: it bounds their cost."""

ITEMS_MAX: Final = 256
"""Most items of a list, and most entries of a mapping, that the API server's rules look into: it bounds their cost."""


class Model(BaseModel):
    """Base of every resource model: unknown fields are refused, YAML is camelCase, values are immutable."""

    model_config = ConfigDict(
        extra="forbid",
        frozen=True,
        alias_generator=to_camel,
        populate_by_name=True,
        ser_json_timedelta="float",
    )


def parse_duration(value: Any) -> Any:
    """Read a Go duration (`500ms`, `30s`, `1m30s`), the notation Kubernetes users write.

    Args:
        value: A string to parse, or a value that is already a `timedelta`.

    Returns:
        The `timedelta`.

    Raises:
        ValueError: The text is not a Go duration, or the value is a bare number, whose unit nobody knows.
    """
    if isinstance(value, timedelta):
        return value
    if isinstance(value, str):
        if not re.fullmatch(DURATION_PATTERN, value):
            raise ValueError(f"{value!r} is not a duration; write for example 500ms, 30s or 5m")
        try:
            duration: timedelta = durationpy.from_str(value)
        except durationpy.DurationError:
            duration = timedelta.max
        if duration > LONGEST_DURATION:
            raise ValueError(f"{value!r} is longer than {format_duration(LONGEST_DURATION)}")
        return duration
    raise ValueError(f"{value!r} is not a duration; give the unit, for example 500ms, 30s or 5m")


def format_duration(value: timedelta) -> str:
    """Write a duration, which is not negative, the way `parse_duration` reads it."""
    seconds, micro = divmod(value // timedelta(microseconds=1), 1_000_000)
    if not seconds:
        return f"{micro}us" if micro % 1_000 else f"{micro // 1_000}ms" if micro else "0"
    hours, minutes, seconds = seconds // 3600, seconds // 60 % 60, seconds % 60
    fraction = f".{micro:06}".rstrip("0") if micro else ""
    last = f"{seconds}{fraction}s" if seconds or micro else ""
    return (f"{hours}h" if hours else "") + (f"{minutes}m" if minutes else "") + last


Duration = Annotated[timedelta, BeforeValidator(parse_duration), PlainSerializer(format_duration, return_type=str)]
"""A length of time, written as a Go duration."""

Name = Annotated[str, StringConstraints(pattern=NAME_PATTERN, min_length=1, max_length=NAME_MAX_LENGTH)]
"""A resource name: lower-case letters, digits and hyphens, at most `NAME_MAX_LENGTH` characters."""


class Metadata(BaseModel):
    """Object metadata; fields that only the API server writes (uid, generation, ...) are read and kept."""

    model_config = ConfigDict(extra="allow", frozen=True, alias_generator=to_camel, populate_by_name=True)

    name: Name
    namespace: str = "default"
    labels: dict[str, str] = Field(default_factory=dict)
    annotations: dict[str, str] = Field(default_factory=dict)
