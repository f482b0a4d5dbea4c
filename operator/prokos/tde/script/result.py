"""What a script said at its end: the files of the contract, which may be anything, become an outcome."""

from __future__ import annotations

import os
import stat
from datetime import timedelta
from typing import TYPE_CHECKING, Any, NoReturn

from prokos.tde.contract import BusinessError, FatalFailure, RetryableFailure
from prokos.tde.json_text import parse_json

if TYPE_CHECKING:
    from pathlib import Path

    from prokos.tde.redaction import Redactor


def read_result(path: Path, limit: int, redactor: Redactor) -> dict[str, Any]:
    """The content of `$PROKOS_OUTPUT`; what is no object becomes `result`.

    Raises:
        FatalFailure: It is not JSON, too long, or holds a secret.
    """
    result = _parse(_read(path, "$PROKOS_OUTPUT", limit) or b"{}", "$PROKOS_OUTPUT")
    redactor.refuse(result, "the result")
    return result if isinstance(result, dict) else {"result": result}


def raise_error(path: Path, limit: int, redactor: Redactor) -> None:
    """Raise what `$PROKOS_ERROR` says; nothing if it is not there or empty.

    Raises:
        BusinessError, RetryableFailure: As it says.
        FatalFailure: As it says; or what it says makes no sense.
    """
    data = _read(path, "$PROKOS_ERROR", limit)
    if data is not None:
        _raise(data, redactor)


def _read(path: Path, name: str, limit: int) -> bytes | None:
    try:
        # Neither follow a link out of the directory nor wait for a writer to a pipe.
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise FatalFailure(f"{name} cannot be read: {error.strerror}") from error
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise FatalFailure(f"{name} is not a regular file")
        if status.st_size > limit:
            raise FatalFailure(f"{name} has {status.st_size} bytes, which exceeds spec.script.maxOutputBytes ({limit})")
        with os.fdopen(descriptor, "rb", closefd=False) as file:
            return file.read(limit).strip() or None
    finally:
        os.close(descriptor)


def _raise(data: bytes, redactor: Redactor) -> NoReturn:
    error = _parse(data, "$PROKOS_ERROR")
    if not isinstance(error, dict):
        raise FatalFailure(f"$PROKOS_ERROR must hold a JSON object, not {redactor.text(repr(error)[:100])}")
    code, variables, after = (error.get(key) for key in ("code", "variables", "retryAfterSeconds"))
    message = redactor.text(str(error.get("message") or "the script gave no message"))
    if code is not None:
        if not isinstance(code, str) or not code:
            raise FatalFailure(f"code in $PROKOS_ERROR must be a text that is not empty, not {code!r}")
        if not isinstance(variables or {}, dict):
            raise FatalFailure("variables in $PROKOS_ERROR must be a JSON object")
        redactor.refuse([code, variables], "the business error")
        raise BusinessError(code, message, variables)
    if error.get("fatal") is True:
        raise FatalFailure(message)
    try:
        raise RetryableFailure(message, None if after is None else timedelta(seconds=max(after, 0)))
    except (TypeError, OverflowError):
        raise FatalFailure(f"retryAfterSeconds in $PROKOS_ERROR must be seconds, not {after!r}") from None


def _parse(data: bytes, name: str) -> Any:
    try:
        return parse_json(data)
    except ValueError as error:
        raise FatalFailure(f"{name} does not hold JSON: {error}") from None
