"""What authenticates a call: static secrets and OAuth 2.0 tokens, and keeping both out of what leaves the worker."""

from __future__ import annotations

import base64
import re
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, quote_plus

from prokos.tde.contract import FatalFailure
from prokos.tde.result_redaction import clear_result

if TYPE_CHECKING:
    import httpx

    from prokos.resources.http_settings import HttpSettings
    from prokos.tde.contract import Secrets
    from prokos.tde.http.oauth import TokenSource


class Authenticator:
    """Adds credentials to requests.

    Raises:
        FatalFailure: A secret is not declared, or cannot be sent.
    """

    def __init__(self, settings: HttpSettings, secrets: Secrets, tokens: TokenSource | None = None) -> None:
        self._secrets = secrets
        self._tokens = tokens
        self._headers = static_headers(settings, secrets)
        self._query: tuple[str, str] | None = None
        auth = settings.auth
        if auth is not None and auth.api_key is not None and auth.api_key.query is not None:
            self._query = (auth.api_key.query, sendable(secrets, auth.api_key.secret))
        self._shown = _shown_as(settings, secrets, self._headers)

    @property
    def renews(self) -> bool:
        """Whether a refused call may succeed with new credentials."""
        return self._tokens is not None

    async def authenticate(self, request: httpx.Request) -> None:
        """Put the credentials into a request.

        Raises:
            RetryableFailure: No token can be had now.
            FatalFailure: The token endpoint refuses the client.
        """
        request.headers.update(self._headers)
        if self._query is not None:
            request.url = request.url.copy_set_param(*self._query)
        if self._tokens is not None:
            request.headers["Authorization"] = f"Bearer {await self._tokens.token()}"

    def refused(self, request: httpx.Request) -> None:
        """The service did not take a request's credentials: do not use them again, if there may be others."""
        if self._tokens is not None:
            self._tokens.forget(request.headers.get("Authorization", "").partition(" ")[2])

    def redact(self, text: str) -> str:
        """Clear a text of secrets, also in the forms in which they are sent."""
        if self._tokens is not None:
            for token in self._tokens.known:
                text = text.replace(token, "<access token>")
        for value, name in self._shown:
            text = text.replace(value, f"<{name}>")
        return self._secrets.redact(text)

    def excerpt(self, text: str, limit: int) -> str:
        """The start of what a service said, on one line, for a message.

        It is cleared before it is cut: a part of a secret would not be recognised any more.
        """
        return "".join(char for char in " ".join(self.redact(text).split()) if char.isprintable())[:limit]

    def redact_result(self, value: Any) -> Any:
        """Clear a result of secrets: a service may echo what it was sent.

        Raises:
            FatalFailure: The result is nested too deeply.
        """
        tokens = self._tokens.known if self._tokens is not None else ()
        return clear_result(value, [*self._shown, *((token, "access token") for token in tokens)])


def static_headers(settings: HttpSettings, secrets: Secrets) -> dict[str, str]:
    """The headers that authenticate each call alike; raises what `Authenticator` raises."""
    auth = settings.auth
    if auth is None:
        return {}
    if auth.bearer is not None:
        return {"Authorization": f"Bearer {sendable(secrets, auth.bearer)}"}
    if auth.basic is not None:
        credentials = f"{auth.basic.username}:{secrets[auth.basic.password]}".encode()
        return {"Authorization": f"Basic {base64.b64encode(credentials).decode()}"}
    if auth.api_key is not None and auth.api_key.header is not None:
        return {auth.api_key.header: sendable(secrets, auth.api_key.secret)}
    return {}


def sendable(secrets: Secrets, name: str) -> str:
    """The value of a secret that fits into a header.

    Raises:
        FatalFailure: It does not.
    """
    value = secrets[name]
    if not re.fullmatch(r"[\x21-\x7e]([\x20-\x7e]*[\x21-\x7e])?", value):
        raise FatalFailure(
            f"secret {name!r} cannot be sent in a header: it is empty, has a space at an end, or has a line break or "
            "another control character"
        )
    return value


def _shown_as(settings: HttpSettings, secrets: Secrets, headers: dict[str, str]) -> list[tuple[str, str]]:
    """The forms in which secrets may show, the longest first, each with what to put in its place."""
    shown: dict[str, str] = {}
    for name, header in headers.items():
        shown[header.partition(" ")[2] if name == "Authorization" else header] = f"{name} header"
    for _, secret in settings.secret_references():
        value = secrets[secret]
        shown |= dict.fromkeys((quote(value, safe=""), quote_plus(value), value), f"secret {secret}")
    return sorted(((value, name) for value, name in shown.items() if value), key=lambda each: -len(each[0]))
