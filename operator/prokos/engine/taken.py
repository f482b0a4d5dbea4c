"""The jobs taken lately, so that one that is offered again is known."""

from __future__ import annotations

from collections.abc import Hashable
from typing import Generic, TypeVar

Key = TypeVar("Key", bound=Hashable)

KEPT = 50_000
"""Most keys that are remembered. They take 7 MB; that many tasks in ten minutes are 80 a second."""

REMEMBERED = 300.0
"""Seconds for which a key is remembered at least, if there are not too many. A task is offered again when its lease is
over; longer than that, what was started for it does not go on unseen."""


class Taken(Generic[Key]):
    """Keys of jobs, in two generations: the older one is forgotten as a whole."""

    def __init__(self, now: float) -> None:
        """Args: seconds on the clock of `add`."""
        self._recent: set[Key] = set()
        self._older: set[Key] = set()
        self._since = now

    def add(self, key: Key, now: float) -> None:
        """A job was taken at a time in seconds."""
        if now - self._since >= REMEMBERED or len(self._recent) >= KEPT // 2:
            self._older, self._recent, self._since = self._recent, set(), now
        self._recent.add(key)

    def __contains__(self, key: object) -> bool:
        return key in self._recent or key in self._older
