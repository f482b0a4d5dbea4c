"""What the broker's management API is asked, against a real web server."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import pytest
from aiohttp import web

from helpers import background, wait_until
from prokos.engine import embedded_partitions as module
from prokos.engine.embedded_partitions import SAVED_AFTER, ManagementError, Partition, read_partitions, save_often

if TYPE_CHECKING:
    from collections.abc import AsyncIterator


class Management:
    """A management API of one partition."""

    def __init__(self) -> None:
        self.partition: dict[str, Any] = {
            "streamProcessorPhase": "PROCESSING",
            "processedPosition": 1_000,
            "processedPositionInSnapshot": None,
        }
        self.url = ""
        self.snapshots = self.looks = 0

    async def look(self, _: web.Request) -> web.Response:
        self.looks += 1
        return web.json_response({"1": self.partition})

    async def save(self, _: web.Request) -> web.Response:
        self.snapshots += 1
        self.partition["processedPositionInSnapshot"] = self.partition["processedPosition"]
        return web.json_response({"1": self.partition})


@asynccontextmanager
async def serving() -> AsyncIterator[Management]:
    management = Management()
    app = web.Application()
    app.add_routes(
        [
            web.get("/actuator/partitions", management.look),
            web.post("/actuator/partitions/takeSnapshot", management.save),
        ]
    )
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    management.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    try:
        yield management
    finally:
        await runner.cleanup()


async def test_reads_phase_and_what_no_snapshot_holds():
    async with serving() as management:
        assert await read_partitions(management.url) == [Partition("PROCESSING", 1_000)]
        management.partition["processedPositionInSnapshot"] = 400
        assert await read_partitions(management.url) == [Partition("PROCESSING", 600)]


@pytest.mark.parametrize(("phase", "replays"), [("INITIAL", True), ("REPLAY", True), ("PAUSED", False)])
def test_a_partition_that_replays_executes_nothing_yet(phase, replays):
    assert Partition(phase, 0).replays == replays


async def test_nobody_who_answers_is_an_error_of_its_own():
    with pytest.raises(ManagementError, match="refused"):
        await read_partitions("http://127.0.0.1:1")


async def test_asks_for_a_snapshot_when_much_was_logged_and_the_partition_works(monkeypatch):
    monkeypatch.setattr(module, "LOOK", 0.01)
    async with serving() as management, background(save_often(management.url)):

        async def looked_again() -> None:
            seen = management.looks
            await wait_until(lambda: management.looks > seen + 1)

        await looked_again()
        assert management.snapshots == 0
        management.partition |= {"processedPosition": 1_001 + SAVED_AFTER, "streamProcessorPhase": "PAUSED"}
        await looked_again()
        assert management.snapshots == 0
        management.partition["streamProcessorPhase"] = "PROCESSING"
        await wait_until(lambda: management.snapshots == 1)
        await looked_again()
        assert management.snapshots == 1


async def test_waits_for_a_broker_that_is_away(monkeypatch):
    monkeypatch.setattr(module, "LOOK", 0.01)
    asked: list[str] = []

    def refuse(_: str, url: str) -> bytes:
        asked.append(url)
        raise ManagementError("connection refused")

    monkeypatch.setattr(module, "_request", refuse)
    async with background(save_often("http://127.0.0.1:1")):
        await wait_until(lambda: len(asked) > 3)
