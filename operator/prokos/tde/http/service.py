"""What an HTTP executor has for its worker's whole life: connections, credentials, and what paces its calls."""

from __future__ import annotations

from typing import TYPE_CHECKING

from aiolimiter import AsyncLimiter

from prokos.tde.addresses import parse_networks
from prokos.tde.http.auth import Authenticator
from prokos.tde.http.breaker import Breaker
from prokos.tde.http.client import HttpClient
from prokos.tde.http.files import Files
from prokos.tde.http.oauth import TokenSource
from prokos.tde.http.transport import GuardedBackend, GuardedTransport, tls_context

if TYPE_CHECKING:
    from prokos.resources.http_settings import HttpSettings
    from prokos.tde.addresses import Resolver
    from prokos.tde.contract import Environment

SPARE_CONNECTIONS = 1
"""Connections beside one per task: for a token endpoint."""


class HttpService:
    """The service as one executor reaches it.

    Raises:
        ValueError: The certificates, networks or directory of the settings are not valid.
        FatalFailure: A secret is missing or cannot be sent.
    """

    def __init__(self, settings: HttpSettings, environment: Environment, resolver: Resolver) -> None:
        self.name = environment.name
        self.secrets = secrets = environment.secrets
        backend = GuardedBackend(parse_networks(settings.allowed_networks), resolver)
        tls = tls_context(settings, secrets)
        self.transport = GuardedTransport(backend, tls, environment.concurrency + SPARE_CONNECTIONS)
        self.tokens: TokenSource | None = None
        if settings.auth is not None and (oauth2 := settings.auth.oauth2) is not None:
            self.tokens = TokenSource(oauth2, secrets[oauth2.client_secret], self.transport)
        self.auth = Authenticator(settings, secrets, self.tokens)
        self.client = HttpClient(settings, self.transport, self.auth)
        self.files: Files | None = None
        if settings.files_directory is not None:
            self.files = Files(environment.workdir / settings.files_directory)
            self.files.prepare()
        self.breaker = Breaker(settings.circuit_breaker) if settings.circuit_breaker is not None else None
        self.limiter: AsyncLimiter | None = None
        if (rate := settings.rate_limit) is not None:
            self.limiter = AsyncLimiter(rate.burst, rate.burst / rate.requests_per_second)

    async def close(self) -> None:
        """Close the connections."""
        if self.tokens is not None:
            await self.tokens.close()
        await self.transport.aclose()
