"""How a process of its own works: until it is asked to stop, or until a part of it breaks."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Coroutine
    from typing import Any


def stop_signals() -> asyncio.Event:
    """An event that SIGTERM and SIGINT set, in place of what they do otherwise."""
    stop = asyncio.Event()
    for name in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(name, stop.set)
    return stop


async def run_until(stop: asyncio.Event, *sides: Coroutine[Any, Any, None]) -> None:
    """Run coroutines beside each other until `stop` is set or one of them ends; then all are cancelled.

    Raises:
        Exception: What one of them raised, the first in their order.
    """
    tasks = [asyncio.create_task(side) for side in sides]
    stopping = asyncio.create_task(stop.wait())
    await asyncio.wait([*tasks, stopping], return_when=asyncio.FIRST_COMPLETED)
    for task in (*tasks, stopping):
        task.cancel()
    for result in await asyncio.gather(*tasks, stopping, return_exceptions=True):
        if isinstance(result, Exception):
            raise result


def worker_identity(part: str) -> str:
    """The name by which the engine knows a process of ours; unique, also where each has the process id 1."""
    return f"{part}-{socket.gethostname()}-{os.getpid()}"
