"""How often a worker begins a task."""

from __future__ import annotations

import asyncio
import time
from dataclasses import replace
from typing import Any

import pytest

from helpers import wait_until
from prokos.resources.executor import TaskRate
from prokos.tde import Context
from prokos.tde.pace import PacedSlots
from unit.builders import task
from unit.tde_bench import TDE, Bench, dispatched


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def paced(size: int, rate: float, burst: int) -> tuple[PacedSlots, Clock]:
    clock = Clock()
    return PacedSlots(size, TaskRate(tasks_per_second=rate, burst=burst), clock), clock


def test_a_burst_is_free_at_once_and_then_one_slot_per_token() -> None:
    slots, clock = paced(size=10, rate=2, burst=3)
    seen = [slots.free]
    for _ in range(3):
        slots.take()
        seen.append(slots.free)
    for clock.now in (0.4, 0.5, 1.0, 100.0):
        seen.append(slots.free)
    assert seen == [3, 2, 1, 0, 0, 1, 2, 3]


def test_no_more_run_at_a_time_than_there_are_slots() -> None:
    slots, clock = paced(size=2, rate=1, burst=5)
    slots.take()
    slots.take()
    clock.now = 100.0
    assert slots.free == 0
    slots.release()
    assert slots.free == 1


async def test_waiting_ends_when_slot_and_token_are_there() -> None:
    slots = PacedSlots(1, TaskRate(tasks_per_second=20, burst=1))
    started = time.monotonic()
    await slots.wait_free()
    slots.take()
    waiting = asyncio.create_task(slots.wait_free())
    done, _ = await asyncio.wait([waiting], timeout=0.1)
    assert not done, "there is a token, and no slot"
    slots.release()
    await waiting
    slots.take()
    slots.release()
    await slots.wait_free()
    assert time.monotonic() - started >= 0.05


async def test_a_worker_begins_tasks_no_more_often_than_it_should(monkeypatch: pytest.MonkeyPatch) -> None:
    begun: list[float] = []

    class Timed(PacedSlots):
        def take(self) -> None:
            begun.append(time.monotonic())
            super().take()

    async def work(_: dict[str, Any], __: Context) -> dict[str, Any]:
        return {}

    monkeypatch.setattr("prokos.tde.worker.PacedSlots", Timed)
    bench = Bench(work, concurrency=10, rateLimit={"tasksPerSecond": 20, "burst": 2})
    for key in range(1, 9):
        bench.engine.offer(replace(dispatched(tagged=task(key)), key=TDE + key))
    async with bench.running():
        await wait_until(lambda: len(begun) == 8)
    # Two at once, and six tokens at 20 a second.
    assert begun[7] - begun[0] >= 6 / 20 - 0.01
    assert all(later - earlier >= 2 / 20 - 0.01 for earlier, later in zip(begun[1:], begun[4:], strict=False))
