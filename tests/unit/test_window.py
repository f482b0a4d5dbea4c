"""How many commands are under way at a time follows what the engine takes and refuses."""

from __future__ import annotations

import asyncio

import pytest

from helpers import background
from prokos.engine import window
from prokos.engine.window import LEAST, MOST, Window


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    now = [100.0]
    monkeypatch.setattr(window.time, "monotonic", lambda: now[0])
    return now


def narrow(places: Window, clock: list[float], times: int = 10) -> None:
    for _ in range(times):
        clock[0] += 1
        places.refused()


def test_halves_once_for_a_burst_of_refusals(clock):
    places = Window()
    for _ in range(50):
        places.refused()
    assert places.size == MOST // 2
    clock[0] += 1
    places.refused()
    assert places.size == MOST // 4


def test_stays_between_its_ends(clock):
    places = Window()
    narrow(places, clock)
    assert places.size == LEAST
    for _ in range(MOST**2):
        places.taken()
    assert places.size == MOST


def test_grows_by_one_when_the_engine_has_taken_as_many_as_fit(clock):
    places = Window()
    narrow(places, clock, 3)
    for _ in range(MOST // 8 + 1):
        places.taken()
    assert places.size == MOST // 8 + 1


async def test_lets_no_more_through_than_fit_in_the_order_in_which_they_came(clock):
    places = Window()
    narrow(places, clock)
    entered: list[int] = []
    go = asyncio.Event()

    async def command(number: int) -> None:
        async with places:
            entered.append(number)
            await go.wait()

    async with asyncio.TaskGroup() as group:
        for number in range(6):
            group.create_task(command(number))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert entered == [0, 1]
        go.set()
    assert entered == [0, 1, 2, 3, 4, 5]


async def test_one_that_is_cancelled_leaves_its_place_to_the_next(clock):
    places = Window()
    narrow(places, clock)
    entered: list[int] = []

    async def command(number: int) -> None:
        async with places:
            entered.append(number)
            await asyncio.Event().wait()

    async with background(command(0)), background(command(1)):
        await asyncio.sleep(0)
        waiting = [asyncio.create_task(command(number)) for number in (2, 3)]
        await asyncio.sleep(0)
        waiting[0].cancel()
        await asyncio.wait(waiting[:1])
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert entered == [0, 1, 3]
    waiting[1].cancel()
    await asyncio.wait(waiting)
    async with places:
        pass
