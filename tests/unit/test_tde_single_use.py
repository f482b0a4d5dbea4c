"""A worker that is used once: it takes one task, sees it to its end, and ends."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any

from helpers import wait_until
from prokos.engine import AccessDeniedError, WrongStateError
from prokos.tde import Context, FatalFailure
from unit.builders import task
from unit.tde_bench import TDE, Bench, called, dispatched

EXECUTE = "prokos.tde.payer"


class SingleUse(Bench):
    """A worker that takes one task."""

    def __init__(self, work: Any, **more: Any) -> None:
        super().__init__(work, concurrency=1, **more)
        self.worker.single_use = True

    async def ends(self) -> None:
        """Run the worker until it ends by itself."""
        async with asyncio.timeout(10):
            await self.worker.run(self.stop, grace=5)


async def succeed(data: dict[str, Any], _: Context) -> dict[str, Any]:
    return {"paid": data.get("amount")}


def tasks(*keys: int) -> list[Any]:
    return [replace(dispatched(tagged=task(key)), key=TDE + key) for key in keys]


def keys_of_waiting(bench: Bench) -> list[int]:
    return [job.variables["prokosTask"]["job_key"] for job in bench.engine.waiting[EXECUTE]]


async def test_it_takes_one_task_of_many_reports_it_and_ends() -> None:
    bench = SingleUse(succeed)
    bench.engine.offer(*tasks(1, 2, 3))
    await bench.ends()
    assert [command[:2] for command in bench.engine.reports] == [("complete", 1), ("complete", TDE + 1)]
    assert keys_of_waiting(bench) == [2, 3]
    assert bench.executor.life == ["started", "closed"]


async def test_it_asks_for_one_task_at_a_time_and_opens_no_stream() -> None:
    bench = SingleUse(succeed)
    running = asyncio.create_task(bench.ends())
    await wait_until(lambda: len(bench.engine.polls) > 2)
    assert bench.engine.opened == 0
    bench.engine.offer(*tasks(1, 2))
    await running
    assert {limit for _, limit in bench.engine.polls} == {1}
    assert keys_of_waiting(bench) == [2]


async def test_a_task_that_fails_is_its_use_too() -> None:
    async def fail(_: dict[str, Any], __: Context) -> None:
        raise FatalFailure("the script does not parse")

    bench = SingleUse(fail)
    bench.engine.offer(*tasks(1, 2))
    await bench.ends()
    ((_, key, message, *_),) = bench.engine.named("fail")
    assert (key, message.partition(";")[0]) == (1, "the script does not parse")
    assert keys_of_waiting(bench) == [2]


async def test_an_attempt_that_broke_off_is_its_use_too() -> None:
    """What it left, in files and processes, is there."""
    bench = SingleUse(succeed)
    bench.engine.refusals["complete", 1] = AccessDeniedError("token expired")
    bench.engine.offer(*tasks(1, 2))
    await bench.ends()
    assert bench.executor.inputs == [{}]
    assert keys_of_waiting(bench) == [2]


async def test_a_task_that_was_not_executed_is_not_its_use() -> None:
    bench = SingleUse(succeed)
    bench.engine.refusals["extend", 1] = WrongStateError("it is not active")
    first, second = tasks(1, 2)
    cancelled = replace(dispatched(tagged=task(1, verify=True), retries=1), key=first.key)
    bench.engine.offer(cancelled, second)
    await bench.ends()
    assert bench.executor.inputs == [{}]
    assert ("complete", 2, {"paid": None}) in bench.engine.commands


async def test_a_task_that_a_process_called_itself() -> None:
    bench = SingleUse(succeed)
    bench.engine.offer(called({"amount": 3}))
    await bench.ends()
    assert bench.engine.reports == [("complete", TDE, {"paid": 3})]


async def test_a_worker_that_is_told_to_end_ends_its_task_first_or_takes_none() -> None:
    started, end = asyncio.Event(), asyncio.Event()

    async def work(_: dict[str, Any], __: Context) -> dict[str, Any]:
        started.set()
        await end.wait()
        return {}

    bench = SingleUse(work)
    bench.engine.offer(*tasks(1))
    running = asyncio.create_task(bench.ends())
    await started.wait()
    bench.stop.set()
    end.set()
    await running
    assert [command[:2] for command in bench.engine.reports] == [("complete", 1), ("complete", TDE + 1)]
    idle = SingleUse(work)
    idle.stop.set()
    await idle.ends()
    assert idle.engine.reports == []
