"""What the program of one task may use, and how it is held to that.

The kernel limits each process (`setrlimit`); what only all processes together exceed is noticed by the server, which
looks every `WATCH_SECONDS`, and for the disk by the guardian. Runs in both: standard library only.
"""

from __future__ import annotations

import math
import resource
import signal
from typing import NamedTuple

from .processes import Process, proportional_memory

WATCH_SECONDS = 0.1
"""How often the server looks at what the programs use."""

SIGNALS = {"processes": signal.SIGUSR1, "memory": signal.SIGUSR2, "cpu": signal.SIGALRM}
"""By which the server tells a guardian that its program has exceeded a limit."""


RESERVED = 2**30
"""Bytes that a process may reserve beyond its memory: the stack of each thread takes 8 MiB of addresses, V8 half a
gibibyte for code, hardly any of it in use. It bounds what a program can take between two looks."""


class Limits(NamedTuple):
    """In bytes, seconds and numbers."""

    memory: int
    cpu: float | None
    processes: int
    open_files: int
    file_size: int
    disk: int


def hold_back() -> None:
    """Keep the signals waiting, until a guardian is ready for them: they would end it."""
    signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS.values())


def let_through() -> None:
    """Take the signals that wait, and those that come."""
    signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS.values())


def apply(limits: Limits) -> None:
    """Have the kernel limit this process and those it will start."""
    _limit(resource.RLIMIT_CORE, 0)  # a core dump would hold secrets and fill the disk
    # Not RLIMIT_AS: V8, the JVM and Go reserve far more addresses than they ever use.
    _limit(resource.RLIMIT_DATA, limits.memory + RESERVED)
    _limit(resource.RLIMIT_FSIZE, limits.file_size)
    _limit(resource.RLIMIT_NOFILE, limits.open_files)
    if limits.cpu is not None:
        _limit(resource.RLIMIT_CPU, math.ceil(limits.cpu), grace=1)  # SIGXCPU, and SIGKILL a second later


def _limit(kind: int, value: int, grace: int = 0) -> None:
    _, highest = resource.getrlimit(kind)
    if highest != resource.RLIM_INFINITY:
        value = min(value, highest)
        grace = min(grace, highest - value)
    resource.setrlimit(kind, (value, value + grace))


def exceeded(limits: Limits, guardian: Process, family: dict[int, Process]) -> str | None:
    """The limit that a guardian's program exceeds; None for none."""
    if sum(process.threads for process in family.values()) > limits.processes:
        return "processes"
    if limits.cpu is not None:
        # What has ended and been waited for counts with whoever waited, at last with the guardian.
        seconds = guardian.seconds + sum(process.seconds for process in family.values())
        if seconds > limits.cpu:
            return "cpu"
    resident = sum(process.resident for process in family.values())
    if resident > limits.memory:  # the cheap figure is too high: it counts shared pages several times
        precise = proportional_memory(family)
        if precise is None or precise > limits.memory:
            return "memory"
    return None
