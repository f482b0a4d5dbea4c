"""Dispatched tasks beside a worker that is written by hand, and what a system takes: `make bench`, 5 minutes.

    python -m benchmarks.bench --help

One run starts `prokos dev` on the real broker and, beside it, a plain pyzeebe worker for processes of the same form
that ProkOS does not know. Rounds of both alternate, so that what else the machine does meets both. Prints the table of
`benchmarks/README.md`; writes `results.json`, state and logs into the directory.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import platform
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil

from benchmarks import footprint, kinds
from benchmarks.compare import HEAD, PLAIN, Comparison, plain_worker
from benchmarks.figures import figure_table, table
from benchmarks.load import Way
from benchmarks.manifests import TEN, TEN_TYPES, ten_tasks
from benchmarks.records import RecordReader
from benchmarks.running import running, work_directory
from engine.samples import one_task

if TYPE_CHECKING:
    from benchmarks.figures import Figure
    from benchmarks.running import Running

ROUNDS = 5
INSTANCES = 1_500
"""Instances of the one-task process in a burst."""

TEN_SHARE = 5
"""The ten-task process has a fifth as many: enough for its two timers, 0.1 s each, to count for little."""

SINGLES = 60
"""Single instances of the one-task process in a round. Of the ten-task process there are so many tasks."""

LOADED = 300
"""Tasks for a worker of each type while memory is watched."""

IDLE = 20.0
"""Seconds for which the idle system is watched."""

OURS, LOAD = "dispatched", "load generator"


async def bench(directory: Path, rounds: int, instances: int) -> Results:
    """Run everything; returns the results."""
    records, plain_records = directory / "records", directory / "plain-records"
    async with kinds.serving() as services:
        processes = {**kinds.processes(), "ten": ten_tasks("ten", "ten")}
        executors = kinds.executors(records, services, also=TEN_TYPES)
        async with running(directory, processes, executors) as system:
            # Not by ProkOS, which would serve their tasks.
            await system.client.deploy({"plain.bpmn": one_task("plain", "plain").encode()})
            await system.client.deploy({"plain-ten.bpmn": ten_tasks("plain-ten", "plain-ten").encode()})
            types = ["plain", *(f"plain-{job_type}" for job_type in TEN_TYPES)]
            with plain_worker(system.address, plain_records, types, directory / "plain-worker.log") as plain:
                system.observed.processes |= {PLAIN: plain, LOAD: psutil.Process()}
                return await _measure(system, RecordReader(plain_records), RecordReader(records), rounds, instances)


async def _measure(system: Running, plain: RecordReader, ours: RecordReader, rounds: int, instances: int) -> Results:
    one = Comparison("one task", Way(PLAIN, "plain", plain, 1), Way(OURS, "one-python", ours, 1))
    ten = Comparison("ten tasks", Way(PLAIN, "plain-ten", plain, len(TEN)), Way(OURS, "ten", ours, len(TEN)))
    figures = [footprint.help_time(), *footprint.memory(system.observed.memory(), "after the start")]
    for comparison, burst, singles in ((one, instances, SINGLES), (ten, instances // TEN_SHARE, SINGLES // len(TEN))):
        await comparison.warm_up(system, burst)
        for number in range(1, rounds + 1):
            print(f"round {number} of {rounds}", flush=True)
            await comparison.round(system, instances=burst, singles=singles)
    figures += await footprint.under_load(system, LOADED)
    figures += await footprint.idle(system.observed, IDLE)
    return Results([one, ten], figures, {PLAIN: plain.repeated, OURS: ours.repeated})


@dataclass(frozen=True)
class Results:
    """Everything that was measured."""

    comparisons: list[Comparison]
    figures: list[Figure]
    repeated: dict[str, int]
    """Executions of a task that was executed before, by path."""

    @property
    def missed(self) -> bool:
        """Whether a target is missed."""
        asked = [*self.figures, *(figure for comparison in self.comparisons for figure in comparison.figures())]
        return any(figure.met is False for figure in asked)

    def to_dict(self) -> dict[str, Any]:
        """As JSON: what is asked and everything that was measured."""
        return {
            "figures": [asdict(figure) for figure in self.figures],
            "comparisons": {comparison.title: comparison.to_dict() for comparison in self.comparisons},
            "repeated": self.repeated,
        }

    def report(self) -> str:
        """For people, as `benchmarks/README.md` has them."""
        parts = [table(HEAD, [row for comparison in self.comparisons for row in comparison.rows()])]
        parts += [figure_table(self.figures), "Share of all processors during the bursts:"]
        parts += [comparison.share_table() for comparison in self.comparisons]
        return "\n\n".join([*parts, f"Executions that were repeated: {self.repeated}"])


def machine() -> str:
    """What it ran on."""
    memory = psutil.virtual_memory().total / 2**30
    names = [line.partition(":")[2].strip() for line in _cpuinfo() if line.startswith("model name")]
    processor = names[0] if names else platform.machine()
    return (
        f"{os.cpu_count()} processors ({processor}), {memory:.0f} GiB, {platform.system()} {platform.release()}, "
        f"Python {platform.python_version()}, load before the start {os.getloadavg()[0]:.1f}"
    )


def _cpuinfo() -> list[str]:
    file = Path("/proc/cpuinfo")
    return file.read_text().splitlines() if file.exists() else []


def main() -> int:
    """Read the arguments and run. Returns 1 if a target is missed."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.bench", description=__doc__)
    parser.add_argument("--rounds", type=int, default=ROUNDS, help="rounds of each comparison (default %(default)s)")
    parser.add_argument("--instances", type=int, default=INSTANCES, help="instances in a burst (default %(default)s)")
    parser.add_argument("--directory", type=Path, default=None, help="where results.json, state and logs are kept")
    arguments = parser.parse_args()
    directory = work_directory(arguments.directory, "bench")
    about = f"{time.strftime('%Y-%m-%d')}, {machine()}"
    print(f"{about}\nin {directory}", flush=True)
    results = asyncio.run(bench(directory, arguments.rounds, arguments.instances))
    print(f"\n{about}\n\n{results.report()}", flush=True)
    (directory / "results.json").write_text(json.dumps({"machine": about, **results.to_dict()}, indent=1) + "\n")
    return 1 if results.missed else 0


if __name__ == "__main__":
    sys.exit(main())
