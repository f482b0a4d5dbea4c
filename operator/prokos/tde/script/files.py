"""Directories that a script has filled: how much lies in them, and removing them whatever was done to them.

Runs in the worker and in the server that starts scripts: standard library only.
"""

from __future__ import annotations

import contextlib
import errno
import os
import shutil

_FILE_COST = 4096
"""Bytes that each file and directory counts at least: names without content fill a disk too."""


def exceeds(directory: str, limit: int) -> bool:
    """Whether all that lies in a directory, as far as it can be read, takes more than `limit` bytes of the disk."""
    used = 0
    waiting = [directory]
    while waiting:
        try:
            with os.scandir(waiting.pop()) as entries:
                for entry in entries:
                    used += max(entry.stat(follow_symlinks=False).st_blocks * 512, _FILE_COST)
                    if used > limit:
                        return True
                    if entry.is_dir(follow_symlinks=False):
                        waiting.append(entry.path)
        except OSError as error:
            if error.errno == errno.ENAMETOOLONG:  # nobody nests so deeply but to hide, or by a mistake without end
                return True
            # Otherwise it is gone, or its owner has locked it.
    return False


def remove(directory: str) -> None:
    """Remove a directory, also where its owner has locked it or nested it beyond Python's stack."""
    with contextlib.suppress(RecursionError):
        shutil.rmtree(directory, ignore_errors=True)
    if os.path.lexists(directory):
        import subprocess

        # These tools follow no links within the tree, however it was made.
        subprocess.run(["chmod", "-R", "u+rwx", "--", directory], capture_output=True, check=False)
        subprocess.run(["rm", "-rf", "--", directory], capture_output=True, check=False)
