"""One executor of each type, with a process for each: `one-python`, `one-script` and so on, for each of `KINDS`."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from aiohttp import web

from benchmarks.manifests import executor, recording_executor
from engine.samples import one_task
from unit.grpc_service import payments_server

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterable
    from pathlib import Path

KINDS = ("python", "script", "http", "grpc", "sql", "container")

METHOD = "shop.Payments/Pay"
"""What the executor of type `grpc` calls; the message is the instance's variable `charge`."""

TABLE = "CREATE TABLE IF NOT EXISTS done (number INTEGER)"
INSERT = "INSERT INTO done (number) VALUES (:number)"

SCRIPT = """\
def main(input):
    return {"done": input["number"]}
"""


def processes(**options: Any) -> dict[str, str]:
    """A one-task process for each type; the options are those of `one_task`."""
    return {f"one-{kind}": one_task(f"one-{kind}", f"work-{kind}", **options) for kind in KINDS}


@dataclass(frozen=True, slots=True)
class Services:
    """What the executors call, on loopback."""

    http: str
    """URL of a service that answers what it was sent, and below it does what is asked of a `container`."""
    grpc: str
    """host:port of a server with `METHOD`."""


def executors(records: Path, services: Services, also: Iterable[str] = ()) -> list[dict[str, Any]]:
    """The executors.

    Args:
        records: Where the one of type `python` notes its executions.
        services: What those of type `http` and `grpc` call.
        also: Further job types that the one of type `python` accepts.
    """
    http = {
        "method": "POST",
        "url": services.http,
        "allowedNetworks": ["127.0.0.0/8"],
    }
    sql = {
        "url": "sqlite:///benchmark.db",
        "setup": [TABLE],
        "statement": INSERT,
    }
    grpc = {
        "address": services.grpc,
        "method": METHOD,
        "request": "charge",
        "tls": {"enabled": False},
        "allowedNetworks": ["127.0.0.0/8"],
    }
    return [
        recording_executor("python", records, ["work-python", *also]),
        executor("script", "script", ["work-script"], {"language": "python", "source": SCRIPT}),
        executor("http", "http", ["work-http"], http),
        executor("grpc", "grpc", ["work-grpc"], grpc),
        executor("sql", "sql", ["work-sql"], sql),
        executor("container", "container", ["work-container"], {"image": "none", "port": urlsplit(services.http).port}),
    ]


@contextlib.asynccontextmanager
async def serving() -> AsyncIterator[Services]:
    """The services, on free ports."""
    async with _http_service() as port, payments_server() as (_, address):
        yield Services(f"http://127.0.0.1:{port}/", address)


@contextlib.asynccontextmanager
async def _http_service() -> AsyncIterator[int]:

    async def answer(request: web.Request) -> web.Response:
        sent = await request.json()
        return web.json_response({"done": sent.get("number")})

    async def execute(request: web.Request) -> web.Response:
        sent = await request.json()
        return web.json_response({"output": {"done": sent["input"]["number"]}})

    async def healthy(_: web.Request) -> web.Response:
        return web.Response()

    app = web.Application()
    app.add_routes([web.post("/", answer), web.post("/execute", execute), web.get("/healthz", healthy)])
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    try:
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        yield runner.addresses[0][1]
    finally:
        await runner.cleanup()
