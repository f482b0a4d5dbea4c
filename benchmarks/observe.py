"""What a running system uses: its processes by role, their memory and processor time, and the engine's own counters."""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
import time
import urllib.request
from collections import defaultdict
from typing import TYPE_CHECKING, Any

import psutil

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping

    from engine.devsystem import DevSystem

MB = 1_000_000
"""Bytes of the unit in which memory is given."""

ENGINE, KERNEL, PDO = "engine", "kernel", "pdo"

OTHERS = "everything else on the machine"

INSTANCES = re.compile(
    r'^zeebe_executed_instances_total\{[^}]*type="ROOT_PROCESS_INSTANCE",action="(\w+)"[^}]*\} (\S+)$', re.MULTILINE
)

POLLS = re.compile(
    r'^zeebe_gateway_total_requests_total\{[^}]*requestType="JOB_BATCH#ACTIVATE"[^}]*\} (\S+)$', re.MULTILINE
)


class Observed:
    """The processes of one `prokos dev`, by role: `engine`, `kernel`, `pdo`, and each worker by its name, `NAME/0`."""

    def __init__(self, dev: DevSystem) -> None:
        self._dev = dev
        self._management = ""
        self.processes: dict[str, psutil.Process] = {}
        self.refresh()

    def refresh(self) -> None:
        """Find the processes, after some were started or ended. A worker's own children are `NAME/0 scripts`."""
        kernel = psutil.Process(self._dev.pid)
        found = {KERNEL: kernel}
        gateway = self._dev.runtime["engine"]["PROKOS_ENGINE_ADDRESS"].rpartition(":")[2]
        for child in kernel.children():
            with contextlib.suppress(psutil.NoSuchProcess):
                environment = child.environ()
                # Another java may be a training run for the start-up cache.
                if environment.get("ZEEBE_BROKER_GATEWAY_NETWORK_PORT") == gateway:
                    found[ENGINE] = child
                    self._management = f"http://127.0.0.1:{environment['MANAGEMENT_SERVER_PORT']}"
        for name, pid in self.status()["children"].items():
            if pid is not None:
                found[name] = psutil.Process(pid)
                for own in found[name].children():
                    found[f"{name} scripts"] = own
        self.processes = found

    def status(self) -> Any:
        """What the kernel's status API says."""
        return fetch(f"http://{self._dev.runtime['kernel']}/status")

    def memory(self) -> dict[str, float]:
        """Resident memory by role, in MB (RSS: pages that processes share count in each of them)."""
        sizes = {}
        for role, process in self.processes.items():
            with contextlib.suppress(psutil.NoSuchProcess):
                sizes[role] = process.memory_info().rss / MB
        return sizes

    def processor(self) -> dict[str, float]:
        """Processor time by role, user and system, in seconds; `OTHERS` is what all other processes used."""
        used = {}
        for role, process in self.processes.items():
            with contextlib.suppress(psutil.NoSuchProcess):
                times = process.cpu_times()
                used[role] = times.user + times.system
        machine = psutil.cpu_times()
        used[OTHERS] = sum(machine) - machine.idle - getattr(machine, "iowait", 0) - sum(used.values())
        return used

    def instances(self) -> dict[str, int]:
        """Process instances that the engine has counted since its start: `activated`, `completed`, `terminated`."""
        return {action: int(float(count)) for action, count in INSTANCES.findall(self._metrics())}

    def polls(self) -> int:
        """Requests for jobs that the gateway has passed on since its start."""
        return int(sum(float(count) for count in POLLS.findall(self._metrics())))

    def _metrics(self) -> str:
        with urllib.request.urlopen(f"{self._management}/actuator/prometheus", timeout=10) as response:
            text: str = response.read().decode()
        return text

    @contextlib.asynccontextmanager
    async def peaks(self, every: float = 0.2) -> AsyncIterator[Mapping[str, float]]:
        """Watch memory during the context; the mapping holds the most that each role had, in MB."""
        most: dict[str, float] = defaultdict(float)

        def look() -> None:
            for role, size in self.memory().items():
                most[role] = max(most[role], size)

        async def watch() -> None:
            while True:
                look()
                await asyncio.sleep(every)

        watching = asyncio.create_task(watch())
        try:
            yield most
        finally:
            watching.cancel()
            look()


def spent(before: Mapping[str, float], after: Mapping[str, float]) -> dict[str, float]:
    """What each role used between two looks, in seconds of processor time."""
    return {role: used - before.get(role, 0) for role, used in after.items()}


def fetch(url: str) -> Any:
    """Get JSON."""
    with urllib.request.urlopen(url, timeout=10) as response:
        return json.loads(response.read())


async def wait_idle(dev: DevSystem, timeout: float = 60) -> None:
    """Wait until the PDO has no task in flight.

    Raises:
        TimeoutError: It still has; the message says which.
    """
    deadline = time.monotonic() + timeout
    while in_flight := await asyncio.to_thread(lambda: dev.pdo("/status")["inFlight"]):
        if time.monotonic() > deadline:
            raise TimeoutError(f"tasks are in flight after {timeout:g} s: {in_flight}")
        await asyncio.sleep(0.1)
