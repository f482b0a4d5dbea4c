"""What a database error means for a task. Pure, over the drivers' exceptions."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import quote, quote_plus

from sqlalchemy.exc import StatementError

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from prokos.resources.sql_settings import SqlError

LONGEST_MESSAGE: Final = 1_000
"""Characters of a database's message that are passed on: it may quote a value of megabytes."""

_READ_ONLY: Final = "25006"
_RETRIED_SQLSTATES: Final = (
    "08",  # connection exception
    _READ_ONLY,  # read-only transaction: a former primary, during a switch-over
    "25P03",  # idle-in-transaction time-out
    "40",  # transaction rollback: serialization failure, deadlock
    "53",  # insufficient resources: too many connections, disk full
    "55006",  # object in use
    "55P03",  # lock not available, lock time-out
    "57014",  # cancelled, statement time-out
    "57P",  # operator intervention: shutdown, crash, still starting
    "58",  # system error: input and output
    "70100",  # query interrupted or out of time; MariaDB
)
"""SQLSTATEs, and classes of them, whose cause may pass (PostgreSQL, appendix A of its manual; MariaDB)."""

_RETRIED_MYSQL: Final = frozenset(
    {
        *(
            1020,
            1205,
            1206,
            1213,
            1614,
            1637,
        ),  # changed meanwhile, lock wait, lock table full, deadlock, many transactions
        *(1040, 1041, 1037, 1038, 1203, 1226),  # connections, memory, limits of the user
        *(1021, 1114, 1135),  # disk full, table full, no thread
        *(1053, 1077, 1079, 1080, 1927, 4031),  # shutdown, killed, idle too long
        *(1158, 1159, 1160, 1161, 1184),  # network
        *(1290, 1836, 1047, 1192),  # read-only server (a former primary), Galera not ready, table locked
        *(1317, 1969, 3024),  # interrupted, out of time
        *(2002, 2003, 2006, 2013, 2014, 2026, 2055),  # no connection, or lost
    }
)
"""Error numbers of MariaDB, MySQL and their clients whose cause may pass (MariaDB knowledge base, error codes)."""

_RETRIED_SQLITE: Final = frozenset({5, 6, 7, 9, 10, 13, 14, 15})
"""SQLite result codes whose cause may pass: BUSY, LOCKED, NOMEM, INTERRUPT, IOERR, FULL, CANTOPEN, PROTOCOL."""

_CONNECTION_ERRORS: Final = ("OperationalError", "InterfaceError", "ConnectionTimeout")

_OF_VALUES: Final = (ValueError, TypeError, ArithmeticError, RecursionError, StatementError)
"""What a value may raise that a driver cannot send or read."""

_CONSTRAINT: Final = re.compile(
    r"for key '(?P<key>[^']*)'$|CONSTRAINT `(?P<name>[^`]*)`|constraint failed: (?P<sqlite>.*)$|"
    r"constraint '(?P<check>[^']*)' is violated"
)
_BEFORE: Final = r"(Duplicate entry |value: |string: |near )"
_QUOTING: Final = (
    re.compile(_BEFORE + r"'.*'(?= for (?:key|column) | at line )", re.DOTALL),
    re.compile(_BEFORE + r"'.*'$", re.DOTALL),
)
"""Where MariaDB's messages quote values, or the statement with the values in it."""


def errno(error: BaseException) -> int | None:
    """The database's own number of an error: of MariaDB and MySQL, and SQLite's extended result code."""
    code: Any = getattr(error, "sqlite_errorcode", None)
    if code is None and is_mysql(error):
        code = error.args[0] if error.args else None
    return code if isinstance(code, int) else None


def is_mysql(error: BaseException) -> bool:
    """Whether an error is of PyMySQL."""
    return type(error).__module__.partition(".")[0] == "pymysql"


def constraint(error: BaseException) -> str | None:
    """The constraint that was violated: its name, a key's name, or SQLite's `table.column`."""
    named = getattr(getattr(error, "diag", None), "constraint_name", None)
    if named is not None:
        return str(named)
    text = str(error.args[1]) if is_mysql(error) and len(error.args) > 1 else str(error)
    found = _CONSTRAINT.search(text)
    if found is None:
        return None
    # MySQL 8 writes the table before the key.
    return (
        next(filter(None, found.groups()), "").rpartition(".")[2]
        if found["key"]
        else next(filter(None, found.groups()))
    )


def is_retryable(error: BaseException, *, read_only: bool = False) -> bool:
    """Whether a driver's error may pass. One without a code is a connection that failed, broke or sent nonsense.

    Args:
        error: As the driver raised it.
        read_only: Whether the transaction was to be read-only: then it is no former primary that refuses to write.
    """
    number = errno(error)
    if is_mysql(error):
        return (
            number in _RETRIED_MYSQL
            if number
            else type(error).__name__ in (*_CONNECTION_ERRORS, "InternalError", "Error")
        )
    if number is not None:
        return (number & 0xFF) in _RETRIED_SQLITE  # the upper bits only detail it
    sqlstate: str | None = getattr(error, "sqlstate", None)
    if sqlstate is not None:
        return sqlstate.startswith(_RETRIED_SQLSTATES) and not (read_only and sqlstate == _READ_ONLY)
    if is_not_text(error):
        return False
    if type(error).__module__.startswith(("psycopg", "sqlite3")):
        return type(error).__name__ in _CONNECTION_ERRORS
    return not isinstance(error, _OF_VALUES)


def is_not_text(error: BaseException) -> bool:
    """Whether SQLite has a text that is no UTF-8; its message holds the text."""
    return str(error).startswith("Could not decode to UTF-8")


def describe(error: BaseException) -> str:
    """The database's message on one line, without details, which quote the row's values."""
    if is_not_text(error):
        return "a text in the database is not UTF-8; select it as CAST(... AS BLOB), which comes as base64"
    message = getattr(getattr(error, "diag", None), "message_primary", None)
    if is_mysql(error) and len(error.args) > 1:
        message = str(error.args[1])
        for quoting in _QUOTING:
            message = quoting.sub(r"\1...", message)
    text = " ".join((message or str(error)).split())
    codes = [f"SQLSTATE {state}"] if (state := getattr(error, "sqlstate", None)) else []
    if is_mysql(error) and (number := errno(error)):
        codes.append(f"error {number}")
    return f"{text} ({', '.join(codes)})" if codes else text


def details(error: BaseException) -> dict[str, Any]:
    """What a boundary event gets to know of an error; no values."""
    found = {
        "sqlstate": getattr(error, "sqlstate", None),
        "errno": errno(error),
        "constraint": constraint(error),
    }
    return {name: value for name, value in found.items() if value is not None}


def business_rule(error: BaseException, rules: Sequence[SqlError]) -> SqlError | None:
    """The first rule that knows a database error."""
    found, text = details(error), str(error)
    for rule in rules:
        wanted = {"sqlstate": rule.sqlstate, "errno": rule.errno, "constraint": rule.constraint}
        if all(value is None or found.get(name) == value for name, value in wanted.items()) and (
            rule.contains is None or rule.contains in text
        ):
            return rule
    return None


def hide_values(message: str, values: Iterable[tuple[str, Any]]) -> str:
    """Replace parameter values that a database quotes in its message by their names."""
    flat = ((name, part) for name, value in values for part in (value if isinstance(value, list) else [value]))
    texts = {str(value): name for name, value in flat if value is not None and value != ""}
    for text in sorted((text for text in texts if text in message), key=len, reverse=True):
        for mark in ('"', "'"):
            message = message.replace(f"{mark}{text}{mark}", f"<{texts[text]}>")
        if len(text) >= _TELLING:
            message = message.replace(text, f"<{texts[text]}>")
    return message


_TELLING: Final = 4
"""Shortest value, in characters, that is hidden where it stands without quotes; shorter ones are part of words."""


def hide_password(message: str, password: str | None) -> str:
    """Replace a URL's password, also as the URL writes it."""
    for form in {password, quote(password), quote(password, safe=""), quote_plus(password)} if password else ():
        message = message.replace(form, "<password>")
    return message
