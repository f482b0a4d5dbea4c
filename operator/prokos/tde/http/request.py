"""Building an HTTP request from an executor's settings and a task's input. Pure."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, unquote, urlencode, urlsplit, urlunsplit

import httpx
import uritemplate

from prokos.resources.http_text import fixed_origin
from prokos.tde.contract import FatalFailure
from prokos.tde.http.fields import MISSING, find

if TYPE_CHECKING:
    from collections.abc import Mapping

    from prokos.resources.http_settings import HttpSettings
    from prokos.tde.http.body import Body

IDEMPOTENCY_METHODS = frozenset({"POST", "PUT", "PATCH", "DELETE"})

_KEY = re.compile(r"[\x21-\x7e]([\x20-\x7e]{0,253}[\x21-\x7e])?")
"""What an idempotency key may be: most services take no more than 255 characters."""


def build_request(
    settings: HttpSettings,
    data: Mapping[str, Any],
    body: Body | None,
    idempotency_key: str,
    extra: Mapping[str, str],
) -> httpx.Request:
    """Build the request, without what authenticates it.

    Args:
        settings: The executor's.
        data: The task's input.
        body: What is sent.
        idempotency_key: The task's own key, for settings that name no other.
        extra: Headers beside those of the settings.

    Raises:
        FatalFailure: The input lacks a field the settings name, or makes a URL that would lead elsewhere.
    """
    headers = httpx.Headers({"Accept": "application/json", "Accept-Encoding": "identity", "User-Agent": "prokos"})
    if settings.response_format not in ("auto", "json"):
        headers["Accept"] = "*/*"
    if body is not None:
        headers["Content-Type"] = body.content_type
    if settings.method in IDEMPOTENCY_METHODS:
        headers[settings.idempotency.header] = _idempotency_key(settings, data, idempotency_key)
    headers.update(settings.headers)
    headers.update(extra)
    for name in [name for name, value in headers.items() if not value]:
        del headers[name]
    content = None if body is None else body.content
    try:
        return httpx.Request(settings.method, build_url(settings, data), headers=headers, content=content)
    except httpx.InvalidURL as error:
        raise FatalFailure(f"spec.http.url becomes no valid URL with this input: {error}") from None


def is_repeatable(request: httpx.Request, idempotency_header: str) -> bool:
    """Whether a request may be sent twice: its method is idempotent (RFC 9110, 9.2.2), or it carries a key."""
    return request.method in ("GET", "HEAD", "PUT", "DELETE") or idempotency_header in request.headers


def build_url(settings: HttpSettings, data: Mapping[str, Any]) -> str:
    """Expand the URL template over the input and add the query parameters.

    Raises:
        FatalFailure: A variable is missing, or the result has another origin than the template or climbs in it.
    """
    template = uritemplate.URITemplate(settings.url)
    variables: dict[str, Any] = {}
    for expression in template.variables:
        in_path = expression.original[0] not in "?&#+"
        for name in expression.variable_names:
            value = _field(data, name, "spec.http.url")
            if value is None or (in_path and value in ("", [], {})):  # DELETE /orders/{id} without an id
                raise FatalFailure(f"spec.http.url needs a value for {name!r}, but the input's is {value!r}")
            variables[name] = _text(value, name)
    try:
        url = urlsplit(template.expand(variables))
        port = url.port
    except ValueError as error:  # among them half of a surrogate pair in a string
        raise FatalFailure(f"spec.http.url becomes no valid URL with this input: {error}") from None
    origin = fixed_origin(settings.url)
    if origin is not None and f"{url.scheme}://{url.netloc}" != origin:
        raise FatalFailure("spec.http.url becomes a URL of another host with this input")
    if url.scheme not in ("http", "https") or not url.hostname or "@" in url.netloc or port == 0:
        raise FatalFailure("spec.http.url becomes no HTTP URL without credentials with this input")
    if not {".", ".."}.isdisjoint(re.split(r"[/\\]", unquote(url.path))):
        raise FatalFailure("spec.http.url climbs in its path with this input: a segment is . or ..")
    query = [url.query] if url.query else []
    for parameter, name in settings.query.items():
        value = _field(data, name, f"spec.http.query.{parameter}")
        values = value if isinstance(value, list) else [value]
        pairs = [(parameter, _text(each, name)) for each in values if each is not None]
        if any(not isinstance(text, str) for _, text in pairs):
            raise FatalFailure(f"spec.http.query.{parameter}: the field {name!r} is neither a value nor a list of them")
        try:
            query += [urlencode(pairs, quote_via=quote)] if pairs else []
        except UnicodeEncodeError:
            raise FatalFailure(f"spec.http.query.{parameter}: {name!r} holds half of a surrogate pair") from None
    return urlunsplit((url.scheme, url.netloc, url.path, "&".join(query), ""))


def _idempotency_key(settings: HttpSettings, data: Mapping[str, Any], task_key: str) -> str:
    name = settings.idempotency.field
    if name is None:
        return task_key
    key = _text(_field(data, name, "spec.http.idempotency.field"), name)
    if not isinstance(key, str) or not _KEY.fullmatch(key):
        raise FatalFailure(
            f"spec.http.idempotency.field: {name!r} must be a number, or a text of 1 to 255 ASCII characters"
        )
    return key


def _field(data: Mapping[str, Any], name: str, where: str) -> Any:
    value = find(data, name)
    if value is MISSING:
        raise FatalFailure(f"{where} needs the field {name!r}, which the input does not have")
    return value


def _text(value: Any, name: str) -> Any:
    """Write a value for a URL: scalars as JSON writes them, lists and objects of them."""
    if isinstance(value, str):
        return value
    if isinstance(value, bool | int | float):
        return json.dumps(value)
    if isinstance(value, list) and all(isinstance(item, str | bool | int | float) for item in value):
        return [_text(item, name) for item in value]
    if isinstance(value, dict) and all(isinstance(item, str | bool | int | float) for item in value.values()):
        return {key: _text(item, name) for key, item in value.items()}
    raise FatalFailure(f"the field {name!r} of the input has a structure that a URL cannot hold")
