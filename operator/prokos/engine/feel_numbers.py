"""Numbers that a FEEL mapping would change.

Camunda 8.6.0 evaluates whole numbers as 64-bit integers, also those that were written as decimals: of `1e300` a
mapping makes 0, of `1e20` 7766279631452241920, and no error (measured). Integers from 2^63 on, which it stores
unchanged, become negative or make it fail. So what an expression names is looked at before it is computed.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

LIMIT = 2**63
"""Numbers from here on, and below its negative, do not come through a mapping."""

BEYOND_FEEL = "it is not between -2^63 and 2^63-1. Pass it as a string, or map only variables without such numbers"
"""What a message says of such a number."""


def changed_number(variables: Mapping[str, Any], sources: Sequence[str]) -> str | None:
    """The path of a number that mappings with these sources would change.

    Args:
        variables: What the mappings are evaluated over.
        sources: Their FEEL expressions. A variable whose name is in none of them is not looked at.

    Returns:
        The path, like `order.items[3]`; None when there is no such number.
    """
    for name, value in variables.items():
        if any(name in source for source in sources) and (path := _find_large(name, value)):
            return path
    return None


def _find_large(name: str, value: Any) -> str | None:
    # A walk with a list of its own: variables can be nested deeper than Python's stack.
    left = [(name, value)]
    while left:
        path, value = left.pop()
        if isinstance(value, dict):
            left += [(f"{path}.{name}", one) for name, one in value.items()]
        elif isinstance(value, list):
            left += [(f"{path}[{position}]", one) for position, one in enumerate(value)]
        elif _is_large(value):
            return path
    return None


def _is_large(value: Any) -> bool:
    return isinstance(value, int | float) and not -LIMIT <= value < LIMIT
