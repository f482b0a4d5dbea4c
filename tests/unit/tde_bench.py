"""A TDE worker on a bench: one executor whose work a test writes, over an engine in memory."""

from __future__ import annotations

import asyncio
import contextlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from helpers import wait_until
from prokos.resources.names import tde_job_type
from prokos.tde import Context, Environment, Executor, Secrets, TaggedTask
from prokos.tde import lease as leases
from prokos.tde.lease import TDE_LEASE
from prokos.tde.worker import TdeWorker
from unit.builders import LEASED_AT, executor, job, task
from unit.fake_engine import Command, FakeEngine

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    from prokos.engine import Job

    Work = Callable[[dict[str, Any], Context], Awaitable[Any]]

PARENT, TDE, TDE_INSTANCE = 7, 900, 950
"""Keys of the task's job, of its TDE's job, and of its TDE."""


@pytest.fixture
def renewed_often(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leases of `TDE_LEASE` that are renewed every 50 ms, so that none ends because the machine has no time."""
    monkeypatch.setattr(leases, "KEEP_SHARE", TDE_LEASE / 0.05)


class Written(Executor[dict[str, Any], Any]):
    """Does what a test says."""

    def __init__(self, work: Work, secrets: dict[str, str]) -> None:
        super().__init__(None, Environment("payer", Path(), 4, Secrets(secrets)))
        self.work = work
        self.life: list[str] = []
        self.inputs: list[dict[str, Any]] = []
        self.contexts: list[Context] = []

    async def start(self) -> None:
        self.life.append("started")

    async def close(self) -> None:
        self.life.append("closed")

    async def execute(self, data: dict[str, Any], context: Context) -> Any:
        self.inputs.append(data)
        self.contexts.append(context)
        try:
            return await self.work(data, context)
        except asyncio.CancelledError:
            self.life.append("cancelled")
            raise


IN_OPERATE = "; when its cause is gone: Retry of this incident in Operate"
"""How the message of an incident of a TDE that a process called itself ends."""

AGAIN = f"; when its cause is gone: prokos retry {PARENT}, or Retry of this incident in Operate"
"""How the message of a dispatched task's incident ends."""


class Hints:
    """Takes hints, as the sender to the PDO does."""

    def __init__(self) -> None:
        self.sent: list[tuple[int, str]] = []

    def send(self, hint: dict[str, Any]) -> None:
        self.sent.append((hint["job"], "executing" if "executing" in hint else hint["outcome"]))


class Bench:
    """A worker with its engine, its executor and its hints."""

    def __init__(
        self, work: Work, *, secrets: dict[str, str] | None = None, lease: float = TDE_LEASE, **spec: Any
    ) -> None:
        self.engine = FakeEngine()
        self.executor = Written(work, secrets or {})
        self.hints = Hints()
        self.stop = asyncio.Event()
        self.resource = executor("payer", **{"backoff": {"jitter": 0}, **spec})
        self.worker = TdeWorker(
            self.engine, self.resource, self.executor, worker="tde-test", hints=self.hints, lease=lease
        )

    @contextlib.asynccontextmanager
    async def running(self, grace: float = 5.0) -> AsyncIterator[None]:
        """Run the worker; in the end ask it to stop, and wait until it has."""
        run = asyncio.create_task(self.worker.run(self.stop, grace))
        try:
            yield
        finally:
            self.stop.set()
            async with asyncio.timeout(10):
                await run

    async def does(self, given: Job, until: Callable[[], Any] | None = None) -> list[Command]:
        """What the worker asks of the engine because of a job, by default until it is done with the TDE."""
        self.engine.offer(given)
        async with self.running():
            await wait_until(until or self.done, describe=lambda: self.engine.commands)
        return self.engine.commands

    def done(self) -> bool:
        """Whether a TDE's job was reported, or the TDE cancelled."""
        return any(key in {TDE, TDE_INSTANCE} for _, key, *_ in self.engine.reports + self.engine.named("cancel"))


def dispatched(
    data: Any = None, *, late_ms: int = 5, lease: float = TDE_LEASE, tagged: TaggedTask | None = None, **changes: Any
) -> Job:
    """The job of a TDE that the PDO started, `late_ms` after the task was leased."""
    variables = {"prokosTask": {**(tagged or task(PARENT)).to_variable(), "input": data or {}}}
    deadline = LEASED_AT + late_ms + int(lease * 1000)
    values: dict[str, Any] = {"process": "tde-payer", "element": "Execute", "instance": TDE_INSTANCE, **changes}
    return job(TDE, tde_job_type("payer"), variables, deadline=deadline, **values)


def called(variables: dict[str, Any] | None = None, **changes: Any) -> Job:
    """The job of a TDE that a process called itself."""
    return job(TDE, tde_job_type("payer"), variables, process="tde-payer", instance=TDE_INSTANCE, **changes)
