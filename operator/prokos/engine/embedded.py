"""The embedded engine: a real Camunda broker as a child process, kept alive, with its state in one directory."""

from __future__ import annotations

import asyncio
import contextlib
import os
import secrets
import time
from typing import TYPE_CHECKING, Self

import structlog

from prokos.engine.distribution import EngineSetupError, no_progress, obtain_distribution
from prokos.engine.embedded_directory import (
    LOCK_FILE,
    DataInUseError,
    lack_of_disk,
    remove,
    take_lock,
    write_holder,
)
from prokos.engine.embedded_partitions import save_often
from prokos.engine.embedded_process import BrokerProcess, describe_exit, find_free_ports
from prokos.engine.embedded_settings import (
    EmbeddedSettings,
    EnginePorts,
    build_command,
    build_environment,
)
from prokos.engine.java import find_java
from prokos.engine.startup_cache import startup_cache_options

if TYPE_CHECKING:
    from collections.abc import Callable

    from prokos.engine.distribution import Progress

__all__ = ["DataInUseError", "EmbeddedEngine", "EmbeddedSettings", "EnginePorts", "EngineSetupError"]

RESTART_DELAYS = (0.0, 1.0, 2.0, 4.0, 8.0, 10.0)
"""Seconds before the first, second, ... restart in a row; the last one repeats. One that ran well is missed at once."""

DISK_LOOK = 2.0
"""Seconds between two looks at the room on the disk."""

STEADY = 60.0
"""Seconds after which the engine counts as running well, and its restarts start from the first delay again."""

log = structlog.get_logger("prokos.engine")


class EmbeddedEngine:
    """A broker as a child process.

    It is restarted on the same ports with the same data when it dies, until `stop`. When our own process dies,
    however that happens, the kernel kills the broker (Linux). The data directory belongs to one engine at a time.
    """

    def __init__(
        self,
        settings: EmbeddedSettings,
        *,
        progress: Progress = no_progress,
        on_event: Callable[[str], None] = lambda _: None,
    ) -> None:
        """Make it; nothing is started yet.

        Args:
            settings: How to run it.
            progress: Told of the distribution's download, in another thread.
            on_event: Told of every end and restart, in a line or a few.
        """
        self.settings = settings
        self._progress = progress
        self._on_event = on_event
        self._ports = settings.ports
        self._lock: int | None = None
        self._command: list[str] = []
        self._environment: dict[str, str] = {}
        self._process: BrokerProcess | None = None
        self._keepers: list[asyncio.Task[None]] = []
        self._restarts = 0
        self._closed = asyncio.Event()

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()

    @property
    def ports(self) -> EnginePorts:
        """Where it listens; known once `start` was called."""
        if self._ports is None:
            raise RuntimeError("the engine was not started")
        return self._ports

    @property
    def address(self) -> str:
        """host:port of the gRPC gateway."""
        return f"{self.settings.host}:{self.ports.gateway}"

    @property
    def rest_url(self) -> str:
        """Base of the REST API; its paths begin with `/v2`."""
        return f"http://{self.settings.host}:{self.ports.rest}"

    @property
    def management_url(self) -> str:
        """Base of health and metrics; their paths begin with `/actuator`."""
        return f"http://{self.settings.host}:{self.ports.management}"

    @property
    def pid(self) -> int | None:
        """Process id of java; None while none runs."""
        return self._process.pid if self._process is not None and self._process.running else None

    @property
    def restarts(self) -> int:
        """How often it was started again since `start`."""
        return self._restarts

    async def start(self) -> None:
        """Install the engine if need be, start it, and wait until it is ready.

        Raises:
            DataInUseError: Another engine works on the data directory.
            EngineSetupError: There is no distribution or no Java to be had, or the engine does not become ready.
                The message quotes what it said last. Nothing is left running.
        """
        if self._lock is not None:
            raise RuntimeError("the engine was started already")
        self._closed.clear()
        self._lock = await take_lock(self.settings.data)
        try:
            await self._prepare()
            await self._run()
        except BaseException:
            await self._end(grace=0)
            raise
        self._keepers = [
            asyncio.create_task(self._keep(), name="embedded engine"),
            asyncio.create_task(self._watch_disk(), name="engine disk"),
        ]
        if self.settings.keep_state:
            self._keepers.append(asyncio.create_task(save_often(self.management_url), name="engine snapshots"))

    async def stop(self, grace: float = 15.0) -> None:
        """End it. Without effect when it does not run.

        Args:
            grace: Seconds it has to end by itself before it is killed. An engine that keeps no state is killed at
                once.
        """
        for keeper in self._keepers:
            keeper.cancel()
        await asyncio.gather(*self._keepers, return_exceptions=True)
        self._keepers = []
        await self._end(grace if self.settings.keep_state else 0)

    async def wait_closed(self) -> None:
        """Wait until it was stopped. It does not end by itself."""
        await self._closed.wait()

    async def _prepare(self) -> None:
        settings = self.settings
        home = await obtain_distribution(settings.version, progress=self._progress)
        java = await asyncio.to_thread(find_java)
        if not settings.keep_state:
            await asyncio.to_thread(remove, settings.broker_directory)
        self._ports = self._ports or find_free_ports(settings.host)
        self._command = build_command(settings, java, home, startup_cache_options(home, java))
        self._environment = build_environment(settings, self.ports, f"prokos-{secrets.token_hex(16)}", os.environ)

    async def _run(self) -> None:
        """One start of the broker, until it is ready."""
        if self._lock is None:
            raise RuntimeError("the engine was stopped")
        settings = self.settings
        started = time.monotonic()
        if lack := lack_of_disk(settings.data):
            raise EngineSetupError(lack)
        # What a killed JVM has left there.
        await asyncio.to_thread(remove, settings.temporary_directory)
        for directory in (settings.broker_directory, settings.temporary_directory):
            directory.mkdir(parents=True, exist_ok=True)
        self._process = await BrokerProcess.spawn(
            self._command, self._environment, settings.data, settings.log_file, keep_open=[self._lock]
        )
        write_holder(self._lock, self._process.pid)
        await self._process.wait_ready(settings.host, self.ports, settings.ready_timeout)
        log.info("the engine is ready", address=self.address, seconds=round(time.monotonic() - started, 1))

    async def _keep(self) -> None:
        """Start the broker again whenever it has died."""
        failures = 0
        ready_since = time.monotonic()
        while (process := self._process) is not None:
            code = await process.wait()
            if ready_since and time.monotonic() - ready_since > STEADY:
                failures = 0
            delay = RESTART_DELAYS[min(failures, len(RESTART_DELAYS) - 1)]
            failures += 1
            self._restarts += 1
            when = f" in {delay:g} s" if delay else ""
            self._tell(f"the engine ended with {describe_exit(code)} and is started again{when}")
            await asyncio.sleep(delay)
            try:
                await self._run()
            except (EngineSetupError, OSError) as error:
                ready_since = 0.0
                self._tell(f"the engine does not come back: {error}")
                if self._process is not None:
                    await self._process.terminate(grace=0)
            else:
                ready_since = time.monotonic()
                self._tell("the engine is ready again")

    async def _watch_disk(self) -> None:
        """Tell when the engine pauses because the disk is full, and when it goes on."""
        full = ""
        while True:
            await asyncio.sleep(DISK_LOOK)
            lack = lack_of_disk(self.settings.data)
            if bool(lack) != bool(full):
                self._tell(lack or "the disk has room again; the engine goes on")
            full = lack

    def _tell(self, event: str) -> None:
        log.warning(event, address=self.address)
        self._on_event(event)

    async def _end(self, grace: float) -> None:
        if self._process is not None:
            await self._process.terminate(grace)
            self._process = None
        if self._lock is not None:
            settings = self.settings
            await asyncio.to_thread(remove, settings.temporary_directory)
            if not settings.keep_state:
                await asyncio.to_thread(remove, settings.broker_directory)
                (settings.data / LOCK_FILE).unlink(missing_ok=True)
                with contextlib.suppress(OSError):
                    settings.data.rmdir()
            os.close(self._lock)
            self._lock = None
        self._closed.set()
