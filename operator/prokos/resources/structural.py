"""The models of the resources as structural schemas: the OpenAPI v3 that a CustomResourceDefinition may hold.

pydantic writes JSON Schema of draft 2020-12. Kubernetes takes less of it (no references, no unions, no `const`) and
some of it otherwise; what it cannot take ends in an error here, never in a looser CRD. The rules are those of
https://kubernetes.io/docs/tasks/extend-kubernetes/custom-resources/custom-resource-definitions/#specifying-a-structural-schema
"""

from __future__ import annotations

import re
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, TypeAdapter
from pydantic.json_schema import GenerateJsonSchema

from prokos.resources.base import DURATION_PATTERN, format_duration
from prokos.resources.cel import VALIDATIONS, Rule, field_rules, model_rules

if TYPE_CHECKING:
    from pydantic.json_schema import JsonSchemaValue
    from pydantic_core import core_schema

Schema = dict[str, Any]

DURATION_LENGTH = 32
"""Longest duration in characters, which bounds what its rules cost."""

PRESERVE = "x-kubernetes-preserve-unknown-fields"

_KEPT = (
    *("type", "format", "enum", "pattern", "minLength", "maxLength", "minimum", "maximum", "multipleOf"),
    *("minItems", "maxItems", "minProperties", "maxProperties", "required", "nullable"),
)
"""Keywords that mean the same, in the order in which they are written."""

_DROPPED = frozenset({"title", "examples", "$defs", "propertyNames"})
"""Keywords without a place in a structural schema. What `propertyNames` asks is beyond it."""

_BOUNDS = {"gt": (">", "longer than"), "ge": (">=", "at least"), "lt": ("<", "shorter than"), "le": ("<=", "at most")}


_TIME = TypeAdapter(timedelta)


class UnsupportedSchemaError(Exception):
    """A model uses what a CRD cannot express. The message says where."""


def structural_schema(model: type[BaseModel]) -> Schema:
    """The structural schema of a model.

    Raises:
        UnsupportedSchemaError: There is none.
    """
    document = model.model_json_schema(by_alias=True, schema_generator=_Generator)
    return _Converter(document.get("$defs", {})).convert(document, model.__name__, ())


class _Generator(GenerateJsonSchema):
    """JSON Schema with what JSON Schema has no words for: durations as they are written, rules, all defaults."""

    def timedelta_schema(self, schema: core_schema.TimedeltaSchema) -> JsonSchemaValue:
        bounds = {key: value for key, value in schema.items() if key in _BOUNDS}
        return {"type": "string", "pattern": DURATION_PATTERN, "maxLength": DURATION_LENGTH, **bounds}

    def get_default_value(self, schema: core_schema.WithDefaultSchema) -> Any:
        factory: Any = schema.get("default_factory")
        return super().get_default_value(schema) if factory is None else factory()

    def encode_default(self, dft: Any) -> Any:
        if isinstance(dft, BaseModel):
            return dft.model_dump(mode="json", by_alias=True, exclude_unset=True)
        return format_duration(dft) if isinstance(dft, timedelta) else super().encode_default(dft)

    def model_schema(self, schema: core_schema.ModelSchema) -> JsonSchemaValue:
        made, model = super().model_schema(schema), schema["cls"]
        for name, info in model.model_fields.items():
            field = made["properties"][info.alias or name]
            _add(field, _validations(field_rules(model, name)))
        _add(made, _validations(model_rules(model)))
        return made


def _validations(rules: list[Rule]) -> Schema:
    return {VALIDATIONS: [rule.document() for rule in rules]} if rules else {}


def _add(to: Schema, more: Schema) -> None:
    """Add keywords to a schema: they go before its own, rules to its own."""
    rules = [*to.get(VALIDATIONS, ()), *more.get(VALIDATIONS, ())]
    to.update(more)
    if rules:
        to[VALIDATIONS] = rules


class _Converter:
    """Turns one document of JSON Schema into a structural schema."""

    def __init__(self, definitions: dict[str, Schema]) -> None:
        self._definitions = definitions

    def convert(self, schema: Schema, path: str, within: tuple[str, ...]) -> Schema:
        """The structural schema of a part.

        Args:
            schema: The part as JSON Schema.
            path: Where it is, for errors.
            within: Definitions the part is in; one that holds itself has no end.
        """
        plain, within = self._plain(schema, path, within)
        rest = dict(plain)
        made: Schema = {}
        if description := rest.pop("description", None):
            made["description"] = re.sub(r"(?<!\n)\n(?!\n)", " ", description)
        default = rest.pop("default", None)
        _add(rest, _validations(_duration_rules(rest)))
        made |= _scalar_keywords(rest)
        if "properties" in rest:
            named = rest.pop("properties").items()
            made["properties"] = {name: self.convert(part, f"{path}.{name}", within) for name, part in named}
        if "items" in rest:
            made["items"] = self.convert(rest.pop("items"), f"{path}[]", within)
        # A CRD says nothing of the names of a mapping's entries; what the models ask of them is beyond it.
        (values,) = rest.pop("patternProperties", {"": rest.pop("additionalProperties", False)}).values()
        rest.pop("additionalProperties", None)
        if values is True:
            made[PRESERVE] = True
        elif values is not False:
            made["additionalProperties"] = self.convert(values, f"{path}.*", within)
        made |= {name: rest.pop(name) for name in list(rest) if name.startswith("x-kubernetes-")}
        if unknown := rest.keys() - _DROPPED:
            raise UnsupportedSchemaError(f"{path}: a CRD cannot express {', '.join(sorted(unknown))}")
        if "type" not in made:
            made[PRESERVE] = True
        if default == {}:
            default = _defaults(made)
        if default is not None and default not in ({}, []):
            made["default"] = default
        return made

    def _plain(self, schema: Schema, path: str, within: tuple[str, ...]) -> tuple[Schema, tuple[str, ...]]:
        """A part without references, and without the union by which pydantic says that null is taken, too."""
        if "$ref" in schema:
            name = schema["$ref"].rpartition("/")[2]
            if name in within:
                raise UnsupportedSchemaError(f"{path}: {name} holds itself, and a structural schema has an end")
            target, within = self._definitions[name], (*within, name)
        elif "anyOf" in schema:
            choices = [choice for choice in schema["anyOf"] if choice != {"type": "null"}]
            if len(choices) != 1:
                raise UnsupportedSchemaError(f"{path}: a union of types has no structural schema")
            target = choices[0]
        else:
            return schema, within
        merged = dict(target)
        if "anyOf" in schema and schema.get("default") is not None:
            # Elsewhere null is the same as nothing, which the API server makes of it; here nothing is the default.
            merged["nullable"] = True
        _add(merged, {key: value for key, value in schema.items() if key not in ("$ref", "anyOf")})
        return self._plain(merged, path, within)


def _scalar_keywords(rest: Schema) -> Schema:
    """Take the keywords of single values out of a schema, as OpenAPI v3.0 says them."""
    made: Schema = {}
    for exclusive, bound in (("exclusiveMinimum", "minimum"), ("exclusiveMaximum", "maximum")):
        if exclusive in rest:
            made |= {bound: rest.pop(exclusive), exclusive: True}
    if "const" in rest:
        made["enum"] = [rest.pop("const")]
    if rest.pop("uniqueItems", False):
        made["x-kubernetes-list-type"] = "set"
    kept = {name: rest.pop(name) for name in _KEPT if name in rest}
    made = {**kept, **made}
    if "pattern" in made:
        made["pattern"] = go_pattern(made["pattern"])
    return made


def go_pattern(pattern: str) -> str:
    r"""A regular expression of pydantic in the syntax of Go, whose `\w` knows ASCII alone."""
    word = r"\p{L}\p{M}\p{Nd}\p{Pc}"
    within_class = re.sub(r"(?<=\[)[^\]]*\\w[^\]]*", lambda found: found[0].replace(r"\w", word), pattern)
    return within_class.replace(r"\w", f"[{word}]")


def _duration_rules(rest: Schema) -> list[Rule]:
    """Take the bounds of a duration out of a schema. pydantic puts them there in its own way when null is taken."""
    bounds = {key: _TIME.validate_python(rest.pop(key)) for key in _BOUNDS if key in rest}
    rules = []
    for key, bound in bounds.items():
        if (key, bound) == ("ge", timedelta()):
            continue  # the pattern knows no sign
        (sign, words), text = _BOUNDS[key], format_duration(bound)
        rules.append(Rule(f"duration(self) {sign} duration('{text}')", f"must be {words} {text}"))
    return rules


def _defaults(schema: Schema) -> Schema:
    """What the API server makes of an empty object. It is written out, since it must satisfy the object's rules."""
    return {name: part["default"] for name, part in schema.get("properties", {}).items() if "default" in part}
