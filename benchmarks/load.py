"""Load on an engine, and what it takes until a worker executes it: bursts for throughput, single ones for latency."""

from __future__ import annotations

import asyncio
import itertools
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from benchmarks.observe import OTHERS, spent

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from benchmarks.observe import Observed
    from benchmarks.records import Record, RecordReader
    from prokos.engine import EngineClient

IN_FLIGHT = 16
"""Creations of instances under way at a time."""

BURST_TIMEOUT = 120.0
"""Seconds a burst may take."""

SINGLE_TIMEOUT = 10.0
"""Seconds a single instance may take."""

BETWEEN = 0.02
"""Seconds between the end of one single instance and the next."""


@dataclass(frozen=True, slots=True)
class Way:
    """A way to have a process's tasks executed."""

    name: str
    process: str
    records: RecordReader
    tasks: int
    """Tasks of an instance."""


@dataclass(frozen=True, slots=True)
class Burst:
    """What a burst gave."""

    tasks: int
    seconds: float
    """From the first creation to the start of the last execution."""
    processor: Mapping[str, float]
    """Seconds of processor time by role."""

    @property
    def rate(self) -> float:
        """Tasks per second."""
        return self.tasks / self.seconds

    @property
    def cost(self) -> float:
        """Seconds of processor time per task, of all but other programs; a busy machine changes it little."""
        return sum(seconds for role, seconds in self.processor.items() if role != OTHERS) / self.tasks


def variables(number: int) -> dict[str, Any]:
    """What an instance starts with: its number, the branch of the ten-task process, the message of type `grpc`."""
    return {"number": number, "long": True, "charge": {"cents": number}}


class Load:
    """Starts instances; each has a number of its own."""

    def __init__(self, client: EngineClient, observed: Observed) -> None:
        self.client = client
        self.observed = observed
        self._numbers = itertools.count(1)

    async def start(self, process: str, count: int) -> None:
        """Start instances, `IN_FLIGHT` at a time."""
        numbers = itertools.islice(self._numbers, count)

        async def some() -> None:
            for number in numbers:
                await self.client.create_instance(process, variables(number))

        await asyncio.gather(*(some() for _ in range(IN_FLIGHT)))

    async def burst(self, way: Way, instances: int) -> Burst:
        """Start many instances at once, and wait until all their tasks were executed."""
        tasks = instances * way.tasks
        way.records.read()
        before = self.observed.processor()
        begin = time.monotonic()
        async with asyncio.TaskGroup() as group:
            group.create_task(self.start(way.process, instances))
            executed = group.create_task(way.records.wait_for(tasks, BURST_TIMEOUT))
        came = executed.result()
        after = self.observed.processor()
        return Burst(tasks, max(record.at for record in came) - begin, spent(before, after))

    async def single(self, way: Way) -> list[float]:
        """Start an instance with nothing else to do; returns the seconds from step to step.

        The first step is from the creation to the first task's code; the others are from one task's code to the
        next one's, as far as no timer lies between them.
        """
        way.records.read()
        begin = time.monotonic()
        await self.start(way.process, 1)
        came = await way.records.wait_for(way.tasks, SINGLE_TIMEOUT)
        await asyncio.sleep(BETWEEN)
        return steps(begin, came)


def steps(begin: float, came: Sequence[Record]) -> list[float]:
    """The lengths of an instance's steps in seconds. Those before the fourth and seventh of ten tasks hold a timer."""
    times = [begin, *(record.at for record in came)]
    lengths = [later - earlier for earlier, later in itertools.pairwise(times)]
    return [length for position, length in enumerate(lengths) if position not in {3, 6}]
