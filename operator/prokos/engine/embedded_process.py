"""One run of the broker: a java process, from its start until it is gone."""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import signal
import socket
import time
from typing import TYPE_CHECKING, Self

from prokos.engine.client import EngineClient
from prokos.engine.connection import Connection
from prokos.engine.distribution import EngineSetupError
from prokos.engine.embedded_partitions import ManagementError, read_partitions
from prokos.engine.embedded_settings import EnginePorts, last_meaningful_lines
from prokos.engine.errors import EngineError
from prokos.engine.retry import RetryPolicy
from prokos.engine.tether import tethered

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

PORTS = range(20_000, 32_000)
"""Below the ports that Linux gives to outgoing connections (32768 on), one of which might otherwise sit on the port
of a broker that is about to be restarted."""

LOG_LIMIT = 10 * 1024 * 1024
"""Bytes from which on a log file is put aside at a start; the one put aside before is overwritten."""

OUTPUT_LIMIT = 256 * 1024
"""Bytes at the end of a log that are read to learn why an engine does not start."""

START_FAILED = "Startup failed in the following steps"
"""What the broker says when it has given up; its process stays nevertheless."""

POLL = 0.1
"""Seconds between two looks at whether the engine is ready."""


class BrokerProcess:
    """A running broker."""

    def __init__(self, process: asyncio.subprocess.Process, log_file: Path, log_start: int) -> None:
        self._process = process
        self._log_file = log_file
        self._log_start = log_start

    @classmethod
    async def spawn(
        cls,
        command: Sequence[str],
        environment: Mapping[str, str],
        directory: Path,
        log_file: Path,
        *,
        keep_open: Sequence[int] = (),
        idle: bool = False,
    ) -> Self:
        """Start it.

        Args:
            command: The command line.
            environment: All of its environment.
            directory: Its working directory.
            log_file: Its standard output and error are appended there.
            keep_open: File descriptors it inherits. A lock among them lasts until this process is gone, too.
            idle: Run it only when nothing else wants the processor.
        """
        log_file.parent.mkdir(parents=True, exist_ok=True)
        rotate(log_file)
        with log_file.open("ab") as output:
            start = output.tell()
            process = await asyncio.create_subprocess_exec(
                *tethered(command, idle=idle),
                env=dict(environment),
                cwd=directory,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                pass_fds=tuple(keep_open),
                # A session of its own keeps the terminal's Ctrl-C from it: it is stopped when its turn comes.
                start_new_session=True,
            )
        return cls(process, log_file, start)

    @property
    def pid(self) -> int:
        """Process id of java itself, which is also that of its group and session."""
        return self._process.pid

    @property
    def running(self) -> bool:
        """Whether it has not ended yet."""
        return self._process.returncode is None

    async def wait(self) -> int:
        """Wait until it has ended; its exit code, negative for a signal."""
        return await self._process.wait()

    async def wait_ready(self, host: str, ports: EnginePorts, timeout: float) -> None:
        """Wait until every partition has a healthy leader that works, which is when commands succeed.

        A leader calls itself healthy when it begins to replay its log, and works when that is done. The web servers
        start last: before they do, the broker may die again because one has no port.

        Raises:
            EngineSetupError: The process ended before, or it took longer than `timeout` seconds.
        """
        deadline = time.monotonic() + timeout
        client = EngineClient(Connection(f"{host}:{ports.gateway}"), RetryPolicy(patience=0))
        try:
            while self.running:
                with contextlib.suppress(EngineError, ManagementError):
                    if (await client.topology()).healthy and not any(
                        partition.replays for partition in await read_partitions(f"http://{host}:{ports.management}")
                    ):
                        return
                if time.monotonic() > deadline:
                    raise self._failed(f"is not ready after {timeout:.0f} s")
                if START_FAILED in self._output():
                    raise self._failed("cannot start")
                await asyncio.sleep(POLL)
        finally:
            await client.close()
        raise self._failed(f"ended with {describe_exit(await self.wait())} before it was ready")

    def _failed(self, what: str) -> EngineSetupError:
        lines = last_meaningful_lines(self._output())
        return EngineSetupError("\n  ".join([f"the engine {what}; see {self._log_file}", *lines]))

    def _output(self) -> str:
        """What it has printed, or the end of that."""
        with self._log_file.open("rb") as file:
            file.seek(max(self._log_start, self._log_file.stat().st_size - OUTPUT_LIMIT))
            return file.read().decode(errors="replace")

    async def terminate(self, grace: float) -> None:
        """Ask it to end, and kill it and what it started `grace` seconds later. Returns when it is gone."""
        if grace > 0 and self.running:
            with contextlib.suppress(ProcessLookupError):
                self._process.send_signal(signal.SIGTERM)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self.wait(), grace)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)
        await self.wait()


def describe_exit(code: int) -> str:
    """An exit code in words."""
    if code >= 0:
        return f"exit code {code}"
    try:
        return f"signal {signal.Signals(-code).name}"
    except ValueError:
        return f"signal {-code}"


def rotate(log_file: Path) -> None:
    """Put a log file aside that has grown long."""
    with contextlib.suppress(FileNotFoundError):
        if log_file.stat().st_size > LOG_LIMIT:
            log_file.replace(log_file.with_name(log_file.name + ".1"))


def find_free_ports(host: str) -> EnginePorts:
    """Ports nobody listens on, chosen at random so that two engines started together hardly choose the same."""
    ports: list[int] = []
    for port in random.sample(PORTS, len(PORTS)):
        if _is_free(host, port):
            ports.append(port)
        if len(ports) == len(EnginePorts.__dataclass_fields__):
            return EnginePorts(*ports)
    raise EngineSetupError(f"no free ports from {PORTS.start} to {PORTS.stop - 1} on {host}")


def _is_free(host: str, port: int) -> bool:
    # The engine's UDP socket is bound to all interfaces, see `build_environment`.
    for address, kind in ((host, socket.SOCK_STREAM), ("", socket.SOCK_DGRAM)):
        with socket.socket(socket.AF_INET, kind) as probe:
            if kind == socket.SOCK_STREAM:
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((address, port))
            except OSError:
                return False
    return True
