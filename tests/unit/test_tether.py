"""A child process tied to its parent's life."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from prokos.engine.tether import PARENT_IS_GONE, tethered

PARENT = """
import subprocess, sys
from prokos.engine.tether import tethered
child = subprocess.Popen(tethered(["/bin/sh", "-c", "echo $$; exec sleep 60"]), start_new_session=True)
child.wait()
"""

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the request to the kernel is Linux' own")


def test_the_command_keeps_pid_arguments_and_exit_code() -> None:
    process = subprocess.Popen(
        tethered(["/bin/sh", "-c", 'echo $$ "$1"; exit 7', "sh", "a b"]), stdout=subprocess.PIPE, text=True
    )
    output, _ = process.communicate()
    assert output == f"{process.pid} a b\n"
    assert process.returncode == 7


def test_the_command_dies_with_its_parent() -> None:
    parent = subprocess.Popen([sys.executable, "-c", PARENT], stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    assert parent.stdout.readline().strip().isdigit()
    parent.send_signal(signal.SIGKILL)
    parent.wait()
    # The pipe's other end is closed when the last process that holds it, the child, is gone.
    assert parent.stdout.read() == ""
    parent.stdout.close()


def test_a_command_whose_parent_is_gone_already_does_not_start() -> None:
    command = tethered(["/bin/echo", "started"])
    command[command.index(str(os.getpid()))] = "1" if os.getpid() != 1 else "2"
    process = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (process.returncode, process.stdout) == (PARENT_IS_GONE, "")


def test_an_idle_command_gets_only_spare_processor_time() -> None:
    process = subprocess.Popen(tethered(["/bin/sleep", "60"], idle=True))
    try:
        while Path(f"/proc/{process.pid}/exe").resolve() == Path(sys.executable).resolve():
            os.sched_yield()
        assert os.sched_getscheduler(process.pid) == os.SCHED_IDLE
    finally:
        process.kill()
        process.wait()
