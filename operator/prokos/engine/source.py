"""Where jobs come from: a stream for those the engine makes now, polls for those that waited.

A stream alone never sees jobs that were there before it and lets an old backlog starve; polls alone are slow. So
both run, in two modes. While the consumer keeps up, the stream is open and a slow poll looks for what it missed.
When the consumer falls behind, so that jobs wait here for long, the stream is closed and polls take the oldest jobs,
as many as there is room for, until one comes back short: then the backlog is gone and the stream opens again.

A consumer that must not hold more than it works on, such as a worker that takes one task only, has polls alone, each of
which waits at the engine until there is a job.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import time
from collections import deque
from dataclasses import replace
from typing import TYPE_CHECKING

import structlog

from prokos.engine.errors import EngineError
from prokos.engine.stalls import Stalls

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Awaitable, Callable

    from prokos.engine.client import EngineClient
    from prokos.engine.job import Job

log = structlog.get_logger(__name__)

Attempt = asyncio.Task[None]
"""The work on a job."""

STREAM_RETRY = 1.0
"""Seconds between attempts to open a stream that broke; polls go on meanwhile."""

FRESH = 0.8
"""Share of its lease within which a job that waited here is still handed on; an older one the engine offers again."""

PATIENCE = 0.3
"""Share of its lease that the oldest job waits here while the stream stays open. A burst that the consumer works off
within this time is no reason to close it: a closed stream loses jobs that are on their way, until their leases end.
What came last waits here about as long again, so it must be less than half of `FRESH`; and a task that waited for more
than 10 s costs a command more (`prokos.tde.lease.VERIFY_AFTER_MS`).
"""

MOST_WAITING = 1_000
"""Jobs that wait here at most while the stream is open; they take memory."""

QUIET = 0.05
"""Seconds without a job after which a stream that is being closed counts as empty, if this process was not held up
meanwhile: then jobs lie in its memory unread."""

DRAIN = 0.5
"""Longest time in seconds for emptying a stream."""

GATHER = 0.02
"""Seconds to wait for more free slots before a poll while behind."""


class Slots:
    """How many jobs one consumer may hold at a time."""

    def __init__(self, size: int) -> None:
        self.size = size
        self.used = 0
        self._released = asyncio.Event()

    @property
    def free(self) -> int:
        """Slots nobody uses."""
        return max(self.size - self.used, 0)

    def take(self) -> None:
        """Use a slot; the consumer has waited for it."""
        self.used += 1

    def release(self) -> None:
        """Give a slot back."""
        self.used -= 1
        self._released.set()

    async def wait_free(self, count: int = 1) -> None:
        """Wait until that many slots are free, without taking them."""
        while self.free < count:
            await self._release()

    async def _release(self) -> None:
        """Wait until a slot is given back."""
        self._released.clear()
        await self._released.wait()


class JobSource:
    """Jobs of one type, handed to a consumer that never holds more than its slots."""

    def __init__(
        self,
        client: EngineClient,
        job_type: str,
        *,
        worker: str,
        lease: float,
        slots: Slots,
        poll_interval: float,
        stream: bool = True,
    ) -> None:
        """Make it; see `run`.

        Args:
            client: The engine.
            job_type: Type of the jobs.
            worker: Name under which the engine records who has them.
            lease: Seconds for which they are taken.
            slots: How many the consumer may hold.
            poll_interval: Seconds between polls beside the stream; without one, how long each poll waits for a job.
            stream: False never takes a job that no slot is free for, as a stream does, whose jobs wait here.
        """
        self.client = client
        self.job_type = job_type
        self.worker = worker
        self.lease = lease
        self.slots = slots
        self.poll_interval = poll_interval
        self._streams = stream
        self._buffer: deque[Job] = deque()
        self._attempts: dict[Attempt, Job] = {}
        self._stalls = Stalls()
        self._arrived = asyncio.Event()
        self._poll_now = asyncio.Event()
        self._behind = False
        self._caught_up = asyncio.Event()
        self._caught_up.set()

    async def run(self, handle: Callable[[Job], Awaitable[Attempt | None]]) -> None:
        """Hand every job to `handle`, which owns the job's slot and releases it when the job is done with.

        Runs until it is cancelled. Lost connections are mended; what was received shortly before is forgotten
        (`prokos.engine.losses`): jobs that wait here, and those in work, whose tasks are cancelled.

        Args:
            handle: Begins the work on a job, and returns its task if it goes on.
        """
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._stalls.watch())
            if self._streams:
                tasks.create_task(self._stream())
            tasks.create_task(self._poll())
            tasks.create_task(self._forget())
            while True:
                await self.slots.wait_free()
                job = await self._next()
                self.slots.take()
                if attempt := await handle(job):
                    self._attempts[attempt] = job
                    attempt.add_done_callback(self._attempts.pop)

    async def _forget(self) -> None:
        while True:
            await self.client.losses.wait()
            self._buffer.clear()
            for attempt, job in self._attempts.items():
                if self.client.losses.doubts(job):
                    attempt.cancel()

    async def _next(self) -> Job:
        while True:
            while self._buffer:
                job = self._buffer.popleft()
                if time.monotonic() - job.leased_at < self.lease * FRESH:
                    return job
            self._arrived.clear()
            if self._behind:
                self._poll_now.set()
            await self._arrived.wait()

    def _accept_pushed(self, job: Job) -> None:
        sent = self._stalls.sent_after()
        self._accept(replace(job, leased_at=sent) if sent < job.leased_at else job)

    def _accept(self, job: Job) -> None:
        self._buffer.append(job)
        self._arrived.set()

    async def _stream(self) -> None:
        while True:
            await self._caught_up.wait()
            # Whatever came between the last poll and this stream's start is nobody's but a poll's.
            self._poll_now.set()
            stream = self.client.stream_jobs(self.job_type, worker=self.worker, lease=self.lease)
            try:
                async for job in stream:
                    self._accept_pushed(job)
                    if self._overflows():
                        self._behind = True
                        self._caught_up.clear()
                        await self._drain(stream)
                        break
            except EngineError as error:
                log.debug("job stream broke", job_type=self.job_type, error=str(error))
                await asyncio.sleep(STREAM_RETRY)
            else:
                if not self._behind:
                    await asyncio.sleep(STREAM_RETRY)
            finally:
                await stream.aclose()

    def _overflows(self) -> bool:
        waiting = len(self._buffer)
        if waiting <= self.slots.size:
            return False
        return waiting > MOST_WAITING or time.monotonic() - self._buffer[0].leased_at > self.lease * PATIENCE

    async def _drain(self, stream: AsyncGenerator[Job, None]) -> None:
        """Take what is on its way, until nothing has come for a while; ends the stream."""
        came = asyncio.Event()

        async def take_all() -> None:
            async for job in stream:
                self._accept_pushed(job)
                came.set()

        taking = asyncio.create_task(take_all())
        began = time.monotonic()
        try:
            while not taking.done() and (looked := time.monotonic()) < began + DRAIN:
                came.clear()
                await asyncio.wait([taking], timeout=QUIET)
                held_up = time.monotonic() - looked > 2 * QUIET
                if not held_up and not came.is_set():
                    break
        finally:
            taking.cancel()
            await asyncio.wait([taking])
        if not taking.cancelled():
            taking.result()

    async def _poll(self) -> None:
        while True:
            await self._wait_room()
            room = self.slots.free - len(self._buffer)
            if room > 0:
                jobs = await self._activate(room)
                # A short poll alone does not say that the consumer keeps up: the stream may have filled the buffer.
                self._behind = len(jobs) == room or self._overflows()
                if not self._behind:
                    self._caught_up.set()
                else:
                    self._caught_up.clear()
            # While behind, the next poll is due when the consumer has used up what this one brought.
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(None if self._behind else self._until_next_poll()):
                    await self._poll_now.wait()
            self._poll_now.clear()

    def _until_next_poll(self) -> float:
        if not self._streams:
            return 0
        # The sources of a process begin at one time; hundreds of them must not poll at one time ever after.
        return self.poll_interval * random.uniform(0.5, 1.5)  # noqa: S311 - spreads load, guards nothing

    async def _wait_room(self) -> None:
        await self.slots.wait_free()
        if self._behind:
            # Slots come free one by one; a poll for each would cost the engine a command per job.
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(GATHER):
                    await self.slots.wait_free(self.slots.size // 4)

    async def _activate(self, limit: int) -> list[Job]:
        wait = -1 if self._streams else self.poll_interval
        try:
            jobs = await self.client.activate_jobs(
                self.job_type, worker=self.worker, limit=limit, lease=self.lease, wait=wait
            )
        except EngineError as error:
            log.warning("cannot poll jobs", job_type=self.job_type, error=str(error))
            if not self._streams:
                await asyncio.sleep(STREAM_RETRY)
            return []
        for job in jobs:
            self._accept(job)
        return jobs
