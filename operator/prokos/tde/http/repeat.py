"""Repeating a call within one attempt: with jitter, when `Retry-After` says, and only where repeating is safe."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from tenacity import AsyncRetrying, retry_if_exception, wait_random_exponential

from prokos.tde.contract import RetryableFailure
from prokos.tde.http.failures import CircuitOpenFailure, UnsentFailure

if TYPE_CHECKING:
    from tenacity import RetryCallState

    from prokos.resources.http_limits import HttpRetry


def repeating(settings: HttpRetry, deadline: float, *, repeatable: bool) -> AsyncRetrying:
    """Tries of one call; the failure of the last one is raised as it is.

    Args:
        settings: How many, and how long the waits are.
        deadline: When the attempt's time is over, on the monotonic clock: what would have to wait beyond it is left
            to the engine, with the wait that the service asked for.
        repeatable: Whether the service may get the call twice; if not, only calls that it cannot have seen are
            repeated.
    """
    jittered = wait_random_exponential(
        multiplier=settings.initial.total_seconds(), max=settings.maximum.total_seconds()
    )

    def may_pass(error: BaseException) -> bool:
        if isinstance(error, CircuitOpenFailure) or not isinstance(error, RetryableFailure):
            return False
        return repeatable or isinstance(error, UnsentFailure)

    def wait(state: RetryCallState) -> float:
        failure = state.outcome.exception() if state.outcome is not None else None
        asked = failure.retry_after if isinstance(failure, RetryableFailure) else None
        return jittered(state) if asked is None else asked.total_seconds()

    def is_last(state: RetryCallState) -> bool:
        return state.attempt_number >= settings.tries or time.monotonic() + state.upcoming_sleep >= deadline

    return AsyncRetrying(retry=retry_if_exception(may_pass), wait=wait, stop=is_last, reraise=True)
