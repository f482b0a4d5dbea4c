"""Request bodies from a task's input: JSON, form, multipart, text, binary.

Bytes travel in variables as base64, or as the name of a file in the executor's directory of files: in a binary body
and in the parts of a multipart one, an object `{"base64": ...}` or `{"file": ...}` stands for them, with an optional
`filename` and `contentType`.
"""

from __future__ import annotations

import base64
import binascii
import json
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode

import httpx

from prokos.tde.contract import FatalFailure
from prokos.tde.http.fields import MISSING, find

if TYPE_CHECKING:
    from collections.abc import Mapping

    from prokos.resources.http_settings import HttpSettings
    from prokos.tde.http.files import Files

WHERE = "spec.http.body"

_MEDIA_TYPE = re.compile(r"[\w!#$&^.+-]+/[\w!#$&^.+-]+(;[\x20-\x7e]*)?", re.ASCII)


@dataclass(frozen=True, slots=True)
class Body:
    """A request body and its media type."""

    content: bytes
    content_type: str


@dataclass(frozen=True, slots=True)
class _Bytes:
    content: bytes
    filename: str | None = None
    content_type: str | None = None


def build_body(
    settings: HttpSettings, data: Mapping[str, Any], files: Files | None, extra: Mapping[str, str]
) -> Body | None:
    """Build the body; None when the settings want none.

    Args:
        settings: The executor's.
        data: The task's input.
        files: Where the input's files are; None when it must not name any.
        extra: Fields to add to a body that is an object.

    Raises:
        FatalFailure: The input lacks what the body needs, or cannot be sent in this format.
    """
    if not settings.has_body:
        return None
    value = data if settings.body_source == "input" else find(data, settings.body_source)
    if value is MISSING:
        raise FatalFailure(f"{WHERE} needs the field {settings.body_source!r}, which the input does not have")
    if extra:
        value = {**_object(value, settings.body_format), **extra}
    try:
        body = _build(settings, value, files)
    except UnicodeEncodeError as error:
        raise FatalFailure(f"{WHERE}: a text holds half of a surrogate pair, which UTF-8 cannot") from error
    if len(body.content) > settings.max_request_bytes:
        raise FatalFailure(
            f"the request's body has {len(body.content)} bytes; spec.http.maxRequestBytes is "
            f"{settings.max_request_bytes}"
        )
    return body


def _build(settings: HttpSettings, value: Any, files: Files | None) -> Body:
    match settings.body_format:
        case "json":
            return Body(_json(value).encode(), "application/json")
        case "form":
            pairs = [(name, _text(text, name)) for name, text in _items(_object(value, "form"))]
            return Body(urlencode(pairs).encode(), "application/x-www-form-urlencoded")
        case "multipart":
            return _multipart(_object(value, "multipart"), files, settings.max_request_bytes)
        case "text":
            return Body(_text(value, WHERE).encode(), "text/plain; charset=utf-8")
        case "binary":
            found = _bytes(value, WHERE, files, settings.max_request_bytes)
            if found is None:
                raise FatalFailure(
                    f'{WHERE}: for bodyFormat binary a base64 text is needed, or an object {{"base64": ...}} or '
                    '{"file": ...}'
                )
            return Body(found.content, found.content_type or "application/octet-stream")


def _json(value: Any) -> str:
    try:
        return json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    except RecursionError:
        raise FatalFailure(f"{WHERE}: the input is nested too deeply") from None
    except (TypeError, ValueError) as error:
        raise FatalFailure(f"{WHERE}: the input cannot be written as JSON: {error}") from None


def _object(value: Any, body_format: str) -> Mapping[str, Any]:
    if not isinstance(value, dict):
        raise FatalFailure(f"{WHERE}: bodyFormat {body_format} needs an object here, not {type(value).__name__}")
    return value


def _items(value: Mapping[str, Any]) -> list[tuple[str, Any]]:
    """Fields in their order; null leaves one out, a list repeats it."""
    pairs = [(name, each) for name, field in value.items() for each in (field if isinstance(field, list) else [field])]
    return [(name, each) for name, each in pairs if each is not None]


def _text(value: Any, name: str) -> str:
    if isinstance(value, str):
        return value
    if isinstance(value, bool | int | float):
        return _json(value)
    raise FatalFailure(f"{WHERE}: {name!r} is neither text nor number nor boolean")


def _multipart(fields: Mapping[str, Any], files: Files | None, limit: int) -> Body:
    plain: dict[str, list[str]] = {}
    parts: list[tuple[str, tuple[str | None, bytes, str | None]]] = []
    for name, value in _items(fields):
        # A text is a text here: only an object says that it is base64.
        found = _bytes(value, name, files, limit) if isinstance(value, dict) else None
        if found is None:
            plain.setdefault(name, []).append(_text(value, name))
        else:
            media_type = found.content_type or "application/octet-stream"
            parts.append((name, (found.filename or name, found.content, media_type)))
    if not parts:
        # httpx makes multipart only of what has a file; a part without a file name is a plain field.
        parts = [(name, (None, text.encode(), None)) for name, texts in plain.items() for text in texts]
        plain = {}
    if not parts:
        raise FatalFailure(f"{WHERE}: bodyFormat multipart needs at least one field that is not null")
    request = httpx.Request("POST", "http://multipart.invalid/", data=plain, files=parts)
    return Body(request.read(), request.headers["Content-Type"])


def _bytes(value: Any, name: str, files: Files | None, limit: int) -> _Bytes | None:
    """What stands for bytes in the input; None when it does not."""
    if isinstance(value, str):
        return _Bytes(_decoded(value, name))
    if not isinstance(value, dict) or ("base64" in value) == ("file" in value):
        return None
    filename, content_type = value.get("filename"), value.get("contentType")
    if filename is not None and not isinstance(filename, str):
        raise FatalFailure(f"{WHERE}: the filename of {name!r} is no text")
    if content_type is not None and not (isinstance(content_type, str) and _MEDIA_TYPE.fullmatch(content_type)):
        raise FatalFailure(f"{WHERE}: the contentType of {name!r} is no media type such as image/png")
    source = value["file"] if "file" in value else value["base64"]
    if not isinstance(source, str):
        raise FatalFailure(f"{WHERE}: {name!r} needs a text as its base64 or file")
    if "base64" in value:
        return _Bytes(_decoded(source, name), filename, content_type)
    if files is None:
        raise FatalFailure(f"{WHERE}: {name!r} names a file, but spec.http.filesDirectory is not set")
    return _Bytes(files.read(source, limit), filename or source.rpartition("/")[2], content_type)


def _decoded(text: str, name: str) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError) as error:
        raise FatalFailure(f"{WHERE}: {name!r} is not base64: {error}") from None
