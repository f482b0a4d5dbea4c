"""Tasks that workers say they execute: also those that outlast their lease here, and that an earlier PDO dispatched.

Their slots are free again, since new tasks must not wait for long ones; but workers must not be taken away from them.
"""

from __future__ import annotations

import time
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Container


@dataclass(frozen=True, slots=True)
class Executed:
    """One task that a worker has; `until` is on the monotonic clock."""

    retries: int
    executor: str
    process: str
    until: float


class Executing:
    """What each worker has said lately. Every replica of the PDO hears the same."""

    def __init__(self) -> None:
        self._tasks: dict[int, Executed] = {}

    def heard(self, job_key: int, task: Executed) -> None:
        """A worker says that it executes a task."""
        self._tasks[job_key] = task

    def ended(self, job_key: int, retries: int) -> None:
        """A worker says that an attempt has ended; the next one, with fewer retries, may be executed already."""
        task = self._tasks.get(job_key)
        if task is not None and task.retries == retries:
            del self._tasks[job_key]

    def drop_silent(self, now: float) -> None:
        """Forget tasks of workers that say nothing any more; `now` is on the monotonic clock."""
        for key in [key for key, task in self._tasks.items() if task.until <= now]:
            del self._tasks[key]

    def counts(self, among: Container[int] | None = None) -> Counter[tuple[str, str]]:
        """How many tasks there are by executor and process.

        Args:
            among: Count these jobs only.
        """
        self.drop_silent(time.monotonic())
        tasks = self._tasks.items()
        return Counter((task.executor, task.process) for key, task in tasks if among is None or key in among)
