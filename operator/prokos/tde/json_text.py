"""Reading JSON that others wrote: strictly, and with errors that say where."""

from __future__ import annotations

import json
from typing import Any, NoReturn


def parse_json(data: bytes) -> Any:
    """Parse a JSON text in UTF-8.

    Raises:
        ValueError: It is not JSON, with line and column; or it holds what no engine can store: NaN and infinities,
            half of a surrogate pair, nesting deeper than Python's stack, an integer of thousands of digits.
    """
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"byte {error.start} is not UTF-8") from None
    try:
        value = json.loads(text, parse_constant=_refuse_constant)
    except json.JSONDecodeError as error:
        raise ValueError(f"{error.msg} at line {error.lineno}, column {error.colno}") from None
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
    if b"\\u" in data:
        try:
            json.dumps(value, ensure_ascii=False).encode()
        except UnicodeEncodeError:
            raise ValueError("a string holds half of a surrogate pair") from None
    return value


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")
