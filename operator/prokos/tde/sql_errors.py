"""What a database error means for a task. Pure, over the drivers' exceptions."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence

    from prokos.resources.sql_settings import SqlError

_RETRIED_SQLSTATES = (
    "08",  # connection exception
    "25006",  # read-only transaction: a former primary, during a switch-over
    "25P03",  # idle-in-transaction time-out
    "40",  # transaction rollback: serialization failure, deadlock
    "53",  # insufficient resources: too many connections, disk full
    "55006",  # object in use
    "55P03",  # lock not available, lock time-out
    "57014",  # cancelled, statement time-out
    "57P",  # operator intervention: shutdown, crash, still starting
    "58",  # system error: input and output
)
"""SQLSTATEs, and classes of them, whose cause may pass (PostgreSQL, appendix A of its manual)."""

_RETRIED_SQLITE = {5, 6, 7, 9, 10, 13, 14, 15}
"""SQLite result codes whose cause may pass: BUSY, LOCKED, NOMEM, INTERRUPT, IOERR, FULL, CANTOPEN, PROTOCOL."""

_CONNECTION_ERRORS = ("OperationalError", "InterfaceError", "ConnectionTimeout")


def is_retryable(error: BaseException) -> bool:
    """Whether a driver's error may pass. One without a code is a connection that failed or broke."""
    sqlite_code: int | None = getattr(error, "sqlite_errorcode", None)
    if sqlite_code is not None:
        return (sqlite_code & 0xFF) in _RETRIED_SQLITE  # the upper bits only detail it
    sqlstate: str | None = getattr(error, "sqlstate", None)
    if sqlstate is not None:
        return sqlstate.startswith(_RETRIED_SQLSTATES)
    return isinstance(error, OSError) or type(error).__name__ in _CONNECTION_ERRORS


def describe(error: BaseException) -> str:
    """The database's message on one line, without details, which quote the row's values."""
    diagnostics = getattr(error, "diag", None)
    message = getattr(diagnostics, "message_primary", None) or str(error)
    sqlstate = getattr(error, "sqlstate", None)
    text = " ".join(message.split())
    return f"{text} (SQLSTATE {sqlstate})" if sqlstate else text


def business_code(error: BaseException, rules: Sequence[SqlError]) -> str | None:
    """The BPMN error code of the first rule that knows a database error."""
    sqlstate: Any = getattr(error, "sqlstate", None)
    for rule in rules:
        if rule.sqlstate is not None and rule.sqlstate == sqlstate:
            return rule.code
        if rule.contains is not None and rule.contains in str(error):
            return rule.code
    return None
