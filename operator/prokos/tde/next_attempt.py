"""The wait between two attempts, which whoever takes the job next keeps, not the engine.

A job that is failed with `retryBackOff` is at times never offered again (docs/decisions/0017): so a failed job is
offered at once, with a variable of its own that says how long to wait. The PDO does that for tasks, a worker for TDEs
that a process calls itself.
"""

from __future__ import annotations

import time
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from prokos.engine import to_json
from prokos.engine.taken import Taken

if TYPE_CHECKING:
    from prokos.engine import Job

WAIT_VARIABLE = "prokosWait"
"""Local variable of a failed job; neither its executor nor its process gets to see it."""


def wait_before(retries: int, seconds: float) -> dict[str, Any]:
    """Variables that a job is failed with.

    Args:
        retries: Attempts left after the failure; 0 makes it an incident, which waits for a person.
        seconds: Until the next attempt.
    """
    return {WAIT_VARIABLE: {"retries": retries, "seconds": seconds}} if retries and seconds > 0 else {}


def split_wait(job: Job) -> tuple[Job, float]:
    """A job without that variable, and the seconds to wait; 0 where there is none, or it is of an earlier attempt."""
    if f'"{WAIT_VARIABLE}"' not in job.raw_variables:
        return job, 0.0
    variables = job.variables
    said = variables.pop(WAIT_VARIABLE, None)
    if not isinstance(said, dict) or said.keys() != {"retries", "seconds"}:
        return job, 0.0
    seconds = float(said["seconds"]) if said["retries"] == job.retries else 0.0
    return replace(job, raw_variables=to_json(variables)), seconds


class Waits:
    """The waits that were kept here, so that none is kept twice."""

    def __init__(self) -> None:
        self._kept = Taken[tuple[int, int, int]](time.monotonic())

    def is_due(self, job: Job, seconds: float, times: int = 1) -> bool:
        """Whether an attempt need not wait, or has waited: an offer after a lease that was lost waits no second time.

        The caller keeps the wait of one that is not due. An attempt may have to wait several times.
        """
        waits = [(job.key, job.retries, number) for number in range(times)]
        left = [wait for wait in waits if wait not in self._kept]
        if seconds == 0 or not left:
            return True
        self._kept.add(left[0], time.monotonic())
        return False
