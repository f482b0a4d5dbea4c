"""A backlog of 20,000 tasks, made while PDO and workers were away: does it drain at full speed, oldest first, and do
new tasks still flow meanwhile?

    python -m benchmarks.backlog --help

An engine runs through it all; `prokos dev` uses it, is stopped, and is started again when the backlog is there.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import time
from pathlib import Path
from statistics import correlation, median
from typing import TYPE_CHECKING, Any

from benchmarks.figures import percentile
from benchmarks.load import IN_FLIGHT
from benchmarks.manifests import recording_executor
from benchmarks.records import Record, RecordReader
from benchmarks.running import work_directory
from engine.devsystem import DevSystem
from engine.samples import one_task, write
from prokos.engine import Connection, EngineClient
from prokos.engine.embedded import EmbeddedEngine, EmbeddedSettings

if TYPE_CHECKING:
    from collections.abc import Sequence

TASKS = 20_000

NORMAL = 3_000
"""Tasks of a burst without a backlog; their rate is what full speed means."""

NORMAL_TIMEOUT = 300.0
"""Seconds they may take."""

EVERY = 1.0
"""Seconds between new tasks while the backlog drains."""

NEW = 1_000_000
"""Numbers from here on belong to the new tasks."""

QUIET = 30.0
"""Seconds without an execution after which draining has failed."""


class Backlog:
    """One engine, and a `prokos dev` that comes and goes. Two processes, each with a job type of its own."""

    def __init__(self, directory: Path, engine: EmbeddedEngine, client: EngineClient) -> None:
        self.client = client
        records = {name: directory / f"records-{name}" for name in ("old", "new")}
        manifests = write(
            directory / "manifests",
            processes={name: one_task(name, f"work-{name}") for name in records},
            resources=[recording_executor(name, file, [f"work-{name}"]) for name, file in records.items()],
        )
        self.dev = DevSystem(directory, [manifests], engine=engine.address)
        self.old, self.new = (RecordReader(file) for file in records.values())
        self.asked: dict[int, float] = {}
        """When each new task was asked for, by its number."""

    async def create(self, count: int, first: int, process: str = "old") -> float:
        """Start instances; returns the seconds that it took."""
        numbers = iter(range(first, first + count))

        async def some() -> None:
            for number in numbers:
                self.asked[number] = time.monotonic()
                await self.client.create_instance(process, {"number": number})

        begin = time.monotonic()
        await asyncio.gather(*(some() for _ in range(IN_FLIGHT)))
        return time.monotonic() - begin

    async def normal(self, first: int, count: int) -> float:
        """Tasks per second without a backlog."""
        begin = time.monotonic()
        async with asyncio.TaskGroup() as group:
            group.create_task(self.create(count, first))
            executed = group.create_task(self.old.wait_for(count, NORMAL_TIMEOUT))
        return count / (executed.result()[-1].at - begin)

    async def drain(self, count: int) -> tuple[list[Record], list[Record], list[Record]]:
        """Wait until the backlog is gone, with a new task of each process now and then.

        Returns:
            The executions of the backlog; those of the new tasks of the same process, and of the other process.
        """
        came: list[Record] = []
        other: list[Record] = []
        adding = asyncio.create_task(self._add())
        active = time.monotonic()
        try:
            while len([record for record in came if record.number < NEW]) < count:
                await asyncio.sleep(0.1)
                if new := self.old.read():
                    came += new
                    active = time.monotonic()
                other += self.new.read()
                if time.monotonic() - active > QUIET:
                    raise TimeoutError(f"{len(came)} of {count} tasks were executed, and none for {QUIET:g} s")
        finally:
            adding.cancel()
        await asyncio.sleep(2 * EVERY)
        came += self.old.read()
        other += self.new.read()
        return [one for one in came if one.number < NEW], [one for one in came if one.number >= NEW], other

    async def _add(self) -> None:
        number = NEW
        while True:
            await self.create(1, number)
            await self.create(1, number + 1, "new")
            number += 2
            await asyncio.sleep(EVERY)

    def waits(self, records: Sequence[Record]) -> list[float]:
        """Seconds from asking for a task to its execution."""
        return [record.at - self.asked[record.number] for record in records]


async def measure(directory: Path, count: int) -> dict[str, Any]:
    """Run it; returns the figures."""
    settings = EmbeddedSettings(data=directory / "engine", log_file=directory / "engine.log")
    async with EmbeddedEngine(settings) as engine, EngineClient(Connection(engine.address)) as client:
        backlog = Backlog(directory, engine, client)
        await asyncio.to_thread(backlog.dev.start)
        try:
            await backlog.normal(2 * NEW, NORMAL)  # for the engine's compiler
            normal = await backlog.normal(3 * NEW, NORMAL)
            await asyncio.to_thread(backlog.dev.stop)
            took = await backlog.create(count, 0)
            print(f"{count} tasks made in {took:.0f} s; normal throughput {normal:.0f} tasks/s", flush=True)
            begin = time.monotonic()
            await asyncio.to_thread(backlog.dev.start)
            booted = time.monotonic()
            came, same, other = await backlog.drain(count)
        finally:
            await asyncio.to_thread(backlog.dev.stop)
    came.sort(key=lambda record: record.at)
    times = [record.at for record in came]
    seconds = times[-1] - times[0]
    return {
        "normal throughput, tasks/s": round(normal),
        "boot, s": round(booted - begin, 1),
        "first task executed after the start, s": round(times[0] - begin, 1),
        "drained, tasks/s": round(len(came) / seconds),
        "share of normal throughput": round(len(came) / seconds / normal, 2),
        "correlation of age and order": round(correlation([record.number for record in came], range(len(came))), 4),
        "executed twice": backlog.old.repeated,
        "new tasks of another job type": _described(backlog.waits(other)),
        "new tasks of the same job type": _described(backlog.waits(same)),
    }


def _described(waits: Sequence[float]) -> str:
    if not waits:
        return "none was executed"
    return f"{len(waits)}, median {median(waits):.2f} s, 95 % within {percentile(waits, 0.95):.2f} s"


def main() -> int:
    """Read the arguments and run."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.backlog", description=__doc__)
    parser.add_argument("--tasks", type=int, default=TASKS, help="size of the backlog (default %(default)s)")
    parser.add_argument("--directory", type=Path, default=None, help="where state and logs are kept")
    arguments = parser.parse_args()
    directory = work_directory(arguments.directory, "backlog")
    for name, figure in asyncio.run(measure(directory, arguments.tasks)).items():
        print(f"{name}: {json.dumps(figure)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
