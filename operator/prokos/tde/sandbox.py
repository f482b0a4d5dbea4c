"""Running programs beside the worker so that nothing of them outlives their task, or the worker.

The processes are started and watched by `script_harness`, a small server of this worker's own. This module asks it
over a Unix socket and follows the program's output.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Self

from prokos.tde.cancellation import finish
from prokos.tde.sandbox_output import Budget, Output

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

GRACE = 2.0
"""Seconds a program has to end after SIGTERM, before SIGKILL."""
LAST_WORDS = 10.0
"""Seconds to wait for a guardian that was told to stop; it needs `GRACE` and its own limit for SIGKILL."""
DRAIN = 1.0
"""Seconds to wait for the end of the output once the program and all it started are gone."""
STARTS = 3
"""Times the server is started for one program before giving up."""

HARNESS = Path(__file__).with_name("script_harness.py")


@dataclass(frozen=True, slots=True)
class Program:
    """What to run: a command, or a Python script."""

    argv: Sequence[str]
    """Program and arguments; empty for a Python script."""
    python: Path | None
    env: Mapping[str, str]
    """The whole environment; nothing of the worker's is added."""
    cwd: Path
    scratch: Path
    """Directory that is removed if the worker dies."""
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


class SandboxError(Exception):
    """The program could not be started or followed; it may work the next time."""


class Sandbox:
    """Starts programs for one worker."""

    def __init__(self, grace: float = GRACE) -> None:
        self.grace = grace
        self._server: socket.socket | None = None
        self._process: asyncio.subprocess.Process | None = None
        self._starting = asyncio.Lock()

    async def start(self) -> None:
        """Start the server; without this the first program does it."""
        async with self._starting:
            if self._server is not None:
                return
            here, there = socket.socketpair()
            here.setblocking(False)
            try:
                self._process = await asyncio.create_subprocess_exec(
                    *(sys.executable, "-I", "-B", "-X", "utf8", str(HARNESS), str(there.fileno())),
                    stdin=asyncio.subprocess.DEVNULL,
                    stdout=asyncio.subprocess.DEVNULL,
                    env={"PATH": os.defpath, "LANG": "C.UTF-8"},
                    pass_fds=[there.fileno()],
                    start_new_session=True,  # a Ctrl-C in the terminal is for the worker
                )
            except BaseException:
                here.close()
                raise
            finally:
                there.close()
            self._server = here

    async def close(self) -> None:
        """End the server. Programs that run do so under their guardians, until their tasks end."""
        server, process, self._server, self._process = self._server, self._process, None, None
        if server is not None and process is not None:
            server.close()
            await process.wait()

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def run(self, program: Program, log: Callable[[str, str], None], log_limit: int) -> Ended:
        """Run a program to its end.

        When this coroutine is cancelled, the program and everything it started are ended first: SIGTERM, then
        SIGKILL after the grace.

        Args:
            program: What to run.
            log: Called with the stream's name and each line of output.
            log_limit: Bytes of output that are given to `log`, `LINE_COST` per line included; the rest is only counted.

        Raises:
            SandboxError: It could not be started or followed.
        """
        budget = Budget(log_limit)
        control = await self._guardian()
        try:
            async with Output("stdout", log, budget) as out, Output("stderr", log, budget) as err:
                try:
                    with program.stdin.open("rb") as stdin:
                        socket.send_fds(control, [b"3"], [stdin.fileno(), out.writer, err.writer])
                    out.started()
                    err.started()
                    await asyncio.get_running_loop().sock_sendall(control, self._request(program))
                    status = await _receive(control)
                except asyncio.CancelledError:
                    await finish(self._stop(control))
                    raise
                await asyncio.wait([out.ended, err.ended], timeout=DRAIN)
        except OSError as error:
            raise SandboxError(f"cannot run a program: {error}") from error
        finally:
            control.close()
        budget.report(log)
        return _ended(status, err.tail() or out.tail())

    async def _guardian(self) -> socket.socket:
        """Have a guardian started, and return the control socket that leads to it."""
        for _ in range(STARTS):
            await self.start()
            server = self._server
            control, theirs = socket.socketpair()
            control.setblocking(False)
            try:
                with theirs:
                    await _submit(server, theirs)
                answer = await asyncio.get_running_loop().sock_recv(control, 1)
                refusal = "" if answer in (b"+", b"") else await _receive(control)
            except OSError:  # the server died before the program could start
                answer, refusal = b"", ""
            except BaseException:
                control.close()
                raise
            if answer == b"+":
                return control
            control.close()
            if refusal:
                raise SandboxError(refusal.removeprefix("error "))
            if self._server is server:
                await self.close()
        raise SandboxError("the server that starts programs keeps dying")

    def _request(self, program: Program) -> bytes:
        request = {
            "argv": list(program.argv),
            "python": str(program.python) if program.python else None,
            "env": dict(program.env),
            "cwd": str(program.cwd),
            "scratch": str(program.scratch),
            "grace": self.grace,
        }
        text = json.dumps(request).encode()
        return len(text).to_bytes(4, "big") + text

    async def _stop(self, control: socket.socket) -> None:
        try:
            control.shutdown(socket.SHUT_WR)
            async with asyncio.timeout(LAST_WORDS):
                await _receive(control)
        except (OSError, TimeoutError):
            return  # the guardian is gone, or waits for uninterruptible I/O; nothing more can be done


async def _submit(server: socket.socket | None, guardian: socket.socket) -> None:
    while server is not None:
        try:
            socket.send_fds(server, [b"1"], [guardian.fileno()])
        except BlockingIOError:  # more programs are waiting to be started than a socket holds
            await asyncio.sleep(0.01)
        else:
            return


async def _receive(control: socket.socket) -> str:
    received = b""
    while more := await asyncio.get_running_loop().sock_recv(control, 256):
        received += more
    return received.decode()


def _ended(status: str, tail: str) -> Ended:
    kind, _, value = status.strip().partition(" ")
    if kind == "error":
        raise SandboxError(value)
    if kind != "exit" or value == "None":
        return Ended(None, "was ended together with the process that watches it", tail)
    code = os.waitstatus_to_exitcode(int(value))
    if code >= 0:
        return Ended(code, f"exited with code {code}", tail)
    hint = ", perhaps because memory ran out" if -code == signal.SIGKILL else ""
    return Ended(None, f"was ended by {signal.Signals(-code).name}{hint}", tail)
