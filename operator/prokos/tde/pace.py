"""How often a worker begins a task: `spec.rateLimit`."""

from __future__ import annotations

import asyncio
import contextlib
import time
from typing import TYPE_CHECKING

from prokos.engine import Slots

if TYPE_CHECKING:
    from collections.abc import Callable

    from prokos.resources.executor import TaskRate


class PacedSlots(Slots):
    """Slots of which each is free only when a token is there for it: a token bucket.

    A task that comes too early stays with the engine, or waits as one does for which there is no slot; it does not run,
    so its time does not.

    Args:
        size: Tasks that run at a time.
        rate: Tokens per second, and most that gather.
        clock: Seconds on a monotonic clock.
    """

    def __init__(self, size: int, rate: TaskRate, clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__(size)
        self._rate = rate
        self._clock = clock
        self._tokens = float(rate.burst)
        self._counted_at = clock()

    @property
    def free(self) -> int:
        """Slots that may be used now."""
        return min(super().free, int(self._count()))

    def take(self) -> None:
        """Use a slot and a token."""
        self._count()
        self._tokens -= 1
        super().take()

    async def wait_free(self, count: int = 1) -> None:
        """Wait until that many slots are free, as far as tokens can gather, without taking them."""
        wanted = min(count, self._rate.burst)
        while self.free < wanted:
            missing = wanted - self._count()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(missing / self._rate.tasks_per_second if missing > 0 else None):
                    await self._release()

    def _count(self) -> float:
        now = self._clock()
        gathered = (now - self._counted_at) * self._rate.tasks_per_second
        self._tokens = min(self._tokens + gathered, float(self._rate.burst))
        self._counted_at = now
        return self._tokens
