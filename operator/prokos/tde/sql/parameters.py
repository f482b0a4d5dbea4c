"""Values of the input as parameters of a statement. Pure."""

from __future__ import annotations

import base64
import binascii
import json
import re
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal, InvalidOperation
from typing import TYPE_CHECKING, Any, Final

from prokos.tde.contract import FatalFailure

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from prokos.resources.sql_settings import ParameterType
    from prokos.resources.sql_text import Database, SqlText

MOST_ELEMENTS: Final = 10_000
"""Elements of a list behind IN, each of which is a parameter; SQLite takes 32,766, PostgreSQL 65,535."""

_ZONE = re.compile(r"\[[^\]]*\]$|@[\w/+-]+$")
"""The zone's name behind an offset, as FEEL writes it: `2026-03-01T12:00:00+01:00[Europe/Berlin]`."""
_DURATION = re.compile(
    r"(?P<sign>-)?P(?=[\dT])(?:(?P<years>\d+)Y)?(?:(?P<months>\d+)M)?(?:(?P<weeks>\d+)W)?(?:(?P<days>\d+)D)?"
    r"(?:T(?=\d)(?:(?P<hours>\d+)H)?(?:(?P<minutes>\d+)M)?(?:(?P<seconds>\d+(?:\.\d+)?)S)?)?"
)


def bind(statement: SqlText, data: Mapping[str, Any], types: Mapping[str, ParameterType], where: str) -> dict[str, Any]:
    """Take a statement's parameters from the input.

    Args:
        statement: Whose parameters.
        data: The input, or an element of a batch over the input.
        types: `spec.sql.types`.
        where: The statement's field, for messages.

    Raises:
        FatalFailure: One is missing, or not of its type. The message holds no value.
    """
    if missing := [name for name in statement.parameters if name not in data]:
        raise FatalFailure(f"{where} needs {', '.join(missing)}, which the input does not have")
    bound: dict[str, Any] = {}
    for name in statement.parameters:
        kind = types.get(name)
        try:
            if name in statement.lists:
                values = data[name] if isinstance(data[name], list) else [data[name]]
                if len(values) > MOST_ELEMENTS:
                    raise FatalFailure(
                        f"input {name!r} has {len(values)} elements; behind IN are at most {MOST_ELEMENTS}"
                    )
                bound[name] = [to_parameter(value, kind, statement.database) for value in values]
            else:
                bound[name] = to_parameter(data[name], kind, statement.database)
        except (ValueError, TypeError, InvalidOperation, OverflowError) as error:
            reason = f": {error}" if isinstance(error, _KindError) else ""
            raise FatalFailure(f"input {name!r} is not of the type {kind!r} (spec.sql.types){reason}") from None
    return bound


def elements(path: str, data: Mapping[str, Any], where: str) -> Iterator[dict[str, Any]]:
    """The elements of a batch, each over the whole input.

    Raises:
        FatalFailure: The field is missing, no list, or one of a list's elements is no object.
    """
    found: Any = data
    for name in path.split("."):
        if not isinstance(found, dict) or name not in found:
            raise FatalFailure(f"{where} needs the list {path!r}, which the input does not have")
        found = found[name]
    if not isinstance(found, list):
        raise FatalFailure(f"{where}: input {path!r} is not a list")
    for index, element in enumerate(found):
        if not isinstance(element, dict):
            raise FatalFailure(f"{where}: element {index} of input {path!r} is not an object")
        yield {**data, **element}


def to_parameter(value: Any, kind: ParameterType | None, database: Database) -> Any:
    """Turn a value of the input into one for the driver.

    Without a type, lists and objects travel as JSON text and everything else as it is.

    Raises:
        ValueError: It is not of the type.
    """
    if value is None:
        return None
    if kind is None:
        return json.dumps(value, ensure_ascii=False) if isinstance(value, dict | list) else value
    return _KINDS[kind](value, database)


class _KindError(ValueError):
    """Says something about a type that is worth repeating; holds no value."""


def _text(value: Any, _: Database) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _integer(value: Any, _: Database) -> int:
    if isinstance(value, bool) or (isinstance(value, float) and not value.is_integer()):
        raise TypeError
    return int(value)


def _decimal(value: Any, database: Database) -> Decimal | str:
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        raise TypeError
    number = Decimal(str(value))
    return str(number) if database == "sqlite" else number  # which has no decimals


def _boolean(value: Any, _: Database) -> bool:
    if isinstance(value, bool):
        return value
    if value not in ("true", "false"):
        raise TypeError
    return bool(value == "true")


def _timestamp(value: Any, database: Database) -> datetime | str:
    read = datetime.fromisoformat(_ZONE.sub("", value))
    if database == "mysql" and read.tzinfo is not None:
        return read.astimezone(UTC).replace(tzinfo=None)  # the session's zone; the driver drops any other
    return read.isoformat() if database == "sqlite" else read


def _date(value: Any, database: Database) -> date | str:
    read = date.fromisoformat(value)
    return read.isoformat() if database == "sqlite" else read


def _time(value: Any, database: Database) -> time | str:
    read = time.fromisoformat(_ZONE.sub("", value))
    return read.isoformat() if database == "sqlite" else read


def _interval(value: Any, database: Database) -> timedelta | str:
    match = _DURATION.fullmatch(value)
    if match is None:
        raise _KindError("it is no ISO 8601 duration")
    if database != "mysql":
        # PostgreSQL knows no sign before the P.
        return re.sub(r"(\d+(?:\.\d+)?[YMWDHS])", r"-\1", value[1:]) if match["sign"] else str(value)
    if match["years"] or match["months"]:
        raise _KindError("MariaDB's TIME holds no years and months")
    parts = {unit: float(match[unit] or 0) for unit in ("weeks", "days", "hours", "minutes", "seconds")}
    return timedelta(**parts) * (-1 if match["sign"] else 1)


def _bytes(value: Any, _: Database) -> bytes:
    try:
        return base64.b64decode(value, validate=True)
    except binascii.Error:
        raise _KindError("it is no base64") from None


def _json(value: Any, _: Database) -> str:
    return json.dumps(value, ensure_ascii=False)


def _array(value: Any, database: Database) -> list[Any]:
    if database != "postgresql":
        raise _KindError("only PostgreSQL has arrays")
    if not isinstance(value, list):
        raise _KindError("it is no list")
    return value


_KINDS: Final[dict[ParameterType, Callable[[Any, Database], Any]]] = {
    "text": _text,
    "integer": _integer,
    "decimal": _decimal,
    "boolean": _boolean,
    "timestamp": _timestamp,
    "date": _date,
    "time": _time,
    "interval": _interval,
    "bytes": _bytes,
    "json": _json,
    "array": _array,
}
