"""Building an HTTP request from an executor's settings and a task's input. Pure."""

from __future__ import annotations

import base64
import json
import re
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, unquote, urlencode, urlsplit, urlunsplit

import httpx
import uritemplate

from prokos.resources.http_settings import fixed_origin
from prokos.tde.contract import FatalFailure

if TYPE_CHECKING:
    from collections.abc import Mapping

    from prokos.resources.http_settings import HttpSettings
    from prokos.tde.contract import Secrets

_BODY_METHODS = {"POST", "PUT", "PATCH"}
_IDEMPOTENCY_METHODS = _BODY_METHODS | {"DELETE"}


def build_request(
    settings: HttpSettings, data: Mapping[str, Any], secrets: Secrets, idempotency_key: str
) -> httpx.Request:
    """Build the request.

    Raises:
        FatalFailure: The input lacks a field the settings name, or makes a URL that would lead elsewhere.
    """
    content = _body(settings, data)
    headers = httpx.Headers({"Accept": "application/json", "Accept-Encoding": "identity", "User-Agent": "prokos"})
    if content is not None:
        headers["Content-Type"] = "application/json"
    if settings.method in _IDEMPOTENCY_METHODS:
        headers["Idempotency-Key"] = idempotency_key
    headers.update(settings.headers)
    headers.update(auth_headers(settings, secrets))
    for name in [name for name, value in headers.items() if not value]:
        del headers[name]
    try:
        return httpx.Request(settings.method, build_url(settings, data), headers=headers, content=content)
    except httpx.InvalidURL as error:
        raise FatalFailure(f"spec.http.url becomes no valid URL with this input: {error}") from None


def auth_headers(settings: HttpSettings, secrets: Secrets) -> dict[str, str]:
    """The headers that authenticate a call.

    Raises:
        FatalFailure: A secret is not declared, or cannot be sent in a header.
    """
    auth = settings.auth
    if auth is None:
        return {}
    if auth.bearer is not None:
        headers, name = {"Authorization": f"Bearer {secrets[auth.bearer]}"}, auth.bearer
    elif auth.basic is not None:
        credentials = f"{auth.basic.username}:{secrets[auth.basic.password]}".encode()
        headers, name = {"Authorization": f"Basic {base64.b64encode(credentials).decode()}"}, auth.basic.password
    else:
        assert auth.api_key is not None  # noqa: S101 - the model holds exactly one of the three
        headers, name = {auth.api_key.header: secrets[auth.api_key.secret]}, auth.api_key.secret
    if not all(re.fullmatch(r"[\x20-\x7e]+", value) for value in headers.values()):
        raise FatalFailure(
            f"secret {name!r} cannot be sent in a header: it is empty, or has a line break or other control character"
        )
    return headers


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
        query += [urlencode(pairs, quote_via=quote)] if pairs else []
    return urlunsplit((url.scheme, url.netloc, url.path, "&".join(query), ""))


def _body(settings: HttpSettings, data: Mapping[str, Any]) -> bytes | None:
    body = settings.body or ("input" if settings.method in _BODY_METHODS else "none")
    if body == "none":
        return None
    value = data if body == "input" else _field(data, body, "spec.http.body")
    try:
        return json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode()
    except (TypeError, ValueError) as error:
        raise FatalFailure(f"spec.http.body: the input cannot be written as JSON: {error}") from None


def _field(data: Mapping[str, Any], name: str, where: str) -> Any:
    """Find a field of the input: by its name, else by its path `a.b`."""
    if name in data:
        return data[name]
    value: Any = data
    for step in name.split("."):
        if not isinstance(value, dict) or step not in value:
            raise FatalFailure(f"{where} needs the field {name!r}, which the input does not have")
        value = value[step]
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
