"""Numbers that FEEL would change are found before it sees them."""

from __future__ import annotations

import json

import pytest

from prokos.engine.feel_numbers import changed_number

SOURCES = ["=order.total", "= count", "=copy"]


@pytest.mark.parametrize(
    ("variables", "path"),
    [
        ('{"count": 9223372036854775807}', None),
        ('{"count": -9223372036854775808}', None),
        ('{"count": 9223372036854775808}', "count"),
        ('{"count": -9223372036854775809}', "count"),
        ('{"count": 1e19}', "count"),
        ('{"count": 1E+300}', "count"),
        ('{"count": 9223372036854775808.0}', "count"),
        ('{"count": 1e18}', None),
        ('{"count": 1e-300}', None),
        ('{"count": "1e300"}', None),
        ('{"order": {"lines": [1, {"x": 2e30}]}}', "order.lines[1].x"),
        ('{"other": 1e300}', None),
        ('{"copy": {"x": [1e300]}}', "copy.x[0]"),
        ('{"copy": -1e300}', "copy"),
        ("{}", None),
    ],
)
def test_finds_the_number_that_would_be_changed(variables: str, path: str | None):
    assert changed_number(json.loads(variables), SOURCES) == path


def test_looks_into_variables_deeper_than_pythons_stack():
    value: object = 1e300
    for _ in range(5_000):
        value = [value]
    assert changed_number({"order": value}, SOURCES) == "order" + "[0]" * 5_000
