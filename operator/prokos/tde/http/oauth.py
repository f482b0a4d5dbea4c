"""OAuth 2.0 client credentials: fetching a token, keeping it, and asking once for however many tasks wait for it."""

from __future__ import annotations

import asyncio
import base64
import re
import time
from collections import deque
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any
from urllib.parse import quote_plus, urlencode

import httpx

from prokos.tde.contract import FatalFailure, RetryableFailure
from prokos.tde.http.content import read_content
from prokos.tde.http.failures import connection_failures
from prokos.tde.http.response import describe_status, retry_after
from prokos.tde.json_text import parse_json

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from prokos.resources.http_auth import OAuth2

FETCH_TIMEOUT = 30.0
"""Seconds a token endpoint has to answer."""

LONGEST_ANSWER = 100_000
"""Bytes of a token endpoint's answer."""

UNKNOWN_LIFETIME = 3600.0
"""Seconds a token is kept whose endpoint does not say how long it lives; a 401 of the service ends it earlier."""

RENEWED_BEFORE = 30.0
"""Seconds before its end at which a token is renewed; a fifth of its life, if that is shorter."""

REMEMBERED = 5
"""Tokens that are kept out of messages: the present one, and those that calls under way may still use."""


class TokenSource:
    """The token of one client at one token endpoint."""

    def __init__(
        self,
        settings: OAuth2,
        client_secret: str,
        transport: httpx.AsyncBaseTransport,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._settings = settings
        self._client_secret = client_secret
        self._transport = transport
        self._clock = clock
        self._token = ""
        self._good_until = 0.0
        self._fetching: asyncio.Task[str] | None = None
        self._known: deque[str] = deque(maxlen=REMEMBERED)

    @property
    def known(self) -> Iterable[str]:
        """Tokens that must not be shown."""
        return tuple(self._known)

    async def token(self) -> str:
        """A token that is good for a while.

        Raises:
            RetryableFailure: The endpoint does not give one now.
            FatalFailure: It refuses the client, or its address is not allowed.
        """
        if self._token and self._clock() < self._good_until:
            return self._token
        if self._fetching is None:
            self._fetching = asyncio.create_task(self._fetch())
            self._fetching.add_done_callback(self._fetched)
        # One task that is cancelled must not take the token away from the others.
        return await asyncio.shield(self._fetching)

    def forget(self, token: str) -> None:
        """A service did not take this token."""
        if token == self._token:
            self._token = ""

    async def close(self) -> None:
        """Stop fetching."""
        if self._fetching is not None:
            self._fetching.cancel()
            await asyncio.gather(self._fetching, return_exceptions=True)

    def _fetched(self, done: asyncio.Task[str]) -> None:
        self._fetching = None
        if not done.cancelled():
            done.exception()  # it is raised where somebody still waits for it

    async def _fetch(self) -> str:
        asked = self._clock()
        with connection_failures(f"token endpoint {self._settings.token_url}", FETCH_TIMEOUT):
            async with asyncio.timeout(FETCH_TIMEOUT):
                content, response = await self._ask()
        token, lifetime = read_token(self._settings.token_url, response, content)
        self._known.append(token)
        self._token = token
        self._good_until = asked + lifetime - min(RENEWED_BEFORE, lifetime / 5)
        return token

    async def _ask(self) -> tuple[bytes, httpx.Response]:
        response = await self._transport.handle_async_request(self._request())
        try:
            return await read_content(response, LONGEST_ANSWER), response
        finally:
            await response.aclose()

    def _request(self) -> httpx.Request:
        settings = self._settings
        form = {"grant_type": "client_credentials", **settings.parameters}
        if settings.scopes:
            form["scope"] = " ".join(settings.scopes)
        headers = {
            "Accept": "application/json",
            "Accept-Encoding": "identity",
            "User-Agent": "prokos",
            "Content-Type": "application/x-www-form-urlencoded",
        }
        if settings.client_authentication == "basic":
            # RFC 6749, 2.3.1: both parts are encoded as in a form first.
            pair = f"{quote_plus(settings.client_id)}:{quote_plus(self._client_secret)}"
            headers["Authorization"] = f"Basic {base64.b64encode(pair.encode()).decode()}"
        else:
            form |= {"client_id": settings.client_id, "client_secret": self._client_secret}
        timeout = dict.fromkeys(("connect", "read", "write", "pool"), FETCH_TIMEOUT)
        return httpx.Request(
            "POST", settings.token_url, headers=headers, content=urlencode(form), extensions={"timeout": timeout}
        )


def read_token(url: str, response: httpx.Response, content: bytes) -> tuple[str, float]:
    """Read a token endpoint's answer (RFC 6749, 5): the token, and the seconds it lives.

    Raises:
        RetryableFailure: The endpoint is busy or broken.
        FatalFailure: It refuses the client, or gives what cannot be used.
    """
    answered = f"the token endpoint {url} answered {describe_status(response)}"
    try:
        answer: Any = parse_json(content)
    except ValueError as error:
        answer = None
        problem = f", which is no JSON: {error}"
    else:
        problem = ""
    status = response.status_code
    if status >= 500 or status in (408, 425, 429):
        raise RetryableFailure(answered, retry_after(response.headers.get("retry-after"), datetime.now(UTC)))
    if status != 200:
        said = ""
        if isinstance(answer, dict):
            words = [str(answer[name])[:200] for name in ("error", "error_description") if name in answer]
            said = "".join(f": {word}" for word in words if word.isprintable())
        raise FatalFailure(f"{answered}{said}; check spec.http.auth.oauth2")
    if problem:
        raise RetryableFailure(answered + problem)
    token = answer.get("access_token") if isinstance(answer, dict) else None
    if not isinstance(token, str) or not re.fullmatch(r"[\x21-\x7e]+", token):
        raise FatalFailure(f"{answered}, but without an access_token that can be sent")
    kind = answer.get("token_type", "Bearer")
    if not isinstance(kind, str) or kind.lower() != "bearer":
        raise FatalFailure(f"{answered}, but with a token of type {str(kind)[:50]!r}; only bearer tokens can be used")
    return token, _lifetime(answer.get("expires_in"))


def _lifetime(value: Any) -> float:
    # Some endpoints send the number as text.
    text = str(value)
    return float(text) if re.fullmatch(r"\d{1,9}(\.\d+)?", text) and float(text) > 0 else UNKNOWN_LIFETIME
