"""The CRDs: the files are what is made of the models, they are structural, and schemas and models judge alike."""

from __future__ import annotations

import copy
import re
import runpy
from datetime import timedelta
from pathlib import Path
from typing import Any, get_args

import jsonschema_rs
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import BaseModel, ConfigDict

from prokos.resources.base import DURATION_PATTERN, format_duration, parse_duration
from prokos.resources.cel import VALIDATIONS, beyond_cel_of, model_rules, rules_of
from prokos.resources.crds import KINDS, build_crd, build_schema
from prokos.resources.structural import PRESERVE
from resource_samples import VALID, VALUES, Document, changed, examples, executor, model_errors, places, replaced
from wrong_samples import WRONG, Wrong

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "resources.md").read_text()
SCHEMAS = {kind.model.__name__: build_schema(kind.model) for kind in KINDS}
MODELS = {kind.model.__name__: kind.model for kind in KINDS}

every_kind = pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.plural)


# --- the files -------------------------------------------------------------------------------------------------------


def test_the_files_are_made_from_the_models():
    made = runpy.run_path(str(ROOT / "hack" / "crds.py"))["files"]()
    there = {*(ROOT / "crds").iterdir(), *(ROOT / "helm" / "prokos-crds" / "templates").glob("prokos.io_*")}
    assert there == made.keys(), "run make crds"
    for path, text in made.items():
        assert path.read_text() == text, f"{path.relative_to(ROOT)} is not what the models say: run make crds"


def test_kubectl_can_keep_a_crd_in_an_annotation():
    for path in (ROOT / "crds").iterdir():
        assert len(yaml.safe_dump(yaml.safe_load(path.read_text()))) < 262_144


@every_kind
def test_a_crd_has_what_kubectl_and_autoscalers_need(kind):
    spec = build_crd(kind)["spec"]
    (version,) = spec["versions"]
    assert spec["scope"] == "Namespaced"
    assert spec["names"]["categories"] == ["prokos-all"]
    assert version["subresources"]["status"] == {}
    columns = {column["name"]: column for column in version["additionalPrinterColumns"]}
    assert {"Ready", "Age", "Message"} <= columns.keys()
    assert columns["Message"]["priority"] == 1
    assert ("scale" in version["subresources"]) == (kind.plural == "taskexecutors")
    for path in (column.path for column in kind.columns):
        assert path.startswith(".metadata") or value_at(SCHEMAS[kind.model.__name__], path), f"there is no {path}"


def value_at(schema: dict[str, Any], path: str) -> dict[str, Any] | None:
    """The schema at a JSON path."""
    for name in re.sub(r"\[[^\]]*\]+", "", path).strip(".").split("."):
        found = schema.get("items", schema).get("properties", {}).get(name)
        if found is None:
            return None
        schema = found
    return schema


# --- structural ------------------------------------------------------------------------------------------------------

KEYWORDS = {
    *("type", "format", "description", "default", "enum", "pattern", "nullable", "properties", "required", "items"),
    *("additionalProperties", "minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf"),
    *("minLength", "maxLength", "minItems", "maxItems", "minProperties", "maxProperties"),
    *(PRESERVE, VALIDATIONS, "x-kubernetes-list-type", "x-kubernetes-list-map-keys", "x-kubernetes-map-type"),
}


def parts(schema: dict[str, Any], path: str = "") -> dict[str, dict[str, Any]]:
    """Every schema within one, by its path."""
    found = {path: schema}
    for name, inner in schema.get("properties", {}).items():
        found |= parts(inner, f"{path}.{name}")
    for key, mark in (("items", "[]"), ("additionalProperties", ".*")):
        if key in schema:
            found |= parts(schema[key], path + mark)
    return found


PARTS = [
    pytest.param(part, path, id=f"{kind}{path}")
    for kind, schema in SCHEMAS.items()
    for path, part in parts(schema).items()
]


@pytest.mark.parametrize(("part", "path"), PARTS)
def test_every_part_is_structural(part, path):
    assert part.keys() <= KEYWORDS
    assert part.get("type") in {"object", "array", "string", "integer", "number", "boolean"} or PRESERVE in part
    assert not ("properties" in part and "additionalProperties" in part)
    assert ("items" in part) == (part.get("type") == "array")
    assert set(part.get("required", ())) <= part.get("properties", {}).keys()
    assert isinstance(part.get("exclusiveMinimum", False), bool)
    if "pattern" in part:
        re.compile(re.sub(r"\\p\{\w+\}", "x", part["pattern"]))
    for rule in part.get(VALIDATIONS, ()):
        assert rule["message"].isprintable()
        assert rule["rule"].count("(") == rule["rule"].count(")")
        blamed = part
        for field in rule.get("fieldPath", "").split(".")[1:]:
            blamed = blamed["properties"][field]
    if part.get("x-kubernetes-list-type") == "map":
        assert set(part["x-kubernetes-list-map-keys"]) <= set(part["items"]["required"])
    if part.get("x-kubernetes-list-type") == "set":
        assert part["items"]["type"] == "string"
    if "default" in part:
        assert errors(part, part["default"]) == []


@pytest.mark.parametrize(("part", "path"), PARTS)
def test_every_field_is_described(part, path):
    if not path.endswith(("[]", ".*", ".kind", ".apiVersion", ".metadata", ".metadata.name", ".status", "")):
        assert part["description"][-1] in ".`", f"{path} has no description"


def test_nothing_is_filled_in_for_pods():
    """What is not said of an executor's pods is filled in from `executorDefaults`, by the operator."""
    pods = [part for schema in SCHEMAS.values() for path, part in parts(schema).items() if path.endswith(".pod")]
    assert len(pods) == 4
    for pod in pods:
        assert not [path for path, part in parts(pod).items() if "default" in part]


def test_rules_look_only_into_what_is_bounded():
    """A list with rules in it costs as much as it is long."""
    for schema in SCHEMAS.values():
        for path, part in parts(schema).items():
            inner = part.get("items", part.get("additionalProperties", {}))
            if any(VALIDATIONS in one for one in parts(inner).values()):
                assert "maxItems" in part or "maxProperties" in part or path.startswith(".status"), path


# --- every validator of a model --------------------------------------------------------------------------------------


def models(annotation: Any) -> set[type[BaseModel]]:
    """The models within a type, those of their fields included."""
    found = {annotation} if isinstance(annotation, type) and issubclass(annotation, BaseModel) else set()
    inner = [info.annotation for model in found for info in model.model_fields.values()]
    return found.union(*(models(one) for one in (*inner, *get_args(annotation))))


EVERY_MODEL = sorted(set().union(*(models(model) for model in MODELS.values())), key=lambda model: model.__name__)
VALIDATORS = [
    pytest.param(validator.func, id=f"{model.__name__}.{name}")
    for model in EVERY_MODEL
    for decorators in (
        model.__pydantic_decorators__.field_validators,
        model.__pydantic_decorators__.model_validators,
        model.__pydantic_decorators__.root_validators,
    )
    for name, validator in decorators.items()
]


@pytest.mark.parametrize("validator", VALIDATORS)
def test_every_validator_has_a_rule_or_says_that_there_is_none(validator):
    assert rules_of(validator) or beyond_cel_of(validator), "say @cel(Rule(...)) or @beyond_cel(...) of it"


@pytest.mark.parametrize("validator", VALIDATORS)
def test_what_is_beyond_the_api_server_is_documented(validator):
    for what in beyond_cel_of(validator):
        assert f"- {what}\n" in PAGE, "docs/resources.md does not list it"


def test_names_of_entries_that_models_check_are_documented():
    """A CRD says nothing of the names of a mapping's entries."""
    _, _, listed = PAGE.partition("The API server has no rule for the following")
    for model in EVERY_MODEL:
        for name, part in model.model_json_schema(by_alias=True)["properties"].items():
            if "patternProperties" in part or "propertyNames" in part:
                assert f".{name}`" in listed, f"docs/resources.md does not say that {name} is checked by the operator"


@every_kind
def test_a_sample_breaks_every_rule(kind):
    """The tests on the API server show that each sample is refused: that no rule is always true."""
    shown = {wrong.words for wrong in WRONG}
    for path, part in parts(SCHEMAS[kind.model.__name__]).items():
        for rule in part.get(VALIDATIONS, ()):
            assert any(words in rule["message"] for words in shown), f"{path}: nothing in WRONG breaks {rule}"


def test_rules_are_found_at_validators():
    names = {rule.message for model in EVERY_MODEL for rule in model_rules(model)}
    assert len(names) > 50


# --- models and schemas judge alike ----------------------------------------------------------------------------------


def errors(schema: dict[str, Any], value: Any) -> list[str]:
    """What is wrong with a value as far as the schema says, rules aside; unknown fields are wrong, as kubectl says."""
    return [error.message for error in jsonschema_rs.validator_for(_plain(schema)).iter_errors(value)]


def _plain(schema: dict[str, Any]) -> dict[str, Any]:
    """A schema of OpenAPI 3.0 as JSON Schema. That sets have each value once is for a cluster alone."""
    made = {name: part for name, part in schema.items() if not name.startswith("x-") and name != "default"}
    for bound in ("Minimum", "Maximum"):
        if made.pop(f"exclusive{bound}", False):
            made[f"exclusive{bound}"] = made.pop(bound.lower())
    if "properties" in made:
        made["properties"] = {name: _plain(part) for name, part in made["properties"].items()}
        made["additionalProperties"] = False
    for name in ("items", "additionalProperties"):
        if isinstance(made.get(name), dict):
            made[name] = _plain(made[name])
    if made.pop("nullable", False):
        made["type"] = [made["type"], "null"]
    return made


def schema_errors(document: Document) -> list[str]:
    """What the schema of a resource's kind says. Of metadata it knows the name; the rest is the API server's."""
    schema = copy.deepcopy(SCHEMAS[document["kind"]])
    metadata = schema["properties"].pop("metadata")
    name = {"name": document["metadata"]["name"]}
    plain = {key: value for key, value in document.items() if key != "metadata"}
    return errors(schema, without_null(schema, plain)) + errors(metadata, name)


def without_null(schema: dict[str, Any], value: Any) -> Any:
    """A value as the API server reads it: null is nothing, where it is not a value of its own."""
    if isinstance(value, list):
        return [without_null(schema.get("items", {}), item) for item in value]
    if not isinstance(value, dict) or "properties" not in schema:
        return value
    kept = {}
    for name, inner in value.items():
        part = schema["properties"].get(name, {})
        if inner is not None or part.get("nullable"):
            kept[name] = without_null(part, inner)
    return kept


@pytest.mark.parametrize("document", [*VALID.values(), *examples().values()], ids=[*VALID, *examples()])
def test_both_take_what_is_right(document):
    assert model_errors(document) == []
    assert schema_errors(document) == []


@pytest.mark.parametrize("wrong", WRONG, ids=str)
def test_models_refuse_what_is_wrong_but_in_a_cluster_alone(wrong: Wrong):
    assert bool(model_errors(wrong.document)) != wrong.only_cluster


BY_RULE = {"value_error", "assertion_error", "greater_than", "greater_than_equal", "less_than", "less_than_equal"}


@pytest.mark.parametrize("wrong", [wrong for wrong in WRONG if not wrong.only_cluster], ids=str)
def test_the_schema_refuses_what_is_wrong_with_a_single_field(wrong: Wrong):
    by_type = [error for error in model_errors(wrong.document) if error["type"] not in BY_RULE]
    if by_type:
        assert schema_errors(wrong.document), by_type


@settings(max_examples=600, deadline=None)
@given(st.sampled_from(places()), st.sampled_from(VALUES))
def test_both_judge_a_changed_field_alike(place, value):
    document = replaced(*place, value)
    judged = model_errors(document)
    if not judged:
        assert schema_errors(document) == []
    elif not schema_errors(document):
        assert {error["type"] for error in judged} <= BY_RULE


@given(st.from_regex(DURATION_PATTERN, fullmatch=True).filter(lambda text: len(text) <= 32))
@settings(max_examples=200, deadline=None)
def test_what_a_duration_looks_like_is_one(text):
    judged = model_errors(changed(executor(), backoff={"initial": "0", "maximum": text}))
    assert all("longer than" in error["msg"] for error in judged)


@given(st.timedeltas(min_value=timedelta(), max_value=timedelta(days=36_500)))
def test_a_duration_is_written_as_it_is_read(duration):
    assert parse_duration(format_duration(duration)) == duration


# --- documentation ---------------------------------------------------------------------------------------------------


@every_kind
def test_columns_and_names_are_documented(kind):
    name = "prokos" if kind.plural == "prokoses" else kind.plural
    row = re.search(rf"^\| `{name}` \| (.*) \| (.*?) \\\| (.*) \|$", PAGE, re.MULTILINE)
    assert row is not None
    assert row[1] == ", ".join(f"`{short}`" for short in kind.short_names)
    assert row[2] == ", ".join(column.name for column in kind.columns if not column.wide)
    assert row[3] == ", ".join(column.name for column in kind.columns if column.wide)
    for path in kind.selectable:
        assert f"`{path.strip('.')}`" in PAGE


def test_the_config_of_a_model_keeps_its_strictness():
    """A model that says something of its schema is still one that refuses unknown fields."""
    for model in EVERY_MODEL:
        config: ConfigDict = model.model_config
        assert config.get("extra") == "forbid" or model.__name__ == "Metadata"
