from __future__ import annotations

import asyncio
import time
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from helpers import background, wait_until
from prokos.engine import AccessDeniedError, EngineUnavailableError, Job, JobSource, Slots, source
from prokos.engine.source import QUIET
from unit.builders import job
from unit.fake_engine import FakeEngine

if TYPE_CHECKING:
    from collections.abc import Callable

PAY = "pay"
RARELY = 60.0
"""A poll interval no test waits for."""


class Consumer:
    """Holds the jobs it is handed, until the test ends them."""

    def __init__(self, size: int, *, lease: float = 30.0, poll_interval: float = RARELY) -> None:
        self.engine = FakeEngine()
        self.slots = Slots(size)
        self.seen: list[int] = []
        self.most = 0
        self.source = JobSource(
            self.engine, PAY, worker="test", lease=lease, slots=self.slots, poll_interval=poll_interval
        )

    async def take(self, taken: Job) -> None:
        self.seen.append(taken.key)
        self.most = max(self.most, self.slots.used)

    async def take_and_end(self, taken: Job) -> None:
        await self.take(taken)
        asyncio.get_running_loop().call_soon(self.slots.release)

    @property
    def streaming(self) -> bool:
        return bool(self.engine.streams[PAY])

    def offer(self, *keys: int) -> None:
        self.engine.offer(*(job(key) for key in keys))

    def has_seen(self, *keys: int) -> bool:
        return self.seen == list(keys)


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Jobs wait for too long soon, while their leases last: a test that is held up loses none."""
    monkeypatch.setattr(source, "PATIENCE", 0.02)
    monkeypatch.setattr(source, "DRAIN", 30)


async def fall_behind(consumer: Consumer) -> int:
    """Push six jobs to a consumer with one slot that ends none, so that its stream is closed; the last one's key.

    The first of the later three shows that jobs wait for too long; two are in the stream when it is given up.
    """
    await wait_until(lambda: consumer.streaming)
    consumer.offer(1, 2, 3)
    pushed = time.monotonic()
    await wait_until(lambda: time.monotonic() - pushed > consumer.source.lease * source.PATIENCE)
    consumer.offer(4, 5, 6)
    await wait_until(lambda: not consumer.streaming)
    return 6


async def work_off(consumer: Consumer, done: Callable[[], bool]) -> None:
    """End the jobs that the consumer holds, and those that follow, until something is so."""

    def end_one() -> bool:
        if consumer.slots.used:
            consumer.slots.release()
        return done()

    await wait_until(end_one, describe=lambda: consumer.seen)


async def test_hands_on_the_jobs_of_the_stream():
    consumer = Consumer(4)
    async with background(consumer.source.run(consumer.take)):
        await wait_until(lambda: consumer.streaming)
        consumer.offer(1, 2, 3)
        await wait_until(lambda: consumer.has_seen(1, 2, 3))


async def test_finds_the_jobs_that_were_there_before_it():
    consumer = Consumer(4)
    consumer.offer(1, 2)
    async with background(consumer.source.run(consumer.take)):
        await wait_until(lambda: consumer.has_seen(1, 2))


async def test_finds_jobs_that_the_stream_missed_by_polling():
    consumer = Consumer(4, poll_interval=0.01)
    async with background(consumer.source.run(consumer.take)):
        await wait_until(lambda: consumer.streaming)
        consumer.engine.waiting[PAY].append(job(1))
        await wait_until(lambda: consumer.has_seen(1))


async def test_never_holds_more_jobs_than_slots():
    consumer = Consumer(3)
    consumer.offer(*range(1, 21))
    async with background(consumer.source.run(consumer.take)):
        for done in range(20):
            await wait_until(lambda done=done: len(consumer.seen) == min(done + 3, 20))
            consumer.slots.release()
    assert consumer.most == 3


async def test_asks_for_no_more_jobs_than_it_has_room_for():
    consumer = Consumer(3)
    consumer.offer(*range(1, 10))
    async with background(consumer.source.run(consumer.take)):
        await wait_until(lambda: len(consumer.seen) == 3)
    assert consumer.engine.polls == [(PAY, 3)]


@pytest.mark.usefixtures("impatient")
async def test_a_consumer_that_falls_behind_closes_the_stream():
    consumer = Consumer(1, lease=60)
    async with background(consumer.source.run(consumer.take)):
        await fall_behind(consumer)
        assert consumer.engine.opened == 1


@pytest.mark.usefixtures("impatient")
async def test_a_consumer_that_fell_behind_loses_none_of_what_was_pushed_to_it():
    consumer = Consumer(1, lease=60)
    async with background(consumer.source.run(consumer.take)):
        last = await fall_behind(consumer)
        await work_off(consumer, lambda: len(consumer.seen) == last)


@pytest.mark.usefixtures("impatient")
async def test_what_came_while_the_process_was_held_up_is_taken_before_the_stream_is_closed():
    consumer = Consumer(1, lease=60)
    loop = asyncio.get_running_loop()
    async with background(consumer.source.run(consumer.take)):
        await wait_until(lambda: consumer.streaming)
        (stream,) = consumer.engine.streams[PAY]
        consumer.offer(1, 2, 3)
        pushed = time.monotonic()
        await wait_until(lambda: time.monotonic() - pushed > consumer.source.lease * source.PATIENCE)

        def held_up() -> None:
            time.sleep(3 * QUIET)
            # It came meanwhile, but the time that the source waits for it is over in the same turn of the loop.
            loop.call_later(0, lambda: loop.call_soon(stream.put_nowait, job(5)))

        consumer.offer(4)
        loop.call_later(QUIET / 2, held_up)
        await wait_until(lambda: not consumer.streaming)
        await work_off(consumer, lambda: consumer.seen == [1, 2, 3, 4, 5])


@pytest.mark.usefixtures("impatient")
async def test_a_consumer_that_fell_behind_takes_the_oldest_jobs_first():
    consumer = Consumer(1, lease=60)
    async with background(consumer.source.run(consumer.take)):
        last = await fall_behind(consumer)
        consumer.offer(last + 1, last + 2, last + 3)
        everything = list(range(1, last + 4))
        await work_off(consumer, lambda: consumer.seen == everything)


@pytest.mark.usefixtures("impatient")
async def test_the_stream_opens_again_when_a_poll_comes_back_short():
    consumer = Consumer(1, lease=60)
    async with background(consumer.source.run(consumer.take)):
        await fall_behind(consumer)
        await work_off(consumer, lambda: consumer.streaming)


async def test_a_burst_that_is_worked_off_soon_leaves_the_stream_open():
    consumer = Consumer(2)
    async with background(consumer.source.run(consumer.take_and_end)):
        await wait_until(lambda: consumer.streaming)
        consumer.offer(*range(1, 101))
        await wait_until(lambda: len(consumer.seen) == 100)
        assert consumer.engine.opened == 1


async def test_drops_a_job_whose_lease_ran_out_here():
    consumer = Consumer(1)
    async with background(consumer.source.run(consumer.take)):
        await wait_until(lambda: consumer.streaming)
        consumer.offer(1)
        consumer.engine.offer(replace(job(2), leased_at=time.monotonic() - consumer.source.lease))
        consumer.offer(3)
        consumer.slots.release()
        await wait_until(lambda: consumer.has_seen(1, 3))


@pytest.mark.parametrize("error", [EngineUnavailableError("the broker restarts"), None])
async def test_a_stream_that_ends_is_opened_again_and_followed_by_a_poll(error):
    consumer = Consumer(4)
    async with background(consumer.source.run(consumer.take)):
        await wait_until(lambda: consumer.streaming and consumer.engine.polls)
        consumer.engine.break_streams(PAY, error)
        await wait_until(lambda: not consumer.streaming)
        consumer.offer(1)
        await wait_until(lambda: consumer.has_seen(1))
        assert consumer.streaming


async def test_goes_on_after_a_poll_that_fails():
    consumer = Consumer(4, poll_interval=0.01)
    consumer.engine.hiccups["activate"] = [AccessDeniedError("not now")]
    consumer.offer(1)
    async with background(consumer.source.run(consumer.take)):
        await wait_until(lambda: consumer.has_seen(1))


async def test_a_consumer_without_slots_is_polled_for_nothing():
    consumer = Consumer(1, poll_interval=0.01)
    async with background(consumer.source.run(consumer.take)):
        await wait_until(lambda: consumer.streaming)
        consumer.offer(1)
        await wait_until(lambda: consumer.has_seen(1))
        polls, waited = len(consumer.engine.polls), time.monotonic()
        await wait_until(lambda: time.monotonic() - waited > 0.1)
        assert len(consumer.engine.polls) <= polls + 1


async def test_cancellation_leaves_no_task_and_no_stream():
    consumer = Consumer(4)
    before = asyncio.all_tasks()
    async with background(consumer.source.run(consumer.take)):
        await wait_until(lambda: consumer.streaming)
    assert asyncio.all_tasks() <= before
    assert not consumer.streaming


async def test_waiting_for_slots_takes_none():
    slots = Slots(2)
    slots.take()
    waiting = asyncio.create_task(slots.wait_free(2))
    slots.release()
    await waiting
    assert slots.free == 2


async def test_without_a_stream_no_job_is_taken_that_no_slot_is_free_for() -> None:
    consumer = Consumer(1, poll_interval=0.01)
    source = JobSource(
        consumer.engine, PAY, worker="test", lease=30.0, slots=consumer.slots, poll_interval=0.01, stream=False
    )
    consumer.offer(1, 2)
    async with background(source.run(consumer.take)):
        await wait_until(lambda: consumer.has_seen(1))
        consumer.offer(3)
        consumer.slots.release()
        await wait_until(lambda: consumer.has_seen(1, 2))
        assert [waiting.key for waiting in consumer.engine.waiting[PAY]] == [3]
    assert consumer.engine.opened == 0
    assert {limit for _, limit in consumer.engine.polls} == {1}


async def test_without_a_stream_an_engine_that_is_gone_is_not_asked_without_end(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("prokos.engine.source.STREAM_RETRY", 0.01)
    consumer = Consumer(1)
    consumer.engine.hiccups["activate"] = [EngineUnavailableError("gone")] * 3
    source = JobSource(
        consumer.engine, PAY, worker="test", lease=30.0, slots=consumer.slots, poll_interval=RARELY, stream=False
    )
    consumer.offer(1)
    started = time.monotonic()
    async with background(source.run(consumer.take)):
        await wait_until(lambda: consumer.has_seen(1))
    assert time.monotonic() - started >= 0.03
