"""What is made of a model: its structural schema and its rules."""

from __future__ import annotations

from datetime import timedelta
from typing import Any, ClassVar, Literal, Self

import pytest
from pydantic import Field, field_validator, model_validator

from prokos.resources.base import DURATION_PATTERN, Duration, Model, Name
from prokos.resources.cel import (
    VALIDATIONS,
    Rule,
    beyond_cel,
    cel,
    immutable,
    in_cluster,
    keyed,
    one_of,
    refused_in_cluster,
)
from prokos.resources.structural import PRESERVE, UnsupportedSchemaError, structural_schema


def field(annotation: Any, info: Any = ...) -> dict[str, Any]:
    """The schema of one field."""
    model = type("Sample", (Model,), {"__annotations__": {"one": annotation}, "one": info})
    made: dict[str, Any] = structural_schema(model)["properties"]["one"]
    return made


class Part(Model):
    """A part."""

    size: int = 1
    words: list[str] = Field(default_factory=list)


class Needy(Model):
    """It is not complete without a name."""

    name: str
    size: int = 1


@pytest.mark.parametrize(
    ("annotation", "info", "expected"),
    [
        (str, ..., {"type": "string"}),
        (str | None, None, {"type": "string"}),
        (str | None, "a", {"type": "string", "nullable": True, "default": "a"}),
        (bool, False, {"type": "boolean", "default": False}),
        (str, "", {"type": "string", "default": ""}),
        (int, Field(ge=1, lt=9), {"type": "integer", "minimum": 1, "maximum": 9, "exclusiveMaximum": True}),
        (float | None, Field(None, gt=0), {"type": "number", "minimum": 0, "exclusiveMinimum": True}),
        (Literal["a"], "a", {"type": "string", "enum": ["a"], "default": "a"}),
        (Literal["a", "b"] | None, None, {"type": "string", "enum": ["a", "b"]}),
        (list[str], Field(default_factory=list), {"type": "array", "items": {"type": "string"}}),
        (list[str], ["a"], {"type": "array", "items": {"type": "string"}, "default": ["a"]}),
        (set[str], ..., {"type": "array", "items": {"type": "string"}, "x-kubernetes-list-type": "set"}),
        (dict[str, int], Field(default_factory=dict), {"type": "object", "additionalProperties": {"type": "integer"}}),
        (dict[str, Any], ..., {"type": "object", PRESERVE: True}),
        (list[dict[str, Any]], ..., {"type": "array", "items": {"type": "object", PRESERVE: True}}),
        (Any, ..., {PRESERVE: True}),
        (dict[Name, str], ..., {"type": "object", "additionalProperties": {"type": "string"}}),
        (Duration, ..., {"type": "string", "pattern": DURATION_PATTERN, "maxLength": 32}),
    ],
)
def test_makes_a_structural_schema_of_a_field(annotation, info, expected):
    assert field(annotation, info) == expected


def test_writes_a_duration_and_its_bounds_as_people_do():
    made = field(Duration, Field(timedelta(minutes=15), gt=timedelta(), le=timedelta(days=1)))
    assert made["default"] == "15m"
    assert made[VALIDATIONS] == [
        {"rule": "duration(self) > duration('0')", "message": "must be longer than 0"},
        {"rule": "duration(self) <= duration('24h')", "message": "must be at most 24h"},
    ]
    assert field(Duration, Field(ge=timedelta())) == field(Duration)
    assert field(Duration | None, Field(None, lt=timedelta(seconds=1)))[VALIDATIONS][0]["message"] == (
        "must be shorter than 1s"
    )


def test_a_part_is_described_by_its_field_and_else_by_its_model():
    assert field(Part)["description"] == "A part."
    assert field(Part, Field(description="This part."))["description"] == "This part."
    assert field(Part | None, None)["description"] == "A part."


def test_the_default_of_a_part_holds_those_of_its_fields():
    assert field(Part, Field(default_factory=Part))["default"] == {"size": 1}
    assert "default" not in field(Part | None, None)
    assert field(Needy, Field(default_factory=lambda: Needy(name="a")))["default"] == {"name": "a"}


def test_words_of_patterns_are_those_of_any_language():
    made = field(str, Field(pattern=r"^[\w.-]+\w$"))["pattern"]
    assert made == r"^[\p{L}\p{M}\p{Nd}\p{Pc}.-]+[\p{L}\p{M}\p{Nd}\p{Pc}]$"


def test_lists_say_what_tells_their_items_apart():
    made = field(list[Needy], Field(json_schema_extra=keyed("name")))
    assert (made["x-kubernetes-list-type"], made["x-kubernetes-list-map-keys"]) == ("map", ["name"])


class Recursive(Model):
    """It has no end."""

    inner: Recursive | None = None


@pytest.mark.parametrize("annotation", [int | str, tuple[int, str], Recursive], ids=["union", "tuple", "recursion"])
def test_refuses_what_a_crd_cannot_express(annotation):
    with pytest.raises(UnsupportedSchemaError, match=r"^Sample\.one"):
        field(annotation)


class Ruled(Model):
    """It has every kind of rule."""

    cluster_rules: ClassVar = (Rule("self.fixed == oldSelf.fixed", "m1"),)

    fixed: str = Field("a", json_schema_extra=immutable("m2"))
    local: str | None = Field(None, json_schema_extra=refused_in_cluster("m3"))
    checked: Duration = Field(timedelta(seconds=2), ge=timedelta(seconds=1))

    @field_validator("checked", "local")
    @classmethod
    @cel(Rule("self != ''", "m4"))
    def _check(cls, value: Any) -> Any:
        return value

    @model_validator(mode="after")
    @cel(Rule(one_of("fixed", "local"), "m5", ".local"))
    @beyond_cel("m6")
    def _whole(self) -> Self:
        return self


def test_rules_stand_where_they_are_declared():
    made = structural_schema(Ruled)
    assert made[VALIDATIONS] == [
        {
            "rule": "[has(self.fixed), has(self.local)].exists_one(is_set, is_set)",
            "message": "m5",
            "fieldPath": ".local",
        },
        {"rule": "self.fixed == oldSelf.fixed", "message": "m1"},
    ]
    fields = made["properties"]
    assert fields["fixed"][VALIDATIONS] == [{"rule": "self == oldSelf", "message": "m2"}]
    assert fields["local"][VALIDATIONS] == [{"rule": "false", "message": "m3"}, {"rule": "self != ''", "message": "m4"}]
    assert [rule["message"] for rule in fields["checked"][VALIDATIONS]] == ["m4", "must be at least 1s"]


def test_rules_do_not_hinder_the_model():
    assert Ruled(fixed="b").fixed == "b"
    assert field(str, Field(json_schema_extra=in_cluster(Rule("true", "m"))))["type"] == "string"
