"""What `prokos run` makes of what the PDO says while an instance runs."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from helpers import wait_until
from prokos.cli import run
from prokos.engine import ProcessResult

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

ENDED = ProcessResult(7, "orders", 1, {})
STUCK = {"process": "orders", "state": "incident", "element": "Pay", "message": "no money", "job": "5"}


class Pdo:
    """Remembers tasks, after some refusals to say which."""

    def __init__(self) -> None:
        self.tasks: list[dict[str, Any]] = []
        self.refusals = 0
        self.asked = 0
        self.address = ""

    async def answer(self, _: web.Request) -> web.Response:
        self.asked += 1
        if self.refusals:
            self.refusals -= 1
            return web.Response(status=503)
        return web.json_response(self.tasks)


class Engine:
    """An engine whose instance ends when the test says so."""

    def __init__(self) -> None:
        self.end = asyncio.Event()

    async def run_instance(self, process: str, variables: dict[str, Any], *, timeout: float) -> ProcessResult:
        await self.end.wait()
        return ENDED


@pytest.fixture
async def pdo(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Pdo]:
    monkeypatch.setattr(run, "WATCH_INTERVAL", 0.01)
    served = Pdo()
    app = web.Application()
    app.add_routes([web.get("/tasks", served.answer)])
    async with TestServer(app) as server:
        served.address = f"127.0.0.1:{server.port}"
        yield served


async def test_an_incident_of_the_instance_is_told_with_what_to_do(pdo: Pdo) -> None:
    pdo.tasks = [{**STUCK, "instance": "1"}]
    engine = Engine()
    running = asyncio.create_task(run.run_and_watch(engine, "orders", {}, 60, pdo.address))
    await wait_until(lambda: pdo.asked >= 2)
    pdo.tasks.append({**STUCK, "instance": "2"})
    assert await running == (
        "instance 2 of orders has an incident at Pay: no money\n  when its cause is gone: prokos retry 5"
    )


async def test_incidents_that_were_there_before_are_nobody_elses(pdo: Pdo) -> None:
    pdo.tasks = [{**STUCK, "instance": "1"}]
    pdo.refusals = 1
    engine = Engine()
    running = asyncio.create_task(run.run_and_watch(engine, "orders", {}, 60, pdo.address))
    done, _ = await asyncio.wait([running], timeout=20 * run.WATCH_INTERVAL)
    assert not done
    engine.end.set()
    assert await running == ENDED
