"""The directories of one task: its own, and one in memory for the secrets that it gets as files.

While a task runs, its worker holds a lock on them, so that a later worker can tell what was left behind when both
worker and guardian were killed.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from prokos.tde.script.files import remove

if TYPE_CHECKING:
    from collections.abc import Mapping

PREFIX = "prokos-task-"
MEMORY_FILES = Path("/dev/shm")  # noqa: S108 - directories in it get random names and are for their owner alone
"""Where Linux keeps files that never reach a disk."""
STALE = 60.0
"""Seconds without a change and without a lock, after which a directory belongs to nobody."""


@dataclass(frozen=True, slots=True)
class Workspace:
    """Directories that exist as long as the attempt, for their owner alone."""

    scratch: Path
    secrets: Path | None
    """Directory of the secret files; None if there are none."""
    locks: tuple[int, ...]

    @property
    def home(self) -> Path:
        """Directory that the program may fill."""
        return self.scratch / "home"

    @property
    def directories(self) -> list[Path]:
        """All of them."""
        return [self.scratch, self.secrets] if self.secrets else [self.scratch]

    def remove(self) -> None:
        """Remove them, whatever the program did to them; may take long."""
        for directory in reversed(self.directories):
            remove(str(directory))
        for lock in self.locks:
            os.close(lock)


def make_workspace(secret_files: Mapping[str, str]) -> Workspace:
    """Make the directories of one task.

    Args:
        secret_files: Contents by file name.
    """
    scratch, lock = _directory(None)
    (scratch / "home").mkdir(mode=0o700)
    if not secret_files:
        return Workspace(scratch, None, (lock,))
    secrets, second_lock = _directory(MEMORY_FILES if os.access(MEMORY_FILES, os.W_OK | os.X_OK) else None)
    workspace = Workspace(scratch, secrets, (lock, second_lock))
    try:
        for name, value in secret_files.items():
            with open(secrets / name, "w", opener=_private, encoding="utf-8") as file:
                # Secrets are read without the last line break, which programs that read keys insist on.
                file.write(f"{value}\n" if "\n" in value and not value.endswith("\n") else value)
    except BaseException:
        workspace.remove()
        raise
    return workspace


def _private(path: str, flags: int) -> int:
    return os.open(path, flags, mode=0o600)


def _directory(parent: Path | None) -> tuple[Path, int]:
    path = Path(tempfile.mkdtemp(prefix=PREFIX, dir=parent))
    lock = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    fcntl.flock(lock, fcntl.LOCK_SH)
    return path, lock


def sweep() -> None:
    """Remove what tasks left whose worker and guardian were killed; may take long."""
    for parent in (Path(tempfile.gettempdir()), MEMORY_FILES):
        for directory in parent.glob(f"{PREFIX}*"):
            with contextlib.suppress(OSError):
                if _is_stale(directory):
                    remove(str(directory))


def _is_stale(directory: Path) -> bool:
    status = directory.lstat()
    if status.st_uid != os.geteuid() or time.time() - status.st_mtime < STALE:
        return False
    lock = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    finally:
        os.close(lock)
    return True
