"""The server of one worker that starts its programs, as the worker sees it.

It is a child process, `script.server`, and is asked over a Unix socket. One that dies or gets stuck is replaced.
"""

from __future__ import annotations

import asyncio
import json
import os
import socket
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from prokos.tde.cancellation import finish

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

STARTS = 3
"""Times the server is started for one program before giving up."""
READY = 60.0
"""Seconds the server has to get ready; importing what is to be preloaded takes most of it."""
CLOSING = 2.0
"""Seconds the server has to end by itself."""
ANSWER = 10.0
"""Seconds until a guardian answers, on a machine that is busy; later the server counts as stuck."""

HARNESS = Path(__file__).with_name("script") / "harness.py"


@dataclass(frozen=True, slots=True)
class Setup:
    """What holds for all programs of a sandbox."""

    limits: Mapping[str, float | None]
    """The fields of `script.limits.Limits`: bytes, seconds and numbers."""
    python: str | None = None
    """Text of the Python script that will be run, so that it is compiled once."""
    name: str = "script.py"
    """Name of the Python script in tracebacks."""
    preload: Sequence[str] = ()
    """Python modules that are imported once."""


class SandboxError(Exception):
    """The program could not be started or followed; it may work the next time."""


class PreloadError(Exception):
    """A module that was to be imported once cannot be; the text says why."""


class SandboxServer:
    """The server process, while there is one."""

    def __init__(self, setup: Setup) -> None:
        self.setup = setup
        self._server: socket.socket | None = None
        self._process: asyncio.subprocess.Process | None = None
        self._starting = asyncio.Lock()

    async def start(self) -> None:
        """Start the server; without this the first program does it.

        Raises:
            PreloadError: A module cannot be imported.
            SandboxError: The server does not start.
        """
        async with self._starting:
            if self._server is not None:
                return
            here, there = socket.socketpair()
            here.setblocking(False)
            try:
                with there:
                    self._process = await asyncio.create_subprocess_exec(
                        *(sys.executable, "-I", "-B", "-X", "utf8", str(HARNESS), str(there.fileno())),
                        stdin=asyncio.subprocess.DEVNULL,
                        stdout=asyncio.subprocess.DEVNULL,
                        env={"PATH": os.defpath, "LANG": "C.UTF-8"},
                        pass_fds=[there.fileno()],
                        start_new_session=True,  # a Ctrl-C in the terminal is for the worker
                    )
                async with asyncio.timeout(READY):
                    await asyncio.get_running_loop().sock_sendall(here, framed(asdict(self.setup)))
                    answer = await _line(here)
            except OSError as error:  # a time-out is one too
                here.close()
                await self.close()
                raise SandboxError(f"the server that starts programs does not start: {error!r}") from error
            except BaseException:
                here.close()
                await finish(self.close())
                raise
            self._server = here
            if answer.startswith("error "):
                await self.close()
                raise PreloadError(answer.removeprefix("error "))

    async def close(self) -> None:
        """End the server. Programs that run go on under their guardians, until their tasks end."""
        server, process, self._server, self._process = self._server, self._process, None, None
        if server is not None:
            server.close()
        if process is not None:
            try:
                async with asyncio.timeout(CLOSING if server else 0):
                    await process.wait()
            except TimeoutError:  # a script can stop the server: it has the same user
                process.kill()
                await process.wait()

    async def guardian(self) -> tuple[socket.socket, int]:
        """Have a guardian started for one program; the control socket that leads to it, and its process.

        Raises:
            PreloadError, SandboxError: It cannot be.
        """
        for _ in range(STARTS):
            await self.start()
            server = self._server
            control, theirs = socket.socketpair()
            control.setblocking(False)
            try:
                with theirs:
                    await _submit(server, theirs)
                async with asyncio.timeout(ANSWER):
                    answer = await _line(control)
            except OSError:  # the server died before the program could start, or is stuck: a time-out is one too
                answer = ""
            except BaseException:
                control.close()
                raise
            kind, _, value = answer.partition(" ")
            if kind == "guardian":
                return control, int(value)
            control.close()
            if kind == "error":
                raise SandboxError(value)
            if self._server is server:
                await self.close()
        raise SandboxError("the server that starts programs keeps dying")


def framed(content: dict[str, Any]) -> bytes:
    """A message as JSON, after its length."""
    text = json.dumps(content).encode()
    return len(text).to_bytes(4, "big") + text


async def _submit(server: socket.socket | None, guardian: socket.socket) -> None:
    while server is not None:
        try:
            socket.send_fds(server, [b"1"], [guardian.fileno()])
        except BlockingIOError:  # more programs are waiting to be started than a socket holds
            await asyncio.sleep(0.01)
        else:
            return


async def _line(control: socket.socket) -> str:
    """A line, without reading beyond it; what there is of it if the other side closes."""
    received = b""
    while (more := await asyncio.get_running_loop().sock_recv(control, 256)) and not more.endswith(b"\n"):
        received += more
    return (received + more).decode(errors="replace").rstrip("\n")
