"""Keeping what an attempt holds: the lease of its TDE's job and, for a dispatched task, that of its parent's."""

from __future__ import annotations

import asyncio
import time
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from prokos.engine import EngineError, NotFoundError, RejectedError
from prokos.tde.report import Parent, renew_parent

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from prokos.engine import EngineClient, Job
    from prokos.tde.contract import TaggedTask

TDE_LEASE = 20.0
"""Seconds a TDE's job stays with a worker that shows no sign of life: what a crash delays its tasks by."""

KEEP_SHARE = 4
"""Leases are renewed this many times in their length. It is also how soon a cancelled task stops its TDE."""

VERIFY_AFTER_MS = 10_000
"""A TDE that starts to execute this long after its task was leased first asks whether the task is still open.

It must be shorter than `TDE_LEASE`, so that every second execution of one TDE asks: its first one may have
reported already. Where the task's own lease is shorter, that counts: once it is over, another PDO may have dispatched
the task. All times are the engine's, so that no other clock matters.
"""


class TaskGoneError(Exception):
    """The task was cancelled: the attempt must stop, its TDE with it."""


class LeaseLostError(Exception):
    """Another worker may have this TDE's job by now: the attempt must stop and leave everything to that one."""


def must_verify(task: TaggedTask, job: Job, lease: float = TDE_LEASE) -> bool:
    """Whether a task may have ended before its TDE got to execute it."""
    leased_at = task.deadline - task.lease
    started_at = job.deadline - int(lease * 1000)
    return task.verify or not 0 <= started_at - leased_at <= min(VERIFY_AFTER_MS, task.lease)


async def keep(
    client: EngineClient,
    job: Job,
    task: TaggedTask | None,
    lease: float = TDE_LEASE,
    kept: Callable[[TaggedTask], None] = lambda _: None,
) -> None:
    """Renew the leases until cancelled.

    Args:
        client: The engine.
        job: The TDE's job.
        task: The task it executes; None if a process called it.
        lease: Seconds the TDE's job is leased for.
        kept: Called each time the task's lease was renewed.

    Raises:
        TaskGoneError: The task or its TDE has ended.
        LeaseLostError: The TDE's job is no longer ours.
    """
    interval = lease / KEEP_SHARE
    held_until = job.leased_at + lease
    # The job may have waited here for most of its lease.
    await asyncio.sleep(min(interval, max(held_until - time.monotonic(), 0) / 2))
    while True:
        try:
            async with _until(held_until):
                renewed_at = time.monotonic()
                await client.extend_lease(job.key, lease)
                held_until = renewed_at + lease
            if task is not None:
                async with _until(held_until):
                    parent = await renew_parent(client, task)
                if parent is Parent.GONE:
                    raise TaskGoneError("the task was cancelled")
                kept(task)
        except NotFoundError as error:
            raise TaskGoneError(f"the TDE was ended: {error}") from error
        except RejectedError as error:
            # The engine has taken the job back, and may have given it to another worker.
            raise LeaseLostError(f"the lease is over: {error}") from error
        except TimeoutError as error:
            # Not any later: a renewal that succeeds after the lease may renew that of the worker who has it now.
            raise LeaseLostError("this worker was held up for longer than its lease") from error
        except EngineError:
            pass
        await asyncio.sleep(interval)


@asynccontextmanager
async def _until(end: float) -> AsyncIterator[None]:
    """Allow something to last until a time, and not to begin after it. Raises TimeoutError."""
    left = end - time.monotonic()
    if left <= 0:
        raise TimeoutError
    async with asyncio.timeout(left):
        yield
