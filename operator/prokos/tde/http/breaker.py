"""The circuit breaker: a service that fails again and again is left alone for a while.

Closed, calls pass. After a number of failures in a row it is open: calls fail at once, without being made. When its
time is over one call tries; it closes the circuit, or opens it for another time. Own code: the maintained library
(purgatory) brings a message bus and a unit of work for a dozen lines of state.
"""

from __future__ import annotations

import time
from contextlib import contextmanager
from datetime import timedelta
from typing import TYPE_CHECKING

from prokos.tde.http.failures import CircuitOpenFailure, ServiceFailure

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from prokos.resources.http_limits import CircuitBreaker


class Breaker:
    """The breaker of one executor in one worker."""

    def __init__(self, settings: CircuitBreaker, clock: Callable[[], float] = time.monotonic) -> None:
        self._threshold = settings.failures
        self._open_for = settings.open_for.total_seconds()
        self._clock = clock
        self._failures = 0
        self._open_until: float | None = None
        self._trying = False

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Make one call within this block.

        Raises:
            CircuitOpenFailure: It must not be made now.
        """
        trial = self._enter()
        try:
            yield
        except ServiceFailure:
            self._failed()
            raise
        except Exception:
            self._succeeded()  # the service answered, or the call was refused for reasons of its own
            raise
        finally:
            # Also when it was cancelled, which says nothing about the service.
            if trial:
                self._trying = False
        self._succeeded()

    def _enter(self) -> bool:
        """Whether the call is the one that tries."""
        if self._open_until is None:
            return False
        left = self._open_until - self._clock()
        if left > 0 or self._trying:
            wait = max(left, 1.0)
            raise CircuitOpenFailure(
                f"not called: {self._failures} calls in a row failed (spec.http.circuitBreaker); "
                f"it is tried again in {wait:.0f} s",
                timedelta(seconds=wait),
            )
        self._trying = True
        return True

    def _failed(self) -> None:
        self._failures += 1
        if self._failures >= self._threshold:
            self._open_until = self._clock() + self._open_for

    def _succeeded(self) -> None:
        self._failures = 0
        self._open_until = None
