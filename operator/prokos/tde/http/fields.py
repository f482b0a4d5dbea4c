"""Fields of JSON objects by the paths that settings name. Pure."""

from __future__ import annotations

from typing import Any, Final


class _Missing:
    """Stands for a value that is not there, which null is not."""

    def __bool__(self) -> bool:
        return False


MISSING: Final = _Missing()


def find(value: Any, path: str) -> Any:
    """Find a field: by its name, else by its path `a.b`, in which a number takes that item of a list.

    Returns:
        Its value; `MISSING` when there is none.
    """
    if isinstance(value, dict) and path in value:
        return value[path]
    for step in path.split("."):
        if isinstance(value, dict) and step in value:
            value = value[step]
        elif isinstance(value, list) and step.isascii() and step.isdecimal() and int(step[:9]) < len(value):
            value = value[int(step[:9])]
        else:
            return MISSING
    return value
