"""TDE type `http`: one HTTP call per attempt.

Its answer is the task's result: the fields of a JSON object, or `result` for any other JSON or text. A 2xx status
completes the task; 408, 425, 429 and 5xx are tried again, when `Retry-After` says; the rest is an incident, redirects
too, since following one would go where nobody configured. `outcomes` overrides this per status. A response that
claims to be JSON and is not is tried again. Calls carry `Idempotency-Key`, so a server that knows it does not repeat
the effect of a repeated attempt.
"""

from __future__ import annotations

import logging
from datetime import UTC, datetime
from http.cookiejar import CookieJar, DefaultCookiePolicy
from typing import TYPE_CHECKING, Any, NoReturn

import httpcore
import httpx

from prokos.tde.addresses import parse_networks, resolve
from prokos.tde.contract import BusinessError, Executor, FatalFailure, RetryableFailure
from prokos.tde.http_request import auth_headers, build_request
from prokos.tde.http_response import (
    decode_content,
    describe_status,
    outcome_of,
    retry_after,
    to_error_variables,
    to_output,
)
from prokos.tde.http_transport import GuardedBackend, GuardedTransport, tls_context

if TYPE_CHECKING:
    from prokos.resources.http_settings import HttpSettings
    from prokos.tde.addresses import Resolver
    from prokos.tde.contract import Context, Environment

EXCERPT = 300
"""Characters of an error response that go into the message."""


class HttpExecutor(Executor[dict[str, Any], dict[str, Any]]):
    """Calls one HTTP service."""

    settings: HttpSettings

    def __init__(self, settings: HttpSettings, environment: Environment, resolver: Resolver = resolve) -> None:
        super().__init__(settings, environment)
        self._resolver = resolver
        self._client: httpx.AsyncClient | None = None
        self._sent: dict[str, str] = {}

    async def start(self) -> None:
        """Make the connection pool.

        Raises:
            ValueError: The certificates or networks of the settings are not valid.
            FatalFailure: A secret is missing or cannot be sent.
        """
        settings, environment = self.settings, self.environment
        self._sent = auth_headers(settings, environment.secrets)
        if "Authorization" in self._sent:
            self._sent["Authorization"] = self._sent["Authorization"].partition(" ")[2]
        tls = tls_context(environment.secrets[settings.ca_secret] if settings.ca_secret else None)
        backend = GuardedBackend(parse_networks(settings.allowed_networks), self._resolver)
        logging.getLogger("httpx").setLevel(logging.WARNING)  # it logs whole URLs, with the query
        self._client = httpx.AsyncClient(
            transport=GuardedTransport(backend, tls, environment.concurrency),
            trust_env=False,
            follow_redirects=False,
            # Without cookies: those of one task must not reach another.
            cookies=CookieJar(DefaultCookiePolicy(allowed_domains=[])),
        )

    async def close(self) -> None:
        """Close it."""
        client, self._client = self._client, None
        if client is not None:
            await client.aclose()

    async def execute(self, data: dict[str, Any], context: Context) -> dict[str, Any]:
        """Make the call."""
        if self._client is None:
            raise RuntimeError("execute before start")
        request = build_request(self.settings, data, self.environment.secrets, context.idempotency_key)
        request.extensions["timeout"] = dict.fromkeys(
            ("connect", "read", "write", "pool"), context.timeout.total_seconds()
        )
        call = f"{request.method} {request.url.copy_with(query=None)}"
        try:
            response = await self._client.send(request, stream=True)
            try:
                return await self._judge(call, response)
            finally:
                await response.aclose()
        except (httpcore.LocalProtocolError, httpx.InvalidURL, httpx.UnsupportedProtocol) as error:
            self._fail(FatalFailure, f"{call}: {error}", error)
        except (httpcore.TimeoutException, httpx.TimeoutException) as error:
            limit = f"{context.timeout.total_seconds():g} s"
            self._fail(RetryableFailure, f"{call}: no answer within {limit} ({type(error).__name__})", error)
        except (httpcore.NetworkError, httpcore.ProtocolError, httpx.TransportError, OSError) as error:
            cause = error.__cause__ or error
            self._fail(RetryableFailure, f"{call}: {type(error).__name__}: {cause or 'the connection broke'}", error)

    async def _judge(self, call: str, response: httpx.Response) -> dict[str, Any]:
        rule = outcome_of(response.status_code, self.settings.outcomes)
        answer = f"{call} answered {describe_status(response)}"
        variable = self.settings.result_variable
        if rule.outcome == "complete":
            try:
                return to_output(await self._read(response), response, variable)
            except (RetryableFailure, FatalFailure) as error:
                self._fail(type(error), f"{answer}, but {error}", error)
        if rule.outcome == "error":
            variables = to_error_variables(await self._read(response), response, variable)
            raise BusinessError(rule.code or "", self._redact(rule.message or answer), variables)
        message = rule.message or answer + await _excerpt(response)
        if rule.outcome == "retry":
            wait = retry_after(response.headers.get("retry-after"), datetime.now(UTC))
            raise RetryableFailure(self._redact(message), wait)
        if rule.message is None and response.is_redirect:
            location = response.headers.get("location", "")[:EXCERPT]
            message = f"{answer} and Location {location!r}; redirects are not followed: set spec.http.url to the target"
        raise FatalFailure(self._redact(message))

    async def _read(self, response: httpx.Response) -> bytes:
        """Read a response within the limit, which holds before and after decoding."""
        limit = self.settings.max_response_bytes
        body = bytearray()
        async for part in response.aiter_raw():
            body += part
            if len(body) > limit:
                break
        content = decode_content(bytes(body), response.headers.get("content-encoding"), limit)
        if content is None or len(body) > limit:
            raise FatalFailure(f"the response exceeds spec.http.maxResponseBytes ({limit})")
        return content

    def _fail(self, kind: type[Exception], message: str, cause: Exception) -> NoReturn:
        raise kind(self._redact(message)) from cause

    def _redact(self, message: str) -> str:
        """Clear a message of secrets, also in the form in which they are sent."""
        for name, value in self._sent.items():
            message = message.replace(value, f"<{name} header>")
        return self.environment.secrets.redact(message)


async def _excerpt(response: httpx.Response) -> str:
    """The start of an error response, on one line; its rest is not read."""
    body = bytearray()
    async for part in response.aiter_raw():
        body += part
        if len(body) >= 4 * EXCERPT:
            break
    if response.headers.get("content-encoding", "identity") != "identity":
        return ""
    text = " ".join(bytes(body).decode(errors="replace").split())
    text = "".join(char for char in text if char.isprintable())
    return f": {text[:EXCERPT]}" if text else ""
