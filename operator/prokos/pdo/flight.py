"""Tasks that were taken and have not ended: what holds the slots of a job type.

A slot is given back when a worker's hint says that the task has ended, or else when the lease under which the task was
taken is over. By then its TDE runs and its worker keeps the lease, or it still waits for a worker: then the engine
offers the task again, its start is published again, and the engine drops that start if the first one has arrived. So a
start that was lost costs one lease, and nothing depends on a hint.
"""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from prokos.engine import Slots
    from prokos.pdo.journal import Journal
    from prokos.tde import TaggedTask

TICK = 0.5
"""Seconds between looks for tasks whose lease is over."""

NOTICED = 1.5
"""Seconds after a lease within which the engine notices that it is over and offers the task again (it looks every
second). Slots that come free earlier would go to younger tasks, and the older ones would wait."""


@dataclass(slots=True)
class Flight:
    """One task; `until` is on the monotonic clock."""

    task: TaggedTask
    slots: Slots
    until: float
    executor: str = ""
    """Empty while its route is decided."""


class InFlight:
    """The tasks this PDO has in flight."""

    def __init__(self, journal: Journal, lease: float) -> None:
        self._journal = journal
        self._lease = lease
        self._flights: dict[int, Flight] = {}

    def __len__(self) -> int:
        return len(self._flights)

    def __contains__(self, job_key: object) -> bool:
        return job_key in self._flights

    def by_executor(self) -> dict[str, int]:
        """How many tasks each executor has: its backlog and what it runs. Tasks without a route yet count under ''."""
        counts: dict[str, int] = {}
        for flight in self._flights.values():
            counts[flight.executor] = counts.get(flight.executor, 0) + 1
        return counts

    def by_process(self) -> dict[str, int]:
        """How many tasks of each process there are, by its id."""
        counts: dict[str, int] = {}
        for flight in self._flights.values():
            counts[flight.task.process_id] = counts.get(flight.task.process_id, 0) + 1
        return counts

    def add(self, task: TaggedTask, slots: Slots) -> None:
        """Take over a task and its slot. A task the engine offered again, its lease over, keeps one slot."""
        self.remove(task.job_key)
        self._flights[task.job_key] = Flight(task, slots, time.monotonic() + self._lease + NOTICED)

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

    def ended(self, job_key: int, retries: int, outcome: str, message: str) -> None:
        """A worker says that an attempt has ended; the next one, with fewer retries, may be in flight already."""
        flight = self._flights.get(job_key)
        if flight is not None and flight.task.retries == retries:
            self.remove(job_key)
        self._journal.ended(job_key, retries, outcome, message)

    def drop_expired(self, now: float) -> None:
        """Give back the slots of tasks whose lease is over; `now` is on the monotonic clock."""
        for key in [key for key, flight in self._flights.items() if flight.until <= now]:
            self.remove(key)

    async def expire(self, tick: float = TICK) -> None:
        """Drop expired tasks every `tick` seconds until cancelled."""
        while True:
            await asyncio.sleep(tick)
            self.drop_expired(time.monotonic())
