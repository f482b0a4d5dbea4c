"""What tests of all kinds share."""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import time
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Coroutine

TICK = 0.005
"""Seconds between looks."""


async def wait_until(
    predicate: Callable[[], Any], timeout: float = 60.0, describe: Callable[[], object] | None = None
) -> Any:
    """Wait until a condition holds.

    Args:
        predicate: The condition; an awaitable it returns is awaited.
        timeout: Seconds after which the test fails.
        describe: Gives the state that the failure shows.

    Returns:
        The predicate's first true value.
    """
    deadline = time.monotonic() + timeout
    while True:
        value = predicate()
        if inspect.isawaitable(value):
            value = await value
        if value:
            return value
        if time.monotonic() > deadline:
            state = f"\nstate: {describe()}" if describe else ""
            raise AssertionError(f"not within {timeout:g} s: {_source(predicate)}{state}")
        await asyncio.sleep(TICK)


def _source(predicate: Callable[[], Any]) -> str:
    try:
        return inspect.getsource(predicate).strip()
    except OSError:
        return repr(predicate)


@contextlib.asynccontextmanager
async def background(work: Coroutine[Any, Any, Any]) -> AsyncIterator[asyncio.Task[Any]]:
    """Run something beside the test, and cancel it in the end; an error of its own fails the test."""
    task = asyncio.create_task(work)
    try:
        yield task
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


def finished(work: Coroutine[Any, Any, Any]) -> Any:
    """The result of a coroutine that waits for nothing, such as a write of the file registry."""
    try:
        work.send(None)
    except StopIteration as done:
        return done.value
    raise AssertionError("the coroutine waits for something")
