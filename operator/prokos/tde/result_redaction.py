"""Keeps secrets out of results: a service may echo what it was sent."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from prokos.tde.contract import FatalFailure

if TYPE_CHECKING:
    from collections.abc import Iterable

SHORTEST_IN_RESULTS = 8
"""Characters from which on a secret is removed from results: a shorter one occurs there by chance."""


def clear_result(value: Any, shown: Iterable[tuple[str, str]]) -> Any:
    """Replace secrets in all texts of a JSON value, keys among them.

    Args:
        value: The result.
        shown: Texts to remove, each with what it is called in its place.

    Raises:
        FatalFailure: The result is nested too deeply.
    """
    names = {text: name for text, name in shown if len(text) >= SHORTEST_IN_RESULTS}
    if not names:
        return value
    # The longest first: a secret may be a part of another one.
    pattern = re.compile("|".join(re.escape(text) for text in sorted(names, key=len, reverse=True)))
    try:
        return _cleared(value, pattern, names)
    except RecursionError:
        raise FatalFailure("the response is nested too deeply") from None


def _cleared(value: Any, pattern: re.Pattern[str], names: dict[str, str]) -> Any:
    if isinstance(value, str):
        return pattern.sub(lambda match: f"<{names[match[0]]}>", value)
    if isinstance(value, list):
        return [_cleared(each, pattern, names) for each in value]
    if isinstance(value, dict):
        return {_cleared(key, pattern, names): _cleared(each, pattern, names) for key, each in value.items()}
    return value
