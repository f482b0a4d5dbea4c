"""Noticing that this process did not run for a while: it was paused, or the machine was too busy.

What a process reads afterwards may have been sent at any time since it stopped. A job that the engine pushed meanwhile
looks new and is not: its lease began when it was sent, and may be over.
"""

from __future__ import annotations

import asyncio
import time

TICK = 0.5
"""Seconds between two looks."""

STALL = 1.5
"""Seconds between two looks that count as a stall."""

AFTERMATH = 2.0
"""Seconds after a stall within which everything is read that came during it: it lies in this machine's memory."""


class Stalls:
    """The stalls of one event loop. Times are seconds on the monotonic clock."""

    def __init__(self) -> None:
        self._looked = time.monotonic()
        self._began = 0.0
        self._read_until = 0.0

    async def watch(self) -> None:
        """Look until cancelled."""
        while True:
            self.look()
            await asyncio.sleep(TICK)

    def look(self) -> None:
        """Take note of a stall that has just ended."""
        now = time.monotonic()
        if now - self._looked > STALL:
            if self._looked > self._read_until:
                self._began = self._looked
            self._read_until = now + AFTERMATH
        self._looked = now

    def sent_after(self) -> float:
        """A time after which that was sent what is read just now: now, or when a stall began."""
        self.look()
        return self._began if self._looked < self._read_until else self._looked
