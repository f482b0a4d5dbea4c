"""From 10 to 500 registered processes and from 1 to 100 executors: what grows with them?

    python -m benchmarks.growth --help

Each size is a system of its own. Every process has a task with a job type of its own; the executors share the job
types. One executor has a worker, the one whose latency is measured; the others have none (`scaling.min: 0`), because
100 workers are 7 GB of memory and cost the rest nothing.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from benchmarks.figures import percentile, table
from benchmarks.load import Way
from benchmarks.manifests import recording_executor
from benchmarks.observe import ENGINE, KERNEL, PDO, spent
from benchmarks.records import RecordReader
from benchmarks.running import Running, running, work_directory
from engine.devsystem import wait_until
from engine.samples import one_task

SIZES = ((10, 1), (100, 20), (500, 100))
"""Processes and executors."""

IDLE = 20.0
"""Seconds for which the idle system is watched."""

SETTLE = 5.0
"""Seconds after boot before it counts as idle."""

SINGLES = 60
"""Single instances for the latency."""

REGISTRATION = 60.0
"""Seconds that the registration of one more process may take."""


@dataclass(frozen=True, slots=True)
class Grown:
    """What a system of one size took. Times are seconds, memory is MB, processor time is a share of one core."""

    processes: int
    executors: int
    boot: float
    beat: float
    """Mean time from one beat to the next; `spec.pdo.beatInterval` is 1 s."""
    latency: float
    """From the creation of an instance to the executor's code, median."""
    latency_95: float
    registration: float
    """From writing the BPMN of one more process to its being registered."""
    memory: dict[str, float]
    idle: dict[str, float]
    polls: float
    """Requests for jobs that the engine gets per second when idle."""

    def row(self) -> list[str]:
        """A row of the table."""
        return [
            f"{self.processes}, {self.executors}",
            f"{self.boot:.1f}",
            f"{self.beat:.2f}",
            f"{self.latency * 1000:.1f} ({self.latency_95 * 1000:.1f})",
            f"{self.registration:.2f}",
            *(f"{self.memory[role]:.0f}" for role in (PDO, KERNEL, ENGINE)),
            *(f"{self.idle[role]:.1%}" for role in (PDO, KERNEL, ENGINE)),
            f"{self.polls:.1f}",
        ]


HEAD = [
    "processes, executors",
    "boot, s",
    "beat, s",
    "latency (95 %), ms",
    "one more, s",
    "PDO, MB",
    "kernel, MB",
    "engine, MB",
    "PDO idle",
    "kernel idle",
    "engine idle",
    "polls/s",
]


async def grow(directory: Path, processes: int, executors: int) -> Grown:
    """Run a system of one size and measure it."""
    names = [f"process-{number:03}" for number in range(processes)]
    job_types: list[list[str]] = [[] for _ in range(executors)]
    for number, name in enumerate(names):
        job_types[number % executors].append(f"work-{name}")
    records = directory / "records"
    resources = [
        recording_executor(
            f"executor-{number:03}",
            records,
            types,
            scaling={"min": int(number == 0), "max": 1},
            description=f"Executes the tasks of every {executors}th process.",
        )
        for number, types in enumerate(job_types)
    ]
    begin = time.monotonic()
    async with running(directory, {name: one_task(name, f"work-{name}") for name in names}, resources) as system:
        boot = time.monotonic() - begin
        await asyncio.sleep(SETTLE)
        idle, beat, polls = await _idle(system)
        way = Way("dispatched", names[0], RecordReader(records), 1)
        latencies = [step for _ in range(SINGLES) for step in await system.load.single(way)]
        registration = await asyncio.to_thread(_register_one_more, system, directory / "manifests")
        return Grown(
            processes,
            executors,
            boot,
            beat,
            median(latencies),
            percentile(latencies, 0.95),
            registration,
            system.observed.memory(),
            idle,
            polls,
        )


async def _idle(system: Running) -> tuple[dict[str, float], float, float]:
    """Processor time by role as a share of a core, seconds per beat, polls per second."""
    used, polls, begin, first = (
        system.observed.processor(),
        system.observed.polls(),
        time.monotonic(),
        _last_beat(system),
    )
    await asyncio.sleep(IDLE)
    length, last = time.monotonic() - begin, _last_beat(system)
    shares = {role: seconds / length for role, seconds in spent(used, system.observed.processor()).items()}
    return shares, (last[1] - first[1]) / (last[0] - first[0]), (system.observed.polls() - polls) / length


def _last_beat(system: Running) -> tuple[int, float]:
    """Number and time of the last beat."""
    shard = system.dev.pdo("/status")["shards"][0]
    return int(shard["beat"]), float(shard["at"])


def _register_one_more(system: Running, manifests: Path) -> float:
    """Add a process while the system runs; returns the seconds until it is registered."""
    begin = time.monotonic()
    (manifests / "one-more.bpmn").write_text(one_task("one-more", "work-one-more"))
    wait_until(
        lambda: "one-more" in {process["process"] for process in system.observed.status()["processes"]},
        timeout=REGISTRATION,
        describe=lambda: f"one-more is not registered:\n{system.dev.logs()}",
    )
    return time.monotonic() - begin


def main() -> int:
    """Read the arguments and run."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.growth", description=__doc__)
    sizes = [f"{processes}:{executors}" for processes, executors in SIZES]
    parser.add_argument("sizes", nargs="*", default=sizes, help=f"PROCESSES:EXECUTORS, default {' '.join(sizes)}")
    parser.add_argument("--directory", type=Path, default=None, help="where state and logs are kept")
    arguments = parser.parse_args()
    directory = work_directory(arguments.directory, "growth")
    rows = []
    for size in arguments.sizes:
        processes, executors = map(int, size.split(":"))
        grown = asyncio.run(grow(directory / f"{processes}-{executors}", processes, executors))
        rows.append(grown.row())
        print(json.dumps({name: getattr(grown, name) for name in grown.__slots__}), flush=True)
    print("\n" + table(HEAD, rows))
    return 0


if __name__ == "__main__":
    sys.exit(main())
