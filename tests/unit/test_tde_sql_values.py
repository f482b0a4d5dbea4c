"""Values of the `sql` executor between JSON and databases."""

from __future__ import annotations

import json
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from ipaddress import ip_network
from typing import Any
from uuid import UUID

import pytest

from prokos.resources.sql_text import DATABASES
from prokos.tde.sql.errors import hide_values
from prokos.tde.sql.parameters import to_parameter
from prokos.tde.sql.postgresql import read_interval
from prokos.tde.sql.values import JsonText, converters, format_interval, parse_json, to_json


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (None, None),
        (True, True),
        (2**63 - 1, 2**63 - 1),
        (2**63, "9223372036854775808"),
        (-(2**63) - 1, "-9223372036854775809"),
        (1.5, 1.5),
        (float("nan"), "nan"),
        (float("-inf"), "-inf"),
        (Decimal("12.50"), 12.5),
        (Decimal("12.00"), 12),
        (Decimal("0.1"), 0.1),
        (Decimal("1E+3"), 1000),
        (Decimal("0.12345678901234567890"), "0.12345678901234567890"),
        (Decimal("12345678901234567890.5"), "12345678901234567890.5"),
        (Decimal("1E+100"), 1e100),
        (Decimal("1E+1000"), "1E+1000"),
        (Decimal("NaN"), "NaN"),
        (Decimal("Infinity"), "Infinity"),
        (datetime(2026, 3, 1, 12, 30, tzinfo=UTC), "2026-03-01T12:30:00+00:00"),
        (datetime(2026, 3, 1, 12, 30), "2026-03-01T12:30:00"),  # without a zone
        (date(2026, 3, 1), "2026-03-01"),
        (time(12, 30), "12:30:00"),
        (timedelta(days=1, hours=2, microseconds=500_000), "P1DT7200.5S"),
        (b"\x00\xff", "AP8="),
        (memoryview(b"\x00\xff"), "AP8="),
        (UUID(int=1), "00000000-0000-0000-0000-000000000001"),
        (ip_network("10.0.0.0/8"), "10.0.0.0/8"),
        ([Decimal("0.5"), None], [0.5, None]),
        ({"a": date(2026, 3, 1)}, {"a": "2026-03-01"}),
    ],
)
def test_turns_values_into_json_without_loss(value: Any, expected: Any) -> None:
    converted = to_json(value)
    assert (converted, type(converted)) == (expected, type(expected))
    json.dumps(converted, allow_nan=False)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (timedelta(0), "PT0S"),
        (timedelta(days=3), "P3D"),
        (timedelta(seconds=90), "PT90S"),
        (timedelta(microseconds=1), "PT0.000001S"),
        (timedelta(seconds=10), "PT10S"),
        (-timedelta(days=1, seconds=1), "-P1DT1S"),
    ],
)
def test_writes_intervals_as_iso_8601(value: timedelta, text: str) -> None:
    assert format_interval(value) == text


def test_hides_the_elements_of_a_list() -> None:
    assert (
        hide_values('no such "4111-1111" or 4222', [("ids", ["4111-1111", "4222", None])]) == "no such <ids> or <ids>"
    )


def test_hides_values_that_a_database_quotes() -> None:
    message = "invalid input syntax for type integer: \"4111-1111\": near 'x', 4111-1111 in the index"
    assert hide_values(message, [("card", "4111-1111"), ("x", "x"), ("none", None), ("empty", "")]) == (
        "invalid input syntax for type integer: <card>: near <x>, <card> in the index"
    )


def test_a_column_is_read_as_what_the_settings_say() -> None:
    types: Any = {"a": "text", "b": "json", "c": "boolean"}
    read = converters(["a", "b", "c", "d"], types, "number")
    assert [reader(value) for reader, value in zip(read, (5, '{"x": 1.10}', 1, Decimal("1.10")), strict=True)] == [
        "5", {"x": 1.1}, True, 1.1,
    ]  # fmt: skip
    assert [reader(None) for reader in read] == [None] * 4
    assert read[0](Decimal("1.10")) == "1.10"
    assert read[0]([1, Decimal("1.10")]) == "[1, 1.1]"
    assert read[1](b"[1]") == [1]
    with pytest.raises(ValueError, match="neither 0 nor 1"):
        read[2](2)


def test_a_text_of_a_json_column_is_not_read_again() -> None:
    read = converters(["doc"], {"doc": "json"}, "number")[0]
    assert isinstance(parse_json('"[1]"'), JsonText)
    assert read(parse_json('"[1]"')) == "[1]"


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("PT0S", timedelta(0)),
        ("P1DT2H3M4.000005S", timedelta(days=1, hours=2, minutes=3, seconds=4, microseconds=5)),
        ("P-1DT-2H", timedelta(days=-1, hours=-2)),
        ("P1DT-2H", timedelta(hours=22)),
        ("P1Y", "P1Y"),
        ("P1M", "P1M"),
        ("P1Y2M3DT4H", "P1Y2M3DT4H"),
        ("P9999999999D", "P9999999999D"),
    ],
)
def test_reads_intervals_of_postgresql(text: str, value: Any) -> None:
    assert read_interval(text) == value


@pytest.mark.parametrize(
    ("kind", "value", "postgresql", "mysql", "sqlite"),
    [
        (None, {"a": ["ü"]}, '{"a": ["ü"]}', '{"a": ["ü"]}', '{"a": ["ü"]}'),
        (None, 5, 5, 5, 5),
        ("text", 5, "5", "5", "5"),
        ("text", True, "true", "true", "true"),
        ("integer", "9007199254740993", *[9007199254740993] * 3),
        ("integer", 5.0, 5, 5, 5),
        ("decimal", "12.10", Decimal("12.10"), Decimal("12.10"), "12.10"),
        ("decimal", 0.1, Decimal("0.1"), Decimal("0.1"), "0.1"),
        ("boolean", "false", False, False, False),
        ("timestamp", "2026-03-01T12:00:00+01:00[Europe/Berlin]",
         datetime.fromisoformat("2026-03-01T12:00:00+01:00"), datetime(2026, 3, 1, 11), "2026-03-01T12:00:00+01:00"),
        ("timestamp", "2026-03-01T12:00:00", *[datetime(2026, 3, 1, 12)] * 2, "2026-03-01T12:00:00"),
        ("date", "2026-03-01", *[date(2026, 3, 1)] * 2, "2026-03-01"),
        ("time", "12:30:00@Europe/Berlin", *[time(12, 30)] * 2, "12:30:00"),
        ("interval", "-P1DT0.5S", "P-1DT-0.5S", -timedelta(days=1, seconds=0.5), "P-1DT-0.5S"),
        ("interval", "P2W", "P2W", timedelta(weeks=2), "P2W"),
        ("bytes", "AP8=", *[b"\x00\xff"] * 3),
        ("json", "text", *['"text"'] * 3),
        ("json", 1.5, *["1.5"] * 3),
    ],
)  # fmt: skip
def test_turns_input_into_parameters(kind: Any, value: Any, postgresql: Any, mysql: Any, sqlite: Any) -> None:
    expected = {"postgresql": postgresql, "mysql": mysql, "sqlite": sqlite}
    for database in DATABASES:
        found = to_parameter(value, kind, database)
        assert (found, type(found)) == (expected[database], type(expected[database]))
        assert to_parameter(None, kind, database) is None
