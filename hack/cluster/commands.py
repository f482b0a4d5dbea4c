"""Other programs: run to their end, with what they said as the error when they fail."""

from __future__ import annotations

import os
import subprocess
import time
from typing import TYPE_CHECKING

from hack.cluster.settings import ClusterError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

POLL_INTERVAL = 0.2
"""Seconds between two looks at something that takes a while."""


def run(
    *command: str | Path,
    stdin: str | None = None,
    cwd: Path | None = None,
    environment: Mapping[str, str] | None = None,
    timeout: float = 600,
) -> str:
    """What a program printed to standard output.

    Args:
        command: The program and its arguments.
        stdin: What it reads.
        cwd: Where it runs.
        environment: Variables to add to ours.
        timeout: Seconds it may take.

    Raises:
        ClusterError: It is not installed, failed, or took too long.
    """
    arguments = [str(argument) for argument in command]
    try:
        done = subprocess.run(
            arguments,
            input=stdin,
            cwd=cwd,
            env={**os.environ, **(environment or {})},
            timeout=timeout,
            capture_output=True,
            text=True,
            check=False,
        )
    except FileNotFoundError as error:
        raise ClusterError(f"{arguments[0]} is not installed") from error
    except subprocess.TimeoutExpired as error:
        raise ClusterError(f"{' '.join(arguments)} has not ended after {timeout:.0f} s") from error
    if done.returncode:
        said = (done.stderr.strip() or done.stdout.strip())[-4000:]
        raise ClusterError(f"{' '.join(arguments)} failed with exit code {done.returncode}: {said}")
    return done.stdout


def succeeds(*command: str | Path, timeout: float = 60) -> bool:
    """Whether a program is there and ends with success."""
    try:
        run(*command, timeout=timeout)
    except ClusterError:
        return False
    return True


def wait_until(condition: Callable[[], bool], what: str, timeout: float) -> None:
    """Wait for something that takes a while.

    Raises:
        ClusterError: It is not so after `timeout` seconds.
    """
    deadline = time.monotonic() + timeout
    while not condition():
        if time.monotonic() > deadline:
            raise ClusterError(f"{what}: not so after {timeout:.0f} s")
        time.sleep(POLL_INTERVAL)
