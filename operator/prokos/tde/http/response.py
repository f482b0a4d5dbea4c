"""What an HTTP response means for its task: its outcome by status and content, its variables. Pure."""

from __future__ import annotations

import base64
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from functools import cached_property
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

from prokos.resources.http_outcomes import StatusOutcome
from prokos.tde.contract import FatalFailure, RetryableFailure
from prokos.tde.http.content import decode_text
from prokos.tde.http.fields import MISSING, find
from prokos.tde.json_text import parse_json

if TYPE_CHECKING:
    from collections.abc import Sequence

    import httpx

    from prokos.resources.http_settings import HttpSettings

_RETRIED = {408, 425, 429}
"""Besides 5xx, the statuses that say "later": request time-out, too early, too many requests."""

LONGEST_WAIT = timedelta(days=1)
"""A server that asks for more (Retry-After) gets this, so that it cannot park a task for ever."""


@dataclass(frozen=True)
class Answer:
    """A response whose content has been read."""

    response: httpx.Response
    content: bytes
    settings: HttpSettings

    @cached_property
    def media_type(self) -> str:
        """Media type without its parameters; empty when the server says none."""
        text: str = self.response.headers.get("content-type", "")
        return text.partition(";")[0].strip().lower()

    @cached_property
    def charset(self) -> str | None:
        """Charset of the text, as the settings or the server say."""
        return self.settings.charset or self.response.charset_encoding

    @cached_property
    def json(self) -> Any:
        """The content as JSON; `MISSING` when it is none. For rules, which do not insist on it."""
        try:
            return self._json()
        except (ValueError, FatalFailure):
            return MISSING

    @cached_property
    def body(self) -> Any:
        """The content as the settings want it; None when there is none.

        Raises:
            RetryableFailure: It should be JSON, and is not. A server that is being restarted does this, and a proxy
                before it; so it may pass.
            FatalFailure: It is neither JSON nor text.
        """
        wanted = self.settings.response_format
        if not self.content:
            return None
        if wanted == "binary":
            encoded = base64.b64encode(self.content).decode()
            return {"base64": encoded, "contentType": self.media_type, "size": len(self.content)}
        if wanted == "json" or (wanted == "auto" and is_json(self.media_type)):
            try:
                return self._json()
            except ValueError as error:
                says = f"says {self.media_type}, but is no JSON" if wanted == "auto" else "is no JSON"
                raise RetryableFailure(f"the response {says}: {error}") from None
        if wanted == "auto" and not self.media_type and self.json is not MISSING:
            return self.json
        try:
            return decode_text(self.content, self.charset or "utf-8")
        except FatalFailure:
            if wanted == "text" or self.charset is not None or self.media_type.startswith(("text/", "application/xml")):
                raise
            raise FatalFailure(
                f"the response is {self.media_type or 'binary'}, neither JSON nor text; set spec.http.responseFormat "
                "to binary or file"
            ) from None

    def _json(self) -> Any:
        if self.charset is not None and self.charset.lower() not in ("utf-8", "utf8"):
            return parse_json(decode_text(self.content, self.charset).encode())
        return parse_json(self.content)


def is_json(media_type: str) -> bool:
    """Whether a media type says JSON."""
    return media_type == "application/json" or media_type.endswith("+json")


# --- outcomes -------------------------------------------------------------------------------------------------


def candidates(status: int, settings: HttpSettings) -> list[StatusOutcome]:
    """The rules that may decide on a status: those of the executor that name it, else the default.

    All but the last depend on the answer's content.
    """
    found = []
    for rule in settings.outcomes:
        if rule.names(status):
            found.append(rule)
            if not rule.where:
                return found
    return [*found, default_outcome(status, awaits=settings.callback is not None)]


def default_outcome(status: int, *, awaits: bool) -> StatusOutcome:
    """What a status means that no rule names; `awaits` when the service can send its result later."""
    text = str(min(status, 599))
    if awaits and status == HTTPStatus.ACCEPTED:
        return StatusOutcome(status=text, outcome="callback")
    if 200 <= status < 300:
        return StatusOutcome(status=text, outcome="complete")
    if status >= 500 or status in _RETRIED:
        return StatusOutcome(status=text, outcome="retry")
    return StatusOutcome(status=text, outcome="fail")


def decide(rules: Sequence[StatusOutcome], answer: Answer) -> StatusOutcome:
    """The first rule whose conditions the answer meets; the last one has none."""
    for rule in rules[:-1]:
        if all(_same(find(answer.json, path), value) for path, value in rule.where.items()):
            return rule
    return rules[-1]


def _same(found: Any, wanted: Any) -> bool:
    # 1 == True to Python, and to nobody who writes a rule.
    return isinstance(found, bool) is isinstance(wanted, bool) and found is not MISSING and bool(found == wanted)


def provided_text(answer: Answer, path: str | None) -> str:
    """A text or number of the answer, for a message or code; empty when it has none there."""
    value = MISSING if path is None else find(answer.json, path)
    return str(value) if isinstance(value, str | int | float) and not isinstance(value, bool) else ""


def error_variables(answer: Answer, rule: StatusOutcome, result_variable: str | None) -> dict[str, Any]:
    """The variables of a business error: those the rule names, else the fields of a JSON object."""
    if rule.variables is not None:
        found = {name: find(answer.json, path) for name, path in rule.variables.items()}
        return {name: value for name, value in found.items() if value is not MISSING}
    body = None if answer.json is MISSING else answer.json
    if result_variable is not None:
        return {result_variable: whole(answer.response, body)}
    return body if isinstance(body, dict) else {}


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
        except (TypeError, ValueError, OverflowError):
            return None
        wait = (date if date.tzinfo else date.replace(tzinfo=UTC)) - now
    return min(wait, LONGEST_WAIT) if wait > timedelta(0) else None


# --- variables ------------------------------------------------------------------------------------------------


def to_output(answer: Answer) -> dict[str, Any]:
    """Turn an answer into the task's variables; raises what `Answer.body` raises."""
    settings = answer.settings
    body = answer.body
    if settings.result_variable is not None:
        return {settings.result_variable: whole(answer.response, body)}
    if not answer.content:
        return {}
    return body if isinstance(body, dict) and settings.response_format != "binary" else {"result": body}


def file_output(response: httpx.Response, reference: dict[str, Any], result_variable: str | None) -> dict[str, Any]:
    """Turn an answer that became a file into the task's variables."""
    media_type = response.headers.get("content-type", "").partition(";")[0].strip().lower()
    body = {**reference, "contentType": media_type}
    return {"result": body} if result_variable is None else {result_variable: whole(response, body)}


def whole(response: httpx.Response, body: Any) -> dict[str, Any]:
    """Status, headers (without cookies, which are credentials) and body in one."""
    headers = {name: value for name, value in response.headers.items() if name != "set-cookie"}
    return {"status": response.status_code, "headers": headers, "body": body}


def describe_status(response: httpx.Response) -> str:
    """Write a status with its standard phrase; the server's own phrase could say anything."""
    try:
        return f"{response.status_code} {HTTPStatus(response.status_code).phrase}"
    except ValueError:
        return str(response.status_code)
