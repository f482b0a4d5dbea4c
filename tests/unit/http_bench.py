"""A real HTTP server on this machine, and calling it with the `http` executor."""

from __future__ import annotations

import contextlib
import json
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

import structlog
from aiohttp import web

from prokos.resources.http_settings import HttpSettings
from prokos.tde import Context, Environment, Secrets, TaggedTask
from prokos.tde.addresses import Resolver
from prokos.tde.http.executor import HttpExecutor

SECRETS = Secrets({"token": "s3cr3t-token", "password": "pa55 word", "split": "a\nb"})
LOOPBACK = ["127.0.0.0/8"]


def context(seconds: float = 60, task: TaggedTask | None = None) -> Context:
    return Context("4711-3", timedelta(seconds=seconds), structlog.get_logger(), task)


def resolving_to(*addresses: str) -> Resolver:
    async def resolver(host: str, port: int) -> list[str]:
        return list(addresses)

    return resolver


@dataclass
class Service:
    """A server that answers every request with `answer` and remembers what came."""

    port: int = 0
    answer: Callable[[web.BaseRequest], Awaitable[web.StreamResponse]] | None = None
    requests: list[web.BaseRequest] = field(default_factory=list)
    bodies: list[bytes] = field(default_factory=list)

    async def handle(self, request: web.BaseRequest) -> web.StreamResponse:
        self.requests.append(request)
        self.bodies.append(await request.read())
        assert self.answer is not None
        return await self.answer(request)

    def answers(self, *args: Any, **kwargs: Any) -> None:
        async def answer(request: web.BaseRequest) -> web.Response:
            return web.Response(*args, **kwargs)

        self.answer = answer

    def answers_json(self, value: Any, status: int = 200) -> None:
        self.answers(text=json.dumps(value), content_type="application/json", status=status)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"


@contextlib.asynccontextmanager
async def serving(tls: ssl.SSLContext | None = None) -> AsyncIterator[Service]:
    service = Service()
    service.answers_json({"ok": True})
    runner = web.ServerRunner(web.Server(service.handle, access_log=None), shutdown_timeout=0.1)
    await runner.setup()
    try:
        site = web.TCPSite(runner, "127.0.0.1", 0, ssl_context=tls)
        await site.start()
        service.port = runner.addresses[0][1]
        yield service
    finally:
        await runner.cleanup()


@contextlib.asynccontextmanager
async def executing(
    *,
    secrets: Secrets = SECRETS,
    resolver: Resolver | None = None,
    concurrency: int = 4,
    workdir: Path = Path("/nonexistent"),
    **settings: Any,
) -> AsyncIterator[HttpExecutor]:
    """An executor that was started."""
    settings.setdefault("allowed_networks", LOOPBACK)
    environment = Environment("pay", workdir, concurrency, secrets)
    executor = HttpExecutor(HttpSettings(**settings), environment, **({"resolver": resolver} if resolver else {}))
    await executor.start()
    try:
        yield executor
    finally:
        await executor.close()


async def call(data: dict[str, Any] | None = None, *, seconds: float = 60, **settings: Any) -> dict[str, Any]:
    """One attempt of one task."""
    async with executing(**settings) as executor:
        return await executor.execute(data or {}, context(seconds))
