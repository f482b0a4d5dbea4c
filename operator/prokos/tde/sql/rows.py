"""Reading a statement's rows, within limits."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from prokos.tde.contract import FatalFailure
from prokos.tde.sql.values import converters, raw_size

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from sqlalchemy import CursorResult

    from prokos.resources.sql_settings import SqlSettings

FIRST_ROWS: Final = 2
"""Rows that are fetched first: one more than most queries have, and few if they are large."""
MOST_ROWS: Final = 500
"""Rows that are fetched at a time when they are small."""


@dataclass
class Budget:
    """What the results of one task may still take."""

    settings: SqlSettings
    taken: int = 0
    """Bytes of JSON."""

    def take(self, size: int) -> None:
        """Count bytes.

        Raises:
            FatalFailure: They are too many.
        """
        self.taken += size
        if self.taken > self.settings.max_bytes:
            limit = self.settings.max_bytes
            raise FatalFailure(f"the result is longer than spec.sql.maxBytes ({limit}); everything was undone")

    def next_fetch(self, count: int) -> int:
        """How many rows to fetch after `count` rows, so that memory stays within the limit."""
        if count == 0:
            return FIRST_ROWS
        average = max(self.taken // count, 1)
        left = (self.settings.max_bytes - self.taken) // average + 1
        return max(1, min(MOST_ROWS, left))


def read_rows(result: CursorResult[Any], budget: Budget, where: str) -> dict[str, Any]:
    """Read a result as `rows` and `rowCount`.

    Raises:
        FatalFailure: There are too many rows or bytes, two columns have one name, or a value is not what
            `spec.sql.columns` says.
    """
    settings = budget.settings
    columns = list(result.keys())
    if twice := [name for name, count in Counter(columns).items() if count > 1]:
        raise FatalFailure(f"{where} returns several columns named {twice[0]!r}; name them apart with AS")
    readers = converters(columns, settings.columns, settings.decimals)
    rows: list[dict[str, Any]] = []
    while True:
        wanted = min(budget.next_fetch(len(rows)), settings.max_rows + 1 - len(rows))
        fetched = result.fetchmany(wanted)
        for row in fetched:
            if sum(map(raw_size, row)) > settings.max_bytes:
                budget.take(settings.max_bytes + 1)
            converted = _convert(columns, readers, row, where)
            budget.take(_size(converted, where))
            rows.append(converted)
        if len(rows) > settings.max_rows:
            limit = settings.max_rows
            raise FatalFailure(f"{where} returns more rows than spec.sql.maxRows ({limit}); everything was undone")
        if len(fetched) < wanted:
            return {"rows": rows, "rowCount": len(rows)}


def _convert(columns: list[str], readers: list[Callable[[Any], Any]], row: Sequence[Any], where: str) -> dict[str, Any]:
    converted: dict[str, Any] = {}
    for column, reader, value in zip(columns, readers, row, strict=True):
        try:
            converted[column] = reader(value)
        except (ValueError, TypeError, RecursionError) as error:
            reason = "nested too deeply" if isinstance(error, RecursionError) else f"not of its type: {_brief(error)}"
            raise FatalFailure(f"{where}: a value of the column {column!r} is {reason}") from None
    return converted


def _brief(error: Exception) -> str:
    """What is wrong with a value; the messages of `json` and of codecs do not hold it."""
    return error.msg if isinstance(error, json.JSONDecodeError) else str(error)


def _size(row: dict[str, Any], where: str) -> int:
    try:
        return len(json.dumps(row, ensure_ascii=False).encode())
    except UnicodeEncodeError:
        raise FatalFailure(f"{where} returns a text with half of a surrogate pair, which is no Unicode") from None
