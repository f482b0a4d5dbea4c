"""Workers that take one task, as the pods of `scaling.podPerTask` run them: processes of their own, a real engine."""

from __future__ import annotations

import asyncio
import os
import sys
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import pytest

from prokos.engine import Connection
from prokos.processes import tde_resources
from prokos.tde.deployment import build_worker_deployment
from unit.builders import executor

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from prokos.engine import EngineClient
    from prokos.resources import TaskExecutor

END = 120.0
"""Seconds within which a process ends on a busy machine."""


class Workers:
    """Starts worker processes, as a pod does."""

    def __init__(self, one: TaskExecutor, address: str, directory: Path) -> None:
        deployment = build_worker_deployment(one, Connection(address).to_environment(), None)
        self._document = directory / "executor.json"
        self._document.write_text(deployment.document)
        self._environment = {**deployment.environment, "PROKOS_EXECUTOR_FILE": str(self._document)}
        self._environment |= {"PROKOS_WORKDIR": str(directory), "PROKOS_SINGLE_USE": "1", "PATH": os.environ["PATH"]}
        self._started: list[asyncio.subprocess.Process] = []

    async def start(self) -> asyncio.subprocess.Process:
        started = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "prokos.tde", env=self._environment, stderr=asyncio.subprocess.PIPE
        )
        self._started.append(started)
        return started

    async def ended(self, worker: asyncio.subprocess.Process) -> tuple[int | None, str]:
        """Exit code and log."""
        _, log = await asyncio.wait_for(worker.communicate(), END)
        return worker.returncode, log.decode()

    async def stop(self) -> None:
        for worker in self._started:
            if worker.returncode is None:
                worker.kill()
                await worker.wait()


@asynccontextmanager
async def deployed(engine: EngineClient, name: str, directory: Path, **spec: Any) -> AsyncIterator[Workers]:
    """An executor on the engine that has no workers yet."""
    source = "def main(input):\n    print('a task runs')\n    return {'n': input['n']}\n"
    settings = {"concurrency": 1, "scaling": {"podPerTask": True}, **spec}
    one = executor(name, **{"script": {"language": "python", "source": source}, **settings})
    await engine.deploy(tde_resources(one))
    workers = Workers(one, engine.connection.address, directory)
    try:
        yield workers
    finally:
        await workers.stop()


def running(engine: EngineClient, name: str, n: int) -> asyncio.Task[Any]:
    return asyncio.create_task(engine.run_instance(f"tde-{name}", {"n": n}, timeout=END))


@pytest.mark.parametrize("outputs", [[], [{"source": "=n * 10", "target": "sum"}]], ids=["plain", "outputs"])
async def test_each_worker_takes_one_task_sees_it_to_its_end_and_ends(
    engine: EngineClient, tmp_path: Path, outputs: list[Any]
) -> None:
    name = f"lone-{len(outputs)}"
    async with deployed(engine, name, tmp_path, outputs=outputs) as workers:
        tasks = [running(engine, name, n) for n in range(3)]
        pair = [await workers.start() for _ in range(2)]
        ended = [await workers.ended(worker) for worker in pair]
        await _all_but_one(tasks)
        ended.append(await workers.ended(await workers.start()))
        found = [(await task).variables for task in tasks]
    assert [(code, log.count('"a task runs"'), log.count('"task ended"')) for code, log in ended] == [(0, 1, 1)] * 3
    assert [one["n"] for one in found] == [0, 1, 2]
    if outputs:
        assert [one["sum"] for one in found] == [0, 10, 20]


async def _all_but_one(tasks: list[asyncio.Task[Any]]) -> None:
    """Wait until one task goes on; that it does is shown by the workers' logs, and by the one that ends it."""
    async with asyncio.timeout(END):
        while len(going := [task for task in tasks if not task.done()]) > 1:
            await asyncio.wait(going, return_when=asyncio.FIRST_COMPLETED)
    assert going, "two workers ended three tasks"


async def test_a_worker_that_waits_takes_the_task_that_comes_at_once(engine: EngineClient, tmp_path: Path) -> None:
    async with deployed(engine, "lone-waits", tmp_path) as workers:
        worker = await workers.start()
        assert worker.stderr is not None
        while b"worker started" not in (line := await asyncio.wait_for(worker.stderr.readline(), END)):
            assert line, "it ended"
        task = running(engine, "lone-waits", 7)
        assert (await task).variables["n"] == 7
        assert (await workers.ended(worker))[0] == 0


async def test_a_worker_that_is_told_to_end_while_it_waits_takes_nothing(engine: EngineClient, tmp_path: Path) -> None:
    async with deployed(engine, "lone-ends", tmp_path) as workers:
        worker = await workers.start()
        assert worker.stderr is not None
        while b"worker started" not in await asyncio.wait_for(worker.stderr.readline(), END):
            pass
        worker.terminate()
        assert (await workers.ended(worker))[0] == 0
        task = running(engine, "lone-ends", 1)
        # A poll that the engine still held for it took nothing.
        assert (await workers.ended(await workers.start()))[0] == 0
        assert (await task).variables["n"] == 1
