"""Child processes as desired state: what should run is declared, the supervisor makes it so and keeps it so."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import structlog

from prokos.engine.embedded_process import describe_exit
from prokos.engine.tether import tethered

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

RESTART_DELAYS = (0.2, 1.0, 3.0, 10.0)
"""Seconds before the first, second, ... restart in a row; the last one repeats."""

STEADY = 30.0
"""Seconds after which a process counts as running well, and its restarts start from the first delay again."""

CONFIG_ERROR = 78
"""EX_CONFIG of sysexits.h: the process cannot run as it is told to; it is tried again seldom."""

log = structlog.get_logger("prokos.dev")


@dataclass(frozen=True, slots=True)
class ChildSpec:
    """Desired state of one child process."""

    name: str
    argv: tuple[str, ...]
    environment: Mapping[str, str]
    directory: Path
    log_file: Path
    revision: str
    """The process is replaced when this changes."""
    grace: float = 25.0
    """Seconds it has to end after SIGTERM."""
    exclusive: bool = False
    """One that replaces another starts when that one is gone: they share an address."""
    ready_file: Path | None = None
    """A file the process makes when it has begun its work; without it the process counts as ready at once."""


@dataclass(slots=True)
class Child:
    """One child process as it is."""

    spec: ChildSpec
    keeper: asyncio.Task[None]
    pid: int | None = None
    restarts: int = 0
    message: str = ""
    stopping: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def running(self) -> bool:
        """Whether there is a process, and it has begun its work."""
        return self.pid is not None and (self.spec.ready_file is None or self.spec.ready_file.exists())


class Children:
    """The child processes of one home."""

    def __init__(self) -> None:
        self._children: dict[str, Child] = {}
        self._leaving: set[asyncio.Task[None]] = set()

    def get(self, name: str) -> Child | None:
        """One child."""
        return self._children.get(name)

    def names(self) -> list[str]:
        """All children."""
        return sorted(self._children)

    def ensure(self, spec: ChildSpec) -> None:
        """Make a process run as `spec` says; one of another revision is replaced, and ends what it does."""
        current = self._children.get(spec.name)
        if current is not None:
            if current.spec.revision == spec.revision:
                return
            self._leave(current)
        before = current.keeper if current is not None and spec.exclusive else None
        child = Child(spec, keeper=None)  # type: ignore[arg-type]  # set in the next line
        child.keeper = asyncio.create_task(_keep(child, before), name=f"child {spec.name}")
        self._children[spec.name] = child

    def remove(self, name: str) -> None:
        """Let a process end what it does, and be gone."""
        if child := self._children.pop(name, None):
            self._leave(child)

    def _leave(self, child: Child) -> None:
        child.stopping.set()
        self._leaving.add(child.keeper)
        child.keeper.add_done_callback(self._leaving.discard)

    async def close(self) -> None:
        """End all processes and wait until they are gone."""
        for name in self.names():
            self.remove(name)
        if self._leaving:
            await asyncio.gather(*self._leaving, return_exceptions=True)


async def _keep(child: Child, before: asyncio.Task[None] | None) -> None:
    """Run a child's process again and again until it shall stop; the first time when the one before it is gone."""
    if before is not None:
        await asyncio.wait([before])
    failures = 0
    while not child.stopping.is_set():
        started = time.monotonic()
        code: int | None
        try:
            code = await _run(child)
            ending = f"ended with {describe_exit(code)}; see {child.spec.log_file}"
        except OSError as error:
            # The disk is full, the working directory gone: as little a reason to give up as a crash.
            code, ending = None, f"cannot be started: {error}"
        if child.stopping.is_set():
            return
        failures = 0 if time.monotonic() - started > STEADY else failures + 1
        delay = RESTART_DELAYS[min(failures, len(RESTART_DELAYS)) - 1] if failures else RESTART_DELAYS[0]
        if code == CONFIG_ERROR:
            delay = RESTART_DELAYS[-1]
        child.restarts += 1
        child.message = ending
        log.warning("child process is started again", child=child.spec.name, reason=ending, delay=delay)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(delay):
                await child.stopping.wait()


async def _run(child: Child) -> int:
    spec = child.spec
    spec.log_file.parent.mkdir(parents=True, exist_ok=True)
    if spec.ready_file is not None:
        spec.ready_file.unlink(missing_ok=True)
    with spec.log_file.open("ab") as output:
        process = await asyncio.create_subprocess_exec(
            *tethered(spec.argv),
            env=dict(spec.environment),
            cwd=spec.directory,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            # A session of its own keeps the terminal's Ctrl-C from it: it is asked to stop when its turn comes.
            start_new_session=True,
        )
    child.pid = process.pid
    stopping = asyncio.create_task(child.stopping.wait())
    waiting = asyncio.create_task(process.wait())
    try:
        await asyncio.wait([stopping, waiting], return_when=asyncio.FIRST_COMPLETED)
        if not waiting.done():
            await _terminate(process, waiting, spec.grace)
        return await waiting
    finally:
        stopping.cancel()
        child.pid = None
        # Whatever the process left behind in its session goes with it.
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)


async def _terminate(process: asyncio.subprocess.Process, waiting: asyncio.Task[int], grace: float) -> None:
    with contextlib.suppress(ProcessLookupError):
        process.terminate()
    _, pending = await asyncio.wait([waiting], timeout=grace)
    if pending:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
