"""TDE type `container`: the task is handed to a server beside the worker, `POST /execute` on loopback.

What is sent and what may be answered is docs/executors/container.openapi.yaml. The server needs no library of ours and
no connection to the engine: leases, retries and reports are the worker's.
"""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import httpx

from prokos.tde.contract import BusinessError, Executor, FatalFailure, RetryableFailure
from prokos.tde.http.response import LONGEST_WAIT, retry_after
from prokos.tde.json_text import parse_json

if TYPE_CHECKING:
    from prokos.resources.container_settings import ContainerSettings
    from prokos.tde.contract import Context, Environment

HEALTH_INTERVAL = 0.5
"""Seconds between looks at whether the server is there."""

EXCERPT = 300
"""Characters of an answer that is not understood that go into the message."""

RETRY_STATUS = frozenset({408, 425, 429, 500, 502, 503, 504})
"""Statuses without a body of ours that may be another one at the next attempt."""


class ContainerExecutor(Executor[dict[str, Any], dict[str, Any]]):
    """Calls the server in its pod."""

    settings: ContainerSettings

    def __init__(self, settings: ContainerSettings, environment: Environment) -> None:
        super().__init__(settings, environment)
        self._client = httpx.AsyncClient(
            base_url=f"http://127.0.0.1:{settings.port}",
            trust_env=False,
            # Compressed, a short answer could become any length in memory.
            headers={"accept-encoding": "identity"},
            limits=httpx.Limits(max_connections=environment.concurrency),
        )

    async def start(self) -> None:
        """Wait until the server says that it can take tasks; a container may start after the worker.

        Raises:
            FatalFailure: It does not.
        """
        seconds = self.settings.start_timeout.total_seconds()
        try:
            async with asyncio.timeout(seconds):
                while not await self._healthy():
                    await asyncio.sleep(HEALTH_INTERVAL)
        except TimeoutError:
            address = f"{self._client.base_url}".rstrip("/") + self.settings.health_path
            raise FatalFailure(
                f"the container has not answered GET {address} with 2xx within {seconds:g} s: see its own log, and "
                "check spec.container.port, healthPath and startTimeout"
            ) from None

    async def _healthy(self) -> bool:
        try:
            return (await self._client.get(self.settings.health_path, timeout=5)).is_success
        except httpx.TransportError:
            return False

    async def close(self) -> None:
        """Hang up."""
        await self._client.aclose()

    async def execute(self, data: dict[str, Any], context: Context) -> dict[str, Any]:
        """Hand the task over, and take its outcome. A task that is cancelled breaks the connection."""
        body = {
            "input": data,
            "task": context.task.to_variable() if context.task else None,
            "idempotencyKey": context.idempotency_key,
            "attempt": context.attempt,
            "timeoutSeconds": context.timeout.total_seconds(),
        }
        request = self._client.build_request(
            "POST", self.settings.path, json=body, timeout=context.timeout.total_seconds()
        )
        try:
            response = await self._client.send(request, stream=True)
            try:
                content = await self._read(response)
            finally:
                await response.aclose()
        except httpx.TimeoutException as error:
            limit = f"{context.timeout.total_seconds():g} s"
            raise RetryableFailure(f"the container did not answer within {limit}") from error
        except httpx.TransportError as error:
            raise RetryableFailure(f"the container cannot be reached: {error!r}") from error
        return self._judge(response, content)

    async def _read(self, response: httpx.Response) -> bytes:
        limit, content = self.settings.max_response_bytes, bytearray()
        if response.headers.get("content-encoding", "identity").strip().lower() != "identity":
            raise FatalFailure("the container's answer is compressed (Content-Encoding), which nobody asked for")
        async for part in response.aiter_raw():
            content += part
            if len(content) > limit:
                raise FatalFailure(f"the container's answer exceeds spec.container.maxResponseBytes ({limit})")
        return bytes(content)

    def _judge(self, response: httpx.Response, content: bytes) -> dict[str, Any]:
        try:
            answer = parse_json(content)
        except ValueError:
            answer = None
        match answer:
            case {"output": dict(output)} if response.is_success:
                return output
            case {"error": {"code": str(code), **rest}} if response.is_success:
                variables = rest.get("variables")
                message = self._redact(str(rest.get("message", "")))
                raise BusinessError(code, message, variables if isinstance(variables, dict) else None)
            case {"failure": {"message": str(message), **rest}}:
                wait = _seconds(rest.get("retryAfterSeconds"))
                raise self._failure(message, bool(rest.get("retryable", True)), wait)
        said = f"the container answered {response.status_code}: {_excerpt(content)}"
        if response.is_success:
            raise self._failure(f"{said}; it must be an object with output, error or failure", retryable=False)
        wait = retry_after(response.headers.get("retry-after"), datetime.now(UTC))
        raise self._failure(said, response.status_code in RETRY_STATUS, wait)

    def _failure(self, message: str, retryable: bool, wait: timedelta | None = None) -> FatalFailure | RetryableFailure:
        message = self._redact(message)
        return RetryableFailure(message, wait) if retryable else FatalFailure(message)

    def _redact(self, message: str) -> str:
        return self.environment.secrets.redact(message)


def _seconds(value: Any) -> timedelta | None:
    try:
        return None if value is None else timedelta(seconds=min(max(float(value), 0), LONGEST_WAIT.total_seconds()))
    except (TypeError, ValueError, OverflowError):
        return None


def _excerpt(content: bytes) -> str:
    text = " ".join(content[: 4 * EXCERPT].decode(errors="replace").split())
    return "".join(char for char in text if char.isprintable())[:EXCERPT] or "nothing"
