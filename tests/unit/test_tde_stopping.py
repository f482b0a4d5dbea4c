"""A worker's start and end: what it runs is finished, or handed to the next worker."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any

import pytest

from helpers import wait_until
from prokos.tde import Context
from unit.builders import task
from unit.tde_bench import PARENT, TDE, Bench, called, dispatched


class Work:
    """Work that lasts until the test ends it."""

    def __init__(self) -> None:
        self.started = asyncio.Event()
        self.end = asyncio.Event()

    async def __call__(self, _: dict[str, Any], __: Context) -> dict[str, Any]:
        self.started.set()
        await self.end.wait()
        return {}


async def test_an_executor_starts_before_the_first_task_and_closes_after_the_last():
    work = Work()
    bench = Bench(work)
    bench.engine.offer(dispatched())
    async with bench.running():
        await work.started.wait()
        bench.stop.set()
        assert bench.executor.life == ["started"]
        work.end.set()
    assert bench.executor.life == ["started", "closed"]


async def test_a_task_that_runs_when_the_worker_stops_is_finished_and_reported():
    work = Work()
    bench = Bench(work)
    bench.engine.offer(dispatched())
    async with bench.running():
        await work.started.wait()
        bench.stop.set()
        await wait_until(lambda: not bench.engine.streams[bench.engine.polls[0][0]])
        work.end.set()
    assert [command[:2] for command in bench.engine.commands] == [("complete", PARENT), ("complete", TDE)]


@pytest.mark.parametrize("given", [dispatched, called])
async def test_a_task_that_does_not_end_in_time_is_handed_back_and_keeps_its_attempts(given):
    work = Work()
    bench = Bench(work)
    bench.engine.offer(given(retries=2))
    async with bench.running(grace=0.05):
        await work.started.wait()
    assert bench.engine.commands == [("fail", TDE, "the worker was stopped", 2, 0)]
    assert bench.executor.life == ["started", "cancelled", "closed"]
    assert bench.hints.sent == []


async def test_a_worker_that_stops_takes_no_more_tasks():
    work = Work()
    bench = Bench(work, concurrency=1)
    bench.engine.offer(dispatched())
    async with bench.running():
        await work.started.wait()
        bench.stop.set()
        await wait_until(lambda: not bench.engine.streams["prokos.tde.payer"])
        bench.engine.offer(dispatched(tagged=task(8)))
        work.end.set()
    assert [waiting.variables["prokosTask"]["job_key"] for waiting in bench.engine.waiting["prokos.tde.payer"]] == [8]


async def test_a_stopped_worker_leaves_no_task():
    before = asyncio.all_tasks()
    work = Work()
    bench = Bench(work)
    bench.engine.offer(dispatched())
    async with bench.running(grace=0.01):
        await work.started.wait()
    assert asyncio.all_tasks() <= before


async def test_a_worker_whose_executor_cannot_start_takes_no_task():
    bench = Bench(Work())

    async def refuse() -> None:
        raise ConnectionError("no database")

    bench.executor.start = refuse  # type: ignore[method-assign]
    bench.engine.offer(dispatched())
    with pytest.raises(ConnectionError, match="no database"):
        await bench.worker.run(bench.stop, 1)
    assert bench.engine.polls == []


async def test_an_attempt_that_breaks_off_does_not_end_the_worker():
    work = Work()
    work.end.set()
    bench = Bench(work)
    bench.engine.refusals["complete", PARENT] = KeyError("a bug")
    bench.engine.offer(dispatched(), replace(dispatched(tagged=task(8)), key=TDE + 1))
    async with bench.running():
        await wait_until(lambda: ("complete", 8, {}) in bench.engine.commands)
