"""Processes as /proc shows them: who descends from whom, what they use, and signals to all of them.

Runs in the server that starts scripts: standard library only.
"""

from __future__ import annotations

import contextlib
import os
import re
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    import signal
    from collections.abc import Iterable

_TICKS = os.sysconf("SC_CLK_TCK")
_PAGE = os.sysconf("SC_PAGE_SIZE")
_PSS = re.compile(rb"^Pss:\s+(\d+) kB", re.MULTILINE)


class Process(NamedTuple):
    """One process."""

    parent: int
    group: int
    threads: int
    seconds: float
    """Processor time, that of its children included which have ended and been waited for."""
    resident: int
    """Bytes, pages that it shares with others included."""


def scan() -> dict[int, Process]:
    """Read all processes there are; costs about 15 microseconds each."""
    found = {}
    for name in os.listdir("/proc"):  # noqa: PTH208 - pathlib would double the cost
        if name.isdigit():
            try:
                with open(f"/proc/{name}/stat", "rb") as stat:  # noqa: PTH123
                    # The second field is the program's name in parentheses; it may hold anything.
                    fields = stat.read().rpartition(b")")[2].split()
            except OSError:
                continue  # it has ended meanwhile
            times = sum(map(int, fields[11:15]))  # utime, stime, cutime, cstime of proc(5)
            found[int(name)] = Process(
                int(fields[1]), int(fields[2]), int(fields[17]), times / _TICKS, int(fields[21]) * _PAGE
            )
    return found


def descendants(processes: dict[int, Process], ancestor: int) -> dict[int, Process]:
    """Those that descend from one."""
    children: dict[int, list[int]] = {}
    for number, process in processes.items():
        children.setdefault(process.parent, []).append(number)
    found: dict[int, Process] = {}
    waiting = [ancestor]
    while waiting:
        for child in children.get(waiting.pop(), ()):
            if child not in found:  # a number that was given anew while we read could make a circle
                found[child] = processes[child]
                waiting.append(child)
    return found


def send(processes: dict[int, Process], number: signal.Signals) -> None:
    """Send a signal to processes that descend from this one, and to their process groups.

    By group, because the kernel signals a group at once: a process that forks and ends all the time would be gone
    from the list before its turn.
    """
    ours = os.getpgrp()
    for group in {process.group for process in processes.values()} - {ours}:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(group, number)
    for process, at in processes.items():
        if at.group == ours:  # it has not yet left the server's group
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(process, number)


def proportional_memory(processes: Iterable[int]) -> int | None:
    """Bytes that processes use, pages that several share divided among them. None where the kernel does not tell."""
    total = 0
    for process in processes:
        try:
            with open(f"/proc/{process}/smaps_rollup", "rb") as rollup:  # noqa: PTH123
                found = _PSS.search(rollup.read())
        except (FileNotFoundError, ProcessLookupError):
            continue  # it has ended meanwhile
        except OSError:
            return None
        total += int(found.group(1)) * 1024 if found else 0
    return total
