"""The node's processes. They outlive the program that starts them; a file each says which process it is."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

from hack.cluster.commands import wait_until
from hack.cluster.settings import ClusterError

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from hack.cluster.settings import Node

STOP_TIMEOUT = 10.0
"""Seconds a process gets to end before it is killed."""

LAST_LINES = 5
"""How much of a log goes into the message when a process has ended too early."""


def ensure_started(node: Node, name: str, command: Sequence[str | Path]) -> None:
    """Start a process if it does not run yet."""
    if is_running(node, name):
        return
    for directory in (node.logs, node.processes):
        directory.mkdir(parents=True, exist_ok=True)
    with (node.logs / f"{name}.log").open("ab") as log:
        process = subprocess.Popen(
            [str(argument) for argument in command],
            cwd=node.directory,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    (node.processes / name).write_text(f"{process.pid} {_start_time(process.pid)}")


def is_running(node: Node, name: str) -> bool:
    """Whether the process that was started under this name is alive."""
    return _running_pid(node, name) is not None


def check_running(node: Node, names: Iterable[str]) -> None:
    """See that none has ended.

    Raises:
        ClusterError: One has; the message has the end of its log.
    """
    for name in names:
        if not is_running(node, name):
            log = node.logs / f"{name}.log"
            last = log.read_text(errors="replace").splitlines()[-LAST_LINES:]
            raise ClusterError(f"{name} has ended; the end of {log}: {' | '.join(last)}")


def stop(node: Node, *names: str, grace: float = STOP_TIMEOUT) -> None:
    """End processes, with force if they take longer than `grace` seconds; without effect on those that do not run."""
    end([pid for name in names if (pid := _running_pid(node, name)) is not None], grace)
    for name in names:
        (node.processes / name).unlink(missing_ok=True)


def end(pids: Iterable[int], grace: float = STOP_TIMEOUT) -> None:
    """End processes by their ids: first politely, after `grace` seconds with force."""
    remaining = {pid: _start_time(pid) for pid in pids}

    def all_ended() -> bool:
        return all(started is None or _start_time(pid) != started for pid, started in remaining.items())

    _signal(remaining, signal.SIGTERM)
    with contextlib.suppress(ClusterError):
        wait_until(all_ended, "processes end", grace)
        return
    _signal([pid for pid, started in remaining.items() if _start_time(pid) == started], signal.SIGKILL)
    wait_until(all_ended, "killed processes end", STOP_TIMEOUT)


def find_processes(program: str, argument: str) -> list[int]:
    """Ids of the processes of a program that were given an argument."""
    found = []
    for directory in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            name, *arguments = (directory / "cmdline").read_bytes().decode(errors="replace").split("\0")
            if Path(name).name == program and argument in arguments:
                found.append(int(directory.name))
    return found


def _running_pid(node: Node, name: str) -> int | None:
    with contextlib.suppress(OSError, ValueError):
        pid, started = (node.processes / name).read_text().split()
        if _start_time(int(pid)) == started:
            return int(pid)
    return None


def _start_time(pid: int) -> str | None:
    """When a process was started, in clock ticks since the machine was: with it, an id that is used again is told."""
    try:
        # The second field is the program's name in parentheses and may contain anything.
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    state, started = fields[0], fields[19]
    return None if state == "Z" else started


def _signal(pids: Iterable[int], number: signal.Signals) -> None:
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)
