"""Database work in threads, where a cancellation ends the statement on the server as well."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import traceback
from concurrent.futures import Future, ThreadPoolExecutor, wait
from threading import Lock, Timer
from time import monotonic
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from prokos.tde.cancellation import finish

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from sqlalchemy import Connection

T = TypeVar("T")

REPEAT_SECONDS = 0.2
"""Time between two requests to cancel: one that arrives between two statements has no effect."""
CANCEL_SECONDS = 5.0
"""How long a server may take to cancel before its connection is cut."""


class Ender(Protocol):
    """What ends a connection's statement, from another thread."""

    def cancel(self, driver: Any) -> None:
        """Ask the database for it."""

    def cut(self, driver: Any) -> None:
        """Cut the connection."""


class Cancellation:
    """Ends the statement that a thread is waiting for, from another thread."""

    def __init__(self, ender: Ender) -> None:
        self._ender = ender
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
            self.check()
            self._driver = connection.connection.driver_connection
        try:
            yield
        finally:
            with self._lock:
                self._driver = None
                if self._requested:  # its effect may come late, and must not meet another task's statement
                    connection.invalidate()

    def check(self) -> None:
        """Stop here if the task was cancelled: a database may have taken that for the end of one statement.

        Raises:
            InterruptedError: It was.
        """
        if self._requested:
            raise InterruptedError("cancelled")

    def request(self, *, cut: bool) -> None:
        """Ask the database to end the statement, or cut the connection to it."""
        with self._lock:
            self._requested = True
            if self._driver is not None:
                (self._ender.cut if cut else self._ender.cancel)(self._driver)


def cut_socket(descriptor: int) -> None:
    """Shut a connection that a thread waits for; closing it would take it from under the thread."""
    with contextlib.suppress(OSError), socket.socket(fileno=os.dup(descriptor)) as connection:
        connection.shutdown(socket.SHUT_RDWR)


@contextlib.contextmanager
def cutting_after(seconds: float, cut: Callable[[], None]) -> Iterator[None]:
    """Cut a connection that is not made within some seconds."""
    timer = Timer(seconds, cut)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


async def in_thread(threads: ThreadPoolExecutor, ender: Ender, work: Callable[[Cancellation], T]) -> T:
    """Run `work` in a thread. When cancelled, it ends the statement and waits for the thread."""
    cancellation = Cancellation(ender)
    running = threads.submit(_run, work, cancellation)
    try:
        return await asyncio.wrap_future(running)
    except asyncio.CancelledError:
        await finish(asyncio.to_thread(_end, running, cancellation))
        raise


def _run(work: Callable[[Cancellation], T], cancellation: Cancellation) -> T:
    try:
        return work(cancellation)
    except BaseException as error:
        # Futures are parts of cycles, so a traceback would keep rows of any size until the collector comes by.
        failure: BaseException | None = error
        while failure is not None:
            traceback.clear_frames(failure.__traceback__)
            failure = failure.__cause__ or failure.__context__
        raise


def _end(running: Future[Any], cancellation: Cancellation) -> None:
    cutting = monotonic() + CANCEL_SECONDS
    while not running.done():
        with contextlib.suppress(Exception):  # a server that takes no request is asked again
            cancellation.request(cut=monotonic() > cutting)
        wait([running], timeout=REPEAT_SECONDS)
