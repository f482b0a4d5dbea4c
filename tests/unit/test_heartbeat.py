from __future__ import annotations

from typing import TYPE_CHECKING, Any

import aiohttp
import pytest
from aiohttp import web

from helpers import finished
from prokos.pdo.beat import BEAT_MESSAGE, Heartbeat
from prokos.pdo.service import Pdo
from prokos.pdo.status import build_app
from prokos.registry import FileRegistry
from prokos.resources import ProkOSSpec
from prokos.router import Decision
from unit.builders import job, task
from unit.fake_engine import FakeEngine

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

DECISION = Decision("payer", "rule", "spec.accepts[0]: jobType=pay")


@pytest.fixture
async def heart(tmp_path: Path) -> AsyncIterator[Heartbeat]:
    store = FileRegistry(tmp_path)
    finished(store.put_system(ProkOSSpec.model_validate({"pdo": {"shards": 2, "beatInterval": "100ms"}})))
    engine = FakeEngine()
    pdo = Pdo(engine, store, worker="pdo-test")
    yield Heartbeat(engine, pdo)
    pdo.stop()


def beat(shard: int, number: int | None = None, **changes: Any):
    return job(variables={"shard": shard, **({} if number is None else {"beat": number})}, **changes)


async def test_a_beat_serves_its_shard(heart):
    await heart.scan(beat(1, 7))
    assert set(heart.pdo.shards) == {1}
    assert heart.last[1][0] == 7


async def test_the_first_beat_may_come_without_a_number(heart):
    await heart.scan(beat(0))
    assert heart.last[0][0] == 0


async def test_a_quiet_beat_says_so(heart):
    assert await heart.scan(beat(0, 1)) == {"summary": {"inFlight": 0}, "tasks": []}


async def test_a_beat_says_what_it_saw(heart, monkeypatch):
    follow = heart.pdo.beat

    def beat_with_a_task(shard: int, number: int):
        heart.pdo.journal.seen(task(7), number)
        heart.pdo.journal.update(7, "dispatched", decision=DECISION)
        return follow(shard, number)

    monkeypatch.setattr(heart.pdo, "beat", beat_with_a_task)
    said = await heart.scan(beat(0, 3))
    assert said["summary"] == {"scanned": 1, "dispatched": 1, "inFlight": 0}
    assert said["tasks"] == [
        {
            "process": "orders",
            "instance": "100",
            "element": "Pay",
            "job": "7",
            "executor": "payer",
            "source": "rule",
            "state": "dispatched",
        }
    ]


async def test_the_next_beat_is_called_once_per_instance(heart):
    await heart.beat_again(beat(1, 7, instance=55))
    assert heart.client.commands == [("publish", BEAT_MESSAGE, "1", {"shard": 1, "beat": 8}, True)]


async def test_the_heart_of_a_shard_that_is_no_longer_wanted_stops(heart):
    await heart.beat_again(beat(2, 7))
    assert heart.client.commands == []


@pytest.fixture
async def url(heart: Heartbeat) -> AsyncIterator[str]:
    runner = web.AppRunner(build_app(heart.pdo, heart))
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    await runner.cleanup()


async def test_the_status_api_shows_beats_and_counts(heart, url):
    await heart.scan(beat(1, 7))
    heart.pdo.journal.seen(task(7), 7)
    async with aiohttp.ClientSession() as session, session.get(f"{url}/status") as response:
        status = await response.json()
    assert [(shard["shard"], shard["beat"]) for shard in status["shards"]] == [(1, 7)]
    assert status["counts"] == {"scanned": 1}
    assert status["worker"] == "pdo-test"


@pytest.mark.parametrize(("query", "jobs"), [("", ["2", "1"]), ("?limit=1", ["2"]), ("?limit=0", [])])
async def test_the_status_api_lists_the_latest_tasks(heart, url, query, jobs):
    for key in (1, 2):
        heart.pdo.journal.seen(task(key), 0)
    async with aiohttp.ClientSession() as session, session.get(f"{url}/tasks{query}") as response:
        assert [entry["job"] for entry in await response.json()] == jobs


async def test_the_status_api_refuses_a_limit_that_is_no_number(url):
    async with aiohttp.ClientSession() as session, session.get(f"{url}/tasks?limit=all") as response:
        assert response.status == 400
