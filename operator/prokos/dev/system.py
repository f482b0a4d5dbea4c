"""An embedded system: the engine, the kernel, and everything the kernel brings to life, in one process tree."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import socket
import time
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import structlog
from aiohttp import web

from prokos.dev.home import EmbeddedHome, Ports
from prokos.dev.state import Runtime, StateDirectory
from prokos.dev.status import build_app
from prokos.engine import Connection, EngineClient, EngineError
from prokos.engine.connection import from_resource
from prokos.engine.distribution import no_progress
from prokos.engine.embedded import EmbeddedEngine, EmbeddedSettings
from prokos.kernel import Kernel, WorkerState
from prokos.kernel.plan import plan_changes
from prokos.registry import FileRegistry
from prokos.resources.engine_settings import EmbeddedEngine as EmbeddedSpec

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
    from pathlib import Path

    from prokos.engine.distribution import Progress
    from prokos.resources.problems import Problem

HOST = "127.0.0.1"
"""Everything of an embedded system listens on loopback alone."""

READY_TIMEOUT = 60.0
"""Seconds that booting may take after the engine is ready, and those of `REGISTRATION`."""

REGISTRATION = 0.5
"""Further seconds for each executor and each process. 0.05 are usual on two processors."""

LOOK = 10.0
"""Seconds between two comparisons of what is wanted with what is registered, beside those that a change brings."""

log = structlog.get_logger("prokos.dev")


class ManifestError(Exception):
    """The manifests have errors; nothing was started."""

    def __init__(self, problems: Sequence[Problem]) -> None:
        super().__init__(f"{len(problems)} errors in the manifests")
        self.problems = problems


class AlreadyRunningError(Exception):
    """Another system runs in this state directory."""


class BootError(Exception):
    """The system did not come up; the message says where to look."""


@dataclass(slots=True)
class System:
    """A running embedded system."""

    state: StateDirectory
    home: EmbeddedHome
    client: EngineClient
    kernel: Kernel
    runtime: Runtime

    async def wait_booted(self, timeout: float = READY_TIMEOUT) -> None:
        """Wait until everything desired is registered or refused, and each worker runs or has ended once.

        Raises:
            BootError: That took too long.
        """
        desired = self.home.desired()
        timeout += REGISTRATION * (len(desired.executors) + len(desired.processes))
        try:
            async with asyncio.timeout(timeout):
                await self.kernel.steps.booted.wait()
                # A boot that an earlier kernel began registers what was desired then.
                await self.kernel.follow()
                while not (self._registered() and self._workers_tried() and await self.home.beats()):
                    await asyncio.sleep(0.1)
        except TimeoutError:
            waiting = self.lacking()
            what = f"no workers of {', '.join(waiting)}" if waiting else "the boot process has not ended"
            raise BootError(f"not ready after {timeout:g} s: {what}; see {self.state.logs}") from None

    def lacking(self) -> dict[str, WorkerState]:
        """Executors that are not refused and have fewer workers than they should."""
        refused = {name for kind, name in self.kernel.steps.refusals if kind == "TaskExecutor"}
        states = {name: self.home.worker_state(name) for name in self.home.desired().executors if name not in refused}
        return {name: state for name, state in states.items() if state.running < state.wanted}

    def _registered(self) -> bool:
        pending = plan_changes(self.home.desired(), self.kernel.store.load())
        names = {("TaskExecutor", name) for name in pending.executors}
        names |= {("ProcessDefinition", name) for name in pending.processes}
        return names <= set(self.kernel.steps.refusals)

    def _workers_tried(self) -> bool:
        return all(state.restarts for state in self.lacking().values())


@asynccontextmanager
async def running_system(
    manifests: Sequence[Path],
    state: StateDirectory,
    *,
    fresh: bool = False,
    say: Callable[[str], None],
    keep_state: bool = True,
    progress: Progress = no_progress,
) -> AsyncIterator[System]:
    """Run a system for the length of the context; when it is left, nothing of it is left running.

    Args:
        manifests: Files and directories of the desired state; they are watched.
        state: Where everything is kept.
        fresh: Throw away what was kept, except what was applied.
        say: Told what happens, a line at a time.
        keep_state: False leaves the engine nothing to start from again, and spares it waiting for the disk.
        progress: Told how downloads get on.

    Raises:
        ManifestError: The manifests have errors.
        AlreadyRunningError: A system runs in this state directory.
        EngineSetupError: The engine cannot be installed or does not start.
    """
    if other := Runtime.read(state):
        raise AlreadyRunningError(f"a system runs in {state.root} already (process {other.pid})")
    if fresh:
        for directory in (state.engine, state.registry, state.root / "work"):
            shutil.rmtree(directory, ignore_errors=True)
    state.create()
    ports = Ports(*(f"{HOST}:{port}" for port in free_ports(3)))
    home = EmbeddedHome(state, manifests, ports)
    home.reload()
    if errors := [problem for problem in home.problems if problem.severity == "error"]:
        raise ManifestError(errors)
    async with contextlib.AsyncExitStack() as stack:
        connection = await _engine(stack, home, state, keep_state, say, progress)
        client = await stack.enter_async_context(EngineClient(connection))
        home.engine_environment = connection.to_environment()
        store = FileRegistry(state.registry)
        kernel = Kernel(client, home, store)
        stack.push_async_callback(home.children.close)
        await kernel.load()
        await stack.enter_async_context(_background("kernel", kernel.run))
        await _serve_status(stack, kernel, home, client)
        await kernel.boot()
        runtime = Runtime(
            pid=os.getpid(),
            # Credentials stay in the environment of whoever has them.
            engine={
                name: value
                for name, value in home.engine_environment.items()
                if not name.endswith(("_SECRET", "_PASSWORD"))
            },
            pdo=ports.pdo,
            kernel=ports.kernel,
            manifests=[str(path) for path in manifests],
        )
        runtime.write(state)
        stack.callback(state.runtime_file.unlink, missing_ok=True)
        await stack.enter_async_context(_background("watch", lambda: _watch(kernel, home, say)))
        await stack.enter_async_context(_background("look again", lambda: _look_again(kernel)))
        yield System(state, home, client, kernel, runtime)


async def _engine(
    stack: contextlib.AsyncExitStack,
    home: EmbeddedHome,
    state: StateDirectory,
    keep_state: bool,
    say: Callable[[str], None],
    progress: Progress,
) -> Connection:
    settings = home.desired().system.engine
    if settings.external is not None:
        say(f"using the engine at {settings.external.address}")
        return from_resource(settings.external)
    embedded = settings.embedded or EmbeddedSpec()
    engine_settings = EmbeddedSettings(
        data=state.engine,
        log_file=state.logs / "engine.log",
        version=embedded.version,
        heap=embedded.heap,
        keep_state=keep_state,
    )
    engine = EmbeddedEngine(engine_settings, on_event=say, progress=progress)
    started = time.monotonic()
    stack.push_async_callback(engine.stop)
    await engine.start()
    say(f"engine {engine_settings.version} ready after {time.monotonic() - started:.1f} s at {engine.address}")
    return Connection(engine.address)


async def _serve_status(
    stack: contextlib.AsyncExitStack, kernel: Kernel, home: EmbeddedHome, client: EngineClient
) -> None:
    runner = web.AppRunner(build_app(kernel, home, client), access_log=None)
    await runner.setup()
    stack.push_async_callback(runner.cleanup)
    host, _, port = home.ports.kernel.rpartition(":")
    await web.TCPSite(runner, host, int(port)).start()


async def _watch(kernel: Kernel, home: EmbeddedHome, say: Callable[[str], None]) -> None:
    """Follow the manifests; wrong ones change nothing, and are said."""
    from watchfiles import awatch

    # An editor may replace a file, which ends the watch of the file itself but not that of its directory.
    directories = {path if path.is_dir() else path.parent for path in home.manifests if path.exists()}
    engine = home.desired().system.engine
    async for _ in awatch(*directories, watch_filter=is_manifest, step=100, recursive=True):
        errors = [problem for problem in home.reload() if problem.severity == "error"]
        for problem in errors:
            say(f"error: {problem}")
        if errors:
            say("the manifests have errors; what runs stays as it is")
            continue
        if home.desired().system.engine != engine:
            engine = home.desired().system.engine
            say("spec.engine has changed; the next start takes it")
        try:
            await kernel.follow()
        except EngineError as error:
            say(f"cannot follow the change now: {error}")


async def _look_again(kernel: Kernel) -> None:
    """Compare now and then: what changed while another change was being registered shows only afterwards."""
    await kernel.steps.booted.wait()
    while True:
        await asyncio.sleep(LOOK)
        try:
            await kernel.follow()
        except EngineError as error:
            log.warning("what is registered could not be compared", error=str(error))


def is_manifest(_: object, path: str) -> bool:
    """Whether a changed file may matter."""
    return path.endswith((".yaml", ".yml", ".bpmn"))


@asynccontextmanager
async def _background(name: str, work: Callable[[], Awaitable[None]]) -> AsyncIterator[None]:
    """Run a coroutine beside the context. If it breaks, the program's own task is ended with its error."""
    owner = asyncio.current_task()

    async def guarded() -> None:
        try:
            await work()
        except Exception:
            log.exception("a part of the system broke", part=name)
            if owner is not None:
                owner.cancel()
            raise

    task = asyncio.create_task(guarded(), name=name)
    try:
        yield
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


def free_ports(count: int) -> list[int]:
    """Ports on loopback that nobody listens on now."""
    sockets = [socket.socket() for _ in range(count)]
    try:
        for sock in sockets:
            sock.bind((HOST, 0))
        return [sock.getsockname()[1] for sock in sockets]
    finally:
        for sock in sockets:
            sock.close()
