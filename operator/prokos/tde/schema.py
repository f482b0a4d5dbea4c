"""Checking values against the JSON Schemas of an executor.

A schema is compiled once. Nothing is fetched: a `$ref` leads into the schema itself or to a meta-schema. `format`
is asserted in every draft, since who writes `format: date` here means it.
"""

from __future__ import annotations

import re
from itertools import islice
from typing import TYPE_CHECKING, Any, NoReturn

from prokos.tde.contract import FatalFailure

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from jsonschema_rs import ValidationError

PROBLEMS = 5
"""Most problems one message names."""
PROBLEM_LENGTH = 300
"""Longest description of one problem in characters; values of any size may occur in it."""

_PLAIN_KEY = re.compile(r"[A-Za-z_]\w*", re.ASCII)


def compile_schema(schema: dict[str, Any] | None, where: str) -> Callable[[Any], None]:
    """Compile a JSON Schema into a check.

    Args:
        schema: The schema, draft 4 to 2020-12 as its `$schema` says (default 2020-12). None accepts everything.
        where: Name of the schema's field, for messages.

    Returns:
        A function that raises `FatalFailure`, with the JSON path of each of the first problems and what was
        expected there, when its argument does not satisfy the schema.

    Raises:
        ValueError: It is not a valid schema; the message names `where`.
    """
    if schema is None:
        return _accept
    import jsonschema_rs

    try:
        validator = jsonschema_rs.validator_for(schema, validate_formats=True, retriever=_refuse_to_fetch)
    except jsonschema_rs.ValidationError as error:
        raise ValueError(f"{where} is not a valid JSON Schema: {_describe(error)}") from None
    except (jsonschema_rs.ReferencingError, ValueError, TypeError) as error:
        raise ValueError(f"{where} is not a valid JSON Schema: {error}") from None

    def check(value: Any) -> None:
        try:
            errors = list(islice(validator.iter_errors(value), PROBLEMS + 1))
        except (TypeError, ValueError) as error:
            raise FatalFailure(f"{where} is not satisfied: the value is not JSON: {error}") from None
        if errors:
            problems = "; ".join(_describe(error) for error in errors[:PROBLEMS])
            more = " (and more)" if len(errors) > PROBLEMS else ""
            raise FatalFailure(f"{where} is not satisfied: {problems}{more}")

    return check


def json_path(path: Sequence[str | int]) -> str:
    """Write a path as a JSONPath, for example `$.lines[0]['unit price']`."""
    text = "$"
    for step in path:
        if isinstance(step, str) and _PLAIN_KEY.fullmatch(step):
            text += f".{step}"
        else:
            text += f"[{step!r}]"
    return text


def _describe(error: ValidationError) -> str:
    problem = _cut(error.message)
    # Of the keywords anyOf and oneOf, which by themselves do not say what was expected.
    alternatives = getattr(error.kind, "context", None) or []
    reasons = [f"{json_path(first.instance_path)}: {_cut(first.message)}" for first, *_ in filter(None, alternatives)]
    expected = f" ({' | '.join(reasons[:PROBLEMS])})" if reasons else ""
    return f"{json_path(error.instance_path)}: {problem}{expected}"


def _cut(text: str) -> str:
    """Shorten a message in its middle: the value stands at its start, what was expected at its end."""
    half = PROBLEM_LENGTH // 2
    return text if len(text) <= PROBLEM_LENGTH else f"{text[:half]} … {text[-half:]}"


def _accept(value: Any) -> None:
    """Accept everything."""


def _refuse_to_fetch(uri: str) -> NoReturn:
    raise ValueError(f"{uri} is outside the schema, and nothing is fetched")
