"""TDE type `http`: a call of an HTTP service per attempt.

Its answer is the task's result: the fields of a JSON object, or `result` for anything else. A 2xx status completes the
task; 408, 425, 429 and 5xx are tried again, when `Retry-After` says; the rest is an incident. `outcomes` overrides this
by status and content. Calls carry an idempotency key, so a service that knows it does not repeat the effect of a
repeated attempt.

The way of a call: `request` and `body` build it; here it waits for the rate limit, passes the circuit breaker
and is repeated if the settings say so; `client` authenticates it and follows redirects; `transport` connects,
to addresses that were judged; `content` reads the answer, `response` says what it means.
"""

from __future__ import annotations

import json
import logging
from typing import TYPE_CHECKING, Any

import httpx

from prokos.tde.addresses import resolve
from prokos.tde.contract import BusinessError, Executor, FatalFailure, RetryableFailure
from prokos.tde.http.attempt import Attempt
from prokos.tde.http.service import HttpService

if TYPE_CHECKING:
    from collections.abc import Awaitable

    from prokos.resources.http_settings import HttpSettings
    from prokos.tde.addresses import Resolver
    from prokos.tde.contract import Context, Environment


class HttpExecutor(Executor[dict[str, Any], dict[str, Any]]):
    """Calls one HTTP service."""

    settings: HttpSettings

    def __init__(self, settings: HttpSettings, environment: Environment, resolver: Resolver = resolve) -> None:
        super().__init__(settings, environment)
        self._resolver = resolver
        self._service: HttpService | None = None

    async def start(self) -> None:
        """Make the connection pool, and what paces and authenticates calls.

        Raises:
            ValueError: The certificates, networks or directory of the settings are not valid.
            FatalFailure: A secret is missing or cannot be sent.
        """
        for library in ("httpx", "httpcore"):
            logging.getLogger(library).setLevel(logging.WARNING)  # they log whole URLs and headers
        self._service = HttpService(self.settings, self.environment, self._resolver)

    async def close(self) -> None:
        """Close the connections."""
        service, self._service = self._service, None
        if service is not None:
            await service.close()

    async def execute(self, data: dict[str, Any], context: Context) -> dict[str, Any]:
        """Make the call, or the calls of all pages."""
        return await self._cleared(Attempt(self.settings, self._running, context).run(data))

    async def resume(self, result: Any, context: Context) -> dict[str, Any]:
        """Judge the result of a callback as if the service had answered it at once, with status 200."""
        content = json.dumps(result).encode()
        response = httpx.Response(200, headers={"Content-Type": "application/json"}, content=content)
        return await self._cleared(Attempt(self.settings, self._running, context).judge_callback(response))

    @property
    def _running(self) -> HttpService:
        if self._service is None:
            raise RuntimeError("the executor was not started")
        return self._service

    async def _cleared(self, attempt: Awaitable[dict[str, Any]]) -> dict[str, Any]:
        """Await an attempt, and clear what comes out of it of secrets."""
        auth = self._running.auth
        failure: Exception
        try:
            output: dict[str, Any] = auth.redact_result(await attempt)
        except BusinessError as error:
            variables = auth.redact_result(error.variables)
            failure = BusinessError(auth.redact(error.code), auth.redact(error.message), variables)
        except RetryableFailure as error:
            failure = RetryableFailure(auth.redact(str(error)), error.retry_after)
        except FatalFailure as error:
            failure = FatalFailure(auth.redact(str(error)))
        else:
            return output
        # Raised here, so that the original does not follow it as its context, with what was removed.
        raise failure
