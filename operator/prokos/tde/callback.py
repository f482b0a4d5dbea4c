"""Callbacks: tokens that say which task a result belongs to, and the messages that bring the results.

A service that works for long answers at once, with a token in its hands, and sends its result when it has one. Whoever
takes it publishes the message `prokos.callback`, with the token as correlation key; the task's TDE waits for it on the
engine, and no worker does.
"""

from __future__ import annotations

import hashlib
import hmac
import re
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from prokos.engine import NotFoundError, RejectedError
from prokos.tde.contract import BusinessError, FatalFailure, RetryableFailure
from prokos.tde.report import end_tde

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from prokos.engine import EngineClient, Job
    from prokos.tde.contract import TaggedTask
    from prokos.tde.outcome import Awaiting

AWAITING_VARIABLE = "prokosAwaiting"
"""Variable of a TDE that says which callback it waits for, and how long."""

CALLBACK_VARIABLE = "prokosCallback"
"""Variable of the message, and then of the TDE, that holds what the callback brought."""

CALLBACK_KEPT = 600.0
"""Seconds the engine keeps a callback that comes before its TDE waits for it: time to replace a worker that died
between the service's answer and its own report."""

SPARE_LEASE = 60.0
"""Seconds by which a task's lease outlasts the wait for its callback: time for a worker to report that it was in vain.
If none does, the engine offers the task again, and drops the start of a second TDE while the first one is there."""

TOKEN_DIGITS = 32
"""Hexadecimal digits of a token's secret part: 128 bits, which nobody guesses."""


def make_token(secret: str, idempotency_key: str) -> str:
    """The token of a task: the same in all its attempts, so that a late result of an earlier one still counts."""
    digest = hmac.new(secret.encode(), f"prokos.callback {idempotency_key}".encode(), hashlib.sha256)
    return f"{idempotency_key}-{digest.hexdigest()[:TOKEN_DIGITS]}"


def genuine(token: str, secrets: Iterable[str]) -> bool:
    """Whether a token was made with one of these secrets."""
    key, _, _ = token.rpartition("-")
    return token.isascii() and any(hmac.compare_digest(token, make_token(secret, key)) for secret in secrets)


def is_token(text: str) -> bool:
    """Whether a text has the form of a token."""
    return re.fullmatch(rf"[0-9]{{1,20}}-[0-9a-f]{{{TOKEN_DIGITS}}}", text) is not None


async def await_callback(client: EngineClient, job: Job, task: TaggedTask, awaiting: Awaiting) -> bool:
    """Let a TDE wait on the engine; neither a worker nor a slot of the PDO is taken meanwhile.

    Returns:
        False when the task has ended.
    """
    try:
        await client.extend_lease(task.job_key, awaiting.seconds + SPARE_LEASE)
    except NotFoundError:
        return False
    except RejectedError:
        pass  # Its lease was over for a moment: it is offered again, and its second start is dropped.
    # A callback of this name that came with the task's own variables is none.
    waits = {"token": awaiting.token, "timeout": f"PT{awaiting.seconds:.3f}S", "seconds": awaiting.seconds}
    await end_tde(client, job, awaiting, {AWAITING_VARIABLE: waits, CALLBACK_VARIABLE: None})
    return True


def brought(variables: Mapping[str, Any]) -> Any:
    """What a TDE's wait brought: the callback's result. Raises what `read_callback` raises.

    Raises:
        RetryableFailure: The time was over.
    """
    callback = variables.get(CALLBACK_VARIABLE)
    if callback is None:
        seconds = (variables.get(AWAITING_VARIABLE) or {}).get("seconds", 0)
        raise RetryableFailure(f"no callback came within {seconds:g} s (callback.timeout)")
    return read_callback(callback)


def read_callback(callback: Any) -> Any:
    """Read what a callback brought: `{"result": ...}`, `{"error": {...}}` or `{"failure": {...}}`.

    Returns:
        The result.

    Raises:
        BusinessError: It brought an error, with `code`, and maybe `message` and `variables`.
        RetryableFailure: It brought a failure, with `message`, and maybe `retryAfterSeconds`.
        FatalFailure: It brought a failure with `retryable: false`, or is none of these.
    """
    kinds = {"result", "error", "failure"}
    if not isinstance(callback, dict) or len(callback) != 1 or not kinds >= callback.keys():
        raise FatalFailure("the callback holds neither one result nor one error nor one failure")
    kind, value = next(iter(callback.items()))
    if kind == "result":
        return value
    message = value.get("message", "") if isinstance(value, dict) else None
    if not isinstance(message, str):
        raise FatalFailure(f"the {kind} of the callback is no object with a message")
    if kind == "error":
        code, variables = value.get("code"), value.get("variables", {})
        if not isinstance(code, str) or not code or not isinstance(variables, dict):
            raise FatalFailure("the error of the callback needs a code, and an object if it has variables")
        raise BusinessError(code, message, variables)
    message = message or "the callback brought a failure"
    if value.get("retryable", True) is not True:
        raise FatalFailure(message)
    seconds = value.get("retryAfterSeconds")
    wanted = isinstance(seconds, int | float) and 0 <= seconds <= timedelta(days=1).total_seconds()
    raise RetryableFailure(message, timedelta(seconds=seconds) if wanted else None)
