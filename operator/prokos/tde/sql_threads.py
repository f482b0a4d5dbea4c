"""Database work in threads, where a cancellation ends the statement on the server as well."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
from concurrent.futures import Future, ThreadPoolExecutor, wait
from threading import Lock
from time import monotonic
from typing import TYPE_CHECKING, Any, TypeVar

from prokos.tde.cancellation import finish

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from sqlalchemy import Connection

T = TypeVar("T")

REPEAT_SECONDS = 0.2
"""Time between two requests to cancel: one that arrives between two statements has no effect."""
CANCEL_SECONDS = 5.0
"""How long PostgreSQL may take to cancel before its connection is cut."""


class Cancellation:
    """Ends the statement that a thread is waiting for, from another thread."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._driver: Any = None
        self._requested = False

    @contextlib.contextmanager
    def reaching(self, connection: Connection) -> Iterator[None]:
        """Let a cancellation end what `connection` does during the block; it is closed afterwards then.

        Raises:
            InterruptedError: The cancellation came before.
        """
        with self._lock:
            if self._requested:
                raise InterruptedError("cancelled")
            self._driver = connection.connection.driver_connection
        try:
            yield
        finally:
            with self._lock:
                self._driver = None
                if self._requested:  # its effect may come late, and must not meet another task's statement
                    connection.invalidate()

    def request(self, *, cut: bool) -> None:
        """Ask the database to end the statement, or cut the connection to it."""
        with self._lock:
            self._requested = True
            if self._driver is None:
                return
            if not hasattr(self._driver, "cancel_safe"):
                self._driver.interrupt()  # SQLite works in this process
            elif cut:
                with contextlib.suppress(OSError), socket.socket(fileno=os.dup(self._driver.fileno())) as connection:
                    connection.shutdown(socket.SHUT_RDWR)  # closing it would take it from under the thread
            else:
                self._driver.cancel_safe(timeout=CANCEL_SECONDS)


async def in_thread(threads: ThreadPoolExecutor, work: Callable[[Cancellation], T]) -> T:
    """Run `work` in a thread. When cancelled, it ends the statement and waits for the thread."""
    cancellation = Cancellation()
    running = threads.submit(work, cancellation)
    try:
        return await asyncio.wrap_future(running)
    except asyncio.CancelledError:
        await finish(asyncio.to_thread(_end, running, cancellation))
        raise


def _end(running: Future[Any], cancellation: Cancellation) -> None:
    cutting = monotonic() + CANCEL_SECONDS
    while not running.done():
        with contextlib.suppress(Exception):  # a server that takes no request is asked again
            cancellation.request(cut=monotonic() > cutting)
        wait([running], timeout=REPEAT_SECONDS)
