"""Telling the PDO that tasks have ended, so that it need not ask the engine.

The hints are JSON lines over one TCP connection. They only save time and make the task list complete: one that is
lost costs nothing but the PDO asking the engine later. Nothing is decided by them.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from typing import Any

RECONNECT = 2.0
"""Seconds between attempts to reach the PDO."""

BACKLOG = 1_000
"""Hints kept while the PDO cannot be reached; older ones are dropped."""


class HintSender:
    """The worker's side."""

    def __init__(self, address: str) -> None:
        self._host, _, port = address.rpartition(":")
        self._port = int(port)
        self._queue: asyncio.Queue[bytes] = asyncio.Queue(maxsize=BACKLOG)

    def send(self, hint: dict[str, Any]) -> None:
        """Queue a hint; never waits and never fails."""
        if self._queue.full():
            self._queue.get_nowait()
            self._queue.task_done()
        self._queue.put_nowait(json.dumps(hint, separators=(",", ":")).encode() + b"\n")

    async def flush(self, timeout: float) -> None:
        """Wait until everything is sent, or the time is over."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout):
                await self._queue.join()

    async def run(self) -> None:
        """Send hints until cancelled."""
        while True:
            with contextlib.suppress(OSError):
                _, writer = await asyncio.open_connection(self._host, self._port)
                try:
                    while True:
                        writer.write(await self._queue.get())
                        await writer.drain()
                        self._queue.task_done()
                finally:
                    writer.close()
            await asyncio.sleep(RECONNECT)
