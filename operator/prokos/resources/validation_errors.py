"""What pydantic says about a manifest, in the words and the places of the manifest."""

from __future__ import annotations

from types import UnionType
from typing import TYPE_CHECKING, Any, Union, get_args, get_origin

from pydantic import BaseModel

from prokos.resources.base import NAME_MAX_LENGTH, NAME_PATTERN
from prokos.resources.problems import did_you_mean, quote

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pydantic import ValidationError
    from pydantic_core import ErrorDetails

    from prokos.resources.problems import FieldPath

_SHAPES = {
    "model_type": "a mapping",
    "model_attributes_type": "a mapping",
    "dict_type": "a mapping",
    "list_type": "a list",
    "string_type": "text",
}


def explain(model: type[BaseModel], error: ValidationError) -> Iterator[tuple[FieldPath, str, str]]:
    """Put the errors of a validation by alias into words.

    Args:
        model: The model that was validated.
        error: What came of it.

    Yields:
        Path of the field, message and hint, for each error.
    """
    for detail in error.errors(include_url=False):
        path = tuple(part for part in detail["loc"] if part != "[key]")
        message, hint = _words(model, path, detail)
        yield path, message, hint


def _words(model: type[BaseModel], path: FieldPath, detail: ErrorDetails) -> tuple[str, str]:
    value, context = detail["input"], detail.get("ctx", {})
    match detail["type"]:
        case "missing":
            return "is required", ""
        case "extra_forbidden":
            known = sorted(_fields(model, path[:-1]))
            otherwise = f"the fields here are {', '.join(known)}" if known else ""
            return "unknown field", did_you_mean(str(path[-1]), known, otherwise=otherwise)
        case "string_type" if isinstance(value, bool | int | float):
            text = str(value).lower() if isinstance(value, bool) else str(value)
            return f"must be text, and {text} is not", f'quote it: "{text}"'
        case ("model_type" | "model_attributes_type" | "dict_type" | "list_type" | "string_type") as kind:
            return f"must be {_SHAPES[kind]}, not {_shape(value)}", ""
        case "literal_error":
            expected = str(context.get("expected", ""))
            choices = [part.strip("' ") for part in expected.replace(" or ", ", ").split(",")]
            message = f"{quote(value)} is none of {', '.join(choices)}"
            return message, did_you_mean(value, choices) if isinstance(value, str) else ""
        case "string_pattern_mismatch" | "string_too_long" | "string_too_short" if _is_name(context, path):
            hint = f"use lower-case letters, digits and hyphens, at most {NAME_MAX_LENGTH} characters"
            return f"{quote(value)} is not a valid name", hint
        case "string_pattern_mismatch":
            return f"{quote(value)} does not match {context.get('pattern')}", ""
        case "value_error":
            return detail["msg"].removeprefix("Value error, "), ""
        case _:
            text = detail["msg"].removeprefix("Input should be ")
            text = f"should be {text}" if text != detail["msg"] else text[:1].lower() + text[1:]
            return f"{text}; it is {quote(value)}", ""


def _is_name(context: dict[str, Any], path: FieldPath) -> bool:
    return context.get("pattern") == NAME_PATTERN or path == ("metadata", "name")


def _shape(value: Any) -> str:
    match value:
        case None:
            return "empty"
        case dict():
            return "a mapping"
        case list():
            return "a list"
        case _:
            return quote(value)


def _fields(annotation: Any, path: FieldPath) -> set[str]:
    """The names that fields have at a path below a type, as YAML writes them; empty where anything goes."""
    for model in _models(annotation):
        if not path:
            return {info.alias or name for name, info in model.model_fields.items()}
        for name, info in model.model_fields.items():
            if (info.alias or name) == path[0]:
                return _fields(info.annotation, path[1:])
    if path and (arguments := _element_types(annotation)):
        return set().union(*(_fields(argument, path[1:]) for argument in arguments))
    return set()


def _models(annotation: Any) -> list[type[BaseModel]]:
    """The models that a type allows: itself, or members of a union."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    if get_origin(annotation) in (Union, UnionType):
        return [model for argument in get_args(annotation) for model in _models(argument)]
    return []


def _element_types(annotation: Any) -> list[Any]:
    """Types of the elements of a list, or of the values of a mapping, also within a union."""
    origin = get_origin(annotation)
    if origin in (list, dict, tuple):
        return [get_args(annotation)[-1]]
    if origin in (Union, UnionType):
        return [element for argument in get_args(annotation) for element in _element_types(argument)]
    return []
