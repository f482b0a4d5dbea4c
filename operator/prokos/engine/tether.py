"""Ties a child process to its parent's life: a program that becomes the child after asking the kernel for it.

A supervisor killed by SIGKILL cannot stop its children; so the kernel is asked, by prctl, to kill a child when its
parent dies. The request must come from the child itself, and outlives an exec. A `preexec_fn` would be the usual place
for it, but that makes Python fork, and gRPC's fork handlers then start threads in the child, which abort it now and
then (`epoll_wait error: Bad file descriptor`, grpcio 1.85). Without one Python uses vfork, which is safe; and so the
child is first this program, run by its path without site packages (30 ms), and then the command, under the same pid.
Linux only; elsewhere nothing is asked for and the child is just started.
"""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

PR_SET_PDEATHSIG = 1
SIGKILL = 9
"""Both from Linux' headers; importing `signal` for it would cost more than the rest."""

PARENT_IS_GONE = 143
"""Exit code when the parent died before the request was made; nobody is left to read it."""


def tethered(command: Sequence[str], *, idle: bool = False) -> list[str]:
    """The command line that runs `command` as a process that dies with its parent, the caller.

    Args:
        command: Program, as an absolute path, and its arguments.
        idle: Run it only when nothing else wants the processor.
    """
    priority = "idle" if idle else "normal"
    return [sys.executable, "-I", "-S", __file__, str(os.getpid()), priority, *command]


def main(parent: str, priority: str, *command: str) -> None:
    """Become `command`."""
    if sys.platform == "linux":
        import ctypes

        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, SIGKILL)
        if os.getppid() != int(parent):
            sys.exit(PARENT_IS_GONE)
        if priority == "idle":
            os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))
    os.execv(command[0], command)  # noqa: S606  # running programs is what this is for


if __name__ == "__main__":
    main(*sys.argv[1:])
