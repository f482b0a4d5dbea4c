"""A system under load and its faults: many instances of a ten-task process, killed and paused processes, the ledger."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import random
import signal
import time
import urllib.error
from collections import Counter
from collections.abc import Collection
from itertools import pairwise
from pathlib import Path
from typing import Any

import grpc.aio
import psutil
from pyzeebe.proto import gateway_pb2 as pb
from pyzeebe.proto.gateway_pb2_grpc import GatewayStub

from engine.devsystem import DevSystem, wait_until
from engine.faults.ledger import Execution, Findings, LedgerFile, Pause, check
from engine.samples import HEAD, write
from prokos.engine import Connection, EngineClient, EngineUnavailableError, NotFoundError
from prokos.engine.losses import DOUBT

ELEMENTS = tuple(f"task{number:02}" for number in range(1, 11))
EXECUTORS = {"ledger-odd": 2, "ledger-even": 2}
"""Executors and the number of their workers; the tasks go to them by turns."""

PROCESS = "ten-tasks"

BEAT_WITHIN = 10.0
"""Seconds from a kill to the next beat."""


def ten_tasks() -> str:
    """A process of ten service tasks in a row."""
    job_types = [*EXECUTORS]
    nodes = ['<bpmn:startEvent id="Start"><bpmn:outgoing>f0</bpmn:outgoing></bpmn:startEvent>']
    for position, element in enumerate(ELEMENTS):
        nodes.append(
            f'<bpmn:serviceTask id="{element}"><bpmn:extensionElements>'
            f'<zeebe:taskDefinition type="{job_types[position % 2]}"/></bpmn:extensionElements>'
            f"<bpmn:incoming>f{position}</bpmn:incoming><bpmn:outgoing>f{position + 1}</bpmn:outgoing>"
            "</bpmn:serviceTask>"
        )
    nodes.append(f'<bpmn:endEvent id="End"><bpmn:incoming>f{len(ELEMENTS)}</bpmn:incoming></bpmn:endEvent>')
    places = ["Start", *ELEMENTS, "End"]
    nodes += [
        f'<bpmn:sequenceFlow id="f{number}" sourceRef="{source}" targetRef="{target}"/>'
        for number, (source, target) in enumerate(pairwise(places))
    ]
    body = "\n".join(nodes)
    return f'{HEAD}<bpmn:process id="{PROCESS}" isExecutable="true">\n{body}\n</bpmn:process>\n</bpmn:definitions>\n'


def ledger_executor(name: str, workers: int, ledger: Path, seed: int, concurrency: int) -> dict[str, Any]:
    """An executor that writes the ledger."""
    settings = {"ledger": str(ledger), "shortest": 0.01, "longest": 0.15, "seed": seed}
    return {
        "apiVersion": "prokos.io/v1alpha1",
        "kind": "TaskExecutor",
        "metadata": {"name": name},
        "spec": {
            "type": "python",
            "description": "Writes the ledger.",
            "accepts": [{"jobType": name}],
            "concurrency": concurrency,
            "timeout": "5m",
            "scaling": {"min": workers, "max": workers},
            "python": {
                "executor": "ledger_executor:LedgerExecutor",
                "path": str(Path(__file__).parent / "executors"),
                "settings": settings,
            },
        },
    }


class Fleet:
    """A `prokos dev` whose executors write the ledger, and instances of the ten-task process on it."""

    def __init__(
        self,
        directory: Path,
        seed: int,
        *,
        lease: str = "8s",
        window: int = 256,
        concurrency: int = 16,
        engine: str | None = None,
        ledger: Path | None = None,
        environment: dict[str, str] | None = None,
    ) -> None:
        """Make it.

        Args:
            directory: Where everything goes.
            seed: Of all chance.
            lease: The PDO's.
            window: Tasks of a job type that are dispatched at a time.
            concurrency: Tasks that a worker executes at a time.
            engine: Address of an engine that runs already.
            ledger: File of the ledger, if that is to be elsewhere.
            environment: More variables for all processes.
        """
        self.seed = seed
        self.random = random.Random(seed)
        self.ledger_file = ledger or directory / "ledger.jsonl"
        system: dict[str, Any] = {"pdo": {"lease": lease, "window": window}}
        if engine is not None:
            system["engine"] = {"external": {"address": engine}}
        resources = [
            ledger_executor(name, workers, self.ledger_file, seed, concurrency) for name, workers in EXECUTORS.items()
        ]
        resources.append(
            {"apiVersion": "prokos.io/v1alpha1", "kind": "ProkOS", "metadata": {"name": "test"}, "spec": system}
        )
        manifests = write(directory / "manifests", processes={PROCESS: ten_tasks()}, resources=resources)
        self.dev = DevSystem(directory, [manifests], environment=environment)
        self._ledger = LedgerFile(self.ledger_file)
        self.instances: set[int] = set()
        self.forgotten: set[int] = set()
        """Instances that the engine said it had started, just before it was killed, and then knew nothing of."""
        self._started: dict[int, tuple[float, float]] = {}
        self.cancelled: set[int] = set()
        self.deaths: dict[int, float] = {}
        self.broker_deaths: list[float] = []
        self.pauses: list[Pause] = []
        self.steps: list[float] = []
        """When the engine's clock was set forward."""
        self._undone: list[tuple[float, float]] = []

    def __enter__(self) -> Fleet:
        self.dev.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.dev.stop()

    # --- instances --------------------------------------------------------------------------------------------

    @property
    def engine(self) -> str:
        return str(self.dev.runtime["engine"]["PROKOS_ENGINE_ADDRESS"])

    def start(self, count: int, **variables: Any) -> set[int]:
        """Start instances; one whose start was lost with its answer shows in the ledger if it was started."""
        started = asyncio.run(self._start(count, variables))
        self.instances |= started
        return started

    async def _start(self, count: int, variables: dict[str, Any]) -> set[int]:
        limit = asyncio.Semaphore(16)
        started: set[int] = set()
        async with EngineClient(Connection(self.engine)) as client:

            async def one() -> None:
                async with limit:
                    asked = time.monotonic()
                    try:
                        key = (await client.create_instance(PROCESS, variables)).key
                        started.add(key)
                        self._started[key] = asked, time.monotonic()
                    except EngineUnavailableError:
                        return

            await asyncio.gather(*(one() for _ in range(count)))
        return started

    def cancel(self, instances: Collection[int]) -> set[int]:
        """Cancel instances; returns those that had not ended by themselves, as far as the answers tell."""
        # Noted first: what is known of them is less from now on, also when an answer is lost.
        self.cancelled |= set(instances)
        return asyncio.run(self._cancel(instances))

    async def _cancel(self, instances: Collection[int]) -> set[int]:
        limit = asyncio.Semaphore(16)
        cancelled: set[int] = set()
        async with EngineClient(Connection(self.engine)) as client:

            async def one(key: int) -> None:
                async with limit:
                    with contextlib.suppress(NotFoundError):
                        await client.cancel_instance(key)
                        cancelled.add(key)

            await asyncio.gather(*(one(key) for key in instances))
        return cancelled

    def running(self, instances: Collection[int]) -> set[int]:
        """Those that the engine still runs."""
        return asyncio.run(self._running(instances))

    async def _running(self, instances: Collection[int]) -> set[int]:
        limit = asyncio.Semaphore(16)
        async with grpc.aio.insecure_channel(self.engine) as channel:
            gateway = GatewayStub(channel)

            async def runs(key: int) -> bool:
                # Sets no variable: it is only to learn whether there is such an instance.
                request = pb.SetVariablesRequest(elementInstanceKey=key, variables="{}", local=True)
                async with limit:
                    try:
                        await gateway.SetVariables(request, timeout=10)
                    except grpc.aio.AioRpcError as error:
                        return error.code() != grpc.StatusCode.NOT_FOUND
                return True

            ordered = list(instances)
            answers = await asyncio.gather(*(runs(key) for key in ordered))
        return {key for key, answer in zip(ordered, answers, strict=True) if answer}

    def load(self, instances: int, **variables: Any) -> set[int]:
        """Start instances, and wait until a random part of their tasks was executed."""
        executed = len(self.executions())
        started = self.start(instances, **variables)
        self.wait_for_executions(executed + int(instances * self.random.uniform(0.5, 3)))
        return started

    def settle(self, timeout: float) -> Findings:
        """Wait until every instance has ended, then check the ledger; fails after `timeout` seconds of standstill."""
        deadline = time.monotonic() + timeout
        ended: set[int] = set()
        seen: tuple[int, int] | None = None
        executions = self.executions()
        while left := self._unfinished(executions, ended):
            moved = (len(left), sum(one.how == "end" for one in executions))
            if moved != seen:
                seen, deadline = moved, time.monotonic() + timeout
            if time.monotonic() > deadline:
                raise AssertionError(f"seed {self.seed}: {self._describe(left)}")
            time.sleep(0.2)
            executions = self.executions()
        # Of the same moment: a TDE of a cancelled instance may begin and stop again after it.
        findings = self.check(executions)
        forgotten = f"{len(self.forgotten)} forgotten at their start, " if self.forgotten else ""
        print(f"seed {self.seed}: {forgotten}{findings}", flush=True)
        return findings

    def _unfinished(self, executions: list[Execution], ended: set[int]) -> set[int]:
        """Instances and executions that go on, by instance. `ended` is what is known and gets to be known."""
        # An instance whose start was lost with its answer shows in the ledger.
        wanted = (self.instances | {one.instance for one in executions}) - self.cancelled - self.forgotten
        finished = {one.instance for one in executions if one.element == ELEMENTS[-1] and one.how == "end"}
        candidates = (wanted & finished) - ended
        ended |= candidates - self.running(candidates)
        doubtful = self._begun_before_a_death(executions) & (wanted - finished)
        self.forgotten |= doubtful - self.running(doubtful)
        return (wanted - ended - self.forgotten) | {one.instance for one in executions if one.how == "running"}

    def _begun_before_a_death(self, executions: list[Execution]) -> set[int]:
        """Instances that began so shortly before the broker was killed that it may have forgotten them."""
        begun = {one.instance: (one.started, one.started) for one in reversed(executions)} | self._started
        return {
            key
            for key, (earliest, latest) in begun.items()
            if any(earliest < death < latest + DOUBT for death in self.broker_deaths)
        }

    def _describe(self, left: Collection[int]) -> str:
        last = {one.instance: one for one in self.executions() if one.instance in left}
        shown = [f"  {key}: {last.get(key)}" for key in sorted(left)[:5]]
        return "\n".join([f"{len(left)} instances have not ended", *shown, str(self.check()), self.dev.logs()])

    def executions(self) -> list[Execution]:
        """The ledger so far, without what the engine's state was set back over."""
        found = self._ledger.read(self.deaths)
        return [one for one in found if not any(begin < one.started < end for begin, end in self._undone)]

    def check(self, executions: list[Execution] | None = None) -> Findings:
        """Check the ledger: what it held when it was read, or everything so far."""
        if executions is None:
            executions = self.executions()
        return check(
            [one for one in executions if one.instance not in self.forgotten],
            ELEMENTS,
            instances=self.instances - self.forgotten,
            cancelled=self.cancelled,
            pauses=self.pauses,
            steps=self.steps,
        )

    def wait_for_executions(self, count: int, timeout: float = 60) -> None:
        """Wait until there are so many executions in all."""
        wait_until(
            lambda: len(self.executions()) >= count,
            timeout=timeout,
            describe=lambda: f"{len(self.executions())} executions, not {count}\n{self.dev.logs()}",
        )

    # --- faults -----------------------------------------------------------------------------------------------

    def processes(self, what: str) -> list[int]:
        """Process ids of `prokos.pdo`, `prokos.tde` or `java`."""
        found = []
        for process in self.dev.family():
            try:
                command = process.cmdline()
                if process.status() != psutil.STATUS_ZOMBIE and (what in command or Path(command[0]).name == what):
                    found.append(process.pid)
            except (psutil.NoSuchProcess, IndexError):
                continue
        return sorted(found)

    def busy_worker(self) -> int:
        """Wait for a worker that executes something; the one that executes most."""
        found: list[int] = []

        def busy() -> bool:
            here = set(self.processes("prokos.tde"))
            counts = Counter(one.pid for one in self.executions() if one.how == "running" and one.pid in here)
            found[:] = [pid for pid, _ in counts.most_common(1)]
            return bool(found)

        wait_until(busy, timeout=30, describe=lambda: f"no worker is busy\n{self.dev.logs()}")
        return found[0]

    def _stop_at_work(self) -> int:
        """Stop a worker in the middle of an execution; its process id."""
        while True:
            victim = self.busy_worker()
            # What it executed may end before it is stopped.
            os.kill(victim, signal.SIGSTOP)
            if any(one.pid == victim and one.how == "running" for one in self.executions()):
                return victim
            os.kill(victim, signal.SIGCONT)

    def pause_at_work(self, seconds: float) -> Pause:
        """Stop a worker for a while, in the middle of an execution."""
        return self.pause(self._stop_at_work(), seconds)

    def kill_at_work(self) -> tuple[int, float]:
        """Kill a worker in the middle of an execution; its process id, and the time of the kill."""
        victim = self._stop_at_work()
        return victim, self.kill(victim)

    def kill(self, pid: int) -> float:
        """Kill a process and wait until it is dead; the time of the kill."""
        broker = pid in self.processes("java")
        at = time.time()
        os.kill(pid, signal.SIGKILL)
        wait_until(lambda: not alive(pid), timeout=60, describe=lambda: f"process {pid} does not die")
        self.deaths[pid] = time.monotonic()
        if broker:
            self.broker_deaths.append(self.deaths[pid])
        return at

    def kill_all(self) -> float:
        """Kill `prokos dev`, and with it all that it runs; when all was dead, on the monotonic clock."""
        family = self.dev.family()
        os.kill(self.dev.pid, signal.SIGKILL)
        wait_until(lambda: not any(alive(process.pid) for process in family), timeout=30, describe=lambda: str(family))
        self.dev.stop()
        at = time.monotonic()
        self.deaths |= {process.pid: at for process in family}
        self.broker_deaths.append(at)
        return at

    def undo(self, since: float) -> set[int]:
        """The engine's state was set back to what it was then; the instances that it has forgotten."""
        self._undone.append((since, time.monotonic()))
        forgotten = {key for key in self.instances if self._started[key][1] > since}
        self.instances -= forgotten
        for key in forgotten:
            del self._started[key]
        return forgotten

    def pause(self, pid: int, seconds: float) -> Pause:
        """Stop a process for a while."""
        begin = time.monotonic()
        os.kill(pid, signal.SIGSTOP)
        try:
            time.sleep(seconds)
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGCONT)
        pause = Pause(pid, begin, time.monotonic())
        self.pauses.append(pause)
        return pause

    def wait_for_new(self, what: str, before: int) -> tuple[float, float]:
        """Wait for the PDO that follows a killed one; when its process began, and when it answered first."""
        wait_until(
            lambda: self.processes(what) not in ([], [before]),
            timeout=60,
            describe=lambda: f"no {what}: {self.dev.logs()}",
        )
        began = psutil.Process(self.processes(what)[0]).create_time()
        wait_until(self.status, timeout=120, describe=self.dev.logs)
        return began, time.time()

    # --- heartbeat --------------------------------------------------------------------------------------------

    def status(self) -> dict[str, Any] | None:
        """What the PDO says of itself; None while it does not answer."""
        try:
            found: dict[str, Any] = self.dev.pdo("/status")
        except (urllib.error.URLError, OSError, json.JSONDecodeError):
            return None
        return found

    def wait_for_beats(self, count: int, timeout: float = 60.0) -> None:
        """Wait for some beats, whatever the clock says."""
        for _ in range(count):
            seen = self._beats()
            wait_until(lambda seen=seen: self._beats() not in ([], seen), timeout=timeout, describe=self.dev.logs)

    def _beats(self) -> list[int]:
        return [shard["beat"] for shard in (self.status() or {}).get("shards") or []]

    def wait_for_beat(self, since: float, timeout: float = 60.0) -> float:
        """Wait for a beat after a time (seconds since the epoch); returns how many seconds after it that was."""

        def beat() -> float | None:
            shards = (self.status() or {}).get("shards") or []
            return next((shard["at"] for shard in shards if shard["at"] > since), None)

        wait_until(beat, timeout=timeout, describe=lambda: f"no beat\n{self.dev.logs()}")
        at = beat()
        assert at is not None
        return float(at - since)


def alive(pid: int) -> bool:
    """Whether a process runs; one that ended and was not waited for yet does not."""
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
