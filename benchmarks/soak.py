"""A system under moderate, steady work for an hour, with failures, business errors and cancels: is its memory flat?

    python -m benchmarks.soak --minutes 60 --directory DIRECTORY

Resident memory of every process is noted every 10 s in `soak.csv`. A line is fitted to what comes after the warm-up;
its slope is shown for each process, and whether it counts as flat.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import csv
import random
import sys
import time
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks import kinds
from benchmarks.figures import slope, table
from benchmarks.manifests import TEN_TYPES, ten_tasks
from benchmarks.observe import ENGINE, wait_idle
from benchmarks.running import running, work_directory
from prokos.engine import EngineError, NotFoundError

if TYPE_CHECKING:
    from benchmarks.observe import Observed
    from prokos.engine import EngineClient

SAMPLE = 10.0
"""Seconds between two looks at memory."""

WARM_UP = 1 / 6
"""Share of the time that is not fitted: caches fill, the allocator finds its size."""

FLAT = 5.0
"""MB per hour up to which memory counts as flat. What grows less would take days to reach a worker's limit, and is
within what Python's allocator and what is kept of the last tasks (`prokos.engine.taken`) account for."""

CANCEL_AFTER = 0.5
"""Seconds after which an instance is cancelled that is to be."""

LASTS = 2.0
"""Seconds the task of such an instance lasts, so that the cancel comes in its middle."""

MIX = {
    "one-python": 30,
    "one-script": 15,
    "one-http": 15,
    "one-sql": 15,
    "ten": 5,
    "fails once": 10,
    "business error": 5,
    "cancelled": 5,
}
"""What is started, and how often in a hundred times."""


class Work:
    """Starts instances at a steady rate."""

    def __init__(self, client: EngineClient, rate: float, seed: int) -> None:
        """Args: the engine; instances per second; seed of what comes when."""
        self.client = client
        self.rate = rate
        self.started: Counter[str] = Counter()
        self._random = random.Random(seed)
        self._tasks: set[asyncio.Task[None]] = set()

    async def run(self, seconds: float) -> None:
        """Start instances for a time."""
        begin = time.monotonic()
        number = 0
        while (elapsed := time.monotonic() - begin) < seconds:
            if number >= elapsed * self.rate:
                await asyncio.sleep(number / self.rate - elapsed)
                continue
            kind = self._random.choices(list(MIX), list(MIX.values()))[0]
            task = asyncio.create_task(self._one(kind, number))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
            number += 1
        await asyncio.gather(*self._tasks)

    async def _one(self, kind: str, number: int) -> None:
        variables: dict[str, Any] = {"number": number, "long": True, "text": "x" * self._random.randint(0, 2_000)}
        process = kind if kind in {*kinds.processes(), "ten"} else "one-python"
        special: dict[str, dict[str, Any]] = {
            "fails once": {"fail": "once"},
            "business error": {"fail": "error"},
            "cancelled": {"lasts": LASTS},
        }
        try:
            instance = await self.client.create_instance(process, variables | special.get(kind, {}))
            if kind == "cancelled":
                await asyncio.sleep(CANCEL_AFTER)
                await self.client.cancel_instance(instance.key)
        except NotFoundError:
            self.started["ended before it was cancelled"] += 1
        except EngineError as error:
            self.started[f"not started: {type(error).__name__}"] += 1
        self.started[kind] += 1


async def sample(observed: Observed, file: Path, samples: dict[str, list[tuple[float, float]]]) -> None:
    """Note memory until cancelled: by role, hours since the beginning and MB."""
    begin = time.monotonic()
    with file.open("w", newline="") as output:
        writer = csv.writer(output)
        writer.writerow(["seconds", "process", "pid", "rss_mb"])
        while True:
            await asyncio.to_thread(observed.refresh)
            elapsed = time.monotonic() - begin
            for role, size in observed.memory().items():
                writer.writerow([round(elapsed, 1), role, observed.processes[role].pid, round(size, 2)])
                samples.setdefault(role, []).append((elapsed / 3600, size))
            output.flush()
            await asyncio.sleep(SAMPLE)


def report(samples: dict[str, list[tuple[float, float]]], hours: float) -> tuple[str, bool]:
    """The table for people, and whether every process of ours is flat. The engine is shown, but is not ours."""
    rows = []
    all_flat = True
    for role, points in sorted(samples.items()):
        fitted = [point for point in points if point[0] >= hours * WARM_UP]
        if len(fitted) < 2:
            continue
        grows = slope(fitted)
        flat = grows <= FLAT
        all_flat &= flat or role == ENGINE
        sizes = [size for _, size in fitted]
        verdict = "flat" if flat else "grows"
        rows.append([role, *(f"{size:.1f}" for size in (sizes[0], sizes[-1], max(sizes))), f"{grows:+.2f}", verdict])
    head = ["process", "MB after warm-up", "MB at the end", "most MB", "MB per hour", "verdict"]
    return table(head, rows), all_flat


async def soak(directory: Path, minutes: float, rate: float, seed: int) -> bool:
    """Run it; returns whether everything is flat."""
    processes = {**kinds.processes(error="REFUSED"), "ten": ten_tasks("ten", "ten")}
    async with (
        kinds.serving() as services,
        running(directory, processes, kinds.executors(directory / "records", services, also=TEN_TYPES)) as system,
    ):
        print(f"soak for {minutes:g} minutes at {rate:g} instances/s, seed {seed}, in {directory}", flush=True)
        samples: dict[str, list[tuple[float, float]]] = {}
        sampling = asyncio.create_task(sample(system.observed, directory / "soak.csv", samples))
        work = Work(system.client, rate, seed)
        working = asyncio.create_task(work.run(minutes * 60))
        await asyncio.wait([working, sampling], return_when=asyncio.FIRST_COMPLETED)
        sampling.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await sampling
        await working
        await wait_idle(system.dev)
        counts = system.dev.pdo("/status")["counts"]
    text, flat = report(samples, minutes / 60)
    print(f"started: {dict(work.started)}\ntasks: {counts}\n\n{text}", flush=True)
    return flat


def main() -> int:
    """Read the arguments and run. Returns 1 if the memory of a process of ours grows."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.soak", description=__doc__)
    parser.add_argument("--minutes", type=float, default=60)
    parser.add_argument("--rate", type=float, default=5, help="instances per second (default %(default)s)")
    parser.add_argument("--seed", type=int, default=1, help="seed of what is started when (default %(default)s)")
    parser.add_argument("--directory", type=Path, default=None, help="where soak.csv, state and logs are kept")
    arguments = parser.parse_args()
    directory = work_directory(arguments.directory, "soak")
    return 0 if asyncio.run(soak(directory, arguments.minutes, arguments.rate, arguments.seed)) else 1


if __name__ == "__main__":
    sys.exit(main())
