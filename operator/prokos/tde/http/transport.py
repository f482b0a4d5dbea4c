"""The way out of the HTTP executor: connections only to addresses that were judged.

It plugs in below httpx, where a connection is opened, so nothing above it can go round it. The pool and TLS know
the host by its name; only the connection itself goes to the address, so certificates are checked for the name and
a second look-up cannot lead elsewhere (DNS rebinding).
"""

from __future__ import annotations

import asyncio
import os
import ssl
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import httpcore
import httpx

from prokos.tde.addresses import Resolver, reachable, resolve
from prokos.tde.contract import RetryableFailure
from prokos.tde.http.failures import UnsentFailure

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterable, Iterator, Sequence

    from prokos.resources.http_settings import HttpSettings
    from prokos.tde.addresses import Network
    from prokos.tde.contract import Secrets

KEEP_ALIVE = 30.0
"""Seconds an idle connection is kept; afterwards the host is looked up anew."""


class GuardedBackend(httpcore.AsyncNetworkBackend):
    """Opens connections to checked addresses."""

    def __init__(self, allowed: Sequence[Network], resolver: Resolver = resolve) -> None:
        self._allowed = allowed
        self._resolver = resolver
        self._backend = httpcore.AnyIOBackend()

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore.AsyncNetworkStream:
        """Look the host up, judge every address, and connect to the first that answers.

        Raises:
            FatalFailure: An address is not allowed.
            UnsentFailure: The host cannot be resolved.
            httpcore.ConnectError: No address answers.
        """
        try:
            async with asyncio.timeout(timeout):
                addresses = await reachable(host, port, self._allowed, self._resolver)
        except TimeoutError as error:
            raise httpcore.ConnectTimeout(f"looking up {host} took too long") from error
        except RetryableFailure as error:
            raise UnsentFailure(str(error)) from error
        last: Exception = httpcore.ConnectError("no address")
        for index, address in enumerate(addresses):
            # The first address may be a black hole, so it does not get the time of the others.
            share = None if timeout is None else timeout / (len(addresses) - index)
            try:
                return await self._backend.connect_tcp(str(address), port, share, local_address, socket_options)
            except (httpcore.ConnectError, httpcore.ConnectTimeout) as error:
                last = error
        raise last

    async def connect_unix_socket(
        self,
        path: str,
        timeout: float | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore.AsyncNetworkStream:
        """Refuse: a URL cannot name a Unix socket."""
        raise httpcore.ConnectError(f"refused to connect to the Unix socket {path}")

    async def sleep(self, seconds: float) -> None:
        """Wait."""
        await asyncio.sleep(seconds)


class GuardedTransport(httpx.AsyncBaseTransport):
    """A connection pool over `GuardedBackend`. Its errors are httpcore's and the executor's own."""

    def __init__(self, backend: GuardedBackend, tls: ssl.SSLContext, connections: int) -> None:
        self._pool = httpcore.AsyncConnectionPool(
            ssl_context=tls,
            max_connections=connections,
            max_keepalive_connections=connections,
            keepalive_expiry=KEEP_ALIVE,
            network_backend=backend,
        )

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Send a request; the response's body is read by the caller."""
        response = await self._pool.handle_async_request(
            httpcore.Request(
                method=request.method,
                url=httpcore.URL(
                    scheme=request.url.raw_scheme,
                    host=request.url.raw_host,
                    port=request.url.port,
                    target=request.url.raw_path,
                ),
                headers=request.headers.raw,
                content=request.stream,
                extensions=request.extensions,
            )
        )
        return httpx.Response(
            response.status, headers=response.headers, stream=_Body(response), extensions=response.extensions
        )

    async def aclose(self) -> None:
        """Close all connections."""
        await self._pool.aclose()


class _Body(httpx.AsyncByteStream):
    def __init__(self, response: httpcore.Response) -> None:
        self._response = response

    async def __aiter__(self) -> AsyncIterator[bytes]:
        async for part in self._response.aiter_stream():
            yield part

    async def aclose(self) -> None:
        await self._response.aclose()


def tls_context(settings: HttpSettings, secrets: Secrets) -> ssl.SSLContext:
    """Build the TLS settings of a client: whom it trusts, and how it identifies itself.

    Raises:
        ValueError: A secret holds no certificate, or no key that fits.
        FatalFailure: A secret is not declared.
    """
    context = _trusting(None if settings.ca_secret is None else secrets[settings.ca_secret])
    if (own := settings.client_certificate) is not None:
        password = None if own.password_secret is None else secrets[own.password_secret]
        with (
            _as_file(secrets[own.certificate_secret]) as certificate,
            _as_file(secrets[own.key_secret]) as key,
        ):
            try:
                # Without a password the library would ask for one on the terminal.
                context.load_cert_chain(certificate, key, password or "")
            except (ssl.SSLError, ValueError, OSError) as error:
                reason = getattr(error, "reason", None) or type(error).__name__
                raise ValueError(
                    f"the secrets {own.certificate_secret!r} and {own.key_secret!r} of spec.http.clientCertificate are "
                    f"no PEM certificate and its key, or the key's password is wrong: {reason}"
                ) from None
    return context


def _trusting(ca: str | None) -> ssl.SSLContext:
    if ca is None:
        import certifi

        return ssl.create_default_context(cafile=certifi.where())
    try:
        return ssl.create_default_context(cadata=ca)
    except (ssl.SSLError, ValueError) as error:
        raise ValueError(f"the secret named by spec.http.caSecret holds no PEM certificate: {error}") from error


@contextmanager
def _as_file(content: str) -> Iterator[str]:
    """A path to content that the library takes from a file alone: in memory, so that no key lies on a disk."""
    descriptor = os.memfd_create("prokos", os.MFD_CLOEXEC)
    try:
        os.write(descriptor, content.encode())
        yield f"/proc/self/fd/{descriptor}"
    finally:
        os.close(descriptor)
