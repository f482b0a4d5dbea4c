"""Reporting an attempt's outcome to whoever waits for it.

A TDE that was dispatched works for a job of another process, its parent. A result or a business error goes to the
parent's job first, then the TDE ends: a worker that dies in between leaves a TDE whose parent is gone, which the next
worker sees and ends without executing anything; in the other order the work would be done again. After a failure it is
the other way round, because the parent's next attempt may start at once and needs the TDE gone; a worker that dies in
between leaves a task without a TDE, which the engine offers again when its lease is over. A TDE that a process called
directly has no parent job: the outcome goes to its own job, and from there to the caller.
"""

from __future__ import annotations

from enum import Enum
from typing import TYPE_CHECKING, Any

import structlog

from prokos.engine import NotFoundError, RejectedError, WrongStateError
from prokos.tde.next_attempt import wait_before
from prokos.tde.outcome import Completed, Errored, Failed, attempt_number, backoff_delay, retries_left

if TYPE_CHECKING:
    from prokos.engine import EngineClient, Job
    from prokos.resources.executor import Backoff
    from prokos.tde.contract import TaggedTask
    from prokos.tde.outcome import Outcome

log = structlog.get_logger(__name__)

TASK_VARIABLE = "prokosTask"
"""Variable of a dispatched TDE that holds its tagged task."""

INPUT_VARIABLE = "input"
"""Field of the tagged task that holds the task's variables, packed by `prokos.pdo.dispatch`; `outputs` know them by
this name, too."""

ASK_AGAIN = 1.5
"""Seconds after which a TDE asks again for a task whose lease is over. A PDO takes that task within two seconds, unless
it is dead."""

ASKS = 3
"""Times a TDE asks again. It may meet the moment between two leases more than once."""

OUTCOME_VARIABLE = "outcome"
"""Variable in which a TDE keeps how it ended, for its next step or whoever watches it."""


IN_OPERATE = "Retry of this incident in Operate"
"""What has a job done again that has no attempt left, wherever it comes from."""


async def report(
    client: EngineClient,
    key: int,
    retries: int,
    attempt: int,
    outcome: Outcome,
    backoff: Backoff,
    *,
    again: str = IN_OPERATE,
) -> Outcome:
    """Give a job its outcome. What the engine refuses to take becomes a failure that says so.

    Args:
        client: The engine.
        key: The job.
        retries: Attempts it has left, this one included.
        attempt: Number of this one, from 0.
        outcome: How it ended.
        backoff: The executor's wait between attempts.
        again: What has the job done again, for whoever reads its incident.

    Returns:
        The outcome that the job has got.

    Raises:
        NotFoundError: The job has ended already: cancelled, or an earlier report of ours arrived.
        WrongStateError: The job has the outcome of another worker, and waits for its next attempt or for a person.
    """
    try:
        match outcome:
            case Completed(variables=variables):
                await client.complete_job(key, variables)
            case Errored(code=code, message=message, variables=variables):
                await client.throw_error(key, code, message, variables)
            case Failed(message=message):
                await _fail(client, key, retries, attempt, outcome, backoff, again)
    except WrongStateError:
        # Nothing is wrong with the outcome; it came too late, and must not become an incident of the next attempt.
        raise
    except (RejectedError, ValueError) as error:
        if isinstance(outcome, Failed):
            raise
        refused = _not_accepted(outcome, error)
        await _fail(client, key, retries, attempt, refused, backoff, again)
        return refused
    return outcome


def _not_accepted(outcome: Outcome, error: Exception) -> Failed:
    """What an outcome becomes that the engine refuses: too large, or no JSON. Trying again cannot help."""
    return Failed(f"the engine does not accept the task's {outcome.kind} outcome: {error}", retryable=False)


async def _fail(
    client: EngineClient, key: int, retries: int, attempt: int, failed: Failed, backoff: Backoff, again: str
) -> None:
    left = retries_left(retries, failed)
    message = failed.message if left else f"{failed.message}; when its cause is gone: {again}"
    delay = failed.retry_after if failed.retry_after is not None else backoff_delay(backoff, attempt)
    await client.fail_job(key, message, retries=left, variables=wait_before(left, delay))


async def report_to_parent(
    client: EngineClient, task: TaggedTask, outcome: Outcome, backoff: Backoff
) -> Outcome | None:
    """Report a dispatched task's outcome to its own job.

    Returns:
        The outcome that the job has got; None when it is gone, and nobody waits any more.
    """
    try:
        attempt = attempt_number(task)
        again = f"prokos retry {task.job_key}, or {IN_OPERATE}"
        return await report(client, task.job_key, task.retries, attempt, outcome, backoff, again=again)
    except NotFoundError:
        log.info("task is gone, its outcome is dropped", job=task.job_key, outcome=outcome.kind)
    except RejectedError as error:
        log.warning("the engine refuses the outcome", job=task.job_key, outcome=outcome.kind, error=str(error))
    return None


async def end_tde(client: EngineClient, job: Job, outcome: Outcome, variables: dict[str, Any] | None = None) -> None:
    """Complete a TDE's own job. An outcome stays in the instance for whoever looks at it.

    A result leaves none, which saves the engine a record: that the TDE has ended says it.
    """
    if not isinstance(outcome, Completed):
        summary = {"kind": outcome.kind, "message": outcome.message[:500]}
        variables = {**(variables or {}), OUTCOME_VARIABLE: summary}
    try:
        await client.complete_job(job.key, variables)
    except NotFoundError:
        log.debug("TDE has ended already", job=job.key)


class Parent(Enum):
    """What has become of the job that a TDE works for."""

    LEASED = "leased"
    """It is open, and its lease is extended."""
    UNLEASED = "not leased"
    """Its lease is over for a moment, until a PDO takes it again; or it waits for its next attempt, or for a person.
    The engine does not tell these apart. It takes a result in the first case only."""
    GONE = "gone"
    """It has ended."""


async def renew_parent(client: EngineClient, task: TaggedTask) -> Parent:
    """Extend the lease of a task's job, and learn whether there still is one."""
    try:
        await client.extend_lease(task.job_key, task.lease / 1000)
    except NotFoundError:
        return Parent.GONE
    except RejectedError:
        return Parent.UNLEASED
    return Parent.LEASED
