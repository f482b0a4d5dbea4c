"""Telling the PDO that tasks have ended, or are still executed, so that it need not ask the engine.

The hints are JSON lines over TCP. They only save time, and make the task list and the backlog complete: one that is
lost costs nothing but the PDO asking the engine later. Nothing is decided by them. A PDO may have several replicas
behind one name; each gets every hint, since the worker does not know whose task it was.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
from typing import Any

RECONNECT = 2.0
"""Seconds between attempts to reach a replica."""

RESOLVE = 10.0
"""Seconds between looks at which replicas there are."""

GATHER = 0.01
"""Seconds after hints were sent before the next ones are: under load they go together, and wake the PDO less often."""

BACKLOG = 1_000
"""Hints kept for a replica that cannot be reached; older ones are dropped."""


class HintSender:
    """The worker's side.

    Args:
        address: Host and port of the PDO; a name may have several addresses.
    """

    def __init__(self, address: str) -> None:
        self._host, _, port = address.rpartition(":")
        self._port = int(port)
        self._lines: dict[str, _Line] = {}
        self._unsent: asyncio.Queue[bytes] = asyncio.Queue(maxsize=BACKLOG)
        """Hints that came before any replica was found."""

    def send(self, hint: dict[str, Any]) -> None:
        """Queue a hint; never waits and never fails."""
        text = json.dumps(hint, separators=(",", ":")).encode() + b"\n"
        for queue in [line.queue for line in self._lines.values()] or [self._unsent]:
            _put(queue, text)

    async def flush(self, timeout: float) -> None:
        """Wait until everything is sent, or the time is over."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout):
                await self._unsent.join()
                await asyncio.gather(*(line.queue.join() for line in self._lines.values()))

    async def run(self) -> None:
        """Send hints until cancelled."""
        try:
            while True:
                await self._find_replicas()
                await asyncio.sleep(RESOLVE if self._lines else RECONNECT)
        finally:
            for line in self._lines.values():
                line.task.cancel()

    async def _find_replicas(self) -> None:
        try:
            found = await asyncio.get_running_loop().getaddrinfo(self._host, self._port, type=socket.SOCK_STREAM)
        except OSError:
            return
        addresses = {str(sockaddr[0]) for *_, sockaddr in found}
        for gone in self._lines.keys() - addresses:
            self._lines.pop(gone).task.cancel()
        for new in addresses - self._lines.keys():
            self._lines[new] = _Line(new, self._port)
        while not self._unsent.empty():
            text = self._unsent.get_nowait()
            for line in self._lines.values():
                _put(line.queue, text)
            self._unsent.task_done()


class _Line:
    """The connection to one replica."""

    def __init__(self, host: str, port: int) -> None:
        self.queue: asyncio.Queue[bytes] = asyncio.Queue(maxsize=BACKLOG)
        self.task = asyncio.create_task(self._send(host, port))

    async def _send(self, host: str, port: int) -> None:
        while True:
            with contextlib.suppress(OSError):
                _, writer = await asyncio.open_connection(host, port)
                try:
                    while True:
                        await self._send_queued(writer)
                        await asyncio.sleep(GATHER)
                finally:
                    writer.close()
            await asyncio.sleep(RECONNECT)

    async def _send_queued(self, writer: asyncio.StreamWriter) -> None:
        texts = [await self.queue.get()]
        while not self.queue.empty():
            texts.append(self.queue.get_nowait())
        writer.writelines(texts)
        await writer.drain()
        for _ in texts:
            self.queue.task_done()


def _put(queue: asyncio.Queue[bytes], text: bytes) -> None:
    """Queue a hint, in place of the oldest if there is no room."""
    if queue.full():
        queue.get_nowait()
        queue.task_done()
    queue.put_nowait(text)
