"""The one policy by which engine commands are repeated: jittered exponential back-off."""

from __future__ import annotations

import asyncio
import random
from dataclasses import dataclass
from typing import TYPE_CHECKING

import structlog
import tenacity

from prokos.engine.errors import BackpressureError, EngineError, EngineUnavailableError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from typing import TypeVar

    T = TypeVar("T")

FIRST_SAID = 8
"""Repetitions of a command before the log says so."""

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """How patiently a command is repeated. Times are seconds."""

    initial: float = 0.02
    """First back-off. Back-pressure on a busy broker passes within tens of milliseconds."""
    maximum: float = 1.0
    """Longest back-off: a broker that came back is used again within this time."""
    patience: float | None = None
    """Give up after this long; 0 makes one attempt, None never gives up and ends only by cancellation."""

    async def run(self, command: Callable[[], Awaitable[T]], *, idempotent: bool) -> T:
        """Run a command until it succeeds or fails for good.

        Args:
            command: Makes one attempt. It raises `EngineError`s.
            idempotent: Whether the command may be repeated when it is unknown if it was executed (a lost
                connection). Back-pressure is always repeated: there the engine has not executed anything.
        """
        transient: tuple[type[EngineError], ...] = (BackpressureError,)
        if idempotent:
            transient += (EngineUnavailableError,)
        try:
            # The rule is that the first attempt succeeds; the retrying machinery is only paid for after it failed.
            return await command()
        except transient:
            if self.patience == 0:
                raise
        await asyncio.sleep(random.uniform(0, self.initial))  # noqa: S311 - spreads load, guards nothing
        retrying = tenacity.AsyncRetrying(
            retry=tenacity.retry_if_exception_type(transient),
            wait=tenacity.wait_random_exponential(multiplier=self.initial, max=self.maximum),
            stop=tenacity.stop_never if self.patience is None else tenacity.stop_after_delay(self.patience),
            before_sleep=_say_now_and_then,
            reraise=True,
        )
        return await retrying(command)


def _say_now_and_then(state: tenacity.RetryCallState) -> None:
    """Log the 8th, 16th, 32nd, ... repetition: the first ones are ordinary, and all of them would be too many."""
    repetition = state.attempt_number
    if repetition >= FIRST_SAID and repetition & (repetition - 1) == 0 and state.outcome is not None:
        log.warning("a command is still repeated", repetitions=repetition, error=str(state.outcome.exception()))
