"""How an attempt ended, and what follows from it. Pure."""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from prokos.tde.contract import BusinessError, FatalFailure, RetryableFailure

if TYPE_CHECKING:
    from prokos.resources.executor import Backoff
    from prokos.tde.contract import Secrets, TaggedTask


@dataclass(frozen=True, slots=True)
class Completed:
    """The task has a result."""

    variables: dict[str, Any]
    kind = "completed"
    message = ""


@dataclass(frozen=True, slots=True)
class Errored:
    """The task ended in a business error."""

    code: str
    message: str
    variables: dict[str, Any] = field(default_factory=dict)
    kind = "error"


@dataclass(frozen=True, slots=True)
class Failed:
    """The attempt failed for technical reasons."""

    message: str
    retryable: bool
    retry_after: float | None = None
    """Seconds the executor asked to wait."""
    kind = "failed"


@dataclass(frozen=True, slots=True)
class Awaiting:
    """The attempt goes on elsewhere; a callback brings its outcome."""

    token: str
    seconds: float
    """Longest wait."""
    kind = "awaiting"

    @property
    def message(self) -> str:
        """For people; the token is in the TDE."""
        return f"awaits its callback for at most {self.seconds:g} s"


Outcome = Completed | Errored | Failed | Awaiting


def from_exception(error: BaseException, secrets: Secrets) -> Errored | Failed:
    """Read what an executor raised; the messages are cleared of secrets."""
    try:
        return _read(error, secrets)
    except Exception as wrong:  # noqa: BLE001 - the code of whoever wrote the exception
        return Failed(secrets.redact(f"{type(error).__name__}, which cannot be read: {_text(wrong)}"), retryable=True)


def _read(error: BaseException, secrets: Secrets) -> Errored | Failed:
    if isinstance(error, BusinessError):
        return Errored(error.code, secrets.redact(error.message), error.variables)
    if isinstance(error, FatalFailure):
        return Failed(secrets.redact(str(error)), retryable=False)
    if isinstance(error, RetryableFailure):
        after = error.retry_after.total_seconds() if error.retry_after is not None else None
        return Failed(secrets.redact(str(error)), retryable=True, retry_after=after)
    return Failed(secrets.redact(_text(error)), retryable=True)


def _text(error: BaseException) -> str:
    try:
        return f"{type(error).__name__}: {error}"
    except Exception:  # noqa: BLE001 - the code of whoever wrote the exception
        return f"{type(error).__name__}, which cannot be written as text"


def backoff_delay(backoff: Backoff, attempt: int, jitter: float | None = None) -> float:
    """Seconds to wait after a failed attempt.

    Args:
        backoff: The executor's settings.
        attempt: 0 for the first attempt.
        jitter: Between 0 and 1; by default random.
    """
    ceiling = backoff.maximum.total_seconds()
    try:
        delay = backoff.initial.total_seconds() * backoff.multiplier**attempt
    except OverflowError:
        delay = ceiling
    delay = min(delay, ceiling)
    share = random.random() if jitter is None else jitter  # noqa: S311 - spreads load, guards nothing
    return delay * (1 - backoff.jitter * share)


def retries_left(task_retries: int, failed: Failed) -> int:
    """Attempts left after a failure; 0 makes it an incident."""
    return max(task_retries - 1, 0) if failed.retryable else 0


def attempt_number(task: TaggedTask) -> int:
    """0 for the first attempt, as far as the number of attempts is known."""
    return max(task.max_retries - task.retries, 0)
