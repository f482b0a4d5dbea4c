"""The wait between two attempts of a task, which the PDO keeps, not the engine.

A job that is failed with `retryBackOff` is at times never offered again (docs/decisions/0017): so a failed task is
offered at once, with a variable of its own that says how long to wait.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from prokos.engine import to_json

if TYPE_CHECKING:
    from prokos.engine import Job

WAIT_VARIABLE = "prokosWait"
"""Local variable of a failed task; neither its executor nor its process gets to see it."""


def wait_before(retries: int, seconds: float) -> dict[str, Any]:
    """Variables that a task is failed with.

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
