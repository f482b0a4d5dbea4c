"""How many commands a client has under way at a time.

An engine that has too much to do refuses commands, and a refusal costs both sides nearly as much as a command that is
taken. With a fixed number of commands that are repeated, four of five were refused once an engine had fallen behind
(measured), and less was left for work than before. So the number follows the engine: it is halved when the engine
refuses, and grows by one when it has taken as many as that; TCP finds its share of a line just so.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from typing import Self

MOST = 64
"""Commands under way at a time while the engine refuses none; it takes 20 to 40 of all its clients at a time."""

LEAST = 2
"""Commands under way at a time however much it refuses: one that waits must not hold up all others."""

ONCE_IN = 0.1
"""Seconds within which refusals count as one: they tell of one moment, and come in bursts."""


class Window:
    """Places for commands, taken in the order in which they were asked for: `async with window`."""

    def __init__(self) -> None:
        self._size = float(MOST)
        self._used = 0
        self._waiting: deque[asyncio.Future[None]] = deque()
        self._narrowed_at = 0.0

    @property
    def size(self) -> int:
        """Commands that may be under way just now."""
        return int(self._size)

    def taken(self) -> None:
        """The engine has taken a command."""
        self._size = min(self._size + 1 / self._size, MOST)

    def refused(self) -> None:
        """The engine has refused a command because it has too much to do."""
        now = time.monotonic()
        if now - self._narrowed_at > ONCE_IN:
            self._narrowed_at = now
            self._size = max(self._size / 2, LEAST)

    async def __aenter__(self) -> Self:
        if self._used < self.size and not self._waiting:
            self._used += 1
            return self
        place: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append(place)
        try:
            await place
        except asyncio.CancelledError:
            if place.done() and not place.cancelled():
                await self.__aexit__()
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        self._used -= 1
        while self._waiting and self._used < self.size:
            place = self._waiting.popleft()
            if not place.done():
                self._used += 1
                place.set_result(None)
