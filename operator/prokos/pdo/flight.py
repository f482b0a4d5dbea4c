"""Tasks that were taken and have not ended: their slots, their leases.

A slot is given back when the worker's hint says that the task has ended, or when the engine says so as the lease
is renewed. Nothing else depends on the hints.
"""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

import structlog

from prokos.engine import EngineError, NotFoundError, RejectedError

if TYPE_CHECKING:
    from prokos.engine import EngineClient, Slots
    from prokos.pdo.journal import Journal
    from prokos.tde import TaggedTask

log = structlog.get_logger(__name__)

KEEP_TICK = 1.0
"""Seconds between looks for leases that need renewal."""

KEEP_CONCURRENCY = 16
"""Renewals under way at a time."""


@dataclass(slots=True)
class Flight:
    """One task; `renew_at` is on the monotonic clock."""

    task: TaggedTask
    slots: Slots
    renew_at: float
    executor: str = ""
    """Empty while its route is decided."""


class InFlight:
    """The tasks this PDO has in flight."""

    def __init__(self, client: EngineClient, journal: Journal, lease: float) -> None:
        self._client = client
        self._journal = journal
        self._lease = lease
        self._flights: dict[int, Flight] = {}

    def __len__(self) -> int:
        return len(self._flights)

    def __contains__(self, job_key: int) -> bool:
        return job_key in self._flights

    def by_executor(self) -> dict[str, int]:
        """How many tasks each executor has: its backlog and what it runs. Tasks without a route yet count under ''."""
        counts: dict[str, int] = {}
        for flight in self._flights.values():
            counts[flight.executor] = counts.get(flight.executor, 0) + 1
        return counts

    def add(self, task: TaggedTask, slots: Slots) -> None:
        """Take over a task and its slot. A task the engine offered again, its lease over, keeps one slot."""
        self.remove(task.job_key)
        self._flights[task.job_key] = Flight(task, slots, time.monotonic() + self._lease / 2)

    def holds(self, task: TaggedTask) -> bool:
        """Whether this very activation of a task is in flight: it has not ended, and was not offered again since."""
        flight = self._flights.get(task.job_key)
        return flight is not None and flight.task is task

    def assign(self, task: TaggedTask, executor: str) -> None:
        """Say which executor a task goes to."""
        if self.holds(task):
            self._flights[task.job_key].executor = executor

    def remove(self, job_key: int) -> bool:
        """Give a task's slot back."""
        flight = self._flights.pop(job_key, None)
        if flight is None:
            return False
        flight.slots.release()
        return True

    def ended(self, job_key: int, outcome: str, message: str) -> None:
        """A worker says that a task has ended."""
        if self.remove(job_key):
            self._journal.update(job_key, outcome, message=message)

    async def keep_leases(self, tick: float = KEEP_TICK) -> None:
        """Renew leases until cancelled, looking every `tick` seconds for those that are due."""
        limit = asyncio.Semaphore(KEEP_CONCURRENCY)
        while True:
            await asyncio.sleep(tick)
            now = time.monotonic()
            due = [flight for flight in self._flights.values() if flight.renew_at <= now]
            await asyncio.gather(*(self._renew(flight, limit) for flight in due))

    async def _renew(self, flight: Flight, limit: asyncio.Semaphore) -> None:
        key = flight.task.job_key
        async with limit:
            if self._flights.get(key) is not flight:
                return
            flight.renew_at = time.monotonic() + self._lease / 2
            try:
                await self._client.extend_lease(key, self._lease)
            except (NotFoundError, RejectedError):
                # Ended, cancelled or waiting for its next attempt: in any case no longer in flight.
                if self._flights.get(key) is flight:
                    self.ended(key, "ended", "")
            except EngineError as error:
                log.warning("cannot renew a task's lease", job=key, error=str(error))
