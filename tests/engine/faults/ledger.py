"""What executors have written down of their executions, and the invariants that hold for it.

The ledger knows nothing of ProkOS: it is made from what `LedgerExecutor` writes at the start and at the end of each
execution, and from when processes were killed or paused. Times are seconds of the machine's monotonic clock.
"""

from __future__ import annotations

import json
import math
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Execution:
    """One execution of one task."""

    token: str
    job: int
    retries: int
    element: str
    instance: int
    pid: int
    tokens: tuple[str, ...]
    """The tokens that the instance had when it reached the task: one for each task before."""
    started: float
    ended: float
    """Infinite while it runs."""
    how: str
    """`end` (it had a result), `stopped` (it was cancelled), `killed` (its process was), `running`."""


@dataclass(frozen=True)
class Pause:
    """A process that was stopped for a while and went on."""

    pid: int
    begin: float
    end: float


QUEUED = 20.0
"""Seconds that a job may have waited in its worker, leased, before its execution began: the lease of a TDE's job."""


@dataclass(frozen=True)
class Overlap:
    """Two executions of one job at the same time."""

    first: Execution
    second: Execution


@dataclass
class Findings:
    """What is wrong with a ledger, and its numbers."""

    instances: int = 0
    executions: int = 0
    repeated: int = 0
    """Executions beyond the first one of each attempt."""
    excused: int = 0
    """Overlaps with an execution in a process that was paused, or leased when the clock was set."""
    problems: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        shown = "\n  ".join([f"{len(self.problems)} problems", *self.problems[:20]]) if self.problems else "no problems"
        numbers = f"{self.instances} instances, {self.executions} executions, {self.repeated} repeated"
        return f"{numbers}, {self.excused} overlaps excused: {shown}"


class LedgerFile:
    """What the executors have written so far; each line is read once."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self._read = 0
        self._starts: dict[str, dict[str, Any]] = {}
        self._ends: dict[str, dict[str, Any]] = {}

    def read(self, deaths: Mapping[int, float]) -> list[Execution]:
        """All executions in the order of their starts.

        Args:
            deaths: Process id to the time by which it was dead. An execution that it had not ended ended then.
        """
        self._read_on()
        executions = []
        for token, start in self._starts.items():
            end = self._ends.get(token)
            killed = deaths.get(start["pid"])
            if end is not None:
                ended, how = end["monotonic"], end["event"]
            else:
                ended, how = (killed, "killed") if killed is not None else (math.inf, "running")
            known = {name: start[name] for name in ("job", "retries", "element", "instance", "pid")}
            known |= {"tokens": tuple(start["tokens"]), "started": start["monotonic"]}
            executions.append(Execution(token, ended=ended, how=how, **known))
        return sorted(executions, key=lambda execution: execution.started)

    def _read_on(self) -> None:
        if not self._file.exists():
            return
        with self._file.open("rb") as file:
            file.seek(self._read)
            for line in file:
                if not line.endswith(b"\n"):
                    break
                self._read += len(line)
                entry = json.loads(line)
                (self._starts if entry["event"] == "start" else self._ends)[entry["execution"]] = entry


def check(
    executions: Sequence[Execution],
    elements: Sequence[str],
    *,
    instances: Collection[int],
    cancelled: Collection[int] = (),
    pauses: Iterable[Pause] = (),
    steps: Iterable[float] = (),
) -> Findings:
    """Check the invariants.

    Args:
        executions: The ledger.
        elements: The tasks of the process in their order.
        instances: Those that must have been executed to their end.
        cancelled: Those that were cancelled, and may have stopped anywhere.
        pauses: Which processes were stopped for a while.
        steps: When the engine's clock was set forward, which ends all leases.
    """
    findings = Findings(executions=len(executions))
    findings.repeated = len(executions) - len({(execution.job, execution.retries) for execution in executions})
    by_instance: dict[int, list[Execution]] = defaultdict(list)
    for execution in executions:
        by_instance[execution.instance].append(execution)
    wanted = set(instances) - set(cancelled)
    findings.instances = len(wanted | by_instance.keys())
    for instance in sorted(wanted | by_instance.keys()):
        complete = instance in wanted or instance not in cancelled
        findings.problems += _check_instance(instance, by_instance[instance], elements, complete=complete)
    paused, stepped = list(pauses), list(steps)
    for overlap in find_overlaps(executions):
        if any(_excuses(pause, overlap) for pause in paused) or any(_leased_at(overlap.first, at) for at in stepped):
            findings.excused += 1
        else:
            findings.problems.append(_describe(overlap))
    findings.problems += [f"{_name(one)} still runs" for one in executions if one.how == "running"]
    return findings


def _check_instance(
    instance: int, executions: Sequence[Execution], elements: Sequence[str], *, complete: bool
) -> list[str]:
    """Its tasks were executed in their order, each went on from one result of the one before, none is missing."""
    problems = []
    finished = {execution.token: execution for execution in executions if execution.how == "end"}
    counting: tuple[str, ...] = max((execution.tokens for execution in executions), key=len, default=())
    for execution in executions:
        position = elements.index(execution.element)
        if len(execution.tokens) != position:
            problems.append(f"{_name(execution)} had the results of {len(execution.tokens)} tasks")
        if execution.tokens != counting[: len(execution.tokens)]:
            problems.append(f"{_name(execution)} went on from a second result of a task before it")
    for position, token in enumerate(counting):
        result = finished.get(token)
        if position >= len(elements) or result is None or result.element != elements[position]:
            problems.append(f"instance {instance} went on from its task {position + 1} without a result of it")
    for position in range(1, len(elements)):
        later = [one.started for one in executions if one.element == elements[position]]
        earlier = [one.ended for one in executions if one.element == elements[position - 1] and one.how == "end"]
        if later and not (earlier and min(earlier) <= min(later)):
            problems.append(f"instance {instance} reached {elements[position]} before {elements[position - 1]} ended")
    if complete:
        done = {execution.element for execution in finished.values()}
        problems += [f"instance {instance} never ended {element}" for element in elements if element not in done]
    return problems


def find_overlaps(executions: Iterable[Execution]) -> list[Overlap]:
    """Executions of one job that began before an earlier one had ended."""
    found: list[Overlap] = []
    by_job: dict[int, list[Execution]] = defaultdict(list)
    for execution in executions:
        found += [Overlap(earlier, execution) for earlier in by_job[execution.job] if execution.started < earlier.ended]
        by_job[execution.job].append(execution)
    return found


def _excuses(pause: Pause, overlap: Overlap) -> bool:
    return any(
        execution.pid == pause.pid and pause.begin <= execution.ended and pause.end >= execution.started
        for execution in (overlap.first, overlap.second)
    )


def _leased_at(execution: Execution, at: float) -> bool:
    return execution.started - QUEUED < at < execution.ended


def _name(execution: Execution) -> str:
    return f"{execution.element} of instance {execution.instance} (job {execution.job}, process {execution.pid})"


def _describe(overlap: Overlap) -> str:
    first, second = overlap.first, overlap.second
    return (
        f"{_name(first)} from {first.started:.3f} to {first.ended:.3f} ({first.how}) overlaps with the execution from "
        f"{second.started:.3f} to {second.ended:.3f} ({second.how}) in process {second.pid}"
    )
