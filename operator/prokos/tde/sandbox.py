"""Running programs beside the worker so that nothing of them outlives their task, or the worker.

Each is started by a guardian of its own, which the worker's server forks. This module tells the guardian what to run
and when to stop, and follows the program's output.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
from dataclasses import dataclass
from typing import TYPE_CHECKING

from prokos.tde.cancellation import finish
from prokos.tde.sandbox_output import Budget, Output
from prokos.tde.sandbox_server import SandboxError, SandboxServer, framed

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from prokos.tde.redaction import Redactor
    from prokos.tde.sandbox_server import Setup

GRACE = 2.0
"""Seconds a program has to end after SIGTERM, before SIGKILL."""
LAST_WORDS = 10.0
"""Seconds to wait for a guardian that was told to stop; it needs `GRACE` and its own limit for SIGKILL."""
DRAIN = 1.0
"""Seconds to wait for the end of the output once the program and all it started are gone."""
LIMIT_SIGNALS = {int(signal.SIGXCPU): "cpu", int(signal.SIGXFSZ): "file_size"}
"""By which the kernel ends a process that exceeds a limit of its own."""


@dataclass(frozen=True, slots=True)
class Program:
    """What to run: a command, or a Python script."""

    argv: Sequence[str]
    """Program and arguments; empty for a Python script."""
    python: Path | None
    arguments: Sequence[str]
    """Arguments of a Python script."""
    env: Mapping[str, str]
    """The whole environment; nothing of the worker's is added."""
    cwd: Path
    directories: Sequence[Path]
    """Directories that are measured, and removed if the worker dies."""
    stdin: Path


@dataclass(frozen=True, slots=True)
class Ended:
    """How a program ended."""

    code: int | None
    """Exit code; None when a signal or a lost guardian ended it."""
    reason: str
    """The end in words, for example `exited with code 1`."""
    tail: str
    """The last lines of standard error, or of standard output where that is empty."""
    limit: str | None = None
    """The limit because of which it was ended, a field of `script.limits.Limits`."""


class Sandbox:
    """Starts programs for one worker."""

    def __init__(self, setup: Setup, redactor: Redactor, grace: float = GRACE) -> None:
        self.server = SandboxServer(setup)
        self.redactor = redactor
        self.grace = grace

    async def run(self, program: Program, log: Callable[[str, str], None], log_limit: int) -> Ended:
        """Run a program to its end.

        When this coroutine is cancelled, the program and everything it started are ended first: SIGTERM, then
        SIGKILL after the grace.

        Args:
            program: What to run.
            log: Called with the stream's name and each line of output.
            log_limit: Bytes of output that are given to `log`, `LINE_COST` per line included; the rest is only counted.

        Raises:
            PreloadError: What is to be preloaded cannot be any more.
            SandboxError: It could not be started or followed.
        """
        budget = Budget(log_limit)
        control, guardian = await self.server.guardian()
        try:
            async with (
                Output("stdout", log, budget, self.redactor) as out,
                Output("stderr", log, budget, self.redactor) as err,
            ):
                try:
                    with program.stdin.open("rb") as stdin:
                        socket.send_fds(control, [b"3"], [stdin.fileno(), out.writer, err.writer])
                    out.started()
                    err.started()
                    await asyncio.get_running_loop().sock_sendall(control, self._request(program))
                    status = await _receive(control)
                except asyncio.CancelledError:
                    await finish(_stop(control, guardian))
                    raise
                await asyncio.wait([out.ended, err.ended], timeout=DRAIN)
        except OSError as error:
            raise SandboxError(f"cannot run a program: {error}") from error
        finally:
            control.close()
        budget.report(log)
        return _ended(status, err.tail() or out.tail())

    def _request(self, program: Program) -> bytes:
        return framed(
            {
                "argv": list(program.argv),
                "python": str(program.python) if program.python else None,
                "name": self.server.setup.name,
                "arguments": list(program.arguments),
                "env": dict(program.env),
                "cwd": str(program.cwd),
                "directories": list(map(str, program.directories)),
                "grace": self.grace,
            }
        )


async def _stop(control: socket.socket, guardian: int) -> None:
    """Have a guardian end its program, and wait until it has."""
    try:
        control.shutdown(socket.SHUT_WR)
        async with asyncio.timeout(LAST_WORDS):
            await _receive(control)
    except TimeoutError:
        # Its script can have stopped it. The server ends what it leaves; uninterruptible I/O nobody can end.
        with contextlib.suppress(ProcessLookupError):
            os.kill(guardian, signal.SIGKILL)
    except OSError:
        return  # the guardian is gone


async def _receive(control: socket.socket) -> str:
    """Everything up to the end."""
    received = b""
    while more := await asyncio.get_running_loop().sock_recv(control, 256):
        received += more
    return received.decode()


def _ended(status: str, tail: str) -> Ended:
    kind, _, value = status.strip().partition(" ")
    if kind == "error":
        raise SandboxError(value)
    if kind not in ("exit", "limit") or value == "None":
        return Ended(None, "was ended together with the process that watches it", tail)
    if kind == "limit":
        return Ended(None, "was ended", tail, value)
    code = os.waitstatus_to_exitcode(int(value))
    if code >= 0:
        return Ended(code, f"exited with code {code}", tail)
    hint = ", perhaps because memory ran out" if -code == signal.SIGKILL else ""
    return Ended(None, f"was ended by {signal.Signals(-code).name}{hint}", tail, LIMIT_SIGNALS.get(-code))
