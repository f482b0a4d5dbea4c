"""Checking values against JSON Schemas."""

from __future__ import annotations

from datetime import date
from typing import Any

import pytest

from prokos.tde import FatalFailure
from prokos.tde.schema import compile_schema, json_path

ORDER: dict[str, Any] = {
    "type": "object",
    "required": ["orderId"],
    "properties": {
        "orderId": {"type": "string"},
        "lines": {"type": "array", "items": {"type": "object", "properties": {"unit price": {"type": "number"}}}},
        "state": {"enum": ["open", "paid"]},
        "due": {"type": "string", "format": "date"},
        "payment": {"oneOf": [{"type": "string"}, {"type": "object", "required": ["iban"]}]},
    },
}


def problems(schema: dict[str, Any], value: Any) -> str:
    check = compile_schema(schema, "inputSchema")
    with pytest.raises(FatalFailure) as failure:
        check(value)
    return str(failure.value)


def test_accepts_a_value_that_satisfies_it() -> None:
    compile_schema(ORDER, "inputSchema")({"orderId": "A-1", "lines": [{"unit price": 1.5}], "due": "2026-03-01"})


def test_accepts_everything_without_a_schema() -> None:
    compile_schema(None, "inputSchema")(object())


def test_names_path_and_expectation_of_a_problem() -> None:
    message = problems(ORDER, {"orderId": "A-1", "lines": [{}, {"unit price": "9"}]})
    assert message == """inputSchema is not satisfied: $.lines[1]['unit price']: "9" is not of type "number\""""


def test_names_a_missing_field() -> None:
    assert problems(ORDER, {}) == 'inputSchema is not satisfied: $: "orderId" is a required property'


def test_asserts_formats() -> None:
    assert '$.due: "soon" is not a "date"' in problems(ORDER, {"orderId": "A-1", "due": "soon"})


def test_says_what_each_alternative_expected() -> None:
    message = problems(ORDER, {"orderId": "A-1", "payment": {}})
    assert '"iban" is a required property' in message
    assert 'is not of type "string"' in message


def test_names_the_first_five_problems_only() -> None:
    message = problems({"items": {"type": "integer"}}, ["x"] * 1000)
    assert message.count("is not of type") == 5
    assert "$[4]" in message
    assert "$[5]" not in message
    assert message.endswith("(and more)")


def test_cuts_a_huge_value_but_keeps_what_was_expected() -> None:
    message = problems({"type": "integer"}, "x" * 1_000_000)
    assert len(message) < 500
    assert 'is not of type "integer"' in message


def test_refuses_a_value_that_is_not_json() -> None:
    assert "not JSON" in problems({"properties": {"due": {"type": "string"}}}, {"due": date(2026, 3, 1)})


@pytest.mark.parametrize(
    ("schema", "path"),
    [
        ({"type": "objct"}, r"\$\.type"),
        ({"properties": {"a b": {"type": 3}}}, r"\$\.properties\['a b'\]\.type"),
        ({"pattern": "("}, r"\$\.pattern"),
        ({"$ref": "#/nowhere"}, "/nowhere"),
        ({"$schema": "https://nowhere.example/schema"}, "nowhere"),
    ],
)
def test_refuses_an_invalid_schema_with_its_name_and_path(schema: dict[str, Any], path: str) -> None:
    with pytest.raises(ValueError, match=rf"outputSchema is not a valid JSON Schema: .*{path}"):
        compile_schema(schema, "outputSchema")


@pytest.mark.parametrize("uri", ["http://169.254.169.254/schema.json", "file:///etc/passwd"])
def test_fetches_nothing(uri: str) -> None:
    with pytest.raises(ValueError, match="nothing is fetched"):
        compile_schema({"$ref": uri}, "inputSchema")


def test_an_expensive_pattern_does_not_hang_the_worker() -> None:
    message = problems({"pattern": "^(?=a)(a+)+$"}, "a" * 60 + "!")
    assert "does not match" in message or "backtrack" in message.lower()


def test_writes_paths_as_jsonpath() -> None:
    assert json_path(["a", 0, "b c", "_d"]) == "$.a[0]['b c']._d"
