"""The one policy by which engine commands are repeated: jittered exponential back-off."""

from __future__ import annotations

import asyncio
import random
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from prokos.engine.errors import BackpressureError, EngineError, EngineUnavailableError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from typing import TypeVar

    T = TypeVar("T")

MAX_DOUBLINGS = 30
"""Back-offs double no more often than this, so that a wait of days does not overflow."""


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """How patiently a command is repeated. Times are seconds."""

    initial: float = 0.02
    """First back-off. Back-pressure on a busy broker passes within tens of milliseconds."""
    maximum: float = 2.0
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
        give_up = None if self.patience is None else time.monotonic() + self.patience
        attempt = 0
        while True:
            try:
                return await command()
            except transient:
                if give_up is not None and time.monotonic() >= give_up:
                    raise
            await asyncio.sleep(self.delay(attempt, random.random()))  # noqa: S311 - spreads load, guards nothing
            attempt += 1

    def delay(self, attempt: int, jitter: float) -> float:
        """Seconds to wait after a failed attempt.

        Args:
            attempt: 0 for the first attempt.
            jitter: Between 0 and 1: the share of the full back-off to wait.
        """
        return jitter * min(self.maximum, self.initial * 2.0 ** min(attempt, MAX_DOUBLINGS))
