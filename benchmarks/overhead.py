"""What a task of each type costs more than the same call made by hand in a plain pyzeebe worker: `make overhead`.

    python -m benchmarks.overhead --help

One run starts `prokos dev` on the real broker, with an executor of each type, and beside it a worker written by hand
that makes the same calls (`benchmarks.plain_kinds`) for processes that ProkOS does not know. For each type rounds of
both alternate. Prints the table of `benchmarks/README.md`; writes `overhead.json`, state and logs into the directory.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import itertools
import json
import subprocess
import sys
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

import psutil

from benchmarks import kinds
from benchmarks.bench import machine
from benchmarks.compare import ALONE, ROOT
from benchmarks.figures import spread, table
from benchmarks.load import IN_FLIGHT, variables
from benchmarks.running import running, work_directory
from engine.samples import one_task

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from benchmarks.kinds import Services
    from benchmarks.running import Running
    from prokos.engine import EngineClient

ROUNDS = 5
SINGLES = 30
"""Instances of a round that run one at a time, for the latency."""

BURST = 200
"""Instances of a round that run `IN_FLIGHT` at a time, for throughput and processor time."""

TIMEOUT = 60.0
"""Seconds an instance may take."""

HEAD = ["type", "by hand, ms", "dispatched, ms", "added, ms", "by hand, tasks/s", "dispatched, tasks/s", "ratio",
        "worker by hand, CPU ms", "our worker, CPU ms"]  # fmt: skip


@dataclass
class Measured:
    """The rounds of one way to have a type's task done."""

    latencies: list[float] = field(default_factory=list)
    """Median of each round: seconds from an instance's creation to its end, nothing else going on."""
    rates: list[float] = field(default_factory=list)
    """Tasks a second of each round's burst."""
    costs: list[float] = field(default_factory=list)
    """Seconds of processor time of the worker, its child processes included, per task of each round's burst."""


@dataclass
class Kind:
    """One type, both ways."""

    name: str
    plain: Measured = field(default_factory=Measured)
    ours: Measured = field(default_factory=Measured)

    def row(self) -> list[str]:
        """As in the table; each cell is the median of the rounds, and differences are those of a pair of rounds."""
        pairs = list(zip(self.plain.latencies, self.ours.latencies, strict=True))
        rates = list(zip(self.plain.rates, self.ours.rates, strict=True))
        return [
            self.name,
            *(f"{median(way.latencies) * 1000:.1f}" for way in (self.plain, self.ours)),
            spread([(ours - plain) * 1000 for plain, ours in pairs]).show(1),
            *(f"{median(way.rates):.0f}" for way in (self.plain, self.ours)),
            spread([ours / plain for plain, ours in rates]).show(2),
            *(f"{median(way.costs) * 1000:.1f}" for way in (self.plain, self.ours)),
        ]


@contextlib.contextmanager
def plain_worker(address: str, directory: Path, services: Services) -> Iterator[psutil.Process]:
    """Run the worker that is written by hand."""
    argv = [sys.executable, "-m", "benchmarks.plain_kinds", address, str(directory), services.http, services.grpc]
    environment = {"PYTHONPATH": f"{ROOT / 'tests'}:{ROOT}", "PATH": "/usr/bin:/bin"}
    with (
        (directory / "plain-worker.log").open("wb") as log,
        subprocess.Popen(argv, cwd=ROOT, stdout=log, stderr=log, env=environment) as process,
    ):
        try:
            yield psutil.Process(process.pid)
        finally:
            process.terminate()


def used(processes: Iterable[psutil.Process]) -> float:
    """Seconds of processor time of processes, and of those of their children that have ended."""
    return sum(sum(process.cpu_times()[:4]) for process in processes)


async def measure(
    client: EngineClient, process: str, workers: list[psutil.Process], measured: Measured, singles: int, burst: int
) -> None:
    """One round of one way."""
    latencies = []
    for number in range(singles):
        begin = time.monotonic()
        await client.run_instance(process, variables(number), timeout=TIMEOUT)
        latencies.append(time.monotonic() - begin)
    numbers = itertools.count()

    async def some() -> None:
        while (number := next(numbers)) < burst:
            await client.run_instance(process, variables(number), timeout=TIMEOUT)

    before, begin = used(workers), time.monotonic()
    await asyncio.gather(*(some() for _ in range(IN_FLIGHT)))
    length = time.monotonic() - begin
    measured.latencies.append(median(latencies))
    measured.rates.append(burst / length)
    measured.costs.append((used(workers) - before) / burst)


async def compare(system: Running, plain: psutil.Process, rounds: int, singles: int, burst: int) -> list[Kind]:
    """All types, round by round."""
    found = [Kind(name) for name in kinds.KINDS]
    system.observed.refresh()
    roles = system.observed.processes
    ours = {
        kind.name: [roles[role] for role in (f"{kind.name}/0", f"{kind.name}/0 scripts") if role in roles]
        for kind in found
    }
    for number in range(rounds + 1):
        print("warm-up" if number == 0 else f"round {number} of {rounds}", flush=True)
        for kind in found:
            by_hand, dispatched = (kind.plain, kind.ours) if number else (Measured(), Measured())
            await measure(system.client, f"plain-{kind.name}", [plain], by_hand, singles, burst)
            await measure(system.client, f"one-{kind.name}", ours[kind.name], dispatched, singles, burst)
        if number == 0:
            # Until then a PDO has each task verified, at the cost of a command.
            await asyncio.sleep(max(0.0, ALONE - (time.time() - plain.create_time())))
    return found


async def overhead(directory: Path, rounds: int, singles: int, burst: int) -> list[Kind]:
    """Run everything."""
    async with kinds.serving() as services:
        executors = kinds.executors(directory / "records", services)
        async with running(directory, kinds.processes(), executors) as system:
            # Not by ProkOS, which would serve their tasks.
            for kind in kinds.KINDS:
                process = one_task(f"plain-{kind}", f"plain-{kind}")
                await system.client.deploy({f"plain-{kind}.bpmn": process.encode()})
            with plain_worker(system.address, directory, services) as plain:
                return await compare(system, plain, rounds, singles, burst)


def main() -> int:
    """Read the arguments and run."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.overhead", description=__doc__)
    parser.add_argument("--rounds", type=int, default=ROUNDS, help="rounds of each type (default %(default)s)")
    parser.add_argument(
        "--singles", type=int, default=SINGLES, help="single instances in a round (default %(default)s)"
    )
    parser.add_argument("--burst", type=int, default=BURST, help="instances in a burst (default %(default)s)")
    parser.add_argument("--directory", type=Path, default=None, help="where overhead.json, state and logs are kept")
    arguments = parser.parse_args()
    directory = work_directory(arguments.directory, "overhead")
    about = f"{time.strftime('%Y-%m-%d')}, {machine()}"
    print(f"{about}\nin {directory}", flush=True)
    found = asyncio.run(overhead(directory, arguments.rounds, arguments.singles, arguments.burst))
    print(f"\n{about}\n\n{table(HEAD, [kind.row() for kind in found])}", flush=True)
    results: dict[str, Any] = {"machine": about, "types": [asdict(kind) for kind in found]}
    (directory / "overhead.json").write_text(json.dumps(results, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
