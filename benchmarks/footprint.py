"""What a system takes: memory of the PDO and of each type of worker, the start of the command, an idle shard."""

from __future__ import annotations

import asyncio
import subprocess
import time
from typing import TYPE_CHECKING

from benchmarks.figures import Figure, spread
from benchmarks.kinds import KINDS
from benchmarks.observe import ENGINE, PDO, spent, wait_idle
from engine.devsystem import PROKOS

if TYPE_CHECKING:
    from collections.abc import Mapping

    from benchmarks.observe import Observed
    from benchmarks.running import Running

PDO_MEMORY = 250.0
"""Most MB of the PDO."""

WORKER_MEMORY = 90.0
"""Most MB of a worker."""

HELP = 0.5
"""Most seconds of `prokos --help`."""

HELPS = 7
"""Times it is run."""

IDLE_INSTANCES = 2.0
"""Most process instances per second that an idle shard costs the engine."""

SETTLE = 3.0
"""Seconds after the last task before the system counts as idle."""


async def under_load(system: Running, instances: int) -> list[Figure]:
    """Work for a worker of each type; returns its rate, and what it and the PDO had of memory at most."""
    rates = []
    async with system.observed.peaks() as most:
        for kind in KINDS:
            begin = time.monotonic()
            await system.load.start(f"one-{kind}", instances)
            await wait_idle(system.dev)
            rate = instances / (time.monotonic() - begin)
            rates.append(Figure(f"one task, executor of type {kind}", spread([rate]), "tasks/s", digits=0))
    return rates + memory(most, "under load")


def memory(sizes: Mapping[str, float], when: str) -> list[Figure]:
    """The sizes of PDO and workers as figures."""
    found = [Figure(f"memory {when}: PDO", spread([sizes[PDO]]), "MB", PDO_MEMORY, digits=0)]
    found += [
        Figure(f"memory {when}: worker, {kind}", spread([sizes[f"{kind}/0"]]), "MB", WORKER_MEMORY, digits=0)
        for kind in KINDS
    ]
    server = spread([sizes["script/0 scripts"]])
    return [*found, Figure(f"memory {when}: server that starts the scripts", server, "MB", digits=0)]


async def idle(observed: Observed, seconds: float) -> list[Figure]:
    """Look at a system that has nothing to do."""
    await asyncio.sleep(SETTLE)
    before, used, begin = observed.instances(), observed.processor(), time.monotonic()
    await asyncio.sleep(seconds)
    after, used_then, length = observed.instances(), observed.processor(), time.monotonic() - begin
    shares = {role: of / length for role, of in spent(used, used_then).items()}
    started = (after["activated"] - before["activated"]) / length
    return [
        Figure("idle shard: instances", spread([started]), "per s", IDLE_INSTANCES),
        *(
            Figure(f"idle: processor time of {role}", spread([shares[role] * 100]), "% of a core", digits=1)
            for role in (ENGINE, PDO, "kernel", "python/0")
        ),
    ]


def help_time() -> Figure:
    """How long `prokos --help` takes."""
    times = []
    for _ in range(HELPS + 1):
        begin = time.monotonic()
        subprocess.run([*PROKOS, "--help"], stdout=subprocess.DEVNULL, check=True)
        times.append(time.monotonic() - begin)
    # The first one reads from the disk what the others find in memory.
    return Figure("prokos --help", spread(times[1:]), "s", HELP)
