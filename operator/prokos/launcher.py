"""Starting programs that die with us, however we die.

A program is started through this file, which asks the kernel (Linux) to kill it with its parent and then becomes
it. Doing that between fork and exec instead would run Python in a copy of a process whose other threads, gRPC's
among them, were cut off in whatever they did: now and then that crashes.
"""

import ctypes
import os
import signal
import sys

PR_SET_PDEATHSIG = 1
"""From linux/prctl.h."""


def tied(*argv: str) -> tuple[str, ...]:
    """The command that runs `argv` as a child that dies with this process."""
    return (sys.executable, "-I", "-S", __file__, str(os.getpid()), *argv)


def main() -> None:
    """Tie this process to its parent, then become the program."""
    parent, program = int(sys.argv[1]), sys.argv[2:]
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        sys.exit("the parent was gone already")
    os.execvp(program[0], program)  # noqa: S606 - no shell is wanted


if __name__ == "__main__":
    main()
