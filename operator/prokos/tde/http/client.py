"""Sending one request: authenticated, and through redirects if they are to be followed.

Every hop is a connection of its own through the guarded transport, so that each address is judged. Credentials go to
the origin that the settings name and to no other: once a redirect has left it, nothing more is authenticated, even if
a later one leads back, since the server in between chose that address.
"""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import httpx

from prokos.tde.contract import FatalFailure

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from prokos.resources.http_settings import HttpSettings
    from prokos.tde.http.auth import Authenticator

LOCATION_SHOWN = 300
"""Characters of a redirect's target that go into a message."""

_KEPT_HEADERS = ("accept", "accept-encoding", "user-agent", "content-type")
"""What another origin gets to see of the headers: none that settings or tasks chose."""

_CONTENT_HEADERS = ("content-type", "content-length", "transfer-encoding")


class HttpClient:
    """Sends the requests of one executor."""

    def __init__(self, settings: HttpSettings, transport: httpx.AsyncBaseTransport, auth: Authenticator) -> None:
        self._settings = settings
        self._transport = transport
        self._auth = auth

    @asynccontextmanager
    async def send(self, request: httpx.Request) -> AsyncIterator[httpx.Response]:
        """Send a request; the response, whose content is still to be read, is closed at the block's end.

        Args:
            request: Without credentials; it may be sent again.

        Raises:
            FatalFailure: An address is not allowed, or a redirect leads where it must not.
            RetryableFailure: A host cannot be resolved, or no token can be had.
        """
        hops, at_home, renewed = 0, True, False
        while True:
            sent = _copy(request)
            if at_home:
                await self._auth.authenticate(sent)
            response = await self._transport.handle_async_request(sent)
            try:
                if response.status_code == 401 and at_home and self._auth.renews and not renewed:
                    self._auth.refused(sent)
                    renewed = True
                    continue
                if not self._follows(response):
                    yield response
                    return
                hops += 1
                if hops > self._settings.max_redirects:
                    raise FatalFailure(
                        f"{_name(request)}: more than {self._settings.max_redirects} redirects (spec.http.maxRedirects)"
                    )
                url = self._target(request, response)
                at_home = at_home and _origin(url) == _origin(request.url)
                if not at_home and self._settings.client_certificate is not None:
                    raise FatalFailure(
                        f"{_name(request)} redirects to another origin, {self._shown(url)}, where the client "
                        "certificate must not be shown"
                    )
                request = redirected(request, response.status_code, url, at_home=at_home)
            finally:
                await response.aclose()

    def _follows(self, response: httpx.Response) -> bool:
        """Whether a response is a redirect to follow: an outcome rule that names its status goes before."""
        named = any(rule.names(response.status_code) for rule in self._settings.outcomes)
        return self._settings.max_redirects > 0 and response.has_redirect_location and not named

    def _target(self, request: httpx.Request, response: httpx.Response) -> httpx.URL:
        """Where a redirect leads.

        Raises:
            FatalFailure: To no HTTP address, to one with credentials, or from https to http.
        """
        location = response.headers["location"]
        try:
            url = request.url.join(location).copy_with(fragment=None)
        except (httpx.InvalidURL, ValueError, UnicodeError):
            raise FatalFailure(
                f"{_name(request)} redirects to no valid address: {self._auth.excerpt(location, LOCATION_SHOWN)!r}"
            ) from None
        where = f"{_name(request)} redirects to {self._shown(url)}"
        if url.scheme not in ("http", "https") or not url.host or not _is_port(url.port):
            raise FatalFailure(f"{where}, which is no HTTP address")
        if url.userinfo:
            raise FatalFailure(f"{_name(request)} redirects to an address with credentials, which are not used")
        if request.url.scheme == "https" and url.scheme == "http":
            raise FatalFailure(f"{where}, from https to http; this is not followed")
        return url

    def _shown(self, url: httpx.URL) -> str:
        return self._auth.excerpt(str(url.copy_with(query=None, userinfo=b"")), LOCATION_SHOWN)


def redirected(request: httpx.Request, status: int, url: httpx.URL, *, at_home: bool) -> httpx.Request:
    """The request after a redirect: 307 and 308 keep method and body, the others become GET, as browsers do it."""
    keeps = status in (307, 308) or request.method in ("GET", "HEAD") or (status == 301 and request.method != "POST")
    headers = request.headers.copy()
    del headers["host"]
    for name in list(headers):
        if (not keeps and name in _CONTENT_HEADERS) or (not at_home and name not in _KEPT_HEADERS):
            del headers[name]
    return httpx.Request(
        request.method if keeps else "GET",
        url,
        headers=headers,
        content=request.content or None if keeps else None,
        extensions=request.extensions,
    )


def _copy(request: httpx.Request) -> httpx.Request:
    headers = request.headers.copy()
    extensions = dict(request.extensions)
    return httpx.Request(
        request.method, request.url, headers=headers, content=request.content or None, extensions=extensions
    )


def _origin(url: httpx.URL) -> tuple[str, str, int]:
    return url.scheme, url.host, url.port or {"http": 80, "https": 443}[url.scheme]


def _name(request: httpx.Request) -> str:
    return f"{request.method} {request.url.copy_with(query=None)}"


def _is_port(port: int | None) -> bool:
    return port is None or 0 < port < 65_536
