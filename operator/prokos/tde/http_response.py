"""What an HTTP response means for its task. Pure."""

from __future__ import annotations

import zlib
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

from prokos.resources.http_settings import StatusOutcome
from prokos.tde.contract import FatalFailure, RetryableFailure
from prokos.tde.json_text import parse_json

if TYPE_CHECKING:
    from collections.abc import Sequence

    import httpx

_RETRIED = {408, 425, 429}
"""Besides 5xx, the statuses that say "later": request time-out, too early, too many requests."""

LONGEST_WAIT = timedelta(days=1)
"""A server that asks for more (Retry-After) gets this, so that it cannot park a task for ever."""


def outcome_of(status: int, outcomes: Sequence[StatusOutcome]) -> StatusOutcome:
    """Find the rule for a status: the first of the executor's that matches, else the default."""
    text = str(status)
    for rule in outcomes:
        if rule.status == text or (rule.status.endswith("xx") and rule.status[0] == text[0]):
            return rule
    if 200 <= status < 300:
        return StatusOutcome(status=text, outcome="complete")
    if status >= 500 or status in _RETRIED:
        return StatusOutcome(status=f"{min(status, 599)}", outcome="retry")
    return StatusOutcome(status=text, outcome="fail")


def retry_after(value: str | None, now: datetime) -> timedelta | None:
    """Read a Retry-After header: seconds, or an HTTP date.

    Returns:
        The time to wait, at most `LONGEST_WAIT`; None, for the executor's own back-off, when the header is absent,
        unreadable or asks for no wait.
    """
    if value is None:
        return None
    text = value.strip()
    if text.isascii() and text.isdigit():
        wait = timedelta(seconds=min(int(text[:10]), LONGEST_WAIT.total_seconds()))
    else:
        try:
            date = parsedate_to_datetime(text)
        except (TypeError, ValueError):
            return None
        wait = (date if date.tzinfo else date.replace(tzinfo=UTC)) - now
    return min(wait, LONGEST_WAIT) if wait > timedelta(0) else None


def decode_content(body: bytes, encoding: str | None, limit: int) -> bytes | None:
    """Undo a Content-Encoding the server applied although none was asked for.

    Returns:
        The content; None when it is longer than `limit` bytes, however much longer.

    Raises:
        RetryableFailure: It is damaged.
        FatalFailure: The encoding is unknown.
    """
    name = (encoding or "identity").strip().lower()
    if name == "identity" or not body:
        return body
    if name not in ("gzip", "x-gzip", "deflate"):
        raise FatalFailure(f"the response has the unknown Content-Encoding {name!r}")
    decoder = zlib.decompressobj(wbits=zlib.MAX_WBITS | 32)  # 32: gzip or zlib, whichever it is
    try:
        content = decoder.decompress(body, limit + 1)
    except zlib.error as error:
        raise RetryableFailure(f"the response's {name} content is damaged: {error}") from None
    if len(content) > limit:
        return None
    if not decoder.eof:
        raise RetryableFailure(f"the response's {name} content is cut off")
    return content


def parse_body(body: bytes, response: httpx.Response) -> Any:
    """Read a response's content: JSON, or text as it is.

    Raises:
        RetryableFailure: The response says that it is JSON, and it is not. A server that is being restarted does
            this, and a proxy before it; so it may pass.
        FatalFailure: It is neither JSON nor text.
    """
    media_type = response.headers.get("content-type", "").partition(";")[0].strip().lower()
    if media_type == "application/json" or media_type.endswith("+json"):
        try:
            return parse_json(body)
        except ValueError as error:
            raise RetryableFailure(f"the response says {media_type}, but is no JSON: {error}") from None
    if not media_type:
        try:
            return parse_json(body)
        except ValueError:
            pass  # then it is text
    try:
        return body.decode(response.charset_encoding or "utf-8")
    except (UnicodeDecodeError, LookupError):
        raise FatalFailure(f"the response is {media_type or 'binary'}, neither JSON nor text") from None


def to_output(body: bytes, response: httpx.Response, result_variable: str | None) -> dict[str, Any]:
    """Turn a response into the task's variables.

    Args:
        body: The content, decoded.
        response: Its status and headers.
        result_variable: Put everything into this variable: status, headers (without cookies, which are
            credentials) and body.
    """
    parsed = parse_body(body, response) if body else None
    if result_variable is not None:
        headers = {name: value for name, value in response.headers.items() if name != "set-cookie"}
        return {result_variable: {"status": response.status_code, "headers": headers, "body": parsed}}
    if not body:
        return {}
    return parsed if isinstance(parsed, dict) else {"result": parsed}


def to_error_variables(body: bytes, response: httpx.Response, result_variable: str | None) -> dict[str, Any]:
    """Turn the response of a business error into its variables: the fields of a JSON object, else none."""
    try:
        output = to_output(body, response, "parsed")["parsed"]
    except (RetryableFailure, FatalFailure):  # the status alone is the outcome
        output = {"status": response.status_code, "headers": {}, "body": None}
    if result_variable is not None:
        return {result_variable: output}
    return output["body"] if isinstance(output["body"], dict) else {}


def describe_status(response: httpx.Response) -> str:
    """Write a status with its standard phrase; the server's own phrase could say anything."""
    try:
        return f"{response.status_code} {HTTPStatus(response.status_code).phrase}"
    except ValueError:
        return str(response.status_code)
