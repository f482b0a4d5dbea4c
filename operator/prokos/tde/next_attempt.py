"""The wait between two attempts, which whoever takes the job next keeps, not the engine.

Some engines at times never offer a job again that is failed with `retryBackOff` (docs/decisions/0017): so a failed job
is offered at once, with a variable of its own that says how long to wait. The PDO does that for tasks, a worker for
TDEs that a process calls itself.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from prokos.engine import EngineError, to_json
from prokos.engine.taken import Taken

if TYPE_CHECKING:
    from prokos.engine import EngineClient, Job

WAIT_VARIABLE = "prokosWait"
"""Local variable of a failed job; neither its executor nor its process gets to see it."""

LONGEST = 10.0**9
"""Seconds, thirty years; what says that it waits for longer is no wait of ours."""

HAND_BACK = 2.0
"""Seconds a process that stops has for handing back jobs; the others come when their leases are over."""


def wait_before(retries: int, seconds: float) -> dict[str, Any]:
    """Variables that a job is failed with.

    Args:
        retries: Attempts left after the failure; 0 makes it an incident, which waits for a person.
        seconds: Until the next attempt.
    """
    said = {WAIT_VARIABLE: {"retries": retries, "seconds": min(seconds, LONGEST)}}
    return said if retries and seconds > 0 else {}


def split_wait(job: Job) -> tuple[Job, float]:
    """A job without that variable, and the seconds to wait; 0 where there is none, or it is of an earlier attempt.

    A variable of that name which says something else is the process's own, and stays.
    """
    if f'"{WAIT_VARIABLE}"' not in job.raw_variables:
        return job, 0.0
    variables = job.variables
    said = variables.pop(WAIT_VARIABLE, None)
    if not isinstance(said, dict) or said.keys() != {"retries", "seconds"} or not _is_time(said["seconds"]):
        return job, 0.0
    seconds = float(said["seconds"]) if said["retries"] == job.retries else 0.0
    return replace(job, raw_variables=to_json(variables)), seconds


def _is_time(value: Any) -> bool:
    return isinstance(value, int | float) and 0 <= value <= LONGEST


class Waits:
    """The waits that are kept here, each once, and without a slot."""

    def __init__(self, client: EngineClient, lease: float) -> None:
        """Args: the engine; seconds after which a job comes again whose wait ended with this process."""
        self._client = client
        self._lease = lease
        self._kept = Taken[tuple[int, int, int]](time.monotonic())
        self._waiting: set[asyncio.Task[None]] = set()

    def is_due(self, job: Job, seconds: float, times: int = 1) -> bool:
        """Whether an attempt need not wait, or has waited: an offer after a lease that was lost waits no second time.

        The caller has the wait of one that is not due kept. An attempt may have to wait several times.
        """
        if seconds == 0:
            return True
        for number in range(times):
            wait = (job.key, job.retries, number)
            if wait not in self._kept:
                self._kept.add(wait, time.monotonic())
                return False
        return True

    def keep(self, job: Job, seconds: float, message: str) -> None:
        """Have the engine offer a job again after a time; it keeps its place. The message is for people.

        It is failed with the attempts it has. A short lease in place of that would do until the engine misses its end
        (docs/decisions/0017); it is what is left if this process dies.
        """
        # Not its variables: many jobs may wait, and some for hours.
        waiting = asyncio.create_task(self._keep(replace(job, raw_variables="{}"), seconds, message))
        self._waiting.add(waiting)
        waiting.add_done_callback(self._waiting.discard)

    async def _keep(self, job: Job, seconds: float, message: str) -> None:
        due = time.monotonic() + seconds
        try:
            await self._client.extend_lease(job.key, seconds + self._lease)
            await asyncio.sleep(seconds)
        except asyncio.CancelledError:
            await self.offer(job, due - time.monotonic(), message)
            raise
        except EngineError:
            # It has ended, or comes when its lease is over.
            return
        await self.offer(job, 0.0, message)

    async def offer(self, job: Job, rest: float, message: str) -> None:
        """Offer a job with the rest of its wait to whoever takes it next, who need not be this process."""
        if self._client.losses.doubts(job):
            return
        # Also a rest of 0 is said: what the job was failed with before is still there, and `_kept` forgets.
        rest_said = {WAIT_VARIABLE: {"retries": job.retries, "seconds": max(rest, 0.0)}}
        with contextlib.suppress(EngineError):
            await self._client.fail_job(job.key, message, retries=job.retries, variables=rest_said)

    async def hand_back(self) -> None:
        """Offer the jobs that wait here to others, with the rest of their wait."""
        for waiting in self._waiting:
            waiting.cancel()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(HAND_BACK):
                await asyncio.gather(*self._waiting, return_exceptions=True)
