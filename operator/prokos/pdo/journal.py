"""What the PDO has seen lately, for people: each task, the process it was tagged to, where it went and why."""

from __future__ import annotations

import time
from collections import Counter, OrderedDict
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from prokos.router import Decision
    from prokos.tde import TaggedTask

KEPT = 1_000
"""Tasks that are remembered."""


@dataclass(slots=True)
class Entry:
    """One attempt of one task. Times are seconds since the epoch."""

    task: TaggedTask
    seen: float
    beat: int
    state: str
    executor: str | None = None
    source: str | None = None
    reason: str = ""
    message: str = ""
    ended: float | None = None

    def to_dict(self) -> dict[str, Any]:
        """As the status API shows it; keys are text, because JSON numbers lose digits in many readers."""
        values = asdict(self)
        task = values.pop("task")
        return {
            "job": str(task["job_key"]),
            "process": task["process_id"],
            "version": task["process_version"],
            "instance": str(task["process_instance_key"]),
            "element": task["element_id"],
            "elementInstance": str(task["element_instance_key"]),
            "name": task["element_name"],
            "jobType": task["job_type"],
            "retries": task["retries"],
            **values,
        }


class Journal:
    """The latest tasks by job key, and counts of all since the start."""

    def __init__(self, kept: int = KEPT) -> None:
        self._kept = kept
        self._entries: OrderedDict[int, Entry] = OrderedDict()
        self.counts: Counter[str] = Counter()

    def seen(self, task: TaggedTask, beat: int) -> None:
        """A task was activated and tagged."""
        self.counts["scanned"] += 1
        before = self._entries.get(task.job_key)
        reason = before.message if before is not None and before.state == "failed" else ""
        self._entries[task.job_key] = Entry(task=task, seen=time.time(), beat=beat, state="tagged", message=reason)
        self._entries.move_to_end(task.job_key)
        if len(self._entries) > self._kept:
            self._entries.popitem(last=False)

    def update(self, job_key: int, state: str, *, decision: Decision | None = None, message: str = "") -> None:
        """A task moved on."""
        self.counts[state] += 1
        entry = self._entries.get(job_key)
        if entry is None:
            return
        entry.state = state
        entry.message = message
        if decision is not None:
            entry.executor, entry.source, entry.reason = decision.executor, decision.source, decision.reason
        if state not in {"tagged", "waiting", "routing", "dispatched"}:
            entry.ended = time.time()

    def waits(self, job_key: int, seconds: float) -> None:
        """A task's next attempt is due in seconds; why the one before failed may be known already."""
        reason = self._entries[job_key].message if job_key in self._entries else ""
        self.update(job_key, "waiting", message=_with_reason(reason, f"next attempt in {seconds:.3g} s"))

    def ended(self, job_key: int, retries: int, state: str, message: str) -> None:
        """An attempt has ended; a later one of the same task is not meant."""
        entry = self._entries.get(job_key)
        if entry is None or entry.task.retries == retries:
            self.update(job_key, state, message=message)
            return
        self.counts[state] += 1
        if entry.state == "waiting" and state == "failed":
            entry.message = _with_reason(message, entry.message)

    def latest(self, limit: int) -> list[dict[str, Any]]:
        """The newest tasks, newest first."""
        entries = list(self._entries.values())[-limit:] if limit > 0 else []
        return [entry.to_dict() for entry in reversed(entries)]

    def of_beat(self, beat: int, limit: int) -> list[dict[str, Any]]:
        """The first tasks of a beat."""
        found = [entry for entry in self._entries.values() if entry.beat == beat]
        return [entry.to_dict() for entry in found[:limit]]


def _with_reason(reason: str, message: str) -> str:
    return f"{reason} ({message})" if reason else message
