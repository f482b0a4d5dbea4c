"""One executor of each type, with a process for each: `one-python`, `one-script`, `one-http`, `one-sql`."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any

from aiohttp import web

from benchmarks.manifests import executor, recording_executor
from engine.samples import one_task

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterable
    from pathlib import Path

KINDS = ("python", "script", "http", "sql")

SCRIPT = """\
def main(input):
    return {"done": input["number"]}
"""


def processes(**options: Any) -> dict[str, str]:
    """A one-task process for each type; the options are those of `one_task`."""
    return {f"one-{kind}": one_task(f"one-{kind}", f"work-{kind}", **options) for kind in KINDS}


def executors(records: Path, service: int, also: Iterable[str] = ()) -> list[dict[str, Any]]:
    """The executors.

    Args:
        records: Where the one of type `python` notes its executions.
        service: Port of the HTTP service that the one of type `http` calls.
        also: Further job types that the one of type `python` accepts.
    """
    http = {
        "method": "POST",
        "url": f"http://127.0.0.1:{service}/",
        "allowedNetworks": ["127.0.0.0/8"],
    }
    sql = {
        "url": "sqlite:///benchmark.db",
        "setup": ["CREATE TABLE IF NOT EXISTS done (number INTEGER)"],
        "statement": "INSERT INTO done (number) VALUES (:number)",
    }
    return [
        recording_executor("python", records, ["work-python", *also]),
        executor("script", "script", ["work-script"], {"language": "python", "source": SCRIPT}),
        executor("http", "http", ["work-http"], http),
        executor("sql", "sql", ["work-sql"], sql),
    ]


@contextlib.asynccontextmanager
async def http_service() -> AsyncIterator[int]:
    """A service that answers what it was sent, on a free port of loopback, which is the value."""

    async def answer(request: web.Request) -> web.Response:
        sent = await request.json()
        return web.json_response({"done": sent.get("number")})

    app = web.Application()
    app.add_routes([web.post("/", answer)])
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    try:
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        yield runner.addresses[0][1]
    finally:
        await runner.cleanup()
