"""A worker written by hand and dispatched tasks side by side: rounds A, B, A, B on one engine, and their ratios."""

from __future__ import annotations

import contextlib
import subprocess
import sys
import time
from collections import Counter
from dataclasses import asdict, dataclass, field
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any, TypeVar

import psutil

from benchmarks.figures import Figure, percentile, spread, table
from benchmarks.observe import PDO, wait_idle
from prokos.pdo.service import SHARD_KEPT
from prokos.resources import ProkOSSpec

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from benchmarks.load import Burst, Way
    from benchmarks.running import Running

T = TypeVar("T")

PLAIN = "plain worker"

ROOT = Path(__file__).resolve().parents[1]

HEAD = ["", PLAIN, "dispatched", "compared", "target", ""]
"""Columns of the table of comparisons; every cell is a median, and the least and the most of the rounds."""

RATIO = 0.30
"""Least throughput of dispatched tasks, the plain worker's being 1."""

ALONE = ProkOSSpec().pdo.lease.total_seconds() + SHARD_KEPT
"""Seconds after its start for which a PDO has every task verified, at the cost of a command: another one may have had
it. Bursts are measured afterwards."""

SHOWN = 0.005
"""Least share of the processors that is shown."""

ADDED = 12.0
"""Most milliseconds that dispatching adds to the median latency."""


@dataclass
class Comparison:
    """The rounds of one process, by way."""

    title: str
    plain: Way
    dispatched: Way
    bursts: dict[str, list[Burst]] = field(default_factory=dict)
    singles: dict[str, list[list[float]]] = field(default_factory=dict)

    async def warm_up(self, system: Running, instances: int) -> None:
        """Let the engine's compiler see the work before it is measured, and the PDO become sure that it is alone."""
        while True:
            for way in (self.plain, self.dispatched):
                await system.load.burst(way, instances)
                await wait_idle(system.dev)
            if time.time() - system.observed.processes[PDO].create_time() > ALONE:
                return

    async def round(self, system: Running, *, instances: int, singles: int) -> None:
        """One round: a burst and single instances on each way."""
        for way in (self.plain, self.dispatched):
            burst = await system.load.burst(way, instances)
            self.bursts.setdefault(way.name, []).append(burst)
            print(f"  {self.title}, {way.name}: {burst.rate:.0f} tasks/s", flush=True)
            await wait_idle(system.dev)
        for way in (self.plain, self.dispatched):
            lengths = [step for _ in range(singles) for step in await system.load.single(way)]
            self.singles.setdefault(way.name, []).append(lengths)
            print(f"  {self.title}, {way.name}: {median(lengths) * 1000:.1f} ms", flush=True)
            await wait_idle(system.dev)

    def figures(self) -> list[Figure]:
        """What is asked of the comparison: the ratio of each round, and the latency that is added."""
        ratios = [b.rate / a.rate for a, b in self._pairs(self.bursts)]
        added = [(median(b) - median(a)) * 1000 for a, b in self._pairs(self.singles)]
        return [
            Figure(f"{self.title}: throughput, tasks/s", spread(ratios), "times", RATIO, "more"),
            Figure(f"{self.title}: median latency, ms", spread(added), "more", ADDED, digits=1),
        ]

    def rows(self) -> list[list[str]]:
        """The comparison as rows of a table with `HEAD`."""
        throughput, latency = self.figures()
        rates = [spread([burst.rate for burst in rounds]).show(0) for rounds in self._both(self.bursts)]
        medians, tails = (
            [spread([of(lengths) * 1000 for lengths in rounds]).show(1) for rounds in self._both(self.singles)]
            for of in (median, lambda lengths: percentile(lengths, 0.95))
        )
        costs = [spread([burst.cost * 1000 for burst in rounds]).show(1) for rounds in self._both(self.bursts)]
        return [
            [throughput.name, *rates, throughput.measured, *throughput.verdict],
            [latency.name, *medians, latency.measured, *latency.verdict],
            [f"{self.title}: 95 % within, ms", *tails, "", "", ""],
            [f"{self.title}: processor time per task, ms", *costs, "", "", ""],
        ]

    def _both(self, rounds: Mapping[str, list[T]]) -> tuple[list[T], list[T]]:
        return rounds[self.plain.name], rounds[self.dispatched.name]

    def _pairs(self, rounds: Mapping[str, list[T]]) -> Iterable[tuple[T, T]]:
        return zip(*self._both(rounds), strict=True)

    def shares(self, way: Way) -> dict[str, float]:
        """How much of the machine each role used during the bursts of a way, together at most 1."""
        used: Counter[str] = Counter()
        for burst in self.bursts[way.name]:
            used.update(burst.processor)
        seconds = sum(burst.seconds for burst in self.bursts[way.name]) * (psutil.cpu_count() or 1)
        return {role: spent / seconds for role, spent in used.items()}

    def share_table(self) -> str:
        """Who used the processors, those who used most first; where they were all used, they were the limit."""
        plain, ours = self.shares(self.plain), self.shares(self.dispatched)
        shown = [role for role in sorted(ours, key=lambda role: -ours[role]) if max(ours[role], plain[role]) >= SHOWN]
        rows = [[role, f"{plain[role]:.0%}", f"{ours[role]:.0%}"] for role in shown]
        rows.append(["together", f"{sum(plain.values()):.0%}", f"{sum(ours.values()):.0%}"])
        return table([self.title, self.plain.name, self.dispatched.name], rows)

    def to_dict(self) -> dict[str, Any]:
        """As JSON: everything that was measured."""
        return {
            "figures": [asdict(figure) for figure in self.figures()],
            "bursts": {name: [asdict(burst) for burst in rounds] for name, rounds in self.bursts.items()},
            "steps": self.singles,
        }


@contextlib.contextmanager
def plain_worker(address: str, records: Path, job_types: list[str], log: Path) -> Iterator[psutil.Process]:
    """Run the worker that is written by hand."""
    argv = [sys.executable, "-m", "benchmarks.plain_worker", address, str(records), *job_types]
    with log.open("wb") as output, subprocess.Popen(argv, cwd=ROOT, stdout=output, stderr=output) as process:
        try:
            yield psutil.Process(process.pid)
        finally:
            process.terminate()
