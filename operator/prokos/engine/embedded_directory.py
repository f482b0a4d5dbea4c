"""The embedded engine's data directory: it belongs to one engine at a time, and needs room."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import shutil
import time
from typing import TYPE_CHECKING

from prokos.engine.distribution import EngineSetupError
from prokos.engine.embedded_settings import FREE_DISK_MB

if TYPE_CHECKING:
    from pathlib import Path

LOCK_FILE = "engine.lock"

LOCK_PATIENCE = 2.0
"""Seconds to wait for the lock: when a supervisor was killed, its broker is being killed, and takes a moment to end."""


class DataInUseError(EngineSetupError):
    """Another engine works on the same data directory."""


async def take_lock(data: Path) -> int:
    """Take a data directory for us; the file descriptor that holds it.

    The broker inherits the descriptor: the lock is held until both are gone, also when we are killed.
    """
    deadline = time.monotonic() + LOCK_PATIENCE
    while (lock := _try_lock(data)) is None:
        if time.monotonic() > deadline:
            raise DataInUseError(
                f"another engine works on {data} ({_read_holder(data)}); stop it, or choose another directory"
            )
        await asyncio.sleep(0.1)
    return lock


def _try_lock(data: Path) -> int | None:
    path = data / LOCK_FILE
    try:
        data.mkdir(parents=True, exist_ok=True, mode=0o700)
        lock = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    except OSError as error:
        raise EngineSetupError(f"cannot keep the engine's state in {data}: {error.strerror}") from error
    with contextlib.suppress(BlockingIOError, FileNotFoundError):
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        # An engine that keeps no state removes the file when it ends; what we hold must be the one that is there.
        if os.fstat(lock).st_ino == path.stat().st_ino:
            return lock
    os.close(lock)
    return None


def write_holder(lock: int, pid: int) -> None:
    """Leave in the lock file who holds it, for the one who is refused."""
    os.ftruncate(lock, 0)
    os.pwrite(lock, f"java process {pid}, started by process {os.getpid()}\n".encode(), 0)


def _read_holder(data: Path) -> str:
    try:
        return (data / LOCK_FILE).read_text().strip() or "just starting"
    except OSError:
        return "just ending"


def remove(directory: Path) -> None:
    """Remove a directory as far as it can be."""
    # A JVM that was just killed may still be seen writing; what is left then is removed at the next start.
    shutil.rmtree(directory, ignore_errors=True)


def lack_of_disk(data: Path) -> str:
    """Says so when the disk of a data directory is too full for the engine to work; empty when it is not."""
    free = shutil.disk_usage(data).free >> 20
    if free >= FREE_DISK_MB:
        return ""
    return f"the disk is full: {free} MB are free at {data}, and the engine does nothing below {FREE_DISK_MB} MB"
